"""Sensors as processes: capture and watch, and the broker they publish to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.kafka.site import Site, wait_for
from tests.support import broker as brokers
from tests.support.broker import Broker
from tests.support.netns import Wire

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


@contextmanager
def capturing(folder: Path, *words: str, **spill: object) -> Iterator[tuple[Broker, Site, Sensor]]:
    """A cluster, and a sensor that publishes what passes tap0 to it."""
    with cluster(folder, **spill) as (broker, site):
        sensor = Sensor(site, "capture", "-i", "tap0", *words)
        sensor.ready()
        yield broker, site, sensor


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


def metrics(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def alone(tmp_path: Path, settings: str) -> Site:
    """A configuration without a broker."""
    site = Site("127.0.0.1:9", tmp_path)
    site.config.write_text(settings)
    return site
