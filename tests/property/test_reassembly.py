"""The policy ``stream`` against a naive reassembler, against streams that are known, and against its bounds."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import NOW
from engine.connections.bounds import TrackerConfig
from engine.connections.tracker import Tracker
from engine.features.reassembly import HELD, OLDEST
from engine.features.tokens import TokenConfig
from engine.scoring.detector import slots_needed
from engine.scoring.token_pass import TokenPass
from engine.types import SYN, Packets, take
from tests.support.conversation import A
from tests.support.streams import odd_stream, stream
from tests.support.token_runs import SMALL, Row, by_ends, kernel_run, naive_run, steps
from tests.support.transfers import Network, Transfer, merged

seeds = st.integers(0, 2**32 - 1)
isns = st.tuples(*[st.sampled_from([0, 1000, 2**31 - 500, 2**32 - 700, 2**32 - 1])] * 2)
sizes = st.fixed_dictionaries(
    {"a": st.lists(st.integers(1, 1460), max_size=12), "b": st.lists(st.integers(1, 1460), max_size=12)}
)
configs = st.sampled_from(
    [
        TokenConfig(), TokenConfig(patience=0.003), TokenConfig(patience=0.0005),
        TokenConfig(connection_packets=2, packets=8),
        TokenConfig(patience=60, connection_bytes=1500, bytes=3000, packets=20),
    ]
)  # fmt: skip
PAUSES = (0.02, 0.4, 1.1, 3.0, 40.0)


def hostile(seed: int, n: int = 250) -> Packets:
    return (odd_stream if seed % 2 else stream)(seed, n)


def wild(seed: int, count: int = 3) -> Packets:
    """Several transfers through all that networks and captures do."""
    rng = np.random.default_rng([seed, 7])
    transfers = []
    for k in range(count):
        network = Network(
            depth=int(rng.choice([1, 3, 6])), again=float(rng.choice([0, 0.3])), lost=float(rng.choice([0, 0.2])),
            copies=float(rng.choice([0, 0.2])), pause=PAUSES[: int(rng.integers(1, 6))],
            resets=bool(rng.integers(2)), handshake=bool(rng.integers(2)),
        )  # fmt: skip
        sides = {side: rng.integers(1, 1460, rng.integers(0, 12)).tolist() for side in "ab"}
        isn = [int(n) for n in rng.choice([0, 1000, 2**32 - 700, 2**31 - 99], 2)]
        transfers.append(Transfer(int(rng.integers(2**31)), sides, (isn[0], isn[1]), network, 40000 + k))
    p = merged(transfers, seed, lost=float(rng.choice([0, 0.1, 0.3])), late=float(rng.choice([0, 0.3])))
    if rng.random() < 0.2:
        p = take(p, p.src_lo == np.uint64(A))
    return p


def assert_balanced(counts: dict[str, int], n: int, rows: list[Row]) -> None:
    """Every packet is a token or was left out, and none is two."""
    assert counts["waiting"] == 0
    assert counts["tokens"] + counts["left_out"] + counts["not_tcp"] == n
    assert len({row.number for row in rows}) == len(rows) == counts["tokens"]
    assert [row.at for row in rows] == sorted(row.at for row in rows)


@given(seed=seeds, config=configs, made_up=st.booleans())
def test_tokens_are_those_of_the_definition(seed: int, config: TokenConfig, made_up: bool) -> None:
    p = hostile(seed) if made_up else wild(seed)
    rows, counts = kernel_run(p, config)
    expected, naive = naive_run(p, config)
    assert rows == expected
    assert counts["fallbacks"] == naive.fallbacks
    assert_balanced(counts, p.ts.size, rows)


@given(seed=seeds, config=configs, cuts=st.lists(st.integers(0, 250), max_size=8), made_up=st.booleans())
def test_cutting_a_stream_elsewhere_changes_no_token(
    seed: int, config: TokenConfig, cuts: list[int], made_up: bool
) -> None:
    p = hostile(seed) if made_up else wild(seed)
    whole, counts = kernel_run(p, config)
    for restored in (False, True):
        cut, counted = kernel_run(p, config, cuts, restored=restored)
        assert [row[1:] for row in cut] == [row[1:] for row in whole]
        assert counted == counts


@given(seed=seeds, config=configs)
def test_a_pass_restored_behind_every_packet_goes_on_alike(seed: int, config: TokenConfig) -> None:
    p = hostile(seed, 120) if seed % 3 else wild(seed, 2)
    whole, counts = kernel_run(p, config)
    cut, counted = kernel_run(p, config, range(p.ts.size), restored=True)
    assert [row[1:] for row in cut] == [row[1:] for row in whole]
    assert counted == counts


@given(seed=seeds, config=configs, made_up=st.booleans())
def test_heartbeats_change_no_token_of_a_connection_nor_their_order(
    seed: int, config: TokenConfig, made_up: bool
) -> None:
    p = hostile(seed) if made_up else wild(seed)
    whole, counts = kernel_run(p, config)
    beaten, counted = kernel_run(p, config, range(p.ts.size), ticks=True)
    assert by_ends(beaten, p) == by_ends(whole, p)
    assert counted["tokens"] == counts["tokens"]


def payloads(p: Packets, config: TokenConfig) -> tuple[dict[int, list[tuple[int, int]]], dict[str, int]]:
    """Payload and flags of tokens in order, by the address of the sender; from the naive twin, which is equal."""
    rows, counts = kernel_run(p, config)
    _, naive = naive_run(p, config)
    assert len(rows) == counts["tokens"]
    out = defaultdict(list)
    tracker, twin = Tracker(SMALL), type(naive)(config)
    given_ = [t for part, step in steps(tracker, p) for t in twin.update(part, step)]
    given_ += [t for slots in tracker.flush() for t in twin.close(slots.tolist())]
    assert [row.number for row in rows] == [t.number for t in given_]
    for row, token in zip(rows, given_):
        assert dict(row.entries).keys() == token.entries().keys()
        out[int(p.src_lo[row.number])].append((token.payload, token.flags))
    return dict(out), counts


@given(seed=seeds, sizes=sizes, isn=isns, depth=st.integers(1, 8), resets=st.booleans())
def test_a_network_that_only_reorders_changes_no_side(
    seed: int, sizes: dict[str, list[int]], isn: tuple[int, int], depth: int, resets: bool
) -> None:
    config = TokenConfig(patience=30)
    faultless, _ = payloads(merged([Transfer(seed, sizes, isn, Network(resets=resets))]), config)
    reordered, counts = payloads(merged([Transfer(seed, sizes, isn, Network(depth, resets=resets))]), config)
    assert reordered == faultless
    assert counts["lost_acked"] == counts["lost_time"] == counts["fallbacks"] == 0


@given(seed=seeds, sizes=sizes, isn=isns, depth=st.integers(1, 6), one_sided=st.booleans())
def test_bytes_let_through_are_those_of_the_stream_whatever_is_lost_and_sent_again(
    seed: int, sizes: dict[str, list[int]], isn: tuple[int, int], depth: int, one_sided: bool
) -> None:
    network = Network(depth, again=0.4, lost=0.3, copies=0.2)
    p = merged([Transfer(seed, sizes, isn, network)])
    if one_sided:
        p = take(p, p.src_lo == np.uint64(A))
    let, counts = payloads(p, TokenConfig(patience=30))
    assert counts["lost_acked"] == counts["lost_time"] == counts["fallbacks"] == 0
    for address, tokens in let.items():
        side = "a" if address == A else "b"
        assert sum(payload for payload, _ in tokens) == sum(sizes[side])
        assert tokens[0][1] & SYN
        assert tokens[-1][1] & 1
        assert all(payload or flags & 3 for payload, flags in tokens)


@given(seed=seeds, sizes=sizes, isn=isns)
def test_a_fallback_loses_no_byte(seed: int, sizes: dict[str, list[int]], isn: tuple[int, int]) -> None:
    p = merged([Transfer(seed, sizes, isn, Network(8, again=0.4, lost=0.3))])
    config = TokenConfig(patience=30, connection_packets=2)
    rows, _ = kernel_run(p, config)
    _, naive = naive_run(p, config)
    tracker, twin = Tracker(SMALL), type(naive)(config)
    tokens = [t for part, step in steps(tracker, p) for t in twin.update(part, step)]
    tokens += [t for slots in tracker.flush() for t in twin.close(slots.tolist())]
    assert [row.number for row in rows] == [t.number for t in tokens]
    for side, address in (("a", A), ("b", A + 1)):
        assert sum(t.payload for t in tokens if p.src_lo[t.number] == address) == sum(sizes[side])


@pytest.mark.compiled
@given(seed=seeds)
def test_what_waits_stays_within_its_bounds_and_leaves_in_time(seed: int) -> None:
    config = TokenConfig(patience=0.5, connection_packets=3, connection_bytes=3000, packets=7, bytes=6000)
    p = hostile(seed, 400)
    tracker, one = Tracker(SMALL), TokenPass(config, None, slots_needed(SMALL))
    for part, t in steps(tracker, p, range(p.ts.size)):
        one.update(part, t)
        streams = one._streams
        assert_within(config, streams.pool, chain(one), int(streams.clock[NOW]))
    state = one.state()
    assert len(state["held"]) == one.counters()["waiting"]


def chain(one: TokenPass) -> list[int]:
    """Rows of the pool that wait, oldest first."""
    out, k = [], int(one._streams.registers[OLDEST])
    while k:
        out.append(k - 1)
        k = int(one._streams.pool[k - 1]["newer"])
    return out


def assert_within(config: TokenConfig, pool: np.ndarray, held: list[int], now: int) -> None:
    rows = pool[held]
    assert rows.dtype == HELD
    assert len(rows) <= config.packets
    assert rows["payload"].sum() <= config.bytes
    assert (now - rows["arrived"] < round(config.patience * 1e9)).all()
    for slot in np.unique(rows["side"] >> 1):
        mine = rows[rows["side"] >> 1 == slot]
        assert len(mine) <= config.connection_packets
        assert mine["payload"].sum() <= config.connection_bytes


@pytest.mark.compiled
def test_a_flood_of_holes_falls_back_and_is_counted() -> None:
    p = hostile(3, 2000)
    config = TokenConfig(patience=3600, connection_packets=1)
    rows, counts = kernel_run(p, config, tracking=TrackerConfig(capacity=64))
    assert counts["fallbacks"] > 3
    assert_balanced(counts, p.ts.size, rows)
