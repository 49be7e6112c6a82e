"""Packets of twins stand at the same place when the same thing happens."""

from __future__ import annotations

import numpy as np
import pytest

from probing.trace.align import aligned, by_bytes, by_time
from tests.support.traced import PACKETS, marks, traced


def test_by_time_the_first_packet_stands_at_the_beginning_and_the_last_at_the_end() -> None:
    axis = by_time([traced(marks=marks((-5, "connect"), (25, "request")))])
    assert axis.places[0] == pytest.approx([0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 1])
    assert axis.spans[0] == [pytest.approx(0.1)]
    assert [tuple(band) for band in axis.bands[0]] == [(0, 0.25, "connect"), (0.25, 1, "request")]


def test_each_phase_has_the_same_width_in_all_twins() -> None:
    quick = [(0, 74, 0, "new"), (5, 166, 100, "new"), (10, 66, 0, "new")]
    slow = [(0, 74, 0, "new"), (40, 166, 100, "new"), (70, 166, 100, "duplicate"), (100, 66, 0, "new")]
    axis = aligned([
        traced(quick, marks=marks((0, "connect"), (5, "request"))),
        traced(slow, marks=marks((0, "connect"), (40, "request"))),
    ])  # fmt: skip
    assert axis.kind == "phase"
    assert axis.places[0] == pytest.approx([0, 0.5, 1])
    assert axis.places[1] == pytest.approx([0, 0.5, 0.75, 1])
    assert axis.spans == [
        [pytest.approx(0.005), pytest.approx(0.005)],
        [pytest.approx(0.04), pytest.approx(0.06)],
    ]
    assert "2 phases, each stretched to the same width" in axis.note


def test_packets_before_the_first_phase_and_after_the_last_common_one_have_parts_of_their_own() -> None:
    axis = aligned([
        traced(marks=marks((20, "request"), (60, "transfer"))),
        traced(marks=marks((20, "request"), (60, "injection"))),
    ])  # fmt: skip
    assert [band.name for band in axis.bands[0]] == ["before", "request", "after"]
    assert axis.places[0] == pytest.approx(np.array([0, 0.5, 1, 1.25, 2, 2.25, 2.5, 3]) / 3)
    assert "phases differ after the first 1" in axis.note


def test_a_phase_that_lasts_no_time_keeps_its_width() -> None:
    """What comes with the beginning of the next is of the next."""
    rows = [*PACKETS[:4], (50, 66, 0, "new"), *PACKETS[4:]]
    axis = aligned([traced(rows, marks=marks((0, "a"), (50, "b"), (50, "c"))) for _ in range(2)])
    assert axis.places[0] == pytest.approx(
        [0, 2 / 30, 4 / 30, 0.2, *(2 / 3 + np.array([0, 1, 2, 3, 5]) / 15)]
    )


def test_without_common_phases_packets_stand_by_the_share_of_bytes_and_that_is_said() -> None:
    axis = aligned([traced(), traced(marks=marks((0, "connect")))])
    assert axis.kind == "bytes"
    assert "no common phases; aligned by the share of payload bytes" in axis.note


def test_bytes_sent_again_do_not_count() -> None:
    """3 packets before a byte; half of the bytes (the originator's all); the other half; nothing after."""
    (places,) = by_bytes([traced()]).places
    assert places[:3] == pytest.approx([0, 0.5 / 3, 1 / 3])  # up to .05 + .9 / 2, where the next stands
    assert places[3] == pytest.approx(0.5)
    assert places[4:] == pytest.approx([0.95, 0.9625, 0.975, 0.9875])


def test_twins_that_bring_the_same_bytes_are_at_the_same_places_whatever_was_sent_again() -> None:
    clean = [(0, 74, 0, "new"), (30, 166, 100, "new"), (60, -1514, 1448, "new"), (90, -1514, 1448, "new")]
    lossy = [*clean[:3], (80, -1514, 1448, "spurious"), clean[3]]
    one, other = by_bytes([traced(clean), traced(lossy)]).places
    assert one[[0, 1, 2, 3]] == pytest.approx(other[[0, 1, 2, 4]])
    assert other[2] < other[3] < other[4]


def test_a_connection_without_payload_is_spread_evenly() -> None:
    (places,) = by_bytes([traced([(0, 74, 0, "new"), (1, -60, 0, "new")])]).places
    assert places == pytest.approx([0.25, 0.75])
