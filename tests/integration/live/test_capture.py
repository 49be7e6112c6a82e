"""capture as a process in a namespace of its own, with a real broker in it."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.files.pcap import CaptureFile
from engine.consumer.segments import merge
from engine.headers.decode import decode
from tests.integration.kafka.site import assert_equal, wait_for
from tests.integration.live.sensor import LOSSLESS, Sensor, capturing, cluster, found, metrics, sending
from tests.support.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.kafka, pytest.mark.compiled]


def balanced(report: dict[str, Any]) -> bool:
    """Whether every packet that came in went out or into a counter."""
    given = report["received"] + report["taken_over"]
    return bool(
        given
        == report["published"] + report["waiting"] + report["dropped"]["queue"] + report["dropped"]["bus"]
    )


def test_a_bus_that_is_gone_for_half_a_minute_under_load_costs_nothing(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with capturing(tmp_path, directory=str(tmp_path / "spill")) as (broker, site, sensor):
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


def test_what_the_bus_did_not_take_by_the_end_waits_on_disk_for_the_next_start(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with capturing(tmp_path, directory=str(tmp_path / "spill"), stop_seconds=1.0) as (
            broker,
            site,
            sensor,
        ):
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


def test_a_detector_that_is_killed_while_packets_come_leaves_none_unscored(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with capturing(tmp_path) as (_, site, sensor):
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
            wait_for(lambda: "restored" in second.said(), "its partitions")
            second.stop()
            outs = [detector.out, second.out, site.finish("last")]
            assert_equal(merge([out for out in outs if out.is_dir()]), site.undisturbed())
            assert found(site, "after") == (sent, 0)

    line.inside(work)


def test_a_reload_changes_the_filter_and_a_wrong_one_changes_nothing(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with capturing(tmp_path, "--metrics-port", "0") as (_, site, sensor):
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


def test_capture_loses_its_interface_says_so_and_publishes_what_came(
    line: Wire, mixed: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with capturing(tmp_path) as (_, _, sensor):
            line.send(mixed, "--topspeed", "--limit", "700")
            time.sleep(0.3)
            line.ip("link", "del", "tap0")
            report = sensor.ended(None, code=1)
            assert (report["received"], report["published"]) == (700, 700)
            assert report["problem"] == "tap0: the interface is gone"
            assert sensor.said().splitlines()[-1] == "wiresonde: tap0: the interface is gone"

    line.inside(work)
