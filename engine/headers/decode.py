"""Raw frames -> packet columns, in one kernel call a block. The other files here read each header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from engine.headers.cooked import rare_link
from engine.headers.cursor import (
    CURSOR,
    DONE,
    LAST_TUNNEL,
    R_OK,
    R_TUNNEL_DEPTH,
    ROW,
    TO_ARP,
    TO_ETHERNET,
    TO_ETHERTYPE,
    TO_EXTENSIONS,
    TO_IP,
    TO_IPV4,
    TO_IPV6,
    TO_LLC,
    TO_MPLS,
    TO_PORTS,
    TO_PPP,
    TO_PPPOE,
    TO_PROTOCOL,
    TO_TCP,
    TUNNELS,
    Bytes,
    clear,
)
from engine.headers.link import ethernet, ethertype, first_layer, llc, mpls, ppp, pppoe
from engine.headers.network import arp, extensions, ip, ipv4, ipv6
from engine.headers.transport import ports, protocol, tcp
from engine.headers.tunnels import tunnel
from engine.kernels import kernel
from engine.types import PACKET_DTYPES, Packets, freeze


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """Tunnels to open. A packet in any other one is reported by its outer headers, and counted."""

    # fmt: off
    tunnels: tuple[str, ...] = ()  # tunnels opened: gre, ipip, 6in4, vxlan, vxlan_gpe, gtp, geneve, teredo, ayiya, tzsp
    # fmt: on
    vxlan_port: int = 4789  # UDP port of VXLAN
    max_depth: int = 8  # most VLAN tags, label stacks and tunnels in one frame

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.tunnels) - set(TUNNELS)):
            raise ValueError(f"tunnels {unknown} must be among {sorted(TUNNELS)}")
        if not 0 < self.vxlan_port < 65536:
            raise ValueError(f"vxlan_port {self.vxlan_port} must be in 1..65535")
        if not 1 <= self.max_depth <= 64:
            raise ValueError(f"max_depth {self.max_depth} must be in 1..64")


class _Frames(NamedTuple):
    """The columns of a FrameBlock that locate its frames."""

    start: NDArray[np.int64]
    captured: NDArray[np.uint32]
    wire: NDArray[np.uint32]
    link_type: NDArray[np.uint16]


DEFAULT = DecodeConfig()


def decode(frames: FrameBlock, config: DecodeConfig = DEFAULT) -> Packets:
    """One row for each frame, in order, whatever the frame holds; probe ids are still 0."""
    p = Packets._make(np.empty(len(frames), kind) for kind in PACKET_DTYPES.values())
    p.ts[:] = frames.ts
    p.probe[:] = 0  # the kernel writes all other columns
    row, cursor = np.zeros(1, ROW), np.zeros(1, CURSOR)
    cursor["max_depth"] = config.max_depth
    cursor["tunnels"] = sum(TUNNELS[name] for name in set(config.tunnels))
    cursor["vxlan_port"] = config.vxlan_port
    where = _Frames(
        _frozen(frames.start), _frozen(frames.captured), _frozen(frames.wire), _frozen(frames.link_type)
    )
    _decode(_frozen(frames.buffer), where, cursor, row, p)
    return freeze(p)


def _frozen(column: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: numba treats a writable or strided array as another type and would compile again."""
    view = np.ascontiguousarray(column).view()
    view.flags.writeable = False
    return view


@kernel
def _decode(data: Bytes, frames: _Frames, cursor: NDArray[Any], rows: NDArray[Any], p: Packets) -> None:
    """Decode each frame into its row of p. cursor, rows: (1,) scratch, changed in place."""
    c = cursor[0]
    row = rows[0]
    for i in range(frames.start.size):
        captured = int(np.int64(frames.captured[i]))
        wire = max(captured, int(np.int64(frames.wire[i])))
        at = min(max(int(frames.start[i]), 0), data.size)
        c["at"] = at
        c["end"] = min(at + captured, data.size)
        c["wire_end"] = at + wire
        c["depth"] = 0
        c["inner"] = 0
        c["what"] = 0
        clear(row)
        row["src_mac"] = 0
        row["dst_mac"] = 0
        row["vlan"] = 0
        row["ethertype"] = 0
        row["reason"] = R_OK
        row["size"] = wire
        layer = first_layer(int(frames.link_type[i]))
        while layer != DONE:
            if c["depth"] > c["max_depth"]:
                row["reason"] = R_TUNNEL_DEPTH
                break
            if layer == TO_ETHERNET:
                layer = ethernet(data, c, row)
            elif layer == TO_ETHERTYPE:
                layer = ethertype(data, c, row)
            elif layer == TO_IPV4:
                layer = ipv4(data, c, row)
            elif layer == TO_TCP:
                layer = tcp(data, c, row)
            elif layer == TO_PORTS:
                layer = ports(data, c, row)
            elif layer == TO_IPV6:
                layer = ipv6(data, c, row)
            else:
                layer = _other(data, layer, c, row)
        _store(row, p, i)


@kernel
def _other(data: Bytes, layer: int, c: Any, row: Any) -> int:
    """A header that most packets do not have; apart from the others, which stay in one small loop."""
    if layer == TO_EXTENSIONS:
        return extensions(data, c, row)
    if layer == TO_PROTOCOL:
        return protocol(c, row)
    if layer == TO_ARP:
        return arp(data, c, row)
    if layer == TO_IP:
        return ip(data, c, row)
    if layer == TO_LLC:
        return llc(data, c, row)
    if layer == TO_MPLS:
        return mpls(data, c, row)
    if layer == TO_PPPOE:
        return pppoe(data, c, row)
    if layer == TO_PPP:
        return ppp(data, c, row)
    if layer <= LAST_TUNNEL:
        return tunnel(data, layer, c, row)
    return rare_link(data, layer, c, row)


@kernel
def _store(row: Any, p: Packets, i: int) -> None:
    """Copy the row into the columns."""
    p.src_hi[i] = row["src_hi"]
    p.src_lo[i] = row["src_lo"]
    p.dst_hi[i] = row["dst_hi"]
    p.dst_lo[i] = row["dst_lo"]
    p.src_mac[i] = row["src_mac"]
    p.dst_mac[i] = row["dst_mac"]
    p.sport[i] = row["sport"]
    p.dport[i] = row["dport"]
    p.proto[i] = row["proto"]
    p.ttl[i] = row["ttl"]
    p.tcp_flags[i] = row["tcp_flags"]
    p.kind[i] = row["kind"]
    p.reason[i] = row["reason"]
    p.size[i] = row["size"]
    p.ip_size[i] = row["ip_size"]
    p.payload[i] = row["payload"]
    p.seq[i] = row["seq"]
    p.ack[i] = row["ack"]
    p.window[i] = row["window"]
    p.ip_id[i] = row["ip_id"]
    p.vlan[i] = row["vlan"]
    p.ethertype[i] = row["ethertype"]
    p.checksum[i] = row["checksum"]
