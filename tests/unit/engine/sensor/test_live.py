"""The loop of a live sensor, over a source made by the test: heartbeats, losses, pseudonyms, a clock that is set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from connectors.bus.memory import MemoryBus
from connectors.files.frames import FrameBlock
from connectors.live.clock_steps import ClockSteps
from connectors.live.settings import CaptureLostError, CaptureSettings, Counters
from engine import wire
from engine.commands.tap import live_sensor
from engine.config import Config, parse
from engine.connections.layout import FLAG_DROPPED
from engine.errors import ConfigError, InputError
from engine.scoring.detector import Detector
from engine.sensor.live import open_source, publish_live
from engine.sensor.publisher import Publisher
from engine.types import PacketBlock
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.detectors import detector
from tests.support.frames import frames_of
from tests.unit.connectors.live.test_clock_steps import Machine, steps

SECOND = 1_000_000_000
SILENCE = frames_of(udp([], []))


class Scripted:
    """A source that gives what it was told to."""

    def __init__(self, blocks: list[FrameBlock | BaseException]) -> None:
        self.blocks = blocks
        self.counters, self.clock = Counters(), ClockSteps()
        self.time = 0.0  # of the loop's clock; each block takes a tenth of a second

    def frames(self) -> Iterator[FrameBlock]:
        for block in self.blocks:
            self.time += 0.1
            if isinstance(block, BaseException):
                raise block
            yield block

    def stop(self) -> None: ...
    def change(self, expression: str, snaplen: int) -> None: ...
    def close(self) -> None: ...


def published(source: Scripted, config: Config | None = None, partitions: int = 1) -> list[PacketBlock]:
    """All blocks that the source makes."""
    bus = MemoryBus(partitions, 1000)
    publisher = Publisher(live_sensor(config or Config(), 4096), bus)
    try:
        publish_live(source, publisher, clock=lambda: source.time)
    finally:
        bus.end()
    return [wire.decode(m.value) for m in bus.poll(0.0, 1000) or []]


def rows(blocks: list[PacketBlock], into: Detector) -> list[tuple[int, int]]:
    """Packets and flags of the connections that a detector ends."""
    out = [batch for block in blocks for batch in into.process(block)]
    return [(int(b.sides["packets"][k].sum()), int(b.rows["flags"][k])) for b in out for k in range(len(b))]


def test_on_a_quiet_link_heartbeats_bring_the_time_every_second() -> None:
    quiet = [replace(SILENCE, now=T0 + k * SECOND // 10) for k in range(1, 50)]
    blocks = published(Scripted([frames_of(udp([T0], [1])), *quiet]))
    beats = [b.now - T0 for b in blocks if not len(b)]
    assert len(beats) == 5  # four, and one at the end
    assert np.diff(beats).tolist() == [SECOND] * 3 + [beats[-1] - beats[-2]]
    assert [len(b) for b in blocks[:1]] == [1]


def test_a_connection_on_a_quiet_link_ends_by_heartbeats_alone() -> None:
    quiet = [replace(SILENCE, now=T0 + k * SECOND) for k in range(1, 100)]
    source = Scripted([frames_of(udp([T0], [1])), *quiet])
    assert [n for n, _ in rows(published(source), detector())] == [1]


def test_under_load_packets_wait_for_their_block_no_longer_than_the_latency() -> None:
    busy: list[FrameBlock | BaseException] = [
        frames_of(udp([T0 + k * SECOND // 10], [k + 1])) for k in range(5)
    ]
    blocks = published(Scripted(busy))
    assert [len(b) for b in blocks if len(b)] == [1] * 5


def test_a_loss_goes_with_the_block_behind_it_and_marks_connections() -> None:
    lossy: list[FrameBlock | BaseException] = [
        frames_of(udp([T0], [1])),
        replace(frames_of(udp([T0 + SECOND], [1])), dropped=7),
        replace(SILENCE, dropped=3, now=T0 + 2 * SECOND),
        *(replace(SILENCE, now=T0 + k * SECOND) for k in range(3, 200)),
    ]
    blocks = published(Scripted(lossy))
    assert [b.dropped for b in blocks if b.dropped] == [7, 3]
    (found,) = rows(blocks, detector())
    assert found[0] == 2
    assert found[1] & FLAG_DROPPED


def test_what_came_before_the_interface_was_lost_is_published() -> None:
    source = Scripted([frames_of(udp([T0], [1])), CaptureLostError("eth1: gone")])
    bus = MemoryBus(1, 10)
    publisher = Publisher(live_sensor(Config(), 4096), bus)
    with pytest.raises(CaptureLostError):
        publish_live(source, publisher, clock=lambda: source.time)
    assert [len(wire.decode(m.value)) for m in bus.poll(0.0) or []] == [1, 0]


def test_two_starts_are_two_runs() -> None:
    first, second = (live_sensor(Config(), 4096).epoch for _ in range(2))
    assert first < second
    assert live_sensor(parse({"sensor": {"epoch": 5}}, "test"), 4096).epoch == 5


def test_addresses_are_hidden_where_a_key_is_given(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("00112233445566778899aabbccddeeff" * 2 + "\n")
    config = parse({"privacy": {"pseudonym_key": {"file": str(tmp_path / "key")}}}, "test")
    plain = udp([T0, T0 + 1, T0 + 2], [1, 2, 1])
    (shown,), (hidden,) = (
        [b for b in published(Scripted([frames_of(plain)]), c) if len(b)] for c in (Config(), config)
    )
    assert not set(shown.packets.src_lo.tolist()) & set(hidden.packets.src_lo.tolist())
    assert len(set(hidden.packets.src_lo.tolist())) == len(set(shown.packets.src_lo.tolist())) == 1
    assert hidden.packets.src_lo[0] != hidden.packets.dst_lo[0]
    assert np.array_equal(shown.packets.size, hidden.packets.size)


@pytest.mark.parametrize(
    ("text", "said"), [("short", "privacy.pseudonym_key: "), (None, "privacy.pseudonym_key: .*No such file")]
)
def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    config = parse({"privacy": {"pseudonym_key": {"file": str(tmp_path / "key")}}}, "test")
    with pytest.raises(ConfigError, match=said) as error:
        live_sensor(config, 4096)
    assert "short" not in str(error.value)


@pytest.mark.parametrize("step", [-7200, 7200])
def test_a_clock_that_is_set_disturbs_no_connection(step: int) -> None:
    """A talk that goes on over the step is one connection, and ends when it is quiet."""
    machine = Machine()
    clock = steps(machine)
    blocks: list[FrameBlock | BaseException] = []
    for k in range(200):
        machine.go(SECOND)
        if k == 20:
            machine.day += step * SECOND
        if k < 40:
            frames = frames_of(udp([machine.day], [1]))
            blocks.append(replace(frames, ts=clock.corrected(frames.ts)))
        else:
            blocks.append(replace(SILENCE, now=clock.now()))
    assert [n for n, _ in rows(published(Scripted(blocks)), detector())] == [40]


def test_an_interface_or_a_filter_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="eth77: no such interface; choose one of"):
        open_source("eth77", CaptureSettings(), lambda _: None)
    with pytest.raises(ConfigError, match=r"capture\.filter 'ip and': "):
        open_source("lo", CaptureSettings(filter="ip and"), lambda _: None)
