"""Packets decoded the plain way: slices of bytes, one function a header, for frames without anything special.

What is out of its reach (labels, PPP, tunnels, extension headers, rarer link types …) raises ``BeyondError``.
"""

from __future__ import annotations

from typing import Any

from engine.types import KIND_FIRST_FRAGMENT, KIND_FRAGMENT, KIND_TRANSPORT, Kind, Reason

Row = dict[str, Any]
TUNNEL_PORTS = {2152, 3544, 4754, 4789, 4790, 5072, 6081, 37008}


class BeyondError(Exception):
    """The frame has something that is not decoded here."""


class EndedError(Exception):
    """The frame is read no further, for this reason."""


class Frame:
    """Bytes that are there, and how many there were on the wire."""

    def __init__(self, data: bytes, wire: int) -> None:
        self.data, self.wire = data, max(wire, len(data))

    def need(self, size: int, reason: Reason) -> None:
        if len(self.data) < size:
            raise EndedError(reason)

    def number(self, begin: int, end: int) -> int:
        return int.from_bytes(self.data[begin:end], "big")

    def little(self, begin: int, end: int) -> int:
        return int.from_bytes(self.data[begin:end], "little")

    def after(self, size: int) -> Frame:
        return Frame(self.data[size:], max(self.wire - size, 0))

    def first(self, size: int) -> Frame:
        """Cut to this many bytes on the wire, or made longer there."""
        shorter = Frame(self.data[:size], 0)
        shorter.wire = size
        return shorter


def decoded(link_type: int, data: bytes, wire: int) -> Row:
    """The row of a frame; columns that are 0 are left out, but for ``reason``."""
    row: Row = {"size": max(wire, len(data))}
    try:
        row["reason"] = LINKS[link_type](Frame(data, wire), row) or row.get("note", Reason.OK)
    except EndedError as end:
        row["reason"] = row.get("note", end.args[0])
    except KeyError as missing:
        raise BeyondError from missing
    row.pop("note", None)
    return {name: value for name, value in row.items() if value or name == "reason"}


def ethernet(f: Frame, row: Row) -> Any:
    f.need(14, Reason.LINK_TRUNCATED)
    row |= {"kind": Kind.LINK, "dst_mac": f.number(0, 6), "src_mac": f.number(6, 12)}
    return by_type(f.number(12, 14), f.after(14), row, [])


def by_type(what: int, f: Frame, row: Row, vlans: list[int]) -> Any:
    row["ethertype"] = what
    if what in (0x8100, 0x88A8, 0x9100, 0x9200):
        f.need(4, Reason.ENCAPSULATION)
        vlans = [*vlans, f.number(0, 2) & 4095]
        ids = [k for k in vlans if k]
        row["vlan"] = sum(number << 16 * place for place, number in enumerate(ids[:2]))
        if len(vlans) > 8:
            raise EndedError(Reason.TUNNEL_DEPTH)
        return by_type(f.number(2, 4), f.after(4), row, vlans)
    if what == 0x0800:
        return ipv4(f, row)
    if what == 0x86DD:
        return ipv6(f, row)
    if what <= 1500 or what in (
        0x0806, 0x8035, 0x8847, 0x8848, 0x8864, 0x88E5, 0x88E7, 0x8903, 0x8926, 0x893F, 0x894F,
    ):  # fmt: skip
        raise BeyondError
    raise EndedError(Reason.LINK_PROTOCOL)


def ipv4(f: Frame, row: Row) -> Any:
    f.need(20, Reason.IP_TRUNCATED)
    if f.data[0] >> 4 != 4:
        raise EndedError(Reason.IP_VERSION)
    header, size = f.data[0] % 16 * 4, f.number(2, 4) or f.wire
    if header < 20 or size < header:
        raise EndedError(Reason.IP_LENGTH)
    v4 = 0xFFFF << 32
    row |= {
        "kind": Kind.IPV4, "src_lo": v4 | f.number(12, 16), "dst_lo": v4 | f.number(16, 20), "ttl": f.data[8],
        "proto": f.data[9], "ip_id": f.number(4, 6), "ip_size": size,
    }  # fmt: skip
    more, offset = f.data[6] & 0x20, f.number(6, 8) & 0x1FFF
    if size > f.wire:
        row["note"] = Reason.IP_LENGTH
    row["kind"] |= KIND_FRAGMENT if offset else KIND_FIRST_FRAGMENT if more else 0
    if offset:
        row["checksum"] = offset
    return above(f.data[9], f.first(size), header, row)


def ipv6(f: Frame, row: Row) -> Any:
    f.need(40, Reason.IP_TRUNCATED)
    if f.data[0] >> 4 != 6:
        raise EndedError(Reason.IP_VERSION)
    size = 40 + f.number(4, 6)
    if size == 40 and f.data[6] != 59:
        size = f.wire
    row |= {
        "kind": Kind.IPV6, "ttl": f.data[7], "proto": f.data[6], "ip_size": size,
        "src_hi": f.number(8, 16), "src_lo": f.number(16, 24), "dst_hi": f.number(24, 32), "dst_lo": f.number(32, 40),
    }  # fmt: skip
    if f.data[6] in (0, 43, 44, 60):
        raise BeyondError
    if size > f.wire:
        row["note"] = Reason.IP_LENGTH
    return above(f.data[6], f.first(size), 40, row)


def above(proto: int, whole: Frame, header: int, row: Row) -> Any:
    whole.need(header, Reason.IP_TRUNCATED)
    f = whole.after(header)
    if row["kind"] & KIND_FRAGMENT:
        row["payload"] = f.wire
        return None
    if proto in (4, 41, 47, 51):
        raise BeyondError
    if proto == 6:
        return tcp(f, row)
    if proto in (1, 58):
        row |= {"sport": f.number(0, 1), "dport": f.number(1, 2)}
        datagram(f, row, 8, 2)
        if len(f.data) >= 4:
            row["checksum"] = f.number(2, 4)
        return None
    if proto in (17, 33, 132, 136):
        f.need(4, Reason.TRANSPORT_TRUNCATED)
        row |= {"sport": f.number(0, 2), "dport": f.number(2, 4)}
        datagram(f, row, 12 if proto in (33, 132) else 8, 6 if proto == 17 else 4)
        if proto in (17, 136) and len(f.data) >= 8:
            row["checksum"] = f.number(6, 8)
        return udp(f, row) if proto == 17 else None
    row["payload"] = f.wire
    return None


def tcp(f: Frame, row: Row) -> Any:
    f.need(4, Reason.TRANSPORT_TRUNCATED)
    row |= {"sport": f.number(0, 2), "dport": f.number(2, 4)}
    f.need(14, Reason.TRANSPORT_TRUNCATED)
    if f.wire < 20:
        raise EndedError(Reason.TRANSPORT_TRUNCATED)
    size = f.data[12] // 16 * 4
    if not 20 <= size <= f.wire:
        raise EndedError(Reason.TRANSPORT_LENGTH)
    row |= {"seq": f.number(4, 8), "ack": f.number(8, 12), "tcp_flags": f.data[13], "payload": f.wire - size}
    row["kind"] |= KIND_TRANSPORT
    f.need(16, Reason.TRANSPORT_TRUNCATED)
    row["window"] = f.number(14, 16)
    if len(f.data) >= 18:
        row["checksum"] = f.number(16, 18)


def datagram(f: Frame, row: Row, header: int, enough: int) -> Any:
    f.need(enough, Reason.TRANSPORT_TRUNCATED)
    if f.wire < header:
        raise EndedError(Reason.TRANSPORT_TRUNCATED)
    row["kind"] |= KIND_TRANSPORT
    row["payload"] = f.wire - header


def udp(f: Frame, row: Row) -> Any:
    size = f.number(4, 6)
    if size < 8 and (size or row["kind"] & 15 != Kind.IPV6):
        raise EndedError(Reason.TRANSPORT_LENGTH)
    if row["kind"] & KIND_FIRST_FRAGMENT:
        return
    if size > f.wire:
        raise EndedError(Reason.TRANSPORT_LENGTH)
    if {row["sport"], row["dport"]} & TUNNEL_PORTS or f.number(8, 9) >> 4 == 6:
        raise BeyondError


def raw(f: Frame, row: Row) -> Any:
    f.need(1, Reason.IP_TRUNCATED)
    versions = {4: ipv4, 6: ipv6}
    if f.data[0] >> 4 not in versions:
        raise EndedError(Reason.IP_VERSION)
    return versions[f.data[0] >> 4](f, row)


def pflog(f: Frame, row: Row) -> Any:
    f.need(2, Reason.LINK_TRUNCATED)
    size = -(-f.data[0] // 4) * 4
    if size < 48:
        raise EndedError(Reason.ENCAPSULATION)
    f.need(size, Reason.LINK_TRUNCATED)
    if f.data[1] not in (2, 10, 24, 28, 30):
        raise EndedError(Reason.LINK_PROTOCOL)
    return raw(f.after(size), row)


def nflog(f: Frame, row: Row) -> Any:
    f.need(8, Reason.LINK_TRUNCATED)
    if f.data[1] != 0:
        raise EndedError(Reason.ENCAPSULATION)
    if f.data[6] == 0 and 0 < f.data[7] < 64:
        number = f.number
    elif f.data[7] == 0 and 0 < f.data[6] < 64:
        number = f.little
    else:
        raise BeyondError
    at = 4
    while at + 4 <= len(f.data):
        size, kind = number(at, at + 2), number(at + 2, at + 4)
        if size < 4 or at + size > f.wire:
            raise EndedError(Reason.ENCAPSULATION)
        if kind == 9:
            if f.data[0] not in (2, 10):
                raise BeyondError
            return (ipv4 if f.data[0] == 2 else ipv6)(f.first(at + size).after(at + 4), row)
        if kind not in (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14):
            raise BeyondError
        at += -(-size // 4) * 4
    raise EndedError(Reason.LINK_PROTOCOL if f.wire - at < 4 else Reason.LINK_TRUNCATED)


def wifi(f: Frame, row: Row) -> Any:
    f.need(2, Reason.LINK_TRUNCATED)
    version, kind, subtype = f.data[0] & 3, f.data[0] >> 2 & 3, f.data[0] >> 4
    ds = f.data[1] & 3
    if version:
        raise EndedError(Reason.ENCAPSULATION)
    if kind in (1, 3):
        raise EndedError(Reason.LINK_PROTOCOL)
    if kind == 0 or subtype >= 8 or ds == 3 or f.data[1] & 0x40:
        raise BeyondError
    f.need(24, Reason.LINK_TRUNCATED)
    one, two, three = (f.number(k, k + 6) for k in (4, 10, 16))
    row["dst_mac"], row["src_mac"] = {0: (one, two), 1: (three, two), 2: (one, three)}[ds]
    row["kind"] = Kind.LINK
    if subtype & 4:
        raise EndedError(Reason.LINK_PROTOCOL)
    if f.data[22] & 15:
        raise EndedError(Reason.LINK_PARTIAL)
    f = f.after(24)
    if (
        f.data[:6] not in (b"\xaa\xaa\3\0\0\0", b"\xaa\xaa\3\0\0\xf8")
        or len(f.data) < 8
        or f.number(6, 8) <= 1500
    ):
        raise BeyondError
    return by_type(f.number(6, 8), f.after(8), row, [0])  # that header counts as a level


LINKS = {
    1: ethernet, 12: raw, 14: raw, 101: raw, 105: wifi, 117: pflog, 228: ipv4, 229: ipv6, 239: nflog,
}  # fmt: skip
