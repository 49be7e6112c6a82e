"""Sentences on what was read and what was not: the same in every command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from connectors.files.counts import FileCounts
from engine.commands.console import shown
from engine.errors import InputError
from engine.headers.link_types import link_type_name
from engine.sensor.tally import Tally
from engine.types import NO_LOSS, unopened_tunnels

LATE_SHARE = 0.01  # share of late packets above which a note is made
FEWEST_COPIES = 10  # and least number of them
COPY_SHARE = 0.25  # share of copies above which a note is made; 0.5: every packet twice


def notes_of(tally: Tally) -> list[str]:
    """Notes for the user on what was read, one line each."""
    notes = [*_unread_notes(tally), *_file_notes(tally.files)]
    if tunnels := unopened_tunnels(tally.unread):
        names, n = ", ".join(sorted(tunnels)), sum(tunnels.values())
        notes.append(
            f"{_packets(n)} {_verb(n, 'carry', 'carries')} tunnels ({names}) that `decode.tunnels` does not name"
        )
    if tally.pauses:
        notes.append(pauses_note(tally.pauses, tally.pause_seconds))
    if n := tally.evicted:
        what = "connections" if n > 1 else "connection"
        notes.append(f"{n:,} {what} ended early, the table was full: raise connections.capacity")
    if (n := tally.copies) >= FEWEST_COPIES and n > COPY_SHARE * tally.packets:
        most = ": most packets are in the capture twice" if n > 0.4 * tally.packets else ""
        notes.append(
            f"{_packets(n)} of {tally.packets:,} ({n / tally.packets:.0%}) {_verb(n, 'are copies', 'is a copy')} that "
            f"the capture made{most}. Does a mirror send both directions of every port? See connections.copies"
        )
    if n := tally.steps_back:
        times = "once" if n == 1 else f"{n:,} times"
        notes.append(
            f"time went back {times}, and was followed: a clock that was set, or captures that are not in order of time"
        )
    elif tally.late > LATE_SHARE * tally.packets:
        n = tally.late
        are = _verb(n, "are", "is")
        notes.append(f"{_packets(n)} {are} older than earlier ones: are the captures in order of time?")
    return notes


def pauses_note(n: int, seconds: float) -> str:
    """A note on pauses that a paced replay did not wait for. seconds: their sum, of the capture."""
    what = "pauses" if n > 1 else "pause"
    return f"{n:,} {what} shortened by --max-gap, by {seconds:,.1f} s of the capture"


def _unread_notes(tally: Tally) -> list[str]:
    notes = []
    if n := tally.unread["link_type"]:
        names = ", ".join(link_type_name(number) for number in sorted(tally.link_types))
        which = f"link type {names}" if names else "their link type"
        notes.append(f"{_packets(n)} not read: no decoder for {which}")
    if reasons := {k: n for k, n in tally.unread.items() if n and k != "link_type" and k not in NO_LOSS}:
        which = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
        notes.append(f"{_packets(sum(reasons.values()))} whose headers could not all be read: {which}")
    return notes


def _file_notes(files: FileCounts) -> list[str]:
    notes = []
    if n := files.lost:
        notes.append(f"{_packets(n)} said to be lost, by the captures' own counts")
    if n := files.untimed:
        notes.append(f"{_packets(n)} {_verb(n, 'have', 'has')} no time, and count as of 1970-01-01")
    for n, most, unit in ((files.over_us, 999_999, "µs"), (files.over_ns, 999_999_999, "ns")):
        if n:
            hint = ": nanoseconds under the magic number of microseconds?" if unit == "µs" else ""
            what = "fractions of a second" if n > 1 else "a fraction of a second"
            notes.append(f"{_packets(n)} {_verb(n, 'have', 'has')} {what} above {most:,} {unit}{hint}")
    if n := files.beyond:
        notes.append(f"{_packets(n)} {_verb(n, 'are', 'is')} later than times can be: set to 2262-04-11")
    if n := files.before:
        notes.append(f"{_packets(n)} {_verb(n, 'have', 'has')} a time before 1970")
    if n := files.joined:
        more = f", and {n - 1:,} more" if n > 1 else ""
        notes.append(f"another capture begins at {shown(files.joined_at)}{more}: read one after the other")
    if n := files.filtered:
        notes.append(f"{_packets(n)} left out by --filter")
    return notes


def _packets(n: int) -> str:
    return f"{n:,} packet" if n == 1 else f"{n:,} packets"


def _verb(n: int, many: str, one: str) -> str:
    return one if n == 1 else many


def say(notes: list[str], summarised: bool = False) -> None:
    """Print notes on stderr. summarised: a summary on stdout has them, so that a terminal would show them twice."""
    if not (summarised and sys.stdout.isatty()):
        for note in notes:
            click.echo(note, err=True)


@contextmanager
def told(tally: Tally, summarised: bool = False) -> Iterator[None]:
    """Print the notes of a tally at the end, also after a damaged capture, but not after a closed output."""
    problem: InputError | None = None
    try:
        yield
    except InputError as error:
        problem = error
    say(notes_of(tally), summarised and problem is None)
    if problem is not None:
        raise problem
