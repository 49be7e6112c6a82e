"""Merging keeps packets and their order, a pause moves only times, new names are one for each old one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.detection.quick import BASE, SERVER, chat, flood
from benchmarks.detection.streams import (
    GROUP_MAC,
    SECOND,
    after,
    coded,
    hours,
    merged,
    part,
    paused,
    renamed,
    shifted,
)
from engine.types import Kind, Packets, empty_packets, take

NAMES = ("src_hi", "src_lo", "dst_hi", "dst_lo", "src_mac", "dst_mac", "probe", "ts")
seeds = st.integers(0, 2**31)


def same(one: Packets, other: Packets, *without: str) -> bool:
    """Whether all columns but some are equal."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in Packets._fields
        if name not in without
    )


@given(seeds, st.integers(1, 400), st.integers(0, 20))
def test_merging_keeps_the_packets_of_both_and_their_order(seed: int, n: int, late: int) -> None:
    base, added = chat(500, 5, seed), flood(n, seed)
    at = int(base.ts[0]) + late * int(base.ts[-1] - base.ts[0]) // 20
    both = merged(base, added, at, 7)
    assert same(take(both, both.probe == 0), base)
    own = take(both, both.probe == 7)
    moved = shifted(added, at - int(added.ts[0]))
    kept = take(moved, moved.ts <= base.ts.max())
    assert same(own, kept, *NAMES[:-1])
    assert np.all(np.diff(both.ts) >= 0)


def test_packets_that_are_out_of_order_stay_so() -> None:
    base, added = chat(300, 5, 1), chat(50, 2, 2)
    swapped = np.arange(50)
    swapped[[20, 21, 40, 45]] = [21, 20, 45, 40]
    added = take(added, swapped)
    both = merged(base, added, int(base.ts[0]), 1)
    own = take(both, both.probe == 1)
    assert np.array_equal(np.diff(own.ts), np.diff(added.ts[: own.ts.size]))
    assert np.any(np.diff(own.ts) < 0)


def test_packets_after_the_bases_end_and_after_the_most_are_left_out() -> None:
    base, added = chat(300, 5, 1), chat(3000, 2, 2)
    assert merged(base, added, int(base.ts[0]), 1, most=40).ts.size == 340
    both = merged(base, added, int(base.ts[-1]) - SECOND, 1)
    assert 0 < np.count_nonzero(both.probe == 1) < 100
    assert both.ts.max() == base.ts.max()


def test_hosts_that_are_merged_are_new_and_stay_apart() -> None:
    base, added = chat(300, 5, 1), chat(300, 4, 1)
    both = merged(base, added, int(base.ts[0]), 1)
    own, old = take(both, both.probe == 1), take(both, both.probe == 0)
    for name in ("lo", "mac"):
        mine, theirs = (
            {*getattr(p, f"src_{name}").tolist(), *getattr(p, f"dst_{name}").tolist()} for p in (own, old)
        )
        assert mine.isdisjoint(theirs)
        assert len(mine) == 5  # four hosts and their server


def _with(**columns: list[int]) -> Packets:
    n = len(next(iter(columns.values())))
    p = empty_packets(n)
    p = p._replace(kind=np.full(n, Kind.IPV4, np.uint8))
    return p._replace(**{name: np.array(given, getattr(p, name).dtype) for name, given in columns.items()})


V4 = 0xFFFF << 32


@pytest.mark.parametrize(
    ("hi", "lo"),
    [
        (0, V4), (0, V4 | 0xFFFF_FFFF), (0, V4 | 0xE000_00FB), (0, 0), (0xFF02 << 48, 1),
    ],
    ids=["0.0.0.0", "broadcast", "multicast", "no address", "IPv6 multicast"],
)  # fmt: skip
def test_addresses_of_groups_and_of_nobody_stay(hi: int, lo: int) -> None:
    p = _with(src_lo=[SERVER], dst_hi=[hi], dst_lo=[lo], kind=[Kind.IPV6 if hi else Kind.IPV4])
    new = renamed(p)
    assert (int(new.dst_hi[0]), int(new.dst_lo[0])) == (hi, lo)
    assert new.src_lo[0] != SERVER


def test_a_broadcast_mac_stays_and_none_stays_none() -> None:
    new = renamed(_with(src_mac=[5, 0, 5], dst_mac=[int(GROUP_MAC) | 1, 6, 0xFFFF_FFFF_FFFF]))
    assert new.dst_mac.tolist()[0::2] == [int(GROUP_MAC) | 1, 0xFFFF_FFFF_FFFF]
    assert new.src_mac[1] == 0
    assert new.src_mac[0] == new.src_mac[2] != new.dst_mac[1]


def test_ipv6_stays_ipv6_and_ipv4_ipv4() -> None:
    lo = [SERVER, 9]
    new = renamed(_with(src_hi=[0, 0xFD << 56], src_lo=lo, dst_hi=[0, 0xFD << 56], dst_lo=[BASE, 10],
                        kind=[Kind.IPV4, Kind.IPV6]))  # fmt: skip
    assert new.src_lo[0] >> np.uint64(32) == 0xFFFF
    assert new.src_hi.tolist()[0] == 0
    assert new.src_hi[1] != 0
    assert len({*new.src_lo.tolist(), *new.dst_lo.tolist()}) == 4


def test_macs_of_packets_without_a_network_layer_are_renamed_and_their_addresses_are_not() -> None:
    new = renamed(_with(src_lo=[0], dst_lo=[0], src_mac=[5], dst_mac=[6], kind=[Kind.LINK]))
    assert new.src_lo[0] == new.dst_lo[0] == 0
    assert len({5, 6, int(new.src_mac[0]), int(new.dst_mac[0])}) == 4


@given(seeds, st.integers(0, 300), st.integers(1, 10**6))
def test_a_pause_moves_times_after_it_and_nothing_else(seed: int, at: int, ns: int) -> None:
    p = chat(300, 5, seed)
    later = paused(p, at, ns)
    assert same(later, p, "ts")
    assert np.array_equal(later.ts - p.ts, np.where(np.arange(300) < at, 0, ns))


def test_a_stream_after_another_begins_a_gap_later_and_keeps_its_times() -> None:
    one, other = chat(100, 3, 1), chat(100, 3, 2)
    moved = after(other, one, 5)
    assert moved.ts[0] - one.ts.max() == 5
    assert np.array_equal(np.diff(moved.ts), np.diff(other.ts))
    assert same(moved, other, "ts")


def test_parts_of_a_stream_are_all_of_it() -> None:
    p = chat(101, 3, 1)
    cuts = [part(p, a, b).ts.size for a, b in ((0, 0.3), (0.3, 0.9), (0.9, 1))]
    assert sum(cuts) == 101
    assert hours(p) == pytest.approx(float(p.ts[-1] - p.ts[0]) / 3.6e12)
    assert coded(p, 3).probe.tolist() == [3] * 101
