"""How each header is read: what it adds to the packet's row, and which header follows.

decode.py      FrameBlock -> Packets in one kernel call
cursor.py      the row being built, the place reached, numbers in network byte order
link.py        Ethernet, VLAN, MPLS, PPP, PPPoE, LLC
link_types.py  the names of link types
cooked.py      headers that a capture adds: Linux's, the loopback devices', NFLOG, PFLOG, PKTAP
rare.py        link headers seldom seen
wireless.py    802.11, radiotap, PPI, Prism, AVS
network.py     ARP, IPv4, IPv6 and its extension headers
transport.py   TCP, UDP, ICMP, SCTP, DCCP
tunnels.py     the ways into tunnels
"""
