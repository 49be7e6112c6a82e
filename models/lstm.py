"""A long short-term memory (LSTM) over the packets of each connection.

The cell is that of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000), as in torch.

Each connection has a state of its own and each packet is one token of it, so a token waits for the one before it in its
connection, and for no other. A batch is therefore done in waves: wave k is the k-th token of each connection. In a
wave, products are made for four tokens and four vectors of columns at once, with the sixteen sums in registers.

A number of a score is computed by the same operations in the same order wherever its token stands: a score has the same
bits however the stream is cut, and whatever the vectors of the CPU. Sums are float32, each step rounded once: with a
product and a sum in place of `fused`, a packet took a third longer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernels import inlined, kernel
from models.lanes import Real, aligned, fused, load, logistic, splat, store, total

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]

WIDTH = 16  # units of a block: float32 numbers of a line
COLUMNS = 4 * WIDTH  # columns of a block: its units' gates i, f, g, o, a line each
CHUNK = 32  # most tokens done with one block of the weights before the next: both stay in the L1 cache
SUMS = 2**17  # numbers in the sums of a micro-batch, 512 KiB: they stay in the L2 cache
LARGEST = 1e6  # largest weight and value: larger ones could overflow a sum; learned weights are below 100

ONE = np.float32(1.0)
TWO = np.float32(2.0)

BAD_SLOT, BAD_ROW, BAD_VALUE = 1, 2, 3  # reasons of `check`


@dataclass(frozen=True)
class LSTMConfig:
    """The shape of a network."""

    inputs: int  # rows of the table of input weights
    hidden: int = 64  # units of each layer
    layers: int = 1  # number of layers, each over the outputs of the one before

    def __post_init__(self) -> None:
        for name, most in (("inputs", 2**24), ("hidden", 512), ("layers", 3)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} {value!r} must be a number in 1..{most}")

    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of a network, by name."""
        h = self.hidden
        shapes: dict[str, tuple[int, ...]] = {}
        for k in range(self.layers):
            shapes |= {
                f"input.{k}": (h if k else self.inputs, 4 * h),
                f"hidden.{k}": (h, 4 * h),
                f"bias.{k}": (4 * h,),
            }
        shapes |= {"output": (h,), "output_bias": (1,)}
        return {name: (shape, "float32") for name, shape in shapes.items()}


class Weights(NamedTuple):
    """A network in the layout of the kernels: flat, in blocks of 16 units, padded with zeros to full blocks.

    Padding stays zero: logistic(0) is exactly 1/2, so g = 0. The columns of gate g are doubled, which is exact:
    tanh(x) = 2 logistic(2x) - 1.
    """

    table: Real  # (inputs, blocks, COLUMNS)
    inner: Real  # (layers - 1, blocks, padded, COLUMNS) input weights of the later layers
    hidden: Real  # (layers, blocks, padded, COLUMNS)
    bias: Real  # (layers, blocks, COLUMNS)
    output: Real  # (padded,)
    output_bias: float
    layers: int
    units: int
    padded: int  # units rounded up to full blocks


class Scratch(NamedTuple):
    """Scratch for a micro-batch of up to n tokens. The arrays of reals are flat."""

    sums: Real  # (blocks, n, COLUMNS) inputs of the gates
    outputs: Real  # (n, padded) h of the layer just done, by token
    before: Real  # (CHUNK, padded) h before the token
    place: Ints  # (CHUNK,) index of the token's state
    wave: Ints  # (n,) how many tokens of the same connection come before
    end: Ints  # (n + 1,) end of each wave in `order`
    order: Ints  # (n,) tokens, wave after wave
    logits: Floats  # (n,)
    seen: Ints32  # (slots,) zeros between calls


class LSTM:
    """Scores of tokens, each from the tokens of its connection so far.

    State lies in the caller's array (slots, layers * 2 * padded) float32, one row for each connection: c, then h of
    each layer; zeros for a connection that begins. Cutting the tokens into other calls changes no bit of the scores.
    """

    def __init__(self, config: LSTMConfig, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The network of the arrays named in `config.shapes()`; ValueError names the array that does not fit."""
        self.config = config
        self._arrays = {name: _array(arrays, name, *kind) for name, kind in config.shapes().items()}
        if unknown := sorted(arrays.keys() - self._arrays.keys()):
            raise ValueError(f"unknown arrays {', '.join(unknown)}")
        self._weights = pack(config, self._arrays)
        self._scratch = make_scratch(self._weights)

    @classmethod
    def random(cls, config: LSTMConfig, seed: int) -> LSTM:
        """A network of random weights, small as before learning; the same seed gives the same weights everywhere."""
        draw = np.random.RandomState(seed)
        bound = config.hidden**-0.5
        shapes = config.shapes()
        return cls(config, {n: draw.uniform(-bound, bound, s).astype(d) for n, (s, d) in shapes.items()})

    @cached_property
    def digest(self) -> str:
        """Digest of the weights."""
        digest = hashlib.sha256()
        for name, array in sorted(self._arrays.items()):
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:12]

    def arrays(self) -> dict[str, Floats32]:
        """Copies of the arrays that the network was made of."""
        return {name: array.copy() for name, array in self._arrays.items()}

    @property
    def bytes_per_connection(self) -> int:
        """Bytes of one row of the state."""
        return 4 * self._row

    def new_state(self, slots: int) -> Floats32:
        """(slots, layers * 2 * padded) zeros; a page takes memory when it is first written to."""
        return aligned(slots * self._row, np.float32).reshape(slots, self._row)

    def clear(self, state: Floats32, slot: NDArray[Any]) -> None:
        """Let the connections of these slots begin again; ValueError for a slot outside the state."""
        outside = (slot < 0) | (slot >= len(state))
        if outside.any():
            raise ValueError(f"slot {slot[outside][0]} to clear is outside the state's {len(state)}")
        state[slot] = 0.0

    def step(self, rows: Ints32, values: Floats32, slot: Ints32, state: Floats32, out: Floats) -> None:
        """Score m tokens in order; the probability of an attack after each goes to out (m,).

        rows: (m, L) rows of the input table that the token adds up; -1 ends the list. values: (m, L) weight of each.
        slot: (m,) connection of each token, a row of `state`, which is changed in place. ValueError names the first
        row, value or slot that is not valid, before anything is changed.
        """
        self._check_arrays(rows, values, slot, state, out)
        slots = len(state)
        reason, i, j = check(rows, values, slot, self.config.inputs, slots)
        if reason == BAD_SLOT:
            raise ValueError(f"slot {slot[i]} of token {i} is outside the state's {slots}")
        if reason == BAD_ROW:
            bound = self.config.inputs - 1
            raise ValueError(f"row {rows[i, j]} of token {i} must be in 0..{bound}, or -1 at the end")
        if reason == BAD_VALUE:
            raise ValueError(f"value {values[i, j]} of token {i} must be within -{LARGEST:g}..{LARGEST:g}")
        if self._scratch.seen.size < slots:
            self._scratch = self._scratch._replace(seen=np.zeros(slots, np.int32))
        advance(self._weights, self._scratch, rows, values, slot, state.reshape(-1), out)

    @property
    def _row(self) -> int:
        return self.config.layers * 2 * self._weights.padded

    def _check_arrays(
        self, rows: Ints32, values: Floats32, slot: Ints32, state: Floats32, out: Floats
    ) -> None:
        m, wide = len(slot), rows.shape[-1]
        for name, array, shape, dtype in (
            ("rows", rows, (m, wide), np.int32),
            ("values", values, (m, wide), np.float32),
            ("slot", slot, (m,), np.int32),
            ("state", state, (len(state), self._row), np.float32),
            ("out", out, (m,), np.float64),
        ):
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                found = f"{array.dtype}{list(array.shape)}"
                raise ValueError(f"{name} is {found}, must be {np.dtype(dtype)}{list(shape)}, contiguous")


def _array(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], dtype: str) -> Floats32:
    if name not in arrays:
        raise ValueError(f"no array {name}")
    array = arrays[name]
    if array.shape != shape or array.dtype != np.dtype(dtype):
        found = f"{array.dtype}{list(array.shape)}"
        raise ValueError(f"array {name} is {found}, must be {dtype}{list(shape)}")
    if not (np.abs(array) <= LARGEST).all():  # False for NaN
        raise ValueError(f"array {name} has a value that is not finite or beyond {LARGEST:g}")
    return array.copy()


def fold(embedding: Floats32, weights: Floats32) -> Floats32:
    """The input table (words * 256, 4H) of header bytes; row p * 256 + b is of byte b at position p.

    That row is embedding[b] @ weights[p * e : (p + 1) * e].
    embedding: (256, e), shared by the positions. weights: (words * e, 4H). ValueError for other shapes.
    """
    wide = embedding.shape[-1]
    if embedding.shape != (256, wide) or weights.ndim != 2 or not wide or len(weights) % wide:
        raise ValueError(f"embedding {list(embedding.shape)} and weights {list(weights.shape)} do not fit")
    words = len(weights) // wide
    table = np.zeros((words, 256, weights.shape[1]), np.float32)
    for p in range(words):  # products one by one: the sums of BLAS depend on the CPU
        sums = np.zeros(table.shape[1:])
        for j in range(wide):
            sums += embedding[:, j, None].astype(np.float64) * weights[p * wide + j]
        table[p] = sums
    return table.reshape(words * 256, -1)


def pack(config: LSTMConfig, arrays: Mapping[str, Floats32]) -> Weights:
    """The arrays in the layout of the kernels."""
    layers = range(config.layers)
    padded = -(-config.hidden // WIDTH) * WIDTH
    output = aligned(padded, np.float32)
    output[: config.hidden] = arrays["output"]
    return Weights(
        table=_flat([_blocks(arrays["input.0"]).transpose(1, 0, 2)]),
        inner=_flat([_blocks(_tall(arrays[f"input.{k}"], padded)) for k in layers[1:]]),
        hidden=_flat([_blocks(_tall(arrays[f"hidden.{k}"], padded)) for k in layers]),
        bias=_flat([_blocks(arrays[f"bias.{k}"][None]) for k in layers]),
        output=output,
        output_bias=float(arrays["output_bias"][0]),
        layers=config.layers,
        units=config.hidden,
        padded=padded,
    )


def _blocks(weights: Floats32) -> Floats32:
    """(n, 4H) columns i, f, g, o -> (blocks, n, COLUMNS), g doubled."""
    n, columns = weights.shape
    h = columns // 4
    blocks = -(-h // WIDTH)
    out = np.zeros((n, 4, blocks * WIDTH), np.float32)
    out[:, :, :h] = weights.reshape(n, 4, h)
    out[:, 2] *= TWO
    return out.reshape(n, 4, blocks, WIDTH).transpose(2, 0, 1, 3).reshape(blocks, n, COLUMNS)


def _tall(weights: Floats32, rows: int) -> Floats32:
    return np.concatenate([weights, np.zeros((rows - len(weights), weights.shape[1]), np.float32)])


def _flat(parts: list[Floats32]) -> Real:
    out = aligned(sum(part.size for part in parts), np.float32)
    at = 0
    for part in parts:
        out[at : at + part.size] = part.ravel()
        at += part.size
    return out


def make_scratch(net: Weights) -> Scratch:
    """Zeros."""
    n = SUMS // (4 * net.padded) // 8 * 8  # full lines of logits
    return Scratch(
        sums=aligned(n * 4 * net.padded, np.float32),
        outputs=aligned(n * net.padded, np.float32),
        before=aligned(CHUNK * net.padded, np.float32),
        place=np.zeros(CHUNK, np.int64),
        wave=np.zeros(n, np.int64),
        end=np.zeros(n + 1, np.int64),
        order=np.zeros(n, np.int64),
        logits=aligned(n, np.float64),
        seen=np.zeros(0, np.int32),
    )


@kernel
def check(rows: Ints32, values: Floats32, slot: Ints32, inputs: int, slots: int) -> tuple[int, int, int]:
    """Reason, token and position in its list of the first that is not valid; zeros if all are valid."""
    for i in range(slot.size):
        if slot[i] < 0 or slot[i] >= slots:
            return BAD_SLOT, i, 0
        for j in range(rows.shape[1]):
            row = rows[i, j]
            if row == -1:
                break
            if row < 0 or row >= inputs:
                return BAD_ROW, i, j
            if not abs(values[i, j]) <= LARGEST:
                return BAD_VALUE, i, j
    return 0, 0, 0


@kernel
def advance(
    net: Weights, own: Scratch, rows: Ints32, values: Floats32, slot: Ints32, state: Real, out: Floats
) -> None:
    """`LSTM.step` of valid tokens, micro-batch after micro-batch; state is flat."""
    for start in range(0, slot.size, own.order.size):
        end = min(start + own.order.size, slot.size)
        piece = slot[start:end]
        waves = divide(piece, own)
        add_rows(net, rows[start:end], values[start:end], own)
        for layer in range(net.layers):
            if layer > 0:
                add_outputs(net, layer, end - start, own)
            begin = 0
            for w in range(waves):
                for first in range(begin, own.end[w], CHUNK):
                    many = min(CHUNK, own.end[w] - first)
                    update(net, layer, own.order[first : first + many], piece, state, own)
                begin = own.end[w]
        score(net, own, out[start:end])


@kernel
def divide(slot: Ints32, own: Scratch) -> int:
    """Sort the tokens of a micro-batch by wave into own.order, ended by own.end; returns the number of waves.

    Tokens of one connection lie in waves that follow each other, one in each: their order is kept.
    """
    waves = 0
    for i in range(slot.size + 1):
        own.end[i] = 0
    for i in range(slot.size):
        before = own.seen[slot[i]]
        own.seen[slot[i]] = before + 1
        own.wave[i] = before
        own.end[before + 1] += 1
        waves = max(waves, before + 1)
    for w in range(waves):  # to the beginning of each wave, which the next loop moves to its end
        own.end[w + 1] += own.end[w]
    for i in range(slot.size):
        own.seen[slot[i]] = 0
        own.order[own.end[own.wave[i]]] = i
        own.end[own.wave[i]] += 1
    return waves


@kernel
def add_rows(net: Weights, rows: Ints32, values: Floats32, own: Scratch) -> None:
    """Put the bias and the weighted rows of the table into the sums of each token, for the first layer."""
    blocks, room = net.padded // WIDTH, own.order.size * COLUMNS
    for i in range(rows.shape[0]):
        many = 0
        while many < rows.shape[1] and rows[i, many] >= 0:
            many += 1
        for u in range(blocks):
            at = u * COLUMNS
            a, b = load(net.bias, at), load(net.bias, at + 16)
            c, d = load(net.bias, at + 32), load(net.bias, at + 48)
            for j in range(many):
                value, at = splat(values[i, j]), (int(rows[i, j]) * blocks + u) * COLUMNS
                a, b = fused(value, load(net.table, at), a), fused(value, load(net.table, at + 16), b)
                c, d = fused(value, load(net.table, at + 32), c), fused(value, load(net.table, at + 48), d)
            at = u * room + i * COLUMNS
            store(own.sums, at, a)
            store(own.sums, at + 16, b)
            store(own.sums, at + 32, c)
            store(own.sums, at + 48, d)


@kernel
def add_outputs(net: Weights, layer: int, many: int, own: Scratch) -> None:
    """The same for a later layer, whose inputs are the outputs of the one before."""
    blocks, room = net.padded // WIDTH, own.order.size * COLUMNS
    for u in range(blocks):
        bias = (layer * blocks + u) * COLUMNS
        weights = ((layer - 1) * blocks + u) * net.padded * COLUMNS
        for i in range(many):
            for j in range(0, COLUMNS, WIDTH):
                store(own.sums, u * room + i * COLUMNS + j, load(net.bias, bias + j))
        full = many // 4 * 4
        for i in range(0, full, 4):
            at, x = u * room + i * COLUMNS, i * net.padded
            add_four(
                net.inner, weights, net.units, own.outputs, x, net.padded,
                own.sums, at, at + COLUMNS, at + 2 * COLUMNS, at + 3 * COLUMNS,
            )  # fmt: skip
        for i in range(full, many):
            add_one(
                net.inner, weights, net.units, own.outputs, i * net.padded, own.sums, u * room + i * COLUMNS
            )


@kernel
def update(net: Weights, layer: int, tokens: Ints, slot: Ints32, state: Real, own: Scratch) -> None:
    """Move the states of tokens of distinct connections on by their sums; h goes to own.outputs, too."""
    blocks, room, padded = net.padded // WIDTH, own.order.size * COLUMNS, net.padded
    for t in range(tokens.size):
        own.place[t] = (int(slot[tokens[t]]) * net.layers + layer) * 2 * padded
        for j in range(0, padded, WIDTH):
            store(own.before, t * padded + j, load(state, own.place[t] + padded + j))
    full = tokens.size // 4 * 4
    for u in range(blocks):
        weights, at = (layer * blocks + u) * padded * COLUMNS, u * room
        for t in range(0, full, 4):
            add_four(
                net.hidden, weights, net.units, own.before, t * padded, padded,
                own.sums, at + tokens[t] * COLUMNS, at + tokens[t + 1] * COLUMNS,
                at + tokens[t + 2] * COLUMNS, at + tokens[t + 3] * COLUMNS,
            )  # fmt: skip
        for t in range(full, tokens.size):
            add_one(
                net.hidden, weights, net.units, own.before, t * padded, own.sums, at + tokens[t] * COLUMNS
            )
        for t in range(tokens.size):
            move(own.sums, at + tokens[t] * COLUMNS, state, own.place[t] + u * WIDTH, padded)
        for t in range(tokens.size):
            h = load(state, own.place[t] + padded + u * WIDTH)
            store(own.outputs, tokens[t] * padded + u * WIDTH, h)


@inlined
def move(sums: Real, at: int, state: Real, place: int, padded: int) -> None:
    """c = f c + i g, h = o tanh(c) of one block of units."""
    i, f = logistic(load(sums, at)), logistic(load(sums, at + 16))
    g, o = splat(TWO) * logistic(load(sums, at + 32)) - splat(ONE), logistic(load(sums, at + 48))
    c = fused(f, load(state, place), i * g)
    store(state, place, c)
    store(state, place + padded, o * (splat(TWO) * logistic(splat(TWO) * c) - splat(ONE)))


@inlined
def add_one(weights: Real, w: int, depth: int, x: Real, start: int, sums: Real, at: int) -> None:
    """Add x (depth,) @ weights (depth, COLUMNS) to one token's sums (COLUMNS,), k upwards."""
    a, b, c, d = load(sums, at), load(sums, at + 16), load(sums, at + 32), load(sums, at + 48)
    for k in range(depth):
        value, here = splat(x[start + k]), w + k * COLUMNS
        a, b = fused(value, load(weights, here), a), fused(value, load(weights, here + 16), b)
        c, d = fused(value, load(weights, here + 32), c), fused(value, load(weights, here + 48), d)
    store(sums, at, a)
    store(sums, at + 16, b)
    store(sums, at + 32, c)
    store(sums, at + 48, d)


@kernel
def add_four(
    weights: Real,
    w: int,
    depth: int,
    x: Real,
    start: int,
    stride: int,
    sums: Real,
    at: int,
    bt: int,
    ct: int,
    dt: int,
) -> None:
    """`add_one` for four tokens, their x `stride` apart, their sums anywhere."""
    a0, a1, a2, a3 = load(sums, at), load(sums, at + 16), load(sums, at + 32), load(sums, at + 48)
    b0, b1, b2, b3 = load(sums, bt), load(sums, bt + 16), load(sums, bt + 32), load(sums, bt + 48)
    c0, c1, c2, c3 = load(sums, ct), load(sums, ct + 16), load(sums, ct + 32), load(sums, ct + 48)
    d0, d1, d2, d3 = load(sums, dt), load(sums, dt + 16), load(sums, dt + 32), load(sums, dt + 48)
    for k in range(depth):
        here = w + k * COLUMNS
        w0, w1, w2, w3 = (
            load(weights, here),
            load(weights, here + 16),
            load(weights, here + 32),
            load(weights, here + 48),
        )
        v = splat(x[start + k])
        a0, a1, a2, a3 = fused(v, w0, a0), fused(v, w1, a1), fused(v, w2, a2), fused(v, w3, a3)
        v = splat(x[start + stride + k])
        b0, b1, b2, b3 = fused(v, w0, b0), fused(v, w1, b1), fused(v, w2, b2), fused(v, w3, b3)
        v = splat(x[start + 2 * stride + k])
        c0, c1, c2, c3 = fused(v, w0, c0), fused(v, w1, c1), fused(v, w2, c2), fused(v, w3, c3)
        v = splat(x[start + 3 * stride + k])
        d0, d1, d2, d3 = fused(v, w0, d0), fused(v, w1, d1), fused(v, w2, d2), fused(v, w3, d3)
    store(sums, at, a0)
    store(sums, at + 16, a1)
    store(sums, at + 32, a2)
    store(sums, at + 48, a3)
    store(sums, bt, b0)
    store(sums, bt + 16, b1)
    store(sums, bt + 32, b2)
    store(sums, bt + 48, b3)
    store(sums, ct, c0)
    store(sums, ct + 16, c1)
    store(sums, ct + 32, c2)
    store(sums, ct + 48, c3)
    store(sums, dt, d0)
    store(sums, dt + 16, d1)
    store(sums, dt + 32, d2)
    store(sums, dt + 48, d3)


@kernel
def score(net: Weights, own: Scratch, out: Floats) -> None:
    """The logistic of the outputs' weighted sum, by token."""
    for i in range(out.size):
        sums = load(own.outputs, i * net.padded) * load(net.output, 0)
        for j in range(WIDTH, net.padded, WIDTH):
            sums = fused(load(own.outputs, i * net.padded + j), load(net.output, j), sums)
        own.logits[i] = np.float64(total(sums)) + net.output_bias
    for i in range(0, out.size, 8):
        store(own.logits, i, logistic(load(own.logits, i)))
    for i in range(out.size):
        out[i] = own.logits[i]
