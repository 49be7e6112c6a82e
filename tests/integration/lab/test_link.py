"""The link between real hosts: what it says it did is what others find in the captures."""

from __future__ import annotations

import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.commands.reading import read_packets
from engine.config import Config
from probing.lab.link import netem
from probing.lab.run import How
from tests.support.lab import Done, needs, perform

pytestmark = pytest.mark.lab

DOWNLOAD = {"scenario": "http", "server": "nginx", "client": "asyncio", "activity": "get"}


def tshark(capture: Path, what: str) -> int:
    """Packets from the server that a display filter finds."""
    needs("tshark")
    done = subprocess.run(
        ["tshark", "-o", "tcp.check_checksum:TRUE", "-r", capture, "-Y", f"tcp.srcport==80 && ({what})"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return len(done.stdout.splitlines())


def handshakes(capture: Path) -> dict[int, tuple[int, int]]:
    """Times of SYN and SYN+ACK, by the client's port."""
    syn, answer = {}, {}
    for p in read_packets([capture], Config()):
        for ts, flags, sport, dport in zip(*(c.tolist() for c in (p.ts, p.tcp_flags, p.sport, p.dport))):
            if flags == 2:
                syn[sport] = ts
            elif flags == 18:
                answer[dport] = ts
    return {port: (syn[port], answer[port]) for port in syn}


def total(rows: list[dict[str, Any]], name: str) -> int:
    return sum(int(row[name]) for row in rows)


RETRANSMITTED = "tcp.analysis.retransmission || tcp.analysis.out_of_order"


def download(tmp_path: Path, link: dict[str, Any], n: int = 2_000_000, **more: Any) -> list[Done]:
    entry = {**DOWNLOAD, "samples": 3, "link": link, "parameters": {"content_bytes": n}, **more}
    return sorted(
        perform(tmp_path, entry), key=lambda done: (done.run.link.loss_pct, done.run.link.reorder_pct)
    )


def test_retransmissions_at_the_sender_are_the_packets_that_the_link_dropped(tmp_path: Path) -> None:
    runs = download(tmp_path, {"delay_ms": 10, "loss_pct": [0, 1, 2, 5], "impaired": "client"})
    assert [done.run.link.loss_pct for done in runs] == [0, 1, 2, 5]
    for done in runs:
        lost = total(done.rows, "lost_data_down")
        assert (lost > 0) == (done.run.link.loss_pct > 0)
        assert tshark(done.capture("server"), RETRANSMITTED) == lost
        assert total(done.connections("server"), "resp_retransmitted") == lost
        assert total(done.connections("server"), "resp_reordered") == 0
        assert total(done.rows, "lost_up") == 0
        dropped = total(done.rows, "lost_down")  # seen where they were sent, and nowhere else
        assert done.account["packets"]["server"] - done.account["packets"]["client"] == dropped


def test_retransmissions_are_the_packets_that_found_the_queue_full(tmp_path: Path) -> None:
    (done,) = download(tmp_path, {"delay_ms": 10, "rate_kbit": 20_000, "queue_packets": 20})
    lost = total(done.rows, "overflow_data_down")
    assert lost > 50
    assert tshark(done.capture("server"), RETRANSMITTED) == lost
    assert total(done.connections("server"), "resp_retransmitted") == lost


def test_reordering_at_the_receiver_is_what_the_link_did(tmp_path: Path) -> None:
    link = {"delay_ms": 5, "rate_kbit": 4000, "reorder_pct": [1, 5], "impaired": "client"}
    for done in download(tmp_path, link, 500_000):
        late = total(done.rows, "reordered_data_down")
        assert late > 0
        assert total(done.rows, "reordered_down") >= late
        sent_again = tshark(done.capture("server"), RETRANSMITTED)  # for it looked like a loss: few
        assert sent_again < late
        # one that is sent again may be late as well: then it is the one or the other
        assert late - sent_again <= total(done.connections("client"), "resp_reordered") <= late
        assert late <= tshark(done.capture("client"), RETRANSMITTED) <= late + sent_again
        assert total(done.connections("server"), "resp_reordered") == 0


def test_jitter_reorders_unless_order_is_kept(tmp_path: Path) -> None:
    twins = [{"jitter_ms": 2}, {"ordered_jitter_ms": 2}]
    for done in download(tmp_path, {"delay_ms": 20, "rate_kbit": 10_000}, 300_000, twins=twins):
        assert (total(done.rows, "reordered_down") > 0) == (done.run.link.jitter_ms > 0)
        spread = [row["delay_std_ms_up"] for row in done.rows]  # acknowledgements do not fill the queue
        assert 1 < statistics.median(spread) < 4


def test_a_round_trip_takes_twice_the_delay(tmp_path: Path) -> None:
    entry = {
        **DOWNLOAD,
        "samples": 5,
        "link": {"delay_ms": [0, 10, 50, 100]},
        "parameters": {"content_bytes": 1000},
    }
    for done in perform(tmp_path, entry):
        delay = done.run.link.delay_ms
        for name, trips in (
            ("labelled", [row["handshake_ms"] for row in done.rows]),
            ("measured", [connection["round_trip"] * 1e3 for _, connection in done.joined()]),
        ):
            assert min(trips) >= 2 * delay, name
            assert statistics.median(trips) < 2 * delay + 1.5, name  # the machine may be busy now and then
        at = {side: handshakes(done.capture(side)) for side in ("client", "server")}
        assert at["client"].keys() == at["server"].keys()
        # what a host sends is seen at once at its side, what comes to it when it is there
        for ways in (
            [(at["server"][port][0] - syn) / 1e6 for port, (syn, _) in at["client"].items()],
            [(answer - at["server"][port][1]) / 1e6 for port, (_, answer) in at["client"].items()],
        ):
            assert min(ways) >= delay
            assert statistics.median(ways) < delay + 1.0


def test_duplicates_and_damage_reach_the_receiver_only(tmp_path: Path) -> None:
    (done,) = download(
        tmp_path, {"delay_ms": 5, "duplicate_pct": 2, "corrupt_pct": 1, "impaired": "client"}, 500_000
    )
    twice, damaged = total(done.rows, "duplicated_down"), total(done.rows, "corrupted_down")
    assert twice > 5
    assert damaged > 3
    assert done.account["packets"]["client"] == done.account["packets"]["server"] + twice
    wrong = tshark(done.capture("client"), "tcp.checksum.status == 0")
    assert damaged <= wrong <= damaged + twice  # a damaged frame may be sent twice
    assert tshark(done.capture("server"), "tcp.checksum.status == 0") == 0
    # the receiver's kernel throws damaged segments away: they are sent again
    assert total(done.connections("server"), "resp_retransmitted") == damaged


def test_fates_are_repeated_with_the_seed(tmp_path: Path) -> None:
    link = {"delay_ms": 2, "loss_pct": 5}
    entry = {**DOWNLOAD, "samples": 12, "link": link, "parameters": {"content_bytes": 3000}}

    def lost(folder: str, seed: int) -> list[tuple[int, int]]:
        (done,) = perform(tmp_path / folder, entry, seed=seed)
        return [
            (row["lost_up"], row["lost_down"]) for row in sorted(done.rows, key=lambda row: row["sample"])
        ]

    first = lost("a", 1)
    assert sum(map(sum, first)) > 0
    assert first == lost("b", 1)
    assert first != lost("c", 2)


def test_the_kernels_queues_can_stand_in_for_the_link(tmp_path: Path) -> None:
    """With netem where the kernel has it; else with tbf, which has a rate and a queue: the way is the same."""
    if netem.available():
        (done,) = perform(
            tmp_path, {**DOWNLOAD, "samples": 3, "link": {"delay_ms": 10, "loss_pct": 2, "impaired": "client"},
                       "parameters": {"content_bytes": 500_000}}, how=How(link="netem"),
        )  # fmt: skip
        lost = total(done.rows, "lost_data_down")
        for row in done.rows:
            assert row["handshake_ms"] == pytest.approx(20, abs=3)
    else:
        (done,) = perform(
            tmp_path, {**DOWNLOAD, "samples": 3, "link": {"rate_kbit": 20_000, "queue_packets": 40},
                       "parameters": {"content_bytes": 500_000}},
            how=How(link="tbf"),
        )  # fmt: skip
        lost = total(done.rows, "overflow_data_down") + total(done.rows, "lost_data_down")
        for row, connection in done.joined():
            assert row["data_down"] > 300
            assert connection["duration"] > 0.15  # 500 kB at 20 Mbit/s
    assert lost > 5
    # the kernel's queue makes round trips uneven: now and then TCP sends again what was not lost
    assert lost <= tshark(done.capture("server"), RETRANSMITTED) <= lost * 1.05 + 2
