"""All state of one partition: blocks in, scored connections out. A pure function of the partition's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.connections.bounds import TrackerConfig
from engine.connections.tracker import Tracker
from engine.scorers import Scorer
from engine.types import PacketBlock, Packets, Rows, ScoreBatch, take

SPARE = 8192  # connections that may end in one step of the tracker


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
        self.lost_blocks = 0  # numbers missing between the blocks of a sensor
        self.repeated_blocks = 0  # blocks seen before, skipped
        self.dropped = 0  # packets that sensors say they lost
        self.unread: Counter[str] = Counter()
        self._next: dict[tuple[str, int], int] = {}  # (sensor, epoch) -> next seq

    def process(self, block: PacketBlock, offset: int) -> list[ScoreBatch]:
        """Rows of connections that ended, or whose alarm began, in this block; each ended connection once.

        A row for the beginning of an alarm has the score of the packet with which it began, and counts its
        connection's packets up to the end of the block.
        """
        if not self._expected(block):
            return []
        self.dropped += block.dropped
        if block.dropped:
            self.tracker.mark_loss()
        self.unread.update(block.unread)
        self.packets += len(block)
        out: list[ScoreBatch] = []
        rest = block.packets
        while rest.ts.size:
            n = min([rest.ts.size, *(s.until_boundary(rest) for s in self.scorers)])
            self._step(take(rest, slice(0, n)) if n < rest.ts.size else rest, offset, out)
            rest = take(rest, slice(n, None))
            for scorer in self.scorers:
                scorer.settle(self.tracker.live)
        self._advance(block.now, offset, out)
        return out

    def _expected(self, block: PacketBlock) -> bool:
        key = (block.sensor, block.epoch)
        awaited = self._next.get(key, block.seq)
        if block.seq < awaited:
            self.repeated_blocks += 1
            return False
        self.lost_blocks += block.seq - awaited
        if block.seq > awaited:
            self.tracker.mark_loss()
        self._next[key] = block.seq + 1
        return True

    def _step(self, p: Packets, offset: int, out: list[ScoreBatch]) -> None:
        scores = [scorer.score(p) for scorer in self.scorers]
        for tracked in self.tracker.track(p):
            rows = slice(tracked.begin, tracked.end)
            for scorer, values in zip(self.scorers, scores):
                begun, at = scorer.absorb(tracked.slot, p.ts[rows], values[rows])
                if begun.size:
                    out.append(self._batch(scorer, begun, at, offset))
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
