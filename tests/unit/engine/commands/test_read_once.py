"""Pipes as inputs: read exactly once, or refused in one line; nothing waits for ever or takes an empty second read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from connectors.bus.kafka_client import Secret
from engine.commands.kafka_cli import again
from engine.commands.options import check_pipes
from engine.config import Config
from engine.errors import ConfigError
from models.bundle import load
from tests.support.calls import called
from tests.support.demo import LABELS, piece
from tests.support.disks import listing
from tests.support.pipes import KINDS, bounded, piped

pytestmark = pytest.mark.compiled

SEED = b"kitsune: {kitnet: {seed: 99}}\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return piece(tmp_path_factory.mktemp("small") / "small.pcap", 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_from_a_pipe_counts(kind: str, small: Path, tmp_path: Path) -> None:
    with piped(kind, SEED, tmp_path, "c") as (path, inherit):
        code, _, err = bounded(
            "train",
            "kitsune",
            small,
            "--learn",
            600,
            "--force",
            "-o",
            tmp_path / "b",
            "-c",
            path,
            inherit=inherit,
        )
    assert (code, err) == (0, b"")
    assert load(tmp_path / "b").config["kitnet"]["seed"] == 99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "line", [("config", "show", "-c"), ("config", "check"), ("packets", "CAPTURE", "-c")]
)
def test_every_command_reads_a_configuration_from_a_pipe_once(
    kind: str, line: tuple[str, ...], small: Path, tmp_path: Path
) -> None:
    arguments = [small if word == "CAPTURE" else word for word in line]
    with piped(kind, SEED, tmp_path, "c") as (path, inherit):
        code, out, err = bounded(*arguments, path, inherit=inherit)
    assert code == 0, err
    assert b"seed: 99" in out or line[1] != "show"
    with piped(kind, b"nonsense: 1\n", tmp_path, "d") as (path, inherit):  # and does not ignore it
        code, out, err = bounded(*arguments, path, inherit=inherit)
    assert (code, out) == (2, b"")
    assert err.decode() == f"wiresonde: {path}: nonsense: unknown key\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parquet", [False, True], ids=["csv", "parquet"])
def test_labels_from_a_pipe_are_those_of_the_file(
    kind: str, parquet: bool, small: Path, tmp_path: Path
) -> None:
    file = LABELS
    if parquet:
        file = tmp_path / "l.parquet"
        pq.write_table(pyarrow.csv.read_csv(LABELS), file)
    wanted = called("score", small, "--learn", 500, "--labels", file, "--json").stdout
    with piped(kind, file.read_bytes(), tmp_path, "l") as (path, inherit):
        code, out, err = bounded("score", small, "--learn", 500, "--labels", path, "--json", inherit=inherit)
    assert (code, err) == (0, b"")
    assert json.loads(out)["labels"] == json.loads(wanted)["labels"] != []


@pytest.mark.parametrize("kind", KINDS)
def test_scores_from_a_pipe_are_those_of_the_file(kind: str, small: Path, tmp_path: Path) -> None:
    assert called("score", small, "--learn", 500, "--out", tmp_path / "o").exit_code == 0
    file = tmp_path / "o" / "scores.parquet"
    with piped(kind, file.read_bytes(), tmp_path, "s") as (path, inherit):
        code, out, err = bounded("scores", path, inherit=inherit)
    assert (code, err) == (0, b"")
    assert out.decode() == called("scores", file).stdout != ""


@pytest.mark.parametrize("kind", KINDS)
def test_training_reads_a_pipe_once_and_asks_how_much_it_may_take(
    kind: str, small: Path, tmp_path: Path
) -> None:
    data = small.read_bytes()
    with piped(kind, data, tmp_path, "p") as (path, inherit):
        code, out, err = bounded("train", "kitsune", path, "-o", tmp_path / "b", inherit=inherit)
    assert (code, out) == (2, b"")
    said = f"wiresonde: {path} is not a regular file and can be read only once: give --learn N, the number of packets"
    assert err.decode() == f"{said} to use\n"
    assert "b" not in listing(tmp_path)
    with piped(kind, data, tmp_path, "q") as (path, inherit):
        code, _, err = bounded(
            "train", "kitsune", path, "--learn", 600, "--force", "-o", tmp_path / "b", inherit=inherit
        )
    assert (code, err) == (0, b"")
    assert (
        called("train", "kitsune", small, "--learn", 600, "--force", "-o", tmp_path / "of-file").exit_code
        == 0
    )
    piped_bundle, of_file = load(tmp_path / "b"), load(tmp_path / "of-file")
    assert piped_bundle.config == of_file.config
    assert all((piped_bundle.arrays[name] == of_file.arrays[name]).all() for name in of_file.arrays)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "line",
    [
        ("packets", "P", "P"), ("connections", "P", "-c", "P"), ("score", "P", "--labels", "P"),
        ("score", "FILE", "-c", "P", "--labels", "P"), ("train", "kitsune", "P", "P", "--learn", "600", "-o", "b"),
        ("replay", "P", "P"), ("watch", "-i", "lo", "-c", "P", "--labels", "P"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_pipe_given_twice_is_refused_before_it_is_read(
    kind: str, line: tuple[str, ...], small: Path, tmp_path: Path
) -> None:
    with piped(kind, small.read_bytes(), tmp_path, "p") as (path, inherit):
        places = {"P": path, "FILE": small}
        code, out, err = bounded(*(places.get(word, word) for word in line), inherit=inherit)
    assert (code, out) == (2, b"")
    assert err.decode() == f"wiresonde: {path} can be read only once, but is given twice\n"


@pytest.mark.parametrize("line", [("packets",), ("connections",), ("train", "kitsune", "--learn", 600)])
def test_a_pipe_is_not_written_to_while_it_is_read(
    line: tuple[object, ...], small: Path, tmp_path: Path
) -> None:
    with piped("fifo", small.read_bytes(), tmp_path, "p") as (path, _):
        code, out, err = bounded(*line, path, "-o", path)
    assert (code, out) == (2, b"")
    assert b"this is one of the captures and would be overwritten" in err


def test_two_pipes_and_files_given_twice_are_no_pipe_given_twice(small: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    os.mkfifo(tmp_path / "b")
    check_pipes(tmp_path / "a", tmp_path / "b", small, small, None, tmp_path / "missing", Path("/dev/null"))
    with pytest.raises(ConfigError, match="a can be read only once"):
        check_pipes(tmp_path / "b", tmp_path / "a", tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(ConfigError, match="link can be read only once"):
        check_pipes(tmp_path / "a", tmp_path / "link")


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_takes_no_second_read_of_a_pipe(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_bytes(SEED)
    assert again(file, Config) == again(None, Config) == Config()
    with (
        piped(kind, SEED, tmp_path, "c") as (path, _),
        pytest.raises(ConfigError, match="not a regular file, so it can be read only once"),
    ):
        again(Path(path), lambda: pytest.fail("read again"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_from_a_pipe_serves_every_connection(kind: str, tmp_path: Path) -> None:
    with piped(kind, b"hunter2\n", tmp_path, "s") as (path, _):
        secret = Secret(file=Path(path))
        assert [secret.read("x"), secret.read("x")] == ["hunter2", "hunter2"]
