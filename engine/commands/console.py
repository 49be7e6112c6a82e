"""Terminal handling of every command: its end, signals, progress, and output files that are complete or absent."""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn, TextIO

import click

from engine.commands.compiling import watched
from engine.errors import ConfigError, InputError, OutputError, WiresondeError

if TYPE_CHECKING:
    from engine.commands.reading import Progress


class Group(click.Group):
    """Ends with one line instead of a traceback on every error that the user can act on."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line, and end the process."""
        _open_streams()
        find_cache()
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False, "prog_name": "wiresonde"})
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "wiresonde"
            _end(f"{error.format_message()} (see {where} --help)", 2)
        except click.ClickException as error:
            _end(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _end("interrupted", 130)
        except OSError as error:  # from --help and --version, which click prints itself
            _output_failed(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with _terminated():
                result = super().invoke(ctx)
            sys.stdout.flush()
        except ConfigError as error:
            _end(error, 2)
        except WiresondeError as error:
            _end(error, 1)
        except OSError as error:
            _output_failed(error)
        except MemoryError as error:
            said = str(error).partition(" for ")[0]  # numpy's message without the dtype
            size = f" ({said})" if said else ""
            _end(f"not enough memory{size}: lower connections.capacity and kitsune.features.flows", 1)
        return result


def find_cache() -> None:
    """Choose a cache directory for kernels if neither installation nor home is writable (as for a service)."""
    installed = Path(__file__).parent.parent
    places = (installed / "__pycache__", installed, Path.home() if "HOME" in os.environ else installed)
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(place, os.W_OK) for place in places):
        return
    own = Path(tempfile.gettempdir()) / f"wiresonde-{os.getuid()}"
    with contextlib.suppress(OSError):
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid == os.getuid() and not own.is_symlink():
            os.environ["NUMBA_CACHE_DIR"] = str(own)


PLAIN_ASCII = "plain_ascii"  # ASCII by another name: on a stream of "ascii", click writes UTF-8


def _plain_ascii(name: str) -> codecs.CodecInfo | None:
    """The codec of PLAIN_ASCII, for ``codecs.register``."""
    if name != PLAIN_ASCII:
        return None
    of = codecs.lookup("ascii")
    return codecs.CodecInfo(
        of.encode,
        of.decode,
        of.streamreader,
        of.streamwriter,
        of.incrementalencoder,
        of.incrementaldecoder,
        name,
    )


def _open_streams() -> None:
    """Handle streams that the caller closed: stderr is discarded, a closed stdout is an error.

    What the encoding of a stream lacks becomes a question mark.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- for the life of the process
    if sys.stdout is None:
        _end("stdout is closed", 1)
    codecs.register(_plain_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                encoding=PLAIN_ASCII if codecs.lookup(stream.encoding).name == "ascii" else None,
                errors="replace",
            )


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream is UTF-8, and so loses no character."""
    return codecs.lookup(stream.encoding).name == "utf-8"


_NOT_ASCII, _CONTROL = re.compile(r"[^\x20-\x7e]"), re.compile(r"[\x7f-\x9f]")


def json_for_stdout(line: str) -> str:
    """A line of JSON with escapes instead of control characters, and of whatever stdout would lose."""
    odd = _CONTROL if is_unicode(sys.stdout) else _NOT_ASCII
    return odd.sub(lambda found: "\\u007f" if found[0] == "\x7f" else json.dumps(found[0])[1:-1], line)


_signals: list[int] = []  # the signal that asked this command to end, if any
AGAIN = 0.5  # seconds until SystemExit is raised again


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, so that no half-written file stays.

    Python swallows an exception that a handler raises during a destructor or a callback, so it is raised again until
    it gets through.
    """

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        again = number == signal.SIGALRM
        if again and not _signals:
            return  # an alarm set by other code
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        if again and _is_ending(sys.exc_info()[1]):
            return  # the exception got through, and cleaning up is under way
        if not _signals:
            _signals.append(number)
            with contextlib.suppress(OSError, RuntimeError):  # stderr is closed, or in the middle of a write
                click.echo("wiresonde: terminated", err=True)
        sys.exit(128 + _signals[0])

    def forgotten(raised: sys.UnraisableHookArgs) -> None:
        if not (_signals and raised.exc_type is SystemExit):
            before(raised)

    _signals.clear()
    before = sys.unraisablehook
    with _handled(handle, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        sys.unraisablehook = forgotten
        try:
            yield
        except RuntimeError as error:
            # Python 3.11 wraps what a descriptor's __set_name__ raises, as in an import
            if isinstance(error.__cause__, SystemExit):
                raise error.__cause__ from None
            raise
        finally:
            sys.unraisablehook = before
            _calm()


def _calm() -> bool:
    """Stop raising SystemExit again; returns whether a signal had asked for the end."""
    asked = bool(_signals)
    _signals.clear()  # first, so that a pending alarm does nothing
    if asked:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return asked


def _is_ending(handled: BaseException | None) -> bool:
    """Whether the exception being handled is SystemExit or was raised while handling it."""
    while handled is not None and not isinstance(handled, SystemExit):
        handled = handled.__context__
    return handled is not None


def _drop_stdout() -> None:
    """Discard buffered output, which Python would otherwise write again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_failed(error: OSError) -> NoReturn:
    _drop_stdout()
    if isinstance(error, BrokenPipeError):  # the reader of stdout is gone, such as head
        sys.exit(0)
    _end(f"{error.filename or 'stdout'}: {error.strerror or error}", 1)


def _end(error: object, code: int) -> NoReturn:
    say("wiresonde: " + " ".join(str(error).split()))
    sys.exit(code)


def shown(text: str) -> str:
    """Text for a terminal: what is neither printable nor a space becomes U+FFFD, such as escape sequences."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def say(line: str) -> None:
    """Print a line on stderr; names from outside reach no terminal as escape sequences."""
    click.echo(shown(line), err=True)


class Formatter(logging.Formatter):
    """Log lines that a terminal shows as they are: a message may hold names from outside."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several with a traceback."""
        return "\n".join(shown(line) for line in super().format(record).split("\n"))


@contextlib.contextmanager
def interrupts(stop: Callable[[], None], reload: Callable[[], None] | None = None) -> Iterator[None]:
    """Call ``stop`` on the first Ctrl-C or SIGTERM; a second Ctrl-C ends the process at once.

    SIGHUP calls ``reload`` if there is one, otherwise ``stop``.
    """

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if number == signal.SIGHUP and reload is not None:
            reload()
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    with _handled(handle, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if _calm():  # a signal arrived, but its exception was swallowed: act on it now
            stop()
        yield


@contextlib.contextmanager
def _handled(handle: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals within the block. Does nothing outside the main thread, where Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress_bar(
    what: str, stream: IO[str] | None = None
) -> contextlib.AbstractContextManager[Progress | None]:
    """A progress bar of bytes with time left, on a terminal only."""
    return _bar(what, stream or sys.stderr, counting=False)


def counting_bar(
    what: str, stream: IO[str] | None = None
) -> contextlib.AbstractContextManager[Progress | None]:
    """A progress bar of steps with time left, on a terminal only."""
    return _bar(what, stream or sys.stderr, counting=True)


@contextlib.contextmanager
def _bar(what: str, stream: IO[str], *, counting: bool) -> Iterator[Progress | None]:
    if not stream.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = MofNCompleteColumn() if counting else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    console = Console(file=stream)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task(what, total=None)

        def compiling(kernels: int) -> None:
            bar.update(task, description=f"compiling kernels, on the first start only: {kernels} ready;")

        with watched(compiling):
            yield lambda done, total: bar.update(task, completed=done, total=total, description=what)


def write_tables(
    tables: Iterator[Any], kind: str, output: Path | None, lines: Callable[[Any], Iterator[str]]
) -> None:
    """Write tables to stdout, or to a file that is complete or absent.

    For a damaged capture, the rows before the damage are written, then InputError is raised.
    """
    if kind == "parquet" and (output is None or str(output) == "-"):
        raise ConfigError("--format parquet needs a file: give -o")
    if output is None or (str(output) == "-" and kind == "jsonl"):
        for table in tables:
            sys.stdout.writelines(line + "\n" for line in lines(table))
        return
    rows = 0
    problem: InputError | None = None
    first = next(tables)
    with whole(output, functools.partial(_begin, output, kind, first.schema)) as file:
        try:
            for table in chain([first], tables):
                file.write(table if kind == "parquet" else lines(table))
                rows += table.num_rows
        except InputError as error:
            if not rows:
                raise
            problem = error
    if problem is not None:
        raise problem


def _begin(path: Path, kind: str, schema: Any) -> Any:
    if kind == "parquet":
        from connectors.files.parquet import ParquetFile

        return ParquetFile(path, schema)
    from connectors.files.text import TextFile

    return TextFile(path)


@contextlib.contextmanager
def whole(path: Path, begin: Callable[[], Any]) -> Iterator[Any]:
    """A file that is closed on success and removed on failure."""
    file = None
    try:
        file = begin()
        yield file
        file.close()
    except OSError as error:
        if file is not None:
            file.abort()
        raise OutputError(f"{path}: {error.strerror or error}") from error
    except BaseException:
        if file is not None:
            file.abort()
        raise
