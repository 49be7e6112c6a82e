"""Passes over packets that compute features: one for each configuration, shared by models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.errors import ConfigError
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.features.carried import Host, adopted, carried, last_of, senders
from engine.scoring.start import Age, StartConfig
from engine.types import KIND_MASK, Floats, Packets
from engine.types import Kind as Layer
from models.bundle import Bundle, BundleError


class FeaturePass(Protocol):
    """Computes features of every packet of a partition; has state of its own."""

    origin: str  # one of ORIGINS
    warming: bool  # whether some model still asks if the features are ready

    def update(self, p: Packets, t: Tracked) -> Any:
        """Features of p, row i of packet i; valid until the next call. They do not depend on the cuts of a stream."""

    def tick(self, now: int) -> Any:
        """Features that event time lets go when it reaches ``now`` without a packet; None: it holds none back."""

    def close(self, slots: NDArray[np.int32]) -> Any:
        """Features held back for connections that have ended otherwise than in an ``update``; None as in ``tick``."""

    def ready(self, config: StartConfig) -> int:
        """Row of the first packet of the last ``update`` after a warm-up; the number of its packets if there is none.

        Streams that a bundle carries, once accepted, end the warm-up at once.
        """

    def carry(self, most: int) -> dict[str, NDArray[Any]]:
        """Arrays for a bundle, from which another run can continue; {} if there is nothing. most: flows to keep."""

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of everything that later features depend on."""

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of ``state``. KeyError, ValueError or StateError when it does not fit."""

    def counters(self) -> Mapping[str, int]:
        """Counts since the beginning, for metrics."""


@dataclass(frozen=True)
class Carried:
    """Streams of a bundle, checked, and the most seconds after their last packet for which they are used."""

    arrays: Mapping[str, NDArray[Any]]
    max_gap: float

    @cached_property
    def digest(self) -> str:
        """Digest of the arrays and the bound."""
        digest = hashlib.sha256(repr(self.max_gap).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Features:
    """Features for a model: the pass that computes them, its configuration, and the streams that it starts with."""

    name: str
    config: Any  # a frozen dataclass
    start: Callable[
        [Any, Carried | None, int], FeaturePass
    ]  # starts a new pass; the number is that of the connection table's slots
    carried: Carried | None = None

    @cached_property
    def digest(self) -> str:
        """Digest that is equal for equal features, whose state can be shared."""
        parts = [self.name, asdict(self.config)]
        if self.carried is not None:
            parts.append(self.carried.digest)
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def begin(self, slots: int) -> FeaturePass:
        """A new pass. slots: number of slots of the connection table."""
        return self.start(self.config, self.carried, slots)


# how a pass began: without streams of a bundle; still undecided; with them; or without, because the first packet came
# before their last one, too long after it, or from hosts that they do not know
ORIGINS = ("empty", "waiting", "carried", "older", "gap", "strangers")
LOOKED_AT = 128  # first packets whose senders are looked up in carried streams
KNOWN = 64  # of these, the fewest with a known sender


class AfterImagePass:
    """The damped statistics of AfterImage, (n, 100) float64."""

    def __init__(self, config: AfterImageConfig, carried: Carried | None = None, slots: int = 0) -> None:  # noqa: ARG002
        self._afterimage = AfterImage(config)
        self._out = np.empty((0, len(config.lambdas) * 20))
        self.warming = True
        self._carried, self.origin = carried, "empty" if carried is None else "waiting"
        self._hosts: set[Host] | None = None  # senders in the carried streams; None: not needed
        self._age, self._looked, self._known = Age(), 0, 0
        self._accepted = (
            -1
        )  # row of the last block after which carried streams were accepted; 0: in an earlier one

    def update(self, p: Packets, t: Tracked) -> Floats:  # noqa: ARG002 -- needs nothing from the connection
        """(n, 100) features; NaN for packets whose headers could not be read."""
        if len(self._out) < p.ts.size:
            self._out = np.empty((p.ts.size, self._out.shape[1]))
        if self.warming:
            self._age.add(p)
        self._accepted = min(self._accepted, 0)
        if self.origin == "waiting":
            self._decide(p)
        return self._afterimage.update(p, self._out[: p.ts.size])

    def _decide(self, p: Packets) -> None:
        """Begin with the carried streams at the first packet; then look whether its hosts are theirs."""
        assert self._carried is not None
        rows = np.flatnonzero((p.kind & KIND_MASK) != Layer.UNREAD)[: LOOKED_AT - self._looked]
        if not rows.size:
            return
        if not self._looked:
            gap = int(p.ts[rows[0]]) - last_of(self._carried.arrays)
            if not 0 <= gap <= self._carried.max_gap * 1e9:
                self.origin = "older" if gap < 0 else "gap"
                return
            self._afterimage = adopted(self._afterimage.config, self._carried.arrays)
        if self._hosts is None:
            self._hosts = senders(self._carried.arrays)
        self._known += sum(sender(p, i) in self._hosts for i in rows.tolist())
        self._looked += rows.size
        if self._looked == LOOKED_AT:
            self._hosts = None
            self.origin = "carried" if self._known >= KNOWN else "strangers"
            if self.origin == "carried":
                self._accepted = int(rows[-1]) + 1

    def tick(self, now: int) -> None:
        """Nothing is held back."""

    def close(self, slots: NDArray[np.int32]) -> None:
        """Nothing is held back."""

    def ready(self, config: StartConfig) -> int:
        """As in FeaturePass; carried streams count once the senders of the first packets are known to them."""
        at = self._age.ready(config)
        return at if self._accepted < 0 else min(at, self._accepted)

    def carry(self, most: int) -> dict[str, NDArray[Any]]:
        """Streams of the ``most`` flows seen last."""
        return carried(self._afterimage, most) if most and self._afterimage.flows else {}

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of the statistics, and how they began."""
        begun = [ORIGINS.index(self.origin), self._looked, self._known, self._accepted >= 0]
        own = {"begun": np.array(begun, np.int64), "age": self._age.state()}
        return self._afterimage.state() | own

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of ``state``."""
        self._afterimage = AfterImage.from_state(self._afterimage.config, saved)
        origin, self._looked, self._known, accepted = (int(n) for n in saved["begun"])
        self.origin, self._accepted = ORIGINS[origin], 0 if accepted else -1
        self._age.restore(saved["age"])

    def counters(self) -> dict[str, int]:
        """Flows remembered and evicted."""
        return {"flows": self._afterimage.flows, "flows_evicted": self._afterimage.evicted}


def sender(p: Packets, i: int) -> Host:
    """MAC and address of a packet's sender, as carried streams name them."""
    mac = int(p.src_mac[i])
    if (int(p.kind[i]) & KIND_MASK) == Layer.LINK:
        return mac, 0, mac
    return mac, int(p.src_hi[i]), int(p.src_lo[i])


def afterimage(config: AfterImageConfig) -> Features:
    """The features of AfterImage."""
    return Features("afterimage", config, AfterImagePass)


def learned_with(bundle: Bundle, config: AfterImageConfig) -> AfterImageConfig:
    """A configuration with the values that a bundle's model learned with; BundleError if they are not valid.

    Bundles that name no rule for silent streams learned with the public code's.
    """
    own = bundle.config["features"]
    if not isinstance(own, dict):
        raise BundleError(f"{bundle.path}: features in its config are not an object")
    names = ("silence", "silence_factor", "silence_floor")
    values: dict[str, Any] = {"interarrival": own.get("interarrival", "public")}
    values |= {name: own[name] for name in names if name in own}
    for name in names:
        if name in values and type(values[name]) not in (int, float):
            raise BundleError(f"{bundle.path}: features: {name} {values[name]!r} is not a number")
    try:
        return replace(config, **values)
    except ConfigError as error:
        raise BundleError(f"{bundle.path}: features: {error}") from error


def features_packed(config: AfterImageConfig) -> dict[str, Any]:
    """What a bundle says of the features that its model learned with."""
    packed: dict[str, Any] = {"lambdas": list(config.lambdas), "interarrival": config.interarrival}
    if config.interarrival == "restart":
        packed |= {n: getattr(config, n) for n in ("silence", "silence_factor", "silence_floor")}
    return packed


def check_columns(name: str, columns: int, config: AfterImageConfig) -> None:
    """Raise ValueError unless a model's inputs are as many as the features; name: of the model's own value."""
    if columns != 20 * len(config.lambdas):
        raise ValueError(
            f"{name} {columns} must be 20 for each of the {len(config.lambdas)} values of features.lambdas"
        )


def check_lambdas(bundle: Bundle, config: AfterImageConfig) -> None:
    """Raise BundleError unless a bundle was learned with the features of a configuration."""
    learned = bundle.config["features"]["lambdas"]
    if list(config.lambdas) != learned:
        raise BundleError(
            f"{bundle.path}: learned with lambdas {learned}, the configuration has {list(config.lambdas)}"
        )
