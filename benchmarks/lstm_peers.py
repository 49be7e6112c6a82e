"""The LSTM of models/lstm.py by this project's kernels, torch and onnxruntime: all score the same micro-batches.

Others than ours are given what they need for free, before the clock runs: the plan of the waves (wave k holds the k-th
token of each connection, connections with most tokens first, so that a wave's states are the first of the one before),
and dense inputs in that order or, for `TorchBag`, the lists of an embedding bag. A peer that is not installed is left
out, with a message.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.lstm import LSTM

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

PADDING = 2  # onnxruntime: a run's longest connection has at most so many times the tokens of its shortest


class Batch(NamedTuple):
    """Tokens of a micro-batch, as `LSTM.step` takes them."""

    rows: NDArray[np.int32]  # (m, L)
    values: Floats32  # (m, L)
    slot: NDArray[np.int32]  # (m,)


class Peer(Protocol):
    """An implementation of the LSTM, with the state of all connections."""

    def begin(self, connections: int) -> None:
        """Forget all states."""

    def prepare(self, batch: Batch) -> Any:
        """What `score` takes; not measured."""

    def score(self, given: Any, out: Floats) -> None:
        """Score the batch's tokens: out (m,)."""


class Plan(NamedTuple):
    """A micro-batch in waves."""

    connections: Ints  # (c,) those with most tokens first
    many: Ints  # (c,) number of tokens of each
    order: Ints  # (m,) tokens, wave after wave, each in the order of the connections
    sizes: list[int]  # tokens of each wave


def plan(slot: NDArray[np.int32]) -> Plan:
    """The waves of tokens of these connections."""
    connections, place, many = np.unique(slot, return_inverse=True, return_counts=True)
    by_size = np.argsort(-many, kind="stable")
    position = np.empty_like(by_size)
    position[by_size] = np.arange(by_size.size)
    grouped = np.argsort(place, kind="stable")
    wave = np.empty(slot.size, np.int64)
    wave[grouped] = np.arange(slot.size) - np.repeat(np.cumsum(many) - many, many)
    order = np.lexsort((position[place], wave))
    return Plan(connections[by_size].astype(np.int64), many[by_size], order, np.bincount(wave).tolist())


def entries(batch: Batch) -> NDArray[np.bool_]:
    """(m, L) which entries come before the -1 that ends a list."""
    return np.logical_and.accumulate(batch.rows >= 0, axis=1)


def dense(batch: Batch, inputs: int) -> Floats32:
    """(m, inputs) the inputs of tokens as plain vectors."""
    out = np.zeros((len(batch.slot), inputs), np.float32)
    token, entry = np.nonzero(entries(batch))
    np.add.at(out, (token, batch.rows[token, entry]), batch.values[token, entry])
    return out


class Ours:
    """models/lstm.py; divides the micro-batch into waves itself."""

    def __init__(self, lstm: LSTM) -> None:
        self.lstm = lstm

    def begin(self, connections: int) -> None:
        """Zeros."""
        self.state = self.lstm.new_state(connections)

    def prepare(self, batch: Batch) -> Batch:
        """Nothing."""
        return batch

    def score(self, given: Batch, out: Floats) -> None:
        """One call."""
        self.lstm.step(given.rows, given.values, given.slot, self.state, out)


class Torch:
    """What the peers that use torch share: the states, which are gathered and written back once a micro-batch."""

    def __init__(self, lstm: LSTM) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch, self.inputs, self.hidden = torch, lstm.config.inputs, lstm.config.hidden
        weights = {name: torch.from_numpy(array) for name, array in lstm.arrays().items()}
        self.table, self.inner, self.bias = weights["input.0"], weights["hidden.0"], weights["bias.0"]
        self.output, self.output_bias = weights["output"], weights["output_bias"]

    def begin(self, connections: int) -> None:
        """Zeros."""
        self.h, self.c = (self.torch.zeros(connections, self.hidden) for _ in range(2))

    def prepare(self, batch: Batch) -> tuple[Plan, Any, Any, Any]:
        """The plan, connections, tokens in its order and their inputs."""
        own = plan(batch.slot)
        x = self._inputs(Batch._make(column[own.order] for column in batch))
        return own, self.torch.from_numpy(own.connections), self.torch.from_numpy(own.order), x

    def _inputs(self, batch: Batch) -> Any:
        return self.torch.from_numpy(dense(batch, self.inputs))

    def score(self, given: tuple[Plan, Any, Any, Any], out: Floats) -> None:
        """All waves, then the outputs at once."""
        own, connections, order, x = given
        with self.torch.inference_mode():
            h, c, outputs = self._advance(own, x, self.h[connections], self.c[connections])
            self.h[connections], self.c[connections] = h, c
            scores = self.torch.sigmoid(outputs @ self.output + self.output_bias)
            self.torch.from_numpy(out)[order] = scores.double()

    def _advance(self, own: Plan, x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        """States after the micro-batch, and h after each token in the plan's order."""
        outputs, begin = [], 0
        for size in own.sizes:
            h[:size], c[:size] = self._wave(x, begin, begin + size, (h[:size], c[:size]))
            outputs.append(h[:size].clone())
            begin += size
        return h, c, self.torch.cat(outputs)

    def _wave(self, x: Any, begin: int, end: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        raise NotImplementedError

    def _take(self, module: Any, suffix: str = "") -> Any:
        """A module of torch with the weights."""
        with self.torch.no_grad():
            getattr(module, f"weight_ih{suffix}").copy_(self.table.T)
            getattr(module, f"weight_hh{suffix}").copy_(self.inner.T)
            getattr(module, f"bias_ih{suffix}").copy_(self.bias)
            getattr(module, f"bias_hh{suffix}").zero_()
        return module


class TorchCell(Torch):
    """torch.nn.LSTMCell, a call for each wave; dense inputs."""

    def __init__(self, lstm: LSTM) -> None:
        super().__init__(lstm)
        self.cell = self._take(self.torch.nn.LSTMCell(self.inputs, self.hidden))

    def _wave(self, x: Any, begin: int, end: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        h, c = self.cell(x[begin:end], state)
        return h, c


class TorchBag(Torch):
    """The cell written out in torch, over an embedding bag of the whole micro-batch: no zeros are multiplied."""

    def _inputs(self, batch: Batch) -> Any:
        real = entries(batch)
        offsets = np.cumsum(real.sum(axis=1)) - real.sum(axis=1)
        columns = (batch.rows[real].astype(np.int64), batch.values[real], offsets)
        return tuple(self.torch.from_numpy(column) for column in columns)

    def _advance(self, own: Plan, x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        rows, values, offsets = x
        bag = self.torch.nn.functional.embedding_bag
        sums = bag(rows, self.table, offsets, mode="sum", per_sample_weights=values)
        return super()._advance(own, sums.add_(self.bias), h, c)

    def _wave(self, x: Any, begin: int, end: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = self.torch.addmm(x[begin:end], h, self.inner).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class TorchPacked(Torch):
    """torch.nn.LSTM over a packed sequence with the states it begins with, a call for each micro-batch."""

    def __init__(self, lstm: LSTM) -> None:
        super().__init__(lstm)
        self.lstm = self._take(self.torch.nn.LSTM(self.inputs, self.hidden), "_l0")

    def _advance(self, own: Plan, x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        packed = self.torch.nn.utils.rnn.PackedSequence(x, self.torch.tensor(own.sizes))
        outputs, (h, c) = self.lstm(packed, (h[None], c[None]))
        return h[0], c[0], outputs.data


class Padded(NamedTuple):
    """One run of onnxruntime: some connections of a micro-batch."""

    feed: dict[str, Any]
    connections: Ints  # (c,)
    time: Ints  # (m,) place of each token in the padded array
    row: Ints
    tokens: Ints  # (m,)


class OnnxRuntime:
    """An ONNX LSTM with sequence lengths and the states it begins with; connections of like length in one run."""

    def __init__(self, lstm: LSTM) -> None:
        self.inputs, self.hidden = lstm.config.inputs, lstm.config.hidden
        self.session = _session(lstm)

    def begin(self, connections: int) -> None:
        """Zeros."""
        self.h, self.c = (np.zeros((connections, self.hidden), np.float32) for _ in range(2))

    def prepare(self, batch: Batch) -> list[Padded]:
        """Dense inputs, padded."""
        own = plan(batch.slot)
        x = dense(batch, self.inputs)
        time = np.repeat(np.arange(len(own.sizes)), own.sizes)
        row = np.concatenate([np.arange(size) for size in own.sizes])
        return [self._padded(own, x, time, row, part) for part in _alike(own.many)]

    def _padded(self, own: Plan, x: Floats32, time: Ints, row: Ints, part: slice) -> Padded:
        mine = (row >= part.start) & (row < part.stop)
        time, row, tokens = time[mine], row[mine] - part.start, own.order[mine]
        many = own.many[part]
        padded = np.zeros((int(many[0]), many.size, self.inputs), np.float32)
        padded[time, row] = x[tokens]
        feed = {"x": padded, "many": many.astype(np.int32)}
        return Padded(feed, own.connections[part], time, row, tokens)

    def score(self, given: list[Padded], out: Floats) -> None:
        """Each run."""
        for one in given:
            states = {"h": self.h[one.connections][None], "c": self.c[one.connections][None]}
            scores, h, c = self.session.run(None, one.feed | states)
            self.h[one.connections], self.c[one.connections] = h[0], c[0]
            out[one.tokens] = scores[one.time, one.row]


def _alike(many: Ints) -> Iterator[slice]:
    """Connections, those with most tokens first, cut where they have fewer than a PADDING-th of the first's."""
    begin = 0
    while begin < many.size:
        end = begin + int(np.count_nonzero(many[begin:] * PADDING >= many[begin]))
        yield slice(begin, end)
        begin = end


def _session(lstm: LSTM) -> Any:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    h, arrays = lstm.config.hidden, lstm.arrays()
    gates = np.r_[0:h, 3 * h : 4 * h, h : 2 * h, 2 * h : 3 * h]  # ONNX has them as i, o, f, g
    bias = np.concatenate([arrays["bias.0"][gates], np.zeros(4 * h, np.float32)])
    constants = {
        "W": arrays["input.0"].T[gates][None], "R": arrays["hidden.0"].T[gates][None], "B": bias[None],
        "output": arrays["output"], "output_bias": arrays["output_bias"], "one": np.array([1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B", "many", "h", "c"], ["all", "h1", "c1"], hidden_size=h),
        helper.make_node("Squeeze", ["all", "one"], ["flat"]),
        helper.make_node("MatMul", ["flat", "output"], ["sums"]),
        helper.make_node("Add", ["sums", "output_bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    real, state = onnx.TensorProto.FLOAT, [1, "n", h]
    takes = [("x", real, ["t", "n", lstm.config.inputs]), ("many", onnx.TensorProto.INT32, ["n"]),
             ("h", real, state), ("c", real, state)]  # fmt: skip
    gives = [("scores", real, ["t", "n"]), ("h1", real, state), ("c1", real, state)]
    graph = helper.make_graph(
        nodes, "lstm", *([helper.make_tensor_value_info(*v) for v in side] for side in (takes, gives)),
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


PEERS: dict[str, tuple[Callable[[LSTM], Peer], tuple[str, ...]]] = {  # with the packages that each needs
    "torch_cell": (TorchCell, ("torch",)),
    "torch_bag": (TorchBag, ("torch",)),
    "torch_packed": (TorchPacked, ("torch",)),
    "onnxruntime": (OnnxRuntime, ("onnx", "onnxruntime")),
}


def peers(lstm: LSTM) -> dict[str, Peer]:
    """Ours, and the peers that are installed, by name."""
    found: dict[str, Peer] = {"ours": Ours(lstm)}
    for name, (make, packages) in PEERS.items():
        if missing := [package for package in packages if not importlib.util.find_spec(package)]:
            print(f"{name}: {', '.join(missing)} not installed, left out", file=sys.stderr)
        else:
            found[name] = make(lstm)
    return found
