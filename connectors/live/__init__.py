"""Interfaces: live packets and what the kernel says of them.

Belongs here: sockets, rings, privileges. Does not: decoding.

capture.py      live packets from an AF_PACKET ring
ring.py         walks the ring's blocks
bpf.py          makes its filters
sniffer.py      live packets through scapy, the portable fallback
settings.py     what live sources share: settings and counters
netdev.py       what the kernel says of interfaces
clock_steps.py  keeps the times of a live capture on one clock
privileges.py   gives up what a process was allowed
notify.py       tells systemd how it is
"""
