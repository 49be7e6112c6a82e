"""All interfaces at once: each packet with the link type of its interface, and those of loopback once."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from connectors.live.bpf import FilterError
from connectors.live.capture import RingCapture
from connectors.live.netdev import InterfaceError
from connectors.live.settings import CaptureSettings, Counters
from connectors.live.sniffer import SniffedCapture
from engine.headers.decode import decode
from engine.types import Packets, concatenate
from tests.integration.live.ring import of_file, tagged
from tests.support.capture_bytes import pcap
from tests.support.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]
PORT = 5353


def captured(
    line: Wire, send: Callable[[], object], settings: CaptureSettings | None = None
) -> tuple[Packets, set[int], Counters]:
    """Packets on all interfaces of a namespace while something was sent, their link types, and the counters."""

    def work() -> tuple[Packets, set[int], Counters]:
        source = RingCapture("any", settings or CaptureSettings())

        def run() -> None:
            try:
                send()
            finally:
                source.stop()

        sender = threading.Thread(target=run)
        sender.start()
        parts, links = [], set()
        for frames in source.frames():
            parts.append(decode(frames))
            links |= set(frames.link_type.tolist())
        sender.join()
        source.close()
        return concatenate(parts), links, source.counters

    return line.inside(work)


def datagrams(n: int, to: str, port: int = PORT) -> None:
    """Send UDP datagrams of 100 bytes."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        for _ in range(n):
            one.sendto(b"x" * 100, (to, port))


def to_port(p: Packets, port: int = PORT) -> Packets:
    mine = (p.dport == port) & (p.proto == 17)
    return Packets._make(column[mine] for column in p)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_packet_to_the_machine_itself_is_captured_once(line: Wire, address: str) -> None:
    got, links, counters = captured(line, lambda: datagrams(50, address))
    assert to_port(got).ts.size == 50
    assert set(to_port(got).payload.tolist()) == {100}
    assert links == {1}
    assert counters.skipped >= 50  # the copies that went out
    assert (counters.ring, counters.kernel) == (0, 0)


def test_a_packet_on_a_wire_is_captured_where_it_leaves_and_where_it_arrives(line: Wire, mixed: Path) -> None:
    sent = of_file(mixed).ts.size
    both, _, _ = captured(line, lambda: line.send(mixed, "--topspeed"))
    assert both.ts.size == 2 * sent
    (arrived, _, _) = captured(line, lambda: line.send(mixed, "--topspeed"), CaptureSettings(direction="in"))
    assert arrived.ts.size == sent
    for name in ("src_lo", "dst_lo", "dport", "payload", "reason"):
        assert np.array_equal(getattr(arrived, name), getattr(of_file(mixed), name)), name


def test_vlan_tags_are_put_back_on_all_interfaces(line: Wire, tmp_path: Path) -> None:
    frames = [tagged(), tagged((0x8100, 5)), tagged((0x88A8, 7), (0x8100, 8))]
    path = tmp_path / "tagged.pcap"
    path.write_bytes(pcap([(k, frame, len(frame)) for k, frame in enumerate(frames)]))
    got, _, _ = captured(line, lambda: line.send(path), CaptureSettings(direction="in"))
    assert got.size.tolist() == [len(frame) for frame in frames]


@pytest.mark.parametrize(
    ("expression", "address", "passes"),
    [
        (f"udp port {PORT}", "127.0.0.1", True),
        (f"udp dst port {PORT}", "::1", True),
        ("ip6", "::1", True),
        ("ip6", "127.0.0.1", False),
        (f"not port {PORT}", "127.0.0.1", False),
        ("host 127.0.0.1 and udp[4:2] = 108", "127.0.0.1", True),
        ("tcp", "127.0.0.1", False),
    ],
)
def test_a_filter_is_run_on_packets_of_all_interfaces(
    line: Wire, expression: str, address: str, passes: bool
) -> None:
    got, _, _ = captured(line, lambda: datagrams(20, address), CaptureSettings(filter=expression))
    assert to_port(got).ts.size == (20 if passes else 0)


def test_an_interface_without_link_headers_gives_raw_packets_beside_ethernet(line: Wire) -> None:
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun")
    made = subprocess.run(
        line.command("ip", "tuntap", "add", "tun0", "mode", "tun"),
        capture_output=True,
        check=False,
        timeout=20,
    )
    if made.returncode:
        pytest.skip("no tun interface can be made here")

    def work() -> tuple[Packets, set[int], Counters]:
        import fcntl

        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(
            device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001)
        )  # TUNSETIFF: IFF_TUN, IFF_NO_PI
        line.ip("address", "add", "10.9.0.1/24", "dev", "tun0")
        line.ip("link", "set", "tun0", "up")

        def send() -> None:
            datagrams(7, "10.9.0.2")
            datagrams(3, "127.0.0.1")

        try:
            return captured(line, send)
        finally:
            os.close(device)

    got, links, _ = line.inside(work)
    assert to_port(got).ts.size == 10
    assert links == {1, 101}


def test_what_cannot_be_done_on_all_interfaces_is_refused(line: Wire) -> None:
    def refused() -> None:
        with pytest.raises(InterfaceError, match="any: hardware time stamps need one interface: name it"):
            RingCapture("any", CaptureSettings(timestamps="hardware"))
        with pytest.raises(InterfaceError, match=r"any: all interfaces together need capture\.method ring"):
            SniffedCapture("any", CaptureSettings())
        with pytest.raises(FilterError, match="ether"):
            RingCapture("any", CaptureSettings(filter="ether host 02:00:00:00:00:01"))

    line.inside(refused)
