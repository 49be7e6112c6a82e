"""Impairments of the link between real hosts: what was set is what the labels say, and what others find in captures."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.commands.reading import read_packets
from engine.config import Config
from probing.lab.settings import AVAILABLE
from tests.integration.lab.test_link import DOWNLOAD, RETRANSMITTED, total, tshark
from tests.support import naive_link as naive
from tests.support.lab import Done, needs, perform

pytestmark = pytest.mark.lab

MS = 1_000_000
N = 1_000_000  # bytes of a download
OUTAGES = {"outage_every_ms": 100, "outage_ms": 15}
RENO = {"delay_ms": 5, "rate_kbit": 16_000, "queue_packets": 200, "congestion_control": "reno"}
# ms of the opportunities: tenths of a second of 12 and of 2.4 Mbit/s in turn
TIMES = [t for t in range(1, 1001) if (t - 1) // 100 % 2 == 0 or t % 5 == 0]
LINKS: dict[str, dict[str, Any]] = {
    "bursts": {"delay_ms": 5, "burst_loss_pct": 2, "burst_packets": 3, "impaired": "client"},
    "outages": {"delay_ms": 5, **OUTAGES},
    "drop-tail": RENO,
    "cross": {**RENO, "cross_kbit": 8000},
    "small": {"delay_ms": 5, "mtu": 600, "congestion_control": "reno"},
    "jumbo": {"delay_ms": 5, "mtu": 9000},
    "offload": {"delay_ms": 5, "segmentation_offload": "on", "loss_pct": 5, "impaired": "client"},
    "trace": {"delay_ms": 5, "delivery_trace": "mobile.trace", "congestion_control": "reno"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """A run under each link, all else equal."""
    needs("nginx")
    folder = tmp_path_factory.mktemp("impairments")
    file = folder / "mobile.trace"
    file.write_text("".join(f"{t}\n" for t in TIMES))
    twins = [x | ({"delivery_trace": str(file)} if "delivery_trace" in x else {}) for x in LINKS.values()]
    entry = {**DOWNLOAD, "samples": 2, "twins": twins, "parameters": {"content_bytes": N}}
    done = {one.run.twin: one for one in perform(folder, entry)}
    found = dict(zip(LINKS, (done[letter] for letter in sorted(done))))
    assert all(row["succeeded"] for one in found.values() for row in one.rows)
    return found


def packets(capture: Path, *, sent: bool) -> tuple[list[int], list[int]]:
    """Times and sizes of the packets that the server (sent) or its client sent."""
    times, sizes = [], []
    for p in read_packets([capture], Config()):
        mine = (p.sport == 80) == sent
        times += p.ts[mine].tolist()
        sizes += p.size[mine].tolist()
    return times, sizes


def test_packets_lost_in_bursts_are_sent_again(runs: dict[str, Done]) -> None:
    done = runs["bursts"]
    lost = total(done.rows, "burst_lost_data_down")
    assert total(done.rows, "lost_down") == total(done.rows, "burst_lost_up") == 0
    assert 5 < total(done.rows, "bursts_down") < lost
    assert tshark(done.capture("server"), RETRANSMITTED) == lost
    for row in done.rows:  # each packet of a direction meets the fate of the seeded chain
        source = naive.flow_numbers(done.run.seed, (1, 0), 80, ordinal=row["sample"], direction=1)
        chain = naive.lost_in_bursts(source, row["packets_down"], 0.02, 3)
        assert sum(chain) == row["burst_lost_down"]


def test_packets_are_lost_in_outages_and_only_there(runs: dict[str, Done]) -> None:
    done = runs["outages"]
    began = done.account["link"]["began_ns"]
    until = done.account["last_ns"] - began
    source = naive.stream(done.run.seed, 1, 0)
    out = naive.outages(source, OUTAGES["outage_every_ms"] * MS, OUTAGES["outage_ms"] * MS, until)
    for side, sent, way in (("server", True, "down"), ("client", False, "up")):
        entered = sorted(ts - began for ts in packets(done.capture(side), sent=sent)[0])
        inside = sum(bisect_left(entered, end) - bisect_left(entered, begin) for begin, end in out)
        assert inside == total(done.rows, f"outage_lost_{way}") > 0
    again = tshark(done.capture("server"), RETRANSMITTED)
    assert again >= total(done.rows, "outage_lost_data_down")  # and where acknowledgements were lost


def waits(done: Done) -> list[float]:
    """Time in the link, in ms and without its delay, of each packet of payload that came to the client, in order."""
    found: dict[tuple[int, int], int] = {}
    result = []
    for side in ("server", "client"):
        for p in read_packets([done.capture(side)], Config()):
            mine = (p.sport == 80) & (p.payload > 0)
            for ts, *name in zip(*(column[mine].tolist() for column in (p.ts, p.seq, p.ip_id))):
                if side == "server":
                    found[name[0], name[1]] = ts
                else:
                    result.append((ts - found[name[0], name[1]]) / MS - done.run.link.delay_ms)
    return result


def test_codel_keeps_waiting_short_where_drop_tail_fills_the_queue(tmp_path: Path) -> None:
    twins = [{**RENO, "queue_discipline": "codel"}, RENO]
    entry = {**DOWNLOAD, "samples": 1, "twins": twins, "parameters": {"content_bytes": 4 * N}}
    codel, tail = sorted(perform(tmp_path, entry), key=lambda done: done.run.twin)
    assert total(codel.rows, "codel_lost_down") > 0
    assert total(tail.rows, "overflow_down") > 0 == total(tail.rows, "codel_lost_down")
    lost = total(codel.rows, "codel_lost_data_down") + total(codel.rows, "overflow_data_down")
    assert tshark(codel.capture("server"), RETRANSMITTED) == lost
    short, long = waits(codel), waits(tail)
    for done, found in ((codel, short), (tail, long)):  # a frame itself takes 0.76 ms
        assert np.mean(found) == pytest.approx(done.rows[0]["queueing_mean_ms_down"] + 0.76, abs=1)
    half = len(short) // 2  # by then CoDel has brought the first burst under control
    assert np.mean(short[half:]) < 3 * 5  # the target is 5 ms
    assert np.mean(long[half:]) > 50  # a full queue takes 151 ms


def test_cross_traffic_takes_half_of_the_rate(runs: dict[str, Done]) -> None:
    def seconds(done: Done) -> list[float]:
        return [connection["duration"] for _, connection in done.joined()]

    alone, shared = min(seconds(runs["drop-tail"])), min(seconds(runs["cross"]))
    assert shared > 1.3 * alone


def test_frames_are_as_large_as_the_interfaces_allow(runs: dict[str, Done]) -> None:
    for name, done in runs.items():
        for row in done.rows:
            largest, most = row["largest_bytes_down"], done.run.link.mtu + 14
            assert (largest == most) == (name != "offload"), name
            assert (row["super_frames_down"] > 0) == (name == "offload")
    offload = runs["offload"]
    sizes = packets(offload.capture("server"), sent=True)[1]
    assert max(sizes) == max(row["largest_bytes_down"] for row in offload.rows) > 3000
    assert sum(size > 1514 for size in sizes) == total(offload.rows, "super_frames_down")
    assert total(offload.rows, "lost_data_down") > 0


def test_the_congestion_control_is_the_one_that_was_set(runs: dict[str, Done]) -> None:
    own = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    for done in runs.values():
        for row in done.rows:
            wanted = done.run.link.congestion_control
            assert row["congestion_control"] == wanted
            assert row["congestion_control_up"] == row["congestion_control_down"] == (wanted or own)
    assert own in AVAILABLE.read_text().split()


def test_a_trace_is_reproduced_within_two_percent(runs: dict[str, Done]) -> None:
    done = runs["trace"]
    began = done.account["link"]["began_ns"] + 5 * MS  # delay behind the queue
    times, sizes = packets(done.capture("client"), sent=True)
    left = (np.array(times) - began) / MS
    given = np.array([cycle * 1000 + t for cycle in range(60) for t in TIMES])
    for row in done.rows:
        own = (np.array(times) >= row["start"]) & (np.array(times) <= row["end"])
        at, carried = left[own], np.cumsum(np.array(sizes)[own] - 14)
        # from the middle of the download on, the queue is never empty
        first = int(np.searchsorted(carried, N // 2))
        last = len(at) - 20
        delivered = carried[first : last + 1] - carried[first]
        offered = 1500 * np.array([bisect_right(given, t) for t in at[first : last + 1]])
        offered -= offered[0]
        assert delivered[-1] == pytest.approx(offered[-1], rel=0.02)
        assert np.abs(delivered - offered).max() < 0.02 * offered[-1]
        rates = np.diff(np.interp(np.arange(at[first], at[last], 100), at, carried))
        assert rates.max() > 1.5 * rates.min()  # no constant rate; a window may lie across a change
