"""Variants that a version lacks are reported, not run, and not an error."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.bench_detection import VARIANTS
from benchmarks.detection.variants import Variant, absent, drawn, section_of, spec_of


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        (Variant("x", options={"features.nothing": 1}), "no features.nothing"),
        (Variant("x", options={"nothing.at.all": 1, "kitnet.hidden_ratio": 0.5}), "no nothing.at.all"),
        (Variant("x", options={"kitnet.hidden_ratio.more": 1}), "no kitnet.hidden_ratio.more"),
        (Variant("x", "nothing"), "no model of kind nothing"),
    ],
)
def test_a_variant_that_this_version_lacks_says_what_it_lacks(variant: Variant, why: str) -> None:
    assert absent(variant) == why


@pytest.mark.parametrize(
    "options", [{"features.flows": 0}, {"scorer.aggregate": "least"}, {"kitnet.clip": 3}]
)
def test_a_variant_with_a_value_that_this_version_refuses_is_absent(options: Any) -> None:
    why = absent(Variant("x", options=options))
    assert why is not None
    assert "no " not in why


def test_a_key_that_says_what_a_version_without_it_does_anyway_is_not_missed() -> None:
    options = {"features.nothing": "as ever", "kitnet.hidden_ratio": 0.5}
    variant = Variant("x", options=options, implied=frozenset(["features.nothing"]))
    assert absent(variant) is None
    assert section_of(variant, 1).kitnet.hidden_ratio == 0.5


def test_the_plain_variants_are_there_in_every_version() -> None:
    here = [v.name for v in VARIANTS if absent(v) is None]
    assert {"Kitsune", "Kitsune, warm-up", "Kitsune, public", "baseline", "chance"} <= set(here)


def test_a_seed_reaches_the_models_that_draw() -> None:
    kitsune, baseline = Variant("k"), Variant("b", "baseline")
    assert drawn(kitsune)
    assert not drawn(baseline)
    assert [section_of(kitsune, seed).kitnet.seed for seed in (3, 4)] == [3, 4]
    spec = spec_of(kitsune, 3, "m", 1000)
    assert (spec.section.kitnet.map_samples, spec.section.scorer.calibrate_packets) == (100, 200)
