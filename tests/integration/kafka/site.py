"""A cluster's topics, a configuration and processes of ours, for one test."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from connectors.bus.kafka_client import KafkaSettings
from connectors.bus.kafka_topics import Admin
from engine.consumer.segments import Merged, merge

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "demo" / "demo.pcap.zst"
LABELS = ROOT / "demo" / "labels.csv"
SECONDS = 120  # after which a test that waits has failed
FAST = {  # learned and calibrated within the demo, on each of four partitions
    "kitnet": {"map_samples": 300, "learn_samples": 1500},
    "scorer": {"calibrate_packets": 500},
    "features": {"flows": 4096},
}
CONSUMER = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 500, "max_poll_interval_ms": 10000}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """What the condition gives once it is true; fails after ``seconds``."""
    ends = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


@dataclass
class Detector:
    """A detect process of a test."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def ended(self, code: int | None = 0, seconds: float = SECONDS) -> str:
        """Wait for its end; what it said on stderr."""
        try:
            got = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running after {seconds} s:\n{self.said()[-3000:]}") from None
        assert code is None or got == code, f"exit {got}:\n{self.said()[-3000:]}"
        return self.said()

    def stop(self) -> None:
        self.process.terminate()
        self.ended()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Site:
    """One prefix of topics in a cluster, one folder."""

    address: str
    folder: Path
    partitions: int = 4
    block_packets: int = 64
    settings: dict[str, Any] = field(default_factory=dict)
    verbose: tuple[str, ...] = ("-v",)
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}.")

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "wiresonde.yaml"
        self.state = self.folder / "state"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the configuration; ``changes`` replace whole sections."""
        data = {
            "kitsune": FAST,
            "connections": {"capacity": 4096},
            "labels": {"slice": ["task", "attack"]},
            "detect": {"snapshot_seconds": 0.3, "flush_seconds": 0.1},
            "bus": {
                "url": f"kafka://{self.address}",
                "kafka": {"prefix": self.prefix, "block_packets": self.block_packets, "consumer": CONSUMER},
            },
        } | self.settings
        self.config.write_text(yaml.safe_dump(data | changes))

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(tuple(self.address.split(",")), prefix=self.prefix)

    def make_topics(self, replicas: int = 1) -> None:
        with Admin(self.kafka) as admin:
            admin.create(self.partitions, replicas, 24)

    def topic_id(self) -> str:
        with Admin(self.kafka) as admin:
            return admin.packets().id

    def command(self, *arguments: object) -> list[str]:
        words = [*self.verbose, *map(str, arguments), "--config", str(self.config)]
        return [sys.executable, "-m", "engine.cli", *words]

    def run(
        self, *arguments: object, code: int = 0, seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == code, (
            f"exit {done.returncode}:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        )
        return done

    def replay(self, *more: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("replay", DEMO, "--labels", LABELS, *more, code=code)

    def start(self, arguments: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            process = subprocess.Popen(
                arguments, cwd=ROOT, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def detect(
        self, name: str, *more: object, group: str = "g", state: Path | None = None, crash: str = ""
    ) -> Detector:
        """Start a detector; ``crash``: a point of tests/integration/kafka/crash.py at which it kills itself."""
        out, log = self.folder / f"out-{name}", self.folder / f"{name}.log"
        command = self.command(
            "detect", "--group", group, "--state", state or self.state, "--out", out, *more
        )
        if crash:
            command[1:3] = [str(Path(__file__).with_name("crash.py")), crash]
        return Detector(self.start(command, log), out, log)

    def finish(self, name: str, *more: object, group: str = "g", state: Path | None = None) -> Path:
        """Run a detector to the end of the log; its folder of scores."""
        detector = self.detect(name, "--stop-at-end", *more, group=group, state=state)
        detector.ended()
        return detector.out

    def undisturbed(self) -> Merged:
        """What one process that nothing happens to makes of the log."""
        return merge(
            [self.finish("undisturbed", group="undisturbed", state=self.folder / "state-undisturbed")]
        )

    def snapshots(self, partition: int | str = "*", state: Path | None = None) -> list[Path]:
        """Files of snapshots, oldest first."""
        return sorted((state or self.state).glob(f"*/{partition}/*.safetensors"), key=lambda p: p.name)

    def offsets(self) -> dict[int, int]:
        """Messages in each partition of the packets topic."""
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.address.split(","))
        try:
            at = [TopicPartition(f"{self.prefix}packets", k) for k in range(self.partitions)]
            return {tp.partition: end for tp, end in consumer.end_offsets(at).items()}
        finally:
            consumer.close()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


def final_rows(merged: Merged) -> pa.Table:
    """Rows of ended connections."""
    return merged.table.filter(merged.table["final"])


def assert_equal(got: Merged, wanted: Merged) -> None:
    """Every offset is covered, and every row is equal to the last bit."""
    assert got.gaps == {}, got.gaps
    assert got.spans == wanted.spans
    assert all(len(spans) == 1 and spans[0][0] == 0 for spans in got.spans.values())
    a, b = got.table, wanted.table
    assert a.column_names == b.column_names
    assert a.num_rows == b.num_rows
    for name in a.column_names:
        assert a[name].combine_chunks().equals(b[name].combine_chunks()), name


def committed(text: str) -> dict[int, int]:
    """Restored offsets by partition, from a detector's log."""
    return {int(m[1]): int(m[2]) for m in re.finditer(r"partition=(\d+) restored offset=(\d+)", text)}


def summary(text: str) -> dict[str, Any]:
    """The JSON object a command printed last."""
    return dict(json.loads(text.strip().splitlines()[-1]))
