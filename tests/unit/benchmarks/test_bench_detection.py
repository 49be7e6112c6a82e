"""The small case, through every evaluation, gives the answers that are known; what is absent is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_detection
from benchmarks.bench_detection import main, rounded, write
from benchmarks.detection import sources
from benchmarks.detection.cases import Bench
from benchmarks.detection.text import TABLES, text
from benchmarks.tables import filled
from probing.analysis.roc import Bootstrap

pytestmark = pytest.mark.compiled
ROOT = Path(__file__).parents[3]

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    path = tmp_path_factory.mktemp("figures") / "quick.json"
    given = main(["--quick", "--rounds", "200", "--json", str(path)])
    assert json.loads(path.read_text()) == json.loads(json.dumps(given))
    return given


def rows(document: Document, evaluation: str, **wanted: Any) -> list[Document]:
    """Rows with these values."""
    found = [r for r in document["rows"][evaluation] if all(r[k] == v for k, v in wanted.items())]
    assert found, (evaluation, wanted)
    return found


def test_a_scorer_that_knows_the_infected_host_has_area_one_and_finds_it_all(document: Document) -> None:
    for r in rows(document, "within", detector="merged", against="infected host against others at the time"):
        assert r["area"] == [1.0, 1.0, 1.0]
        assert r["found"][0] == 1.0
        assert r["false"][0] == 0.0


def test_the_label_of_a_phase_counts_the_devices_that_did_nothing(document: Document) -> None:
    (r,) = rows(document, "within", detector="merged", level="packets",
                against="phase label: all in the attack phase against all before")  # fmt: skip
    (inside,) = rows(document, "within", detector="merged", level="packets",
                     against="infected host against others at the time")  # fmt: skip
    share = inside["positives"] / r["positives"]
    assert r["area"][0] == pytest.approx(0.5 + share / 2, abs=1e-3)


def test_others_at_the_time_are_neither_the_infected_host_nor_those_it_speaks_to(document: Document) -> None:
    for level in ("packets", "connections"):
        of = {r["against"]: r for r in rows(document, "within", detector="merged", level=level)}
        inside, phase, ordinary = (
            next(r for k, r in of.items() if k.startswith(b)) for b in ("inf", "pha", "ord")
        )
        assert inside["negatives"] == ordinary["positives"] > 0
        assert phase["negatives"] == ordinary["negatives"] == (1800 if level == "packets" else 300)
        said = inside["positives"] + inside["negatives"]
        assert said == phase["positives"] if level == "connections" else said < phase["positives"]


def test_what_finds_whatever_is_new_cannot_tell_attacks_from_controls(document: Document) -> None:
    for source in ("all attacks", "all controls"):
        for r in rows(document, "merged", detector="merged", source=source, against="base"):
            assert r["area"] == [1.0, 1.0, 1.0]
    for r in rows(document, "merged", detector="merged", source="all attacks", against="controls"):
        assert r["area"] == [0.5, 0.5, 0.5]


def test_chance_has_area_one_half_by_packet_within_its_interval(document: Document) -> None:
    for evaluation in ("within", "merged"):
        for r in rows(document, evaluation, detector="chance", level="packets"):
            low, high = r["area"][1:]
            assert low - 0.01 < 0.5 < high + 0.01  # of eight intervals one may miss by a little
            assert high - low < 0.12


def test_chance_by_connection_shows_what_the_number_of_packets_does(document: Document) -> None:
    (r,) = rows(document, "merged", detector="chance", level="connections", source="flood", against="base")
    assert r["area"][2] < 0.2  # a flood's connections have one packet, others six


def test_a_flood_is_found_by_all_that_look(document: Document) -> None:
    for name in ("Kitsune", "Kitsune, empty streams", "baseline", "best single feature"):
        for r in rows(document, "merged", detector=name, source="all attacks", level="packets"):
            assert r["area"][0] > 0.99, (name, r["against"])


def test_rates_that_the_negatives_are_too_few_for_are_dashes(document: Document) -> None:
    for evaluation in ("within", "merged"):
        for r in document["rows"][evaluation]:
            for rate in (0.01, 0.001, 0.0001):
                assert (r[f"at_{rate:g}"] is None) == (r["negatives"] * rate < 10)
    assert "–" in text(document)


def test_a_pause_is_no_alarm_for_a_scorer_that_knows_no_time(document: Document) -> None:
    (r,) = rows(document, "pauses", detector="merged", pause=3600)
    assert r["alarmed"] == [0]
    assert {r["connections"] for r in rows(document, "pauses", pause=0)} == {300}


def test_every_detector_has_every_row(document: Document) -> None:
    names = {r["detector"] for r in document["rows"]["merged"]}
    assert names == {
        "Kitsune", "Kitsune, empty streams", "baseline", "merged", "chance", "best single feature",
    }  # fmt: skip
    counts = [len(rows(document, "merged", detector=name)) for name in names]
    assert len(set(counts)) == 1
    assert all("feature" in r for r in rows(document, "within", detector="best single feature"))


def test_without_captures_their_evaluations_are_skipped_and_said_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "CAPTURES", tmp_path)
    told = list(bench_detection.evaluations(Bench([], (1,), Bootstrap(rounds=2))))
    skipped = [name for name, _, why in told if why]
    assert skipped == ["within", *["merged"] * 3, "pauses"]
    assert all("in WIRESONDE_CAPTURES" in why for _, _, why in told if why)
    assert [name for name, _, why in told if not why] == ["pauses", "pauses", "corpora"]


def test_numbers_are_written_with_four_digits_and_a_row_a_line(tmp_path: Path) -> None:
    given = rounded({"a": 1.23456789, "b": (0.000123456, 7), "rows": {"x": [{"v": 2.0}, {"v": None}]}})
    write(given, tmp_path / "x.json")
    again = json.loads((tmp_path / "x.json").read_text())
    assert again == {"a": 1.235, "b": [0.0001235, 7], "rows": {"x": [{"v": 2.0}, {"v": None}]}}
    assert len(re.findall(r'^  \{"v"', (tmp_path / "x.json").read_text(), re.MULTILINE)) == 2


def test_the_page_is_what_the_figures_give() -> None:
    page = (ROOT / "docs" / "detection.md").read_text()
    document = json.loads((ROOT / "docs" / "figures" / "bench_detection.json").read_text())
    for name, make in TABLES.items():
        assert filled(page, name, make(document)) == page, f"{name}: run python -m benchmarks.tables"
