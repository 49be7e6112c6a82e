"""What is counted of messages and of detectors' state, and what becomes of messages that hold no block."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from connectors.bus import codec
from connectors.bus.memory import MemoryBus, Message
from connectors.prometheus import registry_of
from engine import wire
from engine.consumer.intake import DeadLetter, Intake
from engine.consumer.outlet import Outlet
from engine.consumer.worker import Worker
from engine.errors import StateError
from engine.labels.rules import NO_PROBES
from engine.labels.slices import Slices
from engine.metrics import REASONS, Metrics
from engine.scoring.detector import Detector
from engine.types import Kind, PacketBlock, Packets, Reason
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.detectors import detector
from tests.support.streams import stream


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample that /metrics shows, by name and values of labels; wiresonde_ and _total left off."""
    text = generate_latest(registry_of(metrics.collector)).decode()
    return {
        (s.name.removeprefix("wiresonde_").removesuffix("_total"), *s.labels.values()): s.value
        for family in parse(text)
        for s in family.samples
    }


def message(p: Packets, seq: int = 0, sensor: str = "s", dropped: int = 0) -> bytes:
    """A block as it lies on the bus."""
    return wire.encode(PacketBlock(sensor, 0, seq, p, int(p.ts.max()), dropped, dropped > 0))


def of_a_newer_format(monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as newer:
        newer.setattr(codec, "FORMAT", 99)
        return message(udp([T0], [1]))


def worked(
    messages: Sequence[tuple[int, bytes]],
    detectors: Sequence[Detector],
    dead_letter: DeadLetter | None = None,
) -> dict[tuple[str, ...], float]:
    """What /metrics shows once a worker has processed messages (partition, bytes)."""
    bus, metrics = MemoryBus(len(detectors), 100), Metrics()
    for partition, value in messages:
        bus.publish(partition, value)
    bus.end()
    outlet = Outlet([], metrics, NO_PROBES, Slices())
    Worker(bus, detectors, Intake(metrics, dead_letter), outlet).run()
    return scraped(metrics)


def measured(
    messages: Sequence[tuple[int, bytes]], detectors: Sequence[Detector]
) -> dict[tuple[str, ...], float]:
    """What /metrics shows while connections are still open."""
    metrics = Metrics()
    intake = Intake(metrics)
    for one in detectors:
        intake.adopt(one)
    for offset, (partition, value) in enumerate(messages):
        intake.take(Message(partition, offset, value))
    intake.measure()
    return scraped(metrics)


def test_packets_that_could_not_be_read_are_counted_by_reason() -> None:
    p = udp([T0 + k for k in range(6)], range(6))
    p.reason[:] = [
        Reason.OK,
        Reason.IP_TRUNCATED,
        Reason.ENCAPSULATION,
        Reason.IP_TRUNCATED,
        Reason.OK,
        Reason.OK,
    ]
    got = worked(
        [(0, message(p)), (1, message(p)), (0, message(udp([T0 + 9], [1]), 6))], [detector(0), detector(1)]
    )
    counts = {name: got["unread_packets", name] for name in REASONS}
    assert {name: n for name, n in counts.items() if n} == {"ip_truncated": 4, "encapsulation": 2}


def test_packets_and_blocks_are_counted_by_sensor() -> None:
    p = udp([T0 + k for k in range(6)], range(6))
    got = worked([(0, message(p)), (0, message(p, sensor="t")), (0, message(p, 6))], [detector()])
    assert (got["packets", "s"], got["blocks", "s"]) == (12, 2)
    assert (got["packets", "t"], got["blocks", "t"]) == (6, 1)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "nowhere to put it"])
def test_a_message_that_holds_no_block_is_counted_put_away_with_the_reason_and_passed_over(
    kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    p = udp([T0 + k for k in range(6)], range(6))
    dead: list[tuple[Message, str]] = []
    messages = [(1, message(p)), (1, b"garbage"), (1, message(p, 6)), (0, message(p)[:-40])]
    with caplog.at_level(logging.WARNING, "engine.consumer.intake"):
        got = worked(
            messages, [detector(0), detector(1)], (lambda m, why: dead.append((m, why))) if kept else None
        )
    assert got["unreadable_messages",] == 2
    assert got["packets", "s"] == 12
    assert got["lost_packets",] == 0
    said = sorted(record.message for record in caplog.records)
    assert [line.split(" error=")[0] for line in said] == [
        "message skipped: partition=0 offset=0", "message skipped: partition=1 offset=1",
    ]  # fmt: skip
    if kept:
        dead.sort(key=lambda one: one[0].partition)
        assert [m for m, _ in dead] == [Message(0, 0, messages[3][1]), Message(1, 1, b"garbage")]
        assert [line.split(" error=")[1] for line in said] == [why for _, why in dead]
        assert "not a wiresonde message" in dead[1][1]


def test_a_message_of_a_newer_format_stops_the_worker_and_names_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = of_a_newer_format(monkeypatch)
    dead: list[str] = []
    messages = [(1, message(udp([T0], [1]))), (1, newer)]
    with pytest.raises(
        StateError, match=r"^partition=1 offset=1: message format 99; this version reads up to 2; "
    ):
        worked(messages, [detector(0), detector(1)], lambda _, why: dead.append(why))
    assert dead == []


def test_packets_lost_repeated_and_dropped_are_counted() -> None:
    p = udp([T0 + k for k in range(6)], range(6))
    messages = [
        (0, message(p)), (0, message(p, 10, dropped=3)), (0, message(p, 12)),  # 4 missing, 4 again
        (1, message(p, 5)), (1, message(p, 13, dropped=4)), (1, message(p, sensor="t", dropped=2)),
    ]  # fmt: skip
    got = worked(messages, [detector(0), detector(1)])
    assert got["lost_packets",] == 4 + 2
    assert got["repeated_packets",] == 4
    assert got["dropped_packets", "s", "sensor"] == 7
    assert got["dropped_packets", "t", "sensor"] == 2


def test_what_a_block_says_is_counted_once_also_when_it_comes_again() -> None:
    p = udp([T0 + k for k in range(6)], range(6))
    p.reason[0] = Reason.IP_TRUNCATED
    block = message(p, dropped=3)
    one = detector()
    got = worked([(0, block), (0, block)], [one])
    assert (one.dropped, one.unread["ip_truncated"]) == (3, 1)
    assert (got["dropped_packets", "s", "sensor"], got["unread_packets", "ip_truncated"]) == (3, 1)


def test_live_opened_and_evicted_connections_and_late_packets_are_those_of_all_partitions() -> None:
    first = udp([T0 + k for k in range(10)], range(10))  # 10 flows, of which the table holds 4
    second = udp([T0, T0 + 2, T0 + 1, T0 + 3, T0 + 2], [1, 2, 1, 2, 3])  # 3 flows, 2 packets late
    detectors = [detector(0, capacity=4), detector(1)]
    got = measured([(0, message(first)), (1, message(second))], detectors)
    assert got["live_connections",] == 4 + 3
    assert got["opened_connections",] == 10 + 3
    assert got["evicted_connections",] == 6
    assert got["late_packets",] == 2
    after = worked([(0, message(first)), (1, message(second))], [detector(0, capacity=4), detector(1)])
    assert (after["live_connections",], after["opened_connections",]) == (0, 10 + 3)


def test_what_a_detector_counted_elsewhere_is_not_counted_here_and_what_it_counted_here_stays() -> None:
    block = message(udp([T0 + k for k in range(10)], range(10)))
    metrics, known, other = Metrics(), detector(0, capacity=4), detector(1)
    known.process(wire.decode(block))  # in another process, say
    intake = Intake(metrics)
    intake.adopt(known)
    intake.adopt(other)
    intake.measure()
    before = scraped(metrics)
    assert (before["opened_connections",], before["evicted_connections",], before["live_connections",]) == (
        0,
        0,
        4,
    )
    intake.take(Message(0, 1, message(udp([T0 + 20, T0 + 15], [100, 101]), 13)))
    intake.take(Message(1, 0, block))
    for partition in (0, 1, 2):  # the last never was here
        intake.drop(partition)
    intake.measure()
    got = scraped(metrics)
    assert (got["opened_connections",], got["evicted_connections",]) == (2 + 10, 2)
    assert (got["lost_packets",], got["late_packets",], got["live_connections",]) == (3, 1, 0)


def test_flows_that_the_feature_tables_evict_are_counted_by_model() -> None:
    p = udp([T0 + k for k in range(40)], range(40))
    got = measured([(0, message(p)), (1, message(p))], [detector(0, flows=16), detector(1)])
    assert got["evicted_flows", "kitsune"] == 40 - 16


def test_each_phase_counts_the_partitions_in_which_the_model_is_in_it() -> None:
    p = udp([T0 + k for k in range(12)], range(12))
    detectors = [detector(0), detector(1), detector(2, mapping=10)]
    got = measured([(k, message(p)) for k in range(3)], detectors)
    phases = ("map", "learn", "calibrate", "score")
    assert [got["phase", "kitsune", phase, "learning"] for phase in phases] == [2, 1, 0, 0]
    assert np.isnan(got["threshold", "kitsune", "learning"])


@pytest.mark.compiled
def test_inputs_out_of_range_are_added_up_and_phases_and_thresholds_are_by_version() -> None:
    p = stream(1, 400, ordered=True)
    p.size[200:] *= 40  # larger than anything learned from
    other = p._replace(size=p.size[::-1].copy())
    detectors = [detector(0, mapping=50), detector(1, mapping=50), detector(2)]
    got = measured([(0, message(p)), (1, message(other)), (2, message(p))], detectors)
    scorers = [d.scorers[0] for d in detectors]
    assert got["phase", "kitsune", "map", "learning"] == 1
    assert scorers[0].threshold_value != scorers[1].threshold_value
    for scorer in scorers[:2]:  # each has learned something else, and is a version of its own
        assert got["phase", "kitsune", "score", scorer.version] == 1
        assert got["threshold", "kitsune", scorer.version] == scorer.threshold_value
    outside = [s.model.counters()["out_of_range"] for s in scorers]
    assert outside[0] > 0
    assert outside[0] != outside[1]
    assert got["out_of_range_inputs", "kitsune"] == sum(outside)


def test_frames_that_are_not_ip_are_counted_as_packets_and_open_nothing() -> None:
    p = udp([T0, T0 + 1], [1, 2])
    p.kind[:] = [Kind.ARP, Kind.UNREAD]
    got = measured([(0, message(p))], [detector()])
    assert (got["packets", "s"], got["opened_connections",]) == (2, 0)
