"""How each header is read: what it adds to the packet's row, and which header follows.

decode.py      FrameBlock -> Packets in one kernel call
cursor.py      the row being built, the place reached, numbers in network byte order
link.py        Ethernet, VLAN, MPLS, PPP, PPPoE, LLC, Linux' and the loopback devices' headers
network.py     ARP, IPv4, IPv6 and its extension headers
transport.py   TCP, UDP, ICMP, SCTP, DCCP, and the ways into tunnels
"""
