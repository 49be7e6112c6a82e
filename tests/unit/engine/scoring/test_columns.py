"""The declared columns are those of every table of scores, and readers hold files and messages to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.connections.columns import CONNECTION_COLUMNS
from engine.connections.layout import CONNECTION, SIDE
from engine.connections.record import connection_table
from engine.errors import InputError
from engine.scoring.batch import choose, join
from engine.scoring.columns import (
    SCORE_COLUMNS,
    decode_scores,
    encode_scores,
    read_scores,
    score_schema,
    score_table,
)
from tests.support.batches import batch

PROBES = {0: {}, 1: {"task": "http"}, 2: {"task": "dns", "attack": "1"}}


def test_tables_have_the_declared_columns_in_order_and_labels_behind() -> None:
    table = score_table(batch(5, probes=3), PROBES)
    assert table.schema == score_schema(["task", "attack"])
    assert table.column_names[: len(SCORE_COLUMNS)] == [c.name for c in SCORE_COLUMNS]
    assert [str(f.type) for f in table.schema][: len(SCORE_COLUMNS)] == [str(c.type) for c in SCORE_COLUMNS]
    empty = connection_table(np.zeros(0, CONNECTION), np.zeros((0, 2), SIDE))
    assert empty.column_names == [c.name for c in CONNECTION_COLUMNS]


def test_every_column_says_what_it_means_and_no_name_comes_twice() -> None:
    assert all(c.about for c in SCORE_COLUMNS)
    assert len({c.name for c in SCORE_COLUMNS}) == len(SCORE_COLUMNS)


def test_files_with_other_labels_are_read_as_one_table(tmp_path: Path) -> None:
    pq.write_table(score_table(batch(5, probes=3), PROBES), tmp_path / "a")
    pq.write_table(score_table(batch(4)), tmp_path / "b")
    table = read_scores([tmp_path / "a", tmp_path / "b"])
    assert table.num_rows == 9
    assert table["label.task"].null_count >= 4
    assert read_scores([]).schema == score_schema()


@pytest.mark.parametrize("name", ["score", "uid", "row"])
def test_a_column_that_is_missing_or_of_another_type_is_named_with_its_file(
    name: str, tmp_path: Path
) -> None:
    whole = score_table(batch(3))
    pq.write_table(whole.drop_columns([name]), tmp_path / "lacks")
    with pytest.raises(InputError, match=f"lacks: not a table of scores: no column {name}"):
        read_scores([tmp_path / "lacks"])
    at = whole.column_names.index(name)
    pq.write_table(whole.set_column(at, name, pa.array([True] * 3)), tmp_path / "other")
    with pytest.raises(InputError, match=f"other: column {name} has type bool, must be "):
        read_scores([tmp_path / "other"])


def test_what_is_no_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no")
    with pytest.raises(InputError, match="x: not a Parquet file of scores"):
        read_scores([tmp_path / "x"])
    with pytest.raises(InputError, match="missing: "):
        read_scores([tmp_path / "missing"])


def test_a_message_gives_back_its_rows() -> None:
    table = score_table(batch(50, probes=3), PROBES)
    assert decode_scores(encode_scores(table)).equals(table)


def test_messages_that_hold_no_scores_are_refused_whatever_byte_is_wrong() -> None:
    message = encode_scores(score_table(batch(3)))
    rng = np.random.default_rng(1)
    refused = 0
    for at in rng.integers(0, len(message), 300).tolist():
        changed = message[:at] + bytes([message[at] ^ 0x55]) + message[at + 1 :]
        try:
            decode_scores(changed)
        except InputError:
            refused += 1
    assert refused > 50
    for wrong in (b"", b"x", message[:100], message[: len(message) // 2]):
        with pytest.raises(InputError, match="message of scores: "):
            decode_scores(wrong)
    other = pa.table({"a": [1]}).replace_schema_metadata({b"wiresonde": b'{"format": 1, "kind": "scores"}'})
    for table, said in (
        (other, "not a table of scores: no column ts"),
        (other.replace_schema_metadata({b"wiresonde": b'{"format": 9, "kind": "scores"}'}), "format 9"),
        (
            other.replace_schema_metadata({b"wiresonde": b'{"kind": "x"}'}),
            "its header is not that of scores",
        ),
        (other.replace_schema_metadata(None), "its header is not that of scores"),
    ):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(InputError, match=said):
            decode_scores(sink.getvalue().to_pybytes())


def test_a_message_that_is_compressed_within_is_refused_before_it_takes_room() -> None:
    table = score_table(batch(50))
    sink = pa.BufferOutputStream()
    schema = table.schema.with_metadata({b"wiresonde": b'{"format": 1, "kind": "scores"}'})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_table(table.cast(schema))
    with pytest.raises(InputError, match="compressed within"):
        decode_scores(sink.getvalue().to_pybytes())


def test_batches_joined_over_shared_records_give_the_tables_they_gave_apart() -> None:
    one = batch(40, 1, probes=3)
    ends = one.records
    begun = choose(one, np.arange(5))
    other = batch(40, 2, probes=3)
    shared = [
        begun,
        one,
        type(one)("watcher", "w1", ends, other.scores, None, shadow=True),
        type(one)("watcher", "w1", ends, other.scores[10:30], np.arange(10, 30), shadow=True),
    ]
    whole, joined = join(shared)
    assert len(whole) == 45  # each record once
    assert [(b.model, len(b), b.shadow) for b in joined] == [("kitsune", 45, False), ("watcher", 60, True)]
    for model, parts in (("kitsune", shared[:2]), ("watcher", shared[2:])):
        apart = pa.concat_tables([score_table(b, PROBES) for b in parts])
        (together,) = [b for b in joined if b.model == model]
        assert score_table(together, PROBES).combine_chunks().equals(apart.combine_chunks())


def test_text_that_is_not_utf_8_is_refused_when_scores_are_read(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"model": broken}), tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=r"scores\.parquet: .*column model: text that is not UTF-8$"):
        read_scores([tmp_path / "scores.parquet"])
