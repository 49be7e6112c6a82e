"""Packets in blocks, as they travel from sensor to detector.

The laws of blocks (each one a property test in tests/property/test_laws.py):

1. Order within a block is capture order.
2. A gap in ``seq`` is counted as loss, an overlap as packets that were published again.
3. Cutting a stream into other blocks changes no score.
4. decode(encode(block)) equals block.
5. Row i of packets and features is the same packet; a packet score names its packet, since a model may hold one back.
6. Blocks are never changed in place: a stage makes a new one.
7. Scores do not depend on how many consumers there are, nor on a crash and restart in between.
8. A model beside another changes no row of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[Any]  # a structured array: numpy's types cannot name its fields

NS = 1e-9  # seconds in a nanosecond


class Kind(IntEnum):
    """The network layer of a packet: low nibble of the ``kind`` column."""

    UNREAD = 0  # nothing is known but time and size
    LINK = 1  # a link header with two MACs, and neither ARP nor IP after it
    ARP = 2
    IPV4 = 3
    IPV6 = 4


ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132  # values of the ``proto`` column that have a name here
FIN, SYN, RST, ACK = 1, 2, 4, 16  # bits of the ``tcp_flags`` column

KIND_MASK = 0x0F
KIND_FRAGMENT = 0x10  # any fragment but the first: no ports, no transport header
KIND_FIRST_FRAGMENT = 0x20  # the first of several fragments: ports known, payload of this fragment only
KIND_INNER = 0x40  # the packet inside a tunnel, without the outer headers
KIND_TRANSPORT = 0x80  # enough of the transport header was read: ports (and TCP fields) are valid


class Reason(IntEnum):
    """Why a frame could not be read to the end: the ``reason`` column. All that comes before is valid."""

    OK = 0
    LINK_TYPE = 1  # a link type without a decoder
    LINK_TRUNCATED = 2  # the frame ends inside its link header
    LINK_PROTOCOL = 3  # read up to the link layer: neither ARP nor IP follows (informative, not an error)
    IP_TRUNCATED = 4  # the frame ends inside the IP header
    IP_VERSION = 5  # the version nibble is neither 4 nor 6, or contradicts the link header
    IP_LENGTH = 6  # header or total length below the minimum, or above what the frame holds on the wire
    IP_EXTENSION = 7  # an IPv6 extension chain that is broken or longer than the limit
    ARP_TRUNCATED = 8
    TRANSPORT_TRUNCATED = 9  # the packet ends inside the TCP, UDP or ICMP header
    TRANSPORT_LENGTH = 10  # a TCP data offset or UDP length that contradicts the IP length
    TUNNEL_DEPTH = 11  # more nested headers than the limit
    ENCAPSULATION = 12  # a broken header before IP (VLAN, MPLS, PPPoE, 802.11, NFLOG …) or of a tunnel
    ENCRYPTED = 13  # an 802.11 frame whose payload is encrypted
    CORRUPT = 14  # a frame that was received damaged, as the capture itself says
    LINK_PARTIAL = 15  # a later fragment of an 802.11 frame, or the first of several packets in one frame
    TUNNEL_GRE = 16  # from here on: read up to a tunnel that decode.tunnels does not name
    TUNNEL_IPIP = 17
    TUNNEL_6IN4 = 18
    TUNNEL_VXLAN = 19
    TUNNEL_GTP = 20
    TUNNEL_GENEVE = 21
    TUNNEL_TEREDO = 22
    TUNNEL_AYIYA = 23
    TUNNEL_TZSP = 24
    TUNNEL_VXLAN_GPE = 25


# tunnels, as decode.tunnels names them, by the reason for which their inner packet was not read
UNOPENED = {r.name.lower(): r.name.lower().removeprefix("tunnel_") for r in Reason if r >= Reason.TUNNEL_GRE}
NO_LOSS = frozenset({Reason.LINK_PROTOCOL.name.lower(), *UNOPENED})  # counted, but no loss to the user


class Packets(NamedTuple):
    """Columns of n packets in capture order, one row a frame; read-only once built.

    Addresses are 128 bits in two words, most significant first; IPv4 is mapped into IPv6 (::ffff:a.b.c.d,
    so hi = 0 and lo = 0xFFFF << 32 | address). A value that the packet lacks is 0.
    """

    ts: NDArray[np.int64]  # ns since the epoch, UTC, as captured (a float64 cannot hold it)
    src_hi: NDArray[np.uint64]
    src_lo: NDArray[np.uint64]
    dst_hi: NDArray[np.uint64]
    dst_lo: NDArray[np.uint64]
    src_mac: NDArray[np.uint64]  # 48 bits, right-aligned
    dst_mac: NDArray[np.uint64]
    sport: NDArray[np.uint16]  # ICMP: the type; ARP: the operation
    dport: NDArray[np.uint16]  # ICMP: the code
    proto: NDArray[np.uint8]  # IP protocol number (IPv6: after the extension headers); 0 when not IP
    ttl: NDArray[np.uint8]  # or hop limit
    tcp_flags: NDArray[np.uint8]  # FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128
    kind: NDArray[np.uint8]  # Kind in the low nibble, KIND_ bits above
    reason: NDArray[np.uint8]  # Reason
    size: NDArray[np.uint32]  # bytes on the wire, link header included
    ip_size: NDArray[np.uint32]  # bytes of the IP packet by its own length field (wire when that is 0: TSO)
    payload: NDArray[np.uint32]  # bytes after the transport header, by the IP length, captured or not
    seq: NDArray[np.uint32]
    ack: NDArray[np.uint32]
    window: NDArray[np.uint16]  # unscaled
    ip_id: NDArray[np.uint16]  # IPv4 identification; IPv6: low half of the fragment's, else 0
    probe: NDArray[np.uint32]  # probe id, 0 = none
    vlan: NDArray[
        np.uint32
    ]  # VLAN id (12 bits) of the outer tag, from bit 16 that of the tag in it; 0 = none
    ethertype: NDArray[
        np.uint16
    ]  # EtherType of what follows the link header; up to 255: DSAP of an LLC header
    checksum: NDArray[
        np.uint16
    ]  # of TCP, UDP or ICMP, as captured; a later fragment: its offset in units of 8 bytes


PACKET_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in (
        ("ts", "i8"), ("src_hi", "u8"), ("src_lo", "u8"), ("dst_hi", "u8"), ("dst_lo", "u8"),
        ("src_mac", "u8"), ("dst_mac", "u8"), ("sport", "u2"), ("dport", "u2"), ("proto", "u1"),
        ("ttl", "u1"), ("tcp_flags", "u1"), ("kind", "u1"), ("reason", "u1"), ("size", "u4"),
        ("ip_size", "u4"), ("payload", "u4"), ("seq", "u4"), ("ack", "u4"), ("window", "u2"),
        ("ip_id", "u2"), ("probe", "u4"), ("vlan", "u4"), ("ethertype", "u2"),
        ("checksum", "u2"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PacketBlock:
    """Packets of one sensor for one partition; one bus message."""

    sensor: str
    epoch: int  # number of the sensor's run; seq restarts with it
    seq: int  # number of the first packet in (sensor, epoch, partition), from 0; in a heartbeat, of the next packet
    packets: Packets
    now: int  # event time, ns: of these packets; in a heartbeat (an empty block), of all packets the sensor has seen
    dropped: int = 0  # packets the sensor lost since its last block; counted in one partition's block
    loss: bool = False  # whether the sensor has lost packets since this partition's last block

    def __len__(self) -> int:
        return int(self.packets.ts.size)

    @property
    def unread(self) -> dict[str, int]:
        """Number of packets not read to the end, by Reason in lower case; zeros left out."""
        return count_unread(self.packets)


def count_unread(p: Packets) -> dict[str, int]:
    """Number of packets not read to the end, by Reason in lower case; zeros left out."""
    if not p.reason.any():
        return {}
    counts = np.bincount(p.reason, minlength=len(Reason))
    return {reason.name.lower(): int(counts[reason]) for reason in Reason if reason and counts[reason]}


def unopened_tunnels(unread: Mapping[str, int]) -> dict[str, int]:
    """Packets by the tunnel that they carry and ``decode.tunnels`` does not name, from counts by reason."""
    return {tunnel: unread[reason] for reason, tunnel in UNOPENED.items() if unread.get(reason)}


def count_readable(p: Packets) -> int:
    """Packets of which more is known than time and size: those that models are given."""
    return int(np.count_nonzero((p.kind & KIND_MASK) != Kind.UNREAD))


def empty_packets(n: int = 0) -> Packets:
    """n rows of zeros."""
    return Packets._make(np.zeros(n, kind) for kind in PACKET_DTYPES.values())


def take(p: Packets, rows: NDArray[Any] | slice) -> Packets:
    """The given rows of p, in the given order."""
    return Packets._make(column[rows] for column in p)


def concatenate(parts: list[Packets]) -> Packets:
    """All rows of the parts, one after the other."""
    return Packets._make(np.concatenate(columns) for columns in zip(*parts)) if parts else empty_packets()


def freeze(p: Packets) -> Packets:
    """p with every column marked read-only (law 6)."""
    for column in p:
        column.flags.writeable = False
    return p


def raw(rows: Rows) -> Rows:
    """The same memory as rows of bytes without fields: numpy copies fields one by one, far slower."""
    plain: Rows = rows.view(np.dtype((np.void, rows.dtype.itemsize)))
    return plain


def rows_at(rows: Rows, at: NDArray[Any]) -> Rows:
    """A copy of the structured rows at these indices, or where a mask is true."""
    chosen: Rows = raw(rows)[at].view(rows.dtype)
    return chosen


def join_rows(parts: list[Rows]) -> Rows:
    """Structured arrays of one dtype as one. numpy's concatenate promotes every field first."""
    out = np.empty((sum(len(part) for part in parts), *parts[0].shape[1:]), parts[0].dtype)
    begin = 0
    for part in parts:
        raw(out)[begin : begin + len(part)] = raw(part)
        begin += len(part)
    return out


def under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def as_bytes(rows: Rows) -> NDArray[np.uint8]:
    """A copy of structured rows as (n, bytes of a row), for files of plain numbers."""
    out = np.zeros(rows.size, rows.dtype)
    for name in rows.dtype.names or ():  # not the padding between them: it may hold anything
        out[name] = rows[name]
    return (out if rows.dtype.names else rows.copy()).view(np.uint8).reshape(rows.size, rows.dtype.itemsize)


def from_bytes(data: NDArray[Any], kind: np.dtype[Any]) -> Rows:
    """(n,) rows from the bytes that ``as_bytes`` made. ValueError when the rows have another size."""
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != kind.itemsize:
        raise ValueError(f"rows of {data.shape[1:]} {data.dtype}, must be {kind.itemsize} bytes each")
    return np.ascontiguousarray(data).view(kind)[:, 0] if len(data) else np.zeros(0, kind)
