"""Probe labels on the bus: published once, looked up when met, never mixed up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.labels.file import read_labels
from engine.labels.probes import ProbeBook, introduce
from engine.labels.rules import Labels
from engine.labels.table import KEYS

ROW = {"src": "10.0.0.1", "sport": "", "dst": "", "dport": "", "proto": "tcp", "start": "", "end": ""}


class Dictionary:
    """A table in memory."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def refresh(self) -> Mapping[bytes, bytes]:
        return self.values

    def publish(self, key: bytes, value: bytes) -> None:
        assert key not in self.values
        self.values[key] = value


def labels(folder: Path, *tasks: str) -> Labels:
    lines = [",".join([*KEYS, "task"])]
    lines += [
        ",".join([*({**ROW, "sport": str(k)}[name] for name in KEYS), task]) for k, task in enumerate(tasks)
    ]
    path = folder / f"{'-'.join(tasks)}.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_labels(path)


def test_what_is_published_is_what_is_looked_up(tmp_path: Path) -> None:
    table, mine = Dictionary(), labels(tmp_path, "http", "dns")
    assert introduce(mine, table, table.publish) is mine
    book = ProbeBook(table)
    book.resolve(set(mine.probes))
    assert book.probes == mine.probes
    introduce(labels(tmp_path, "dns", "ssh"), table, table.publish)  # publishes only what is new
    assert len(table.values) == 3


def test_an_id_that_means_something_else_on_the_bus_is_replaced(tmp_path: Path) -> None:
    table, mine = Dictionary(), labels(tmp_path, "http", "dns")
    taken = next(k for k, v in mine.probes.items() if v.get("task") == "http")
    table.values[str(taken).encode()] = b'{"task":"other"}'
    changed = introduce(mine, table, table.publish)
    book = ProbeBook(table)
    book.resolve(set())
    assert book.probes[taken] == {"task": "other"}
    assert [changed.probes[k]["task"] for k in changed.rules["probe"].tolist()] == ["http", "dns"]
    assert all(book.probes[k] == changed.probes[k] for k in changed.probes)
    assert taken not in changed.probes


def test_entries_that_are_none_are_passed_over(tmp_path: Path) -> None:
    table = Dictionary()
    table.values = {b"x": b"{}", b"5": b"[1]", b"6": b"{", b"0": b'{"a":"b"}', b"7": b'{"a":1}'}
    book = ProbeBook(table)
    book.resolve({5})
    assert book.probes == {0: {}, 7: {"a": "1"}}
    assert tmp_path.exists()
