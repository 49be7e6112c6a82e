"""`wiresonde train sequence` put together: corpora in, bundles out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import engine
from connectors.files.whole import write_whole
from engine.connections.bounds import TrackerConfig
from engine.errors import InputError, OutputError
from engine.features.tokens import TokenConfig
from engine.scoring.building import check_bundle_place, digest_of_file
from models.bundle import BundleError
from models.threshold import Threshold, ThresholdConfig, fit
from probing.corpus.check import Settings, check
from probing.corpus.corpus import read_corpus
from probing.corpus.divided import SEED
from probing.corpus.labelled import Labelled, of_capture, of_corpus
from probing.training.bundle import bundle_of
from probing.training.checkpoint import checkpoint_of
from probing.training.curve import write_curve
from probing.training.network import Network, chosen_device, shape_of
from probing.training.parts import Parts, counted, divide, shares, warnings, with_parts
from probing.training.recipe import Recipe
from probing.training.scoring import Aggregate, connection_scores, packet_scores
from probing.training.sequences import Sequences, join_sequences, read_sequences
from probing.training.train import Learned, Report, Training

Say = Callable[[str], None]
Bar = Callable[[str], AbstractContextManager[Report | None]]  # a progress bar of a title


@dataclass(frozen=True)
class Source:
    """Labelled traffic to learn from."""

    capture: Path
    labels: Path | None = None  # of general traffic; None: a corpus of the lab


@dataclass(frozen=True)
class Job:
    """What to train."""

    sources: Sequence[Source]
    out: Path
    tokens: TokenConfig
    recipe: Recipe
    threshold: ThresholdConfig
    tracker: TrackerConfig
    seeds: int = 1  # number of networks, with seeds from the recipe's on
    device: str = "auto"
    force: bool = False  # whether a corpus that the check finds fault with is used
    aggregate: Aggregate = "last"  # statistic of packet scores that scores a connection


def run(job: Job, say: Say, bar: Bar, stop: Callable[[], bool]) -> bool:
    """Train, and write bundles and learning curves; False when ``stop`` ended it before.

    Raises, before anything is written, ConfigError without torch or device, OutputError for a place that cannot be
    written, and InputError for traffic that is damaged, has a fault, or lacks what training needs.
    """
    device = chosen_device(job.device)
    places = bundle_places(job.out, job.recipe.seed, job.seeds)
    for place in places.values():
        check_bundle_place(place)
    data, origin = gather(job, say)
    parts = divide(data, job.recipe.held_out, SEED)
    tell(parts, say)
    for seed, place in places.items():
        recipe = replace(job.recipe, seed=seed)
        shape = shape_of(job.tokens, recipe.hidden, recipe.layers, recipe.embedding)
        training = Training(Network(shape, seed, device), parts.fit, parts.held_out, recipe)
        with bar(f"training, seed {seed}") as report:
            if not training.run(checkpoint_of(place), report, stop):
                say(
                    f"stopped at step {training.step:,}; the same command goes on from {checkpoint_of(place)}"
                )
                return False
        _finish(job, training, parts, place, origin, say)
    for place in places.values():  # only now: a network that is done would be trained again
        checkpoint_of(place).unlink(missing_ok=True)
    return True


def bundle_places(out: Path, first: int, seeds: int) -> dict[int, Path]:
    """The bundle of each seed: ``out``; if there are several, with -1, -2 … before the suffix."""
    if seeds == 1:
        return {first: out}
    return {first + k: out.with_name(f"{out.stem}-{k + 1}{out.suffix}") for k in range(seeds)}


def gather(job: Job, say: Say) -> tuple[Sequences, list[dict[str, Any]]]:
    """The sequences of all sources, and where they come from. Raises InputError for a corpus with a fault."""
    parts, origin = [], []
    for source in job.sources:
        known, captures, labels = _labelled(source)
        if source.labels is None:
            refuse_faults(known, job.force, say)
        known, how = with_parts(known)
        general = pa.array([source.labels is not None] * known.labels.num_rows)
        known = replace(known, labels=known.labels.append_column("general", general))
        found = read_sequences(known, captures, job.tokens, job.tracker)
        say(f"{known.name}: {len(found):,} connections, {found.rows.shape[0]:,} tokens; parts: {how}")
        parts.append(found if source.labels is None else _without_own_labels(found))
        origin.append({
            "name": known.name, "parts": how,
            "captures": [{"name": path.name, "sha256": digest_of_file(path)} for path in captures],
            "labels": {"name": labels.name, "sha256": digest_of_file(labels)},
        })  # fmt: skip
    names = [given["name"] for given in origin]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(
            f"{twice[0]}: given twice, or two corpora of one name: their runs could not be told apart"
        )
    return join_sequences(parts), origin


def _labelled(source: Source) -> tuple[Labelled, Sequence[Path], Path]:
    """A source's labelled connections, captures and label file."""
    if source.labels is not None:
        return of_capture(source.capture, source.labels), [source.capture], source.labels
    corpus = read_corpus(source.capture)
    return of_corpus(corpus), [corpus.capture], corpus.labels_file


CORE = (
    "corpus", "run", "pair", "part", "group", "scenario", "activity", "termination", "background", "attack",
    "attack_kind", "succeeded", "general",
)  # fmt: skip


def _without_own_labels(data: Sequences) -> Sequences:
    """Sequences of others with the labels that the lab's have, too; other columns might be of other types."""
    return replace(data, labels=data.labels.select(CORE))


def refuse_faults(known: Labelled, force: bool, say: Say) -> None:
    """Raise InputError for a corpus in which the check finds a fault; only say so if it is forced."""
    faults = check(known, Settings()).faults()
    if not faults:
        return
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    first = f"{known.name}: {faults[0].kind} of {faults[0].about}: {faults[0].says}{more}"
    if not force:
        raise InputError(f"{first}; a model would learn that: see `wiresonde corpus check`, or give --force")
    say(f"warning: {first}")


def tell(parts: Parts, say: Say) -> None:
    """Say what there is to learn from, and of what there is little."""
    for name, counts in counted(parts).items():
        what = {"fit": "learned from", "held_out": "validate", "calibrate": "calibrate"}[name]
        say(
            f"{what}: {counts['attacks']:,} attacks, {counts['benign']:,} benign connections in {counts['runs']:,} runs"
        )
    given = shares(parts.fit)
    for name, share in given.items():
        say(f"  {share:6.1%}  {name}")
    for line in warnings(given):
        say(f"warning: {line}")


def _finish(
    job: Job, training: Training, parts: Parts, place: Path, origin: list[dict[str, Any]], say: Say
) -> None:
    """Write the best network of a training, its learning curve, and say how good it is. Raises OutputError."""
    network, learned = training.network, training.learned
    network.restore(learned.best)
    scores = connection_scores(
        parts.calibrate, packet_scores(network.arrays(), parts.calibrate), job.aggregate
    )
    threshold = fit(scores, job.threshold)
    try:
        data = bundle_of(network, learned.best_step, job.tokens, threshold, job.aggregate,
                         provenance(job, training, parts, origin))  # fmt: skip
        write_whole(place, data)
    except BundleError as error:
        raise OutputError(f"{place}: {error}") from error
    except OSError as error:
        raise OutputError(f"{place}: {error.strerror or error}") from error
    files = [place, *write_curve(place, learned)]
    for line in _result(learned, training.step, threshold, job.threshold):
        say(line)
    say(f"wrote {', '.join(map(str, files))}")


def _result(learned: Learned, steps: int, threshold: Threshold, wanted: ThresholdConfig) -> Iterator[str]:
    best = learned.best_row
    yield (
        f"best at step {learned.best_step:,} of {steps:,}: validation AUC {best['validation_auc']:.3f}, "
        f"loss {learned.best_loss:.3f}"
    )
    yield (
        f"threshold {threshold.value:.4f}: {threshold.promised_rate:.2%} false alarms, from {threshold.n:,} benign "
        "connections"
    )
    if not threshold.sufficient:
        yield (
            f"warning: too few to calibrate with: {wanted.needed:,} are needed for a rate of "
            f"{wanted.false_positive_rate:g}"
        )


def provenance(job: Job, training: Training, parts: Parts, origin: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that a bundle says of its origin."""
    learned = training.learned
    return {
        "wiresonde": engine.__version__,
        "corpora": origin,
        "tokens": asdict(job.tokens),
        "parts": counted(parts),
        "shares": {name: round(share, 6) for name, share in shares(parts.fit).items()},
        "recipe": asdict(training.recipe),
        "split_seed": SEED,
        "device": training.network.device,
        "torch": str(training.network.torch.__version__),
        "steps": training.step,
        "best_step": learned.best_step,
        "validation": {name: float(np.round(value, 6)) for name, value in learned.best_row.items()}
        | {"best_loss": round(learned.best_loss, 6)},
        "connections": int(sum(len(part) for part in vars(parts).values())),
    }
