"""How many packets a second travel over Kafka, and how long does one take?

    python -m benchmarks.bench_kafka --trace FILE.pcap --json OUT [--rounds 5] [--loop 3]

Starts a broker of its own on loopback; publisher, broker and detectors share this machine's cores. ``publish`` and
``consume`` are one process each beside the broker: blocks of 4,096 packets encoded and published, fetched and decoded.
``pipeline_1`` and ``pipeline_2`` are the complete path, from the capture file to scored connections on the ``scores``
topic, with one and two detector processes that snapshot every 10 seconds. The delay is the time from a message's time
stamp to its rows, at half the rate of ``pipeline_1``. confluent-kafka publishes the same blocks for comparison, if it
is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.measure import interleaved, report
from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaSettings
from connectors.bus.kafka_topics import PACKETS, Admin
from engine import wire
from engine.commands.reading import read_packets
from engine.commands.replay import Replay, ReplayJob
from engine.config import load
from engine.partition import partitions
from engine.types import PacketBlock, Packets, concatenate, take
from tests.support import broker as brokers

BLOCK = 4096
PARTITIONS = 4
SECONDS = 120.0
UNITS = {
    "publish": "packets/s", "consume": "packets/s", "pipeline_1": "packets/s", "pipeline_2": "packets/s",
    "pipeline_without_snapshots": "packets/s", "confluent_publish": "packets/s",
    "publish_cpu": "ms of CPU a block", "confluent_cpu": "ms of CPU a block", "consume_cpu": "ms of CPU a block",
    "delay_p50": "s", "delay_p99": "s", "half_load": "packets/s", "snapshot": "s", "snapshot_bytes": "bytes",
    "wire": "bytes/packet", "message": "bytes/packet",
}  # fmt: skip


def blocks_of(trace: Path) -> list[tuple[int, PacketBlock]]:
    """The trace as blocks of 4,096 packets, by partition."""
    p = concatenate(list(read_packets([trace])))
    goes = partitions(p, PARTITIONS)
    out = []
    for k in range(PARTITIONS):
        mine: Packets = take(p, goes == k)
        for begin in range(0, mine.ts.size, BLOCK):
            part = take(mine, slice(begin, begin + BLOCK))
            out.append((k, PacketBlock("bench", 0, begin, part, int(part.ts.max()))))
    return out


class Bench:
    """One broker and one trace."""

    def __init__(self, broker: brokers.Broker, trace: Path, folder: Path, loop: int) -> None:
        self.broker, self.trace, self.folder, self.loop = broker, trace, folder, loop
        self.blocks = blocks_of(trace)
        self.packets = sum(len(b) for _, b in self.blocks)
        self.extra: dict[str, list[float]] = {}
        self.rate = 0.0  # rate of the last pipeline_1

    def note(self, name: str, value: float) -> None:
        self.extra.setdefault(name, []).append(value)

    def settings(self) -> KafkaSettings:
        """Settings with topics for one run only."""
        settings = KafkaSettings((self.broker.address,), prefix=f"b{uuid.uuid4().hex[:8]}.")
        with Admin(settings) as admin:
            admin.create(PARTITIONS, 1, 24)
        return settings

    def forget(self, settings: KafkaSettings) -> None:
        with Admin(settings) as admin:
            admin._client.delete_topics([t.name for t in admin.describe()])

    def publish(self) -> float:
        settings = self.settings()
        publisher = KafkaPublisher(settings, PACKETS)
        began, cpu = time.perf_counter(), time.process_time()
        size = 0
        for partition, block in self.blocks:
            data = wire.encode(block)
            size += len(data)
            publisher.publish(partition, data)
        publisher.flush()
        seconds = time.perf_counter() - began
        self.note("publish_cpu", (time.process_time() - cpu) / len(self.blocks) * 1e3)
        self.note("message", size / self.packets)
        publisher.close()
        time.sleep(0.5)
        self.note("wire", self.log_bytes(settings) / self.packets)
        self.forget(settings)
        return self.packets / seconds

    def log_bytes(self, settings: KafkaSettings) -> int:
        logs = (self.broker.folder / "data").glob(f"{settings.topic(PACKETS)}-*/*.log")
        return sum(path.stat().st_size for path in logs)

    def confluent(self) -> float:
        from confluent_kafka import Producer

        settings = self.settings()
        producer = Producer(
            {
                "bootstrap.servers": self.broker.address, "enable.idempotence": True, "compression.type": "lz4",
                "message.max.bytes": 8 << 20, "queue.buffering.max.kbytes": 1 << 20, "linger.ms": 0,
            }
        )  # fmt: skip
        began, cpu = time.perf_counter(), time.process_time()
        for partition, block in self.blocks:
            producer.produce(settings.topic(PACKETS), wire.encode(block), partition=partition)
            producer.poll(0)
        producer.flush()
        seconds = time.perf_counter() - began
        self.note("confluent_cpu", (time.process_time() - cpu) / len(self.blocks) * 1e3)
        self.forget(settings)
        return self.packets / seconds

    def consume(self) -> float:
        settings = self.settings()
        publisher = KafkaPublisher(settings, PACKETS)
        for partition, block in self.blocks:
            publisher.publish(partition, wire.encode(block))
        publisher.flush()
        publisher.close()
        subscriber = KafkaSubscriber(settings, PACKETS, "bench", stop_at_end=True)
        left, began, cpu = self.packets, 0.0, 0.0
        while left > 0:
            messages = subscriber.poll(0.5)
            for change in subscriber.changes():
                subscriber.log(change.partition)
                subscriber.seek(change.partition, 0)
                began, cpu = time.perf_counter(), time.process_time()
            for message in messages or ():
                left -= len(wire.decode(message.value))
        seconds = time.perf_counter() - began
        self.note("consume_cpu", (time.process_time() - cpu) / len(self.blocks) * 1e3)
        subscriber.close()
        self.forget(settings)
        return self.packets / seconds

    @contextmanager
    def detectors(self, settings: KafkaSettings, count: int, snapshot: float) -> Iterator[list[str]]:
        """Start detectors and wait until they have their partitions; gives the addresses of their metrics."""
        config = self.folder / f"{settings.prefix}yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "detect": {"snapshot_seconds": snapshot},
                    "bus": {
                        "url": f"kafka://{self.broker.address}",
                        "kafka": {"prefix": settings.prefix, "block_packets": BLOCK},
                    },
                }
            )
        )
        state = self.folder / f"{settings.prefix}state"
        processes: list[subprocess.Popen[bytes]] = []
        addresses = []
        try:
            for _ in range(count):
                log = (self.folder / f"{settings.prefix}{len(processes)}.log").open("w+")
                command = [
                    sys.executable, "-m", "engine.cli", "detect", "--group", "bench", "--state", str(state),
                    "--config", str(config), "--metrics-port", "0",
                ]  # fmt: skip
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
                addresses.append(_until(lambda log=log: _address(Path(log.name)), "metrics"))
            # a new member is ready with no partitions until the others give up its share
            share = PARTITIONS // count
            _until(lambda: all(_ready(a) and _held(a) == share for a in addresses), "partitions")
            yield addresses
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=60)

    def pipeline(self, count: int, snapshot: float = 10.0, speed: float = 0.0) -> float:
        settings = self.settings()
        with self.detectors(settings, count, snapshot) as addresses:
            config = load(self.folder / f"{settings.prefix}yaml")
            job = Replay(ReplayJob([self.trace], config, speed=speed, loop=1 if speed else self.loop))
            total = self.packets * (1 if speed else self.loop)
            began = time.perf_counter()
            job.run()
            _until(lambda: _sum(addresses, "wiresonde_packets_total") >= total, "all packets")
            seconds = time.perf_counter() - began
            texts = [_scrape(a) for a in addresses]
        self.forget(settings)
        if speed:
            self.note("delay_p50", quantile(texts[0], 0.5))
            self.note("delay_p99", quantile(texts[0], 0.99))
            self.note("half_load", total / seconds)
        sizes = [
            float(v) for text in texts for v in re.findall(r"^wiresonde_snapshot_bytes\S* (\S+)", text, re.M)
        ]
        times = [
            float(v)
            for text in texts
            for v in re.findall(r"^wiresonde_snapshot_seconds\S* (\S+)", text, re.M)
        ]
        if sizes:
            self.note("snapshot_bytes", max(sizes))
            self.note("snapshot", max(times))
        if count == 1 and not speed:
            self.rate = total / seconds
        return total / seconds

    def paced(self) -> float:
        """Half the rate of one detector; the figure is the rate that resulted."""
        first, last = self.blocks[0][1].packets.ts[0], max(b.now for _, b in self.blocks)
        span = (last - int(first)) * 1e-9
        return self.pipeline(1, speed=self.rate / 2 * span / self.packets)


def quantile(text: str, share: float) -> float:
    """A quantile of wiresonde_delay_seconds, log-linear within the bucket."""
    found = re.findall(r'^wiresonde_delay_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.M)
    below, low = 0.0, 0.0005
    wanted = share * float(found[-1][1])
    for edge, count in ((float(e), float(c)) for e, c in found):
        if count >= wanted and count > below:
            part = (wanted - below) / (count - below)
            return low if math.isinf(edge) else low * (edge / low) ** part
        below, low = count, edge
    return low


def _until(condition, what: str):  # type: ignore[no-untyped-def]
    ends = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {SECONDS:.0f} s: {what}")
        time.sleep(0.01)
    return value


def _address(log: Path) -> str:
    found = re.search(r"metrics at (\S+)/metrics", log.read_text())
    return found[1] if found else ""


def _scrape(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _sum(addresses: list[str], name: str) -> float:
    return sum(float(v) for a in addresses for v in re.findall(rf"^{name}\S* (\S+)", _scrape(a), re.M))


def _held(address: str) -> int:
    return len(re.findall(r"^wiresonde_next_offset\{", _scrape(address), re.M))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, brokers.running(Path(name) / "broker") as broker:
        bench = Bench(broker, arguments.trace, Path(name), arguments.loop)
        rounds = arguments.rounds
        work = {
            "publish": (rounds, bench.publish),
            "consume": (rounds, bench.consume),
            "pipeline_1": (rounds, lambda: bench.pipeline(1)),
            "pipeline_2": (3, lambda: bench.pipeline(2)),
            "pipeline_without_snapshots": (3, lambda: bench.pipeline(1, 86400.0)),
            "half_load": (3, bench.paced),
        }
        if importlib.util.find_spec("confluent_kafka"):
            work["confluent_publish"] = (rounds, bench.confluent)
        runs = interleaved(work, rounds)
        runs |= {name: values[1:] or values for name, values in bench.extra.items() if name != "half_load"}
        report(
            runs, UNITS, arguments.json,
            trace={"name": arguments.trace.name, "packets": bench.packets, "loop": arguments.loop},
        )  # fmt: skip


if __name__ == "__main__":
    main()
