"""A corpus of the lab mixed into a background capture: packets merged by time, labels and manifest that follow.

The background is read from its file, block by block, and copied byte for byte; the corpus's frames, rewritten, wait in
a temporary file, of which memory holds an index.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from connectors.files.parquet import ParquetFile
from connectors.files.whole import write_whole
from engine import __version__
from engine.errors import ConfigError
from engine.headers.decode import decode
from engine.types import KIND_MASK, Kind, Packets
from probing.corpus.background import Background, Used, blocks, look
from probing.corpus.columns import ns
from probing.corpus.corpus import ENDINGS, Corpus
from probing.corpus.mapping import (
    Hosts,
    LabRun,
    Place,
    Plan,
    client_ends,
    hosts,
    number,
    ports,
    refuse_pairs,
    runs_of,
    shifts,
    text,
)
from probing.corpus.rewriting import Change, rewritten
from probing.lab.assemble import FORMAT, manifest_text, write_records
from probing.lab.errors import LabError
from probing.lab.labels import schema

LEVEL = 3  # compression level of zstd: a background may be large
LAST_SECOND = (1 << 32) - 1  # last second since the epoch that a pcap can hold
MOVED = ("start", "end", "sample_start")


@dataclass(frozen=True)
class How:
    """The choices of a mix."""

    map_hosts: Hosts = "none"
    place: Place = "even"
    begin_s: float = 0.0  # seconds from the background's first packet to the window in which runs lie
    end_s: float | None = None  # end of the window; None: the background's
    seed: int = 1


class Frames(NamedTuple):
    """The rewritten frames of a corpus, in order of their new times, in a file."""

    ts: NDArray[np.int64]  # (n,) ns
    at: NDArray[np.int64]  # (n,) place of each frame in the file
    kept: NDArray[np.int64]  # (n,) bytes of it
    wire: NDArray[np.int64]  # (n,) bytes on the wire
    left_out: int  # frames of no run


def mix(background: Path, corpus: Corpus, out: Path, how: How, command: str) -> dict[str, Any]:
    """Write OUT.pcap.zst, OUT.labels.parquet and, last, OUT.manifest.json; returns the manifest.

    Raises InputError for a capture that cannot be read or is not of Ethernet, ConfigError for an output that is an
    input, LabError where hosts or ports do not suffice.
    """
    _check_places(background, corpus, out)
    seen = look([background])
    runs = runs_of(corpus.labels)
    plan = _plan(background, seen, corpus, runs, how)
    out.parent.mkdir(parents=True, exist_ok=True)
    manifest_file = out.with_name(out.name + ".manifest.json")
    manifest_file.unlink(missing_ok=True)  # files of two mixes must not look like one
    with tempfile.TemporaryFile(dir=out.parent) as store:
        frames = _spool(corpus, runs, plan, _change(corpus, seen, plan), store)
        records = chain.from_iterable(_merged(background, frames, store))
        capture = write_records(out.with_name(out.name + ".pcap.zst"), records, LEVEL)
    labels = _moved(corpus.labels, plan)
    _write_labels(out.with_name(out.name + ".labels.parquet"), labels)
    manifest = _manifest(out.name, corpus, labels, capture, command) | {
        "mixed": asdict(how)
        | {
            "background": {
                "file": str(background), "packets": seen.packets, "first_ns": seen.first, "last_ns": seen.last,
            },
            "corpus": corpus.name, "vantage": next(iter(corpus.captures)), "packets": int(frames.ts.size),
            "frames_left_out": frames.left_out, "shifts_ns": dict(plan.shifts),
            "hosts": {text(old): text(new) for old, new in plan.addresses.items()},
            "ports": [[text(old[0]), old[1], old[2], new] for old, new in plan.ports.items()],
        }
    }  # fmt: skip
    write_whole(manifest_file, manifest_text(manifest).encode())
    return manifest


def stem_of(out: str, name: str) -> Path:
    """The path of the files without their endings. out: a folder, or FOLDER/NAME with or without an ending."""
    path = Path(out)
    if out.endswith("/") or path.is_dir():
        return path / name
    ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
    return path.with_name(path.name.removesuffix(ending))


def _check_places(background: Path, corpus: Corpus, out: Path) -> None:
    if not background.is_file():
        raise ConfigError(f"{background}: the background is read three times: it must be a regular file")
    inputs = [background, corpus.labels_file, *corpus.captures.values()]
    for ending in (".pcap.zst", ".labels.parquet"):
        file = out.with_name(out.name + ending)
        if any(file.exists() and file.samefile(given) for given in inputs):
            raise ConfigError(f"{file}: this is an input and would be overwritten: give another --out")


def _plan(background: Path, seen: Background, corpus: Corpus, runs: Sequence[LabRun], how: How) -> Plan:
    rng = np.random.default_rng(how.seed)
    begin = seen.first + round(how.begin_s * 1e9)
    end = seen.last if how.end_s is None else min(seen.last, seen.first + round(how.end_s * 1e9))
    if not seen.first <= begin <= end:
        raise ConfigError(
            f"window {how.begin_s:g} to {how.end_s} s must lie in the background, which lasts "
            f"{(seen.last - seen.first) / 1e9:.3f} s"
        )
    moved = shifts(runs, (begin, end), how.place, rng)
    asked: dict[int, set[tuple[int, int]]] = {}
    protos = {"tcp": 6, "udp": 17}
    for dst, port, proto in zip(
        *(corpus.labels.column(name).to_pylist() for name in ("dst", "dport", "proto"))
    ):
        if port is not None:
            asked.setdefault(number(dst), set()).add((protos[proto], port))
    addresses = hosts(runs, seen, how.map_hosts, asked, rng)
    used = Used([addresses.get(a, a) for run in runs for a in (*run.clients, *run.servers)])
    used.read([background])
    refuse_pairs(corpus.labels, addresses, used)
    return Plan(moved, addresses, ports(client_ends(corpus.labels, runs), addresses, used, rng))


def _change(corpus: Corpus, seen: Background, plan: Plan) -> Change:
    """What is replaced in frames. The MAC of a lab's host is the one from which most of its packets come."""
    counts: Counter[tuple[int, int]] = Counter()
    if plan.addresses:
        for block in blocks([corpus.capture]):
            p = decode(block)
            rows = np.flatnonzero((p.kind & KIND_MASK) == Kind.IPV4)
            ends = np.stack((p.src_lo[rows].astype(np.int64) & 0xFFFFFFFF, p.src_mac[rows].astype(np.int64)))
            known, n = np.unique(ends, axis=1, return_counts=True)
            counts.update(dict(zip(map(tuple, known.T.tolist()), n.tolist())))
    macs: dict[bytes, bytes] = {}
    for (address, mac), _ in counts.most_common():
        if address in plan.addresses:
            macs.setdefault(mac.to_bytes(6, "big"), seen.hosts[plan.addresses[address]].mac)
    return Change(
        {old.to_bytes(4, "big"): new.to_bytes(4, "big") for old, new in plan.addresses.items()}, macs,
        {(address.to_bytes(4, "big"), port, proto): new for (address, port, proto), new in plan.ports.items()},
    )  # fmt: skip


def _spool(corpus: Corpus, runs: Sequence[LabRun], plan: Plan, change: Change, store: IO[bytes]) -> Frames:
    """Write the corpus's frames, rewritten, to a file; returns where each is, and its new time."""
    owner = {a: plan.shifts[run.name] for run in runs for a in (*run.clients, *run.servers)}
    known = np.array(sorted(owner), np.int64)
    shift = np.array([owner[a] for a in known.tolist()], np.int64)
    columns: list[list[NDArray[np.int64]]] = [[], [], []]
    left_out = 0
    for block in blocks([corpus.capture]):
        moved, there = _shift_of(decode(block), known, shift)
        left_out += int((~there).sum())
        lengths = []
        for k in np.flatnonzero(there).tolist():
            start = int(block.start[k])
            frame = block.buffer[start : start + int(block.captured[k])].tobytes()
            store.write(rewritten(frame, change))
            lengths.append(len(frame))
        for column, values in zip(columns, (block.ts[there] + moved[there], lengths, block.wire[there])):
            column.append(np.array(values, np.int64))
    store.flush()
    ts, kept, wire = (np.concatenate(column) if column else np.zeros(0, np.int64) for column in columns)
    at, order = np.cumsum(kept) - kept, np.argsort(ts, kind="stable")
    return Frames(ts[order], at[order], kept[order], wire[order], left_out)


def _shift_of(
    p: Packets, known: NDArray[np.int64], shift: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The shift of each packet by the run of its sender, else of its receiver; and whether either has one."""
    out, there = np.zeros(p.ts.size, np.int64), np.zeros(p.ts.size, bool)
    ip = np.isin(p.kind & KIND_MASK, (Kind.IPV4, Kind.ARP))
    for column in (p.dst_lo, p.src_lo):  # the sender's overwrites the receiver's
        address = column.astype(np.int64) & 0xFFFFFFFF
        place = np.minimum(np.searchsorted(known, address), known.size - 1)
        found = ip & (known[place] == address)
        out[found], there = shift[place[found]], there | found
    return out, there


def _merged(background: Path, frames: Frames, store: IO[bytes]) -> Iterator[list[bytes]]:
    """Records of both, the background's in its own order; a frame of the corpus comes before the first packet of the
    background that is later."""
    done = 0
    for block in blocks([background]):
        before = np.searchsorted(frames.ts, block.ts, side="left")  # frames that come before each packet
        records: list[bytes] = []
        for k, n in enumerate(before.tolist()):
            if n > done:
                records += _stored(frames, store, done, n)
                done = n
            records.append(_of_block(block, k))
        yield records
    for begin in range(done, frames.ts.size, 4096):
        yield list(_stored(frames, store, begin, min(begin + 4096, frames.ts.size)))


def _of_block(block: FrameBlock, k: int) -> bytes:
    start, kept = int(block.start[k]), int(block.captured[k])
    return _head(int(block.ts[k]), kept, int(block.wire[k])) + block.buffer[start : start + kept].tobytes()


def _stored(frames: Frames, store: IO[bytes], begin: int, end: int) -> Iterator[bytes]:
    for ts, at, kept, wire in zip(*(column[begin:end].tolist() for column in frames[:4])):
        store.seek(at)
        yield _head(ts, kept, wire) + store.read(kept)


def _head(ts: int, kept: int, wire: int) -> bytes:
    """The header of a pcap record."""
    if not 0 <= ts // 1_000_000_000 <= LAST_SECOND:
        raise LabError(f"a packet at {ts} ns since 1970 is outside the times that a pcap file can hold")
    return struct.pack("<4I", ts // 1_000_000_000, ts % 1_000_000_000, kept, wire)


def _moved(labels: pa.Table, plan: Plan) -> pa.Table:
    """The label rows at their new times and ends, in order of their starts; all other columns as they were."""
    runs = labels.column("run").to_pylist()
    shift = np.array([plan.shifts[run] for run in runs], np.int64)
    columns = {name: labels.column(name) for name in labels.column_names}
    for name in MOVED:
        empty = columns[name].is_null().to_numpy()
        times = ns(columns[name].fill_null(0)) + shift
        columns[name] = pa.array(times, pa.timestamp("ns", tz="UTC"), mask=empty)
    phases = columns["phases"].to_pylist()
    columns["phases"] = pa.array(
        [_later(given, by) for given, by in zip(phases, shift.tolist())], pa.string()
    )
    for address, port in (("src", "sport"), ("dst", "dport")):
        old = zip(*(labels.column(name).to_pylist() for name in (address, port, "proto")))
        ends = [_end(plan, number(a), p, proto) for a, p, proto in old]
        columns[address] = pa.array([text(a) for a, _ in ends], pa.string())
        columns[port] = pa.array([p for _, p in ends], pa.uint16())
    return pa.table(columns, schema=schema()).sort_by([("start", "ascending"), ("run", "ascending")])


def _end(plan: Plan, address: int, port: int | None, proto: str) -> tuple[int, int | None]:
    """The new address and port of an end."""
    new = port if port is None else plan.ports.get((address, port, {"tcp": 6, "udp": 17}.get(proto, 0)), port)
    return plan.addresses.get(address, address), new


def _later(phases: str | None, shift: int) -> str | None:
    """The phases of a sample at their new times."""
    if phases is None:
        return None
    return json.dumps([[name, at + shift] for name, at in json.loads(phases)], separators=(",", ":"))


def _write_labels(path: Path, labels: pa.Table) -> None:
    file = ParquetFile(path, schema())
    try:
        file.write(labels)
        file.close()
    except BaseException:
        with suppress(OSError):
            file.abort()
        raise


def _manifest(
    name: str, corpus: Corpus, labels: pa.Table, capture: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """The corpus's own manifest, about the mixed files."""
    kept = {
        key: value for key, value in corpus.manifest.items() if key not in ("captures", "labels", "sha256")
    }
    return kept | {
        "format": FORMAT, "name": name, "captures": {next(iter(corpus.captures)): dict(capture)},
        "labels": f"{name}.labels.parquet", "connections": labels.num_rows, "command": command,
        "wiresonde": __version__,
    }  # fmt: skip
