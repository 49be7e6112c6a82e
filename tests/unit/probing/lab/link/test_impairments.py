"""Bursts of losses, outages, traces, CoDel and cross traffic: the link's kernels against their definitions."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from probing.lab.link import tables
from probing.lab.settings import Link as Setting
from tests.support import naive_link as naive
from tests.support.lab_link import MS, Bench

SEED = 7


def lost_by_the_link(n: int, share: float, length: float, **more: Any) -> list[bool]:
    """Whether each of n packets from the server on one connection was lost in a burst."""
    bench = Bench(Setting(burst_loss_pct=share, burst_packets=length, **more), SEED)
    result = []
    for k in range(n):
        result.append(bool(bench.put(bench.server, 80, 40_000, ts=k)["verdict"] & tables.BURST))
        bench.waiting = 0
        bench.state.control[tables.USED] = 0
    (flow,) = bench.flows
    assert flow["burst"].tolist() == [sum(result), 0]
    assert flow["bursts"].tolist() == [len(lengths(result)), 0]
    return result


def lengths(lost: list[bool]) -> list[int]:
    """The lengths of the runs of lost packets."""
    edges = np.flatnonzero(np.diff(np.array([0, *lost, 0])))
    return [int(b - a) for a, b in edges.reshape(-1, 2)]


@pytest.mark.compiled
@pytest.mark.parametrize(("share", "length"), [(2.0, 4.0), (20.0, 1.5)])
def test_bursts_are_those_of_the_seeded_chain_as_often_and_as_long_as_set(
    share: float, length: float
) -> None:
    n = 100_000
    lost = lost_by_the_link(n, share, length)
    assert lost == naive.lost_in_bursts(naive.flow_numbers(SEED, (0, 1), 0), n, share / 100, length)
    found = lengths(lost)
    error = (1 - 1 / length) ** 0.5 * length / len(found) ** 0.5  # of a geometric law
    assert abs(np.mean(found) - length) < 3 * error
    p = share / 100
    stay = 1 - 1 / length - p / (length * (1 - p))  # correlation of a packet with the next
    error = (p * (1 - p) / n * (1 + stay) / (1 - stay)) ** 0.5
    assert abs(np.mean(lost) - p) < 3 * error


def test_the_chain_is_the_same_without_the_compiler() -> None:
    with np.errstate(over="ignore"):  # the generator counts modulo 2^64
        lost = lost_by_the_link(300, 20, 3)
    assert lost == naive.lost_in_bursts(naive.flow_numbers(SEED, (0, 1), 0), 300, 0.2, 3)


@pytest.mark.compiled
def test_each_direction_has_a_chain_that_no_other_setting_changes() -> None:
    plain = lost_by_the_link(2000, 10, 3)
    assert lost_by_the_link(2000, 10, 3, delay_ms=5, jitter_ms=2, duplicate_pct=9, corrupt_pct=9) == plain
    assert lost_by_the_link(2000, 10, 3, rate_kbit=5, queue_packets=3) == plain
    bench = Bench(Setting(burst_loss_pct=10, burst_packets=3, impaired="server"), SEED)
    up = []
    for k in range(500):
        bench.put(bench.server, 80, 40_000, ts=k)
        up.append(bool(bench.put(bench.client, 40_000, 80, ts=k)["verdict"] & tables.BURST))
    assert up == naive.lost_in_bursts(naive.flow_numbers(SEED, (0, 1), 0, direction=1), 500, 0.1, 3)
    assert bench.flows[0]["burst"].tolist() == [0, sum(up)]


@pytest.mark.compiled
def test_what_comes_in_an_outage_is_lost_and_nothing_else() -> None:
    bench = Bench(Setting(outage_every_ms=50, outage_ms=20), SEED)
    records = bench.many(5000)
    out = naive.outages(naive.stream(SEED, 1, 0), 50 * MS, 20 * MS, 5000 * MS)
    inside = [any(begin <= ts < end for begin, end in out) for ts in records["in_ts"].tolist()]
    assert (records["verdict"] == np.where(inside, tables.OUTAGE, 0)).all()
    assert bench.flows[0]["outage"].tolist() == [sum(inside), 0]
    assert 0.2 < np.mean(inside) < 0.4  # 20 of 70


def offered(seed: int, n: int, gap: float) -> list[naive.Packet]:
    """Packets of several sizes at random times."""
    rng = Random(seed)
    ts, result = 0, []
    for _ in range(n):
        ts += int(rng.expovariate(1 / gap))
        result.append(naive.Packet(ts, rng.choice((54, 154, 554, 1514))))
    return result


def compare(
    setting: Setting, packets: list[naive.Packet], others: list[naive.Packet], twin: naive.Queue
) -> Bench:
    """Pass packets through the link and through its twin; their times and verdicts must be equal."""
    bench = Bench(setting, SEED)
    for packet in packets:
        bench.put(bench.server, 80, 40_000, ts=packet.ts, payload=packet.size - 54)
    records = bench.until(packets[-1].ts + 5000 * MS)
    twin.run(sorted([*packets, *others], key=lambda p: p.ts))
    words = {tables.OVERFLOW: "overflow", tables.CODEL: "codel"}
    assert [words.get(int(r["verdict"]), int(r["due"])) for r in records] == [p.left for p in packets]
    return bench


@pytest.mark.compiled
@pytest.mark.parametrize("discipline", ["drop-tail", "codel"])
def test_a_queue_before_a_rate_is_its_twins(discipline: str) -> None:
    packets = offered(1, 4000, 4.3 * MS)  # 1 Mbit/s, about as much as the rate
    codel = discipline == "codel"
    limit = 300 if codel else 30
    setting = Setting.model_validate(
        {"rate_kbit": 1000, "queue_packets": limit, "queue_discipline": discipline}
    )
    twin = naive.Queue(limit, rate=1e-3, codel=codel)
    bench = compare(setting, packets, [], twin)
    (flow,) = bench.flows
    assert (flow["overflow"][0] > 10) != codel
    assert (flow["codel"][0] > 10) == codel
    assert flow["queued"][0] == 4000 - flow["overflow"][0] - flow["codel"][0]


@pytest.mark.compiled
@pytest.mark.parametrize("discipline", ["drop-tail", "codel"])
def test_a_trace_delivers_at_its_opportunities_and_repeats(tmp_path: Path, discipline: str) -> None:
    rng = Random(3)
    times = [*sorted(rng.randrange(1, 1000) for _ in range(90)), 1000]
    file = tmp_path / "mobile.trace"
    file.write_text("".join(f"{ms}\n" for ms in times))
    packets = offered(2, 3000, 3 * MS)  # a third more than the trace can deliver
    setting = Setting.model_validate(
        {"delivery_trace": str(file), "queue_packets": 40, "queue_discipline": discipline}
    )
    repeated = [(cycle * 1000 + ms) * MS for cycle in range(60) for ms in times]
    bench = compare(setting, packets, [], naive.Queue(40, times=repeated, codel=discipline == "codel"))
    (flow,) = bench.flows
    assert flow["overflow"][0] + flow["codel"][0] > 50


@pytest.mark.compiled
def test_a_super_frame_takes_as_many_opportunities_as_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "steady.trace"
    file.write_text("".join(f"{ms}\n" for ms in range(1, 101)))
    bench = Bench(Setting(delivery_trace=str(file), segmentation_offload="on"))
    for size in (6014, 54, 3014):  # 6000, 40 and 3000 bytes
        bench.put(bench.server, 80, 40_000, ts=250 * MS, payload=size - 54)
    assert (bench.until(1000 * MS)["due"] / MS).tolist() == [253, 254, 256]  # the first at 250, when it comes


@pytest.mark.compiled
def test_cross_traffic_takes_its_share_of_the_queue_and_follows_the_seed() -> None:
    packets = offered(4, 2000, 8 * MS)
    end = packets[-1].ts + 5000 * MS
    cross = [
        naive.Packet(ts, 1500, own=False) for ts in naive.arrivals(naive.stream(SEED, 1, 2), 24 * MS, end)
    ]
    setting = Setting(rate_kbit=1000, queue_packets=20, cross_kbit=500)
    bench = compare(setting, packets, cross, naive.Queue(20, rate=1e-3))
    assert len(cross) == pytest.approx(end / (24 * MS), rel=0.1)
    alone = Bench(Setting(rate_kbit=1000, queue_packets=20), SEED)
    for packet in packets:
        alone.put(alone.server, 80, 40_000, ts=packet.ts, payload=packet.size - 54)
    alone.until(10**15)
    assert bench.flows[0]["waited"][0] > 2 * alone.flows[0]["waited"][0]


@pytest.mark.compiled
def test_both_jitters_together_add_up_and_only_one_lets_packets_overtake() -> None:
    def delays(**setting: float) -> Any:
        return (
            np.array([r["due"] - r["in_ts"] for r in Bench(Setting.model_validate(setting)).many(2000)]) / MS
        )

    free, kept = delays(delay_ms=50, jitter_ms=0.2), delays(delay_ms=50, ordered_jitter_ms=0.1)
    both = delays(delay_ms=50, jitter_ms=0.2, ordered_jitter_ms=0.1)
    assert both == pytest.approx(free + kept - 50, abs=1e-5)
    order = delays(delay_ms=50, ordered_jitter_ms=30) + np.arange(2000)
    assert (np.diff(order) >= 0).all()
