"""Scores against torch and the definition; equal bits however tokens are cut; refused arrays and tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.lstm import LARGEST, LSTM, LSTMConfig, fold, make_scratch, pack
from tests.support.lstm_parts import Sparse, make_network, make_tokens, scores
from tests.support.naive_lstm import lstm


def alone(slots: int, m: int) -> NDArray[np.int32]:
    return np.random.default_rng(5).integers(0, slots, m).astype(np.int32)


def elephant(slots: int, m: int) -> NDArray[np.int32]:
    """One connection with half of the tokens, another with a quarter."""
    rng = np.random.default_rng(6)
    return np.where(rng.random(m) < 0.5, 2, np.where(rng.random(m) < 0.5, 0, alone(slots, m))).astype(
        np.int32
    )


@pytest.mark.parametrize(("hidden", "layers"), [(1, 1), (5, 1), (16, 2), (20, 3)])
def test_scores_are_those_of_the_definition(hidden: int, layers: int) -> None:
    net = make_network(LSTMConfig(9, hidden, layers))
    tokens = make_tokens(9, alone(5, 45))
    np.testing.assert_allclose(scores(net, tokens, 5), lstm(net.arrays(), *tokens), rtol=0, atol=1e-6)


@pytest.mark.compiled
@pytest.mark.parametrize(("hidden", "layers", "m"), [(64, 1, 1500), (33, 3, 1500), (512, 1, 200)])
@pytest.mark.parametrize("make_slot", [alone, elephant])
def test_scores_of_many_tokens_are_those_of_the_definition(
    hidden: int, layers: int, m: int, make_slot: Any
) -> None:
    net = make_network(LSTMConfig(107, hidden, layers))
    assert net._scratch.order.size < m  # several micro-batches
    tokens = make_tokens(107, make_slot(70, m))
    expected = lstm(net.arrays(), *tokens)
    assert expected.std() > 0.02
    np.testing.assert_allclose(scores(net, tokens, 70), expected, rtol=0, atol=1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden", [5, 16, 64])
def test_scores_are_those_of_torch(hidden: int, layers: int) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(hidden + layers)
    peer = torch.nn.LSTM(23, hidden, layers, batch_first=True)
    head = torch.nn.Linear(hidden, 1)
    arrays = {"output": head.weight[0], "output_bias": head.bias}
    for k in range(layers):
        arrays[f"input.{k}"] = getattr(peer, f"weight_ih_l{k}").T
        arrays[f"hidden.{k}"] = getattr(peer, f"weight_hh_l{k}").T
        arrays[f"bias.{k}"] = getattr(peer, f"bias_ih_l{k}") + getattr(peer, f"bias_hh_l{k}")
    net = LSTM(
        LSTMConfig(23, hidden, layers), {name: a.detach().numpy().copy() for name, a in arrays.items()}
    )

    lengths = [300, 1, 2, 17, 64, 150, 299, 5]
    slot = np.repeat(np.arange(len(lengths)), lengths)
    np.random.default_rng(7).shuffle(slot)
    tokens = make_tokens(23, slot.astype(np.int32))
    dense = np.zeros((len(slot), 24), np.float32)  # the last column takes the ends of the lists
    np.put_along_axis(dense, tokens.rows.astype(np.int64), tokens.values, axis=1)
    found = scores(net, tokens, len(lengths))
    for connection in range(len(lengths)):
        x = torch.from_numpy(dense[slot == connection, :23])
        with torch.no_grad():
            expected = torch.sigmoid(head(peer(x[None])[0][0, :, :])[:, 0]).numpy()
        np.testing.assert_allclose(found[slot == connection], expected, rtol=0, atol=1e-5)


SLOTS = {"one": np.zeros(700, np.int32), "many": alone(300, 700), "elephants": elephant(40, 700)}


@pytest.mark.compiled
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("slots", SLOTS)
def test_batches_of_any_size_give_the_same_bits(slots: str, layers: int) -> None:
    net = make_network(LSTMConfig(30, 37, layers))
    tokens = make_tokens(30, SLOTS[slots])
    state = net.new_state(300)
    whole = scores(net, tokens, 300, state=state)
    for size in (*range(1, 20), 31, 32, 33, 63, 64, 65, 100, 128, 255, 256, 257):
        again = net.new_state(300)
        parts = scores(net, tokens, 300, cut=list(range(size, 700, size)), state=again)
        np.testing.assert_array_equal(parts, whole)
        np.testing.assert_array_equal(again, state)


@pytest.mark.parametrize("size", [1, 3, 4, 6, 20])
def test_small_batches_give_the_same_bits(size: int) -> None:
    net = make_network(LSTMConfig(6, 3, 2))
    tokens = make_tokens(6, elephant(9, 40))
    parts = scores(net, tokens, 9, cut=list(range(size, 40, size)))
    np.testing.assert_array_equal(parts, scores(net, tokens, 9))


def test_a_list_ends_at_its_first_minus_one() -> None:
    net = make_network(LSTMConfig(6, 3))
    rows = np.array([[2, 5, -1, 4], [-1, 77, -5, 1], [0, 1, 2, 3]], np.int32)
    values = np.array([[1, 2, np.nan, np.inf], [5, 1, 1, 1], [1, 1, 1, 1]], np.float32)
    slot = np.zeros(3, np.int32)
    expected = lstm(net.arrays(), rows, values, slot)
    np.testing.assert_allclose(scores(net, Sparse(rows, values, slot), 1), expected, rtol=0, atol=1e-6)


def test_padding_of_the_state_stays_zero() -> None:
    net = make_network(LSTMConfig(6, 5, 2))
    state = net.new_state(4)
    scores(net, make_tokens(6, alone(4, 30)), 4, state=state)
    by_part = state.reshape(4, 2, 2, 16)  # connection, layer, c or h, unit
    assert by_part[..., :5].all()
    assert not by_part[..., 5:].any()


def test_tokens_are_counted_from_zero_in_each_batch() -> None:
    net = make_network(LSTMConfig(6, 3))
    scores(net, make_tokens(6, elephant(9, 40)), 9)
    assert net._scratch.seen.size == 9
    assert not net._scratch.seen.any()


def test_a_cleared_connection_begins_again() -> None:
    net = make_network(LSTMConfig(6, 5))
    tokens = make_tokens(6, np.repeat(np.arange(3, dtype=np.int32), 4))
    state = net.new_state(3)
    first = scores(net, tokens, 3, state=state).reshape(3, 4)
    net.clear(state, np.array([0, 2], np.int32))
    second = scores(net, tokens, 3, state=state).reshape(3, 4)
    np.testing.assert_array_equal(first == second, np.array([[True], [False], [True]]).repeat(4, axis=1))


@pytest.mark.parametrize("slot", [-1, 3])
def test_a_slot_to_clear_lies_in_the_state(slot: int) -> None:
    net = make_network(LSTMConfig(6, 5))
    state = net.new_state(3) + np.float32(1)
    with pytest.raises(ValueError, match=f"slot {slot} to clear is outside the state's 3"):
        net.clear(state, np.array([1, slot], np.int32))
    assert state.all()


@pytest.mark.parametrize(("hidden", "layers", "expected"), [(64, 1, 512), (1, 1, 128), (17, 3, 768)])
def test_bytes_of_a_connection_are_those_of_its_state(hidden: int, layers: int, expected: int) -> None:
    net = make_network(LSTMConfig(6, hidden, layers))
    assert net.bytes_per_connection == net.new_state(7).nbytes // 7 == expected


@pytest.mark.parametrize("hidden", [1, 16, 17, 48, 64, 200, 512])
def test_scratch_is_bounded_and_serves_a_wave_at_least(hidden: int) -> None:
    config = LSTMConfig(2, hidden)
    scratch = make_scratch(pack(config, make_network(config).arrays()))
    assert sum(array.nbytes for array in scratch) < 1.2 * 2**20
    assert scratch.logits.size % 8 == 0
    assert scratch.logits.size >= 64


@pytest.mark.parametrize(
    ("name", "at", "bad", "message"),
    [
        ("rows", (3, 1), -2, r"row -2 of token 3 must be in 0\.\.5, or -1 at the end"),
        ("rows", (3, 1), 6, r"row 6 of token 3 must be in 0\.\.5"),
        ("rows", (4, 0), 2**31 - 1, "row 2147483647 of token 4"),
        ("values", (2, 1), np.nan, "value nan of token 2 must be within -1e\\+06..1e\\+06"),
        ("values", (2, 1), -np.inf, "value -inf of token 2"),
        ("values", (2, 1), 1.1e6, "value 1100000.0 of token 2"),
        ("slot", (5,), -1, "slot -1 of token 5 is outside the state's 4"),
        ("slot", (5,), 4, "slot 4 of token 5 is outside the state's 4"),
    ],
)
def test_a_token_that_is_not_valid_changes_nothing(name: str, at: Any, bad: Any, message: str) -> None:
    net = make_network(LSTMConfig(6, 5))
    tokens = make_tokens(6, alone(4, 8), wide=2)
    getattr(tokens, name)[at] = bad
    state, out = net.new_state(4), np.full(8, 7.0)
    with pytest.raises(ValueError, match=message):
        net.step(*tokens, state, out)
    assert not state.any()
    assert (out == 7.0).all()


@pytest.mark.parametrize("name", ["rows", "values", "slot", "state", "out"])
@pytest.mark.parametrize("fault", ["shape", "dtype", "gaps"])
def test_arrays_of_another_form_are_refused(name: str, fault: str) -> None:
    net = make_network(LSTMConfig(6, 5))
    given = make_tokens(6, alone(4, 8))._asdict() | {"state": net.new_state(4), "out": np.zeros(8)}
    if fault == "shape":
        given[name] = given[name][:, :-1].copy() if given[name].ndim == 2 else given[name][:-1]
    elif fault == "dtype":
        given[name] = given[name].astype(np.float32 if name == "out" else np.int64)
    else:
        given[name] = np.repeat(given[name], 2, axis=-1)[..., ::2]
    with pytest.raises(ValueError, match=r"must be \w+\[.*\], contiguous"):
        net.step(**given)


def test_no_tokens_and_empty_lists_are_fine() -> None:
    net = make_network(LSTMConfig(6, 5))
    assert scores(net, make_tokens(6, np.zeros(0, np.int32)), 0).size == 0
    nothing = scores(net, make_tokens(6, np.zeros(2, np.int32), wide=0), 1)
    ended = scores(
        net, Sparse(np.full((2, 1), -1, np.int32), np.ones((2, 1), np.float32), np.zeros(2, np.int32)), 1
    )
    np.testing.assert_array_equal(nothing, ended)


def test_the_largest_weights_and_values_give_finite_scores() -> None:
    config = LSTMConfig(6, 5, 2)
    rng = np.random.default_rng(1)
    arrays = {
        name: (rng.choice([-1, 1], shape) * LARGEST).astype(np.float32)
        for name, (shape, _) in config.shapes().items()
    }
    tokens = make_tokens(6, alone(4, 40))
    tokens.values[...] = rng.choice([-1, 1], tokens.values.shape) * LARGEST
    net = LSTM(config, arrays)
    state = net.new_state(4)
    assert np.isfinite(scores(net, tokens, 4, state=state)).all()
    assert np.isfinite(state).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": 0}, r"inputs 0 must be a number in 1\.\.16777216"),
        ({"hidden": 513}, r"hidden 513 must be a number in 1\.\.512"),
        ({"hidden": 64.0}, r"hidden 64\.0 must"),
        ({"layers": 4}, r"layers 4 must be a number in 1\.\.3"),
        ({"layers": True}, "layers True must"),
    ],
)
def test_a_config_names_the_value_it_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTMConfig(**{"inputs": 9} | values)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("bias.0", None, "no array bias.0"),
        ("bias.1", np.zeros(20, np.float32), "unknown arrays bias.1"),
        ("bias.0", np.zeros(21, np.float32), r"array bias\.0 is float32\[21\], must be float32\[20\]"),
        ("output", np.zeros(5), r"array output is float64\[5\], must be float32\[5\]"),
        ("output", np.full(5, np.nan, np.float32), "array output has a value that is not finite"),
        ("output", np.full(5, -1.1e6, np.float32), r"array output has a value .* beyond 1e\+06"),
    ],
)
def test_arrays_that_do_not_fit_are_named(name: str, array: Any, message: str) -> None:
    config = LSTMConfig(6, 5)
    arrays: dict[str, Any] = make_network(config).arrays() | {name: array}
    with pytest.raises(ValueError, match=message):
        LSTM(config, {key: value for key, value in arrays.items() if value is not None})


def test_a_network_gives_back_its_arrays() -> None:
    config = LSTMConfig(6, 5, 3)
    net = make_network(config)
    arrays = net.arrays()
    assert {name: (a.shape, a.dtype.name) for name, a in arrays.items()} == config.shapes()
    again = LSTM(config, arrays).arrays()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
        array[...] = 0.0  # a copy
        assert net.arrays()[name].any()


def test_an_embedding_is_folded_into_the_table() -> None:
    rng = np.random.default_rng(2)
    embedding = rng.normal(size=(256, 7)).astype(np.float32)
    weights = rng.normal(size=(3 * 7, 8)).astype(np.float32)
    table = fold(embedding, weights)
    assert table.shape == (3 * 256, 8)
    assert table.dtype == np.float32
    for position, byte in ((0, 0), (1, 255), (2, 17)):
        expected = embedding[byte].astype(np.float64) @ weights[position * 7 : position * 7 + 7]
        np.testing.assert_allclose(table[position * 256 + byte], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "shapes", [((255, 7), (21, 8)), ((256, 7), (20, 8)), ((256, 0), (0, 8)), ((256, 7), (21,))]
)
def test_an_embedding_of_another_shape_is_refused(shapes: Any) -> None:
    with pytest.raises(ValueError, match=r"embedding \[.*\] and weights \[.*\] do not fit"):
        fold(*(np.zeros(shape, np.float32) for shape in shapes))
