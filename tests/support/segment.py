"""A network segment of real hosts for tests: a namespace each on one bridge, and the traffic that they make.

The hosts live FAST times as fast as real ones, so that minutes of a network are had in seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.live.capture import RingCapture
from connectors.live.settings import CaptureSettings
from tests.support.capture_bytes import pcap
from tests.support.netns import Wire

NUMBER = itertools.count()
ARP = 0x0806
REQUEST, REPLY = 1, 2
EVERYBODY = "ff:ff:ff:ff:ff:ff"
NOBODY = "00:00:00:00:00:00"
UDP_PORT, TCP_PORT = 5300, 8000
FAST = 20  # times as fast as a real network do the hosts live
QUICK = {  # those of Linux's defaults that matter, divided by that: 30 s, 5 s (at least 1), 1 s (in 1/100 s)
    "neigh.eth0.base_reachable_time_ms": 1500,
    "neigh.eth0.delay_first_probe_time": 1,
    "neigh.eth0.locktime": 5,
    "conf.all.send_redirects": 0,
    "conf.eth0.send_redirects": 0,
}


@dataclass(frozen=True)
class Host:
    """A machine of the segment."""

    space: Wire
    last: int  # byte of its address and its MAC

    @property
    def address(self) -> str:
        return f"10.9.0.{self.last}"

    @property
    def mac(self) -> str:
        return f"02:00:00:00:09:{self.last:02x}"

    def neighbours(self) -> dict[str, str]:
        """MACs that it believes, by address."""
        done = subprocess.run(
            ["ip", "-n", self.space.name, "neigh"], check=True, capture_output=True, text=True, timeout=20
        )
        words = [line.split() for line in done.stdout.splitlines()]
        return {line[0]: line[line.index("lladdr") + 1] for line in words if "lladdr" in line}


def arp_frame(
    sender: tuple[str, str], target: tuple[str, str], operation: int, source: str, to: str
) -> bytes:
    """RFC 826. sender, target: MAC and address in the message. source, to: MACs of the frame."""
    parts = [_mac(to), _mac(source), struct.pack(">HHHBBH", ARP, 1, 0x0800, 6, 4, operation)]
    for mac, address in (sender, target):
        parts += [_mac(mac), socket.inet_aton(address)]
    return b"".join(parts).ljust(60, b"\0")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@dataclass
class Segment:
    """Hosts on one bridge, ``br0`` in the namespace ``switch``."""

    switch: Wire
    hosts: list[Host]

    def capture(self, path: Path, busy: Callable[[], object], begin: int | None = None) -> int:
        """Write what passes the bridge while ``busy`` runs, taken by the tap of the project; time of the last packet.

        Times are those of a network that is not hurried: FAST times as far apart. begin: time of the first packet, ns.
        """
        records: list[tuple[int, bytes, int]] = []

        def work() -> int:
            with RingCapture("br0", CaptureSettings()) as source:
                done = threading.Thread(target=_then(busy, source.stop))
                done.start()
                for frames in source.frames():
                    columns = (frames.start, frames.captured, frames.wire, frames.ts)
                    for start, size, wire, ts in zip(*(column.tolist() for column in columns)):
                        records.append((ts, frames.buffer[start : start + size].tobytes(), wire))
                done.join()
                return source.counters.kernel + source.counters.ring

        assert self.switch.inside(work) == 0
        first = records[0][0]
        zero = first if begin is None else begin
        slowed = [(zero + (ts - first) * FAST, frame, wire) for ts, frame, wire in records]
        path.write_bytes(pcap(slowed, magic=0xA1B23C4D))
        return slowed[-1][0]

    def talk(self, seconds: float, seed: int) -> None:
        """Ordinary traffic between all hosts."""
        ends = time.monotonic() + seconds
        workers = []
        for host in self.hosts:
            peers = [other.address for other in self.hosts if other is not host]
            chance = random.Random(seed * 1000 + host.last)
            work = _Talker(host, peers, chance, ends).run
            workers.append(threading.Thread(target=host.space.inside, args=(work,)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def beside(self, seconds: float, seed: int, attack: Callable[[], object]) -> None:
        """Ordinary traffic, and an attack that begins with it."""
        attacker = threading.Thread(target=attack)
        attacker.start()
        self.talk(seconds, seed)
        attacker.join()


@contextlib.contextmanager
def raw(host: Host) -> Iterator[socket.socket]:
    """A socket that sends whole frames from a host."""
    with host.space.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as one:
        one.bind(("eth0", 0))
        yield one


def scan(host: Host, pace: float = 0.002) -> None:
    """Ask for all 254 addresses of the segment, as arp-scan does. pace: seconds between requests."""
    pause = threading.Event()
    with raw(host) as one:
        for last in range(1, 255):
            one.send(
                arp_frame((host.mac, host.address), (NOBODY, f"10.9.0.{last}"), REQUEST, host.mac, EVERYBODY)
            )
            pause.wait(pace)


def stand_between(host: Host, a: Host, b: Host, seconds: float, broadcast: bool = False) -> None:
    """Tell two hosts, every 0.2 s, that the other's address is here, and pass on what they then send.

    broadcast: tell everybody, by gratuitous requests, instead of the two by replies that they did not ask for.
    """
    words = host.space.command("sysctl", "-qw", "net.ipv4.ip_forward=1")
    subprocess.run(words, check=True, capture_output=True, timeout=20)
    ends, pause = time.monotonic() + seconds, threading.Event()
    with raw(host) as one:
        while time.monotonic() < ends:
            for victim, other in ((a, b), (b, a)):
                mine = (host.mac, other.address)
                if broadcast:
                    one.send(arp_frame(mine, (NOBODY, other.address), REQUEST, host.mac, EVERYBODY))
                else:
                    one.send(arp_frame(mine, (victim.mac, victim.address), REPLY, host.mac, victim.mac))
            pause.wait(0.2)


def _then(first: Callable[[], object], last: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            first()
        finally:
            last()

    return run


class _Talker:
    """What one host does: small requests by UDP and TCP, pings, and now and then it forgets its neighbours."""

    def __init__(self, host: Host, peers: list[str], chance: random.Random, ends: float) -> None:
        self.host, self.peers, self.chance, self.ends = host, peers, chance, ends
        self.pause = threading.Event()

    def run(self) -> None:
        forget = time.monotonic() + self.chance.uniform(0.5, 2.5)
        while time.monotonic() < self.ends:
            peer = self.chance.choice(self.peers)
            self.chance.choices((self.udp, self.tcp, self.ping), (2, 1, 1))[0](peer)
            if time.monotonic() > forget:
                subprocess.run(["ip", "neigh", "flush", "dev", "eth0"], check=False, capture_output=True)
                forget = time.monotonic() + self.chance.uniform(1.0, 3.0)
            self.pause.wait(self.chance.expovariate(12.0))

    def udp(self, peer: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(0.5)
            one.sendto(b"q" * self.chance.randint(20, 60), (peer, UDP_PORT))
            with contextlib.suppress(OSError):
                one.recv(2000)

    def tcp(self, peer: str) -> None:
        with contextlib.suppress(OSError), socket.create_connection((peer, TCP_PORT), timeout=0.5) as one:
            one.sendall(b"r" * self.chance.randint(50, 300))
            while one.recv(4000):
                pass

    def ping(self, peer: str) -> None:
        body = struct.pack(">BBHHH", 8, 0, 0, self.host.last, self.chance.randrange(1 << 16)) + bytes(48)
        total = sum(struct.unpack(f">{len(body) // 2}H", body))
        total = (total >> 16) + (total & 0xFFFF)
        body = body[:2] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
            one.sendto(body, (peer, 0))


def _serve(host: Host, stop: threading.Event) -> list[threading.Thread]:
    """Answer requests by UDP and TCP until stopped."""
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    udp.bind((host.address, UDP_PORT))
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((host.address, TCP_PORT))
    tcp.listen(32)
    for one in (udp, tcp):
        one.settimeout(0.2)

    def datagrams() -> None:
        with udp:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    said, peer = udp.recvfrom(2000)
                    udp.sendto(said * 3, peer)

    def streams() -> None:
        with tcp:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    one, _ = tcp.accept()
                    with one:
                        one.settimeout(0.5)
                        one.sendall(one.recv(2000) * 4)

    workers = [threading.Thread(target=work) for work in (datagrams, streams)]
    for worker in workers:
        worker.start()
    return workers


@contextlib.contextmanager
def segment(lasts: tuple[int, ...]) -> Iterator[Segment]:
    """A segment of hosts with these last bytes. Skips the test where namespaces cannot be made."""
    if os.getuid() != 0:
        pytest.skip("only root may make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed")
    name = f"wsonde-{os.getpid()}-s{next(NUMBER)}"
    stop = threading.Event()
    workers: list[threading.Thread] = []
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(_space(f"{name}-br"))
        _quiet(switch, "default")
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "addrgenmode", "none", "up")
        made = Segment(switch, [])
        stack.callback(_end, stop, workers)
        for last in lasts:
            host = Host(stack.enter_context(_space(f"{name}-{last}")), last)
            _plug_in(host, switch)
            made.hosts.append(host)
            workers += host.space.inside(lambda host=host: _serve(host, stop))  # type: ignore[misc]
        yield made


def _end(stop: threading.Event, workers: list[threading.Thread]) -> None:
    stop.set()
    for worker in workers:
        worker.join()


def _plug_in(host: Host, switch: Wire) -> None:
    port = f"port{host.last}"
    _quiet(host.space, "default")
    switch.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.space.name)
    switch.ip("link", "set", port, "master", "br0", "addrgenmode", "none", "up")
    host.space.ip("link", "set", "eth0", "address", host.mac, "addrgenmode", "none", "up")
    host.space.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
    for key, value in QUICK.items():
        subprocess.run(
            host.space.command("sysctl", "-qw", f"net.ipv4.{key}={value}"), check=True, capture_output=True
        )


def _quiet(space: Wire, name: str) -> None:
    """No IPv6: no packets but those of the test."""
    words = space.command("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
    subprocess.run(words, check=False, capture_output=True, timeout=20)


@contextlib.contextmanager
def _space(name: str) -> Iterator[Wire]:
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("network namespaces cannot be made here")
    try:
        made = Wire(name)
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)
