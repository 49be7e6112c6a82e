"""The train command put together: learn from captures, and write only a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import engine
from connectors.files.whole import write_whole
from engine.commands.notes import notes_of, say
from engine.commands.options import LEAST_LEARN
from engine.commands.reading import Choice, Progress, read_packets
from engine.commands.run_summary import RunSummary, too_little
from engine.commands.score import Job, Scoring
from engine.config import BusSection, Config, MetricsSection, OutputSection
from engine.connections.bounds import SPARE
from engine.connections.layout import PACKET_COPY
from engine.connections.tracker import Tracker
from engine.errors import InputError, OutputError
from engine.scoring.building import ModelSpec, check_bundle_place, digest_of_file, pack_model
from engine.types import count_readable
from models.bundle import BundleError


def count_packets(captures: Sequence[Path], config: Config, expression: str = "") -> int:
    """Number of packets that a model can learn from. Raises InputError, after notes, where there are too few."""
    choice = Choice(expression)
    tracker, drop = Tracker(config.connections, SPARE), config.connections.copies == "drop"
    learn = 0
    for p in read_packets(captures, config, choice=choice):
        learn += count_readable(p)
        if drop:  # as the detector does
            learn -= sum(int(np.count_nonzero(t.flags & PACKET_COPY)) for t in tracker.track(p))
    if learn < LEAST_LEARN:
        say(notes_of(choice.tally))
        some = f"{learn} packets"
        if learn < choice.tally.packets:
            some = f"{learn} of {choice.tally.packets:,} packets can be learned from"
        raise InputError(f"{captures[0]}: only {some}; at least {LEAST_LEARN} are needed")
    return learn


class Place(NamedTuple):
    """Where a bundle goes, and whether it is written although there was too little to learn from."""

    out: Path
    force: bool = False


def train(
    spec: ModelSpec, captures: Sequence[Path], config: Config, place: Place, progress: Progress | None = None,
    choice: Choice | None = None,
) -> RunSummary:  # fmt: skip
    """Learn from captures of normal traffic, and write only the bundle. choice: packets to learn from.

    Raises InputError, before anything is written, if the captures are damaged or hold too little: fewer than
    LEAST_LEARNED packets or LEAST_CALIBRATED connections, unless it is forced.
    """
    out = place.out
    check_bundle_place(out)
    alone = {"output": OutputSection(), "metrics": MetricsSection(), "bus": BusSection()}
    choice = choice or Choice()
    scoring = Scoring(
        Job(captures, config.model_copy(update=alone), models=[spec], progress=progress, choice=choice)
    )
    summary = scoring.run()
    summary.trained, summary.top = True, []
    if summary.problem is not None:
        raise InputError(f"{summary.problem}; no bundle was written")
    (scorer,) = scoring.detectors[0].scorers
    if scorer.threshold is None:
        need = spec.kind.learns(spec.section) + spec.section.scorer.calibrate_packets
        if choice.tally.link_types.total() == summary.packets:
            raise InputError(f"{captures[0]}: none of the packets could be read; no bundle was written")
        raise InputError(
            f"{captures[0]}: fewer than the {need:,} packets that --learn or the configuration asks for, or no "
            "connection among the last of them; no bundle was written"
        )
    if (missing := too_little(spec, scorer.threshold)) and not place.force:
        raise InputError(
            f"{captures[0]}: too little to learn from: {missing}; no bundle was written. Give more traffic, or --force "
            "for a model that cannot be relied on"
        )
    learned = spec.kind.learns(spec.section) + spec.section.scorer.calibrate_packets
    provenance = {
        "wiresonde": engine.__version__,
        "version": scorer.version,
        "packets": min(summary.packets, learned),
        "captures": [
            {"name": path.name, "sha256": digest_of_file(path)} for path in captures if path.is_file()
        ],
    }
    streams = _streams(scoring, spec)
    if streams:
        size = sum(array.nbytes for array in streams.values()) / 2**20
        summary.notes.append(
            f"the bundle carries the streams of {len(streams['flows']):,} flows ({size:.1f} MiB)"
        )
    try:
        write_whole(out, pack_model(spec.kind, scorer, provenance, streams))
    except BundleError as error:
        raise OutputError(f"{out}: {error}") from error
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error
    summary.files.append(str(out))
    return summary


def _streams(scoring: Scoring, spec: ModelSpec) -> Mapping[str, NDArray[Any]]:
    """The streams that the bundle carries, as the captures left them."""
    detector, start = scoring.detectors[0], spec.kind.start(spec.section)
    features = detector.features_of(detector.scorers[0])
    return {} if start is None or features is None else features.carry(start.carry_flows)
