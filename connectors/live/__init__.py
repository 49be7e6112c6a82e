"""Network interfaces: live packets, and facts about interfaces from the kernel.

Belongs here: sockets, rings, privileges. Does not: decoding.

capture.py      live packets from an AF_PACKET ring
ring.py         reads the ring's blocks
bpf.py          its filters, and the choice of a process
sniffer.py      live packets through scapy, the portable fallback
settings.py     settings and counters that all taps share
netdev.py       facts about interfaces from the kernel
clock_steps.py  keeps packet times on one clock
privileges.py   gives up the privileges of the process
notify.py       reports the service's state to systemd
"""
