"""Hosts of a run: each is a network namespace with one TAP interface, whose other end is the link.

They live inside the run's own mount and process namespaces (isolation.py), so they always end with the run.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from probing.lab.errors import LabError
from probing.lab.settings import MTU

CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 2, 0x1000, 0x4000
_TUNSETOFFLOAD, _SUMS, _TCP4, _TCP_ECN = 0x400454D0, 1, 2, 8  # <linux/if_tun.h>
_TCP_CONGESTION, _TCP_REPAIR = 13, 19  # <linux/tcp.h>
VNET_HEADER = 10  # bytes of struct virtio_net_hdr
QUEUE = 10_000  # most frames that an interface holds for the link
Value = TypeVar("Value")
_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> None:
    """Call a function of the C library. Raises OSError when it fails."""
    if getattr(_libc, function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


class Interface(NamedTuple):
    """The interface of a host, and what TCP does behind it."""

    mtu: int = MTU
    congestion_control: str = ""  # "": the kernel's own
    offload: bool = False  # True: the host leaves segmentation and checksums to the card
    header: bool = (
        False  # True: frames have a virtio_net_hdr in front, as all hosts' must where one leaves work to it
    )


PLAIN = Interface()


def open_tap(name: str, interface: Interface = PLAIN) -> int:
    """Make a TAP device in this thread's network namespace; returns the descriptor that carries its frames."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if interface.header else 0)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    if interface.offload:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _SUMS | _TCP4 | _TCP_ECN)
    return fd


class Host:
    """One host. ``fd`` is the link's end of its interface."""

    def __init__(
        self,
        name: str,
        address: str,
        number: int,
        folder: Path,
        *,
        client: bool,
        interface: Interface = PLAIN,
    ) -> None:
        """Make a host. folder: for the logs of its processes. client: it has a link of its own to the network."""
        self.name, self.address, self.client, self.interface = name, address, client, interface
        self.congestion_control = ""  # algorithm that its connections use, once it is connected
        self.mac = bytes([2, 0x77, *socket.inet_aton(address)[1:], number])
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._namespace = -1
        self.fd = -1
        self.in_thread(self._make)

    def _make(self) -> None:
        call("unshare", CLONE_NEWNET)
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        places = Path("/run/netns")  # so that `ip netns exec NAME` works for people who look
        places.mkdir(exist_ok=True)
        (places / self.name).touch()
        call("mount", b"/proc/thread-self/ns/net", str(places / self.name).encode(), b"", _MS_BIND, None)
        for setting, value in (
            ("ipv6/conf/all/disable_ipv6", 1),
            ("ipv6/conf/default/disable_ipv6", 1),
            ("ipv4/ip_local_port_range", "10000 65535"),  # enough for the connections of a minute
            ("ipv4/tcp_no_metrics_save", 1),  # a connection must not inherit metrics from the one before
        ):
            path = Path("/proc/sys/net") / setting
            if path.exists():
                path.write_text(str(value))
        self.fd = open_tap("eth0", self.interface)

    @property
    def mac_text(self) -> str:
        """The MAC of its interface, as tools write it."""
        return ":".join(f"{b:02x}" for b in self.mac)

    def connect(self, others: Sequence[Host], *, arp: bool = False) -> None:
        """Bring the interface up, with permanent neighbours, so that no ARP is seen, unless it is wanted."""
        network = f"{self.address.rpartition('.')[0]}.0/24"
        # by the route: a namespace may not make an algorithm its default that the machine restricts to root
        how = f" congctl {self.interface.congestion_control}" if self.interface.congestion_control else ""
        lines = ["link set lo up",
                 f"link set eth0 address {self.mac_text} mtu {self.interface.mtu} txqueuelen {QUEUE} up",
                 f"address add {self.address}/24 dev eth0 noprefixroute",
                 f"route add {network} dev eth0 src {self.address}{how}", "route add default dev eth0"]  # fmt: skip
        for other in others:
            if other is not self and not arp:
                lines.append(f"neigh replace {other.address} lladdr {other.mac_text} nud permanent dev eth0")
        done = self.in_thread(
            lambda: subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(lines),
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        )
        if done.returncode:
            raise LabError(f"host {self.name}: ip: {done.stderr.strip()}")
        self.congestion_control = self.in_thread(lambda: self._algorithm(network))

    def _algorithm(self, network: str) -> str:
        """The congestion control of a connection to the network, read from one that sends nothing (TCP_REPAIR)."""
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            sock.connect((f"{network.rpartition('.')[0]}.254", 9))
            name = sock.getsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, 16)
        return name.rstrip(b"\0").decode()

    def enter(self) -> None:
        """Move the calling thread to this host; the sockets it opens and the programs it starts are the host's."""
        call("setns", self._namespace, CLONE_NEWNET)

    def in_thread(self, work: Callable[[], Value]) -> Value:
        """Do some work in a thread on this host; returns its result or raises its error."""
        result: list[Value] = []
        problem: list[BaseException] = []

        def run() -> None:
            try:
                if self._namespace >= 0:
                    self.enter()
                result.append(work())
            except BaseException as error:
                problem.append(error)

        thread = threading.Thread(target=run, name=self.name)
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        return result[0]

    def start(self, argv: Sequence[str | Path], *, log: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a program on this host, in a session of its own; its output goes to ``log`` in the host's folder."""
        with self._log(log) as output:
            process = self.in_thread(
                lambda: subprocess.Popen(
                    [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True, **more,
                )
            )  # fmt: skip
        self.processes.append(process)
        return process

    def _log(self, name: str) -> IO[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / f"{self.name}.{name}.log").open("ab")

    def wait_for_port(
        self, port: int, process: subprocess.Popen[bytes], log: str, seconds: float = 20.0
    ) -> None:
        """Wait until something listens on a TCP port of this host. The check does not cross the link."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.in_thread(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
                return
            except OSError:
                self.wait_a_bit(process, log, end, f"nothing listens on port {port}")

    def wait_until(
        self, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: str, seconds: float = 20.0
    ) -> None:
        """Wait until ``ready``, called in a thread on this host, returns True."""
        end = time.monotonic() + seconds
        while not self.in_thread(ready):
            self.wait_a_bit(process, log, end, "not ready")

    def wait_a_bit(self, process: subprocess.Popen[bytes], log: str, end: float, what: str) -> None:
        """Sleep for a moment. Raises LabError if the process died or time is up."""
        code = process.poll()
        if code not in (None, 0) or time.monotonic() > end:
            text = (self.folder / f"{self.name}.{log}.log").read_text(errors="replace")[-2000:]
            how = f"ended with status {code}" if code is not None else f"{what} in time"
            raise LabError(f"host {self.name}: {log} {how}: {text.strip() or 'no output'}")
        time.sleep(0.005)
