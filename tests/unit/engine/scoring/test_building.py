"""Bundles as detectors are built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.scoring.building import BundleFile
from models.bundle import pack

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
