"""A corpus: a capture with the labels and the manifest that the lab wrote beside it, read back and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import InputError
from probing.corpus.labels import read_label_rows

FORMATS = (1,)  # formats of manifests that can be read
ENDINGS = (".manifest.json", ".labels.parquet", ".server.pcap.zst", ".client.pcap.zst", ".pcap.zst")


@dataclass(frozen=True)
class Corpus:
    """A capture with its labels. ``captures``: by vantage, the main one first."""

    name: str
    captures: Mapping[str, Path]
    labels: pa.Table  # a row a connection, in the schema of probing/lab/labels.py
    labels_file: Path
    manifest: Mapping[str, Any]

    @property
    def capture(self) -> Path:
        """The main capture."""
        return next(iter(self.captures.values()))


def read_corpus(path: Path) -> Corpus:
    """The corpus of a folder, of any of its files, or of FOLDER/NAME. Raises InputError that names file and problem."""
    stem = _stem(path)
    manifest = _manifest(stem.with_name(stem.name + ".manifest.json"))
    captures = {vantage: stem.with_name(given["file"]) for vantage, given in manifest["captures"].items()}
    labels_file = stem.with_name(stem.name + ".labels.parquet")
    for file in (*captures.values(), labels_file):
        if not file.is_file():
            raise InputError(f"{file}: no such file, although {stem.name}.manifest.json is there")
    labels = read_label_rows(labels_file)
    if labels.num_rows != manifest["connections"]:
        raise InputError(f"{labels_file}: {labels.num_rows} rows, but {manifest['connections']} connections in the "
                         "manifest")  # fmt: skip
    return Corpus(stem.name, captures, labels, labels_file, manifest)


def is_of_lab(path: Path) -> bool:
    """Whether a file has the manifest of a corpus beside it, or is one."""
    stem = _stem(path)
    return stem.with_name(stem.name + ".manifest.json").is_file()


def _stem(path: Path) -> Path:
    """The path of a corpus's files without their endings."""
    if not path.is_dir():
        ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
        return path.with_name(path.name.removesuffix(ending))
    found = sorted(path.glob("*.manifest.json"))
    if len(found) != 1:
        names = ", ".join(f.name for f in found[:4]) or "none"
        raise InputError(f"{path}: needs exactly one *.manifest.json, or name one of them; found: {names}")
    return found[0].with_name(found[0].name.removesuffix(".manifest.json"))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{path}: not the manifest of a corpus")
    if manifest.get("format") not in FORMATS:
        raise InputError(
            f"{path}: format {manifest.get('format')!r} is not one of {', '.join(map(str, FORMATS))}"
        )
    captures, connections = manifest.get("captures"), manifest.get("connections")
    if not isinstance(connections, int):
        raise InputError(f"{path}: connections: {connections!r} is not a number")
    if not isinstance(captures, dict) or not captures:
        raise InputError(f"{path}: captures: must name at least one")
    for vantage, given in captures.items():
        file = given.get("file") if isinstance(given, dict) else None
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(
                f"{path}: captures.{vantage}: {given!r} does not name a file beside the manifest"
            )
    return manifest
