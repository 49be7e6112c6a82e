"""State + features + model + threshold behind one Protocol.

A scorer sees each packet once, in order, and gives it a score; it keeps what the packets of a connection add up
to by slot of the connection table; and it turns that into an alarm once its threshold is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.types import (
    KIND_MASK,
    PHASES,
    SCORE,
    Floats,
    Kind,
    Packets,
    Rows,
    as_bytes,
    from_bytes,
    take,
    under,
)
from models.kitnet.kitnet import KitNET, KitNETConfig, Phase
from models.threshold import Threshold, ThresholdConfig
from models.threshold import fit as fit_threshold

Slots = NDArray[np.int32]
State = tuple[dict[str, NDArray[Any]], dict[str, Any]]  # arrays and JSON values, by name

CHUNK = 16_384  # packets whose features are kept at a time; with fewer, the tables leave the cache more often

SUM = np.dtype(
    [("total", "f8"), ("peak", "f8"), ("peak_at", "i8"), ("scored", "u4"), ("alarmed", "?")], align=True
)

MAX, MEAN = 0, 1
LEARN, CALIBRATE = PHASES.index("learn"), PHASES.index("calibrate")


@dataclass(frozen=True)
class ScorerConfig:
    """From packet scores to connection scores."""

    aggregate: str = "max"  # a connection's score: max or mean of its packets' scores
    calibrate_packets: int = 20_000  # packets after learning; their connections' scores give the threshold

    def __post_init__(self) -> None:
        if self.aggregate not in ("max", "mean"):
            raise ConfigError(f"aggregate {self.aggregate!r} must be max or mean")
        if self.calibrate_packets < 1:
            raise ConfigError(f"calibrate_packets {self.calibrate_packets} must be at least 1")


class Scorer(Protocol):
    """One model over the packets of one partition."""

    name: str

    @property
    def version(self) -> str:
        """Changes with the configuration and with what was learned."""

    @property
    def phase(self) -> str:
        """One of PHASES."""

    @property
    def threshold_value(self) -> float:
        """The score above which a connection alarms; NaN while there is none."""

    def counters(self) -> dict[str, int]:
        """Numbers for metrics."""

    def until_boundary(self, p: Packets) -> int:
        """How many rows of p may be scored before ``settle`` must be called; all of them in most cases."""

    def score(self, p: Packets) -> Floats:
        """(n,) scores, NaN for packets without one. Learns where the phase says so."""

    def absorb(self, slot: NDArray[np.int32], ts: NDArray[np.int64], scores: Floats) -> tuple[Slots, Rows]:
        """Add packet scores to their connections; returns the slots whose alarm began, in order, and their
        SCORE at the packet with which it began."""

    def finish(self, slots: NDArray[np.int32]) -> Rows:
        """(n,) SCORE of connections that ended; they count for calibration and are forgotten."""

    def settle(self, live: Callable[[], NDArray[np.int32]]) -> None:
        """End the calibration if its packets are all in; ``live`` gives the connections that have not ended."""

    def state(self) -> State:
        """A copy of all that later scores depend on."""

    def restore(self, state: State) -> None:
        """Take over what ``state`` gave. KeyError, TypeError, ValueError or StateError when it does not fit."""


@njit(cache=True, nogil=True)
def _absorb(
    sums: Rows, slot: NDArray[np.int32], ts: NDArray[np.int64], scores: Floats,
    threshold: float, aggregate: int, begun: NDArray[np.int32], at: Rows,
) -> int:  # fmt: skip
    """Add up scores by slot. Slots whose score passes the threshold for the first time go to ``begun``, their
    sums at that packet to ``at``."""
    n = 0
    for i in range(slot.size):
        if slot[i] < 0 or scores[i] != scores[i]:
            continue
        row = sums[slot[i]]
        if row["scored"] == 0 or scores[i] > row["peak"]:
            row["peak"] = scores[i]
            row["peak_at"] = ts[i]
        row["total"] += scores[i]
        row["scored"] += 1
        score = row["peak"] if aggregate == MAX else row["total"] / row["scored"]
        if score > threshold and not row["alarmed"]:
            row["alarmed"] = True
            begun[n] = slot[i]
            at[n] = row
            n += 1
    return n


class KitsuneScorer:
    """Kitsune over one partition: AfterImage, KitNET, threshold."""

    name = "kitsune"

    def __init__(
        self,
        features: AfterImageConfig,
        kitnet: KitNET,
        threshold: ThresholdConfig,
        config: ScorerConfig,
        slots: int,
        fitted: Threshold | None = None,
    ) -> None:
        """``slots``: of the connection table. ``fitted``: a threshold known from before: nothing is calibrated."""
        self.config = config
        self.features = AfterImage(features)
        self.kitnet = kitnet
        self.threshold = fitted
        self._threshold_config = threshold
        self._aggregate = MAX if config.aggregate == "max" else MEAN
        self._sums = np.zeros(slots, SUM)
        self._begun, self._at = np.empty(0, np.int32), np.zeros(0, SUM)
        self._features = np.empty((CHUNK, kitnet.config.features))
        self._calibrated = 0  # packets scored while calibrating
        self._version = self._digest()
        self._sample: list[Floats] = []  # connection scores seen while calibrating

    @property
    def phase(self) -> str:
        """One of PHASES."""
        if self.kitnet.phase is not Phase.SCORE:
            return str(self.kitnet.phase.value)
        return "score" if self.threshold is not None else "calibrate"

    @property
    def version(self) -> str:
        """A digest of the configuration and, once there is one, of the threshold, which what was learned gave."""
        return self._version

    def _digest(self) -> str:
        parts: list[Any] = [asdict(self.features.config), asdict(self.kitnet.config), asdict(self.config)]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        if self.threshold is not None:
            digest.update(repr(self.threshold.value).encode())
        return digest.hexdigest()[:12]

    def until_boundary(self, p: Packets) -> int:
        """Rows up to the last packet of the calibration."""
        n = p.ts.size
        if self.threshold is not None:
            return n
        config = self.kitnet.config
        learning = max(0, config.map_samples + config.learn_samples - self.kitnet.samples)
        if self.kitnet.phase is Phase.SCORE:
            learning = 0
        left = learning + self.config.calibrate_packets - self._calibrated
        readable = np.cumsum((p.kind & KIND_MASK) != Kind.UNREAD)
        return int(np.searchsorted(readable, left)) + 1 if n and readable[-1] >= left else n

    @property
    def calibrated(self) -> bool:
        """Whether the calibration has had its packets and waits to be settled."""
        return self.threshold is None and self._calibrated >= self.config.calibrate_packets

    def score(self, p: Packets) -> Floats:
        """(n,) packet scores; NaN while the feature map is made, and for packets that could not be read."""
        out = np.full(p.ts.size, np.nan)
        for begin in range(0, p.ts.size, CHUNK):
            part = take(p, slice(begin, begin + CHUNK))
            x = self.features.update(part, self._features[: part.ts.size])
            unread = (part.kind & KIND_MASK) == Kind.UNREAD
            if unread.any():
                out[begin : begin + CHUNK][~unread] = self._samples(np.ascontiguousarray(x[~unread]))
            else:
                out[begin : begin + CHUNK] = self._samples(x)
        return out

    def _samples(self, x: Floats) -> Floats:
        config = self.kitnet.config
        before = self.kitnet.samples
        scores = self.kitnet.process(x)
        if self.threshold is None:
            learning = config.map_samples + config.learn_samples
            first = min(len(x), max(0, learning - before))  # rows still learned from: their scores fall yet
            scores[:first] = np.nan
            self._calibrated += len(x) - first
        return scores

    def absorb(self, slot: Slots, ts: NDArray[np.int64], scores: Floats) -> tuple[Slots, Rows]:
        """Add packet scores to their connections; returns the slots whose alarm began, and their SCORE then."""
        begun, at = self._begun[: slot.size], self._at[: slot.size]
        if begun.size < slot.size:
            self._begun = begun = np.empty(slot.size, np.int32)
            self._at = at = np.zeros(slot.size, SUM)
        n = _absorb(self._sums, slot, ts, scores, self._bound, self._aggregate, begun, at)
        return begun[:n].copy(), self._score_rows(at[:n], final=False)

    def finish(self, slots: Slots) -> Rows:
        """(n,) SCORE of connections that ended; they count for calibration and are forgotten."""
        sums = self._sums[slots]
        self._sums[slots] = np.zeros(1, SUM)
        out = self._score_rows(sums, final=True)
        if self.threshold is None:
            self._sample.append(out["score"][out["scored"] > 0])
        return out

    @property
    def _bound(self) -> float:
        return np.inf if self.threshold is None else self.threshold.value

    def _score_rows(self, sums: Rows, final: bool) -> Rows:
        out = np.zeros(sums.size, SCORE)
        if not sums.size:
            return out
        scored = sums["scored"] > 0
        out["peak"] = np.where(scored, sums["peak"], np.nan)
        out["mean"] = np.where(scored, sums["total"] / np.maximum(sums["scored"], 1), np.nan)
        out["score"] = out["peak"] if self._aggregate == MAX else out["mean"]
        out["peak_at"] = sums["peak_at"]
        out["scored"] = sums["scored"]
        out["threshold"] = self.threshold_value
        out["alarm"] = out["score"] > out["threshold"]
        out["begins"] = out["alarm"] & ~(sums["alarmed"] & final)
        out["final"] = final
        # not the model's phase now, which would depend on where the stream is cut, but what the row shows of it
        out["phase"] = np.where(scored, CALIBRATE, LEARN) if self.threshold is None else PHASES.index("score")
        return out

    def settle(self, live: Callable[[], NDArray[np.int32]]) -> None:
        """Fit the threshold to the connections seen while calibrating, ended or not."""
        if self.calibrated:
            self._sample.append(self._scores_of(live()))
            sample = np.concatenate(self._sample)
            if not sample.size:  # only packets without a connection, such as ARP: calibrate once more
                self._calibrated = 0
                return
            self.threshold = fit_threshold(sample, self._threshold_config)
            self._sample = []
            self._version = self._digest()

    def _scores_of(self, slots: NDArray[np.int32]) -> Floats:
        sums = self._sums[slots]
        sums = sums[sums["scored"] > 0]
        scores: Floats = sums["peak"] if self._aggregate == MAX else sums["total"] / sums["scored"]
        return scores

    @property
    def threshold_value(self) -> float:
        """The score above which a connection alarms; NaN while there is none."""
        return float("nan") if self.threshold is None else self.threshold.value

    def state(self) -> State:
        """A copy of features, model, threshold and the sums of live connections."""
        arrays = {f"features.{name}": array for name, array in self.features.state().items()}
        arrays |= {f"kitnet.{name}": array for name, array in self.kitnet.state().items()}
        slots = np.flatnonzero(self._sums["scored"])
        arrays["slots"], arrays["sums"] = slots, as_bytes(self._sums[slots])
        arrays["sample"] = np.concatenate(self._sample) if self._sample else np.empty(0)
        fitted = None if self.threshold is None else asdict(self.threshold)
        return arrays, {"threshold": fitted, "calibrated": self._calibrated}

    def restore(self, state: State) -> None:
        """Take over what ``state`` gave; errors as in Scorer."""
        arrays, values = state
        self.features = AfterImage.from_state(self.features.config, under(arrays, "features."))
        self.kitnet = KitNET.from_state(self.kitnet.config, under(arrays, "kitnet."))
        self._sums[arrays["slots"]] = from_bytes(arrays["sums"], SUM)
        self._sample = [arrays["sample"]] if arrays["sample"].size else []
        self._calibrated = values["calibrated"]
        self.threshold = None if values["threshold"] is None else Threshold(**values["threshold"])
        self._version = self._digest()

    def counters(self) -> dict[str, int]:
        """Flows remembered and evicted by the features, and inputs outside the learned range."""
        return {
            "flows": self.features.flows, "flows_evicted": self.features.evicted,
            "out_of_range": self.kitnet.out_of_range,
        }  # fmt: skip


def new_kitsune(
    features: AfterImageConfig,
    kitnet: KitNETConfig,
    threshold: ThresholdConfig,
    config: ScorerConfig,
    slots: int,
) -> KitsuneScorer:
    """A Kitsune that has learned nothing."""
    return KitsuneScorer(features, KitNET(kitnet), threshold, config, slots)
