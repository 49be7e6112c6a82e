from __future__ import annotations

import json
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

from engine.scoring.kitsune import kitnet_of
from models.bundle import BundleError, load, pack, require
from models.kitnet.kitnet import KitNET, KitNETConfig

CONFIG = KitNETConfig(features=7, max_cluster=3, map_samples=20, learn_samples=30)
ARRAYS = {"weights": np.arange(6.0).reshape(2, 3), "counts": np.array([1, 2], np.int64)}
X = np.random.default_rng(1).random((100, 7))


def written(path: Path, **header: str) -> Path:
    """A file of our format with some entries of the header replaced."""
    good = {"format": "1", "kind": "arrays", "config": "{}", "provenance": "{}"}
    path.write_bytes(safetensors.save(ARRAYS, good | header))
    return path


def saved(path: Path, net: KitNET) -> None:
    """A bundle of a KitNET."""
    path.write_bytes(pack(net.state(), {"kitnet": asdict(net.config)}, {}, kind="kitnet"))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(
        pack(ARRAYS, {"a": [1, 2.5]}, {"commit": "abc", "note": "größer"}, kind="thing")
    )
    bundle = load(tmp_path / "m", kind="thing")
    assert (bundle.kind, bundle.config) == ("thing", {"a": [1, 2.5]})
    assert bundle.provenance == {"commit": "abc", "note": "größer"}
    assert bundle.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(bundle.arrays[name], array, strict=True)


def test_arrays_that_are_not_contiguous_keep_their_values(tmp_path: Path) -> None:
    array = np.arange(12.0).reshape(3, 4)
    (tmp_path / "m").write_bytes(pack({"turned": array.T, "every": array[:, ::2]}, {}, {}))
    arrays = load(tmp_path / "m").arrays
    np.testing.assert_array_equal(arrays["turned"], array.T)
    np.testing.assert_array_equal(arrays["every"], array[:, ::2])


def test_equal_contents_give_equal_files(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / str(i)).write_bytes(
            pack(dict(sorted(ARRAYS.items(), reverse=i % 2 == 0)), {"x": 1, "y": 2}, {"ä": 1})
        )
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_a_file_cut_anywhere_or_with_other_bytes_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(pack(ARRAYS, {}, {}))
    data = path.read_bytes()
    broken = [data[:n] for n in (0, 1, 7, 8, 9, 100, len(data) - 1)]
    broken += [b"\xff" * 8 + data[8:], data + b"more", pickle.dumps(ARRAYS), os.urandom(1000)]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(BundleError, match=str(path)):
            load(path)


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "m"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BundleError):
        load(path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BundleError, match=str(path)):
            load(path)


def test_another_format_is_refused_with_those_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="format '2'; this version reads 1"):
        load(written(tmp_path / "m", format="2"))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds a 'lstm', not a 'kitnet'"):
        load(written(tmp_path / "m", kind="lstm"), kind="kitnet")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(safetensors.save(ARRAYS))
    with pytest.raises(BundleError, match="lacks format, kind"):
        load(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    for name in ("config", "provenance"):
        with pytest.raises(BundleError, match=f"{name} in the header"):
            load(written(tmp_path / "m", **{name: text}))


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with path.open("wb") as file:
        file.truncate(2**33)  # a hole: takes no room
    with pytest.raises(BundleError, match="more than the limit"):
        load(path)


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.0, np.nan]),
        np.array([np.inf], np.float32),
        np.array(["a"]),
        np.array([1j]),
        np.array([None]),
    ],
)
def test_arrays_that_cannot_be_loaded_are_not_saved(array: np.ndarray) -> None:
    with pytest.raises(BundleError, match="array odd has"):
        pack({"odd": array}, {}, {})


def test_values_that_are_not_finite_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m"
    header = {"format": "1", "kind": "arrays", "config": "{}", "provenance": "{}"}
    path.write_bytes(safetensors.save({"w": np.array([np.nan])}, header))
    with pytest.raises(BundleError, match="array w has values that are not finite"):
        load(path)


def test_other_arrays_than_expected_are_named(tmp_path: Path) -> None:
    bundle = load(written(tmp_path / "m"))
    expected = {"weights": ((2, 3), "float64"), "counts": ((2,), "int64")}
    require(bundle, expected)
    for wrong, problem in (
        (expected | {"bias": ((1,), "float64")}, "lacks arrays bias"),
        ({"weights": ((2, 3), "float64")}, "has unknown arrays counts"),
        (expected | {"weights": ((3, 2), "float64")}, r"weights is float64\[2, 3\], must be float64\[3, 2\]"),
        (expected | {"counts": ((2,), "int32")}, r"counts is int64\[2\], must be int32\[2\]"),
    ):
        with pytest.raises(BundleError, match=problem):
            require(bundle, wrong)


@pytest.mark.parametrize("samples", [0, 10, 25, 60])
def test_a_kitnet_goes_on_where_it_was_saved(tmp_path: Path, samples: int) -> None:
    net = KitNET(CONFIG)
    net.process(X[:samples])
    saved(tmp_path / "m", net)
    again = kitnet_of(load(tmp_path / "m", kind="kitnet"))
    assert again.config == CONFIG
    np.testing.assert_array_equal(again.process(X[samples:]), net.process(X[samples:]))


def test_a_kitnet_whose_arrays_do_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    net = KitNET(CONFIG)
    net.process(X)
    path = tmp_path / "m"
    good = net.state()
    wrong = [
        {name: array for name, array in good.items() if name != "b_hidden"},
        good | {"more": np.zeros(1)},
        good | {"w": good["w"].astype(np.float32)},
        good | {"w": good["w"][:, :, :1]},
        good | {"features": good["features"] + 1},
    ]
    saved(path, net)
    config = load(path).config
    for arrays in wrong:
        path.write_bytes(pack(arrays, config, {}, kind="kitnet"))
        with pytest.raises(BundleError, match=str(path)):
            kitnet_of(load(path))


@pytest.mark.parametrize(
    "change",
    [
        {"features": 1_000_000},
        {"features": "7"},
        {"max_cluster": 1},
        {"clip": [2, 3]},
        {"colour": "red"},
        {"clip": None},
    ],
)
def test_a_kitnet_with_a_wrong_config_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    for samples in (10, 100):
        net = KitNET(replace(CONFIG))
        net.process(X[:samples])
        path = tmp_path / "m"
        saved(path, net)
        config = json.loads(json.dumps(load(path).config))
        config["kitnet"] |= change
        path.write_bytes(pack(net.state(), config, {}, kind="kitnet"))
        if change == {"max_cluster": 1} and samples == 10:
            continue  # nothing contradicts it yet
        with pytest.raises(BundleError, match=str(path)):
            kitnet_of(load(path))
