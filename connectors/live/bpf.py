"""Classic BPF programs for packet sockets: capture filters, and the choice of the process that gets a packet."""

from __future__ import annotations

import ctypes
import re
import socket
import struct

from connectors.files import bpf as captures
from connectors.files.bpf import Program
from connectors.live.netdev import EACH, RAW_IP

SO_ATTACH_FILTER, SOL_PACKET, PACKET_FANOUT_DATA = 26, 263, 22

RETURN = 0x06  # ret #k
_LD_W, _LD_H, _LD_MEM = 0x20, 0x28, 0x60  # ld [k], ldh [k], ld M[k]
_TAX, _ST = 0x07, 0x02
_XOR_X, _MUL_K, _RSH_K, _RET_A = 0xAC, 0x24, 0x74, 0x16
_JEQ = 0x15
_NETWORK = 0xFFF00000  # SKF_NET_OFF: offsets count from the network header
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL

FilterError = captures.FilterError

NOTHING: Program = ((RETURN, 0, 0, 0),)


def everything(snaplen: int) -> Program:
    """Take the first ``snaplen`` bytes of every packet."""
    return ((RETURN, 0, 0, snaplen),)


def compiled(expression: str, link_type: int, snaplen: int) -> Program:
    """A filter in tcpdump's language, compiled by libpcap. Raises FilterError.

    link_type: of the interface; EACH: the filter sees packets from their network header on, whatever is before it.
    """
    if not expression.strip():
        return everything(snaplen)
    if re.search(r"\bvlan\b", expression):
        raise FilterError(
            f"filter {expression!r}: vlan cannot match: the kernel removes tags before it filters"
        )
    program = captures.compiled(expression, RAW_IP if link_type == EACH else link_type)
    if link_type == EACH:
        program = [(code, jt, jf, k + _NETWORK if _loads(code) else k) for code, jt, jf, k in program]
    return tuple((code, jt, jf, min(k, snaplen) if code == RETURN else k) for code, jt, jf, k in program)


def _loads(code: int) -> bool:
    """Whether an instruction loads from the packet: ld [k], ld [x + k] or ldx 4 * ([k] & 15)."""
    return (code & 7 == 0 and code & 0xE0 in (0x20, 0x40)) or (code & 7 == 1 and code & 0xE0 == 0xA0)


def by_hosts() -> Program:
    """A number shared by both directions of a host pair; the kernel takes it modulo the processes in a group.

    So all packets of a connection, fragments too, go to one process, and so do all connections between two hosts.
    Packets that are not IP give 0.
    """
    load4 = [(_LD_W, 0, 0, _NETWORK + 12), (_TAX, 0, 0, 0), (_LD_W, 0, 0, _NETWORK + 16), (_XOR_X, 0, 0, 0)]
    load6: list[tuple[int, int, int, int]] = [(_LD_W, 0, 0, _NETWORK + 8)]
    for at in range(12, 40, 4):
        load6 += [(_TAX, 0, 0, 0), (_LD_W, 0, 0, _NETWORK + at), (_XOR_X, 0, 0, 0)]
    mix = [
        (_ST, 0, 0, 0), (_RSH_K, 0, 0, 16), (_TAX, 0, 0, 0), (_LD_MEM, 0, 0, 0), (_XOR_X, 0, 0, 0),
        (_MUL_K, 0, 0, 0x045D9F3B), (_ST, 0, 0, 0), (_RSH_K, 0, 0, 16), (_TAX, 0, 0, 0), (_LD_MEM, 0, 0, 0),
        (_XOR_X, 0, 0, 0), (_RET_A, 0, 0, 0),
    ]  # fmt: skip
    return (
        (_LD_H, 0, 0, _PROTOCOL),
        (_JEQ, 2, 0, 0x0800),
        (_JEQ, 1 + len(load4) + len(mix), 0, 0x86DD),
        (RETURN, 0, 0, 0),
        *load4,
        *mix,
        *load6,
        *mix,
    )


def attach(sock: socket.socket, program: Program) -> None:
    """Set a socket's filter from now on. FilterError when the kernel refuses."""
    try:
        _give(sock, socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except (OSError, struct.error) as error:
        raise FilterError(f"the kernel refuses the filter of {len(program)} instructions: {error}") from None


def attach_fanout(sock: socket.socket, program: Program) -> None:
    """Let a program choose the process within a fanout group. OSError when the kernel refuses."""
    _give(sock, SOL_PACKET, PACKET_FANOUT_DATA, program)


def _give(sock: socket.socket, level: int, option: int, program: Program) -> None:
    code = b"".join(struct.pack("@HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(level, option, struct.pack("@HP", len(program), ctypes.addressof(buffer)))
