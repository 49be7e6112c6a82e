"""`wiresonde corpus check`: exit codes, text and JSON, and captures of others."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from tests.support.capture_bytes import pcap
from tests.support.small_corpus import NANOSECONDS, Entry, clean, entries, write


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["corpus", "check", *map(str, words)])


def marked(made: list[Entry], ttl: int) -> list[Entry]:
    return [(replace(e, ttl=ttl) if row.get("attack") else e, row) for e, row in made]


@pytest.mark.parametrize("ending", ["", ".pcap.zst", ".labels.parquet", ".manifest.json"])
def test_a_clean_corpus_exits_0(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path, clean())
    done = run(f"{path}{ending}")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "made: 100 connections in 20 runs (runs of the corpus)"
    assert "split: train 60%, calibrate 20%, test 20%" in done.output
    assert done.output.splitlines()[-1] == "passed: nothing was found that makes it easy"


def test_a_giveaway_exits_1_and_is_named(tmp_path: Path) -> None:
    done = run(write(tmp_path, marked(clean(), 63)))
    assert done.exit_code == 1
    line = "FAULT   injection/union  50 against 50 at the same server: TTL of the first packet up: AUC 1.000"
    assert line in done.output
    assert done.output.splitlines()[-1] == "fault: this corpus is easier than it looks (1 fault)"


def test_too_few_to_tell_exits_3(tmp_path: Path) -> None:
    done = run(write(tmp_path, clean(runs=4)))
    assert done.exit_code == 3
    assert "too few injection/union  20 against 20 at the same server: attack connections: 20" in done.output


def test_json_has_every_finding(tmp_path: Path) -> None:
    done = run(write(tmp_path, marked(clean(), 63)), "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert found["outcome"] == "fault"
    (finding,) = (f for f in found["findings"] if f["kind"] == "giveaway")
    assert finding["values"]["column"] == "TTL of the first packet up"
    assert finding["values"]["low"] == finding["values"]["auc"] == 1.0


def foreign(folder: Path, made: list[Entry], *names: str) -> tuple[Path, Path]:
    """A capture and a CSV file with the keys and some labels of each connection."""
    folder.mkdir(exist_ok=True)
    records, rows = [], []
    for exchange, given in made:
        packets = exchange.packets()
        records += packets
        src = ".".join(str(byte) for byte in exchange.client.to_bytes(4, "big"))
        keys = {
            "src": src, "sport": exchange.sport, "dst": "10.0.0.1", "dport": 80, "proto": "tcp",
            "start": f"{packets[0][0] / 1e9:.6f}", "end": f"{packets[-1][0] / 1e9 + 1:.6f}",
        }  # fmt: skip
        rows.append(keys | {name: given.get(name, "") for name in names})
    (folder / "x.pcap").write_bytes(pcap(sorted(records), magic=NANOSECONDS))
    with (folder / "x.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "x.pcap", folder / "x.csv"


@pytest.mark.parametrize(("ttl", "code"), [(64, 0), (63, 1)])
def test_a_capture_of_others_is_judged_by_source_hosts_in_blocks_of_time(
    ttl: int, code: int, tmp_path: Path
) -> None:
    capture, labels = foreign(tmp_path, marked(clean(), ttl), "attack", "attack_kind")
    done = run(capture, "--labels", labels)
    assert done.exit_code == code, done.output
    assert "in 20 runs (a source host in 600 s)" in done.output
    assert ("TTL of the first packet up: AUC 1.000" in done.output) == (code == 1)
    assert "note: the labels do not say which attacks succeeded: all are judged" in done.output


def test_columns_run_and_part_of_a_label_file_are_used(tmp_path: Path) -> None:
    made = [(e, row | {"part": "a" if int(row["run"][:3]) % 2 else "b"}) for e, row in clean()]
    made[0][1]["part"] = "a"
    capture, labels = foreign(tmp_path, made, "attack_kind", "run", "part")
    done = run(capture, "--labels", labels)
    assert done.exit_code == 1
    assert "(column run)" in done.output
    assert "split: label column part" in done.output
    assert "run '000-run' is in a and b" in done.output


def test_connections_of_one_host_in_one_block_are_one_run(tmp_path: Path) -> None:
    made = [(replace(e, client=0x0A000010 + (row.get("attack", 0)), sport=1024 + k), row)
            for k, (e, row) in enumerate(clean())]  # fmt: skip
    capture, labels = foreign(tmp_path, made, "attack")
    done = run(capture, "--labels", labels, "--block", 100_000)
    assert done.exit_code == 1
    assert "all its connections are of one run" in done.output
    blocks = run(
        capture, "--labels", labels, "--block", 100
    )  # the connections of a run are 40 s apart at most
    assert blocks.output.splitlines()[0] == "x.pcap: 100 connections in 20 runs (a source host in 100 s)"


def test_a_label_file_that_does_not_tell_attacks_is_an_error(tmp_path: Path) -> None:
    capture, labels = foreign(tmp_path, clean(runs=2), "activity")
    done = run(capture, "--labels", labels)
    assert done.exit_code == 1
    assert "no column attack or attack_kind" in done.stderr


def test_an_attack_that_is_neither_yes_nor_no_is_an_error(tmp_path: Path) -> None:
    made = [(e, row | {"attack": "perhaps"}) for e, row in entries(1, 1)]
    capture, labels = foreign(tmp_path, made, "attack")
    done = run(capture, "--labels", labels)
    assert done.exit_code == 1
    assert "attack 'perhaps' must be 0 or 1" in done.stderr


def test_a_capture_of_others_without_labels_is_misuse(tmp_path: Path) -> None:
    capture, _ = foreign(tmp_path, clean(runs=2), "attack")
    done = run(capture)
    assert done.exit_code == 2
    assert "a capture of others needs --labels FILE" in done.stderr
