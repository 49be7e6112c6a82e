"""All state of one partition: blocks in, scored connections out. The rows depend only on the partition's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.bounds import SPARE, TrackerConfig
from engine.connections.layout import CONNECTION, PACKET_COPY, SIDE
from engine.connections.tracker import Tracked, Tracker
from engine.errors import StateError
from engine.scoring.batch import Records, ScoreBatch
from engine.scoring.passes import FeaturePass, Features
from engine.scoring.scorer import Ended, Events, Found, Scorer, Slots, State
from engine.scoring.trace import Tracer
from engine.types import PacketBlock, Packets, count_unread, freeze, rows_at, take, under

SENSORS = 4096  # most sensor runs whose sequence numbers are remembered
NO_SLOTS = np.empty(0, np.int32)


def slots_needed(config: TrackerConfig) -> int:
    """Number of slots of a tracker's table, for scorers that keep state by slot."""
    return config.capacity + SPARE


@dataclass(frozen=True)
class Entry:
    """A scorer of a detector, its features, and the digest that its saved state must have."""

    scorer: Scorer
    digest: str  # digest of everything that the state depends on
    features: Features | None  # input of the scorer's model


class Detector:
    """Connection table, feature passes and scorers of one partition."""

    def __init__(
        self, partition: int, tracker: TrackerConfig, entries: Sequence[Entry], tracer: Tracer | None = None
    ) -> None:
        """``entries``: scorers with distinct names, each with room for ``slots_needed(tracker)`` slots."""
        self.partition = partition
        self.tracker = Tracker(tracker, SPARE)
        self.scorers = [entry.scorer for entry in entries]
        self.tracer = tracer
        if tracer is not None:
            tracer.allocate(slots_needed(tracker))
        self._entries = list(entries)
        self._passes: dict[str, FeaturePass] = {}
        for entry in entries:
            if entry.features is not None and entry.features.digest not in self._passes:
                self._passes[entry.features.digest] = entry.features.begin(slots_needed(tracker))
        self.packets = 0
        self._given = 0  # packets given to models: all but copies, where these are dropped
        self.lost_packets = 0  # packets missing from the sequence numbers of a sensor
        self.repeated_packets = 0  # packets published again, skipped
        self.dropped = 0  # packets that sensors reported as lost
        self.unread: Counter[str] = Counter()
        self.cold: list[str] = []  # names of shadows missing from a restored state
        self._next: dict[tuple[str, int], int] = {}  # (sensor, epoch) -> next seq, in order of use
        self._cold = False

    def process(self, block: PacketBlock) -> list[ScoreBatch]:
        """Rows of connections that ended, or whose alarm began, in this block; one row for each model.

        A row for the beginning of an alarm has the score of the packet that raised it, and counts the connection's
        packets up to the end of the block.
        """
        rest = self._expected(block)
        if len(block) and not rest.ts.size:
            return []
        self.dropped += block.dropped
        if block.dropped or block.loss:
            self.tracker.mark_loss()
        if not rest.ts.size:
            return list(self._advance(block.now))
        self.unread.update(count_unread(rest))
        if self._cold:
            self.tracker.mark_cold(int(rest.ts[0]))
            self._cold = False
        self.packets += rest.ts.size
        return list(self._step(rest))

    def start_cold(self) -> None:
        """Note that earlier packets were never seen: connections may have begun before the first one."""
        self._cold = True

    def _expected(self, block: PacketBlock) -> Packets:
        """The packets of a block that have not been processed yet."""
        key = (block.sensor, block.epoch)
        awaited = self._next.pop(key, block.seq)
        repeated = min(max(0, awaited - block.seq), len(block))
        if block.seq > awaited:
            self.lost_packets += block.seq - awaited
            self.tracker.mark_loss()
        self.repeated_packets += repeated
        self._next[key] = max(awaited, block.seq + len(block))
        if len(self._next) > SENSORS:
            del self._next[next(iter(self._next))]
        return take(block.packets, slice(repeated, None)) if repeated else block.packets

    def _step(self, p: Packets) -> Iterator[ScoreBatch]:
        for step in self.tracker.track(p):
            part = p if step.end - step.begin == p.ts.size else take(p, slice(step.begin, step.end))
            tracked = replace(step, number=self._given)
            if self.tracker.config.copies != "keep":
                part, tracked = without_copies(part, tracked)
            self._given += part.ts.size
            waiting = {e.features.digest for e in self._entries if e.features and e.scorer.first is None}
            for digest, one in self._passes.items():
                one.warming = digest in waiting
            given = {digest: one.update(part, tracked) for digest, one in self._passes.items()}
            records, ended = self._ended(tracked.closed)
            if self.tracer is not None:
                self.tracer.packets(part, tracked, self.tracker.table.rows)
            for k, entry in enumerate(self._entries):
                x = None if entry.features is None else given[entry.features.digest]
                self._warm_up(entry, tracked.number, part.ts.size)
                found = entry.scorer.step(part, tracked, x, ended, self._events(k))
                yield from self._batches(entry.scorer, found, records)
            yield from self._interim(tracked)
            if self.tracer is not None:
                self.tracer.end(ended)

    def _interim(self, t: Tracked) -> Iterator[ScoreBatch]:
        slots = t.going_on()
        if slots.size:
            for entry in self._entries:
                yield from self._batches(entry.scorer, [entry.scorer.interim(slots)], NO_RECORDS)

    def _warm_up(self, entry: Entry, number: int, n: int) -> None:
        """Let a scorer know from which of n packets on its features are warm; the first has the number."""
        scorer = entry.scorer
        if scorer.first is None and scorer.start is not None and entry.features is not None:
            scorer.warm_up(number, self._passes[entry.features.digest].ready(scorer.start), n)

    def _advance(self, now: int) -> Iterator[ScoreBatch]:
        """Advance event time without packets: connections that have timed out end."""
        now = self.tracker.believe(now)
        given = {digest: one.tick(now) for digest, one in self._passes.items()}
        for k, entry in enumerate(self._entries):
            x = None if entry.features is None else given[entry.features.digest]
            found = entry.scorer.tick(now, x, self._events(k))
            yield from self._batches(entry.scorer, found, NO_RECORDS)
        for closed in self.tracker.expire():
            yield from self._finish(closed)

    def flush(self) -> list[ScoreBatch]:
        """Rows of all live connections, ended as at the end of a capture."""
        return [batch for slots in self.tracker.flush() for batch in self._finish(slots)]

    def _finish(self, closed: Slots) -> Iterator[ScoreBatch]:
        records, ended = self._ended(closed)
        given = {digest: one.close(closed) for digest, one in self._passes.items()}
        for k, entry in enumerate(self._entries):
            x = None if entry.features is None else given[entry.features.digest]
            yield from self._batches(entry.scorer, entry.scorer.finish(ended, x, self._events(k)), records)
        if self.tracer is not None:
            self.tracer.end(ended)

    def _events(self, k: int) -> Callable[[Events], None]:
        return _ignore if self.tracer is None else self.tracer.events(k)

    def _ended(self, closed: Slots) -> tuple[Records, Ended]:
        if not closed.size:
            return NO_RECORDS, Ended(NO_SLOTS, NO_RECORDS.rows, NO_RECORDS.sides)
        rows, sides = self.tracker.rows(closed)
        return Records(rows, sides), Ended(closed, rows, sides)

    def _batches(self, scorer: Scorer, found: Sequence[Found], records: Records) -> Iterator[ScoreBatch]:
        for one in found:
            at = None
            if one.first < 0:  # alarms that began, and interim rows
                rows, sides = self.tracker.rows(one.slots)
                rows["ending"] = 0  # provisional, even if the connection ends in the same block
                its = Records(rows, sides)
            else:
                its = records
                if one.scores.size != len(records):
                    at = np.arange(one.first, one.first + one.scores.size)
            scorer.judge(one.scores, its.rows if at is None else rows_at(its.rows, at))
            yield ScoreBatch(scorer.name, one.version, its, one.scores, at, scorer.shadow)

    def features_of(self, scorer: Scorer) -> FeaturePass | None:
        """The pass that computes a scorer's features."""
        digests = [e.features.digest for e in self._entries if e.scorer is scorer and e.features is not None]
        return self._passes[digests[0]] if digests else None

    def counters(self, scorer: Scorer) -> Mapping[str, int]:
        """Counts of a scorer's model and its features since the partition's beginning."""
        found = dict(scorer.model.counters())
        if (own := self.features_of(scorer)) is not None:
            found |= own.counters()
        return found

    def state(self) -> State:
        """A copy of everything that later rows depend on; after ``restore``, they are equal to the last bit."""
        arrays = {f"tracker.{name}": array for name, array in self.tracker.state().items()}
        values: dict[str, Any] = {
            "packets": self.packets, "given": self._given, "lost_packets": self.lost_packets, "dropped": self.dropped,
            "repeated_packets": self.repeated_packets, "unread": dict(self.unread), "cold": self._cold,
            "next": [[sensor, epoch, seq] for (sensor, epoch), seq in self._next.items()],
            "features": sorted(self._passes), "models": {},
        }  # fmt: skip
        for digest, one in self._passes.items():
            arrays |= {f"features.{digest}.{name}": array for name, array in one.state().items()}
        for entry in self._entries:
            own, said = entry.scorer.state()
            name = entry.scorer.name
            arrays |= {f"models.{name}.{key}": array for key, array in own.items()}
            values["models"][name] = {"digest": entry.digest, "values": said}
        if self.tracer is not None:
            own, values["trace"] = self.tracer.state()
            arrays |= {f"trace.{key}": array for key, array in own.items()}
        return arrays, values

    def restore(self, state: State) -> None:
        """Continue from a state. StateError if it does not fit the configuration; the detector is then unusable.

        A shadow that is missing from the state, or has another digest there, begins without state; ``cold`` names it.
        """
        arrays, values = state
        try:
            self.tracker.restore(under(arrays, "tracker."))
            self._restore_models(arrays, values)
            if self.tracer is not None and "trace" in values:
                self.tracer.restore(under(arrays, "trace."), values["trace"])
            self.packets, self._given, self.dropped = values["packets"], values["given"], values["dropped"]
            self.lost_packets, self.repeated_packets = values["lost_packets"], values["repeated_packets"]
            self.unread, self._cold = Counter(values["unread"]), values["cold"]
            self._next = {(sensor, epoch): seq for sensor, epoch, seq in values["next"]}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StateError(f"state of partition {self.partition} does not fit: {error}") from error

    def _restore_models(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        for digest, one in self._passes.items():
            if digest in values["features"]:
                one.restore(under(arrays, f"features.{digest}."))
        for entry in self._entries:
            name = entry.scorer.name
            saved = values["models"].get(name)
            if saved is not None and saved["digest"] == entry.digest:
                if entry.features is not None and entry.features.digest not in values["features"]:
                    raise StateError(
                        f"partition {self.partition}, model {name}: the snapshot lacks its features"
                    )
                entry.scorer.restore((under(arrays, f"models.{name}."), saved["values"]))
            elif entry.scorer.shadow:
                self.cold.append(name)
            else:
                said = (
                    "has no model of that name"
                    if saved is None
                    else "was made with another configuration or bundle"
                )
                raise StateError(f"partition {self.partition}, model {name}: the snapshot {said}")


NO_RECORDS = Records(np.zeros(0, CONNECTION), np.zeros((0, 2), SIDE))


def _ignore(events: Events) -> None:
    """Drop events when no tracer is set."""


def without_copies(p: Packets, t: Tracked) -> tuple[Packets, Tracked]:
    """Packets and the tracker's results without the copies that the capture made."""
    keep = (t.flags & PACKET_COPY) == 0
    if keep.all():
        return p, t
    before = np.concatenate(([0], np.cumsum(keep)))  # packets kept before each row, and before the next step
    return freeze(take(p, keep)), replace(
        t,
        slot=t.slot[keep],
        flags=t.flags[keep],
        segment=t.segment[keep],
        seen=t.seen[keep],
        closed_at=before[t.closed_at],
    )
