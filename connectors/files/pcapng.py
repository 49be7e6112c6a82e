"""pcapng: Python reads sections and interfaces, a kernel the packet blocks between them.

https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.files.counts import FileCounts
from connectors.files.frames import FrameBlock
from connectors.files.magic import SECTION, begins_pcap, zeros_end
from connectors.files.statistics import counters_of, losses_before, saturated
from connectors.files.window import (
    MAX_CAPTURED,
    Bytes,
    CaptureError,
    Columns,
    Window,
    block,
    columns,
    u16,
    u32,
    zeros,
)
from connectors.kernels import kernel

MAGIC = b"\x0a\x0d\x0d\x0a"
MAX_BLOCK = 16 << 20  # bytes of a block; Wireshark's limit
MAX_INTERFACES = 1 << 16  # most interfaces of a section
MAX_TS = 2**63 - 1
EXACT, FRAMES = 1000, 256  # losses of a file that each begin a block; fewest frames of a block after them

_INTERFACE = np.dtype(
    [
        ("link_type", "u2"),
        ("snaplen", "i8"),  # bytes of a frame that are captured; 0: no limit
        ("offset", "i8"),  # ns to add
        ("bits", "i8"),  # a second has 2**bits ticks; -1: a power of ten
        ("divide", "u8"),  # ticks in a nanosecond; 0: more than a u8 holds; 1 if a tick is longer
        ("times", "u8"),  # nanoseconds in a tick
        ("most", "u8"),  # ticks / divide above this exceed int64
        ("lost", "i8"),  # packets lost so far, by the interface's statistics or by its packets
        ("told", "i8"),  # those of its statistics since its last packet, which may count them once more
    ],
    align=True,
)

# reasons for _index to stop; those before _LENGTH are not damage
_WHOLE, _MORE, _SECTION, _DESCRIBED, _STATISTICS, _LOST, _JOINED = range(7)
_LENGTH, _TRAILER, _INTERFACE_ID, _CAPTURED = range(7, 11)
_PROBLEMS = {
    _LENGTH: f"block claims {{}} bytes, must be a multiple of 4 in 12..{MAX_BLOCK}",
    _TRAILER: "the length at the block's end differs from that at its start: {}",
    _INTERFACE_ID: "packet block names interface {}, which has no description in this section",
    _CAPTURED: f"packet record claims {{}} bytes, more than its block holds or the limit of {MAX_CAPTURED}",
}


_UNTIMED, _BEYOND, _BEFORE = range(3)  # places in _Described.odd


class _Described(NamedTuple):
    """The part of a section that the kernel needs."""

    big: bool
    interfaces: NDArray[Any]  # (m,) _INTERFACE, whose losses change
    odd: NDArray[np.int64]  # (3,) packets without a time, later than int64, before 1970; added to


class _Section:
    """Byte order and interfaces of the section being read."""

    def __init__(self, big: bool) -> None:
        self.big = big
        self.count = 0
        self._rows = np.zeros(4, _INTERFACE)
        self._odd = np.zeros(3, np.int64)

    @property
    def described(self) -> _Described:
        return _Described(self.big, self._rows[: self.count], self._odd)

    def report(self, counts: FileCounts) -> None:
        """Add what was odd since the last call."""
        counts.untimed += int(self._odd[_UNTIMED])
        counts.beyond += int(self._odd[_BEYOND])
        counts.before += int(self._odd[_BEFORE])
        self._odd[:] = 0

    def add(self, row: NDArray[Any]) -> None:
        if self.count == self._rows.size:
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self.count : self.count + 1] = row
        self.count += 1


class _Filling:
    """The block of frames being filled, and the losses before it."""

    def __init__(self, limit: int, counts: FileCounts) -> None:
        self.rows = columns(limit)
        self.n = 0
        self._dropped = 0  # packets lost before this block
        self._later = 0  # packets lost within it, reported before the next one
        self._cuts = 0
        self._limit, self._counts = limit, counts

    def take(self, data: Bytes, last: bool = False) -> Iterator[FrameBlock]:
        """The block, if it has frames (last: also for losses alone); the next one begins."""
        while self.n or (last and self._dropped):
            made = block(data, self.rows, self.n, self._dropped)
            self.rows, self.n = columns(self._limit), 0
            self._dropped, self._later = self._later, 0
            yield made

    def lose(self, data: Bytes, lost: int, before_last: bool) -> Iterator[FrameBlock]:
        """Count packets lost before the last frame, or behind it: a new block begins there.

        After the first EXACT losses of a file, only if the block has FRAMES frames: a file that reports a loss with
        every packet would give blocks of one.
        """
        self._counts.lost += lost
        before, kept = self.rows, self.n - before_last
        if self._cuts >= EXACT and kept < FRAMES:
            self._later += lost
            return
        self._cuts += 1
        self.n = kept
        yield from self.take(data)
        if before_last:
            for name in Columns._fields:
                getattr(self.rows, name)[0] = getattr(before, name)[kept]
            self.n = 1
        self._dropped += lost


def read(
    window: Window, at: int, path: str, limit: int, counts: FileCounts
) -> Generator[FrameBlock, None, int | None]:
    """The frames of the pcapng file whose first section header is at index ``at``.

    Returns the index of a capture of another format behind it.
    """
    section = _Section(big=False)
    filling = _Filling(limit, counts)
    while True:
        window.hold(path, at)
        filling.n, at, problem, detail = _index(window.data, at, section.described, filling.rows, filling.n)
        section.report(counts)
        # an interface description does not end a block of frames: many interfaces would give tiny blocks
        if problem == _LOST:
            yield from filling.lose(window.data, detail, before_last=True)
        elif problem not in (_DESCRIBED, _STATISTICS):
            yield from filling.take(window.data)
        try:
            if problem == _MORE:
                at = window.grow(at, detail)
                if window.data.size == at:
                    yield from filling.take(window.data, last=True)
                    return None
                _require(window, at, detail)
            elif problem == _SECTION:
                at, section = _section(window, at)
            elif problem == _DESCRIBED:
                at = _describe(window.data, at, section)
            elif problem == _STATISTICS:
                at, lost = _count(window.data, at, section)
                if lost:
                    yield from filling.lose(window.data, lost, before_last=False)
            elif problem == _JOINED:
                yield from filling.take(window.data, last=True)
                return at
            elif problem >= _LENGTH:
                raise _DamageError(at, _PROBLEMS[problem].format(detail))
        except _DamageError as damage:
            yield from filling.take(window.data, last=True)
            begin = window.base + damage.at
            raise CaptureError(path, begin, _only_zeros(window, damage.at) or damage.problem) from None


def _only_zeros(window: Window, at: int) -> str:
    """The problem of a file of which only zeros are left; empty for another."""
    begin = window.base + at
    while (end := zeros_end(window.data, at)) == window.data.size and end > at:
        here = window.base + end
        at = window.grow(end - 1, 2)
        if window.base + window.data.size == here:
            return zeros(begin, here)
    return ""


class _DamageError(Exception):
    def __init__(self, at: int, problem: str) -> None:
        super().__init__(problem)
        self.at = at
        self.problem = problem


def _require(window: Window, at: int, need: int) -> None:
    left = window.data.size - at
    if left < need:
        raise _DamageError(at, f"block needs {need} bytes, the file has {left} more")


def _section(window: Window, at: int) -> tuple[int, _Section]:
    """Read a Section Header Block; the index after it, and the section that it opens."""
    at = window.grow(at, 28)
    _require(window, at, 28)
    magic = window.data[at + 8 : at + 12].tobytes()
    if magic not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
        raise _DamageError(at + 8, f"byte-order magic is {magic.hex(' ')}")
    big = magic == b"\x1a\x2b\x3c\x4d"
    size = u32(window.data, at + 4, big)
    if size < 28 or size > MAX_BLOCK or size % 4:
        raise _DamageError(
            at, f"section header claims {size} bytes, must be a multiple of 4 in 28..{MAX_BLOCK}"
        )
    at = window.grow(at, size)
    _require(window, at, size)
    data = window.data
    major, minor = u16(data, at + 12, big), u16(data, at + 14, big)
    if major != 1 or minor not in (0, 2):
        raise _DamageError(at + 12, f"pcapng version {major}.{minor} is not 1.0")
    if u32(data, at + size - 4, big) != size:
        raise _DamageError(at, _PROBLEMS[_TRAILER].format(u32(data, at + size - 4, big)))
    return at + size, _Section(big)


def _count(data: Bytes, at: int, section: _Section) -> tuple[int, int]:
    """Read the complete Interface Statistics Block at `at`: the index after it, and the packets that it newly
    reports as lost. Its counters begin with the capture; what cannot be read in it counts as nothing.
    """
    size = u32(data, at + 4, section.big)
    found = section.described.interfaces
    interface = u32(data, at + 8, section.big) if size >= 24 else found.size
    if interface >= found.size:
        return at + size, 0
    row = found[interface]
    lost = counters_of(data, at + 20, at + size - 4, section.big) - int(row["lost"])
    if lost <= 0:
        return at + size, 0
    row["lost"] += lost
    row["told"] = saturated(int(row["told"]) + lost)
    return at + size, lost


def _describe(data: Bytes, at: int, section: _Section) -> int:
    """Add the interface of the complete Interface Description Block at `at`; the index after it."""
    big = section.big
    size = u32(data, at + 4, big)
    if size < 20:
        raise _DamageError(at, f"interface description claims {size} bytes, minimum 20")
    if section.count == MAX_INTERFACES:
        raise _DamageError(at, f"section describes more than {MAX_INTERFACES} interfaces")
    resolution, offset = 6, 0
    option, end = at + 16, at + size - 4
    while end - option >= 4:
        code, length = u16(data, option, big), u16(data, option + 2, big)
        if code == 0:
            break
        if length > end - option - 4:
            raise _DamageError(option, f"option {code} claims {length} bytes, {end - option - 4} left")
        value = data[option + 4 : option + 4 + length].tobytes()
        if code == 9 and length == 1:
            resolution = value[0]
        elif code == 14 and length == 8:
            offset = int.from_bytes(value, "big" if big else "little", signed=True)
        option += 4 + (length + 3) // 4 * 4
    section.add(_interface(u16(data, at + 8, big), u32(data, at + 12, big), resolution, offset))
    return at + size


def _interface(link_type: int, snaplen: int, resolution: int, offset: int) -> NDArray[Any]:
    """(1,) row of interfaces. resolution: if_tsresol; offset: if_tsoffset in seconds."""
    row = np.zeros(1, _INTERFACE)
    row["link_type"], row["snaplen"] = link_type, snaplen
    row["offset"] = min(max(offset * 10**9, -MAX_TS), MAX_TS)
    digits = resolution & 127
    row["bits"] = digits if resolution & 128 else -1
    divide = 10 ** max(digits - 9, 0)
    times = 10 ** max(9 - digits, 0)
    row["divide"] = divide if divide < 2**64 else 0
    row["times"] = times
    row["most"] = MAX_TS // times
    return row


@kernel
def _index(data: Bytes, at: int, section: _Described, rows: Columns, n: int) -> tuple[int, int, int, int]:
    """Find packets from `at`, filling rows from n: (rows filled, next index, why it stopped, detail).

    Detail: bytes needed (_MORE), packets lost before the last row (_LOST), or the value that is wrong.
    """
    big = section.big
    while n < rows.start.size:
        left = data.size - at
        if left < 12:
            return n, at, _MORE, 12
        kind, size = u32(data, at, big), u32(data, at + 4, big)
        if kind == SECTION:
            return n, at, _SECTION, 0
        if kind > SECTION and begins_pcap(data, at):
            return n, at, _JOINED, 0
        if size < 12 or size > MAX_BLOCK or size & 3:
            return n, at, _LENGTH, size
        if left < size:
            return n, at, _MORE, size
        trailer = u32(data, at + size - 4, big)
        if trailer != size:
            return n, at, _TRAILER, trailer
        if kind == 1:
            return n, at, _DESCRIBED, 0
        if kind == 5:
            return n, at, _STATISTICS, 0
        if kind in (2, 3, 6):
            problem, detail = _packet(data, at, section, rows, n)
            if problem != _WHOLE:
                return n, at, problem, detail
            n += 1
            if detail > 0:
                return n, at + size, _LOST, detail
        at += size
    return n, at, _WHOLE, 0


@kernel
def _packet(data: Bytes, at: int, section: _Described, rows: Columns, n: int) -> tuple[int, int]:
    """Write row n from an Enhanced (6), Simple (3) or obsolete (2) Packet Block: (problem, detail).

    Detail without a problem: packets that were lost before it, and not reported yet.
    """
    big, interfaces = section.big, section.interfaces
    kind, size = u32(data, at, big), u32(data, at + 4, big)
    header = 12 if kind == 3 else 28  # bytes before the frame
    if size < header + 4:
        return _LENGTH, size
    interface = 0
    if kind == 6:
        interface = u32(data, at + 8, big)
    elif kind == 2:
        interface = u16(data, at + 8, big)
    if interface >= interfaces.size:
        return _INTERFACE_ID, interface
    row = interfaces[interface]
    room = size - header - 4
    if kind == 3:
        wire = u32(data, at + 8, big)
        captured = min(wire, room)
        if row["snaplen"] > 0:
            captured = min(captured, row["snaplen"])
        ts = 0
        section.odd[_UNTIMED] += 1
        row["told"] = 0
    else:
        captured, wire = u32(data, at + 20, big), u32(data, at + 24, big)
        ts = _nanoseconds(u32(data, at + 12, big), u32(data, at + 16, big), row)
        if ts == MAX_TS:
            section.odd[_BEYOND] += 1
        elif ts < 0:
            section.odd[_BEFORE] += 1
    if captured > room or captured > MAX_CAPTURED:
        return _CAPTURED, captured
    rows.start[n] = at + header
    rows.captured[n] = captured
    rows.wire[n] = max(captured, wire)
    rows.ts[n] = ts
    rows.link_type[n] = row["link_type"]
    if kind == 3 or (kind == 6 and size < captured + 44 and row["told"] == 0):  # no room for a drop count
        return _WHOLE, 0
    return _WHOLE, _lost(data, at, captured, row, big)


@kernel
def _lost(data: Bytes, at: int, captured: int, row: Any, big: bool) -> int:
    """Packets of the interface that the packet block at `at` newly reports as lost before it.

    The statistics may have reported some of them already.
    """
    kind, end = u32(data, at, big), at + u32(data, at + 4, big) - 4
    lost = 0
    if kind == 6:
        lost = losses_before(data, at + 28 + (captured + 3) // 4 * 4, end, big)
    elif kind == 2:
        lost = u16(data, at + 10, big)
        if lost == 0xFFFF:  # not known
            lost = 0
    told = row["told"]
    row["told"] = 0
    lost = saturated(row["lost"] + max(lost - told, 0)) - row["lost"]
    row["lost"] += lost
    return int(lost)


@kernel
def _nanoseconds(high: int, low: int, interface: Any) -> int:
    """Ticks of the interface as ns since the epoch; beyond int64 it stays at the limit."""
    ticks = np.uint64(high) << np.uint64(32) | np.uint64(low)
    bits = interface["bits"]
    if bits < 0:
        if interface["divide"] == 0:
            whole = np.uint64(0)
        else:
            whole = ticks // interface["divide"]
        ns = MAX_TS if whole > interface["most"] else np.int64(whole * interface["times"])
    else:
        ns = _binary(ticks, bits)
    offset = interface["offset"]
    if offset > 0 and ns > MAX_TS - offset:
        return MAX_TS
    return int(ns + offset)


@kernel
def _binary(ticks: np.uint64, bits: int) -> int:
    """Ticks of 2**-bits seconds in ns; 32 bits of the fraction count."""
    if bits < 64:
        whole = ticks >> np.uint64(bits)
        part = ticks - (whole << np.uint64(bits))
    else:
        whole = np.uint64(0)
        part = ticks
    if bits > 32:
        part = part >> np.uint64(bits - 32) if bits - 32 < 64 else np.uint64(0)
        bits = 32
    if whole > np.uint64(MAX_TS // 1_000_000_000):
        return MAX_TS
    ns = np.int64(whole) * 1_000_000_000 + np.int64(part * np.uint64(1_000_000_000) >> np.uint64(bits))
    return int(ns) if ns < MAX_TS else MAX_TS
