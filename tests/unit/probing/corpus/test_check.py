"""The check of a corpus names what was planted, and nothing in a clean one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from probing.corpus.check import Settings, check
from probing.corpus.corpus import read_corpus
from probing.corpus.findings import Finding, Report
from probing.corpus.labelled import of_corpus
from tests.support.small_corpus import ATTACK, Entry, clean, entries, write


def checked(folder: Path, made: list[Entry], settings: Settings | None = None) -> Report:
    return check(of_corpus(read_corpus(write(folder, made))), settings or Settings())


def faults(report: Report) -> list[tuple[str, str]]:
    """Kind and subject of each fault."""
    return [(finding.kind, finding.about) for finding in report.faults()]


def only(report: Report) -> Finding:
    (finding,) = report.faults()
    return finding


def giveaway(report: Report) -> Finding:
    (finding,) = (f for f in report.findings if f.kind == "giveaway")
    return finding


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_corpus_passes(seed: int, tmp_path: Path) -> None:
    report = checked(tmp_path, clean(seed=seed))
    assert faults(report) == []
    assert report.outcome == "passed"


def test_a_clean_corpus_of_too_few_runs_is_too_few_to_tell(tmp_path: Path) -> None:
    report = checked(tmp_path, clean(runs=4))
    assert report.outcome == "too few to tell"
    assert giveaway(report).says == "attack connections: 20, runs: 4; needed: 20 in 5 runs"


def test_few_connections_of_many_runs_are_too_few_to_tell(tmp_path: Path) -> None:
    report = checked(tmp_path, clean(runs=9, each=2))
    assert giveaway(report).says == "attack connections: 18, runs: 9; needed: 20 in 5 runs"


def test_a_perfect_giveaway_of_too_few_runs_is_too_few_to_tell(tmp_path: Path) -> None:
    made = [(replace(e, ttl=63) if row.get("attack") else e, row) for e, row in clean(runs=4)]
    assert checked(tmp_path, made).outcome == "too few to tell"


@pytest.mark.parametrize("ttl", [63, 128])
def test_a_ttl_of_attackers_is_named(ttl: int, tmp_path: Path) -> None:
    made = [(replace(e, ttl=ttl) if row.get("attack") else e, row) for e, row in clean()]
    found = only(checked(tmp_path, made))
    assert (found.kind, found.about) == ("giveaway", "injection/union")
    assert found.says.startswith("TTL of the first packet up: AUC 1.000, at least 1.000")


def test_a_ttl_between_those_of_others_is_named(tmp_path: Path) -> None:
    made = [
        (replace(e, ttl=90 if row.get("attack") else 64 if k % 2 else 128), row)
        for k, (e, row) in enumerate(clean())
    ]
    assert only(checked(tmp_path, made)).says.startswith("TTL of the first packet up is 90: AUC 1.000")


def test_a_size_of_an_attacks_first_packet_is_named(tmp_path: Path) -> None:
    made = clean()
    for exchange, row in made:
        if row.get("attack"):
            exchange.payloads[0] = 1440
    found = only(checked(tmp_path, made))
    assert found.kind == "giveaway"
    assert "payload up: AUC 1.000" in found.says


@pytest.mark.compiled
def test_a_giveaway_of_nearly_all_attacks_is_named_and_of_half_of_them_is_not(tmp_path: Path) -> None:
    for every, wanted in ((400, ["giveaway"]), (2, [])):
        made = clean(runs=40, each=10)
        attacks = [exchange for exchange, row in made if row.get("attack")]
        for k, exchange in enumerate(attacks):
            exchange.ttl = 64 if k % every == 0 else 63
        report = checked(tmp_path, made)
        assert [kind for kind, _ in faults(report)] == wanted


def test_attacks_that_failed_are_counted_and_not_judged(tmp_path: Path) -> None:
    made = [(replace(e, ttl=63) if row.get("attack") else e, row) for e, row in clean()]
    extra = entries(10, 5, first=20, **ATTACK)
    made = [(e, row | {"succeeded": False}) if row.get("attack") else (e, row) for e, row in made] + extra
    report = checked(tmp_path, made)
    assert faults(report) == []
    assert (giveaway(report).values["attacks"], giveaway(report).values["failed"]) == (50, 50)


def test_connections_to_another_server_are_no_neighbours(tmp_path: Path) -> None:
    made = clean()
    made += [(replace(e, ttl=200), row | {"server_impl": "apache"}) for e, row in entries(10, 9, first=30)]
    report = checked(tmp_path, made)
    assert faults(report) == []
    assert giveaway(report).values["neighbours"] == 50


def test_an_attack_on_a_server_without_visitors_is_compared_at_its_port(tmp_path: Path) -> None:
    made = [(e, row | {"server_impl": "shop"} if row.get("attack") else row) for e, row in clean()]
    values = giveaway(checked(tmp_path, made)).values
    assert (values["of"], values["neighbours"]) == ("the same port", 50)


def test_an_attack_in_one_run_is_named(tmp_path: Path) -> None:
    alone = [(e, row | {"activity": "blind"}) for e, row in entries(1, 3, first=50, **ATTACK)]
    report = checked(tmp_path, clean() + alone)
    assert faults(report) == [("single run", "injection/blind")]


def test_a_circumstance_that_goes_with_the_attack_is_named_as_alias_and_for_the_attack(
    tmp_path: Path,
) -> None:
    made = [(e, row | {"loss_pct": 3.0 if row.get("attack") else 0.0}) for e, row in clean()]
    report = checked(tmp_path, made)
    assert faults(report) == [("circumstance", "injection/union"), ("alias", "corpus")]
    (alias,) = (names for names in report.aliases if "loss_pct" in names)
    assert {"attack", "attack_kind"} <= set(alias)


def test_a_circumstance_of_several_values_that_goes_with_the_attack_is_named(tmp_path: Path) -> None:
    made = [(e, row | {"users": len(row["run"]) + int(row["run"][2]) % 2 + 5 * row.get("attack", 0)})
            for e, row in clean()]  # fmt: skip
    report = checked(tmp_path, made)
    assert faults(report) == [("circumstance", "injection/union")]
    assert report.faults()[0].values["labels"] == ["users"]


def test_a_circumstance_of_too_few_runs_is_not_judged(tmp_path: Path) -> None:
    made = [
        (e, row | {"users": 1 + int(row["run"][2]) % 2 + 5 * row.get("attack", 0)})
        for e, row in clean(runs=4)
    ]
    report = checked(tmp_path, made)
    assert report.outcome == "too few to tell"
    assert not any(f.kind == "circumstance" for f in report.findings)


def test_labels_that_go_together_without_the_attack_are_reported_and_no_fault(tmp_path: Path) -> None:
    made = []
    for e, row in clean():
        odd = int(row["run"][2]) % 2
        made.append((e, row | {"cache": "warm" if odd else "cold", "load": "hogs-3" if odd else "none"}))
    report = checked(tmp_path, made)
    assert ("cache", "load") in report.aliases
    assert faults(report) == []


def parts_file(folder: Path, made: list[Entry], test: set[str]) -> Path:
    runs = sorted({row["run"] for _, row in made})
    lines = [f"{run},{'test' if run in test else 'train'}" for run in runs]
    (folder / "parts.csv").write_text("\n".join(["run,part", *lines]) + "\n")
    return folder / "parts.csv"


TWO_OF_TEN = {"000-run", "001-run", "010-run", "011-run"}  # a fifth of the attacking runs, and of the others


def test_a_torn_pair_of_twins_is_named(tmp_path: Path) -> None:
    made = clean()
    for _, row in made:
        if row["run"] in ("001-run", "002-run"):
            row["pair"] = f"twins-{row['sample']}"
    assert faults(checked(tmp_path, made)) == []
    report = checked(tmp_path, made, Settings(parts=parts_file(tmp_path, made, TWO_OF_TEN)))
    assert only(report).says == "twins 'twins-0' are in test and train (and 4 more)"


def test_near_duplicates_across_parts_are_named_and_within_a_part_are_not(tmp_path: Path) -> None:
    made = clean()
    source = {row["sample"]: e for e, row in made if row["run"] == "002-run"}
    for e, row in made:
        if row["run"] in ("001-run", "003-run"):
            e.payloads = list(source[row["sample"]].payloads)
    inside = checked(
        tmp_path, made, Settings(parts=parts_file(tmp_path, made, {*TWO_OF_TEN, "002-run", "003-run"}))
    )
    assert faults(inside) == []
    across = only(checked(tmp_path, made, Settings(parts=parts_file(tmp_path, made, TWO_OF_TEN))))
    assert (across.kind, across.about) == ("near-duplicates", "injection/union")
    assert across.values["copies"] == 15
    loose = checked(tmp_path, made, Settings(parts=parts_file(tmp_path, made, TWO_OF_TEN), most_copies=0.5))
    assert faults(loose) == []


def test_short_connections_may_repeat(tmp_path: Path) -> None:
    made = clean()
    for e, _ in made:
        e.payloads = [200, -500]
    kinds = {f.kind for f in checked(tmp_path, made).findings if f.outcome == "fault"}
    assert "near-duplicates" not in kinds


def test_a_part_without_attacks_is_named(tmp_path: Path) -> None:
    made = clean()
    report = checked(tmp_path, made, Settings(parts=parts_file(tmp_path, made, {"010-run", "011-run"})))
    assert ("constant label", "corpus") in faults(report)
    assert {f.values["label"] for f in report.faults() if f.kind == "constant label"} >= {
        "attack",
        "attack_kind",
    }


def test_a_label_that_few_runs_vary_is_noted_where_it_is_constant(tmp_path: Path) -> None:
    made = [(e, row | {"load": "hogs-3"} if row["run"] == "004-run" else row) for e, row in clean()]
    report = checked(tmp_path, made)
    assert faults(report) == []
    assert any("load (" in note for note in report.notes)


def test_parts_that_the_corpus_names_are_taken_and_what_they_lack_is_noted(tmp_path: Path) -> None:
    made = [
        (
            e,
            row
            | {"part": "train" if int(row["run"][:3]) % 2 else "test"}
            | ({} if int(row["run"][:3]) % 2 else {"loss_pct": 3.0}),
        )
        for e, row in clean(runs=20)
    ]
    report = checked(tmp_path, made)
    assert report.split == "label column part"
    assert faults(report) == []
    assert any("as the corpus has it" in note and "loss_pct (" in note for note in report.notes)


def test_connections_of_a_group_may_repeat_and_others_may_not(tmp_path: Path) -> None:
    made = clean()
    for exchange, row in made:
        if row.get("attack"):
            exchange.payloads = [100, -200, 300, -400, 500, -600]
    kinds = [kind for kind, _ in faults(checked(tmp_path / "a", made))]
    assert "near-duplicates" in kinds
    made = [(e, row | {"group": "bot-1"}) if row.get("attack") else (e, row) for e, row in made]
    kinds = [kind for kind, _ in faults(checked(tmp_path / "b", made))]
    assert "near-duplicates" not in kinds


def test_an_attack_without_any_neighbour_is_not_judged(tmp_path: Path) -> None:
    made = [(e, row) for e, row in clean() if row.get("attack")]
    report = checked(tmp_path, made)
    assert giveaway(report).outcome == "not judged"
    assert report.outcome == "passed"


def test_a_run_without_a_part_is_an_error(tmp_path: Path) -> None:
    made = clean()
    file = parts_file(tmp_path, made[:-5], TWO_OF_TEN)
    with pytest.raises(InputError, match="no part for run '019-run'"):
        checked(tmp_path, made, Settings(parts=file))


def test_a_corpus_without_attacks_says_that_none_was_judged(tmp_path: Path) -> None:
    report = checked(tmp_path, entries(10, 1))
    assert report.outcome == "passed"
    assert "there is no attack: giveaways and circumstances are not checked" in report.notes


def test_a_report_is_the_same_again(tmp_path: Path) -> None:
    one, other = (checked(tmp_path, clean()).as_json() for _ in range(2))
    assert repr(one) == repr(other)
    assert np.isfinite(one["findings"][1]["values"]["auc"])
