"""Hosts of one segment that visit a web server; one of them scans the others by ARP, or puts itself between them.

Everything stays in the run's own namespaces. The attacker forwards what it diverts, unread and unchanged.
"""

from __future__ import annotations

import contextlib
import http.client
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from probing.lab.clients.arp_frames import (
    EVERYBODY,
    NOBODY,
    REPLY,
    REQUEST,
    End,
    end,
    frame,
    raw_socket,
    sender_of_reply,
)
from probing.lab.errors import LabError
from probing.lab.hosts import Host
from probing.lab.services.web_site import WWW
from probing.lab.session import Session

PAGES = 6  # number of pages that the hosts visit
FORGETS = (
    0.03  # share of visits before which a host forgets its neighbours, as it does when they are not used
)
PATIENCE_S = 60.0
SPOOF_EVERY_S = 0.5  # seconds between two forged messages to the same host
HEALS = 3  # number of true messages that end an attack
LISTEN_S = 0.5  # seconds that a scan waits for late answers
BENIGN: dict[str, Any] = {"activity": "visits", "attack": 0, "attack_kind": "none"}
SETTINGS = {
    "ip_forward": "1", "conf/all/send_redirects": "0", "conf/eth0/send_redirects": "0",
}  # fmt: skip


class SegmentHosts:
    """The hosts of a segment, as one client; the first of them is the attacker."""

    programs = ("ip",)

    def perform(self, session: Session) -> None:
        """Do one of visits, arp-scan, arp-mitm, arp-mitm-gratuitous."""
        attacks: dict[str, Callable[[Session], bool]] = {
            "arp-scan": _scan, "arp-mitm": _stand_between, "arp-mitm-gratuitous": _stand_between,
        }  # fmt: skip
        attack = attacks.get(session.activity)
        for host in (session.server_host, *session.hosts):
            host.in_thread(_believe_the_latest)
        with _pages(session) as pages:
            session.mark("visits")
            if attack is not None:
                for host in session.hosts:
                    session.claim_next(host, **BENIGN)
                    session.claim_arp(host, **BENIGN)
                session.claim_arp(session.server_host, **BENIGN)
            fetched = _visits(session, session.hosts, pages, session.parameters.quiet_s, lambda: True)
            if attack is not None:
                _claim(session)  # before the others go on
                session.mark("attack")
                attacker, *others = session.hosts
                with ThreadPoolExecutor(1) as beside:
                    attacking = beside.submit(attacker.in_thread, lambda: attack(session))
                    fetched += _visits(session, others, pages, 0.0, lambda: not attacking.done())
                    session.outcome(attacking.result())
            else:
                session.outcome(True)
        session.transferred(fetched)

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


def _believe_the_latest() -> None:
    """Let this thread's host believe whatever message came last, not only one that is a second old."""
    Path("/proc/sys/net/ipv4/neigh/eth0/locktime").write_text("0")


@contextlib.contextmanager
def _pages(session: Session) -> Iterator[list[tuple[str, int]]]:
    """Paths and sizes of the pages to visit, which are removed at the end."""
    folder = f"{session.host.name}-{session.sample}"
    (WWW / folder).mkdir(parents=True)
    made = []
    for k in range(PAGES):
        content = session.content(session.size())
        (WWW / folder / f"{k}.html").write_bytes(content)
        made.append((f"/{folder}/{k}.html", len(content)))
    yield made
    for path, _ in made:
        (WWW / path[1:]).unlink()
    (WWW / folder).rmdir()


def _visits(
    session: Session, hosts: tuple[Host, ...] | list[Host], pages: list[tuple[str, int]], seconds: float,
    more: Callable[[], bool],
) -> int:  # fmt: skip
    """Let hosts visit pages for some seconds, or while there is ``more`` to wait for; returns the bytes they got."""
    over, seeds = time.monotonic() + seconds, [session.rng.getrandbits(32) for _ in hosts]

    def work(host: Host, seed: int) -> int:
        return host.in_thread(
            lambda: _visitor(session, pages, Random(seed), lambda: _goes_on(over, seconds, more))
        )

    with ThreadPoolExecutor(len(hosts)) as threads:
        return sum(threads.map(work, hosts, seeds))


def _goes_on(over: float, seconds: float, more: Callable[[], bool]) -> bool:
    return time.monotonic() < over if seconds else more()


def _visitor(session: Session, pages: list[tuple[str, int]], rng: Random, goes_on: Callable[[], bool]) -> int:
    """Visit pages from this thread's host, each in a connection of its own; returns the bytes of all."""
    got = 0
    while goes_on():
        if rng.random() < FORGETS:
            subprocess.run(
                ["ip", "neigh", "flush", "dev", "eth0"], check=False, capture_output=True, timeout=20
            )
        path, size = rng.choice(pages)
        asking = http.client.HTTPConnection(session.server, 80, timeout=PATIENCE_S)
        asking.request("GET", path, headers={"User-Agent": "wiresonde-lab"})
        content = asking.getresponse().read()
        asking.close()
        if len(content) != size:
            raise LabError(f"{path}: got {len(content)} bytes of {size}")
        got += size
        time.sleep(rng.expovariate(1.0) * session.parameters.pause_ms / 1e3)
    return got


def _scan(session: Session) -> bool:
    """Ask for every address of the segment; returns whether all hosts answered."""
    me = session.host
    prefix, _, own = me.address.rpartition(".")
    asked = [last for last in range(1, 255) if last != int(own)]
    session.rng.shuffle(asked)
    found: set[str] = set()
    with raw_socket() as sock:
        for last in asked:
            target = End(NOBODY, f"{prefix}.{last}")
            sock.send(frame(REQUEST, end(me), target, EVERYBODY, me.mac))
            time.sleep(session.parameters.attack_s / len(asked))
            found |= _answers(sock)
        time.sleep(LISTEN_S)
        found |= _answers(sock)
    return {host.address for host in (session.server_host, *session.hosts[1:])} <= found


def _answers(sock: socket.socket) -> set[str]:
    """The addresses that have answered so far."""
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            if (who := sender_of_reply(sock.recv(2048))) is not None:
                found.add(who.address)
    return found


def _stand_between(session: Session) -> bool:
    """Divert the packets between the other hosts and the server through this host, and forward them.

    Returns whether packets of others passed through.
    """
    me, server, victims = session.host, session.server_host, session.hosts[1:]
    for name, value in SETTINGS.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)
    before, over = _forwarded(), time.monotonic() + session.parameters.attack_s
    pairs = [(told, other) for v in victims for told, other in ((v, server), (server, v))]
    if session.activity == "arp-mitm":
        lies = [
            frame(REPLY, End(me.mac, other.address), end(told), told.mac, me.mac) for told, other in pairs
        ]
    else:
        lies = [_gratuitous(me, other) for other in (server, *victims)]
    truths = [frame(REPLY, end(other), end(told), told.mac, me.mac) for told, other in pairs]
    with raw_socket() as sock:
        while time.monotonic() < over:
            _send(sock, lies)
        passed = _forwarded() - before
        for _ in range(HEALS):
            _send(sock, truths)
    return passed > 0


def _gratuitous(me: Host, other: Host) -> bytes:
    """A request to all, for the address that it claims."""
    return frame(REQUEST, End(me.mac, other.address), End(NOBODY, other.address), EVERYBODY, me.mac)


def _send(sock: socket.socket, frames: list[bytes]) -> None:
    """Send frames, and wait: equal frames at once would look like faults of a capture."""
    for one in frames:
        sock.send(one)
    time.sleep(SPOOF_EVERY_S)


def _claim(session: Session) -> None:
    """Claim as part of the attack what the attacker does by ARP from now on, and what is to pass through it."""
    kind = "arp-scan" if session.activity == "arp-scan" else "arp-mitm"
    session.claim_arp(session.host, activity=session.activity, attack=1, attack_kind=kind)
    for victim in session.hosts[1:] if kind == "arp-mitm" else ():
        session.claim_next(victim, session.host, activity=session.activity, attack=1, attack_kind=kind)


def _forwarded() -> int:
    """The number of packets of others that this thread's host has passed on."""
    names, values = (
        line.split()
        for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
        if line.startswith("Ip:")
    )
    return int(values[names.index("ForwDatagrams")])


SEGMENT = SegmentHosts()
