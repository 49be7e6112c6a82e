"""Filters in tcpdump's language: compiled by libpcap, and run over blocks of frames.

The machine: S. McCanne and V. Jacobson, The BSD Packet Filter, 1993, section 3.3; libpcap's bpf_filter.c is its
reference. A load beyond the captured bytes, a division by zero and an unknown instruction reject the packet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from connectors.files.window import Bytes
from connectors.kernels import kernel

CELLS = 16  # words of scratch memory
MASK = 0xFFFFFFFF
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)  # classes: the low three bits of a code
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0  # where a load finds its value
_HALF, _BYTE = 0x08, 0x10  # its size; neither: a word
_X = 0x08  # whether the operand of an ALU or jump instruction is X


LONGEST = 2048  # most characters of a filter
MTU = 262_144  # bytes of a packet, which libpcap puts into its programs
DLT = {12: 12, 14: 12, 101: 12}  # libpcap's number of a link type where it differs: raw IP

Program = Sequence[tuple[int, int, int, int]]  # code, jt, jf, k


class FilterError(Exception):
    """A filter cannot be compiled; the message names the reason."""


def compiled(expression: str, link_type: int) -> Program:
    """A filter in tcpdump's language as a program, compiled by libpcap. Raises FilterError."""
    what = f"filter {expression!r}"
    if len(expression) > LONGEST:  # libpcap needs minutes for some, and cannot be interrupted
        raise FilterError(f"filter of {len(expression)} characters must have at most {LONGEST}")
    try:
        from scapy.libs import structures
        from scapy.libs import winpcapy as libpcap
    except (ImportError, OSError):
        raise FilterError(f"{what}: libpcap, which compiles filters, is not installed here") from None
    program = structures.bpf_program()
    handle = libpcap.pcap_open_dead(DLT.get(link_type, link_type), MTU)
    try:
        text = ctypes.create_string_buffer(expression.encode("utf-8", "surrogateescape"))
        if libpcap.pcap_compile(handle, ctypes.byref(program), text, 1, 0xFFFFFFFF):
            reason = bytes(ctypes.string_at(libpcap.pcap_geterr(handle))).decode("utf-8", "replace")
            raise FilterError(f"{what}: {' '.join(reason.split())}")
        found = [program.bf_insns[i] for i in range(program.bf_len)]
        steps = tuple((i.code, i.jt, i.jf, i.k & MASK) for i in found)  # its k has a sign
        libpcap.pcap_freecode(ctypes.byref(program))
    finally:
        libpcap.pcap_close(handle)
    return steps


class FrameFilter:
    """A filter over the frames of captures, compiled for each link type that comes."""

    def __init__(self, expression: str) -> None:
        """Raises FilterError later, when a link type comes for which it cannot be compiled."""
        self._expression = expression
        self._machines: dict[int, Machine] = {}

    def apply(self, frames: FrameBlock) -> FrameBlock:
        """The frames that pass. Raises FilterError."""
        accepted = np.zeros(len(frames), np.bool_)
        for link_type in np.unique(frames.link_type).tolist():
            mine = frames.link_type == link_type
            accepted |= mine & accepts(self._machine(link_type), frames)
        if accepted.all():
            return frames
        return replace(
            frames,
            start=frames.start[accepted],
            captured=frames.captured[accepted],
            wire=frames.wire[accepted],
            ts=frames.ts[accepted],
            link_type=frames.link_type[accepted],
        )

    def _machine(self, link_type: int) -> Machine:
        if link_type not in self._machines:
            try:
                self._machines[link_type] = machine(compiled(self._expression, link_type))
            except ValueError as error:
                raise FilterError(f"filter {self._expression!r}: {error}") from None
            except FilterError as error:
                raise FilterError(f"{error} (for link type {link_type})") from None
        return self._machines[link_type]


class Machine(NamedTuple):
    """A checked program as columns."""

    code: NDArray[np.int64]
    jt: NDArray[np.int64]
    jf: NDArray[np.int64]
    k: NDArray[np.int64]  # 0..2**32 - 1


def machine(program: Program) -> Machine:
    """A program, given as (code, jt, jf, k), that can only run forwards and inside itself. Raises ValueError."""
    n = len(program)
    for at, (code, jt, jf, k) in enumerate(program):
        kind = code & 7
        ahead = [k] if kind == _JMP and code & 0xF0 == 0 else [jt, jf] if kind == _JMP else [0]
        if kind != _RET and not all(0 <= step < n - at - 1 for step in ahead):
            raise ValueError(f"instruction {at} does not lead forwards to another: protochain cannot be used")
        if (kind in (_ST, _STX) or (kind in (_LD, _LDX) and code & 0xE0 == _MEM)) and not 0 <= k < CELLS:
            raise ValueError(f"instruction {at} uses memory cell {k}, must be in 0..{CELLS - 1}")
    if not n:
        raise ValueError("the program is empty")
    return Machine(*(np.array([row[i] for row in program], np.int64) for i in range(4)))


def accepts(program: Machine, frames: FrameBlock) -> NDArray[np.bool_]:
    """(n,) whether a program accepts each frame."""
    accepted = np.zeros(len(frames), np.bool_)
    _accept(
        frames.buffer,
        frames.start,
        frames.captured,
        frames.wire,
        program,
        np.zeros(CELLS, np.int64),
        accepted,
    )
    return accepted


@kernel
def _accept(
    data: Bytes, start: NDArray[np.int64], captured: NDArray[np.uint32], wire: NDArray[np.uint32],
    program: Machine, memory: NDArray[np.int64], accepted: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Run the program on each frame. memory: (CELLS,) scratch."""
    for i in range(start.size):
        begin, size = int(start[i]), int(np.int64(captured[i]))
        accepted[i] = _run(data, begin, begin + size, int(np.int64(wire[i])), program, memory) != 0


@kernel
def _run(data: Bytes, begin: int, end: int, wire: int, program: Machine, memory: NDArray[np.int64]) -> int:
    """Bytes of one frame to keep, 0 to reject it. The registers are unsigned words in int64."""
    a = x = at = 0
    memory[:] = 0
    while True:
        code, k = program.code[at], program.k[at]
        kind = code & 7
        at += 1
        if kind == _JMP:
            at += _jump(code, a, x if code & _X else k, k, program.jt[at - 1], program.jf[at - 1])
        elif kind == _LD or kind == _LDX:
            value = _load(data, begin, end, wire, x, code, k, memory)
            if value < 0:
                return 0
            if kind == _LD:
                a = value
            else:
                x = value
        elif kind == _ALU:
            a = _alu(code & 0xF0, a, x if code & _X else k)
            if a < 0:
                return 0
        elif kind == _RET:
            return int(a if code & 0x18 == 0x10 else k)
        elif kind == _ST:
            memory[k] = a
        elif kind == _STX:
            memory[k] = x
        elif code & 0xF8 == 0x80:
            a = x
        else:
            x = a


@kernel
def _jump(code: int, a: int, operand: int, k: int, jt: int, jf: int) -> int:
    """Instructions to skip."""
    how = code & 0xF0
    if how == 0x00:
        return k
    if how == 0x10:
        taken = a == operand
    elif how == 0x20:
        taken = a > operand
    elif how == 0x30:
        taken = a >= operand
    else:
        taken = a & operand != 0
    return jt if taken else jf


@kernel
def _load(
    data: Bytes, begin: int, end: int, wire: int, x: int, code: int, k: int, memory: NDArray[np.int64]
) -> int:
    """The value that a load instruction gives, -1 beyond the frame."""
    mode, size = code & 0xE0, code & 0x18
    if mode == _IMM:
        return k
    if mode == _MEM:
        return int(memory[k])
    if mode == _LEN:
        return wire
    at = begin + k + (x if mode == _IND else 0)
    width = 4 if size == 0 else 2 if size == _HALF else 1
    if at + width > end:
        return -1
    if mode == _MSH:
        return int(np.int64(data[at]) & 15) * 4
    value = 0
    for b in range(at, at + width):
        value = value << 8 | int(np.int64(data[b]))
    return value


@kernel
def _alu(how: int, a: int, operand: int) -> int:
    """The accumulator after an instruction, -1 after a division by zero or an unknown one."""
    if how == 0x00:
        return (a + operand) & MASK
    if how == 0x10:
        return (a - operand) & MASK
    if how == 0x20:
        return int(np.int64(np.uint64(a) * np.uint64(operand) & np.uint64(MASK)))
    if how == 0x40:
        return a | operand
    if how == 0x50:
        return a & operand
    if how == 0x60:
        return (a << operand) & MASK if operand < 32 else 0
    if how == 0x70:
        return a >> operand if operand < 32 else 0
    if how == 0x80:
        return -a & MASK
    if how == 0xA0:
        return a ^ operand
    if operand == 0:
        return -1
    if how == 0x30:
        return a // operand
    if how == 0x90:
        return a % operand
    return -1
