"""AfterImage against its definition, and its laws: cuts, restored state, hash seed and eviction."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.afterimage import FEATURES, AfterImage, AfterImageConfig
from engine.types import KIND_FRAGMENT, Floats, Kind, Packets, empty_packets, take
from tests.support.naive_afterimage import naive

GAPS = st.sampled_from(
    [0, 1, 1_000, 40_000_000, 1_000_000_000, 17_000_000_000, 300_000_000_000, -1, -5_000_000, -2_000_000_000]
)
KINDS = st.sampled_from([Kind.IPV4] * 8 + [Kind.ARP, Kind.LINK, Kind.UNREAD, Kind.IPV4 | KIND_FRAGMENT])
ROW = st.tuples(
    GAPS, KINDS, st.integers(0, 3), st.integers(0, 3),
    st.sampled_from([80, 5000]), st.sampled_from([80, 5000]),
    st.sampled_from([6, 6, 17, 1]), st.one_of(st.sampled_from([60, 1514]), st.integers(20, 65_550)),
)  # fmt: skip


@st.composite
def packets(draw: st.DrawFn, most: int = 40) -> Packets:
    """Packets of a few hosts with all protocols, sometimes from a host to itself, and sometimes late."""
    rows = draw(st.lists(ROW, min_size=1, max_size=most))
    p = empty_packets(len(rows))
    now = 1_700_000_000_000_000_000
    for i, (gap, kind, src, dst, sport, dport, proto, size) in enumerate(rows):
        now += gap
        p.ts[i], p.kind[i], p.proto[i], p.size[i] = now, kind, proto, size
        p.src_lo[i], p.dst_lo[i], p.src_hi[i] = 0xFFFF0A000000 + src, 0xFFFF0A000000 + dst, src == 3
        p.dst_hi[i] = dst == 3
        p.src_mac[i], p.dst_mac[i] = 0x020000000000 + src, 0x020000000000 + (dst & 2)
        p.sport[i], p.dport[i] = sport, dport
    return p


def in_blocks(state: AfterImage, p: Packets, cuts: list[int]) -> Floats:
    edges = [0, *sorted(min(cut, p.ts.size) for cut in cuts), p.ts.size]
    return np.vstack([state.update(take(p, slice(a, b))) for a, b in pairwise(edges)])


CUTS = st.lists(st.integers(0, 200), max_size=6)
RULES = (
    AfterImageConfig(),
    AfterImageConfig(interarrival="public"),
    AfterImageConfig(silence=500.0, silence_factor=3.3),
    AfterImageConfig(silence=0.7, silence_floor=0.01, silence_factor=7.0),
)
SIZES = st.sampled_from([1, 2, 5, 1000])  # with up to 60 flows, all but the last evict


@settings(deadline=None, max_examples=150)
@given(packets(), st.sampled_from(RULES))
def test_features_follow_the_definition(p: Packets, config: AfterImageConfig) -> None:
    ours, theirs = AfterImage(config).update(p), naive(p, config)
    pcc = np.array(["pcc" in name for name in FEATURES])
    # Sizes are exact to 1e-16 of 65,550; so a product of two residuals is exact to 1e-6.
    assert np.allclose(ours[:, ~pcc], theirs[:, ~pcc], rtol=1e-9, atol=1e-5, equal_nan=True)
    weights = np.array(["weight" in name for name in FEATURES])
    assert np.allclose(ours[:, weights], theirs[:, weights], rtol=1e-12, equal_nan=True)
    # Correlation divides by both variances, so compare it only where neither is close to rounding error.
    at = np.flatnonzero(pcc)
    product = np.square(theirs[:, at - 1] / np.where(theirs[:, at] == 0, np.inf, theirs[:, at]))
    firm = (product > 1.0) & (np.abs(theirs[:, at - 1]) > 1.0)
    assert np.allclose(ours[:, at][firm], theirs[:, at][firm], rtol=1e-4)


@settings(deadline=None)
@given(packets(most=150), CUTS, SIZES)
def test_cutting_the_stream_changes_no_bit_of_a_feature(p: Packets, cuts: list[int], flows: int) -> None:
    config = AfterImageConfig(flows=flows)
    whole, parts = AfterImage(config), AfterImage(config)
    assert np.array_equal(whole.update(p), in_blocks(parts, p, cuts), equal_nan=True)
    assert (whole.flows, whole.evicted) == (parts.flows, parts.evicted)


@settings(deadline=None)
@given(packets(most=100), st.integers(0, 100), SIZES)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(p: Packets, cut: int, flows: int) -> None:
    config = AfterImageConfig(flows=flows)
    going_on = AfterImage(config)
    going_on.update(take(p, slice(0, cut)))
    restored = AfterImage.from_state(config, going_on.state())
    rest = take(p, slice(cut, None))
    assert np.array_equal(going_on.update(rest), restored.update(rest), equal_nan=True)
    assert (going_on.flows, going_on.evicted) == (restored.flows, restored.evicted)
    for name, array in going_on.state().items():
        assert np.array_equal(array.view(np.uint8), restored.state()[name].view(np.uint8)), name


@settings(deadline=None)
@given(packets(most=100), st.integers(1, 2**64 - 1), SIZES)
def test_the_hash_seed_changes_no_feature(p: Packets, seed: int, flows: int) -> None:
    plain, seeded = (AfterImage(AfterImageConfig(flows=flows, hash_seed=s)) for s in (0, seed))
    assert np.array_equal(plain.update(p), seeded.update(p), equal_nan=True)
