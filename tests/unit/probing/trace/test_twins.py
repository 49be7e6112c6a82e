"""Twins of a connection are found by the labels."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.commands.reading import read_connections
from engine.errors import InputError
from probing.lab.labels import table
from probing.trace.twins import LabRows, is_of_lab
from tests.support.corpora import ROW
from tests.support.small_corpus import SECOND, T0, Entry, Exchange, write


def entry(
    client: int, twin: str, sample: int = 0, second: int = 0, pair: str = "p-0", **more: object
) -> Entry:
    """A connection of a twin."""
    exchange = Exchange(T0 + second * SECOND, 0x0A000000 + client, 40000 + client)
    return exchange, {"pair": pair, "twin": twin, "sample": sample, "run": f"00000-{twin}", **more}


MADE = [
    entry(10, "a"), entry(11, "a", second=1), entry(12, "b", second=2), entry(13, "b", second=3),
    entry(14, "c", second=4), entry(15, "b", sample=1), entry(16, "b", pair="p-1"), entry(17, "a", pair=""),
    entry(18, "b", role="data"),
]  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabRows, dict[int, str]]:
    """Rows that have watched all connections; uid of each client's last byte."""
    place = write(tmp_path_factory.mktemp("corpus"), MADE)
    records = read_connections([place.with_name("made.pcap.zst")])
    rows = LabRows(place.with_name("made.labels.parquet"))
    assert [t.num_rows for t in rows.watch([records.slice(0, 4), records.slice(4)])] == [4, 5]
    clients = [int(host.rpartition(".")[2]) for host in records["id.orig_h"].to_pylist()]
    return rows, dict(zip(clients, records["uid"].to_pylist()))


def test_a_twin_is_the_connection_of_the_same_visit_and_place_under_another_letter(
    known: tuple[LabRows, dict[int, str]],
) -> None:
    rows, uid = known
    assert rows.twins(uid[10]) == [uid[12], uid[14]]
    assert rows.twins(uid[11]) == [uid[13]]
    assert rows.twins(uid[14]) == [uid[10], uid[12]]


@pytest.mark.parametrize(("client", "said"), [(17, "has no twins"), (16, "are not in the capture")])
def test_what_has_no_twin_is_named(known: tuple[LabRows, dict[int, str]], client: int, said: str) -> None:
    rows, uid = known
    with pytest.raises(InputError, match=said):
        rows.twins(uid[client])


def test_phases_that_cannot_be_read_are_named_by_file_and_row(tmp_path: Path) -> None:
    place = write(tmp_path, [entry(10, "a"), entry(11, "b", phases="{}")])
    labels = place.with_name("made.labels.parquet")
    rows, records = LabRows(labels), read_connections([place.with_name("made.pcap.zst")])
    list(rows.watch([records]))
    uid = dict(zip(records["id.orig_h"].to_pylist(), records["uid"].to_pylist()))
    assert rows.marks(uid["10.0.0.10"]) == []
    with pytest.raises(InputError, match=r"made\.labels\.parquet: row 2: phases: not a list"):
        rows.marks(uid["10.0.0.11"])
    assert rows.marks("CAAAAAAAAAAAAAAAA") == []


def test_label_files_of_others_are_not_of_the_lab(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("src,dst\n")
    assert not is_of_lab(tmp_path / "labels.csv")
    pq.write_table(table([ROW]), tmp_path / "l.parquet")
    assert is_of_lab(tmp_path / "l.parquet")
    pq.write_table(table([ROW]).drop(["phases"]), tmp_path / "m.parquet")
    assert not is_of_lab(tmp_path / "m.parquet")
