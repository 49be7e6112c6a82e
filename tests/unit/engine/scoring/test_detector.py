"""What a block says of losses, and what the records of the connections open then say."""

from __future__ import annotations

import pytest

from engine.connections.layout import FLAG_DROPPED
from engine.types import PacketBlock, Packets, empty_packets
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.detectors import detector

SECOND = 10**9


def lost(p: Packets, dropped: int, loss: bool, *, beats: bool) -> dict[int, bool]:
    """By originator port, whether a record says that packets were lost: of one flow before the block, others in it."""
    d = detector()
    d.process(PacketBlock("s", 0, 0, udp([T0], [1]), T0))
    d.process(PacketBlock("s", 0, 1, empty_packets() if beats else p, T0, dropped, loss))
    if beats:
        d.process(PacketBlock("s", 0, 1, p, T0))
    (said,) = d.flush()
    assert d.dropped == dropped
    ports, flags = said.rows["a_port"].tolist(), said.rows["flags"].tolist()
    return {port: bool(flag & FLAG_DROPPED) for port, flag in zip(ports, flags)}


@pytest.mark.parametrize("beats", [False, True], ids=["with packets", "a heartbeat"])
@pytest.mark.parametrize(("dropped", "loss"), [(3, False), (0, True), (3, True)])
def test_a_block_that_tells_of_a_loss_marks_what_is_open_and_nothing_that_begins_later(
    dropped: int, loss: bool, beats: bool
) -> None:
    later = udp([T0 + SECOND, T0 + 2 * SECOND], [1, 2])
    assert lost(later, dropped, loss, beats=beats) == {1: True, 2: False}


@pytest.mark.parametrize("beats", [False, True], ids=["with packets", "a heartbeat"])
def test_without_a_loss_nothing_is_marked(beats: bool) -> None:
    assert lost(udp([T0 + SECOND, T0 + 2 * SECOND], [1, 2]), 0, False, beats=beats) == {1: False, 2: False}


def test_a_block_that_comes_again_loses_nothing_again() -> None:
    d = detector()
    block = PacketBlock("s", 0, 0, udp([T0, T0 + 1], [1, 2]), T0 + 1, dropped=5, loss=True)
    for _ in range(3):
        d.process(block)
    assert (d.dropped, d.repeated_packets) == (5, 4)


YEAR = 365 * 24 * 3600 * SECOND


def test_a_damaged_time_stamp_at_the_end_of_a_block_does_not_confirm_itself() -> None:
    d = detector()
    p = udp([T0, T0 + SECOND, T0 + YEAR], [1, 2, 3])
    assert d.process(PacketBlock("s", 0, 0, p, T0 + YEAR)) == []
    assert d.process(PacketBlock("s", 0, 3, udp([T0 + 2 * SECOND], [1]), T0 + 2 * SECOND)) == []
    (said,) = d.flush()
    assert said.rows["start"].tolist() == [T0, T0 + SECOND, T0 + YEAR]


def test_a_heartbeat_before_a_leap_says_nothing_against_it_and_one_behind_it_confirms_it() -> None:
    for beat, ended in ((T0 + 2 * SECOND, 0), (T0 + YEAR, 1)):
        d = detector()
        d.process(PacketBlock("s", 0, 0, udp([T0, T0 + YEAR], [1, 2]), T0 + YEAR))
        said = d.process(PacketBlock("s", 0, 2, empty_packets(), beat))
        assert sum(map(len, said)) == ended
        said = d.process(PacketBlock("s", 0, 2, udp([T0 + YEAR + 1], [2]), T0 + YEAR + 1))
        assert sum(map(len, said)) == 1 - ended
        (last,) = d.flush()
        assert last.sides["packets"].sum() == 2
