"""What capture files report of themselves, and what is odd in them, beside their frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FileCounts:
    """Counts over all capture files of a run."""

    lost: int = 0  # packets lost while capturing, by the files' own statistics
    untimed: int = 0  # packets without a time: Simple Packet Blocks
    over_us: int = 0  # packets whose fraction of a second is above 999,999 µs
    over_ns: int = 0  # packets whose fraction of a second is above 999,999,999 ns
    beyond: int = 0  # packets later than an int64 of nanoseconds holds, which keep its greatest value
    before: int = 0  # packets before 1970
    joined: int = 0  # captures that follow another in the same file
    joined_at: str = ""  # file and byte of the first of them
    filtered: int = 0  # packets that a filter left out

    def join(self, path: str, offset: int) -> None:
        """Count a capture that begins at byte ``offset`` of a file."""
        self.joined += 1
        self.joined_at = self.joined_at or f"byte {offset} of {path}"
