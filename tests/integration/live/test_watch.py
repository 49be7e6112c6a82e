"""watch as a process in a namespace of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from engine.consumer.segments import merge
from tests.integration.kafka.site import Site, wait_for
from tests.integration.live.sensor import LOSSLESS, Sensor, alone, metrics
from tests.support.capture_bytes import pcap
from tests.support.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]


def one_datagram(tmp_path: Path) -> Path:
    """A UDP packet between two hosts."""
    ip = bytes.fromhex("4500001c000100004011000a0a0000010a000002")
    frame = bytes.fromhex("0200000000020200000000010800") + ip + bytes.fromhex("1388003500080000") + bytes(18)
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap([(0, frame, len(frame))]))
    return path


def test_on_a_quiet_link_a_connection_ends_within_its_timeout_and_two_seconds(
    line: Wire, tmp_path: Path
) -> None:
    site = alone(tmp_path, "connections: {udp_timeout: 3.0}\n")

    def work() -> float:
        sensor = Sensor(site, "watch", "-i", "tap0", "--metrics-port", "0")
        sensor.ready("metrics at ")
        url = sensor.said().split("metrics at ")[1].split()[0]
        line.send(one_datagram(tmp_path))
        began = time.monotonic()
        wait_for(lambda: "wiresonde_connections_total 1.0" in metrics(url), "its end", 20)
        took = time.monotonic() - began
        assert sensor.ended()["connections"] == 1
        return took

    try:
        assert 2.5 < line.inside(work) < 5.0
    finally:
        site.close()


def test_watch_ends_after_its_duration_with_its_counters_and_scores(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    site = alone(tmp_path, "connections: {udp_timeout: 5.0}\n")

    def work() -> tuple[dict[str, Any], int]:
        words = ("--duration", "8", "--learn", "12000", "--out", tmp_path / "out")
        sensor = Sensor(site, "watch", "-i", "tap0", *words)
        sensor.ready("privileges dropped")
        sent = line.send(mixed, "--pps", "8000")
        return sensor.ended(None), sent

    try:
        report, sent = line.inside(work)
    finally:
        site.close()
    assert (report["received"], report["published"]) == (sent, sent)
    assert report["dropped"] == LOSSLESS
    assert report["phase"] == "score"
    assert report["scored"] > 100
    merged = merge([next((tmp_path / "out").glob("2*"))])
    assert sum(merged.table["final"].to_pylist()) == report["connections"]
    assert (tmp_path / "out" / "alerts.jsonl").exists()


def test_watch_loses_its_interface_says_so_and_scores_what_came(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    site = alone(tmp_path, "")

    def work() -> dict[str, Any]:
        sensor = Sensor(site, "watch", "-i", "tap0")
        sensor.ready("privileges dropped")
        line.send(mixed, "--topspeed", "--limit", "500")
        time.sleep(0.3)
        line.ip("link", "del", "tap0")
        report = sensor.ended(None, code=1)
        assert sensor.said().splitlines()[-1] == "wiresonde: tap0: the interface is gone"
        return report

    try:
        report = line.inside(work)
    finally:
        site.close()
    assert (report["received"], report["published"]) == (500, 500)


def test_watch_whose_interface_goes_before_a_packet_came_gives_its_counters(
    line: Wire, tmp_path: Path
) -> None:
    site = alone(tmp_path, "")

    def work() -> dict[str, Any]:
        sensor = Sensor(site, "watch", "-i", "tap0")
        sensor.ready("privileges dropped")
        time.sleep(0.5)
        line.ip("link", "del", "tap0")
        return sensor.ended(None, code=1)

    try:
        report = line.inside(work)
    finally:
        site.close()
    assert (report["received"], report["problem"]) == (0, "tap0: the interface is gone")


def test_two_processes_share_the_packets_of_an_interface(line: Wire, mixed: Path, tmp_path: Path) -> None:
    sites = [alone(tmp_path / name, "capture: {fanout: 9}\n") for name in ("first", "second")]

    def work() -> tuple[list[dict[str, Any]], int]:
        sensors = [Sensor(site, "watch", "-i", "tap0") for site in sites]
        for sensor in sensors:
            sensor.ready("privileges dropped")
        sent = line.send(mixed, "--pps", "20000")
        time.sleep(0.5)
        return [sensor.ended() for sensor in sensors], sent

    try:
        reports, sent = line.inside(work)
    finally:
        for site in sites:
            site.close()
    assert sum(report["received"] for report in reports) == sent
    assert min(report["received"] for report in reports) > 0
    assert all(report["published"] == report["received"] for report in reports)


def test_watch_shows_what_happens_on_a_terminal(line: Wire, mixed: Path, tmp_path: Path) -> None:
    site = alone(tmp_path, "")
    site.verbose = ()
    ours, theirs = pty.openpty()

    def work() -> bytes:
        process = subprocess.Popen(
            site.command("watch", "-i", "tap0", "--duration", "5"), stdout=subprocess.DEVNULL, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        )  # fmt: skip
        site.processes.append(process)
        os.close(theirs)
        shown = b""
        sent = False
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
            if not sent and b"live" in shown:
                line.send(mixed, "--topspeed", "--limit", "2000")
                sent = True
        process.wait(timeout=30)
        return shown

    try:
        shown = line.inside(work).decode()
    finally:
        site.close()
        os.close(ours)
    assert "tap0 for" in shown
    assert "2,000 (" in shown
    assert "ring 0, kernel 0" in shown


def test_without_the_privilege_the_way_to_it_is_said(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to lose a privilege")
    command = Site("127.0.0.1:9", tmp_path, verbose=()).command("watch", "-i", "lo")
    command = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("wiresonde: lo: no permission to capture: needs CAP_NET_RAW")


def test_the_one_capability_is_enough_and_is_given_back(line: Wire, mixed: Path, tmp_path: Path) -> None:
    site = alone(tmp_path, "")

    def work() -> tuple[dict[str, Any], set[str]]:
        only = (
            "setpriv",
            "--bounding-set=-all,+net_raw",
            "--inh-caps=-all,+net_raw",
            "--ambient-caps=-all,+net_raw",
        )
        log = tmp_path / "sensor.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*only, *site.command("watch", "-i", "tap0")], stdout=subprocess.PIPE, stderr=file
            )
        site.processes.append(process)
        wait_for(lambda: process.poll() is not None or "privileges dropped" in log.read_text(), "its start")
        assert process.poll() is None, log.read_text()
        line.send(mixed, "--topspeed", "--limit", "500")
        time.sleep(0.5)
        held = set()
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            lines = dict(
                text.split(":\t", 1) for text in (task / "status").read_text().splitlines() if ":\t" in text
            )
            held |= {lines[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} | {lines["NoNewPrivs"]}
        process.terminate()
        out, _ = process.communicate(timeout=60)
        return json.loads(out), held

    try:
        report, held = line.inside(work)
    finally:
        site.close()
    assert report["received"] == report["published"] == 500
    assert held == {"0" * 16, "1"}
