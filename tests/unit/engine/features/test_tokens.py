"""Which packets have a token with each policy, and what a token holds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.connections.tracker import Tracker
from engine.errors import ConfigError
from engine.features.tokens import (
    BUCKETS,
    ENTRIES,
    FLAGS,
    IDENTITY_WORDS,
    LOG_GAP,
    LOG_PAYLOAD,
    PLAIN_WORDS,
    POLICIES,
    UP,
    TokenConfig,
    Tokens,
)
from engine.scoring.detector import slots_needed
from engine.scoring.token_pass import TokenPass
from engine.types import Packets
from tests.support.conversation import Conversation
from tests.support.token_runs import SMALL, kernel_run, steps
from tests.support.tracking import kinds


def lossy() -> Conversation:
    """A transfer with one packet of each kind; comments give its number and Segment."""
    c = Conversation().open()  # 0 NEW, 1 NEW, 2 ACK
    c.send("a", "PA", 1, 1, 100)  # 3 NEW
    c.send("a", "PA", 201, 1, 100)  # 4 NEW, behind a hole
    c.send("a", "PA", 101, 1, 100)  # 5 REORDERED
    c.send("a", "PA", 101, 1, 100)  # 6 DUPLICATE
    c.send("b", "A", 1, 301)  # 7 ACK
    c.send("a", "PA", 1, 1, 100)  # 8 SPURIOUS
    c.send("a", "PA", 251, 1, 100)  # 9 PARTIAL
    c.send("b", "A", 1, 351)  # 10 ACK
    c.send("a", "A", 350, 1)  # 11 KEEP_ALIVE
    c.send("b", "PA", 1, 351, 20)  # 12 NEW
    c.rows.append(dict(c.rows[-1]))  # 13 CAPTURE_DUPLICATE
    c.send("a", "PA", 451, 21, 10)  # 14 NEW, behind a hole
    c.send("a", "PA", 351, 21, 100, after=300)  # 15 RETRANSMITTED
    c.send("a", "PA", 10**9, 21, 5)  # 16 OUT_OF_WINDOW
    c.send("b", "R", 21)  # 17 UNTRUSTED
    c.send("b", "R", 21)  # 18 UNTRUSTED
    return c.send("b", "PA", 21, 351, 7)  # 19 UNTRUSTED


NAMES = (
    "NEW NEW ACK NEW NEW REORDERED DUPLICATE ACK SPURIOUS PARTIAL ACK KEEP_ALIVE NEW CAPTURE_DUPLICATE NEW "
    "RETRANSMITTED OUT_OF_WINDOW UNTRUSTED UNTRUSTED UNTRUSTED"
)
EVERY = set(range(20))
LATE = {5, 6, 8, 9, 13, 15}


def test_the_transfer_has_a_packet_of_each_kind() -> None:
    assert " ".join(kind.name for kind in kinds(lossy())) == NAMES


@pytest.mark.parametrize(
    ("policy", "left_out"),
    [
        ("keep", set()),
        ("no-acks", {2, 7, 10, 13}),
        ("drop-duplicates", {6, 8, 13}),
        ("drop-late", LATE),
        ("bytes", {2, 6, 7, 8, 10, 11, 13, 16, 18, 19}),
    ],
)
def test_policies_leave_packets_out_by_their_kind(policy: Any, left_out: set[int]) -> None:
    rows, counts = kernel_run(lossy().packets(), TokenConfig(policy=policy))
    assert [row.number for row in rows] == sorted(EVERY - left_out)
    assert [row.at for row in rows] == sorted(EVERY - left_out)
    assert counts["tokens"] == len(rows)
    assert counts["left_out"] == len(left_out)


def test_during_an_episode_no_packet_has_a_token() -> None:
    rows, _ = kernel_run(lossy().packets(), TokenConfig(policy="drop-episodes"))
    late = {row.number for row in kernel_run(lossy().packets(), TokenConfig(policy="drop-late"))[0]}
    assert {row.number for row in rows} < late
    assert 4 not in {row.number for row in rows}


def test_stream_puts_packets_in_order() -> None:
    rows, counts = kernel_run(lossy().packets(), TokenConfig())
    assert [(row.number, row.at) for row in rows] == [
        (0, 0), (1, 1), (3, 3), (5, 5), (4, 5), (9, 9), (12, 12), (15, 15), (14, 15), (17, 17), (19, 19),
    ]  # fmt: skip
    assert counts["held"] == counts["under_1_s"] == 2
    assert counts["under_1_ms"] == 0
    assert counts["under_10_ms"] == 1
    assert counts["held_ns"] == 301_000_000


def payload_entries(size: int) -> dict[int, float]:
    bucket = 0 if size < 16 else math.floor(8 * (math.log2(min(size, 65536)) - 4)) + 1
    return {LOG_PAYLOAD: round(math.log2(min(size, 65536)) / 16, 6), BUCKETS + bucket: 1.0}


def test_bytes_and_stream_count_each_byte_once() -> None:
    for policy in ("bytes", "stream"):
        rows, _ = kernel_run(lossy().packets(), replace(TokenConfig(), policy=policy))
        of = {row.number: dict(row.entries) for row in rows}
        assert payload_entries(50).items() <= of[9].items()
        assert not {LOG_PAYLOAD} & set(of[17])
    rows, _ = kernel_run(lossy().packets(), TokenConfig(policy="keep"))
    assert payload_entries(100).items() <= dict(rows[9].entries).items()


def test_a_token_holds_direction_flags_payload_and_time_since_the_last() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 300, after=2.5).send("b", "PA", 1, 301, 5)
    rows, _ = kernel_run(c.packets(), TokenConfig(policy="keep"))
    syn, psh, ack = FLAGS + 1, FLAGS + 3, FLAGS + 4

    def gap(us: float) -> float:
        return float(np.float32(math.log2(1 + us) * 0.05).round(6))

    expected = [
        {UP: 1, syn: 1},
        {syn: 1, ack: 1, LOG_GAP: gap(5000)},
        {UP: 1, ack: 1, LOG_GAP: gap(5000)},
        {UP: 1, psh: 1, ack: 1, LOG_GAP: gap(2500)} | payload_entries(300),
        {psh: 1, ack: 1, LOG_GAP: gap(1000)} | payload_entries(5),
    ]
    assert [dict(row.entries) for row in rows] == [pytest.approx(one, abs=2e-6) for one in expected]


def test_a_token_with_everything_has_as_many_entries_as_there_is_room() -> None:
    c = Conversation().send("a", "S", 0).send("a", "S", 500, payload=9)
    p = c.packets()
    p.tcp_flags[1] = 255 - 4
    rows, _ = kernel_run(p, TokenConfig(policy="keep"))
    assert len(rows[1].entries) == ENTRIES - 1  # all but the RST
    p.tcp_flags[1] = 255
    rows, _ = kernel_run(p, TokenConfig(policy="keep"))
    assert len(rows[1].entries) == ENTRIES


@pytest.mark.parametrize("size", [1, 15, 16, 17, 18, 1448, 65534, 65535, 65536, 200_000])
def test_payloads_share_buckets_of_an_eighth_of_an_octave(size: int) -> None:
    rows, _ = kernel_run(Conversation().send("a", "A", 1, 1, size).packets(), TokenConfig(policy="keep"))
    found = {row: value for row, value in rows[0].entries if row in (LOG_PAYLOAD,) or row >= BUCKETS}
    assert found == pytest.approx(payload_entries(size), abs=2e-6)
    assert max(found) < TokenConfig().inputs


def test_a_late_packet_has_no_gap_and_does_not_turn_the_clock_back() -> None:
    p = Conversation().open().send("a", "PA", 1, 1, 9, after=2).send("b", "PA", 1, 10, 9, after=2).packets()
    p.ts[3] -= 5_000_000
    rows, _ = kernel_run(p, TokenConfig(policy="keep"))
    assert LOG_GAP not in dict(rows[3].entries)
    assert dict(rows[4].entries)[LOG_GAP] == pytest.approx(math.log2(1 + 4000) * 0.05, abs=2e-6)


def only_tokens(p: Packets, config: TokenConfig) -> Tokens:
    one = TokenPass(config, None, slots_needed(SMALL))
    ((part, t),) = steps(Tracker(SMALL), p)
    return one.update(part, t)


def odd_packet() -> Packets:
    p = Conversation(isn_a=0x01020304, isn_b=0x0A0B0C0D).send("a", "PA", 0, 0, 999, window=0x1234).packets()
    p.src_mac[:], p.dst_mac[:] = 0x112233445566, 0xAABBCCDDEEFF
    p.ttl[:], p.ip_id[:], p.checksum[:] = 61, 0x5678, 0x9ABC
    return p


PLAIN = [1039 >> 8, 1039 & 255, 61, 24, 0x12, 0x34]
IDENTITY = [
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0x56, 0x78, 6, 0x9A, 0xBC,
    10, 0, 0, 1, 10, 0, 0, 2, 40000 >> 8, 40000 & 255, 0, 80, 1, 2, 3, 4, 0x0A, 0x0B, 0x0C, 0x0D,
]  # fmt: skip


@pytest.mark.parametrize("policy", ["keep", "stream"])
@pytest.mark.parametrize("identity", [False, True])
def test_words_are_the_bytes_of_the_header(policy: Any, identity: bool) -> None:
    config = TokenConfig(policy, "header", identity=identity)
    x = only_tokens(odd_packet(), config)
    words = PLAIN + (IDENTITY if identity else [])
    assert len(words) == config.words == config.entries
    assert config.words == len(PLAIN_WORDS) + identity * len(IDENTITY_WORDS)
    assert config.inputs == 256 * len(words)
    assert x.rows.tolist() == [[256 * k + byte for k, byte in enumerate(words)]]
    assert x.values.tolist() == [[1.0] * len(words)]


def test_a_size_that_two_bytes_do_not_hold_is_the_largest() -> None:
    p = odd_packet()
    p.ip_size[:] = 70_000
    x = only_tokens(p, TokenConfig("keep", "header"))
    assert x.rows[0, :2].tolist() == [255, 256 + 255]


def test_words_of_a_packet_that_waited_are_its_own() -> None:
    c = Conversation().open().send("a", "PA", 101, 1, 50, window=7).send("a", "PA", 1, 1, 100, window=9)
    rows, _ = kernel_run(c.packets(), TokenConfig("stream", "header"))
    assert [(row.number, row.entries[5][0] - 5 * 256) for row in rows[2:]] == [(4, 9), (3, 7)]


@pytest.mark.parametrize("policy", POLICIES)
def test_packets_without_tcp_have_no_token(policy: Any) -> None:
    p = Conversation().send("a", "", 0, payload=9).packets()
    p.proto[:], p.tcp_flags[:] = 17, 0
    rows, counts = kernel_run(p, TokenConfig(policy=policy))
    assert rows == []
    assert counts["not_tcp"] == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_connection_that_uses_a_slot_again_begins_afresh(policy: Any) -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 9).send("a", "R", 10, after=5)
    c.send("a", "S", 90_000, after=50_000).send("a", "R", 90_001, after=5)
    one = TokenPass(TokenConfig(policy=policy), None, slots_needed(SMALL))
    found = []
    for part, t in steps(Tracker(SMALL), c.packets(), [5]):
        x = one.update(part, t)
        found += [(int(n), LOG_GAP in row) for n, row in zip(x.number, x.rows.tolist())]
    assert found[-2:] == [(5, False), (6, True)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "all"}, "policy 'all' must be one of keep, no-acks"),
        ({"encoder": "raw"}, "encoder 'raw' must be one of sizes, header"),
        ({"patience": 0}, "patience 0 must be greater than 0"),
        ({"patience": math.nan}, "patience nan must be"),
        ({"patience": 3601}, "patience 3601 must be"),
        ({"connection_packets": 0}, "connection_packets 0 must be from 1 to 16384"),
        ({"connection_bytes": (1 << 30) + 1}, "connection_bytes 1073741825 must be"),
        ({"packets": 1 << 25}, "packets 33554432 must be"),
        ({"bytes": 0}, "bytes 0 must be"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenConfig(**values)
