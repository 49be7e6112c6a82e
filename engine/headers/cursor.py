"""State that passes through the headers of a frame: the row being built and the place reached.

The function of a header reads the bytes, writes what it learned to the row, moves the cursor, and returns the
header that follows. Lengths are compared with the frame on the wire, bytes are read from the captured part.
It writes to the row only after its header passed its checks, so a row always describes the last header that
could be trusted. Records, not tuples: numba passes them by address, and both stay in the first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.types import KIND_MASK, PACKET_DTYPES, UNOPENED, Kind, Reason

Bytes = NDArray[np.uint8]

ROW = np.dtype([(name, kind) for name, kind in PACKET_DTYPES.items() if name != "ts"], align=True)
CURSOR = np.dtype(
    [
        ("at", "i8"),  # index of the next header
        ("end", "i8"),  # index after the last byte that may be read
        ("wire_end", "i8"),  # the same, if the frame had been captured in full
        (
            "what",
            "i8",
        ),  # type of the next header, by the last one; before 802.11: whether its header is padded
        ("depth", "i8"),  # encapsulations so far
        ("inner", "i8"),  # KIND_INNER inside a tunnel
        ("max_depth", "i8"),
        ("tunnels", "i8"),  # sum of TUNNELS to decode
        ("vxlan_port", "i8"),
    ],
    align=True,
)

# The tunnels, each by the reason for which it is not opened; CURSOR.tunnels has a bit for each that is.
(
    R_GRE, R_IPIP, R_6IN4, R_VXLAN, R_GTP, R_GENEVE, R_TEREDO, R_AYIYA, R_TZSP, R_VXLAN_GPE,
) = (int(Reason[reason.upper()]) for reason in UNOPENED)  # fmt: skip
TUNNELS = {tunnel: 1 << Reason[reason.upper()] for reason, tunnel in UNOPENED.items()}

# The headers that can follow. Plain numbers: numba freezes them into the code.
(
    DONE, TO_ETHERNET, TO_ETHERTYPE, TO_LLC, TO_MPLS, TO_PPPOE, TO_PPP, TO_IP, TO_IPV4, TO_IPV6, TO_ARP,
    TO_EXTENSIONS, TO_PROTOCOL, TO_TCP, TO_PORTS, TO_GRE, TO_VXLAN, TO_GTP, TO_GENEVE, TO_GRE_IN_UDP,
    TO_VXLAN_GPE, TO_TEREDO, TO_AYIYA, TO_TZSP, TO_IPIP, TO_6IN4, TO_NULL, TO_SLL, TO_SLL2, TO_CHDLC,
    TO_NFLOG, TO_PFLOG, TO_PKTAP, TO_USER2, TO_PPI, TO_RADIOTAP, TO_PRISM, TO_WIFI, TO_BRCM,
    TO_BRCM_PREPEND, TO_DSA, TO_EDSA, TO_ENC, TO_IPNET, TO_IPOIB, TO_FRELAY, TO_DIRECTED_PPP, TO_PPPD,
    TO_DIRECTED_CHDLC, TO_DIRECTED_FRELAY, TO_NETANALYZER, TO_NETANALYZER_TRANSPARENT, TO_UNKNOWN,
) = range(53)  # fmt: skip
LAST_TUNNEL = TO_6IN4

K_LINK, K_ARP, K_IPV4, K_IPV6 = int(Kind.LINK), int(Kind.ARP), int(Kind.IPV4), int(Kind.IPV6)
(
    R_OK, R_LINK_TYPE, R_LINK_TRUNCATED, R_LINK_PROTOCOL, R_IP_TRUNCATED, R_IP_VERSION, R_IP_LENGTH,
    R_IP_EXTENSION, R_ARP_TRUNCATED, R_TRANSPORT_TRUNCATED, R_TRANSPORT_LENGTH, R_TUNNEL_DEPTH,
    R_ENCAPSULATION, R_ENCRYPTED, R_CORRUPT, R_LINK_PARTIAL,
) = (int(reason) for reason in Reason if reason < Reason.TUNNEL_GRE)  # fmt: skip


@kernel
def u8(data: Bytes, at: int) -> int:
    """The byte at `at` >= 0: an unsigned index saves numba's test for negative ones."""
    return int(np.int64(data[np.uint64(at)]))


@kernel
def u16(data: Bytes, at: int) -> int:
    return u8(data, at) << 8 | u8(data, at + 1)


@kernel
def u32(data: Bytes, at: int) -> int:
    return u16(data, at) << 16 | u16(data, at + 2)


@kernel
def u48(data: Bytes, at: int) -> int:
    return u16(data, at) << 32 | u32(data, at + 2)


@kernel
def u64(data: Bytes, at: int) -> np.uint64:
    return np.uint64(u32(data, at)) << np.uint64(32) | np.uint64(u32(data, at + 4))


@kernel
def le16(data: Bytes, at: int) -> int:
    return u8(data, at + 1) << 8 | u8(data, at)


@kernel
def le32(data: Bytes, at: int) -> int:
    return le16(data, at + 2) << 16 | le16(data, at)


@kernel
def fail(row: Any, reason: int) -> int:
    """Note why the frame is read no further; the first reason stays."""
    if row["reason"] == R_OK:
        row["reason"] = reason
    return DONE


@kernel
def forget(row: Any) -> None:
    """Forget the network and transport layer of an outer header, if there was one."""
    if row["kind"] & KIND_MASK > K_LINK:
        clear(row)


@kernel
def clear(row: Any) -> None:
    """Forget the network and transport layer."""
    row["kind"] = 0
    row["src_hi"] = 0
    row["src_lo"] = 0
    row["dst_hi"] = 0
    row["dst_lo"] = 0
    row["sport"] = 0
    row["dport"] = 0
    row["proto"] = 0
    row["ttl"] = 0
    row["tcp_flags"] = 0
    row["ip_size"] = 0
    row["payload"] = 0
    row["seq"] = 0
    row["ack"] = 0
    row["window"] = 0
    row["ip_id"] = 0
    row["checksum"] = 0
