"""The learning curve of a training, as JSON and as a picture."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.files.whole import write_whole
from engine.errors import OutputError
from probing.training.train import Learned


def write_curve(bundle: Path, learned: Learned) -> list[Path]:
    """Write BUNDLE.curve.json and, where matplotlib is installed, BUNDLE.curve.png, without BUNDLE's suffix.

    Returns their paths. Raises OutputError.
    """
    stem = bundle.with_suffix("")
    files = {stem.with_name(f"{stem.name}.curve.json"): _text(learned)}
    picture = _picture(learned)
    if picture is not None:
        files[stem.with_name(f"{stem.name}.curve.png")] = picture
    for path, data in files.items():
        try:
            write_whole(path, data)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
    return list(files)


def _text(learned: Learned) -> bytes:
    whole = {
        "best_step": learned.best_step,
        "best_validation_loss": learned.best_loss,
        "curve": learned.curve,
    }
    return (json.dumps(whole, indent=1) + "\n").encode()


def _picture(learned: Learned) -> bytes | None:
    """The curve as PNG; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    loss, auc = figure.subplots(1, 2)
    _draw(loss, learned, {"loss": "training", "validation_loss": "validation, last packet"})
    loss.set(xlabel="step", ylabel="cross-entropy", ylim=(0, None))
    _draw(auc, learned, {"validation_auc": "validation"})
    auc.set(xlabel="step", ylabel="area under the ROC curve", ylim=(None, 1))
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()


def _draw(axes: Any, learned: Learned, columns: Mapping[str, str]) -> None:
    steps = [row["step"] for row in learned.curve]
    for name, label in columns.items():
        axes.plot(steps, [row[name] for row in learned.curve], label=label)
    axes.axvline(learned.best_step, color="grey", linestyle=":", label=f"best, step {learned.best_step:,}")
    axes.legend(frameon=False, fontsize="small")
