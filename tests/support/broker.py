"""Real Kafka brokers for tests: started from their jars on free ports of loopback, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READY_SECONDS = 90
HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC")

PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={protocol}://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name={protocol}
log.dirs={data}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=3
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={least}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
message.max.bytes=8388608
log.retention.check.interval.ms=500
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=500
"""
CLUSTER_ID = "d2lyZXNvbmRlLXRlc3RzMQ"  # 16 bytes in base64


@cache
def jars() -> Path:
    """The folder of Kafka's jars; skips the test where they cannot be had."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; a broker is run from Kafka's jars")
    done = subprocess.run(
        [str(ROOT / "deploy" / "kafka" / "broker.sh"), "jars"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"Kafka's jars cannot be fetched: {done.stderr.strip()[-200:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Broker:
    """One broker process and its folder."""

    folder: Path
    port: int
    controller: int
    node: int = 1
    voters: str = ""
    protocol: str = "PLAINTEXT"
    replicas: int = 1
    properties: Sequence[str] = ()
    format_options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def format(self) -> None:
        """Write the configuration and format the storage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = PROPERTIES.format(
            node=self.node,
            voters=self.voters or f"1@127.0.0.1:{self.controller}",
            protocol=self.protocol,
            port=self.port,
            controller=self.controller,
            data=self.folder / "data",
            replicas=self.replicas,
            least=1 if self.replicas == 1 else 2,
        )
        (self.folder / "server.properties").write_text(text + "\n".join(self.properties) + "\n")
        self._java(
            "kafka.tools.StorageTool",
            "format",
            "-t",
            CLUSTER_ID,
            "-c",
            "server.properties",
            *self.format_options,
        )

    def _java(self, *arguments: str) -> None:
        done = subprocess.run(
            ["java", "-cp", f"{jars()}/*", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def start(self) -> None:
        """Start the process; it is ready a few seconds later."""
        log = (self.folder / "broker.log").open("ab")
        self.process = subprocess.Popen(
            ["java", *HEAP, "-cp", f"{jars()}/*", "kafka.Kafka", "server.properties"],
            cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        log.close()

    def wait(self) -> None:
        """Until it takes connections."""
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "broker.log").read_text()[-3000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise AssertionError(f"no broker on port {self.port} after {READY_SECONDS} s")

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=20)
        self.process = None

    def restart(self) -> None:
        """Kill and start again, on the same port and data."""
        self.kill()
        self.start()
        self.wait()


@contextlib.contextmanager
def running(folder: Path, **options: object) -> Iterator[Broker]:
    """One broker, formatted and ready; gone afterwards."""
    port, controller = free_ports(2)
    broker = Broker(folder, port, controller, **options)  # type: ignore[arg-type]
    broker.format()
    broker.start()
    try:
        broker.wait()
        yield broker
    finally:
        broker.kill()


@contextlib.contextmanager
def cluster(folder: Path, size: int = 3) -> Iterator[list[Broker]]:
    """Brokers in one quorum; min.insync.replicas is 2."""
    ports = free_ports(2 * size)
    voters = ",".join(f"{k + 1}@127.0.0.1:{ports[2 * k + 1]}" for k in range(size))
    properties = ("broker.session.timeout.ms=3000", "min.insync.replicas=2", "default.replication.factor=3")
    brokers = [
        Broker(
            folder / f"node-{k + 1}",
            ports[2 * k],
            ports[2 * k + 1],
            k + 1,
            voters,
            replicas=size,
            properties=properties,
        )
        for k in range(size)
    ]
    try:
        for broker in brokers:
            broker.format()
            broker.start()
        for broker in brokers:
            broker.wait()
        yield brokers
    finally:
        for broker in brokers:
            broker.kill()


@contextlib.contextmanager
def given_or_started(folder: Path) -> Iterator[str]:
    """KAFKA_BOOTSTRAP, or the address of a broker of our own."""
    if address := os.environ.get("KAFKA_BOOTSTRAP"):
        yield address
        return
    with running(folder) as broker:
        yield broker.address
