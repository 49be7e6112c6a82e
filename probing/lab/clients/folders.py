"""The work of hosts that keep a folder equal through a hub; the client implementation synchronises a host.

All hosts (the hub and ``session.hosts``) begin with the same files. Each step changes something on one of them, and
then all synchronise: first the host with the change, alone, then all client hosts at about the same time. Every host
of the second round finds the hub as the first round left it, so the transfers do not depend on their order.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from probing.lab.hosts import Host
from probing.lab.isolation import ROOM
from probing.lab.session import Session

HUB = ROOM / "hub"  # folder of the server's folders, one for each sample
PATIENCE_S = 300.0  # most seconds that one synchronisation may take
STAGGER_S = 0.1  # seconds within which hosts begin the second round
EPOCH = 1_700_000_000  # first modification time of files: not from the clock, since synchronisers transfer it
WORDS = ("agenda", "budget", "cellar", "diary", "errands", "figures", "garden", "harvest", "index", "journal")

Synchronise = Callable[[Session, Host, Path, str, bool], None]
"""Synchronise a host's folder with the hub's of that name, in a thread of the host; last argument: it has changes."""


class Folders:
    """The folders of one sample."""

    def __init__(self, session: Session, synchronise: Synchronise) -> None:
        """Make the folders, with some files on all hosts, or only on the hub when the cache is cold."""
        self.session, self.synchronise = session, synchronise
        self.name = f"{session.host.name}-{session.sample:05d}"
        self.hub = HUB / self.name
        self.local = {host: ROOM / "clients" / host.name / self.name for host in session.hosts}
        self.wanted: dict[str, bytes] = {}  # content of the files that every host should have
        self.now = EPOCH
        self.clients = len(session.hosts)
        for word in session.rng.sample(WORDS, session.rng.randint(3, 6)):
            self.put(self.hub, f"{word}.txt", session.content(session.rng.randint(100, 3000)))
        for folder in self.local.values():
            if session.parameters.cache == "warm":
                shutil.copytree(self.hub, folder)
            else:
                folder.mkdir()

    def put(self, folder: Path, name: str, content: bytes) -> None:
        """Write a file that all hosts should have from now on."""
        self.wanted[name] = content
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        self.touch(folder, folder / name)

    def touch(self, *paths: Path) -> None:
        """Set the modification time of files to a minute after the last."""
        self.now += 60
        for path in paths:
            if path.exists():
                os.utime(path, (self.now, self.now))

    def change(self, step: str, folder: Path, name: str) -> int:
        """Do a step in a folder; returns the number of new bytes."""
        session, path = self.session, folder / name
        if step == "put":
            content = session.content(session.size())
            self.put(folder, name, content)
            return len(content)
        if step == "edit":
            old = path.read_bytes()
            piece = session.content(max(1, len(old) // 8))
            at = session.rng.randint(0, len(old))
            self.put(folder, name, old[:at] + piece + old[at:])
            return len(piece)
        del self.wanted[name]
        path.unlink()
        self.touch(folder)
        return 0

    def step(self, step: str, name: str) -> None:
        """Change something on one host and synchronise all."""
        session = self.session
        makers = (None, *session.hosts)  # None: the hub
        maker = session.rng.choice(makers) if step in ("put", "edit", "delete") else None
        if step in ("put", "edit", "delete"):
            folder = self.hub if maker is None else self.local[maker]
            session.transferred(self.clients * self.change(step, folder, name))
        elif step == "first":
            session.transferred(self.clients * sum(path.stat().st_size for path in self.hub.iterdir()))
        session.mark(step)
        if maker is not None:
            session.claim_next(maker, role="push")
            self.on(maker, 0.0, True)
        for host in session.hosts:
            session.claim_next(host, role="idle" if host is maker or step == "idle" else "pull")
        waits = [session.rng.random() * STAGGER_S for _ in session.hosts]
        with ThreadPoolExecutor(self.clients) as threads:
            list(threads.map(lambda host, wait: self.on(host, wait, False), session.hosts, waits))

    def on(self, host: Host, wait: float, news: bool) -> None:
        """Synchronise a host, after a moment."""

        def work() -> None:
            time.sleep(wait)
            self.synchronise(self.session, host, self.local[host], self.name, news)

        host.in_thread(work)

    def equal(self) -> bool:
        """Whether all hosts have exactly the files that they should, byte for byte."""
        return all(_contents(folder) == self.wanted for folder in (self.hub, *self.local.values()))

    def remove(self) -> None:
        """Remove the folders."""
        for folder in (self.hub, *self.local.values()):
            shutil.rmtree(folder)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def perform(
    session: Session, synchronise: Synchronise, prepare: Callable[[Folders], None] | None = None
) -> None:
    """Do one of idle, put, put-edit, put-delete, put-edit-delete, large. prepare: makes the cache of a host warm."""
    folders = Folders(session, synchronise)
    steps = {"idle": ["idle"], "large": ["put"]}.get(session.activity) or session.activity.split("-")
    if session.parameters.cache == "cold":
        steps = ["first", *steps]
    elif prepare is not None:
        prepare(folders)
    name = "news.bin" if session.parameters.content_kind == "binary" else "news.txt"
    for k, step in enumerate(steps):
        if k:
            session.pause()
        folders.step(step, name)
    session.outcome(folders.equal())
    folders.remove()
