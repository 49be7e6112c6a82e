"""What the lab's link decides, frame by frame."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from probing.lab.errors import LabError
from probing.lab.link import heap, kernels, tables
from probing.lab.link.link import FLOWS, laws
from probing.lab.settings import DISTRIBUTIONS
from probing.lab.settings import Link as Setting
from tests.support.lab_link import ACK, FIN, MS, SYN, Bench, Port

pytestmark = pytest.mark.compiled  # the kernels call the C library

N = 4000


def share(part: int, of: int, pct: float) -> bool:
    """Whether a share is as set, within four standard deviations of a binomial law."""
    p = pct / 100
    return bool(abs(part - of * p) <= 4 * (of * p * (1 - p)) ** 0.5)


@pytest.mark.parametrize("pct", [1, 5, 30])
def test_shares_are_as_set(pct: float) -> None:
    lost = Bench(Setting(loss_pct=pct)).many(N)
    assert share(int((lost["verdict"] == tables.LOST).sum()), N, pct)
    early = Bench(Setting(delay_ms=50, reorder_pct=pct)).many(N)
    assert share(int((early["verdict"] == tables.EARLY).sum()), N, pct)
    assert (early["due"] - early["in_ts"] == np.where(early["verdict"] == tables.EARLY, 0, 50 * MS)).all()
    twice = Bench(Setting(duplicate_pct=pct))
    twice.many(N)
    copies = int(twice.state.control[tables.RECORDS]) - N
    assert share(copies, N, pct)
    assert copies == twice.flows[0]["duplicated"].sum()


def test_a_damaged_frame_differs_in_one_bit_behind_its_ports_and_is_logged_as_it_came() -> None:
    bench = Bench(Setting(corrupt_pct=50))
    records = bench.many(200)
    damaged = records[records["verdict"] == tables.CORRUPT]
    assert share(damaged.size, 200, 50)
    store = bench.state.store
    for r in damaged:
        a = store[r["start"] : r["start"] + r["length"]]
        b = store[r["sent"] : r["sent"] + r["length"]]
        flipped = np.flatnonzero(a != b)
        assert flipped.size == 1
        assert flipped[0] >= 14 + 20 + 4
        assert bin(a[flipped[0]] ^ b[flipped[0]]).count("1") == 1
    whole = records[records["verdict"] == 0]
    assert (whole["start"] == whole["sent"]).all()


def test_nothing_happens_to_a_packet_by_default() -> None:
    records = Bench(Setting()).many(100)
    assert (records["verdict"] == 0).all()
    assert (records["due"] == records["in_ts"]).all()


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_jitter_follows_its_law(law: str) -> None:
    table = laws()[DISTRIBUTIONS.index(law)]
    assert abs(table.mean()) < 0.05
    assert (np.diff(table) >= 0).all()
    if law == "uniform":
        assert (table.min(), table.max()) == pytest.approx((-1, 1), abs=1e-3)
    else:
        assert table.std() == pytest.approx(1, abs=0.1)
    records = Bench(Setting(delay_ms=100, jitter_ms=10, distribution=law)).many(N)
    delay = (records["due"] - records["in_ts"]) / MS
    assert delay.mean() == pytest.approx(100, abs=1)
    assert np.quantile(delay, [0.1, 0.5, 0.9]) == pytest.approx(
        100 + 10 * np.quantile(table, [0.1, 0.5, 0.9]), abs=1
    )


def test_jitter_lets_packets_overtake_unless_order_is_kept() -> None:
    free = Bench(Setting(delay_ms=100, jitter_ms=10)).many(500)
    kept = Bench(Setting(delay_ms=100, ordered_jitter_ms=10)).many(500)
    assert (np.diff(free["due"]) < 0).any()
    assert (np.diff(kept["due"]) >= 0).all()
    assert (np.diff(kept["due"]) == 0).any()  # held back


def test_a_rate_spaces_packets_and_its_queue_overflows() -> None:
    bench = Bench(Setting(rate_kbit=1000, queue_packets=10))
    for _ in range(15):
        bench.put(bench.server, 80, 40_000, ts=MS, payload=1000)
    records = bench.until(1000 * MS)
    carried = records[records["verdict"] == 0]
    assert carried.size == 10
    assert (records["verdict"][10:] == tables.OVERFLOW).all()
    bits = int(records["length"][0]) * 8
    assert (np.diff(carried["due"]) == bits * 1000).all()  # a kilobit takes a millisecond
    assert bench.flows[0]["overflow"].sum() == 5
    later = bench.put(bench.server, 80, 40_000, ts=MS + 20 * bits * 1000, payload=1000)
    assert later["verdict"] == 0


def test_directions_have_rates_of_their_own() -> None:
    bench = Bench(Setting(rate_kbit=1000))
    for sender, ports in ((bench.server, (80, 40_000)), (bench.client, (40_000, 80))):
        bench.put(sender, *ports, ts=MS, payload=1000)
    down, up = bench.until(1000 * MS)
    assert down["due"] == up["due"] > MS


@pytest.mark.parametrize(("impaired", "hurt"), [("server", "client"), ("client", "server")])
def test_only_the_impaired_direction_suffers(impaired: str, hurt: str) -> None:
    bench = Bench(Setting(delay_ms=10, loss_pct=50, impaired=impaired))
    for i in range(200):
        for sender, ports in ((bench.server, (80, 40_000)), (bench.client, (40_000, 80))):
            bench.put(sender, *ports, ts=i * MS, payload=10)
    records = bench.state.records[:400]
    sent_by = {"server": records["origin"] == 0, "client": records["origin"] == 1}
    for name, chosen in sent_by.items():
        lost = int((records["verdict"][chosen] == tables.LOST).sum())
        assert (lost > 50) == (name == hurt), (name, lost)
        assert (records["due"] - records["in_ts"] == 10 * MS)[chosen & (records["verdict"] == 0)].all()


def fates(seed: int, port: int, start: int, pause: int) -> list[int]:
    """Verdicts of 300 packets each way on a connection."""
    bench = Bench(Setting(loss_pct=10, duplicate_pct=5), seed)
    result = [bench.put(bench.client, port, 80, ts=start, flags=SYN, seq=port)["verdict"]]
    for i in range(300):
        ts = start + i * pause
        result.append(bench.put(bench.client, port, 80, ts=ts, payload=10)["verdict"])
        result.append(bench.put(bench.server, 80, port, ts=ts, payload=1000)["verdict"])
    return [int(v) for v in result]


def test_fates_follow_from_seed_and_flow_not_from_time_or_port() -> None:
    assert fates(1, 40_000, 0, MS) == fates(1, 51_234, 77 * MS, 3 * MS)
    assert fates(1, 40_000, 0, MS) != fates(2, 40_000, 0, MS)


def test_the_next_connection_to_the_same_port_meets_other_fates_and_the_same_when_repeated() -> None:
    def two(ports: tuple[int, int]) -> list[list[int]]:
        bench = Bench(Setting(loss_pct=20))
        result = []
        for port in ports:
            bench.put(bench.client, port, 80, flags=SYN, seq=port)
            result.append([int(bench.put(bench.server, 80, port, payload=9)["verdict"]) for _ in range(200)])
        return result

    first, second = two((40_000, 40_001))
    assert first != second
    assert [first, second] == two((50_000, 33_333))


def test_a_port_used_again_is_another_connection_and_a_syn_sent_again_is_not() -> None:
    bench = Bench(Setting())
    bench.put(bench.client, 40_000, 80, flags=SYN, seq=7)
    bench.put(bench.client, 40_000, 80, flags=SYN, seq=7)
    bench.put(bench.server, 80, 40_000, flags=SYN | ACK, seq=1)
    assert bench.flows.size == 1
    bench.put(bench.client, 40_000, 80, flags=SYN, seq=8)
    bench.put(bench.server, 80, 40_000, flags=SYN | ACK, seq=2)
    assert bench.flows.size == 2
    assert bench.flows["packets"].tolist() == [[2, 1], [1, 1]]


def test_what_must_be_sent_again_is_counted_apart_from_bare_acknowledgements() -> None:
    bench = Bench(Setting(loss_pct=100))
    for flags, payload in ((SYN, 0), (ACK, 0), (ACK, 5), (ACK | FIN, 0)):
        bench.put(bench.client, 40_000, 80, flags=flags, payload=payload)
    bench.put(bench.client, 50_000, 53, proto=17, payload=20)
    assert bench.flows["lost"][:, 0].tolist() == [4, 1]
    assert bench.flows["lost_data"][:, 0].tolist() == [3, 1]


def test_a_cut_connection_is_not_carried_and_others_are() -> None:
    bench = Bench(Setting())
    for port in (40_000, 40_001):
        bench.put(bench.client, port, 80, flags=SYN, seq=port)
    assert not bench.link.cut("10.0.0.10", 1)
    assert bench.link.cut("10.0.0.10", 40_000)
    assert bench.put(bench.server, 80, 40_000)["verdict"] == tables.CUT
    assert bench.put(bench.client, 40_000, 80)["verdict"] == tables.CUT
    assert bench.put(bench.server, 80, 40_001)["verdict"] == 0
    assert bench.flows["cuts"].tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("opened_by_server", [False, True])
def test_the_network_fails_at_the_segment_that_exceeds_what_its_sender_may_still_send(
    sender: Literal["client", "server"], opened_by_server: bool
) -> None:
    bench = Bench(Setting())
    first = bench.server if opened_by_server else bench.client
    ports = {bench.client.last: 40_000, bench.server.last: 20}

    def put(by: Port, payload: int) -> int:
        other = bench.server if by is bench.client else bench.client
        return int(bench.put(by, ports[by.last], ports[other.last], payload=payload)["verdict"])

    put(first, 500)
    assert bench.link.cut_after("10.0.0.10", 40_000, sender, 250)
    mine, other = (bench.client, bench.server) if sender == "client" else (bench.server, bench.client)
    assert [put(mine, 100), put(other, 1000), put(mine, 0), put(mine, 150)] == [0] * 4
    assert not bench.link.is_cut("10.0.0.10", 40_000)
    assert [put(mine, 1), put(other, 0), put(mine, 1)] == [tables.CUT] * 3
    assert bench.link.is_cut("10.0.0.10", 40_000)


def _arp(bench: Bench, sender: Port, to: bytes, ts: int) -> Any:
    """Put an ARP frame in; its records."""
    frame = to + sender.mac + b"\x08\x06" + bytes(46)
    used, before = int(bench.state.control[tables.USED]), int(bench.state.control[tables.RECORDS])
    bench.state.store[used : used + len(frame)] = np.frombuffer(frame, np.uint8)
    origin = 1 if sender is bench.client else 0
    bench.waiting = kernels.decide(bench.state, origin, len(frame), ts, bench.waiting)
    return bench.state.records[before : bench.state.control[tables.RECORDS]]


def test_arp_has_flows_by_pair_of_macs_which_end_after_a_minute_of_silence() -> None:
    bench, second = Bench(Setting(delay_ms=50, loss_pct=100)), 1_000_000_000
    everybody = b"\xff" * 6
    assert _arp(bench, bench.client, everybody, second)["target"].tolist() == [0]
    _arp(bench, bench.server, bench.client.mac, second)
    _arp(bench, bench.client, bench.server.mac, 2 * second)
    _arp(bench, bench.client, everybody, 61 * second)
    _arp(bench, bench.client, bench.server.mac, 63 * second)
    flows = bench.flows
    assert flows["src"].tolist() == [1, 0, 1]
    assert flows["dst"].tolist() == [tables.EVERYBODY, 1, 0]
    assert flows["packets"].tolist() == [[2, 0], [1, 1], [1, 0]]
    assert set(flows["proto"].tolist()) == {tables.ARP}
    assert flows["lost"].sum() == 0, "ARP suffers neither delay nor loss"


def test_frames_leave_the_heap_in_order_of_time_and_of_coming_in() -> None:
    rng = np.random.default_rng(1)
    entries = np.zeros((1000, 2), np.int64)
    due = rng.integers(0, 50, 1000)
    for i, at in enumerate(due.tolist()):
        heap.push(entries, i, at, i)
    out = [heap.pop(entries, 1000 - k) for k in range(1000)]
    assert out == sorted(range(1000), key=lambda i: (due[i], i))


def test_a_link_without_room_says_so() -> None:
    bench = Bench(Setting(delay_ms=1))
    for port in range(FLOWS + 1):
        bench.state.control[tables.USED] = bench.state.control[tables.RECORDS] = bench.waiting = 0
        bench.put(bench.client, port % 60_000 + 1, port // 60_000 + 1, flags=SYN)
    with pytest.raises(LabError, match="ran out of room for flows"):
        bench.link.check()
    waiting = Bench(Setting(delay_ms=1))
    waiting.waiting = waiting.state.heap.shape[0]
    waiting.put(waiting.client, 1, 2)
    with pytest.raises(LabError, match="frames that wait at the same time"):
        waiting.link.check()
    copies = Bench(Setting(duplicate_pct=100))
    copies.state.control[tables.RECORDS] = copies.state.records.size - 1
    copies.put(copies.client, 1, 2)
    with pytest.raises(LabError, match=r"frames \(frames\)"):
        copies.link.check()


def test_fates_do_not_follow_from_ports_that_are_drawn_for_a_transfer() -> None:
    def lost(port: int) -> list[int]:
        bench = Bench(Setting(loss_pct=20))
        return [int(bench.put(bench.server, 20, port, payload=9)["verdict"]) for _ in range(100)]

    assert lost(30_001) == lost(41_234)
    assert lost(30_001) != lost(8080)
