"""Captures that others made: two tools that guess passwords are told apart, and any Ethernet is a background."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli import main
from engine.commands.reading import read_connections
from probing.corpus.corpus import read_corpus
from probing.corpus.join import join
from tests.support.captures import CAPTURES, needs_captures
from tests.support.small_corpus import apart, entries, write

pytestmark = needs_captures

HYDRA, MEDUSA = "240.0.1.2", "240.0.2.2"  # as the annotations beside the captures say
KEYS = "src,sport,dst,dport,proto,start,end,activity,attack"


def guesses(folder: Path) -> tuple[Path, Path]:
    """hydra's and medusa's guesses at one SSH server as one capture; medusa's stand for benign logins."""
    capture, labels = folder / "guesses.pcap", folder / "guesses.csv"
    packed = CAPTURES / "attack" / "dataset__medusa-1_tasks.pcap.gz"
    capture.write_bytes(
        (CAPTURES / "attack" / "dataset__hydra-1_tasks.pcap").read_bytes()
        + gzip.decompress(packed.read_bytes())
    )
    labels.write_text(f"{KEYS}\n{HYDRA},,,,,,,ssh-guess,1\n{MEDUSA},,,,,,,ssh-login,0\n")
    return capture, labels


def test_a_tool_that_attacks_is_told_by_a_column_from_another_at_the_same_server(tmp_path: Path) -> None:
    capture, labels = guesses(tmp_path)
    words = ["corpus", "check", str(capture), "--labels", str(labels), "--block", "60", "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    (giveaway,) = (f for f in found["findings"] if f["kind"] == "giveaway")
    assert (giveaway["outcome"], giveaway["about"]) == ("fault", "attack/ssh-guess")
    assert giveaway["values"]["auc"] > 0.999
    assert found["runs_are"] == "a source host in 60 s"


def test_an_attack_alone_has_no_neighbours(tmp_path: Path) -> None:
    labels = tmp_path / "hydra.csv"
    labels.write_text(f"{KEYS}\n{HYDRA},,,,,,,ssh-guess,1\n")
    capture = CAPTURES / "attack" / "dataset__hydra-1_tasks.pcap"
    done = CliRunner().invoke(main, ["corpus", "check", str(capture), "--labels", str(labels)])
    assert "no benign connection to the same server or port" in done.output


@pytest.mark.parametrize(
    "name",
    ["attack/kdd99-spark-ml__normal.pcap", "kitsune/jsu__mirai_small.pcap.gz", "attack/ndpi__bot.pcap"],
)
@pytest.mark.parametrize("hosts", ["none", "clients"])
def test_a_capture_of_others_is_a_background(name: str, hosts: str, tmp_path: Path) -> None:
    lab = write(tmp_path / "lab", apart(entries(2, 1)))
    words = ["lab", "mix", str(CAPTURES / name), str(lab), "-o", str(tmp_path / "x"), "--map-hosts", hosts]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    mixed = read_corpus(tmp_path / "x")
    found = read_connections([mixed.capture])
    joined = join(mixed.labels, found)
    assert Counter(joined[joined >= 0].tolist()) == Counter(range(10))
    assert found.num_rows == 10 + read_connections([CAPTURES / name]).num_rows
    assert mixed.labels.column("src")[0].as_py().startswith("10.0.0.") == (hosts == "none")


def test_a_capture_of_another_link_type_is_refused(tmp_path: Path) -> None:
    lab = write(tmp_path / "lab", apart(entries(1, 1)))
    capture = CAPTURES / "attack" / "ndpi__log4j-webapp-exploit.pcap"
    done = CliRunner().invoke(main, ["lab", "mix", str(capture), str(lab), "-o", str(tmp_path / "x")])
    assert done.exit_code == 1
    assert "link type 113: the background must be Ethernet" in done.stderr
