"""The LSTM in torch. Torch is imported only here, and only when a network is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.features.tokens import TokenConfig
from engine.types import Floats
from probing.training.batches import Batch, padded
from probing.training.sequences import Sequences, batches_of

PADDED_TOKENS = 1 << 14  # most tokens, padding included, that are scored at once

Arrays = dict[str, NDArray[Any]]


def load_torch() -> Any:
    """The module torch. Raises ConfigError when it is not installed."""
    try:
        import torch
    except ImportError:
        raise ConfigError("training a sequence model needs PyTorch: pip install 'wiresonde[train]'") from None
    return torch


@dataclass(frozen=True)
class Shape:
    """Sizes of a network."""

    inputs: int  # indices that a token's entries may have
    hidden: int
    layers: int
    words: int = 0  # encoder header: bytes of a token; 0: encoder sizes
    embedding: int = 0  # encoder header: values that a byte becomes

    @property
    def width(self) -> int:
        """Number of values of a token that the LSTM is given."""
        return self.words * self.embedding or self.inputs


def shape_of(tokens: TokenConfig, hidden: int, layers: int, embedding: int) -> Shape:
    """The shape of a network for tokens."""
    words = tokens.words
    return Shape(tokens.inputs, hidden, layers, words, embedding if words else 0)


class Network:
    """An LSTM with one output, the logit that a connection is an attack, at each token."""

    def __init__(self, shape: Shape, seed: int = 0, device: str = "cpu", dtype: str = "float32") -> None:
        """Random weights, forget biases 1. Raises ConfigError without torch."""
        self.torch = load_torch()
        self.shape, self.device = shape, device
        nn = self.torch.nn
        with self.torch.random.fork_rng(devices=[]):
            self.torch.manual_seed(seed)
            parts = {
                "lstm": nn.LSTM(shape.width, shape.hidden, shape.layers, batch_first=True),
                "output": nn.Linear(shape.hidden, 1),
            }
            if shape.words:
                parts["embedding"] = nn.Embedding(256, shape.embedding)
        self.modules = nn.ModuleDict(parts)
        h = shape.hidden
        with self.torch.no_grad():
            for k in range(shape.layers):
                given, kept = (getattr(self.lstm, f"bias_{side}_l{k}") for side in ("ih", "hh"))
                given[h : 2 * h], kept[h : 2 * h] = 1.0, 0.0
        self.modules.to(device, getattr(self.torch, dtype))

    @property
    def lstm(self) -> Any:
        """The LSTM's module."""
        return self.modules["lstm"]

    def parameters(self) -> list[Any]:
        """All tensors that are learned, in an order that does not change."""
        return list(self.modules.parameters())

    def logits(self, batch: Batch) -> Any:
        """(b, t) logits; those behind a connection's end have no meaning."""
        hidden, _ = self.lstm(self._inputs(batch))
        return self.modules["output"](hidden)[..., 0]

    def _inputs(self, batch: Batch) -> Any:
        """(b, t, width) what the LSTM is given."""
        torch, (b, t, _) = self.torch, batch.rows.shape
        rows = torch.from_numpy(batch.rows).to(self.device)
        dtype = self.parameters()[0].dtype
        if self.shape.words:
            known = (rows >= 0).to(dtype)[..., None]
            byte = self.modules["embedding"](torch.clamp(rows, min=0) % 256)
            return (byte * known).reshape(b, t, -1)
        dense = torch.zeros((b, t, self.shape.inputs + 1), dtype=dtype, device=self.device)
        values = torch.from_numpy(batch.values).to(self.device, dtype)
        dense.scatter_add_(2, torch.where(rows < 0, self.shape.inputs, rows), values)
        return dense[..., :-1]

    def arrays(self) -> Arrays:
        """The weights under the names and in the shapes of a bundle, float32."""
        own = {name: p.detach().cpu().numpy() for name, p in self.modules.named_parameters()}
        arrays: Arrays = {}
        for k in range(self.shape.layers):
            arrays[f"input.{k}"] = own[f"lstm.weight_ih_l{k}"].T
            arrays[f"hidden.{k}"] = own[f"lstm.weight_hh_l{k}"].T
            arrays[f"bias.{k}"] = own[f"lstm.bias_ih_l{k}"] + own[f"lstm.bias_hh_l{k}"]
        arrays["output"], arrays["output_bias"] = own["output.weight"][0], own["output.bias"]
        if self.shape.words:
            arrays["embedding"] = own["embedding.weight"]
        return {name: np.array(a, np.float32, order="C") for name, a in arrays.items()}

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set all weights to a result of ``arrays``. Raises KeyError for one that is missing."""
        given: Arrays = {"output.weight": arrays["output"][None], "output.bias": arrays["output_bias"]}
        for k in range(self.shape.layers):
            given[f"lstm.weight_ih_l{k}"] = arrays[f"input.{k}"].T
            given[f"lstm.weight_hh_l{k}"] = arrays[f"hidden.{k}"].T
            given[f"lstm.bias_ih_l{k}"] = arrays[f"bias.{k}"]
            given[f"lstm.bias_hh_l{k}"] = np.zeros_like(arrays[f"bias.{k}"])
        if self.shape.words:
            given["embedding.weight"] = arrays["embedding"]
        self.restore(given)

    def saved(self) -> Arrays:
        """A copy of every parameter by torch's name, to continue from exactly."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.modules.named_parameters()}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Set all parameters to a result of ``saved``. Raises KeyError for one that is missing."""
        with self.torch.no_grad():
            for name, p in self.modules.named_parameters():
                p.copy_(self.torch.from_numpy(np.array(saved[name], order="C")))


def last_logits(network: Network, data: Sequences, cut: int | None = None) -> Floats:
    """(n,) logit at the last token of each connection, or at the last before the cut."""
    result = np.empty(len(data))
    lengths = data.lengths if cut is None else np.minimum(data.lengths, cut)
    with network.torch.inference_mode():
        for which in batches_of(lengths, PADDED_TOKENS):
            batch = padded(data, which, cut)
            logits = network.logits(batch).float().cpu().numpy()
            result[which] = logits[np.arange(which.size), batch.length - 1]
    return result


def last_scores(network: Network, data: Sequences) -> Floats:
    """(n,) probability of an attack at the last token of each connection."""
    return sigmoid(last_logits(network, data))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without an overflow."""
    e = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1.0, e) / (1.0 + e)
    return result


def chosen_device(name: str) -> str:
    """The device of ``auto``, ``cpu`` or ``cuda``. Raises ConfigError for a GPU that is not there."""
    there = load_torch().cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: PyTorch finds no CUDA device: give cpu, or leave the option out")
    return "cuda" if name != "cpu" and there else "cpu"
