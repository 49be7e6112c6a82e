"""Network namespaces for tests: a wire of two interfaces that nothing else touches, gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

CLONE_NEWNET = 0x40000000
NUMBER = itertools.count()
Value = TypeVar("Value")


class Sent(NamedTuple):
    """What tcpreplay sent."""

    packets: int
    rate: float  # a second


@dataclass(frozen=True)
class Wire:
    """A namespace with a pair of interfaces: what is sent into ``wire0`` comes out of ``tap0``."""

    name: str
    sender: str = "wire0"
    receiver: str = "tap0"

    def command(self, *words: object) -> list[str]:
        """A command that runs inside."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def ip(self, *words: str) -> None:
        """ip, inside."""
        subprocess.run(["ip", "-n", self.name, *words], check=True, capture_output=True, timeout=20)

    def replay(
        self, capture: Path, *options: str, seconds: float = 120.0, before: tuple[str, ...] = ()
    ) -> Sent:
        """Replay a pcap file into the wire. ``before``: words before the command."""
        done = subprocess.run(
            self.command(*before, "tcpreplay", "-K", "-i", self.sender, *options, capture),
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        packets = re.search(r"Successful packets:\s+(\d+)", done.stdout)
        rate = re.search(r"Rated: .* ([\d.]+) pps", done.stdout)
        assert packets is not None, done.stdout
        return Sent(int(packets[1]), float(rate[1]) if rate else 0.0)

    def send(self, capture: Path, *options: str, seconds: float = 120.0) -> int:
        """Replay a pcap file into the wire; the packets that were sent."""
        return self.replay(capture, *options, seconds=seconds).packets

    def inside(self, work: Callable[[], Value]) -> Value:
        """Run a function in a thread that lives in the namespace, as all do that it starts."""
        result: list[Value] = []
        problem: list[BaseException] = []

        def run() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open() as file:
                    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                result.append(work())
            except BaseException as error:
                problem.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        return result[0]


@contextlib.contextmanager
def wire(*, mtu: int = 9000, receiver: str = "tap0") -> Iterator[Wire]:
    """A fresh wire. Skips the test where namespaces cannot be made."""
    if os.getuid() != 0:
        pytest.skip("only root may make network namespaces")
    for tool in ("ip", "tcpreplay"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    made = Wire(f"wsonde-{os.getpid()}-{next(NUMBER)}", receiver=receiver)
    if subprocess.run(
        ["ip", "netns", "add", made.name], capture_output=True, timeout=20, check=False
    ).returncode:
        pytest.skip("network namespaces cannot be made here")
    try:
        made.ip("link", "set", "lo", "up")
        made.ip("link", "add", made.sender, "type", "veth", "peer", "name", made.receiver)
        for name in (made.sender, made.receiver):
            quiet = f"net.ipv6.conf.{name}.disable_ipv6=1"  # no packets but those of the test
            subprocess.run(made.command("sysctl", "-qw", quiet), check=False, capture_output=True, timeout=20)
            made.ip("link", "set", name, "mtu", str(mtu), "addrgenmode", "none", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=False, capture_output=True, timeout=20)
