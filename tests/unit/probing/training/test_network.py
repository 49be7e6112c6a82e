"""The LSTM in torch: its gradients, its arrays, and training that is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import InputError
from engine.features.tokens import TokenConfig
from models.bundle import load, pack
from probing.training.batches import Batch, padded
from probing.training.network import Network, Shape, last_logits, shape_of
from probing.training.recipe import Recipe
from probing.training.sequences import Sequences
from probing.training.train import Training, loss_of

torch = pytest.importorskip("torch")

SIZES = Shape(inputs=7, hidden=5, layers=2)
HEADER = Shape(inputs=3 * 256, hidden=4, layers=1, words=3, embedding=2)


def made(shape: Shape, n: int = 12, seed: int = 0) -> Sequences:
    """Sequences of random tokens, of 1 to 9 each; attacks have the first input more often."""
    rng = np.random.default_rng(seed)
    attack = np.arange(n) % 2
    lengths = rng.integers(1, 10, n)
    start = np.concatenate(([0], np.cumsum(lengths)))
    m, entries = int(start[-1]), shape.words or 3
    values = rng.uniform(0.2, 1.5, (m, entries)).astype(np.float32)
    if shape.words:
        rows, values[:] = rng.integers(0, 256, (m, entries)) + 256 * np.arange(entries), 1
    else:
        rows = np.sort(rng.permuted(np.tile(np.arange(shape.inputs), (m, 1)), axis=1)[:, :entries], axis=1)
        rows[:, 0] = np.where(np.repeat(attack, lengths) & (rng.random(m) < 0.7), 0, rows[:, 0])
        rows[::3, 2], values[::3, 2] = -1, 0
    labels = pa.table({"attack": attack, "run": [str(k) for k in range(n)]})
    return Sequences(rows.astype(np.int16), values, start, labels)


def everything(data: Sequences) -> Batch:
    return padded(data, np.arange(len(data)))


def naive(arrays: dict[str, Any], data: Sequences, k: int, layers: int) -> float:
    """The logit at the last token, from a bundle's arrays as the engine reads them, token by token."""
    table = arrays["input.0"].astype(float)
    if "embedding" in arrays:
        e = arrays["embedding"].astype(float)
        per = table.reshape(-1, e.shape[1], table.shape[1])
        table = np.concatenate([e @ weight for weight in per])
    size = arrays["output"].size
    h, c = np.zeros((layers, size)), np.zeros((layers, size))
    for i in range(data.start[k], data.start[k + 1]):
        given = sum(v * table[r] for r, v in zip(data.rows[i], data.values[i]) if r >= 0)
        for layer in range(layers):
            if layer:
                given = h[layer - 1] @ arrays[f"input.{layer}"]
            z = given + h[layer] @ arrays[f"hidden.{layer}"] + arrays[f"bias.{layer}"]
            gate_i, gate_f, g, o = np.split(z, 4)
            c[layer] = c[layer] / (1 + np.exp(-gate_f)) + np.tanh(g) / (1 + np.exp(-gate_i))
            h[layer] = np.tanh(c[layer]) / (1 + np.exp(-o))
    return float(h[-1] @ arrays["output"] + arrays["output_bias"][0])


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leave torch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [SIZES, HEADER, replace(SIZES, layers=3)])
def test_the_arrays_of_a_bundle_give_what_the_network_gives(shape: Shape) -> None:
    network, data = Network(shape, seed=3), made(shape)
    given = [naive(network.arrays(), data, k, shape.layers) for k in range(len(data))]
    assert last_logits(network, data) == pytest.approx(given, abs=1e-5)  # float32


@pytest.mark.parametrize("shape", [SIZES, HEADER])
def test_arrays_are_of_the_shapes_that_the_engine_expects(shape: Shape) -> None:
    arrays = Network(shape).arrays()
    h, first = shape.hidden, shape.words * shape.embedding or shape.inputs
    expected = {"input.0": (first, 4 * h), "hidden.0": (h, 4 * h), "bias.0": (4 * h,), "output": (h,),
                "output_bias": (1,)}  # fmt: skip
    if shape.layers == 2:
        expected |= {"input.1": (h, 4 * h), "hidden.1": (h, 4 * h), "bias.1": (4 * h,)}
    if shape.words:
        expected["embedding"] = (256, shape.embedding)
    assert {name: a.shape for name, a in arrays.items()} == expected
    assert {a.dtype.name for a in arrays.values()} == {"float32"}


@pytest.mark.parametrize("shape", [SIZES, HEADER])
def test_a_network_made_of_another_ones_arrays_is_that_network(shape: Shape) -> None:
    one, other, data = Network(shape, seed=1), Network(shape, seed=2), made(shape)
    assert not np.allclose(last_logits(other, data), last_logits(one, data))
    other.take(one.arrays())
    assert last_logits(other, data) == pytest.approx(
        last_logits(one, data), abs=1e-6
    )  # two biases became one
    assert all(np.array_equal(a, other.arrays()[name]) for name, a in one.arrays().items())


def test_forget_biases_begin_at_one() -> None:
    assert Network(SIZES).arrays()["bias.1"][5:10].tolist() == [1.0] * 5


@pytest.mark.parametrize("shape", [SIZES, HEADER])
def test_gradients_are_the_slopes_of_the_loss(shape: Shape) -> None:
    network, batch = Network(shape, seed=1, dtype="float64"), everything(made(shape))
    target = (np.arange(12) % 2).astype(float)
    loss_of(network, batch, target, 0.5).backward()
    step = 1e-5
    with torch.no_grad():
        for p in network.parameters():
            flat, gradient = p.view(-1), p.grad.view(-1)
            some = [*torch.argsort(-gradient.abs())[:5].tolist(), 0, len(flat) - 1]
            for k in some:
                value, sides = float(flat[k]), []
                for sign in (1, -1):
                    flat[k] = value + sign * step
                    sides.append(float(loss_of(network, batch, target, 0.5)))
                flat[k] = value
                # central differences are exact to step ** 2, and to double precision / step
                assert float(gradient[k]) == pytest.approx(
                    (sides[0] - sides[1]) / (2 * step), rel=1e-5, abs=1e-9
                )


def test_what_lies_behind_the_end_of_a_connection_changes_nothing() -> None:
    network, data = Network(SIZES), made(SIZES)
    alone = [last_logits(network, data.chosen(np.arange(12) == k))[0] for k in range(12)]
    assert last_logits(network, data) == pytest.approx(alone, abs=1e-6)


RECIPE = Recipe(hidden=5, layers=2, steps=60, check=10, batch=8, patience=60)


def training(recipe: Recipe = RECIPE, seed: int = 0) -> Training:
    return Training(Network(SIZES, recipe.seed), made(SIZES, 40, seed), made(SIZES, 20, seed + 1), recipe)


def same(one: Training, other: Training) -> None:
    assert one.learned.curve == other.learned.curve
    assert one.learned.best_step == other.learned.best_step
    for name, array in one.learned.best.items():
        assert np.array_equal(array, other.learned.best[name]), name


@pytest.mark.parametrize("stop_at", [0, 7, 30, 59])
def test_training_that_was_interrupted_gives_what_it_would_have_given(stop_at: int, tmp_path: Path) -> None:
    uninterrupted, first, second = training(), training(), training()
    assert uninterrupted.run()
    file = tmp_path / "x.checkpoint"
    assert not first.run(file, stop=lambda: first.step == stop_at)
    assert second.run(file)
    same(uninterrupted, second)
    assert all(np.array_equal(a, second.network.saved()[n]) for n, a in uninterrupted.network.saved().items())


def test_the_loss_falls_and_the_best_network_is_kept() -> None:
    done = training(replace(RECIPE, steps=300, patience=300))
    assert done.run()
    curve, learned = done.learned.curve, done.learned
    assert [row["step"] for row in curve] == list(range(10, 310, 10))
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    assert learned.best_loss == min(row["validation_loss"] for row in curve)
    assert learned.best_step == next(r["step"] for r in curve if r["validation_loss"] == learned.best_loss)


def test_training_stops_when_validation_does_not_improve() -> None:
    done = training(replace(RECIPE, rate=1.0, steps=500, patience=50))
    assert done.run()
    assert done.step == done.learned.best_step + 50 < 500
    now = done.network.saved()
    assert any(not np.array_equal(a, now[name]) for name, a in done.learned.best.items())


def test_the_same_seed_gives_the_same_network_and_another_does_not() -> None:
    one, other, third = training(), training(), training(replace(RECIPE, seed=2))
    assert one.run()
    assert other.run()
    assert third.run()
    same(one, other)
    assert one.learned.curve != third.learned.curve


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file, first = tmp_path / "x.checkpoint", training()
    first.run(file, stop=lambda: first.step == 3)
    for other in (training(replace(RECIPE, rate=0.01)), training(seed=5)):
        with pytest.raises(InputError, match="from a training with other data or settings: delete it"):
            other.run(file)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.checkpoint"
    file.write_bytes(b"x" * 100)
    with pytest.raises(
        InputError, match=r"x\.checkpoint: not a readable bundle.*: delete it to train from scratch"
    ):
        training().run(file)
    file.write_bytes(pack({}, {"step": 3}, {"identity": training().identity}, kind="sequence-checkpoint"))
    with pytest.raises(InputError, match="not an intact checkpoint"):
        training().run(file)


def test_a_checkpoint_holds_arrays_and_json_only(tmp_path: Path) -> None:
    file, first = tmp_path / "x.checkpoint", training()
    first.run(file, stop=lambda: first.step == 12)
    found = load(file)
    assert found.config["step"] == 12
    assert {name.split(".")[0] for name in found.arrays} == {"now", "best", "adam"}


def test_one_class_alone_is_refused() -> None:
    data = made(SIZES, 10)
    benign = data.chosen(np.arange(10) % 2 == 0)
    with pytest.raises(InputError, match="0 attacks and 5 benign connections to validate with: both kinds"):
        Training(Network(SIZES), data, benign, RECIPE)


def test_the_shape_follows_the_tokens() -> None:
    header = TokenConfig(encoder="header")
    assert shape_of(header, 64, 1, 8) == Shape(header.inputs, 64, 1, header.words, 8)
    assert shape_of(TokenConfig(), 64, 1, 8) == Shape(TokenConfig().inputs, 64, 1)
