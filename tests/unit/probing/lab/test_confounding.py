"""What runs can tell apart, on corpora with a known answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_ind

from engine.cli import main
from probing.lab import catalog, confounding
from tests.unit.probing.lab.test_design import ONE, corpus


def found(*entries: dict[str, Any]) -> dict[str, confounding.Found]:
    return {one.name: one for one in confounding.examine(catalog.expand(corpus(*entries)))}


def test_labels_that_always_go_together_are_one_set() -> None:
    twins = [{"delay_ms": 5}, {"delay_ms": 50, "loss_pct": 2}]
    parts = found(
        {**ONE, "copies": 3, "twins": twins}, {**ONE, "copies": 2, "link": {"delay_ms": 5}, "group": "g"}
    )
    sets = parts["http get"].aliases
    assert any({"delay_ms", "loss_pct"} == set(names) for names in sets)
    crossed = {"link.delay_ms": [5, 50], "link.loss_pct": [0, 2]}
    assert found({**ONE, "server": "nginx", "design": {"factors": crossed}})["http get"].aliases == []


def test_an_activity_of_its_own_task_is_an_alias_in_the_corpus_and_not_within_itself() -> None:
    parts = found({**ONE, "copies": 2}, {"scenario": "dns", "activity": "lookup", "copies": 2})
    assert {"scenario", "task", "activity"} <= set(parts["all"].aliases[0])
    assert "scenario" not in parts["http get"].varying


def test_the_level_with_the_fewest_runs_is_named_with_what_it_can_show() -> None:
    parts = found({**ONE, "server": "nginx", "copies": 30}, {**ONE, "server": "apache", "copies": 2})
    least = parts["http get"].least
    assert least is not None
    assert (least.label, least.value, least.runs) == ("server_impl", "apache", 2)
    assert least.effect == pytest.approx(confounding.least_effect(2, 30, 2))
    alone = found({**ONE, "server": "nginx"}, {**ONE, "server": "apache"})["http get"].least
    assert alone is not None
    assert alone.effect is None


@pytest.mark.parametrize(("few", "others", "tests"), [(5, 5, 1), (4, 36, 20), (64, 64, 1)])
def test_the_least_effect_is_found_as_often_as_it_says(few: int, others: int, tests: int) -> None:
    effect = confounding.least_effect(few, others, tests)
    assert effect is not None
    rng = np.random.default_rng(1)
    a, b = rng.normal(effect, 1, (4000, few)), rng.normal(0, 1, (4000, others))
    named = ttest_ind(a, b, axis=1).pvalue < confounding.ALPHA / tests
    assert named.mean() == pytest.approx(confounding.POWER, abs=4 * np.sqrt(0.16 / 4000))


def test_two_groups_of_64_show_half_a_standard_deviation() -> None:
    assert confounding.least_effect(64, 64) == pytest.approx(0.5, abs=0.005)  # Cohen 1988, table 2.4.1


def test_the_check_of_a_corpus_says_what_it_can_tell_apart() -> None:
    text = CliRunner().invoke(main, ["lab", "check", "probe"]).output
    assert "What probe can tell apart:" in text
    assert "always together: scenario, task, client_impl" in text
    data = json.loads(CliRunner().invoke(main, ["lab", "check", "small", "--json"]).stdout)
    assert data["designs"]["small"][0]["runs"] == len(catalog.expand(catalog.find("small")))
