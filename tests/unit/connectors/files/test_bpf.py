"""Filters over captures against the kernel's own filter, which runs the same programs, and against tcpdump."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files import bpf
from connectors.files.bpf import FilterError, FrameFilter, Program, accepts, compiled, machine
from connectors.files.frames import FrameBlock
from connectors.files.pcap import CaptureFile
from connectors.live.bpf import attach
from tests.support.capture_bytes import enhanced, interface, pcap, section
from tests.support.capture_files import write
from tests.support.demo import CAPTURE, piece

needs_kernel = pytest.mark.skipif(not hasattr(socket, "AF_PACKET"), reason="only Linux filters on any socket")

EXPRESSIONS = [
    "tcp", "tcp port 80", "udp", "arp", "icmp", "ip", "ip6", "port 53", "src portrange 1-1023", "greater 100",
    "host 10.0.0.1 or net 192.168.0.0/16", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "not tcp and not udp",
    "ip[8] < 64", "ip[2:2] - 20 > 100", "tcp[13] & 2 != 0 and ip[0] & 0xf = 5", "ether multicast", "vlan",
    "less 80", "vlan and tcp",
    "ether[0] & 1 = 0", "len / 7 = 11", "len % 3 = 1", "(ip[4:2] << 3) ^ 7 & 15 = 3", "ip[16:4] * 3 > 7", "-ip[8] = 1",
]  # fmt: skip


def block_of(frames: Sequence[bytes], link_type: int = 1) -> FrameBlock:
    sizes = np.array([len(frame) for frame in frames], np.uint32)
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    times, links = np.zeros(sizes.size, np.int64), np.full(sizes.size, link_type, np.uint16)
    return FrameBlock(np.frombuffer(b"".join(frames), np.uint8), starts, sizes, sizes, times, links)


def frames_of(block: FrameBlock) -> list[bytes]:
    return [block.buffer[a : a + n].tobytes() for a, n in zip(block.start.tolist(), block.captured.tolist())]


def kernel_accepts(program: Program, frames: Sequence[bytes]) -> list[bool]:
    """Which frames get through a socket with this filter. FilterError where the kernel refuses the program."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach(receiver, program)
        receiver.setblocking(False)
        found = []
        for frame in frames:
            sender.send(frame)
            try:
                receiver.recv(65536)
                found.append(True)
            except BlockingIOError:
                found.append(False)
        return found


def demo(n: int = 3000) -> FrameBlock:
    with CaptureFile(CAPTURE, frames_per_block=n) as capture:
        return next(iter(capture))


@needs_kernel
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_filter_accepts_what_the_kernel_accepts(expression: str) -> None:
    whole = frames_of(demo(1500))
    frames = whole + [frame[: k % 80 + 1] for k, frame in enumerate(whole)]  # loads beyond the end reject
    program = compiled(expression, 1)
    got = accepts(machine(program), block_of(frames)).tolist()
    assert got == kernel_accepts(program, frames)


def test_expressions_tell_packets_apart() -> None:
    """So that the test above compares something."""
    block = demo(1500)
    shares = [accepts(machine(compiled(expression, 1)), block).mean() for expression in EXPRESSIONS]
    assert sum(0 < share < 1 for share in shares) > 12


LOADS = [0x20, 0x28, 0x30, 0x40, 0x48, 0x50]  # ld abs and ind: word, half, byte
ALU = [0x04, 0x14, 0x24, 0x44, 0x54, 0xA4, 0x0C, 0x1C, 0x2C, 0x4C, 0x5C, 0xAC, 0x3C, 0x9C]
JUMPS = [0x15, 0x25, 0x35, 0x45, 0x1D, 0x2D, 0x3D, 0x4D]
CONSTANT = st.integers(0, 2**32 - 1) | st.integers(0, 9)
STEP = (
    st.tuples(st.sampled_from(LOADS), st.just(0), st.just(0), st.integers(0, 40))
    | st.tuples(st.sampled_from(ALU), st.just(0), st.just(0), CONSTANT)
    | st.tuples(st.sampled_from([0x34, 0x94]), st.just(0), st.just(0), st.integers(1, 99))
    | st.tuples(st.sampled_from([0x64, 0x74]), st.just(0), st.just(0), st.integers(0, 31))
    | st.tuples(st.sampled_from([0x00, 0x01]), st.just(0), st.just(0), CONSTANT)
    | st.tuples(st.sampled_from([0x80, 0x81, 0x84, 0x07, 0x87]), st.just(0), st.just(0), st.just(0))
    | st.tuples(st.just(0xB1), st.just(0), st.just(0), st.integers(0, 40))
    | st.tuples(st.sampled_from([0x02, 0x03, 0x60, 0x61]), st.just(0), st.just(0), st.integers(0, 2))
    | st.tuples(st.sampled_from(JUMPS), st.integers(0, 3), st.integers(0, 3), CONSTANT)
    | st.tuples(st.just(0x05), st.just(0), st.just(0), st.integers(0, 3))
)  # fmt: skip
END = st.sampled_from([(0x06, 0, 0, 0), (0x06, 0, 0, 65535), (0x16, 0, 0, 0)])
MEMORY = [(0x02, 0, 0, cell) for cell in range(3)]  # the kernel refuses to load cells that were not stored


@needs_kernel
@given(
    st.lists(STEP, max_size=12),
    st.lists(END, min_size=4, max_size=4),
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=400)
def test_any_program_does_what_it_does_in_the_kernel(
    steps: list[tuple[int, int, int, int]], ends: list[tuple[int, int, int, int]], frames: list[bytes]
) -> None:
    program = [*MEMORY, *steps, *ends]
    assert accepts(machine(program), block_of(frames)).tolist() == kernel_accepts(program, frames)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ([], "the program is empty"),
        ([(0x20, 0, 0, 0)], "instruction 0 does not lead forwards"),
        ([(0x15, 5, 0, 0), (0x06, 0, 0, 0)], "instruction 0 does not lead forwards"),
        (
            [(0x06, 0, 0, 0), (0x05, 0, 0, 0xFFFFFFFE), (0x06, 0, 0, 0)],
            "instruction 1 does not lead forwards",
        ),
        ([(0x02, 0, 0, 16), (0x06, 0, 0, 0)], "instruction 0 uses memory cell 16"),
        ([(0x61, 0, 0, 99), (0x06, 0, 0, 0)], "instruction 0 uses memory cell 99"),
    ],
)
def test_a_program_that_would_leave_itself_is_refused(program: Program, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        machine(program)


def test_the_length_is_that_on_the_wire(tmp_path: Path) -> None:
    path = write(tmp_path, pcap([(1, b"x" * 20, 20), (2, b"x" * 20, 1514), (3, b"x" * 20, 60)]))
    with CaptureFile(path) as capture:
        (block,) = (FrameFilter("greater 60").apply(b) for b in capture)
    assert block.ts.tolist() == [2000, 3000]


def test_each_link_type_has_its_own_program(tmp_path: Path) -> None:
    ip = bytes.fromhex("4500001c000100004011000a0a0000010a000002") + struct.pack(">HHHH", 5000, 53, 8, 0)
    cooked = bytes(14) + b"\x08\x00"
    data = section() + interface(1) + interface(101) + interface(113) + interface(0) + interface(228)
    for k, head in enumerate((bytes(12) + b"\x08\x00", b"", cooked, struct.pack("=I", 2), b"")):
        data += enhanced((k, head + ip, 100), k)
    with CaptureFile(write(tmp_path, data)) as capture:
        blocks = list(capture)
    for expression, passes in (("udp dst port 53", 5), ("udp dst port 54", 0), ("ip host 10.0.0.2", 5)):
        assert sum(len(FrameFilter(expression).apply(b)) for b in blocks) == passes


@pytest.mark.parametrize(
    ("expression", "link_type", "problem"),
    [
        ("tcp prot 80", 1, "filter 'tcp prot 80': .*syntax error"),
        ("tcp", 147, "filter 'tcp': .*147.*not implemented"),
        ("x" * 2049, 1, "filter of 2049 characters must have at most 2048"),
        ("ip6 protochain 6", 1, "protochain cannot be used"),
    ],
)
def test_what_cannot_be_compiled_is_one_line_that_says_why(
    expression: str, link_type: int, problem: str
) -> None:
    with pytest.raises(FilterError, match=problem) as refused:
        FrameFilter(expression).apply(block_of([b"x" * 60], link_type))
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(f"(for link type {link_type})") or "protochain" in expression


def test_a_machine_without_libpcap_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scapy.libs.winpcapy", None)
    monkeypatch.delattr("scapy.libs.winpcapy", raising=False)
    with pytest.raises(
        FilterError, match="filter 'tcp': libpcap, which compiles filters, is not installed here"
    ):
        compiled("tcp", 1)
    assert len(bpf.machine([(0x06, 0, 0, 1)]).code) == 1


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_filter_chooses_the_packets_that_tcpdump_chooses(expression: str, tmp_path: Path) -> None:
    path = piece(tmp_path / "c.pcap", 2000)
    shown = subprocess.run(["tcpdump", "-n", "-t", "-r", path, expression], capture_output=True, check=True)
    with CaptureFile(path) as capture:
        assert sum(len(FrameFilter(expression).apply(b)) for b in capture) == len(shown.stdout.splitlines())
