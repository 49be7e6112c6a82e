from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.frames import FrameBlock
from engine.headers.cursor import TUNNELS
from engine.headers.decode import DecodeConfig, decode
from engine.types import KIND_INNER, KIND_MASK, KIND_TRANSPORT, Kind, Packets, Reason, concatenate, take

LINK_TYPES = [
    0, 1, 9, 12, 14, 50, 51, 101, 104, 105, 108, 113, 117, 119, 127, 147, 149, 163, 192, 228, 229, 239, 258, 276,
]  # fmt: skip
CONFIGS = [
    DecodeConfig(),
    DecodeConfig(("gre", "ipip", "6in4", "vxlan")),
    DecodeConfig(("gre",), max_depth=1),
    DecodeConfig(tuple(TUNNELS)),
]

IP4 = bytes.fromhex("4500003c00010000401100000a0000010a000002")
IP6 = bytes.fromhex("6000000000281140") + bytes(15) + b"\1" + bytes(15) + b"\2"
# Headers with fields that lead on; joined at random they get far into the decoder.
PIECES = [
    bytes.fromhex("0200000000010200000000020800"),
    bytes.fromhex("02000000000102000000000286dd"),
    bytes.fromhex("0200000000010200000000028100"),
    bytes.fromhex("0200000000010200000000028847"),
    bytes.fromhex("0200000000010200000000028864"),
    bytes.fromhex("020000000001020000000002894f"),
    bytes.fromhex("0200000000010200000000020040"),
    bytes.fromhex("aaaa03000000"),
    bytes.fromhex("00058100"),
    bytes.fromhex("00050800"),
    bytes.fromhex("00010100"),
    bytes.fromhex("110000010040"),
    bytes.fromhex("0021"),
    bytes.fromhex("0057"),
    *(IP4[:9] + bytes([proto]) + IP4[10:] for proto in (1, 4, 6, 17, 41, 47, 51)),
    *(IP6[:6] + bytes([proto]) + IP6[7:] for proto in (0, 4, 6, 17, 41, 43, 44, 47, 51, 58, 60)),
    bytes.fromhex("3c00000000000000"),
    bytes.fromhex("2c00000100000001"),
    bytes.fromhex("00000800"),
    bytes.fromhex("b0006558000000000000000000000000"),
    bytes.fromhex("c00012b500280000"),
    bytes.fromhex("0800000000000100"),
    bytes.fromhex("04d20050000000010000000250180200000000000000"),
    bytes.fromhex("020000000001020000000002080600010800060400010200000000010a0000010200000000020a000002"),
    bytes.fromhex("aaaa030000000800"),
    bytes.fromhex("08010000020000000003020000000001020000000002 1000"),
    bytes.fromhex("88030000020000000003020000000003020000000002 1000020000000001 8000"),
    bytes.fromhex("020000000002020000000001 0040"),
    bytes.fromhex("0000090002000000 10"),
    bytes.fromhex("0000180021000080000000000000000055555555555555 30"),
    bytes.fromhex("0000080069000000"),
    bytes.fromhex("02000005 080001000800 0100"),
    bytes.fromhex("0a000005 00080001 86dd0100"),
    bytes.fromhex("18000900"),
    bytes.fromhex("3d02") + bytes(62),
    bytes.fromhex("6c0000000100000001000000") + bytes(96),
    *(bytes.fromhex(f"c000{port:04x}00280000") for port in (2152, 3544, 4754, 4789, 4790, 5072, 6081, 37008)),
    bytes.fromhex("0c00000100000100"),
    bytes.fromhex("30ff002000000007"),
    bytes.fromhex("0000655800000300"),
    bytes.fromhex("0001020200000000000000000000000000"),
    bytes.fromhex("41521129") + bytes(40),
    bytes.fromhex("0100000101"),
]
CLOSED = [reason for reason in Reason if reason >= Reason.TUNNEL_GRE]
FRAMES = st.lists(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=8).map(b"".join), max_size=6
)


def block(frames: list[bytes], link_types: list[int], wire: list[int]) -> FrameBlock:
    sizes = np.array([len(frame) for frame in frames], np.uint32)
    return FrameBlock(
        np.frombuffer(b"".join(frames), np.uint8),
        np.cumsum(sizes, dtype=np.int64) - sizes,
        sizes,
        sizes + np.array(wire, np.uint32),
        np.arange(len(frames), dtype=np.int64),
        np.array(link_types, np.uint16),
    )


@st.composite
def blocks(draw: st.DrawFn) -> FrameBlock:
    frames = draw(FRAMES)
    n = len(frames)
    link_types = draw(st.lists(st.sampled_from(LINK_TYPES), min_size=n, max_size=n))
    wire = draw(st.lists(st.sampled_from([0, 0, 5, 1400, 2**31]), min_size=n, max_size=n))
    return block(frames, link_types, wire)


def part(b: FrameBlock, rows: slice) -> FrameBlock:
    columns = (b.start, b.captured, b.wire, b.ts, b.link_type)
    return FrameBlock(b.buffer, *(column[rows] for column in columns))  # type: ignore[arg-type]


def assert_equal(a: Packets, b: Packets) -> None:
    for name in Packets._fields:
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name


@given(blocks(), st.sampled_from(CONFIGS))
@settings(deadline=None, max_examples=500)
def test_any_frames_give_one_consistent_row_each(b: FrameBlock, config: DecodeConfig) -> None:
    p = decode(b, config)
    assert {column.size for column in p} == {len(b)}
    assert p.ts.tolist() == b.ts.tolist()
    assert p.size.tolist() == b.wire.tolist()
    assert (p.reason < len(Reason)).all()
    network = p.kind & KIND_MASK
    ip = (network == Kind.IPV4) | (network == Kind.IPV6)
    assert (network <= max(Kind)).all()
    assert (p.ip_size[~ip] == 0).all()
    assert (p.sport[~ip & (network != Kind.ARP)] == 0).all()
    assert (p.vlan >> 16 <= 4095).all()
    assert (p.vlan & 0xFFFF <= 4095).all()
    assert (p.payload <= p.ip_size).all()
    tcp = (p.proto == 6) & ip & (p.kind & KIND_TRANSPORT != 0)
    for column in (p.seq, p.ack, p.window, p.tcp_flags):
        assert (column[~tcp] == 0).all()
    if not config.tunnels:
        assert (p.kind & KIND_INNER == 0).all()
    assert not {Reason[f"TUNNEL_{name.upper()}"] for name in config.tunnels} & set(p.reason.tolist())


@given(blocks(), st.sampled_from(CONFIGS), st.integers(0, 6))
@settings(deadline=None, max_examples=200)
def test_a_frame_gives_the_same_row_in_any_block(b: FrameBlock, config: DecodeConfig, cut: int) -> None:
    whole = decode(b, config)
    assert_equal(
        whole, concatenate([decode(part(b, slice(cut)), config), decode(part(b, slice(cut, None)), config)])
    )
    assert_equal(take(whole, slice(None, None, -1)), decode(part(b, slice(None, None, -1)), config))


@given(blocks(), st.binary(min_size=1, max_size=9))
@settings(deadline=None, max_examples=200)
def test_bytes_between_frames_are_never_read(b: FrameBlock, gap: bytes) -> None:
    apart = b"".join(
        gap + b.buffer[at : at + size].tobytes() for at, size in zip(b.start, b.captured, strict=True)
    )
    moved = b.start + len(gap) * np.arange(1, len(b) + 1)
    other = FrameBlock(np.frombuffer(apart + gap, np.uint8), moved, b.captured, b.wire, b.ts, b.link_type)
    assert_equal(decode(b, CONFIGS[1]), decode(other, CONFIGS[1]))


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), st.sampled_from(LINK_TYPES), st.data())
@settings(deadline=None, max_examples=200)
def test_a_shorter_snaplen_never_changes_the_fields_still_visible(
    frame: bytes, link_type: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(frame)))
    whole = decode(block([frame], [link_type], [0]))
    short = decode(block([frame[:cut]], [link_type], [len(frame) - cut]))
    for name in ("src_lo", "dst_lo", "sport", "dport", "seq", "ack", "window", "tcp_flags", "ttl"):
        seen = int(getattr(short, name)[0])
        assert seen in (0, int(getattr(whole, name)[0])), name
    # without an inner header, a tunnel cannot be told from other traffic on its port
    assert short.reason[0] != Reason.OK or whole.reason[0] in (Reason.OK, *CLOSED)
