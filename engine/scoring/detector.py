"""All state of one partition: blocks in, scored connections out. A pure function of the partition's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.bounds import SPARE, TrackerConfig
from engine.connections.tracker import Tracker
from engine.errors import StateError
from engine.scoring.kitsune import Scorer, State
from engine.types import PacketBlock, Packets, Rows, ScoreBatch, count_unread, take, under

SENSORS = 4096  # runs of sensors whose numbers are remembered


def slots_needed(config: TrackerConfig) -> int:
    """Slots of a tracker's table, for scorers that keep state by slot."""
    return config.capacity + SPARE


class Detector:
    """Connection table and scorers of one partition."""

    def __init__(self, partition: int, tracker: TrackerConfig, scorers: Sequence[Scorer]) -> None:
        """``scorers``: each with room for ``slots_needed(tracker)`` slots."""
        self.partition = partition
        self.tracker = Tracker(tracker, SPARE)
        self.scorers = list(scorers)
        self.packets = 0
        self.lost_packets = 0  # numbers missing between the packets of a sensor
        self.repeated_packets = 0  # packets published again, skipped
        self.dropped = 0  # packets that sensors say they lost
        self.unread: Counter[str] = Counter()
        self._next: dict[tuple[str, int], int] = {}  # (sensor, epoch) -> next seq, in order of use
        self._cold = False

    def process(self, block: PacketBlock, offset: int) -> list[ScoreBatch]:
        """Rows of connections that ended, or whose alarm began, in this block; each ended connection once.

        A row for the beginning of an alarm has the score of the packet with which it began, and counts its
        connection's packets up to the end of the block.
        """
        out: list[ScoreBatch] = []
        rest = self._expected(block)
        if len(block) and not rest.ts.size:
            return out
        self.dropped += block.dropped
        if block.dropped or block.loss:
            self.tracker.mark_loss()
        self.unread.update(count_unread(rest))
        self.packets += rest.ts.size
        if self._cold and rest.ts.size:
            self.tracker.mark_cold(int(rest.ts[0]))
            self._cold = False
        while rest.ts.size:
            n = min([rest.ts.size, *(s.until_boundary(rest) for s in self.scorers)])
            self._step(take(rest, slice(0, n)) if n < rest.ts.size else rest, offset, out)
            rest = take(rest, slice(n, None))
            for scorer in self.scorers:
                scorer.settle(self.tracker.live)
        if not len(block):
            self._advance(block.now, offset, out)
        return out

    def start_cold(self) -> None:
        """Packets went before that this detector never saw: connections may have begun before the first."""
        self._cold = True

    def _expected(self, block: PacketBlock) -> Packets:
        """The packets of a block that were not processed before."""
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

    def _step(self, p: Packets, offset: int, out: list[ScoreBatch]) -> None:
        scores = [scorer.score(p) for scorer in self.scorers]
        for tracked in self.tracker.track(p):
            rows = slice(tracked.begin, tracked.end)
            for scorer, values in zip(self.scorers, scores):
                begun, at = scorer.absorb(tracked.slot, p.ts[rows], values[rows])
                if begun.size:
                    out.append(self._batch(scorer, begun, at, offset))
                    out[-1].rows["ending"] = 0  # provisional, even if the block also ends it
                if tracked.closed.size:
                    out.append(self._batch(scorer, tracked.closed, scorer.finish(tracked.closed), offset))

    def _advance(self, now: int, offset: int, out: list[ScoreBatch]) -> None:
        """Let event time pass without packets: what has waited long enough ends."""
        for closed in self.tracker.advance(now):
            out.extend(self._batch(scorer, closed, scorer.finish(closed), offset) for scorer in self.scorers)

    def flush(self, offset: int) -> list[ScoreBatch]:
        """End every live connection, as at the end of a capture."""
        out: list[ScoreBatch] = []
        for slots in self.tracker.flush():
            out.extend(self._batch(scorer, slots, scorer.finish(slots), offset) for scorer in self.scorers)
        return out

    def _batch(self, scorer: Scorer, slots: NDArray[np.int32], scores: Rows, offset: int) -> ScoreBatch:
        rows, sides = self.tracker.rows(slots)
        scores["partition"], scores["offset"] = self.partition, offset
        return ScoreBatch(scorer.name, scorer.version, rows, sides, scores)

    def state(self) -> State:
        """A copy of all that later rows depend on; ``restore`` goes on from it to the last bit."""
        arrays = {f"tracker.{name}": array for name, array in self.tracker.state().items()}
        values: dict[str, Any] = {
            "packets": self.packets, "lost_packets": self.lost_packets, "dropped": self.dropped,
            "repeated_packets": self.repeated_packets, "unread": dict(self.unread), "cold": self._cold,
            "next": [[sensor, epoch, seq] for (sensor, epoch), seq in self._next.items()],
        }  # fmt: skip
        for scorer in self.scorers:
            own, said = scorer.state()
            arrays |= {f"{scorer.name}.{name}": array for name, array in own.items()}
            values[scorer.name] = said
        return arrays, values

    def restore(self, state: State) -> None:
        """Take over a state. StateError when it is not of this configuration; the detector is spoilt then."""
        arrays, values = state
        try:
            self.tracker.restore(under(arrays, "tracker."))
            for scorer in self.scorers:
                scorer.restore((under(arrays, f"{scorer.name}."), values[scorer.name]))
            self.packets, self.dropped = values["packets"], values["dropped"]
            self.lost_packets, self.repeated_packets = values["lost_packets"], values["repeated_packets"]
            self.unread, self._cold = Counter(values["unread"]), values["cold"]
            self._next = {(sensor, epoch): seq for sensor, epoch, seq in values["next"]}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StateError(f"state of partition {self.partition} does not fit: {error}") from error
