"""Text on terminals that lack characters, and text that would command a terminal."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.commands.console import Formatter, json_for_stdout, shown
from tests.support.calls import called
from tests.support.demo import piece
from tests.support.pipes import bounded

pytestmark = pytest.mark.compiled

KEYS = "src,sport,dst,dport,proto,start,end"
ODD = "日本 €é"
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ENVIRONMENTS = [
    pytest.param({"PYTHONIOENCODING": "cp1252"}, "cp1252", "?? €é", id="cp1252"),
    pytest.param({"PYTHONIOENCODING": "latin-1"}, "latin-1", "?? ?é", id="latin-1"),
    pytest.param({"PYTHONIOENCODING": "ascii"}, "ascii", "?? ??", id="ascii"),
    pytest.param({"PYTHONIOENCODING": "ascii:strict"}, "ascii", "?? ??", id="ascii:strict"),
    pytest.param(C, "ascii", "?? ??", id="C"),
    pytest.param({"PYTHONIOENCODING": "utf-8"}, "utf-8", ODD, id="utf-8"),
    pytest.param({"LC_ALL": "C", "PYTHONUTF8": "1"}, "utf-8", ODD, id="C with UTF-8"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return piece(tmp_path_factory.mktemp("small") / "small.pcap", 800)


def labelled(folder: Path, label: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(f'{KEYS},task\n,,,,,,,"{label}"\n', encoding="utf-8")
    return path


@pytest.mark.parametrize(("env", "encoding", "label"), ENVIRONMENTS)
def test_a_summary_shows_a_question_mark_for_what_the_terminal_lacks(
    env: dict[str, str], encoding: str, label: str, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ("größe" if encoding != "ascii" else "o")  # in C, arguments are not UTF-8 either
    labels = labelled(tmp_path, ODD)
    code, out, err = bounded("score", small, "--learn", 500, "--labels", labels, "--out", folder, env=env)
    assert (code, err) == (0, b"")
    text = out.decode(encoding)
    assert label in text
    assert "scores.parquet" in text
    code, out, err = bounded("scores", folder / "scores.parquet", "--by", "task", env=env)
    assert (code, err) == (0, b"")
    assert label in out.decode(encoding)


@pytest.mark.parametrize(("env", "encoding", "label"), ENVIRONMENTS)
def test_errors_and_help_too(env: dict[str, str], encoding: str, label: str, tmp_path: Path) -> None:
    code, out, err = bounded("packets", tmp_path / f"{ODD}.pcap", env=env)
    assert (code, out) == (1, b"")
    said = err.decode(encoding)
    assert "No such file or directory" in said
    assert f"/{label}.pcap" in said or env is C  # where each byte of a name is a character
    for line in (("packets", "--help"), (ODD,)):
        code, out, err = bounded(*line, env=env)
        assert code in (0, 2), line
        assert (out + err).decode(encoding)
        assert b"Traceback" not in err


@pytest.mark.parametrize(("env", "encoding", "label"), ENVIRONMENTS)
def test_data_lose_nothing(
    env: dict[str, str],
    encoding: str,
    label: str,  # noqa: ARG001 -- of the other tests
    small: Path,
    tmp_path: Path,
) -> None:
    """JSON and YAML have escapes for what a stream lacks."""
    given = ODD + "\U0001f600\x7f\x9b"
    labels = labelled(tmp_path, given)
    assert called("score", small, "--learn", 500, "--labels", labels, "--out", tmp_path / "o").exit_code == 0
    code, out, err = bounded("scores", tmp_path / "o" / "scores.parquet", env=env)
    assert (code, err) == (0, b"")
    lines = out.decode(encoding).splitlines()
    assert {json.loads(line)["label.task"] for line in lines} == {given}
    assert "\x9b" not in out.decode(encoding)
    assert "\x7f" not in out.decode(encoding)
    (tmp_path / "c.yaml").write_text(f"output: {{directory: {ODD}}}", encoding="utf-8")
    code, out, err = bounded("config", "show", "-c", tmp_path / "c.yaml", env=env)
    assert (code, err) == (0, b"")
    (tmp_path / "again.yaml").write_bytes(out)
    assert (
        called("config", "show", "-c", tmp_path / "again.yaml").stdout
        == called("config", "show", "-c", tmp_path / "c.yaml").stdout
    )


ESCAPE = "\x1b]0;title\x07\x1b[31m\x9b31m\u202e"


def quiet(text: str) -> bool:
    """Whether no character of a text commands a terminal."""
    return all(c.isprintable() or c == "\n" for c in text)


def test_labels_cannot_command_a_terminal(small: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(f"{KEYS},a{ESCAPE},attack\n,,,,,,,x{ESCAPE},[red]1\n", encoding="utf-8")
    shown_summary = called("score", small, "--learn", 500, "--labels", labels, "--out", tmp_path / "o")
    assert shown_summary.exit_code == 0
    by_label = called("scores", tmp_path / "o" / "scores.parquet", "--by", "attack")
    for text in (shown_summary.stdout, by_label.stdout):
        assert "[red]1" in text
        assert quiet(text)


def test_names_of_files_and_models_cannot_either(small: Path, tmp_path: Path) -> None:
    odd = tmp_path / f"x{ESCAPE}"
    for line in (
        ("packets", odd),
        ("config", "check", odd),
        ("score", small, "--model", odd),
        ("score", "-c", odd, small),
    ):
        result = called(*line)
        assert result.exit_code in (1, 2)
        assert quiet(result.output), line
    odd.write_text("")
    assert quiet(called("config", "check", odd).stderr)
    result = called("score", small, "--learn", 500, "--out", tmp_path / f"o{ESCAPE}")
    assert result.exit_code == 0
    assert quiet(result.stdout)
    table = pq.read_table(tmp_path / f"o{ESCAPE}" / "scores.parquet")
    models = table.set_column(
        table.column_names.index("model"), table.schema.field("model"), [[f"m{ESCAPE}[b]"] * table.num_rows]
    )
    models = models.append_column("label.task", [["a"] * table.num_rows])
    pq.write_table(models, tmp_path / "m.parquet")
    result = called("scores", tmp_path / "m.parquet", "--by", "task")
    assert result.exit_code == 0, result.stderr
    assert quiet(result.stdout)
    assert "[b]" in result.stdout


def test_a_name_that_is_not_utf_8_is_shown(small: Path, tmp_path: Path) -> None:
    code, _, err = bounded("packets", f"{tmp_path}/\udcff.pcap")
    assert code == 1
    assert err.endswith(b"/\xef\xbf\xbd.pcap: No such file or directory\n")
    odd = Path(f"{tmp_path}/\udcff.pcap")
    odd.write_bytes(small.read_bytes())
    code, out, err = bounded("train", "kitsune", odd, "--learn", 600, "--force", "-o", f"{tmp_path}/b\udcff")
    assert (code, err) == (0, b"")
    assert b"/b\xef\xbf\xbd\n" in out


def test_log_lines_cannot_command_a_terminal() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "capture=%s\nmore", (ESCAPE,), None)
    text = Formatter("%(message)s").format(record)
    assert text.count("\n") == 1
    assert quiet(text)


def test_what_is_printable_stays() -> None:
    assert shown("größe 日本 €") == "größe 日本 €"
    assert shown("a\x1b[0m\tb") == "a\N{REPLACEMENT CHARACTER}[0m\N{REPLACEMENT CHARACTER}b"
    assert json_for_stdout('{"a": "b"}') == '{"a": "b"}'
