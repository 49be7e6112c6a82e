"""`wiresonde lab mix`: the background as it was, and every connection of the lab with its label."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from connectors.files.pcap import CaptureFile
from engine.cli import main
from engine.commands.reading import read_connections
from probing.corpus.corpus import Corpus, read_corpus
from probing.corpus.join import join
from probing.lab.labels import COLUMNS
from tests.support.capture_bytes import Record, pcap, pcapng
from tests.support.capture_files import Row, rows
from tests.support.small_corpus import MS, NANOSECONDS, SECOND, T0, Exchange, apart, entries, write

DAY = 86_400 * SECOND
LATER = T0 + 30 * DAY
C1, C2 = 0xC0A80105, 0xC0A80106


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["lab", "mix", *map(str, words)])


def read(path: Path) -> list[Row]:
    with CaptureFile(path) as capture:
        return rows(list(capture))


def visits(n: int = 20) -> list[Record]:
    """Records of a background: two clients that ask the host whose address the lab's servers have, too."""
    exchanges = [
        Exchange(LATER + k * 10 * SECOND, client=(C1, C2)[k % 2], sport=40000 + k // 4) for k in range(n)
    ]
    return sorted(record for exchange in exchanges for record in exchange.packets())


def background(folder: Path, data: bytes | None = None, name: str = "b.pcap") -> Path:
    path = folder / name
    path.write_bytes(pcap(visits(), magic=NANOSECONDS) if data is None else data)
    return path


def corpus(folder: Path, runs: int = 4) -> Path:
    return write(folder, apart(entries(runs, 1, each=3)))


def shown(mixed: Path, before: list[Row]) -> list[Row]:
    """The frames of a mix that are not the background's, which is all there, in its order."""
    left, own = list(before), []
    for row in read(mixed):
        if left and row == left[0]:
            left.pop(0)
        else:
            own.append(row)
    assert left == []
    return own


@pytest.mark.parametrize("hosts", ["none", "clients", "servers", "all"])
@pytest.mark.parametrize("place", ["even", "random", "start"])
def test_the_background_is_untouched_and_every_connection_has_its_label(
    hosts: str, place: str, tmp_path: Path
) -> None:
    lab, other = corpus(tmp_path / "lab"), background(tmp_path)
    done = run(other, lab, "-o", tmp_path / "out" / "x", "--map-hosts", hosts, "--place", place)
    assert done.exit_code == 0, done.output
    mixed, alone = read_corpus(tmp_path / "out" / "x"), read_corpus(lab)
    own = shown(mixed.capture, read(other))
    assert len(own) == len(read(alone.capture))
    assert [row[0] for row in read(mixed.capture)] == sorted(row[0] for row in read(mixed.capture))
    assert read_connections([mixed.capture]).num_rows == 12 + read_connections([other]).num_rows
    assert len(packets_by_sample(mixed)) == 12
    assert packets_by_sample(mixed) == packets_by_sample(alone)


def packets_by_sample(known: Corpus) -> dict[tuple[str, int], tuple[int, int]]:
    """Packets of both directions of each connection that has a label row, by run and sample."""
    found = read_connections([known.capture])
    rows_of = join(known.labels, found).tolist()
    assert len(rows_of) - rows_of.count(-1) == len(set(rows_of) - {-1})
    counts = list(zip(found.column("orig_pkts").to_pylist(), found.column("resp_pkts").to_pylist()))
    samples = list(zip(known.labels.column("run").to_pylist(), known.labels.column("sample").to_pylist()))
    return {samples[row]: count for row, count in zip(rows_of, counts) if row >= 0}


def test_columns_other_than_ends_and_times_stay_and_times_move_by_run(tmp_path: Path) -> None:
    made = apart(entries(3, 1, each=3))
    for _, row in made:
        row |= {"phases": f'[["request",{T0}]]', "sample_start": T0, "content_bytes": 7}
    lab = write(tmp_path / "lab", made)
    assert run(background(tmp_path), lab, "-o", tmp_path / "x", "--map-hosts", "all").exit_code == 0
    old, new = read_corpus(lab).labels, read_corpus(tmp_path / "x").labels
    order = [("run", "ascending"), ("sample", "ascending")]
    old, new = old.sort_by(order), new.sort_by(order)
    moved = {"src", "sport", "dst", "dport", "start", "end", "sample_start", "phases"}
    for column in COLUMNS:
        if column.name not in moved:
            assert old.column(column.name).equals(new.column(column.name)), column.name
    shifts = json.loads((tmp_path / "x.manifest.json").read_text())["mixed"]["shifts_ns"]
    for name in ("start", "end", "sample_start"):
        by = [b.value - a.value for a, b in zip(old.column(name), new.column(name))]
        assert by == [shifts[run] for run in new.column("run").to_pylist()]
    phases = [f'[["request",{T0 + shifts[run]}]]' for run in new.column("run").to_pylist()]
    assert new.column("phases").to_pylist() == phases


def test_mapped_connections_get_ports_that_the_background_does_not_use(tmp_path: Path) -> None:
    other = background(tmp_path)
    assert run(other, corpus(tmp_path / "lab"), "-o", tmp_path / "x", "--map-hosts", "all").exit_code == 0
    labels = read_corpus(tmp_path / "x").labels
    names = ("src", "sport", "dst", "dport")
    own = set(zip(*(labels.column(n).to_pylist() for n in names)))
    base = read_connections([other])
    theirs = set(zip(*(base.column(f"id.{n}").to_pylist() for n in ("orig_h", "orig_p", "resp_h", "resp_p"))))
    assert len(own) == 12
    assert not own & theirs
    assert {src for src, *_ in own} == {"192.168.1.5", "192.168.1.6"}
    assert {dst for _, _, dst, _ in own} == {"10.0.0.1"}
    assert json.loads((tmp_path / "x.manifest.json").read_text())["mixed"]["ports"] != []


def test_the_address_of_a_lab_host_that_the_background_has_too_does_not_collide(tmp_path: Path) -> None:
    same = [Exchange(LATER + SECOND, client=0x0A00000A, sport=40000)]
    other = background(tmp_path, pcap([r for e in same for r in e.packets()], magic=NANOSECONDS))
    assert run(other, corpus(tmp_path / "lab", 1), "-o", tmp_path / "x").exit_code == 0
    labels = read_corpus(tmp_path / "x").labels
    assert 40000 not in labels.column("sport").to_pylist()
    assert set(labels.column("src").to_pylist()) == {"10.0.0.10"}


def test_checksums_of_mapped_frames_are_valid(tmp_path: Path) -> None:
    lab = write(tmp_path / "lab", apart(entries(2, 1, each=3)), intact=True)
    assert run(background(tmp_path), lab, "-o", tmp_path / "x", "--map-hosts", "all").exit_code == 0
    own = shown(tmp_path / "x.pcap.zst", read(tmp_path / "b.pcap"))
    for _, frame, wire, _ in own:
        packet = Ether(frame)
        assert wire == len(frame)
        del packet[IP].chksum, packet[TCP].chksum
        assert bytes(packet) == frame
        assert packet.dst != packet.src
        assert {packet.src, packet.dst} <= {"02:00:00:a8:01:05", "02:00:00:a8:01:06", "06:00:00:00:00:01"}


def test_scores_of_a_mix_carry_the_labels(tmp_path: Path) -> None:
    lab, other, out = corpus(tmp_path / "lab"), background(tmp_path), tmp_path / "x"
    assert run(other, lab, "-o", out, "--map-hosts", "all").exit_code == 0
    words = ["score", f"{out}.pcap.zst", "--labels", f"{out}.labels.parquet", "--out", f"{tmp_path}/scores"]
    done = CliRunner().invoke(main, [*words, "--learn", "100"])
    assert done.exit_code == 0, done.output
    scored = pq.read_table(tmp_path / "scores" / "scores.parquet")
    ended = scored.filter(pc.not_equal(scored.column("ending"), "live"))
    assert Counter(ended.column("label.activity").to_pylist()) == {"get": 12, None: 20}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("b.pcapng", pcapng([(ts // 1000, frame, wire) for ts, frame, wire in visits()])),
        ("b.pcap.gz", gzip.compress(pcap([(ts // 1000, frame, wire) for ts, frame, wire in visits()]))),
        ("b2.pcap", pcap(visits(), magic=NANOSECONDS, order=">")),
    ],
)
def test_any_capture_can_be_a_background(name: str, data: bytes, tmp_path: Path) -> None:
    other = background(tmp_path, data, name)
    assert run(other, corpus(tmp_path / "lab"), "-o", tmp_path / "x").exit_code == 0
    assert len(shown(tmp_path / "x.pcap.zst", read(other))) > 12


def test_runs_lie_in_the_window(tmp_path: Path) -> None:
    lab = corpus(tmp_path / "lab", 1)
    words = ("-o", tmp_path / "x", "--begin", 5, "--end", 90, "--place", "start")
    assert run(background(tmp_path), lab, *words).exit_code == 0
    assert read_corpus(tmp_path / "x").labels.column("start")[0].value == LATER + 5 * SECOND


def test_a_mix_is_the_same_again_and_another_with_another_seed(tmp_path: Path) -> None:
    lab, other = corpus(tmp_path / "lab"), background(tmp_path)
    data = []
    for k, seed in enumerate((1, 1, 2)):
        assert run(other, lab, "-o", tmp_path / f"{k}", "--place", "random", "--seed", seed).exit_code == 0
        data.append((tmp_path / f"{k}.pcap.zst").read_bytes())
    assert data[0] == data[1] != data[2]


def test_a_folder_gets_the_name_of_the_corpus(tmp_path: Path) -> None:
    assert run(background(tmp_path), corpus(tmp_path / "lab"), "-o", f"{tmp_path}/new/").exit_code == 0
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "made.labels.parquet", "made.manifest.json", "made.pcap.zst",
    ]  # fmt: skip
    assert read_corpus(tmp_path / "new").name == "made"


def refused(tmp_path: Path, *words: object, other: Path | None = None) -> str:
    done = run(other or background(tmp_path), *words)
    assert done.exit_code in (1, 2)
    assert not list(tmp_path.glob("x.*"))
    return done.stderr


def test_wrong_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    lab = corpus(tmp_path / "lab")
    x = tmp_path / "x"
    raw = background(tmp_path, pcap(visits(), link_type=101, magic=NANOSECONDS), "raw.pcap")
    assert "link type 101: the background must be Ethernet" in refused(tmp_path, lab, "-o", x, other=raw)
    assert "read three times" in refused(tmp_path, lab, "-o", x, other=tmp_path)
    empty = background(tmp_path, pcap([]), "empty.pcap")
    assert "no packet to mix with" in refused(tmp_path, lab, "-o", x, other=empty)
    assert "must lie in the background" in refused(tmp_path, lab, "-o", x, "--begin", 1e6)
    assert "must lie in the background" in refused(tmp_path, lab, "-o", x, "--begin", 5, "--end", 4)
    assert "would be overwritten" in refused(tmp_path, lab, "-o", lab)
    one = [Exchange(LATER).packets()[0]]
    lonely = background(tmp_path, pcap(one, magic=NANOSECONDS), "one.pcap")
    assert "no server left" in refused(tmp_path, lab, "-o", x, "--map-hosts", "servers", other=lonely)


FRAME = st.binary(min_size=0, max_size=80)


@given(
    st.data(), st.lists(st.tuples(st.integers(0, 10**6), FRAME), min_size=1, max_size=30), st.integers(1, 3)
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_background_stays_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: Any, noise: list[tuple[int, bytes]], runs: int
) -> None:
    """Frames of any bytes at any times, also backwards, among connections of the same hosts as the lab's."""
    folder = tmp_path_factory.mktemp("mix")
    records = [(LATER + at * 100_000, frame, len(frame) + at % 3) for at, frame in noise]
    records += visits(data.draw(st.integers(2, 6)))
    records = data.draw(st.permutations(records))
    other = background(folder, pcap(records, magic=NANOSECONDS))
    lab = corpus(folder / "lab", runs)
    which = data.draw(st.sampled_from(["none", "clients", "servers", "all"]))
    place = data.draw(st.sampled_from(["even", "random", "start"]))
    done = run(other, lab, "-o", folder / "x", "--map-hosts", which, "--place", place)
    assert done.exit_code == 0, done.output
    mixed = read_corpus(folder / "x")
    own = shown(mixed.capture, read(other))
    assert len(own) == len(read(read_corpus(lab).capture))
    assert [row[0] for row in own] == sorted(row[0] for row in own)
    starts = dict(zip(mixed.labels.column("run").to_pylist(), mixed.labels.column("start")))
    assert all(start.value >= LATER - MS for start in starts.values())
    ends = zip(*(mixed.labels.column(n).to_pylist() for n in ("src", "sport", "dst", "dport")))
    assert len(set(ends)) == 3 * runs
