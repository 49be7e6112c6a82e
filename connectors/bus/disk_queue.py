"""A bounded queue of messages in an SQLite file: it survives a restart, and the file never exceeds its bound."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SLOTS = 64  # most processes that share a directory
PAGE = 4096
JOURNAL = 32 * PAGE  # bytes kept for the journal of a deletion
LEAST = 4 * JOURNAL  # least bytes of all files with little in them


class SpillError(Exception):
    """A directory cannot be used; the message names it."""


@dataclass(slots=True)
class Held:
    """A message in the queue."""

    partition: int
    packets: int
    value: bytes
    about: str = "a message kept on disk"
    number: int = 0  # number in the order in which messages came
    stored: bool = False  # whether it is in the file


class DiskQueue:
    """Messages in order. ``take`` leaves them in the file until ``release``. Not thread-safe by itself."""

    def __init__(self, directory: Path, most: int) -> None:
        """``most``: bytes of the files. Raises SpillError; takes over what an earlier process left."""
        self._most = max(most, LEAST)
        self._file, self._path = self._open(directory)
        self._reserve = self._path.with_suffix(".reserve")
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(bytes(JOURNAL))
        row = self._file.execute("SELECT min(row), max(row), count(*), sum(packets) FROM message").fetchone()
        first, last, messages, packets = row
        self.next = (last or 0) + 1  # number for the next message
        self._taken = (first or 1) - 1  # row of the last message taken
        self.messages, self.packets = messages, packets or 0  # counts of messages not taken
        if self.messages:
            logger.info("spill: took over file=%s packets=%d", self._path, self.packets)

    def _open(self, directory: Path) -> tuple[sqlite3.Connection, Path]:
        for slot in range(SLOTS):  # processes of one sensor share a directory; each has its own file
            path = directory / f"spill-{slot:02d}.sqlite"
            try:
                directory.mkdir(parents=True, exist_ok=True)
                return self._connect(path), path
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise SpillError(f"{path}: {error}") from None
            except sqlite3.DatabaseError as error:
                logger.warning("spill: %s: %s; starting a new file", path, error)
                for old in directory.glob(f"{path.name}*"):
                    old.unlink()
                return self._connect(path), path
            except OSError as error:
                raise SpillError(f"{path}: {error.strerror}") from error
        raise SpillError(f"{directory}: already used by {SLOTS} processes, the most; use another directory")

    def _connect(self, path: Path) -> sqlite3.Connection:
        file = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            file.execute(f"PRAGMA page_size={PAGE}")
            file.execute("PRAGMA locking_mode=EXCLUSIVE")
            file.execute("PRAGMA journal_mode=PERSIST")  # keeps its space, for deletions on a full disk
            file.execute(
                "PRAGMA synchronous=OFF"
            )  # a crash of the process loses nothing, a crash of the machine may
            file.execute(f"PRAGMA journal_size_limit={JOURNAL}")
            file.execute(f"PRAGMA max_page_count={(self._most - 2 * JOURNAL) // PAGE}")
            file.execute("BEGIN IMMEDIATE")  # takes the lock, for as long as the file is open
            file.execute(
                "CREATE TABLE IF NOT EXISTS message"
                " (row INTEGER PRIMARY KEY, partition INTEGER, packets INTEGER, value BLOB)"
            )
            file.execute("COMMIT")
            file.execute("SELECT count(*) FROM message").fetchone()
        except sqlite3.Error:
            file.close()
            raise
        return file

    def put(self, message: Held) -> bool:
        """Keep a message; False when there is no room, or the disk is full or fails."""
        values = (message.number, message.partition, message.packets, message.value)
        try:
            self._file.execute("INSERT INTO message VALUES (?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            logger.debug("spill: %s: %s", self._path, error)
            self._limit(self._pages("page_count"))  # the journal needs the room that is left
            return False
        self.messages += 1
        self.packets += message.packets
        return True

    def take(self) -> Held | None:
        """The next message, None without one."""
        if not self.messages:
            self._limit((self._most - 2 * JOURNAL) // PAGE)
            return None
        query = "SELECT row, partition, packets, value FROM message WHERE row > ? ORDER BY row LIMIT 1"
        try:
            found = self._file.execute(query, (self._taken,)).fetchone()
        except sqlite3.Error as error:
            logger.warning("spill: %s: %s", self._path, error)
            found = None
        if found is None:
            return None
        row, partition, packets, value = found
        self._taken = row
        self.messages -= 1
        self.packets -= packets
        return Held(partition, packets, bytes(value), number=row, stored=True)

    def release(self, row: int) -> bool:
        """Delete a message that was taken; False when the disk fails, and a restart will give it again."""
        for _ in range(2):
            try:
                self._file.execute("DELETE FROM message WHERE row = ?", (row,))
            except sqlite3.Error as error:
                logger.warning("spill: %s: %s", self._path, error)
                with contextlib.suppress(OSError):  # a full disk has no room for the journal before this
                    self._reserve.unlink()
            else:
                return True
        return False

    def give_up_oldest(self) -> int | None:
        """Drop the oldest message that was not taken; its packets, None without one."""
        query = "SELECT row, packets FROM message WHERE row > ? ORDER BY row LIMIT 1"
        try:
            found = self._file.execute(query, (self._taken,)).fetchone()
        except sqlite3.Error as error:
            logger.warning("spill: %s: %s", self._path, error)
            return None
        if found is None:
            return None
        row, packets = found
        if not self.release(row):
            return None
        self.messages -= 1
        self.packets -= packets
        return int(packets)

    @property
    def size(self) -> int:
        """Bytes of the file in use."""
        return (self._pages("page_count") - self._pages("freelist_count")) * PAGE

    def _pages(self, name: str) -> int:
        try:
            return int(self._file.execute(f"PRAGMA {name}").fetchone()[0])
        except sqlite3.Error:
            return 0

    def _limit(self, pages: int) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._file.execute(f"PRAGMA max_page_count={pages}")

    def close(self) -> None:
        """Close the file; delete it if it is empty."""
        left = 1
        with contextlib.suppress(sqlite3.Error):
            left = self._file.execute("SELECT count(*) FROM message").fetchone()[0]
            self._file.close()
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
            for path in self._path.parent.glob(f"{self._path.name}*") if not left else ():
                path.unlink()
