"""From the folders of runs to one corpus: NAME.pcap.zst, NAME.frames.parquet, NAME.labels.parquet, manifest."""

from __future__ import annotations

import hashlib
import heapq
import json
import mmap
import os
import platform
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from connectors.files.parquet import ParquetFile
from connectors.files.whole import WholeFile, write_whole
from engine import __version__
from probing.lab import frames, labels
from probing.lab.run import How
from probing.lab.settings import Corpus, Run
from probing.lab.vantage import FULL, HEADERS, PCAP_HEADER

FORMAT = 1
SILENCE_NS = 2_000_000_000  # longest silence between runs in a capture; a longer one is shortened
LEVEL = 10  # compression level of zstd for complete frames
HEADERS_LEVEL = 19  # the same for headers, which are kept for long
_TIMES = ("start", "end", "sample_start")


class Made(NamedTuple):
    """The command and the time that made a corpus."""

    command: str
    seconds: float
    jobs: int


class Part(NamedTuple):
    """One run's place in the corpus."""

    run: Run
    folder: Path
    account: dict[str, Any]
    shift: int  # ns that are added to the times of its packets


def parts(runs: Sequence[Run], folder: Path) -> list[Part]:
    """The runs in order of their first packets, with long silences between them shortened.

    Where a run has a pause, runs follow one another, so that no other fills it.
    """
    accounts = [(run, json.loads((folder / run.id / "run.json").read_text())) for run in runs]
    accounts.sort(key=lambda pair: (pair[1]["first_ns"], pair[0].number))
    apart = any(run.pause_s for run in runs)
    result, shift, end = [], 0, None
    for run, account in accounts:
        first, last = account["first_ns"], account["last_ns"]
        if end is not None and (apart or first + shift > end + SILENCE_NS):
            shift = end + SILENCE_NS - first
        end = max(end or 0, last + shift)
        result.append(Part(run, folder / run.id, account, shift))
    return result


def _packets(path: Path, shift: int) -> Iterator[tuple[int, bytes]]:
    """Time and record of each packet of a run's capture, shifted."""
    if path.stat().st_size <= len(PCAP_HEADER):
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end = len(PCAP_HEADER), len(data)
        while at < end:
            seconds, ns, kept, wire = struct.unpack_from("<4I", data, at)
            ts = seconds * 1_000_000_000 + ns + shift
            head = struct.pack("<4I", ts // 1_000_000_000, ts % 1_000_000_000, kept, wire)
            yield ts, head + data[at + 16 : at + 16 + kept]
            at += 16 + kept


def merged(captures: Sequence[tuple[int, Path, int]]) -> Iterator[bytes]:
    """Packets of captures in order of their times. captures: (start, file, shift), by start; a file is open only
    while its time lasts."""
    waiting = deque(captures)
    heap: list[tuple[int, int, bytes, Iterator[tuple[int, bytes]]]] = []
    number = 0
    while heap or waiting:
        while waiting and (not heap or waiting[0][0] <= heap[0][0]):
            _, path, shift = waiting.popleft()
            packets = _packets(path, shift)
            first = next(packets, None)
            if first is not None:
                heapq.heappush(heap, (first[0], number, first[1], packets))
            number += 1
        if not heap:
            continue
        _, which, record, packets = heap[0]
        yield record
        following = next(packets, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following[0], which, following[1], packets))


def settings_of(run: Run) -> dict[str, Any]:
    """The settings of a run for the manifest: those that differ from their defaults."""
    return run.model_dump(mode="json", exclude_defaults=True)


def write_records(path: Path, records: Iterable[bytes], level: int = LEVEL) -> dict[str, Any]:
    """Write a capture of these records; returns its file, packets and checksum for the manifest."""
    file = WholeFile(path)
    packets = 0
    try:
        with zstandard.ZstdCompressor(level=level).stream_writer(file.file, closefd=False) as out:
            out.write(PCAP_HEADER)
            for record in records:
                out.write(record)
                packets += 1
        file.file.flush()
        with Path(file.file.name).open("rb") as written:
            digest = hashlib.file_digest(written, "sha256")
        file.commit()
    except BaseException:
        file.abort()
        raise
    return {"file": path.name, "packets": packets, "sha256": digest.hexdigest()}


def write_capture(path: Path, found: Sequence[Part], vantage: str) -> dict[str, Any]:
    """Write the capture of all runs at a vantage; returns its entry in the manifest."""
    level = HEADERS_LEVEL if found[0].account["how"]["snap"] == HEADERS else LEVEL
    ordered = sorted((p.account["first_ns"] + p.shift, p.folder / f"{vantage}.pcap", p.shift) for p in found)
    return write_records(path, merged(ordered), level)


def write_frames(path: Path, found: Sequence[Part], vantage: str) -> str:
    """Write what the link did to each frame of a capture; returns the file's name, "" for runs made without."""
    path.unlink(missing_ok=True)
    ordered = sorted(
        (p.account["first_ns"] + p.shift, p.folder / f"{vantage}.frames.parquet", p.shift) for p in found
    )
    parts = [(file, shift) for _, file, shift in ordered]
    if not all(file.exists() for file, _ in parts):
        return ""
    frames.merge(path, parts)
    return path.name


def rows(found: Sequence[Part]) -> list[dict[str, Any]]:
    """The label rows of all runs, shifted."""
    result = []
    for part in found:
        for row in json.loads((part.folder / "rows.json").read_text()):
            for name in _TIMES:
                row[name] += part.shift
            if part.shift:
                row["phases"] = json.dumps(
                    [[name, at + part.shift] for name, at in json.loads(row["phases"])], separators=(",", ":")
                )
            result.append(row)
    return result


def families(labelled: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Connections and packets by scenario and activity."""
    connections: Counter[tuple[str, str, int]] = Counter()
    packets: Counter[tuple[str, str, int]] = Counter()
    for row in labelled:
        key = row["scenario"], row["activity"], row["attack"]
        connections[key] += 1
        packets[key] += row["packets_up"] + row["packets_down"]
    return [
        {"scenario": key[0], "activity": key[1], "attack": key[2], "connections": n, "packets": packets[key]}
        for key, n in sorted(connections.items())
    ]


def machine() -> dict[str, Any]:
    """The machine that makes the corpus."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
    }


def assemble(corpus: Corpus, runs: Sequence[Run], folder: Path, out: Path, made: Made) -> dict[str, Any]:
    """Write the files of a corpus, the manifest last; returns the manifest. Raises OSError."""
    # files of two corpora must not look like one
    (out / f"{corpus.name}.manifest.json").unlink(missing_ok=True)
    found = parts(runs, folder)
    captures = {
        vantage: write_capture(
            out / f"{corpus.name}{'' if k == 0 else '.' + vantage}.pcap.zst", found, vantage
        )
        for k, vantage in enumerate(corpus.vantage)
    }
    for k, vantage in enumerate(corpus.vantage):
        name = f"{corpus.name}{'' if k == 0 else '.' + vantage}.frames.parquet"
        captures[vantage]["frames"] = write_frames(out / name, found, vantage)
    labelled = rows(found)
    file = ParquetFile(out / f"{corpus.name}.labels.parquet", labels.schema())
    try:
        file.write(labels.table(labelled))
        file.close()
    except BaseException:
        file.abort()
        raise
    versions: dict[str, str] = {}
    for part in found:
        versions |= part.account["versions"]
    how = found[0].account["how"]
    manifest = {
        "format": FORMAT,
        "name": corpus.name,
        "about": corpus.about,
        "seed": corpus.seed,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": made.command,
        "seconds": round(made.seconds, 1),
        "jobs": made.jobs,
        "snap": _snap(how["snap"]),
        "link": how["link"],
        "captures": captures,
        "labels": f"{corpus.name}.labels.parquet",
        "connections": len(labelled),
        "families": families(labelled),
        "wiresonde": __version__,
        "versions": dict(sorted(versions.items())),
        "machine": machine(),
        "corpus": corpus.model_dump(mode="json", exclude_defaults=True),
        "runs": [
            {
                **{k: v for k, v in part.account.items() if k not in ("versions", "how")},
                "run": settings_of(part.run),
                "shift_ns": part.shift,
            }
            for part in found
        ],
    }
    write_whole(out / f"{corpus.name}.manifest.json", manifest_text(manifest).encode())
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as JSON, a line for each run."""
    head = json.dumps({name: value for name, value in manifest.items() if name != "runs"}, indent=1)
    runs = ",\n".join(json.dumps(run, separators=(",", ":")) for run in manifest["runs"])
    return f'{head.removesuffix("}").rstrip()},\n "runs": [\n{runs}\n ]\n}}\n'


def _snap(snap: int) -> str | int | None:
    """The manifest's word for the bytes kept of a frame."""
    return "headers" if snap == HEADERS else None if snap == FULL else snap


def read_manifest(out: Path, name: str) -> dict[str, Any] | None:
    """The manifest of a corpus; None when it cannot be read."""
    try:
        return dict(json.loads((out / f"{name}.manifest.json").read_text()))
    except (OSError, ValueError):
        return None


def is_made(out: Path, name: str, runs: Sequence[Run], how: How) -> bool:
    """Whether exactly this corpus is there, complete: the manifest is the last file written and the first removed."""
    manifest = read_manifest(out, name)
    try:
        if manifest is None or (manifest["snap"], manifest["link"]) != (_snap(how.snap), how.link):
            return False
        made = {entry["run"]["id"]: entry["run"] for entry in manifest["runs"]}
        captures = manifest["captures"].values()
        files = [name for c in captures for name in (c["file"], c.get("frames")) if name] + [
            manifest["labels"]
        ]
    except (KeyError, TypeError):
        return False
    wanted = {run.id: settings_of(run) for run in runs}
    return made == wanted and all((out / file).exists() for file in files)
