"""What a run's summary says: losses, and notes for whoever has to judge the scores."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from engine.commands import score as app
from engine.commands.models import chosen_models, spec_to_train
from engine.commands.reading import read_connection_tables, read_packets
from engine.commands.run_summary import RunSummary
from engine.commands.train import Place
from engine.commands.train import train as learn_model
from engine.config import Config, replace
from engine.errors import InputError
from engine.labels.file import read_labels
from engine.types import PacketBlock, Packets, concatenate
from tests.support.capture_bytes import Record, pcap
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.demo import LABELS, piece
from tests.support.frames import frames_of

SECOND = 10**9
SMALL = {"connections.capacity": 4096, "kitsune.features.flows": 4096}
LEARN = {
    "kitsune.kitnet.map_samples": 100,
    "kitsune.kitnet.learn_samples": 700,
    "kitsune.scorer.calibrate_packets": 700,
}


def config(**changes: Any) -> Config:
    """Small tables; ``changes`` to the configuration, with __ for dots."""
    return replace(Config(), "test", SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def capture(path: Path, *parts: Packets) -> Path:
    """A capture of some packets, with nanoseconds, in the order given."""
    frames = frames_of(concatenate(list(parts)))
    records: list[Record] = []
    for ts, start, size, wire in zip(
        *(c.tolist() for c in (frames.ts, frames.start, frames.captured, frames.wire))
    ):
        records.append((ts, frames.buffer[start : start + size].tobytes(), wire))
    path.write_bytes(pcap(records, magic=0xA1B23C4D))
    return path


def cut(path: Path) -> Path:
    """The same capture, its last record cut."""
    path.write_bytes(path.read_bytes()[:-5])
    return path


def flows(n: int, at: int = T0) -> Packets:
    return udp([at + 1000 * k for k in range(n)], range(20_000, 20_000 + n))


def score(
    captures: Sequence[Path], given: Config | None = None, model: Path | None = None, **job: Any
) -> RunSummary:
    given = given or config()
    models = chosen_models(given, [] if model is None else [str(model)])
    return app.score(app.Job(captures, given, models=models, **job))


def train(given: Config, path: Path, bundle: Path) -> RunSummary:
    return learn_model(spec_to_train(given, "kitsune"), [path], given, Place(bundle))


# --------------------------------------------------------------------------------------------------------- losses


def test_packets_not_read_whole_are_losses_by_reason_in_the_summary_and_in_the_metrics(
    tmp_path: Path,
) -> None:
    path = capture(tmp_path / "c.pcap", flows(3))
    records = [
        (T0, b"short", 60),
        (T0 + 1, bytes(12) + b"\x08\x00" + b"\x45" * 10, 60),
        (T0 + 2, b"short", 60),
    ]
    path.write_bytes(path.read_bytes() + pcap(records, magic=0xA1B23C4D)[24:])
    summary = score([path], config(output__directory=str(tmp_path / "out")))
    expected = {"link_truncated": 2, "ip_truncated": 1}
    assert summary.packets == 6
    assert summary.losses == {f"not read whole: {reason}": n for reason, n in expected.items()}
    text = (tmp_path / "out" / "metrics.prom").read_text()
    samples = [
        s for family in parse(text) for s in family.samples if s.name == "wiresonde_unread_packets_total"
    ]
    assert {s.labels["reason"]: s.value for s in samples if s.value} == expected


def test_losses_of_sensor_bus_and_table_are_in_the_summary(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.pcap", flows(10))
    scoring = app.Scoring(app.Job([path], config(connections__capacity=4)))
    (detector,) = scoring.detectors
    for seq in (0, 5):  # another sensor, of whose first five packets three do not come
        p = flows(2, T0 - SECOND)
        detector.process(PacketBlock("other", 0, seq, p, int(p.ts[-1]), dropped=7, loss=True))
    assert scoring.run().losses == {
        "dropped by the sensor": 14, "lost packets": 3, "evicted connections": 10 - 4,
    }  # fmt: skip


def test_a_run_without_losses_says_so(tmp_path: Path) -> None:
    assert score([capture(tmp_path / "c.pcap", flows(3))]).losses == {}


# ---------------------------------------------------------------------------------------------------------- notes


GUESS = "the threshold is a guess: "


def guesses(summary: RunSummary) -> list[str]:
    return [note for note in summary.notes if note.startswith(GUESS)]


@pytest.mark.compiled
def test_a_threshold_from_too_few_connections_is_called_a_guess_also_when_a_bundle_brings_it(
    tmp_path: Path,
) -> None:
    path = piece(tmp_path / "c.pcap", 2000)
    given = config(**{k.replace(".", "__"): v for k, v in LEARN.items()})
    (note,) = guesses(score([path], given))
    said = note.removeprefix(GUESS)
    n, rest = said.split(" ", 1)
    assert int(n) > 10
    assert rest == (
        "connections are too few for a false-positive rate of 0.001, which needs 10,000; "
        f"they promise {1 / int(n):.2g}: "
        "learn from more, or set kitsune.threshold"
    )
    trained = train(given, path, tmp_path / "m.bundle")
    assert guesses(trained) == [note]
    (of_bundle,) = guesses(score([path], model=tmp_path / "m.bundle"))
    assert of_bundle == note.replace("learn from more, or set kitsune.threshold", "train again with more")


@pytest.mark.compiled
def test_a_threshold_from_enough_connections_is_not_called_a_guess(tmp_path: Path) -> None:
    path = piece(tmp_path / "c.pcap", 2000)
    changes = {k.replace(".", "__"): v for k, v in LEARN.items()}
    given = config(**changes, kitsune__threshold__false_positive_rate=0.5)
    assert guesses(score([path], given)) == []
    train(given, path, tmp_path / "m.bundle")
    assert guesses(score([path], model=tmp_path / "m.bundle")) == []


@pytest.mark.parametrize(("late", "said"), [(0, False), (2, False), (3, True), (100, True)])
def test_more_than_one_late_packet_in_a_hundred_is_said(late: int, said: bool, tmp_path: Path) -> None:
    summary = score([capture(tmp_path / "c.pcap", flows(200), flows(late, T0 - SECOND))])
    notes = [note for note in summary.notes if "older" in note]
    expected = f"{late} packets are older than earlier ones: are the captures in order of time?"
    assert notes == ([expected] if said else [])


def test_captures_in_the_wrong_order_are_said(tmp_path: Path) -> None:
    first, second = (
        capture(tmp_path / "1.pcap", flows(60)),
        capture(tmp_path / "2.pcap", flows(40, T0 + SECOND)),
    )
    assert not any("older" in note for note in score([first, second]).notes)
    (note,) = (note for note in score([second, first], config(bus__partitions=2)).notes if "older" in note)
    assert note.startswith("60 packets are older than earlier ones")


@pytest.mark.parametrize("partitions", [1, 3])
def test_labels_that_match_nothing_are_said_and_how_many_packets_match(
    partitions: int, tmp_path: Path
) -> None:
    path = capture(tmp_path / "c.pcap", flows(30))
    (tmp_path / "l.csv").write_text(
        "src,sport,dst,dport,proto,start,end,task\n,20000,,9,udp,,,one\n,20001,,9,udp,,,two\n"
    )
    given = config(bus__partitions=partitions)
    matching = score([path], given, labels=read_labels(tmp_path / "l.csv")).notes
    assert "2 of 30 packets match a label" in matching
    nothing = score([path], given, labels=read_labels(LABELS)).notes
    assert "0 of 30 packets match a label: do its addresses and times fit the captures?" in nothing
    assert not any("label" in note for note in score([path], given).notes)


# ----------------------------------------------------------------------------------------------- damaged captures


@pytest.mark.parametrize("more", [0, 1, 2])
def test_captures_behind_a_damaged_one_are_named_as_not_read(more: int, tmp_path: Path) -> None:
    whole = capture(tmp_path / "whole.pcap", flows(10))
    damaged = cut(capture(tmp_path / "damaged.pcap", flows(10, T0 + SECOND)))
    captures = [
        whole,
        damaged,
        *(capture(tmp_path / f"{k}.pcap", flows(10, T0 + 9 * SECOND)) for k in range(more)),
    ]
    summary = score(captures)
    assert summary.packets == 10 + 9
    assert summary.problem is not None
    assert summary.problem.startswith(f"{damaged}: byte ")
    said = f"; {more} more {'capture was' if more == 1 else 'captures were'} not read"
    assert summary.problem.endswith(said) if more else "not read" not in summary.problem
    read: list[int] = []
    with pytest.raises(InputError) as caught:
        read.extend(p.ts.size for p in read_packets(captures))
    assert (sum(read), str(caught.value)) == (19, summary.problem)


def test_connections_before_the_damage_are_given_before_it_is_said(tmp_path: Path) -> None:
    damaged = cut(capture(tmp_path / "damaged.pcap", flows(10)))
    rows: list[int] = []
    with pytest.raises(InputError, match=r"damaged\.pcap: byte \d+: .*; 1 more capture was not read"):
        rows.extend(t.num_rows for t in read_connection_tables([damaged, damaged]))
    assert np.sum(rows) == 9


def test_the_metrics_endpoint_is_closed_when_the_run_is_over(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.pcap", flows(10))
    scoring = app.Scoring(app.Job([path], config(metrics__port=0)))
    assert scoring.server is not None
    scoring.run()
    with urllib.request.urlopen(scoring.server.url) as answer:
        assert answer.status == 200
    scoring.leave()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(scoring.server.url)
