"""Commands in pipes, under signals, and with closed streams."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.commands import console
from engine.types import concatenate
from tests.support.calls import READERS, Line, N, called, summary
from tests.support.capture_bytes import pcap
from tests.support.datagrams import udp
from tests.support.demo import ROOT, command, piece, run
from tests.support.disks import listing
from tests.support.frames import frames_of

pytestmark = pytest.mark.compiled


def test_a_capture_from_stdin_is_read_as_from_a_file(capture: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "score", "-", "--learn", 1000, "--json", "--out", tmp_path, input=capture.read_bytes()
    )
    assert (code, err) == (0, "")
    from_file = summary(capture, "--learn", 1000, "--out", tmp_path / "file")
    assert json.loads(out)["top"][0]["score"] == from_file["top"][0]["score"]  # type: ignore[index]


def test_a_reader_of_stdout_may_leave_early(capture: Path) -> None:
    process = command("packets", capture)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ts"] > 0
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_stdout_that_is_full_is_named(capture: Path) -> None:
    for line in (("packets", capture), ("score", capture)):
        with open("/dev/full", "wb") as full:
            code, _, err = run(*line, stdout=full)
        assert (code, err) == (1, "wiresonde: stdout: No space left on device\n"), line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_a_paced_replay_flushes_and_ends_well(
    number: int, capture: Path, tmp_path: Path
) -> None:
    process = command(
        "score", capture, "--speed", "1x", "--metrics-port", 0, "--linger", 100, "--out", tmp_path, "--json"
    )
    assert process.stderr is not None
    assert b"metrics at http://127.0.0.1:" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"interrupted: the captures were not read to their end\n")
    got = json.loads(out)
    assert got["interrupted"] is True
    assert got["packets"] < N
    assert listing(tmp_path) == ["alerts.jsonl", "metrics.prom", "scores.parquet"]
    assert pq.read_table(tmp_path / "scores.parquet").num_rows >= got["connections"]


def test_an_interrupt_while_a_pipe_is_silent_ends_well(capture: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, capture.read_bytes()[:30_000])
    process = command("score", "-", "--metrics-port", 0, "--out", tmp_path, "--json", stdin=reader)
    assert process.stderr is not None
    assert b"metrics at" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    os.close(reader)
    assert (process.returncode, err) == (0, b"interrupted: the captures were not read to their end\n")
    assert json.loads(out)["interrupted"] is True
    assert listing(tmp_path) == ["alerts.jsonl", "metrics.prom", "scores.parquet"]


def test_a_terminal_sees_progress_on_stderr_and_data_on_stdout_alone(capture: Path, tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = command("packets", capture, stdout=out, stderr=theirs, env={"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(mine, 65536):
            shown += part
    os.close(mine)
    assert process.wait(60) == 0
    assert b"reading" in shown
    assert (tmp_path / "out").read_text() == called("packets", capture).stdout


def many_flows(path: Path) -> Path:
    """A capture of more connections than wait to be written at a time, and packets by whose time they have ended."""
    n = 12_000
    p = udp([1_700_000_000_000_000_000 + 1000 * k for k in range(n)], [1024 + k for k in range(n)])
    later = udp([1_700_000_100_000_000_000 + k for k in range(2)], [1, 2])
    frames = frames_of(concatenate([p, later]))
    starts, sizes = frames.start.tolist(), frames.captured.tolist()
    records = zip((frames.ts // 1000).tolist(), starts, sizes, frames.wire.tolist())
    path.write_bytes(pcap((ts, frames.buffer[a : a + size].tobytes(), wire) for ts, a, size, wire in records))
    return path


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    deadline, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        never.wait(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.parametrize(
    ("what", "kind"), [("packets", "jsonl"), ("packets", "parquet"), ("connections", "jsonl")]
)
def test_a_signal_while_a_file_is_written_leaves_neither_it_nor_a_hidden_one(
    number: signal.Signals, what: str, kind: str, tmp_path: Path
) -> None:
    data = many_flows(tmp_path / "flows.pcap").read_bytes()
    place = tmp_path / "out"
    place.mkdir()
    process = command(what, "-", "--format", kind, "-o", place / "new", stdin=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(data)
        process.stdin.flush()  # and it waits for more
        until(lambda: listing(place) != [])
        (hidden,) = listing(place)
        assert re.fullmatch(r"\.new\.[0-9a-f]{32}\.tmp", hidden)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == b"wiresonde: terminated\n"
    assert listing(place) == []


def test_a_signal_while_a_file_is_written_leaves_the_one_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("earlier")
    process = command("packets", "-", "-o", tmp_path / "out", stdin=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        process.stdin.write(piece(tmp_path / "c.pcap", 50).read_bytes())
        process.stdin.flush()
        until(lambda: len(listing(tmp_path)) == 3)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert listing(tmp_path) == ["c.pcap", "out"]
    assert (tmp_path / "out").read_text() == "earlier"


def redirected(redirection: str, *arguments: object) -> tuple[int, str, str]:
    """Run wiresonde from a shell that closes a stream of it: exit code, stdout, stderr."""
    line = [
        "sh",
        "-c",
        f'exec "$@" {redirection}',
        "sh",
        sys.executable,
        "-m",
        "engine.cli",
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("line", READERS)
def test_a_stdin_that_is_closed_is_named(line: Line, tmp_path: Path) -> None:
    learn = ("--learn", 100) if line(tmp_path, tmp_path)[0] == "train" else ()
    code, out, err = redirected("<&-", *line(Path("-"), tmp_path), *learn)
    assert (code, out, err) == (1, "", "wiresonde: -: stdin is closed\n")
    assert all(files == [] for _, _, files in os.walk(tmp_path))


@pytest.mark.parametrize(
    "line", [("packets",), ("connections",), ("score", "--json"), ("packets", "-o", "f")]
)
def test_a_stdout_that_is_closed_is_named(
    line: tuple[str, ...], capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert redirected(">&-", *line, capture) == (1, "", "wiresonde: stdout is closed\n")
    assert redirected(">&-", "config", "show") == (1, "", "wiresonde: stdout is closed\n")
    assert listing(tmp_path) == []


def test_a_stderr_that_is_closed_changes_no_exit_code(tmp_path: Path) -> None:
    assert redirected("2>&-", "config", "show") == (0, called("config", "show").stdout, "")
    assert redirected("2>&-", "config", "check", tmp_path / "missing") == (1, "", "")
    assert redirected("2>&-", "nonsense") == (2, "", "")


def test_a_stderr_that_is_closed_keeps_no_capture_from_being_read(capture: Path) -> None:
    assert redirected("2>&-", "packets", capture) == (0, called("packets", capture).stdout, "")


class Forgetful:
    """Is told to end in its destructor, of which Python forgets what it raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def forget() -> None:
    thing = Forgetful()
    del thing


def told_to_end(work: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    """See a command end in the middle of its work, with one line, once."""

    def command() -> None:
        with console._terminated():
            work()

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "wiresonde: terminated\n"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_that_was_raised_where_nothing_can_be_raised_is_remembered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        forget()
        stopped: list[bool] = []
        with console.interrupts(lambda: stopped.append(True)):
            assert stopped == [True]  # as by a signal that comes now
        sys.exit(128 + signal.SIGTERM)

    told_to_end(work, capsys)


def test_it_is_raised_again_until_it_comes_through(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()

    def work() -> None:
        forget()
        select.select([reader], [], [], 30)  # nothing comes
        raise AssertionError("the command went on")

    told_to_end(work, capsys)
    os.close(reader)
    os.close(writer)


def test_it_ends_the_making_of_a_class_as_in_an_import(capsys: pytest.CaptureFixture[str]) -> None:
    class Named:
        def __set_name__(self, owner: type, name: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def work() -> None:
        type("Imported", (), {"attribute": Named()})

    told_to_end(work, capsys)


def test_another_error_is_not_taken_for_the_end() -> None:
    with pytest.raises(RuntimeError, match="another"), console._terminated():
        raise RuntimeError("another") from ValueError()


@pytest.mark.parametrize("way", ["finally", "except", "with"])
def test_no_clean_up_is_disturbed_by_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "AGAIN", 0.05)

    def clean() -> None:
        time.sleep(0.2)
        (tmp_path / "clean").touch()

    @contextlib.contextmanager
    def cleaned() -> Iterator[None]:
        try:
            yield
        finally:
            clean()

    def work() -> None:
        if way == "with":
            with cleaned():
                forget()
                time.sleep(1)
        try:
            forget()
            time.sleep(1)
        except SystemExit:
            if way == "except":
                clean()
            raise
        finally:
            if way == "finally":
                clean()

    told_to_end(work, capsys)
    assert (tmp_path / "clean").exists()


def test_a_foreign_alarm_ends_nothing() -> None:
    with console._terminated():
        os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(0.01)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_stderr_that_nobody_reads_keeps_no_command_from_ending(capture: Path) -> None:
    reader, writer = os.pipe()
    process = command("packets", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    os.close(reader)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(capture.read_bytes()[:30_000])
        process.stdin.flush()
        process.stdout.read(1)
        process.terminate()
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_cleaning_up_is_not_disturbed_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "AGAIN", 0.05)

    class Slow:
        def abort(self) -> None:
            time.sleep(0.2)
            (tmp_path / "aborted").touch()

    def work() -> None:
        with console.whole(tmp_path / "f", Slow):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    told_to_end(work, capsys)
    assert (tmp_path / "aborted").exists()
