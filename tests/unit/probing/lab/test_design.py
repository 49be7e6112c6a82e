"""Designs: cells, balance, what makes one impossible, and runs that stay as they are when others are added."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from probing.lab import catalog
from probing.lab.errors import LabError
from probing.lab.settings import Corpus, Entry, Run

ONE = {"scenario": "http", "client": "asyncio", "activity": "get"}
FACTORS: dict[str, list[Any]] = {
    "link.delay_ms": [5, 20, 50, 80, 100],
    "link.loss_pct": [0, 2],
    "link.jitter_ms": [0, 4],
    "server": ["nginx", "apache"],
    "parameters.termination": ["fin", "rst", "sudden", "timeout"],
}


def corpus(*entries: dict[str, Any]) -> Corpus:
    return Corpus(name="c", about="", runs=tuple(Entry.model_validate(entry) for entry in entries))


def levels(run: Run) -> tuple[Any, ...]:
    link = run.link
    return link.delay_ms, link.loss_pct, link.jitter_ms, run.server, run.parameters.termination


def test_a_full_design_has_each_combination_in_as_many_runs_as_copies() -> None:
    runs = catalog.expand(corpus({**ONE, "design": {"factors": FACTORS}, "copies": 2}))
    wanted = itertools.product(*FACTORS.values())
    assert Counter(map(levels, runs)) == dict.fromkeys(wanted, 2)
    assert len({run.seed for run in runs}) == len(runs)


def test_half_a_design_has_each_pair_of_levels_in_equally_many_runs() -> None:
    runs = catalog.expand(corpus({**ONE, "design": {"factors": FACTORS, "fraction": "1/2"}}))
    assert len(runs) == 80
    for some in itertools.combinations(range(5), 3):
        counts = Counter(tuple(levels(run)[k] for k in some) for run in runs)
        assert len(set(counts.values())) == 1, some


def test_a_third_of_a_design_needs_factors_of_three_levels() -> None:
    three = {"link.delay_ms": [1, 2, 3], "link.loss_pct": [0, 1, 2], "server": ["nginx", "apache"]}
    runs = catalog.expand(corpus({**ONE, "design": {"factors": three, "fraction": "1/3"}}))
    assert len(runs) == 6
    assert set(Counter(run.link.delay_ms for run in runs).values()) == {2}
    assert set(Counter(run.server for run in runs).values()) == {3}


def test_activities_are_crossed_with_the_other_factors() -> None:
    factors: dict[str, list[Any]] = {"activity": ["get", "post", "multi-get", "keep-alive"], **FACTORS}
    given = {"scenario": "http", "client": "asyncio", "design": {"factors": factors, "fraction": "1/2"}}
    runs = catalog.expand(corpus(given))
    for activity in factors["activity"]:
        mine = [run for run in runs if run.activity == activity]
        assert len(mine) == 80
        assert set(Counter(run.link.loss_pct for run in mine).values()) == {40}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"design": {"factors": {"link.lag": [1, 2]}}}, r"runs.0 \(http\): design.factors: link.lag is not a setting"),
        ({"design": {"factors": {"colour": [1, 2]}}}, "colour is not one of activity, server"),
        ({"design": {"factors": {"link.loss_pct": [1, 2]}}, "link": {"loss_pct": 1}}, "loss_pct has levels here and a"),
        ({"design": {"factors": {"server": ["nginx", "apache"]}}, "server": "nginx"}, "server has levels here and a"),
        ({"design": {"factors": {"link.loss_pct": [0, 1], "link.delay_ms": [1, 2, 3]}, "fraction": "1/2"}},
         r"two factors must have a multiple of 2 levels, else .* \(link.loss_pct has\)"),
        ({"design": {"factors": {"link.loss_pct": [0, 101]}}}, "link: loss_pct: .*less than or equal to 100"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_design_is_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        catalog.expand(corpus({**ONE, **entry}))


@pytest.mark.parametrize(
    "design", [{"factors": {"server": ["nginx"]}}, {"factors": {}}, {"factors": FACTORS, "fraction": "2/3"}]
)
def test_a_design_of_one_level_or_of_no_such_fraction_is_refused(design: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="design"):
        corpus({**ONE, "design": design})


@pytest.mark.parametrize("place", [0, 1, 2])
def test_adding_runs_changes_none_of_the_others(place: int) -> None:
    entries: list[dict[str, Any]] = [
        {**ONE, "copies": 3, "twins": [{}, {"loss_pct": 2}]},
        {"scenario": "dns"},
    ]
    before = catalog.expand(corpus(*entries))
    entries.insert(place, {**ONE, "samples": 2})
    after = catalog.expand(corpus(*entries))
    assert len(after) > len(before)
    kept = [run for run in after if run in before]
    assert kept == before  # in the same order, too


def test_equal_entries_are_different_runs() -> None:
    runs = catalog.expand(corpus({**ONE, "copies": 2}, ONE))
    assert len({run.id for run in runs}) == len({run.seed for run in runs}) == len(runs) == 6
    assert {run.id for run in runs} == {run.id for run in catalog.expand(corpus({**ONE, "copies": 3}))}


def test_runs_have_address_blocks_of_their_own_even_where_many_would_choose_the_same() -> None:
    taken: set[int] = set()
    numbers = [catalog._free_number(f"run {k}", taken) for k in range(3000)]
    assert len(set(numbers)) == 3000
    own: set[int] = set()
    assert numbers[:1000] == [catalog._free_number(f"run {k}", own) for k in range(1000)]
