"""Scores and alarms of connections from the packet scores of any model.

A model scores packets, connections, or both. The scorer adds the scores up by connection, finds a threshold if the
model came without one, and reports when an alarm begins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.kernels import kernel
from engine.scoring.batch import PHASES, SCORE
from engine.scoring.hosts import MOST as MOST_HOSTS
from engine.scoring.hosts import NEW, Hosts
from engine.scoring.start import StartConfig
from engine.types import Floats, Packets, Rows, as_bytes, from_bytes, raw, rows_at, under
from models.threshold import Threshold, ThresholdConfig, fit

Slots = NDArray[np.int32]
State = tuple[dict[str, NDArray[Any]], dict[str, Any]]  # arrays and JSON values, by name

SUM = np.dtype(
    [
        ("total", "f8"), ("peak", "f8"), ("last", "f8"), ("peak_at", "i8"),
        ("scored", "u4"), ("alarmed", "?"),
    ],
    align=True,
)  # fmt: skip

AGGREGATES = ("max", "mean", "last")
MAX, MEAN, LAST = range(3)
LEARN, CALIBRATE, WARM, SCORED = (PHASES.index(name) for name in ("learn", "calibrate", "warm", "score"))


@dataclass(frozen=True)
class ScorerConfig:
    """How packet scores become connection scores."""

    aggregate: Literal["max", "mean", "last"] = "max"  # statistic of packet scores that scores a connection
    calibrate_packets: int = 20_000  # packets after learning whose connections give the threshold
    known_hosts: int = 65_536  # most hosts of learning that are remembered, 8 bytes each; 0: none
    alerts: Literal["all", "known", "new"] = "all"  # alarms that alert: of all, known or new hosts

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"aggregate {self.aggregate!r} must be one of {', '.join(AGGREGATES)}")
        if self.calibrate_packets < 1:
            raise ValueError(f"calibrate_packets {self.calibrate_packets} must be at least 1")
        if not 0 <= self.known_hosts <= MOST_HOSTS:
            raise ValueError(f"known_hosts {self.known_hosts} must be from 0 to {MOST_HOSTS}")
        if self.alerts not in ("all", "known", "new"):
            raise ValueError(f"alerts {self.alerts!r} must be all, known or new")


class Events(NamedTuple):
    """Packet scores in the order in which a model released them; a packet has at most one."""

    slot: Slots  # (m,) connection of the packet scored, -1 = none
    ts: NDArray[np.int64]  # (m,) ns, time of the packet scored
    number: NDArray[np.int64]  # (m,) index of the packet scored among those given to models, from 0
    score: Floats  # (m,) NaN: the packet has no score and will never have one
    at: NDArray[np.int64]  # (m,) row of the block whose packet released the score, ascending


def prompt(p: Packets, t: Tracked, scores: Floats) -> Events:
    """Events of a model that scores every packet at once. scores: (n,) of the packets of p."""
    at = np.arange(p.ts.size)
    return Events(t.slot, p.ts, t.number + at, scores, at)


NO_EVENTS = Events(
    np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64)
)


class Ended(NamedTuple):
    """Connections that have ended. Their slots are reused after ``close`` returns."""

    slot: Slots  # (n,)
    rows: Rows  # (n,) CONNECTION
    sides: Rows  # (n, 2) SIDE


class Model(Protocol):
    """Scores packets, or connections at their end. Sees each packet once, in order, and knows only event time.

    Its results depend on the packets alone, not on how they are cut into blocks.
    """

    delays: bool  # whether the model may hold back a packet's score
    scores_packets: bool  # whether packets have scores; if not, only connections do, when they end

    @property
    def phase(self) -> str:
        """Phase of the model: map or learn while it learns, then score."""

    @property
    def identity(self) -> Sequence[Any]:
        """JSON values that identify the model: its configuration, and what it learned."""

    def step(self, p: Packets, t: Tracked, x: Any) -> Events:
        """Scores of packets of p, or of earlier packets that were held back.

        t: the tracker's results for p. x: features from the pass the model asked for, row i of packet i; read-only.
        Scores that event time releases are released packet by packet, so that results do not depend on how the stream
        is cut.
        """

    def tick(self, now: int, x: Any) -> Events:
        """Scores of packets released when event time reaches ``now`` without a packet. ``at`` has no meaning here.

        x: features that the pass releases then.
        """

    def close(self, ended: Ended, x: Any) -> tuple[Events, Floats | None]:
        """Scores held back until the connections ended; and final scores (n,), None: the packets' scores decide.

        x: features that the pass held back for these connections; None for those that ended in a ``step``, which had
        them.
        """

    def state(self) -> State:
        """A copy of everything that later scores depend on."""

    def restore(self, state: State) -> None:
        """Continue from a result of ``state``. KeyError, TypeError, ValueError or StateError when it does not fit."""

    def counters(self) -> Mapping[str, int]:
        """Counts since the beginning, for metrics."""


class PromptModel:
    """The part of Model that is the same wherever every packet is scored at once and connections by their packets."""

    delays, scores_packets = False, True

    def tick(self, now: int, x: Any) -> Events:  # noqa: ARG002
        """No events: nothing is held back."""
        return NO_EVENTS

    def close(self, ended: Ended, x: Any) -> tuple[Events, Floats | None]:  # noqa: ARG002
        """No events: a connection's score follows from its packets."""
        return NO_EVENTS, None


class Found(NamedTuple):
    """Scores of some connections."""

    slots: Slots  # (n,) connections whose alarm began, or that have an interim row; empty for ended ones
    first: int  # index of the first ended one among those that ended in this step; -1 for those that go on
    scores: Rows  # (n,) SCORE
    version: str  # version of the model that gave the scores


@kernel
def _absorb(
    sums: Rows, slot: Slots, ts: NDArray[np.int64], scores: Floats, threshold: float, aggregate: int,
    begun: Slots, at: Rows,
) -> int:  # fmt: skip
    """Add up scores by slot; returns the number of alarms that began.

    ``begun`` receives slots whose score passes the threshold for the first time, ``at`` their sums at that packet."""
    n = 0
    for i in range(slot.size):
        if slot[i] < 0 or scores[i] != scores[i]:
            continue
        row = sums[slot[i]]
        if row["scored"] == 0 or scores[i] > row["peak"]:
            row["peak"] = scores[i]
            row["peak_at"] = ts[i]
        row["total"] += scores[i]
        row["last"] = scores[i]
        row["scored"] += 1
        score = row["peak"]
        if aggregate == MEAN:
            score = row["total"] / row["scored"]
        elif aggregate == LAST:
            score = scores[i]
        if score > threshold and not row["alarmed"]:
            row["alarmed"] = True
            begun[n] = slot[i]
            at[n] = row
            n += 1
    return n


@dataclass(frozen=True)
class Rules:
    """Rules by which a scorer computes scores and alarms of connections."""

    config: ScorerConfig
    threshold: ThresholdConfig
    learns: int = 0  # packets that the model learns from before it calibrates
    fitted: Threshold | None = None  # threshold from a bundle; None: calibrate one
    hosts: Hosts | None = None  # hosts from a bundle
    start: StartConfig | None = (
        None  # warm-up of a model from a bundle; None: it scores from the first packet
    )


class Scorer:
    """One model over the packets of one partition."""

    def __init__(self, name: str, model: Model, rules: Rules, slots: int, *, shadow: bool = False) -> None:
        """``slots``: number of slots of the connection table."""
        self.name, self.model, self.shadow = name, model, shadow
        self.config = rules.config
        self.threshold = rules.fitted
        self.loaded = rules.fitted is not None
        self._threshold_config, self._learns = rules.threshold, rules.learns
        self._aggregate = AGGREGATES.index(rules.config.aggregate)
        self._sums = np.zeros(slots, SUM)
        self._begun, self._at = np.empty(0, np.int32), np.zeros(0, SUM)
        self._calibrated = 0  # packets scored while calibrating
        self._sample: list[Floats] = []  # connection scores seen while calibrating
        self.start = rules.start
        self.first = None if rules.start else 0  # number of the first packet with a score; None: warming up
        self.version = self._digest()
        key = hashlib.sha256(f"hosts {self.version}".encode()).digest()[:16]
        self.hosts = (
            Hosts(key, 0 if self.loaded else rules.config.known_hosts) if rules.hosts is None else rules.hosts
        )

    @property
    def phase(self) -> str:
        """One of PHASES."""
        if self.model.phase != "score":
            return self.model.phase
        if self.first is None:
            return "warm"
        return "score" if self.threshold is not None else "calibrate"

    @property
    def threshold_value(self) -> float:
        """Score above which a connection alarms; NaN while there is no threshold."""
        return float("nan") if self.threshold is None else self.threshold.value

    def _digest(self) -> str:
        """Digest of the configuration and, once fitted, of the threshold, which follows from what was learned."""
        parts = [*self.model.identity, {k: v for k, v in asdict(self.config).items() if k != "alerts"}]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        if self.threshold is not None:
            digest.update(repr(self.threshold.value).encode())
        return digest.hexdigest()[:12]

    def step(
        self, p: Packets, t: Tracked, x: Any, ended: Ended, events: Callable[[Events], None]
    ) -> list[Found]:
        """Take packets and the connections that ended among them; returns begun alarms, then ended connections.

        ended: the connections of ``t.closed``. events: receives the scores that the model released.

        A calibration may end among these packets. Then only this scorer divides the block: connections that ended
        before that point have rows without a threshold.
        """
        found: list[Found] = []
        given, late = self.model.step(p, t, x), NO_EVENTS
        if self.start is not None:
            given = self._warm(given)
        events(given)
        if self.model.delays and t.closed.size:
            given, late = self._apart(given, t)
        counted = np.empty(0, np.int64)  # rows of the packets that count for the calibration
        if self.threshold is None:
            counted = given.at[~np.isnan(given.score)]
            if not self.model.scores_packets:
                counted = np.arange(max(0, min(p.ts.size, self._learns - t.number)), p.ts.size)
        done = closed = 0
        learned = 0 if self.threshold is not None else p.ts.size
        while self.threshold is None and counted.size >= (left := self._left):
            row = int(counted[left - 1])
            stop = int(np.searchsorted(given.at, row, side="right"))
            upto = int(np.searchsorted(t.closed_at, row, side="right"))
            self._add(_part(given, done, stop), found)
            self._finish(_some(ended, closed, upto), closed, found, events, late)
            counted = counted[int(np.searchsorted(counted, row, side="right")) :]
            done, closed = stop, upto
            learned = row + 1
            self._calibrate()
        if self.threshold is None:
            learned = p.ts.size
            self._calibrated += counted.size
        self.hosts.learn(p, learned)
        self._add(_part(given, done, given.slot.size) if done else given, found)
        self._finish(_some(ended, closed, ended.slot.size) if closed else ended, closed, found, events, late)
        return found

    def judge(self, scores: Rows, rows: Rows) -> None:
        """Write to scores, (n,) SCORE, whether learning saw the hosts of their connections; quiet what is not to alert.

        rows: (n,) CONNECTION.
        """
        orig, resp = self.hosts.known(rows, np.isnan(scores["threshold"]))
        scores["known_orig"], scores["known_resp"] = orig, resp
        if self.config.alerts != "all":
            known = (orig != NEW) & (resp != NEW)
            scores["begins"] &= known if self.config.alerts == "known" else ~known

    def warm_up(self, number: int, row: int, n: int) -> None:
        """Note that features are warm from a row on, of n packets of which the first has a number; n: not yet."""
        if self.first is None and row < n:
            self.first = number + row

    def _warm(self, given: Events) -> Events:
        """Events without the scores of packets in the warm-up."""
        early = given.number < (np.iinfo(np.int64).max if self.first is None else self.first)
        return given._replace(score=np.where(early, np.nan, given.score)) if early.any() else given

    def _apart(self, given: Events, t: Tracked) -> tuple[Events, Events]:
        """Events of live connections, and events released after their connection's end: these count at the end."""
        order = np.argsort(t.closed)
        closed, at = t.closed[order], t.closed_at[order]
        place = np.minimum(np.searchsorted(closed, given.slot), closed.size - 1)
        late = (closed[place] == given.slot) & (given.at >= at[place])
        return _chosen(given, ~late), _chosen(given, late)

    def tick(self, now: int, x: Any, events: Callable[[Events], None]) -> list[Found]:
        """Advance event time to ``now`` without a packet; returns begun alarms. x: features that are released."""
        found: list[Found] = []
        given = self.model.tick(now, x)
        if self.start is not None:
            given = self._warm(given)
        events(given)
        self._add(given, found)
        return found

    def finish(self, ended: Ended, x: Any, events: Callable[[Events], None]) -> list[Found]:
        """Final scores of connections that ended; they count for calibration, and their sums are cleared.

        x: features held back for them.
        """
        found: list[Found] = []
        self._finish(ended, 0, found, events, x=x)
        return found

    def interim(self, slots: Slots) -> Found:
        """Rows of connections that go on."""
        rows = self._rows(rows_at(self._sums, slots), final=False)
        rows["begins"] = False
        return Found(slots, -1, rows, self.version)

    @property
    def _left(self) -> int:
        """Number of packets that the calibration still needs."""
        return self.config.calibrate_packets - self._calibrated

    def _add(self, given: Events, found: list[Found]) -> None:
        n, size = 0, given.slot.size
        if size:
            if self._begun.size < size:
                self._begun, self._at = np.empty(size, np.int32), np.zeros(size, SUM)
            n = _absorb(
                self._sums, given.slot, given.ts, given.score, self._bound, self._aggregate, self._begun, self._at
            )  # fmt: skip
        if n:
            found.append(
                Found(self._begun[:n].copy(), -1, self._rows(self._at[:n], final=False), self.version)
            )

    def _finish(
        self, ended: Ended, first: int, found: list[Found], events: Callable[[Events], None],
        late: Events = NO_EVENTS, x: Any = None,
    ) -> None:  # fmt: skip
        """Add rows of connections that ended to found. late: events released after their end; x: features."""
        slots = ended.slot
        if not slots.size:
            return
        if late.slot.size:
            self._add_last(_chosen(late, np.isin(late.slot, slots)))
        held, finals = self.model.close(ended, x)
        if self.start is not None:
            held = self._warm(held)
        events(held)
        self._add_last(held)
        sums = rows_at(self._sums, slots)
        raw(self._sums)[slots] = raw(np.zeros(1, SUM))
        out = self._rows(sums, final=True, finals=finals)
        if self.threshold is None:
            self._sample.append(out["score"][~np.isnan(out["score"])])
        found.append(Found(np.empty(0, np.int32), first, out, self.version))

    def _add_last(self, held: Events) -> None:
        """Add scores released by the end of their connection: such an alarm begins with the final row."""
        if held.slot.size:
            begun, at = np.empty(held.slot.size, np.int32), np.zeros(held.slot.size, SUM)
            n = _absorb(
                self._sums, held.slot, held.ts, held.score, self._bound, self._aggregate, begun, at
            )  # fmt: skip
            self._sums["alarmed"][begun[:n]] = False

    @property
    def _bound(self) -> float:
        return np.inf if self.threshold is None else self.threshold.value

    def _rows(self, sums: Rows, *, final: bool, finals: Floats | None = None) -> Rows:
        out = np.zeros(sums.size, SCORE)
        scored = sums["scored"] > 0
        out["peak"] = np.where(scored, sums["peak"], np.nan)
        out["mean"] = np.where(scored, sums["total"] / np.maximum(sums["scored"], 1), np.nan)
        out["score"] = self._scores_of(sums) if finals is None else finals
        out["peak_at"] = sums["peak_at"]
        out["scored"] = sums["scored"]
        out["threshold"] = self.threshold_value
        out["alarm"] = out["score"] > out["threshold"]
        out["begins"] = out["alarm"] & ~(sums["alarmed"] & final)
        out["final"] = final
        # the phase that the row itself shows: the model's current phase would depend on where the stream is cut
        has = ~np.isnan(out["score"])
        silent = SCORED if self.start is None else WARM
        out["phase"] = (
            np.where(has, CALIBRATE, LEARN) if self.threshold is None else np.where(has, SCORED, silent)
        )
        return out

    def _scores_of(self, sums: Rows) -> Floats:
        """(n,) scores of connections; NaN if no packet has one."""
        values = {
            MAX: sums["peak"], LAST: sums["last"], MEAN: sums["total"] / np.maximum(sums["scored"], 1),
        }[self._aggregate]  # fmt: skip
        scores: Floats = np.where(sums["scored"] > 0, values, np.nan)
        return scores

    def _calibrate(self) -> None:
        """Fit the threshold to the connections seen while calibrating, ended or not."""
        live = rows_at(self._sums, self._sums["scored"] > 0)
        sample = np.concatenate([*self._sample, self._scores_of(live)])
        self._calibrated = 0
        if sample.size:  # otherwise all packets lacked a connection (ARP, for example): calibrate once more
            self._calibrated = self.config.calibrate_packets
            self.threshold = fit(sample, self._threshold_config)
            self._sample = []
            self.version = self._digest()

    def state(self) -> State:
        """A copy of the model, the threshold and the sums of live connections."""
        arrays, values = self.model.state()
        arrays = {f"model.{name}": array for name, array in arrays.items()}
        slots = np.flatnonzero(self._sums["scored"])
        arrays["slots"], arrays["sums"] = slots, as_bytes(rows_at(self._sums, slots))
        arrays["hosts"], hosts = self.hosts.state()
        arrays["sample"] = np.concatenate(self._sample) if self._sample else np.empty(0)
        fitted = None if self.threshold is None else asdict(self.threshold)
        return arrays, {
            "model": values,
            "threshold": fitted,
            "calibrated": self._calibrated,
            "first": self.first,
            "hosts": hosts,
        }

    def restore(self, state: State) -> None:
        """Continue from a result of ``state``; errors as in Model."""
        arrays, values = state
        self.model.restore((under(arrays, "model."), values["model"]))
        self._sums[arrays["slots"]] = from_bytes(arrays["sums"], SUM)
        self._sample = [arrays["sample"]] if arrays["sample"].size else []
        self._calibrated, self.first = values["calibrated"], values["first"]
        self.hosts = Hosts.from_state(arrays["hosts"], values["hosts"])
        self.threshold = None if values["threshold"] is None else Threshold(**values["threshold"])
        self.version = self._digest()


def _part(given: Events, begin: int, end: int) -> Events:
    """Events begin to end, end excluded."""
    part = slice(begin, end)
    return Events(given.slot[part], given.ts[part], given.number[part], given.score[part], given.at[part])


def _chosen(given: Events, mask: NDArray[np.bool_]) -> Events:
    """Events selected by a mask."""
    return Events(given.slot[mask], given.ts[mask], given.number[mask], given.score[mask], given.at[mask])


def _some(ended: Ended, begin: int, end: int) -> Ended:
    return Ended(ended.slot[begin:end], ended.rows[begin:end], ended.sides[begin:end])
