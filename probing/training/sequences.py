"""Connections as sequences of tokens, each with its labels: what a model over packets learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.commands.reading import Progress, frames
from engine.connections.bounds import TrackerConfig
from engine.connections.layout import PACKET_OPENED
from engine.connections.tracker import Tracked, Tracker
from engine.errors import InputError
from engine.features.tokens import TokenConfig, Tokens
from engine.headers.decode import decode
from engine.scoring.detector import slots_needed, without_copies
from engine.scoring.token_pass import TokenPass
from engine.types import Packets, Rows, take
from probing.corpus.columns import Ints
from probing.corpus.labelled import Labelled

BENIGN, ATTACK, UNSURE = 0, 1, -1


@dataclass(frozen=True)
class Sequences:
    """Tokens of n connections, one connection after the other.

    labels: a row a connection. Tokens of connection k are rows start[k]..start[k + 1] of the columns.
    """

    rows: NDArray[np.int16]  # (tokens, entries) inputs of each token, -1 behind the last
    values: NDArray[np.float32]  # (tokens, entries) the value of each input
    start: Ints  # (n + 1,)
    labels: pa.Table  # n rows

    def __len__(self) -> int:
        return self.start.size - 1

    @property
    def lengths(self) -> Ints:
        """(n,) number of tokens of each connection."""
        return np.diff(self.start)

    def chosen(self, which: NDArray[np.bool_]) -> Sequences:
        """The connections that a mask (n,) chooses."""
        lengths = self.lengths
        mine = np.repeat(which, lengths)
        start = np.concatenate(([0], np.cumsum(lengths[which])))
        return Sequences(self.rows[mine], self.values[mine], start, self.labels.filter(pa.array(which)))


def truth(labels: pa.Table) -> NDArray[np.int8]:
    """BENIGN, ATTACK or UNSURE of each label row.

    UNSURE, to be left out of learning, is a connection of an attacker that holds no part of the attack, and an attack
    that failed: both look like benign connections.
    """
    attack = np.array(labels.column("attack").to_pylist(), np.int64) == 1
    result = np.where(attack, ATTACK, BENIGN).astype(np.int8)
    for name in ("carries_attack", "succeeded"):
        if name in labels.column_names:
            no = np.array([value is False for value in labels.column(name).to_pylist()], bool)
            result[attack & no] = UNSURE
    return result


def read_sequences(
    known: Labelled, captures: Sequence[Path], config: TokenConfig, tracker: TrackerConfig | None = None,
    progress: Progress | None = None,
) -> Sequences:  # fmt: skip
    """The labelled connections that have tokens, in the order in which they began.

    known: the labels of the captures' connections. Their columns run and pair get the corpus's name as a prefix, and
    corpus is added, so that sequences of several corpora can be joined. Raises InputError for a damaged capture.
    """
    collector = _Collector(config, tracker or TrackerConfig())
    for block in frames(captures, 4096, progress):
        collector.take(decode(block))
    tokens, connection, shown = collector.result()
    if shown.size != known.row.size:
        raise InputError(f"{captures[0]}: changed while it was read")
    row = np.full(collector.opened, -1, np.int64)
    row[shown] = known.row
    return _sequences(tokens, connection, row, known)


def join_sequences(parts: Sequence[Sequences]) -> Sequences:
    """Sequences one after the other. A label that a part lacks is empty there."""
    schemas = [part.labels.schema for part in parts]
    shared = pa.unify_schemas(schemas, promote_options="permissive")
    labels = pa.concat_tables(
        [part.labels.cast(pa.schema([shared.field(n) for n in part.labels.column_names])) for part in parts],
        promote_options="default",
    )
    start = np.concatenate(([0], np.cumsum(np.concatenate([part.lengths for part in parts]))))
    rows, values = ([getattr(part, name) for part in parts] for name in ("rows", "values"))
    return Sequences(np.concatenate(rows), np.concatenate(values), start, labels)


class _Collector:
    """Tokens so far, and the number of the connection of each, counted from 0 as connections begin."""

    def __init__(self, config: TokenConfig, tracker: TrackerConfig) -> None:
        self.opened = 0
        self._tracker = Tracker(tracker)
        self._pass = TokenPass(config, None, slots_needed(tracker))
        self._number = np.full(self._tracker.table.rows.size, -1, np.int64)  # connection of each slot
        self._given = 0  # packets given to the pass
        self._empty = np.zeros((0, config.entries), np.int16)
        self._tokens: list[tuple[Ints, NDArray[np.int16], NDArray[np.float32]]] = []
        self._closed: list[tuple[Ints, Rows]] = []

    def take(self, p: Packets) -> None:
        """Take the packets of a block."""
        for step in self._tracker.track(p):
            q = p if step.end - step.begin == p.ts.size else take(p, slice(step.begin, step.end))
            self._open(step)
            t = replace(step, number=self._given)
            if self._tracker.config.copies != "keep":
                q, t = without_copies(q, t)
            self._given += q.ts.size
            self._add(self._pass.update(q, t))
            self._close(step.closed)

    def _open(self, step: Tracked) -> None:
        opened = step.slot[(step.slot >= 0) & ((step.flags & PACKET_OPENED) != 0)]
        self._number[opened] = np.arange(self.opened, self.opened + opened.size)
        self.opened += opened.size

    def _add(self, tokens: Tokens) -> None:
        if tokens.slot.size:
            # what lies behind the end has no meaning
            ended = np.logical_or.accumulate(tokens.rows < 0, axis=1)
            rows = np.where(ended, -1, tokens.rows).astype(np.int16)
            values = np.where(ended, np.float32(0), tokens.values)
            self._tokens.append((self._number[tokens.slot], rows, values))

    def _close(self, slots: NDArray[np.int32]) -> None:
        if slots.size:
            self._closed.append((self._number[slots], self._tracker.rows(slots)[0]["ethertype"].copy()))

    def result(self) -> tuple[tuple[NDArray[np.int16], NDArray[np.float32]], Ints, Ints]:
        """Rows and values of all tokens; number of the connection of each; numbers of connections of IP, ascending."""
        for slots in self._tracker.flush():
            self._add(self._pass.close(slots))
            self._close(slots)
        number = np.concatenate([np.zeros(0, np.int64), *(n for n, _, _ in self._tokens)])
        rows = np.concatenate([self._empty, *(r for _, r, _ in self._tokens)])
        values = np.concatenate([self._empty.astype(np.float32), *(v for _, _, v in self._tokens)])
        ended = np.concatenate([np.zeros(0, np.int64), *(n for n, _ in self._closed)])
        kind = np.concatenate([np.zeros(0, np.int64), *(e for _, e in self._closed)])
        return (rows, values), number, np.sort(ended[kind == 0])


def _sequences(
    tokens: tuple[NDArray[np.int16], NDArray[np.float32]], connection: Ints, row: Ints, known: Labelled
) -> Sequences:
    """Sequences of tokens, which are in order of release.

    connection: (tokens,) number of the connection of each. row: (connections,) label row of each, -1 for none.
    """
    labelled = np.flatnonzero(row[connection] >= 0)
    order = labelled[np.argsort(connection[labelled], kind="stable")]
    found, count = np.unique(connection[order], return_counts=True)
    labels = known.labels.take(pa.array(row[found]))
    for name in ("run", "pair"):
        texts = [f"{known.name}/{text}" if text else "" for text in labels.column(name).to_pylist()]
        labels = labels.set_column(labels.column_names.index(name), name, pa.array(texts, pa.string()))
    labels = labels.append_column("corpus", pa.array([known.name] * found.size, pa.string()))
    return Sequences(tokens[0][order], tokens[1][order], np.concatenate(([0], np.cumsum(count))), labels)


def batches_of(lengths: Ints, most: int) -> Iterator[Ints]:
    """Indices of connections in batches of like lengths, each of at most ``most`` tokens when padded, or of one."""
    order = np.argsort(lengths, kind="stable")
    begin = 0
    while begin < order.size:
        end = begin + 1
        while end < order.size and (end + 1 - begin) * lengths[order[end]] <= most:
            end += 1
        yield order[begin:end]
        begin = end
