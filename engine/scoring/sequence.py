"""The sequence model: an LSTM over the packets of a connection, given tokens of those that a policy lets through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.errors import ConfigError
from engine.features.reassembly import HELD, SIDE
from engine.features.tokens import FLOW, VERSION, TokenConfig, Tokens
from engine.scoring.kind import Kind
from engine.scoring.scorer import NO_EVENTS, Ended, Events, ScorerConfig, State
from engine.scoring.token_pass import tokens
from engine.types import Packets
from models.bundle import Bundle, BundleError
from models.lstm import LSTM, LSTMConfig, fold
from models.threshold import ThresholdConfig

LEARNED = ("policy", "encoder", "identity")  # values of the tokens that a model is trained with
UNTRAINED = "its model was never trained: make one with `wiresonde train sequence`"
BOUNDS = (
    0.001,
    0.003,
    0.01,
    0.03,
    *(round(0.05 * k, 2) for k in range(1, 20)),
    0.97,
    0.99,
    0.997,
    0.999,
    1.0,
)


@dataclass(frozen=True)
class SequenceSection:
    """An LSTM over the packets of a connection, trained beforehand; its bundle says which packets it is given."""

    tokens: TokenConfig = field(default_factory=TokenConfig)
    threshold: ThresholdConfig = field(default_factory=lambda: ThresholdConfig(false_positive_rate=0.01))
    scorer: ScorerConfig = field(default_factory=lambda: ScorerConfig(aggregate="last"))


class SequenceModel:
    """An LSTM with the state of every connection of one partition."""

    scores_packets = True
    phase = "score"

    def __init__(self, config: TokenConfig, lstm: LSTM, slots: int, trained: int = 0) -> None:
        """trained: steps of training; 0: the weights are random."""
        self.tokens, self.lstm, self.trained = config, lstm, trained
        self.delays = config.policy == "stream"
        self._state = lstm.new_state(slots)
        self._live = np.zeros(slots, bool)  # connections with a state
        self._tokens = 0

    @property
    def identity(self) -> Sequence[Any]:
        """Both configurations, and a digest of the weights."""
        learned = {name: getattr(self.tokens, name) for name in LEARNED}
        return ["sequence", VERSION, learned, asdict(self.lstm.config), self.lstm.digest]

    def step(self, p: Packets, t: Tracked, x: Tokens) -> Events:  # noqa: ARG002
        """A score for each token."""
        return self._score(x)

    def _score(self, x: Tokens) -> Events:
        if not x.slot.size:
            return NO_EVENTS
        out = np.empty(x.slot.size)
        self.lstm.step(x.rows, x.values, x.slot, self._state, out)
        self._live[x.slot] = True
        self._tokens += x.slot.size
        return Events(x.slot.copy(), x.ts.copy(), x.number.copy(), out, x.at.copy())

    def tick(self, now: int, x: Tokens) -> Events:  # noqa: ARG002
        """Scores of the packets that event time lets go."""
        return self._score(x)

    def close(self, ended: Ended, x: Tokens | None) -> tuple[Events, None]:
        """Scores of the packets that waited until the connections ended; their state is cleared."""
        events = NO_EVENTS if x is None else self._score(x)
        used = ended.slot[self._live[ended.slot]]
        self._state[used] = 0.0
        self._live[used] = False
        return events, None

    def state(self) -> State:
        """A copy of the state of live connections."""
        slots = np.flatnonzero(self._live)
        return {"slots": slots, "state": self._state[slots]}, {"tokens": self._tokens}

    def restore(self, state: State) -> None:
        """Continue from a result of ``state``."""
        arrays, values = state
        slots, rows = arrays["slots"], arrays["state"]
        if slots.size and (slots.min() < 0 or slots.max() >= self._live.size):
            raise ValueError(f"connections outside 0 to {self._live.size - 1}")
        if rows.shape != (slots.size, self._state.shape[1]) or not np.isfinite(rows).all():
            raise ValueError(
                f"states of shape {rows.shape}, must be finite and {(slots.size, self._state.shape[1])}"
            )
        self._state[np.flatnonzero(self._live)] = (
            0.0  # not all of it: its pages are not there before they are used
        )
        self._live[:] = False
        self._state[slots], self._live[slots] = rows, True
        self._tokens = int(values["tokens"])

    def counters(self) -> Mapping[str, int]:
        """Number of packets scored."""
        return {"samples": self._tokens}


def _fresh(section: SequenceSection, slots: int) -> SequenceModel:
    """A model with random weights: it runs the same kernels, and its scores mean nothing."""
    config = LSTMConfig(section.tokens.inputs, hidden=16)
    return SequenceModel(section.tokens, LSTM.random(config, seed=0), slots)


def _load(bundle: Bundle, section: SequenceSection, slots: int) -> SequenceModel:
    trained = bundle.config["trained"]
    if type(trained) is not int or trained < 1:
        raise BundleError(f"{bundle.path}: {UNTRAINED}")
    return SequenceModel(section.tokens, lstm_of(bundle), slots, trained)


def lstm_of(bundle: Bundle) -> LSTM:
    """The LSTM of a bundle; errors as of ``Kind.load``."""
    config = LSTMConfig(**bundle.config["lstm"])
    of = tokens_of(bundle, TokenConfig())
    if config.inputs != of.inputs:
        raise BundleError(f"{bundle.path}: {config.inputs} inputs, but its tokens have {of.inputs}")
    arrays = dict(bundle.arrays)
    if of.words:
        embedding, weights = arrays.pop("embedding"), arrays["input.0"]
        wide = embedding.shape[-1] if embedding.shape[:1] == (256,) and embedding.ndim == 2 else 0
        if weights.shape != (
            of.words * wide,
            4 * config.hidden,
        ):  # before it is folded into 256 times as many
            raise BundleError(
                f"{bundle.path}: arrays embedding {list(embedding.shape)} and input.0 {list(weights.shape)} do not fit "
                f"{of.words} words"
            )
        arrays["input.0"] = fold(embedding, weights)
    return LSTM(config, arrays)


def tokens_of(bundle: Bundle, config: TokenConfig) -> TokenConfig:
    """A configuration with the values that a bundle's model was trained with. BundleError if they are not valid."""
    own = bundle.config["tokens"]
    if not isinstance(own, dict) or own.get("version") != VERSION:
        version = own.get("version") if isinstance(own, dict) else None
        raise BundleError(
            f"{bundle.path}: trained on tokens of version {version}, this version makes {VERSION}: train again"
        )
    if type(own["identity"]) is not bool:
        raise BundleError(f"{bundle.path}: tokens: identity {own['identity']!r} must be true or false")
    try:
        return replace(config, **{name: own[name] for name in LEARNED})
    except ConfigError as error:
        raise BundleError(f"{bundle.path}: tokens: {error}") from error


def tokens_packed(config: TokenConfig) -> dict[str, Any]:
    """What a bundle says of the tokens that its model was trained with."""
    return {name: getattr(config, name) for name in LEARNED} | {"version": VERSION}


def _pack(model: SequenceModel) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    config = {
        "lstm": asdict(model.lstm.config), "tokens": tokens_packed(model.tokens), "trained": model.trained,
    }  # fmt: skip
    return model.lstm.arrays(), config


def _small(section: SequenceSection) -> SequenceSection:
    small = replace(section.tokens, packets=64, connection_packets=8)
    return replace(section, tokens=small, scorer=replace(section.scorer, calibrate_packets=50))


def _learning(section: SequenceSection, n: int) -> SequenceSection:
    return replace(section, scorer=replace(section.scorer, calibrate_packets=n))


KIND = Kind(
    name="sequence",
    section=SequenceSection,
    fresh=_fresh,
    load=_load,
    pack=_pack,
    features=lambda section: tokens(section.tokens),
    small=_small,
    learning=_learning,
    learns=lambda section: 0,  # noqa: ARG005
    layouts={"flow": FLOW, "side": SIDE, "held": HELD},
    bounds=BOUNDS,
    explain=None,
    adapt=lambda bundle, section: replace(section, tokens=tokens_of(bundle, section.tokens)),
    online=False,
)
