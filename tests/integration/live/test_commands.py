"""capture and watch as processes in a namespace of their own, with a real broker in it where Kafka is concerned."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.pcap import CaptureFile
from engine.decode import decode
from engine.segments import merge
from tests import broker as brokers
from tests.broker import Broker
from tests.capture_bytes import pcap
from tests.integration.kafka.site import Site, assert_equal, wait_for
from tests.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]
LOSSLESS = {"kernel": 0, "ring": 0, "queue": 0, "bus": 0}


class Sensor:
    """A capture or watch process and what it says."""

    def __init__(self, site: Site, *words: object, **environment: str) -> None:
        self.log, self.out = site.folder / "sensor.log", site.folder / "sensor.json"
        with self.log.open("ab") as log, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                site.command(*words), stdout=out, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )  # fmt: skip
        site.processes.append(self.process)

    def said(self) -> str:
        return self.log.read_text()

    def ready(self, sign: str = "capturing interface") -> None:
        def check() -> bool:
            assert self.process.poll() is None, self.said()[-3000:]
            return sign in self.said()

        wait_for(check, sign)

    def ended(self, number: signal.Signals | None = signal.SIGTERM, code: int = 0) -> dict[str, Any]:
        """Stop it; its counters."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.wait(timeout=60) == code, self.said()[-3000:]
        return dict(json.loads(self.out.read_text()))


def balanced(report: dict[str, Any]) -> bool:
    """Whether every packet that came in went out or into a counter."""
    given = report["received"] + report["taken_over"]
    return bool(
        given
        == report["published"] + report["waiting"] + report["dropped"]["queue"] + report["dropped"]["bus"]
    )


@contextmanager
def cluster(folder: Path, **spill: object) -> Iterator[tuple[Broker, Site]]:
    """A broker and its topics. To be entered inside the namespace."""
    with brokers.running(folder / "broker") as broker:
        site = Site(broker.address, folder / "site")
        site.settings = {"spill": {"memory_bytes": 1 << 20, **spill}}
        site.configure()
        site.make_topics()
        try:
            yield broker, site
        finally:
            site.close()


def sending(line: Wire, capture: Path, *options: str) -> Callable[[], int]:
    """Send in the background; a function that waits for the end and gives the packets sent."""
    sent: list[int] = []
    thread = threading.Thread(target=lambda: sent.append(line.send(capture, *options, seconds=200)))
    thread.start()

    def finish() -> int:
        thread.join()
        return sent[0]

    return finish


def found(site: Site, name: str) -> tuple[int, int]:
    """Packets a detector finds in the topic, and how many it misses."""
    site.verbose = ()
    done = site.run("detect", "--group", name, "--state", site.folder / name, "--stop-at-end", "--json")
    report = json.loads(done.stdout)
    return report["packets"], report["counters"]["lost packets"]


@pytest.mark.kafka
def test_a_bus_that_is_gone_for_half_a_minute_under_load_costs_nothing(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with cluster(tmp_path, directory=str(tmp_path / "spill")) as (broker, site):
            sensor = Sensor(site, "capture", "-i", "tap0")
            sensor.ready()
            finish = sending(line, mixed, "--pps", "3000", "--loop", "6")
            time.sleep(3)
            broker.kill()
            time.sleep(30)
            assert list((tmp_path / "spill" / "tap0").glob("*.sqlite")) != []
            broker.start()
            broker.wait()
            sent = finish()
            time.sleep(2)
            report = sensor.ended()
            assert (report["received"], report["published"]) == (sent, sent)
            assert report["dropped"] == LOSSLESS
            assert found(site, "after") == (sent, 0)

    line.inside(work)


@pytest.mark.kafka
def test_what_finds_no_room_while_the_bus_is_gone_is_counted_here_and_missed_there(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with cluster(tmp_path) as (broker, site):
            site.configure(
                bus={
                    "url": f"kafka://{broker.address}",
                    "kafka": {"prefix": site.prefix, "in_flight_bytes": 1 << 20},
                }
            )
            sensor = Sensor(site, "capture", "-i", "tap0")
            sensor.ready()
            line.send(mixed, "--topspeed", "--limit", "5000")
            time.sleep(1)
            broker.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            sent = 5000 + line.send(mixed, "--pps", "20000", "--loop", "8")
            broker.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
            time.sleep(2)
            sent += line.send(mixed, "--topspeed", "--limit", "1000")  # a gap shows with what comes after it
            time.sleep(1)
            report = sensor.ended()
            assert report["received"] + report["dropped"]["ring"] + report["dropped"]["kernel"] == sent
            assert report["dropped"]["queue"] > 0
            assert report["waiting"] == 0
            assert balanced(report)
            assert found(site, "after") == (report["published"], report["dropped"]["queue"])

    line.inside(work)


@pytest.mark.kafka
def test_what_the_bus_did_not_take_by_the_end_waits_on_disk_for_the_next_start(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with cluster(tmp_path, directory=str(tmp_path / "spill"), stop_seconds=1.0) as (broker, site):
            sensor = Sensor(site, "capture", "-i", "tap0")
            sensor.ready()
            line.send(mixed, "--topspeed", "--limit", "2000")
            time.sleep(1)
            broker.kill()
            line.send(mixed, "--topspeed", "--limit", "3000")
            time.sleep(0.5)
            first = sensor.ended()
            assert (first["received"], first["published"], first["waiting"]) == (5000, 2000, 3000)
            broker.start()
            broker.wait()
            again = Sensor(site, "capture", "-i", "tap0", "--duration", "1")
            second = again.ended(None)
            assert (second["received"], second["published"], second["taken_over"]) == (0, 3000, 3000)
            assert found(site, "after") == (5000, 0)

    line.inside(work)


@pytest.mark.kafka
def test_a_detector_that_is_killed_while_packets_come_leaves_none_unscored(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with cluster(tmp_path) as (_, site):
            sensor = Sensor(site, "capture", "-i", "tap0")
            sensor.ready()
            detector = site.detect("first")
            wait_for(lambda: "restored" in detector.said(), "its partitions")
            finish = sending(line, mixed, "--pps", "4000")
            wait_for(site.snapshots, "a snapshot")
            time.sleep(1)
            detector.kill()
            second = site.detect("second")
            sent = finish()
            time.sleep(1)
            report = sensor.ended()
            assert report["published"] == report["received"] == sent
            second.stop()
            outs = [detector.out, second.out, site.finish("last")]
            assert_equal(merge([out for out in outs if out.is_dir()]), site.undisturbed())
            assert found(site, "after") == (sent, 0)

    line.inside(work)


@pytest.mark.kafka
def test_a_reload_changes_the_filter_and_a_wrong_one_changes_nothing(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with cluster(tmp_path) as (_, site):
            sensor = Sensor(site, "capture", "-i", "tap0", "--metrics-port", "0")
            sensor.ready()
            url = sensor.said().split("metrics at ")[1].split()[0]
            line.send(mixed, "--topspeed", "--limit", "1000")
            name = 'wiresonde_sensor_received_packets_total{interface="tap0",sensor="wiresonde"} 1000.0'
            wait_for(lambda: name in metrics(url), "the packets in the metrics")
            site.configure(capture={"filter": "udp and nonsense"})
            sensor.process.send_signal(signal.SIGHUP)
            sensor.ready("reload refused, nothing changed: filter 'udp and nonsense'")
            site.configure(capture={"filter": "udp"}, sensor={"name": "other"})
            sensor.process.send_signal(signal.SIGHUP)
            sensor.ready("reloaded: filter='udp' snaplen=256; a restart is needed for sensor.name")
            line.send(mixed, "--topspeed", "--limit", "1000")
            time.sleep(0.5)
            with CaptureFile(mixed) as capture:
                udp = int((decode(next(iter(capture))).proto[:1000] == 17).sum())
            assert udp > 0
            assert sensor.ended()["received"] == 1000 + udp

    line.inside(work)


@pytest.mark.kafka
def test_systemd_is_told_of_start_progress_reload_and_stop(line: Wire, tmp_path: Path) -> None:
    told: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)

        def until(sign: bytes) -> None:
            while not told or sign not in told[-1]:
                told.append(systemd.recv(1 << 12))

        def work() -> None:
            with cluster(tmp_path) as (_, site):
                environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
                sensor = Sensor(site, "capture", "-i", "tap0", **environment)
                until(b"READY=1")
                began = time.monotonic()
                for _ in range(5):
                    told.clear()
                    until(b"WATCHDOG=1")
                assert time.monotonic() - began < 2.0  # every 0.2 s, half of what systemd waits
                sensor.process.send_signal(signal.SIGHUP)
                until(b"RELOADING=1\nMONOTONIC_USEC=")
                until(b"READY=1")
                sensor.process.send_signal(signal.SIGTERM)
                until(b"STOPPING=1")
                sensor.ended(None)

        line.inside(work)


def metrics(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def alone(tmp_path: Path, settings: str) -> Site:
    """A configuration without a broker."""
    site = Site("127.0.0.1:9", tmp_path)
    site.config.write_text(settings)
    return site


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
        wait_for(lambda: 'wiresonde_connections_total{model="kitsune"} 1.0' in metrics(url), "its end", 20)
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
    assert done.stderr.startswith("wiresonde: lo: not allowed to capture: CAP_NET_RAW is needed")


@pytest.mark.kafka
def test_capture_loses_its_interface_says_so_and_publishes_what_came(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with cluster(tmp_path) as (_, site):
            sensor = Sensor(site, "capture", "-i", "tap0")
            sensor.ready()
            line.send(mixed, "--topspeed", "--limit", "700")
            time.sleep(0.3)
            line.ip("link", "del", "tap0")
            report = sensor.ended(None, code=1)
            assert (report["received"], report["published"]) == (700, 700)
            assert report["problem"] == "tap0: the interface is gone"
            assert sensor.said().splitlines()[-1] == "wiresonde: tap0: the interface is gone"

    line.inside(work)


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
