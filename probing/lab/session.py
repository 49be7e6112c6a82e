"""One sample: a client does an activity once, and reports what only it can know.

A session runs in a thread on the client's host, so its sockets and programs are the host's. Everything random comes
from ``rng``, which is equal in twins and in repetitions of a run.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from probing.lab.errors import LabError
from probing.lab.hosts import Host
from probing.lab.isolation import OUT, ROOM
from probing.lab.link.link import Link
from probing.lab.settings import (
    LEAST_SPREAD,
    LONGEST_THINK_S,
    MOST_PACE,
    MOST_SPREAD,
    THINK_SIGMAS,
    Parameters,
)

TEXT = b"the quick brown fox jumps over the lazy dog and then it sleeps in the sun until noon "
COMMAND_S = 60.0  # seconds after which a client's program is killed, unless its call says otherwise


@dataclass(frozen=True)
class Site:
    """The place where a service is set up."""

    host: Host
    folder: Path  # empty folder for this service alone
    parameters: Parameters
    activities: tuple[str, ...]  # activities that it is to serve
    clients: tuple[Host, ...]  # hosts of the clients that will use it
    seed: int

    def template(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that is expensive to build (a fresh database): built once, copied by every run."""
        place = OUT / ".templates" / name
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            part = place.with_name(f"{name}.{os.getpid()}-{time.monotonic_ns()}.part")
            part.mkdir()
            make(part)
            try:
                part.rename(place)
            except OSError:
                if not place.exists():
                    raise
        return place


class Service(Protocol):
    """A server program, started without systemd and ready when ``start`` returns."""

    programs: tuple[str, ...]  # executables and other parts that it needs (check.py)
    roles: Mapping[int, str]  # role of connections by server port; other ports have ``data``

    def start(self, site: Site) -> None:
        """Configure and start the server on its host. Raises LabError when it does not become ready."""

    def version(self) -> str:
        """The version that the program reports."""


class Claim(NamedTuple):
    """Labels of the connections of a host, whose ports are not known, since a time."""

    host: Host
    arp: bool  # True: of its ARP; False: of what it does by IP
    since: int  # ns, monotonic
    labels: dict[str, Any]
    via: Host | None = None  # only of connections whose frames pass through this host


@dataclass
class Span:
    """The log of a session. Times are ns, monotonic; ports are the client's own, where it knows them."""

    sample: int
    address: str
    start: int
    end: int = 0
    ports: set[int] = field(default_factory=set)
    marks: list[tuple[str, int]] = field(default_factory=list)
    content_bytes: int | None = None
    succeeded: bool | None = None
    problem: str = ""
    by_port: dict[int, dict[str, Any]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """One repetition of an activity, before it is done."""

    activity: str
    parameters: Parameters
    seed: str  # of its user; with the number, the seed of all that is random in it
    number: int  # index of the repetition, from 0


class Thoughts:
    """The think times of a sample: log-normal, with a pace and a spread that belong to the user.

    They have a generator of their own, so that think_ms changes no content and no choice.
    """

    def __init__(self, sample: Sample, user: str) -> None:
        """user: name of the user's host."""
        own = Random(f"{sample.seed}/{user}/pace")
        self.pace = math.exp(own.uniform(-MOST_PACE, MOST_PACE))  # factor of the median
        self.spread = own.uniform(LEAST_SPREAD, MOST_SPREAD)  # sigma of the logarithm
        self._rng = Random(f"{sample.seed}/{sample.number}/{user}/think")

    def next(self, think_ms: float) -> float:
        """A think time in seconds for a median of think_ms, before the user's pace."""
        if not think_ms:
            return 0.0
        z = max(-THINK_SIGMAS, min(THINK_SIGMAS, self._rng.gauss(0.0, 1.0)))
        return min(LONGEST_THINK_S, think_ms / 1e3 * self.pace * math.exp(self.spread * z))


class Session:
    """What a client has to do, with what, and where it reports what it did."""

    def __init__(
        self, sample: Sample, hosts: Sequence[Host], server: Host, link: Link, held: list[Any]
    ) -> None:
        """hosts: the client's own, then further ones (synchronisation). held: receives what is to be kept open."""
        self.activity, self.parameters, self.sample = sample.activity, sample.parameters, sample.number
        self.seed = sample.seed
        self.host, self.hosts = hosts[0], tuple(hosts)
        self.server, self.server_host = server.address, server
        self.rng = Random(f"{sample.seed}/{sample.number}")
        self.span = Span(sample.number, self.host.address, 0)
        self._thoughts = Thoughts(sample, self.host.name)
        self.folder = ROOM / "clients" / self.host.name  # the client's own, kept between samples
        self._link, self._held = link, held

    # what a client reports

    def mark(self, phase: str) -> None:
        """Record that a phase begins now."""
        self.span.marks.append((phase, time.monotonic_ns()))

    def claim(self, port: int, **labels: Any) -> None:
        """Claim the connection from this local port; labels: those in which it differs (termination …)."""
        self.span.ports.add(port)
        if labels:
            self.span.by_port.setdefault(port, {}).update(labels)

    def claim_next(self, host: Host, via: Host | None = None, **labels: Any) -> None:
        """Claim the connections that a host of the session opens from now on, whose ports are not known.

        via: only those whose frames pass through this host.
        """
        self.span.claims.append(Claim(host, False, time.monotonic_ns(), labels, via))

    def claim_arp(self, host: Host, **labels: Any) -> None:
        """Claim what a host sends and receives by ARP in conversations that last now, or begin later."""
        self.span.claims.append(Claim(host, True, time.monotonic_ns(), labels))

    def attempt(self, port: int, *, attack: bool) -> None:
        """Count a login that is tried, or an injection, in the connection of this local port."""
        own = self.span.by_port.setdefault(port, {})
        own["attempts"] = own.get("attempts", 0) + 1
        own["carries_attack"] = own.get("carries_attack", False) or attack

    def transferred(self, n: int) -> None:
        """Add n bytes of content that were, or should have been, transferred in either direction."""
        self.span.content_bytes = (self.span.content_bytes or 0) + n

    def outcome(self, succeeded: bool) -> None:
        """Record whether the activity reached its goal (a login, a transfer, an answer)."""
        self.span.succeeded = succeeded

    # what a client needs

    def size(self) -> int:
        """The size of a transfer, drawn log-uniformly from the range of content_bytes."""
        low, high = self.parameters.size_range
        if low == high:
            return low
        rank = 0.5 if self.parameters.content_fixed else self.rng.random()
        drawn: float = (low + 1) * ((high + 1) / (low + 1)) ** rank
        return min(high, max(low, round(drawn) - 1))

    def between(self, low: int, high: int) -> int:
        """A number drawn from a range; its middle with content_fixed."""
        return (low + high) // 2 if self.parameters.content_fixed else self.rng.randint(low, high)

    def content(self, n: int) -> bytes:
        """n bytes of content of the configured kind."""
        if self.parameters.content_kind == "binary":
            return self.rng.randbytes(n)
        at = self.rng.randrange(len(TEXT))
        return (TEXT * (n // len(TEXT) + 2))[at : at + n]

    def pause(self) -> None:
        """Wait for pause_ms."""
        if self.parameters.pause_ms:
            time.sleep(self.parameters.pause_ms / 1e3)

    def thought(self) -> float:
        """The next think time in seconds, for clients that wait by other means; 0.0 without think_ms."""
        return self._thoughts.next(self.parameters.think_ms)

    def think(self) -> None:
        """Wait for a think time."""
        if self.parameters.think_ms:
            time.sleep(self.thought())

    def run(
        self, *argv: str | Path, ok: tuple[int, ...] = (0,), seconds: float = COMMAND_S, feed: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
        """Run a program on this host to its end. Raises LabError for an exit code that is not in ``ok``."""
        process = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=self.folder,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        try:
            out, err = process.communicate(feed, timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if 124 not in ok:
                raise LabError(f"{argv[0]}: still running after {seconds:g} s: {_tail(err)}") from None
            return subprocess.CompletedProcess(argv, 124, out, err)
        if process.returncode not in ok:
            raise LabError(
                f"{' '.join(map(str, argv))}: exit {process.returncode}: {_tail(err) or _tail(out)}"
            )
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def vanish(self, port: int) -> None:
        """Let the network fail for the connection of this local port: nothing more of it is carried."""
        self._seen(port, self._link.cut(self.host.address, port))

    def vanish_amid(self, port: int, sender: Literal["client", "server"], after: int = 0) -> None:
        """Let the network fail at the segment that brings the sender's further payload above ``after`` bytes.

        The sender then has unacknowledged data, and sends it again and again.
        """
        self._seen(port, self._link.cut_after(self.host.address, port, sender, after))

    def vanished(self, port: int) -> bool:
        """Whether the network has failed for the connection of this local port."""
        return self._link.is_cut(self.host.address, port)

    def _seen(self, port: int, seen: bool) -> None:
        if not seen:
            raise LabError(f"port {port} of {self.host.name}: the link has seen no connection of it")

    def keep(self, thing: Any) -> None:
        """Keep a socket (or its owner) open until the link is down, so that no packet of its closing is seen."""
        self._held.append(thing)


class Client(Protocol):
    """A client implementation."""

    programs: tuple[str, ...]

    def perform(self, session: Session) -> None:
        """Do ``session.activity`` once. Raises when that fails; a refused login or page is an outcome, not an error."""

    def version(self) -> str:
        """The version that the program reports."""


def _tail(text: bytes) -> str:
    return text.decode(errors="replace").strip()[-400:]


def program_version(*argv: str) -> str:
    """The first line of a program's version message, "" when it does not run."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")[:120]


def phases(marks: Sequence[tuple[str, int]]) -> str:
    """The marks as JSON: [[phase, ns since the epoch], …]."""
    return json.dumps([list(mark) for mark in marks], separators=(",", ":"))


def on_host(host: Host, work: Callable[[], None], name: str) -> threading.Thread:
    """A started thread on a host."""

    def run() -> None:
        host.enter()
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
