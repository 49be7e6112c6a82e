"""Losses that a pcapng capture reports: Interface Statistics Blocks, and the drop count of a packet.

https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html, sections 4.3 (epb_dropcount) and 4.6.
"""

from __future__ import annotations

from connectors.files.window import Bytes, u16, u32
from connectors.kernels import kernel

MOST = 1 << 48  # packets lost; a counter above this counts as this, so that no sum overflows
EPB_DROPCOUNT, ISB_IFDROP, ISB_OSDROP = 4, 5, 7  # option codes; isb_filteraccept (6) is no loss


@kernel
def saturated(n: int) -> int:
    """n, at most MOST."""
    return min(n, MOST)


@kernel
def _option(data: Bytes, at: int, end: int, big: bool, code: int) -> int:
    """The counter in the first option of a code among the options in `at`..`end`, at most MOST; 0 without one."""
    while end - at >= 4:
        found, length = u16(data, at, big), u16(data, at + 2, big)
        if found == 0 or length > end - at - 4:
            return 0
        if found == code and length == 8:
            high, low = u32(data, at + 4, big), u32(data, at + 8, big)
            if not big:
                high, low = low, high
            return MOST if high >= MOST >> 32 else high << 32 | low
        at += 4 + (length + 3) // 4 * 4
    return 0


@kernel
def losses_before(data: Bytes, at: int, end: int, big: bool) -> int:
    """epb_dropcount among a packet's options in `at`..`end`."""
    return _option(data, at, end, big, EPB_DROPCOUNT)


@kernel
def counters_of(data: Bytes, at: int, end: int, big: bool) -> int:
    """isb_ifdrop and isb_osdrop together, among the options of a statistics block in `at`..`end`."""
    lost = _option(data, at, end, big, ISB_IFDROP) + _option(data, at, end, big, ISB_OSDROP)
    return saturated(lost)
