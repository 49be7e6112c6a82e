"""Counts of what was read, and what was not, for the notes that every command makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from connectors.files.counts import FileCounts
from connectors.files.frames import FrameBlock
from engine.types import Packets, Reason, count_unread


@dataclass
class Tally:
    """Counts over all packets of a run; engine/commands/notes.py makes sentences of them."""

    packets: int = 0
    unread: Counter[str] = field(default_factory=Counter)  # packets not fully read, by Reason in lower case
    link_types: Counter[int] = field(default_factory=Counter)  # packets by link type without a decoder
    evicted: int = 0  # connections ended early because the table was full
    late: int = 0  # packets older than ones before them
    copies: int = 0  # copies that the captures made of packets
    steps_back: int = 0  # times that event time went back
    pauses: int = 0  # pauses of captures that a paced replay shortened
    pause_seconds: float = 0.0  # seconds of the captures by which they were shortened, together
    files: FileCounts = field(default_factory=FileCounts)  # counts that capture files report

    def follow(self, counters: Iterable[Mapping[str, int]]) -> None:
        """Take the counts of all connection tables of a run."""
        found = list(counters)
        self.late = sum(one["late_packets"] for one in found)
        self.evicted = sum(one["evicted"] for one in found)
        self.copies = sum(one["copies"] for one in found)
        self.steps_back = max((one["steps_back"] for one in found), default=0)

    def take(self, frames: FrameBlock, p: Packets) -> None:
        """Count a block. p: its packets, row for row."""
        self.packets += p.ts.size
        if unread := count_unread(p):
            self.unread.update(unread)
            self.link_types.update(frames.link_type[p.reason == Reason.LINK_TYPE].tolist())
