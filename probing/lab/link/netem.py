"""The kernel's network emulator (tc-netem(8)) in place of the link's arithmetic, where the kernel has it.

Each client has two delay lines, one for each direction: a TAP device whose queue is netem. A packet socket puts a frame
into the queue, and it is read from the device when netem releases it; so the link still sees every frame twice, and
finds out by comparison what became of it. netem draws its random numbers for the whole line: drop patterns do not
follow flows and do not repeat. A frame that netem damages is recognised by all bits but one.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from probing.lab.errors import LabError
from probing.lab.hosts import CLONE_NEWNET, Host, call, open_tap
from probing.lab.link.account import settle
from probing.lab.link.link import BOUNDS, Bounds, Link, Log
from probing.lab.link.relay import Lines, relay
from probing.lab.settings import Link as Setting

PROBE = "ip link add probe0 type dummy && tc qdisc add dev probe0 root netem delay 1ms"
ETH_P_ALL = 3
SLACK_MS = 200  # ms to wait for the last frame, beyond the longest delay
LIMIT = 10_000  # most packets in a line without a rate


def available() -> bool:
    """Whether the kernel has netem, tried by making a queue in a throw-away network namespace."""
    try:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", PROBE], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def words(setting: Setting, towards: str) -> list[str]:
    """The words for tc of a client's line towards server or client. Raises LabError for what netem cannot do."""
    _refuse(setting)
    # netem's limit counts packets that are delayed, too: room for as many as the rate can put on the way
    under_way = round(setting.rate_kbit * (setting.delay_ms + 3 * setting.jitter_ms) / 8 / setting.mtu)
    limit = min(LIMIT, setting.queue_packets + under_way) if setting.rate_kbit else LIMIT
    result = ["netem", "limit", str(limit)]
    hurt = setting.impaired in (towards, "both")
    if setting.delay_ms:
        result += ["delay", f"{setting.delay_ms:g}ms"]
        if setting.jitter_ms and hurt:
            result.append(f"{setting.jitter_ms:g}ms")
            if setting.distribution != "uniform":  # which is netem's own
                result += ["distribution", setting.distribution]
    elif setting.jitter_ms and hurt:
        result += ["delay", "0ms", f"{setting.jitter_ms:g}ms"]
    if hurt:
        if setting.burst_loss_pct:  # lost in a burst: all; outside of one: none, netem's defaults
            begins, ends = 100 * setting.burst_begins, 100 / setting.burst_packets
            result += ["loss", "gemodel", f"{begins:g}%", f"{ends:g}%"]
        for name in ("loss", "corrupt", "duplicate", "reorder"):
            if share := getattr(setting, f"{name}_pct"):
                result += [name, f"{share:g}%"]
    if setting.rate_kbit:
        result += ["rate", f"{setting.rate_kbit:g}kbit"]
    return result


def _refuse(setting: Setting) -> None:
    """Raise LabError for what netem cannot do."""
    for key, wanted, why in (
        ("ordered_jitter_ms", setting.ordered_jitter_ms, "netem cannot keep the order"),
        ("outage_every_ms", setting.outage_every_ms, "netem has no outages"),
        ("delivery_trace", setting.delivery_trace, "netem replays no traces"),
        ("queue_discipline", setting.queue_discipline != "drop-tail", "netem's queue is drop-tail"),
        ("cross_kbit", setting.cross_kbit, "netem has no cross traffic"),
        (
            "segmentation_offload",
            setting.segmentation_offload == "on",
            "its queues would carry plain frames only",
        ),
        (
            "burst_loss_pct with loss_pct",
            setting.burst_loss_pct and setting.loss_pct,
            "netem has one kind of loss",
        ),
    ):
        if wanted:
            raise LabError(f"link.{key}: {why}; use --link user")


def _frame_ms(setting: Setting) -> float:
    """The time in ms that the rate needs for a frame of full size."""
    return (setting.mtu + 14) * 8 / setting.rate_kbit if setting.rate_kbit else 0.0


def _silence(setting: Setting) -> float:
    """The longest time, in ms, between two frames that come out of a line while it is not empty."""
    return setting.delay_ms + 8 * setting.jitter_ms + _frame_ms(setting) + SLACK_MS


def _stay(setting: Setting) -> float:
    """The longest time, in ms, that a frame stays in a line."""
    return _silence(setting) + setting.queue_packets * _frame_ms(setting)


def _line(name: str, queue: Sequence[str], mtu: int) -> tuple[int, int]:
    """A new delay line in this thread's network namespace: (socket that takes frames in, device to read them from)."""
    device = open_tap(name)
    lines = (
        ["ip", "link", "set", name, "mtu", str(mtu), "txqueuelen", "10000", "up"],
        ["tc", "qdisc", "replace", "dev", name, "root", *queue],
    )
    for line in lines:
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise LabError(f"{' '.join(line)}: {done.stderr.strip()}")
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((name, 0))  # receives nothing
    sock.setblocking(False)
    return sock.detach(), device


class NetemLink(Link):
    """A link through the queues of netem."""

    def __init__(
        self, hosts: Sequence[Host], settings: Sequence[Setting], seed: int, bounds: Bounds = BOUNDS
    ) -> None:
        super().__init__(hosts, settings, seed, bounds)
        n = len(hosts)
        self._lines = Lines(
            into=np.full((n, 2), -1, np.int32),
            out=np.full((n, 2), -1, np.int32),
            heads=np.full(1 << 20, -1, np.int32),
            following=np.full(bounds.frames, -1, np.int32),
            patience=round(max(map(_silence, settings), default=0.0) * 1e6),
            longest=round(max(map(_stay, settings), default=0.0) * 1e6),
        )
        if hosts:
            hosts[0].in_thread(lambda: self._lay(hosts, settings))

    def _lay(self, hosts: Sequence[Host], settings: Sequence[Setting]) -> None:
        """Make the lines, in a network namespace of their own."""
        call("unshare", CLONE_NEWNET)
        silent = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        if silent.exists():  # else the kernel solicits routers on every line
            silent.write_text("1")
        for k, (host, setting) in enumerate(zip(hosts, settings)):
            if host.client:
                for d, towards in enumerate(("server", "client")):
                    ends = _line(f"line{k}-{d}", self.queue(setting, towards), setting.mtu)
                    self._lines.into[k, d], self._lines.out[k, d] = ends

    def queue(self, setting: Setting, towards: str) -> list[str]:
        """The words for tc of a client's line."""
        return words(setting, towards)

    def carry(self) -> None:
        """Carry frames, in this thread, until the link is stopped."""
        s = self._state
        polled, spec = np.zeros((3 * s.fds.size, 2), np.int32), np.zeros(2, np.int64)
        relay(s, self._lines, s.store.ctypes.data, polled, spec)

    def log(self) -> Log:
        """The log so far; frames that never came out count as lost."""
        log = super().log()
        settle(log.records, log.flows, log.store)
        return log


class TbfLink(NetemLink):
    """A link through the queues of tbf, with a rate and a queue only: tests the path where there is no netem."""

    def queue(self, setting: Setting, towards: str) -> list[str]:  # noqa: ARG002 -- alike both ways
        """The words for tc of a client's line."""
        if not setting.rate_kbit:
            return ["pfifo", "limit", str(LIMIT)]
        rate = f"{setting.rate_kbit:g}kbit"
        return ["tbf", "rate", rate, "burst", "3000", "limit", str(setting.queue_packets * setting.mtu)]
