"""Bundles as detectors are built from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.scoring.building import BundleFile, build_detector
from engine.scoring.kinds import KINDS
from models import bundle
from models.bundle import pack
from tests.property.test_laws import ROOMY, blocks
from tests.support.rows import bundled, said, small
from tests.support.streams import stream

ARRAYS = {"a": np.arange(6.0), "b": np.arange(3, dtype=np.int32)}
CONFIG: dict[str, Any] = {"threshold": {"value": 0.5}}


def digest(folder: Path, arrays: dict[str, Any], config: dict[str, Any], kind: str = "kitsune") -> str:
    path = folder / "m.safetensors"
    path.write_bytes(pack(arrays, config, {"seed": folder.name}, kind=kind))
    return BundleFile(path).digest


@pytest.mark.parametrize(
    ("arrays", "config", "kind"),
    [
        (ARRAYS | {"a": np.array([0.0, 1, 2, 3, 4, 6])}, CONFIG, "kitsune"),
        (ARRAYS | {"a": np.arange(6.0).reshape(2, 3)}, CONFIG, "kitsune"),
        ({"aa": ARRAYS["a"], "b": ARRAYS["b"]}, CONFIG, "kitsune"),
        (ARRAYS, {"threshold": {"value": 0.6}}, "kitsune"),
        (ARRAYS, CONFIG, "baseline"),
    ],
    ids=["value", "shape", "name", "config", "kind"],
)
def test_bundles_that_differ_have_different_digests(
    tmp_path: Path, arrays: dict[str, Any], config: dict[str, Any], kind: str
) -> None:
    assert digest(tmp_path, arrays, config, kind) != digest(tmp_path, ARRAYS, CONFIG)


def test_equal_bundles_have_equal_digests_wherever_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    swapped = dict(reversed(ARRAYS.items()))
    assert digest(tmp_path / "other", swapped, CONFIG) == digest(tmp_path, ARRAYS, CONFIG)


def test_a_baseline_of_an_earlier_version_scores_the_same_and_counts_no_inputs_out_of_range(
    tmp_path: Path,
) -> None:
    kind = KINDS["baseline"]
    spec = small(kind)
    new = bundled(spec, blocks(stream(31, 900), []), tmp_path / "new")
    good = bundle.load(tmp_path / "new")
    arrays = {name: a for name, a in good.arrays.items() if name not in ("low", "high")}
    arrays["counts"] = arrays["counts"][:1]
    (tmp_path / "old").write_bytes(bundle.pack(arrays, good.config, {}, kind="baseline"))
    old = replace(spec, bundle=BundleFile(tmp_path / "old"))
    tables = [said([s], blocks(stream(32, 600), []), ROOMY).rows("baseline") for s in (new, old)]
    assert tables[0].equals(tables[1])
    counters = []
    for s in (new, old):
        detector = build_detector(0, ROOMY, [s])
        detector.process(blocks(stream(32, 600), [])[0])
        counters.append(detector.counters(detector.scorers[0]))
    assert counters[0]["inputs"] > 0
    assert counters[1]["inputs"] == 0
