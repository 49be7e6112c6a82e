"""The link: carries frames between the hosts' interfaces, with the configured delay, loss and disorder.

It is the only path between hosts, sees every frame twice (when it enters and when it leaves) and logs both, so what it
did to a connection is known and not inferred. The work is done in kernels.py; this is its memory, thread and log.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from probing.lab import trace
from probing.lab.errors import LabError
from probing.lab.hosts import VNET_HEADER, Host
from probing.lab.link import kernels, tables
from probing.lab.settings import DISTRIBUTIONS
from probing.lab.settings import Link as Setting

logger = logging.getLogger(__name__)

PRIORITY = 50  # priority of the thread, SCHED_FIFO: without it a delay of 10 ms was seen to take 122
FLOWS, WAITING = 1 << 17, 1 << 17
_FULL = {
    tables.FULL_STORE: "bytes of frames (bytes)",
    tables.FULL_RECORDS: "frames (frames)",
    tables.FULL_FLOWS: "flows",
    tables.FULL_HEAP: "frames that wait at the same time",
}


class Bounds(NamedTuple):
    """The memory of a link; pages that are not needed are never touched."""

    bytes: int = 3 << 30
    frames: int = 4_000_000


BOUNDS = Bounds()


def laws() -> NDArray[np.float64]:
    """The inverse distribution functions of the jitter, (4, LAW): mean 0, standard deviation 1 (uniform: half width).

    Pareto has shape 3; paretonormal is iproute2's, a quarter of it and three of the normal law.
    """
    rank = (np.arange(tables.LAW) + 0.5) / tables.LAW
    normal = special.ndtri(rank)
    pareto = (1 - rank) ** (-1 / 3)
    pareto = (pareto - pareto.mean()) / pareto.std()
    mixed = 0.25 * pareto + 0.75 * normal
    table = {
        "uniform": 2 * rank - 1, "normal": normal, "pareto": pareto, "paretonormal": mixed / mixed.std(),
    }  # fmt: skip
    return np.stack([table[name] for name in DISTRIBUTIONS])


def port_row(host: Host, setting: Setting) -> Any:
    """The row of a host in the table of ports."""
    row = np.zeros((), tables.PORT)
    row["mac"], row["client"] = int.from_bytes(host.mac, "big"), host.client
    for name in ("delay", "jitter", "ordered_jitter"):
        row[name] = round(getattr(setting, f"{name}_ms") * 1e6)
    for name in ("loss", "reorder", "duplicate", "corrupt"):
        row[name] = getattr(setting, f"{name}_pct") / 100
    if setting.burst_loss_pct:
        row["burst"], row["burst_begins"] = setting.burst_loss_pct / 100, setting.burst_begins
        row["burst_ends"] = 1 / setting.burst_packets
    row["up"], row["down"] = setting.outage_every_ms * 1e6, setting.outage_ms * 1e6
    row["out"] = 1  # until 0 ns from the beginning
    row["queued"] = bool(setting.rate_kbit or setting.delivery_trace)
    row["table"], row["mtu"] = DISTRIBUTIONS.index(setting.distribution), setting.mtu
    row["impaired"] = {"server": 1, "client": 2, "both": 3}[setting.impaired]
    return row


def queue_rows(settings: Sequence[Setting]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The rows of the settings' queues, (p, 2), and the opportunities of all their traces."""
    rows = np.zeros((len(settings), 2), tables.QUEUE)
    traces: dict[str, tuple[int, NDArray[np.int64]]] = {}
    used = 0
    for row, setting in zip(rows, settings):
        row["rate"], row["limit"] = setting.rate_kbit * 1e3, setting.queue_packets
        row["codel"] = setting.queue_discipline == "codel"
        row["most"] = tables.SUPER if setting.segmentation_offload == "on" else setting.mtu + tables.ETHERNET
        row["gap"] = tables.CROSS * 8e6 / setting.cross_kbit if setting.cross_kbit else 0.0
        row["cross"], row["at"] = -1, -1
        if name := setting.delivery_trace:
            if name not in traces:
                traces[name] = used, trace.read(Path(name)).times
                used += traces[name][1].size
            row["first"], times = traces[name]
            row["n"], row["period"] = times.size, times[-1]
    return rows, np.concatenate([np.zeros(0, np.int64), *(times for _, times in traces.values())])


def streams(seed: int, ports: NDArray[Any], queues: NDArray[Any]) -> None:
    """Seed the generators of outages and of cross traffic by the number of their port; in place."""
    for k in range(ports.size):
        for d, row in enumerate((ports[k], queues[k, 0], queues[k, 1])):
            row["rng"] = tables.mix(np.uint64(seed) ^ tables.mix(np.uint64(1 << 48 | 3 * k + d)))


class Log(NamedTuple):
    """The log of a link. Times are ns since the epoch."""

    records: NDArray[Any]  # (r,) RECORD, in order of coming in
    flows: NDArray[Any]  # (f,) FLOW, in order of their first frames
    store: NDArray[np.uint8]  # all frames
    ports: NDArray[Any]  # (p,) PORT
    unsent: int  # frames that a host's interface did not accept
    real_time: bool  # whether the thread had a real-time priority
    began: int  # time at which it began to carry frames


class Link:
    """A running link between hosts, with one setting for each host; those of servers are ignored."""

    def __init__(
        self, hosts: Sequence[Host], settings: Sequence[Setting], seed: int, bounds: Bounds = BOUNDS
    ) -> None:
        ports = np.array([port_row(h, s) for h, s in zip(hosts, settings, strict=True)], tables.PORT)
        queues, opportunities = queue_rows(settings)
        streams(seed & (1 << 64) - 1, ports, queues)
        most = int(queues["limit"].max(initial=1))
        control = np.zeros(tables.PLACES, np.int64)
        # one kind of interface for all hosts, so that one can take the other's super-frames
        control[tables.HEADER] = VNET_HEADER if any(s.segmentation_offload == "on" for s in settings) else 0
        self._state = tables.State(
            fds=np.array([host.fd for host in hosts], np.int32),
            ports=ports,
            laws=laws(),
            traces=opportunities,
            queues=queues,
            slots=np.zeros((ports.size, 2, most), tables.SLOT),
            flows=np.zeros(FLOWS, tables.FLOW),
            heads=np.full(FLOWS * 2, -1, np.int32),
            kinds=np.zeros((1 << 16, 2), np.uint64),
            records=np.zeros(bounds.frames, tables.RECORD),
            store=np.empty(bounds.bytes, np.uint8),
            heap=np.zeros((WAITING, 2), np.int64),
            control=control,
            seed=np.uint64(seed & (1 << 64) - 1),
        )
        # one offset for the whole run, so that a step of the machine's clock does not change the times of its packets
        self._epoch = time.time_ns() - time.monotonic_ns()
        self.real_time = False
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def _run(self) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
            self.real_time = True
        except OSError as error:
            logger.warning("the link has no real-time priority, so its delays will vary more: %s", error)
        try:
            self.carry()
        except Exception as error:
            self._problem = error

    def carry(self) -> None:
        """Carry frames, in this thread, until the link is stopped."""
        s = self._state
        polled, spec = np.zeros((s.fds.size, 2), np.int32), np.zeros(2, np.int64)
        kernels.loop(s, s.store.ctypes.data, polled, spec)

    def start(self) -> None:
        """Begin to carry frames."""
        self._thread.start()

    def check(self) -> None:
        """Raise LabError if the link has failed or run out of memory."""
        if self._problem is not None:
            raise LabError(f"the link failed: {self._problem}") from self._problem
        if code := int(self._state.control[tables.FAILED]):
            raise LabError(
                f"the link ran out of room for {_FULL[code]}: make the run shorter (fewer samples or users)"
            )

    def stop(self, seconds: float = 60.0) -> Log:
        """Accept no more frames, release those under way when they are due, and return the log."""
        self.end()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise LabError(f"the link did not stop within {seconds:g} s")
        self.check()
        return self.log()

    def end(self) -> None:
        """Let the thread release the frames under way, and then end."""
        self._state.control[tables.STOP] = 1

    def log(self) -> Log:
        """The log so far."""
        s = self._state
        records = s.records[: s.control[tables.RECORDS]].copy()
        flows = s.flows[: s.control[tables.FLOWS]].copy()
        for table, names in (
            (records, ("in_ts", "due", "out_ts")),
            (flows, ("first", "last", "syn", "answer", "failed")),
        ):
            for name in names:
                table[name] += np.where(table[name] != 0, self._epoch, 0)
        store = s.store[: s.control[tables.USED]]
        began = int(s.control[tables.BEGAN]) + self._epoch
        return Log(records, flows, store, s.ports, int(s.control[tables.UNSENT]), self.real_time, began)

    def cut(self, address: str, port: int) -> bool:
        """Stop carrying the connections of this client's address and port; returns whether there are any."""
        opened, accepted = self._flows_of(address, port)
        flows, found = self._state.flows, np.concatenate([opened, accepted])
        flows["failed"][found] = time.monotonic_ns()
        flows["cut"][found] = tables.GONE
        return bool(found.size)

    def cut_after(self, address: str, port: int, sender: str, payload: int) -> bool:
        """Cut them when more than this many bytes of further payload come from the sender, client or server."""
        opened, accepted = self._flows_of(address, port)
        flows, theirs = self._state.flows, sender == "server"
        for found, d in ((opened, theirs), (accepted, not theirs)):
            flows["fuse"][found] = payload
            flows["cut"][found] = tables.ARMED + int(d)
        return bool(opened.size + accepted.size)

    def is_cut(self, address: str, port: int) -> bool:
        """Whether the last connection of this client's address and port is cut."""
        found = np.concatenate(self._flows_of(address, port))
        return bool(found.size and self._state.flows["cut"][found.max()] == tables.GONE)

    def last_cut(self) -> float:
        """The time of the last cut, in seconds on the monotonic clock; 0: there was none."""
        n = int(self._state.control[tables.FLOWS])
        return int(self._state.flows["failed"][:n].max(initial=0)) / 1e9

    def _flows_of(self, address: str, port: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of the flows that a client's port opened, and of those that it accepted (active FTP)."""
        flows = self._state.flows[: int(self._state.control[tables.FLOWS])]
        word = int.from_bytes(socket.inet_aton(address), "big")
        opened = (flows["src"] == word) & (flows["sport"] == port)
        accepted = (flows["dst"] == word) & (flows["dport"] == port)
        return np.flatnonzero(opened), np.flatnonzero(accepted)

    def epoch_ns(self, monotonic_ns: int) -> int:
        """The time on the log's clock of a reading of the monotonic clock."""
        return monotonic_ns + self._epoch
