"""A partition's state on disk: the process that takes over the partition continues bit for bit.

Each snapshot is one immutable safetensors file, ``PLACE/TOPIC/PARTITION/OFFSET.safetensors``; the offset is that of the
next message. A snapshot depends only on the log up to its offset, so two processes that write at once do no harm. On a
file system: temporary file, fsync, rename, fsync of the directory. In an object store: one put.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import posixpath
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from connectors.files.whole import write_whole
from engine.errors import ConfigError, OutputError, StateError
from engine.scoring.scorer import State

logger = logging.getLogger(__name__)

SCHEMA = 2  # version of the detectors' state; raise it when the meaning of a field changes
KEPT = 2  # newest snapshots kept for each partition
_NAME = re.compile(r"(\d{20})\.safetensors")
_STRAY = re.compile(r"\.\d{20}\.safetensors\.[0-9a-f]{32}\.tmp")
OLD = 3600.0  # seconds after which a temporary file counts as left by a crash


@dataclass(frozen=True)
class Stamp:
    """Values that a snapshot and the process that restores it must share."""

    topic_id: str
    partitions: int  # number of partitions of the topic, which decides where host pairs go
    config: str  # digest of the configuration that the state depends on
    schema: int = SCHEMA


@dataclass(frozen=True)
class Snapshot:
    """A partition's state before the message at ``offset``."""

    partition: int
    offset: int
    state: State


class SnapshotStore:
    """Snapshots of one topic's partitions. Safe to use from several processes."""

    def __init__(self, place: str, topic: str) -> None:
        """``place``: a directory, or the URL of an object store for fsspec. ConfigError if it is not valid."""
        try:
            self._files, root = fsspec.core.url_to_fs(place)
        except (ImportError, ValueError, OSError) as error:
            raise ConfigError(f"state {place}: {error}") from None
        self._root = posixpath.join(root, topic)
        self._local = isinstance(self._files, LocalFileSystem)
        self.place = posixpath.join(place, topic)
        self.unreadable = 0  # damaged snapshots skipped

    def _folder(self, partition: int) -> str:
        return posixpath.join(self._root, str(partition))

    def offsets(self, partition: int) -> list[int]:
        """Offsets of a partition's snapshots, newest first."""
        try:
            self._files.invalidate_cache()
            names = self._files.ls(self._folder(partition), detail=False)
        except FileNotFoundError:
            return []
        found = (_NAME.fullmatch(posixpath.basename(name)) for name in names)
        return sorted((int(m[1]) for m in found if m), reverse=True)

    def save(self, snapshot: Snapshot, stamp: Stamp) -> int:
        """Write a snapshot and delete all but the newest two; returns its size in bytes. Raises OutputError."""
        data = _packed(snapshot, stamp)
        folder = self._folder(snapshot.partition)
        name = f"{snapshot.offset:020d}.safetensors"
        try:
            self._files.makedirs(folder, exist_ok=True)
            if self._local:
                _write_whole(folder, name, data)
            else:
                self._files.pipe_file(posixpath.join(folder, name), data)
            self._forget(snapshot.partition)
        except OSError as error:
            raise OutputError(f"{posixpath.join(folder, name)}: {error.strerror or error}") from error
        return len(data)

    def _forget(self, partition: int) -> None:
        for offset in self.offsets(partition)[KEPT:]:
            with contextlib.suppress(OSError):  # another process was first, or deletion is not permitted
                self._files.rm_file(posixpath.join(self._folder(partition), f"{offset:020d}.safetensors"))

    def newest(self, partition: int, stamp: Stamp) -> Snapshot | None:
        """The newest intact snapshot, None without one; damaged ones are skipped and counted.

        Raises StateError if it belongs to another topic, configuration or schema, and if the place cannot be read.
        """
        try:
            offsets = self.offsets(partition)
        except Exception as error:  # object stores raise exceptions of their own
            raise StateError(
                f"{posixpath.join(self.place, str(partition))}: cannot be read: {error}"
            ) from error
        for offset in offsets:
            path = posixpath.join(self._folder(partition), f"{offset:020d}.safetensors")
            try:
                data = self._files.cat_file(path)
            except FileNotFoundError:  # another process has already written newer ones
                continue
            except (
                Exception
            ) as error:  # object stores raise exceptions of their own; none of them means "no snapshot"
                raise StateError(f"{path}: cannot be read: {error}") from error
            try:
                arrays, header = _unpacked(data)
                found = Stamp(**header["stamp"])
                state = arrays, header["values"]
                whole = header["partition"] == partition and header["offset"] == offset
            except (KeyError, TypeError, ValueError, SafetensorError) as error:
                whole, problem = False, str(error)
            else:
                problem = "it belongs to another partition or offset"
            if not whole:
                self.unreadable += 1
                logger.warning("snapshot skipped: path=%s error=%s", path, problem)
                continue
            if found != stamp:
                raise StateError(
                    f"{path}: {_difference(found, stamp)}; to start without it, move {self.place} away"
                )
            return Snapshot(partition, offset, state)
        return None


def _difference(found: Stamp, wanted: Stamp) -> str:
    if found.schema != wanted.schema:
        return f"a snapshot of schema {found.schema}, this version reads {wanted.schema}"
    if found.topic_id != wanted.topic_id:
        return f"a snapshot of topic id {found.topic_id}, but the topic was created again and has {wanted.topic_id}"
    if found.partitions != wanted.partitions:
        return (
            f"a snapshot of a topic with {found.partitions} partitions, which now has {wanted.partitions}: "
            f"host pairs are now on other partitions"
        )
    return "a snapshot of another configuration (section connections)"


def _packed(snapshot: Snapshot, stamp: Stamp) -> bytes:
    arrays, values = snapshot.state
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {
        "stamp": asdict(stamp), "partition": snapshot.partition, "offset": snapshot.offset, "values": values,
    }  # fmt: skip
    text = json.dumps(header, sort_keys=True)
    return bytes(safetensors.save(arrays, {"wiresonde": text, "sha256": _checksum(text, arrays)}))


def _unpacked(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and header. Raises ValueError, KeyError or SafetensorError if any byte has changed."""
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    arrays = safetensors.load(data)
    if _checksum(metadata["wiresonde"], arrays) != metadata["sha256"]:
        raise ValueError("checksum does not match")
    header = json.loads(metadata["wiresonde"])
    return arrays, header


def _checksum(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _write_whole(folder: str, name: str, data: bytes) -> None:
    for stray in os.listdir(folder):  # temporary files that a crash left
        left = posixpath.join(folder, stray)
        with contextlib.suppress(OSError):
            if _STRAY.fullmatch(stray) and time.time() - os.stat(left).st_mtime > OLD:
                os.unlink(left)
    write_whole(Path(folder) / name, data)
