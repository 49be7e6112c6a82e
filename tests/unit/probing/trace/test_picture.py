"""The picture is XML of bounded size with the same bytes each time, and shows what there is."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from engine.connections.layout import Segment
from probing.trace.align import by_time
from probing.trace.connection import TracedConnection
from probing.trace.picture import CLASS, LEFT, MODEL, PACKETS, PLOT, RECOVERY, UNDELIVERED, draw
from probing.trace.scale import Scale
from probing.trace.svg import number
from tests.support.traced import marks, traced

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*connections: TracedConnection) -> ElementTree.Element:
    """The picture, parsed."""
    return ElementTree.fromstring(draw(connections, by_time(connections)))


def paths(picture: ElementTree.Element, colour: str) -> list[str]:
    """The paths of a colour."""
    return [p.attrib["d"] for p in picture.iter(f"{SVG}path") if p.attrib["stroke"] == colour]


def words(picture: ElementTree.Element) -> list[str]:
    return [t.text or "" for t in picture.iter(f"{SVG}text")]


def test_the_same_connections_give_the_same_bytes() -> None:
    one = [traced(marks=marks((0, "connect"))), traced()]
    assert draw(one, by_time(one)) == draw(one, by_time(one))


def test_bars_stand_at_their_time_up_from_the_originator_down_from_the_responder() -> None:
    picture = drawn(traced())
    (ack,), (duplicate,) = paths(picture, CLASS["ack"]), paths(picture, CLASS["duplicate"])
    bars = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", ack)
    assert [float(bar[0]) for bar in bars] == pytest.approx([LEFT + PLOT * 0.2, LEFT + PLOT * 0.8], abs=0.01)
    assert all(float(tip) < float(middle) for _, middle, tip in bars)
    ((x, middle, tip),) = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", duplicate)
    assert float(x) == pytest.approx(LEFT + PLOT * 0.7, abs=0.01)
    assert float(tip) - float(middle) == pytest.approx(PACKETS / 2)  # the largest packet fills its half


def test_the_line_of_a_model_leaves_out_packets_without_a_score() -> None:
    line, dots = paths(drawn(traced()), MODEL[0])
    assert line.count("L") + 1 == dots.count("M") == 6  # of 8 packets, 2 of them ACKs


def test_a_model_without_any_score_is_in_the_legend_only() -> None:
    picture = drawn(traced(scores={"m": np.full(8, np.nan)}, thresholds={"m": np.nan}))
    assert paths(picture, MODEL[0]) == []
    assert "m: score" in words(picture)
    assert "threshold" not in words(picture)


def test_recovery_is_shaded_to_the_packet_after_it() -> None:
    picture = drawn(traced(recovery=np.array([0, 0, 0, 0, 1, 1, 0, 0], bool)))
    boxes = [
        b.attrib
        for b in picture.iter(f"{SVG}rect")
        if b.attrib["fill"] == RECOVERY and "fill-opacity" in b.attrib
    ]
    assert len(boxes) == 1
    assert float(boxes[0]["x"]) == pytest.approx(LEFT + PLOT * 0.6, abs=0.01)
    assert float(boxes[0]["width"]) == pytest.approx(PLOT * 0.2, abs=0.01)
    assert "recovery episode" in words(picture)
    assert "recovery episode" not in words(drawn(traced()))


def test_packets_that_the_link_did_not_deliver_are_crossed() -> None:
    verdict = ["sent", "lost", "sent overtaken", "codel", *["sent"] * 4]
    *_, crosses = paths(drawn(traced(verdict=verdict)), UNDELIVERED)
    assert crosses.count("M") == 4  # two strokes each
    assert paths(drawn(traced()), UNDELIVERED) == []


def test_the_legend_names_the_classes_there_are() -> None:
    said = words(drawn(traced()))
    assert {"ack", "new", "duplicate"} <= set(said)
    assert "spurious" not in said
    assert {segment.name.lower() for segment in Segment} == set(CLASS)


def test_words_from_files_stay_words() -> None:
    one = traced(labels={"<b>&": "\x1b[31m"}, marks=marks((0, "</svg>")), capture='"><script>')
    said = words(drawn(one))
    assert any("<b>&=\N{REPLACEMENT CHARACTER}[31m" in text and '"><script>' in text for text in said)
    assert "</svg>" in said


def test_a_long_connection_makes_no_larger_picture() -> None:
    rng = np.random.default_rng(1)
    rows = [(t / 100, int(s), 0, "new") for t, s in enumerate(rng.integers(54, 1514, 100_000))]
    assert len(draw([traced(rows)], by_time([traced(rows)]))) < 400_000


def test_of_bars_at_one_place_the_longest_is_drawn_and_of_scores_the_extremes() -> None:
    rows = [
        (0.0, 60, 0, "new"),
        *[(50 + k / 1e6, 60 + k, 0, "new") for k in range(50)],
        (100.0, 60, 0, "new"),
    ]
    within = np.full(50, 0.5)
    within[10], within[20] = 0.2, 0.9
    picture = drawn(traced(rows, scores={"m": np.array([0.0, *within, 0.0])}))
    bars = re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", paths(picture, CLASS["new"])[0])
    assert len(bars) == 3
    assert float(bars[1][0]) - float(bars[1][1]) == pytest.approx(PACKETS / 2)
    assert paths(picture, MODEL[0])[0].count("L") == 5  # the first, lowest, highest and last of those


def test_scores_up_to_one_are_drawn_as_they_are() -> None:
    one = traced()
    scale = Scale.of([one])
    assert scale.name == "score"
    assert scale.heights(one, "m")[[0, 1, 3]] == pytest.approx([0, 0.1, 0.3])
    assert scale.threshold(one, "m") == 0.35
    assert scale.threshold(traced(thresholds={"m": 1.5}), "m") is None


@pytest.mark.parametrize(
    ("greatest", "height", "of_threshold"), [(4.0, 2 / 2.2, 1 / 2.2), (200.0, 100 / 101, 0.5)]
)
def test_other_scores_are_multiples_of_their_thresholds(
    greatest: float, height: float, of_threshold: float
) -> None:
    one = traced(scores={"m": np.array([*[0.0] * 7, greatest])}, thresholds={"m": 2.0})
    scale = Scale.of([one])
    assert scale.name == "score / threshold"
    assert scale.heights(one, "m")[-1] == pytest.approx(height)
    assert scale.threshold(one, "m") == pytest.approx(of_threshold)


def test_a_model_without_a_threshold_is_drawn_by_its_greatest_score() -> None:
    one = traced(scores={"m": np.array([*[0.0] * 7, 50.0])}, thresholds={"m": np.nan})
    assert Scale.of([one]).heights(one, "m")[-1] == pytest.approx(1 / 1.1)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-0.001, "0"), (1.5, "1.5"), (-2.256, "-2.26"), (100, "100")]
)
def test_coordinates_are_short(value: float, text: str) -> None:
    assert number(value) == text
