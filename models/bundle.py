"""A model on disk: arrays with a config and a provenance, in the safetensors format.

The file is data only: a length, a JSON header and raw numbers. Nothing in it is executed or unpickled; the worst that
a file from elsewhere can do is to be refused. The header's metadata holds `format`, `kind`, `config` and
`provenance`, the last two as JSON objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

FORMAT = 1  # number of the format that `pack` writes
READABLE = (1,)  # formats that `load` reads
LARGEST = 256 * 2**20  # bytes; a larger file is refused before any of it is read
DTYPES = ("float64", "float32", "int64", "int32", "uint32", "uint8")

ArrayShapes = Mapping[str, tuple[tuple[int, ...], str]]  # name -> shape and dtype


class BundleError(Exception):
    """A bundle cannot be written or read; the message names the file and the fault."""


@dataclass(frozen=True)
class Bundle:
    """The contents of a file."""

    path: Path
    kind: str
    arrays: dict[str, NDArray[Any]]
    config: dict[str, Any]
    provenance: dict[str, Any]


def pack(
    arrays: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    kind: str = "arrays",
) -> bytes:
    """The bytes of a bundle's file. Equal contents give equal bytes.

    BundleError for arrays that `load` would refuse, TypeError or ValueError for a config or provenance that is not
    JSON.
    """
    for name, array in arrays.items():
        if problem := _problem(array):
            raise BundleError(f"array {name} {problem}")
    metadata = {
        "format": str(FORMAT),
        "kind": kind,
        "config": json.dumps(config, sort_keys=True, allow_nan=False),
        "provenance": json.dumps(provenance, sort_keys=True, allow_nan=False),
    }
    return _in_order(
        safetensors.save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata)
    )


def load(path: str | Path, *, kind: str | None = None, largest: int = LARGEST) -> Bundle:
    """Read a bundle, of the given kind if one is given; BundleError names the file and the fault."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: not a regular file")
        size = path.stat().st_size
        if size > largest:
            raise BundleError(f"{path}: {size} bytes, more than the limit of {largest}")
        path.open("rb").close()  # safetensors reports a file without read permission as missing
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata, kind)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BundleError(f"{path}: not a readable bundle: {reason}") from error
    for name, array in arrays.items():
        if problem := _problem(array):
            raise BundleError(f"{path}: array {name} {problem}")
    return Bundle(
        path=path,
        kind=metadata["kind"],
        arrays=arrays,
        config=_object(path, metadata, "config"),
        provenance=_object(path, metadata, "provenance"),
    )


def require(bundle: Bundle, expected: ArrayShapes) -> None:
    """BundleError unless the bundle has exactly the expected arrays, of those shapes and dtypes."""
    for problem, names in (
        ("lacks", sorted(expected.keys() - bundle.arrays.keys())),
        ("has unknown", sorted(bundle.arrays.keys() - expected.keys())),
    ):
        if names:
            raise BundleError(f"{bundle.path}: {problem} arrays {', '.join(names)}")
    for name, (shape, dtype) in expected.items():
        array = bundle.arrays[name]
        if array.shape != shape or array.dtype != np.dtype(dtype):
            found = f"{array.dtype}{list(array.shape)}"
            raise BundleError(f"{bundle.path}: array {name} is {found}, must be {dtype}{list(shape)}")


def _in_order(data: bytes) -> bytes:
    """The file with sorted keys in its header; safetensors leaves them in the order of a hash table."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # keeps the numbers aligned
    return len(header).to_bytes(8, "little") + header + data[end:]


def _check_metadata(path: Path, metadata: Mapping[str, str], kind: str | None) -> None:
    missing = [name for name in ("format", "kind", "config", "provenance") if name not in metadata]
    if missing:
        raise BundleError(f"{path}: not a bundle, its header lacks {', '.join(missing)}")
    if metadata["format"] not in [str(number) for number in READABLE]:
        known = ", ".join(str(number) for number in READABLE)
        raise BundleError(f"{path}: format {metadata['format']!r}; this version reads {known}")
    if kind is not None and metadata["kind"] != kind:
        raise BundleError(f"{path}: holds a {metadata['kind']!r}, not a {kind!r}")


def _problem(array: NDArray[Any]) -> str | None:
    """The reason why an array may not be in a bundle."""
    if array.dtype.name not in DTYPES:
        return f"has dtype {array.dtype}, must be one of {', '.join(DTYPES)}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "has values that are not finite"
    return None


def _object(path: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[name])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {name} in the header is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path}: {name} in the header is not a JSON object")
    return value
