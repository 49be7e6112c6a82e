"""Streams as arrays for a file: they continue to the last bit, and whatever a file holds is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import StateError
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.features.carried import MOST_FLOWS, adopted, carried, check, last_of, senders
from engine.types import Kind, Packets, take
from tests.support.streams import stream

CONFIG = AfterImageConfig(flows=512)


def image(p: Packets, config: AfterImageConfig = CONFIG) -> AfterImage:
    made = AfterImage(config)
    made.update(p)
    return made


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(20, 500), hash_seed=st.integers(0, 2**64 - 1))
def test_streams_continue_to_the_last_bit_with_any_hash_seed(seed: int, cut: int, hash_seed: int) -> None:
    p = stream(seed, 600)
    before = image(take(p, slice(cut)))
    arrays = carried(before, MOST_FLOWS)
    check(arrays)
    again = adopted(AfterImageConfig(flows=700, hash_seed=hash_seed), arrays)
    assert again.flows == before.flows
    rest = take(p, slice(cut, None))
    assert np.array_equal(again.update(rest), before.update(rest), equal_nan=True)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_streams_from_full_tables_continue_to_the_last_bit_until_the_next_eviction(seed: int) -> None:
    """Rows there have been freed and taken again, so that their order is not that of their flows."""
    p = stream(seed, 600)
    before = image(take(p, slice(500)), AfterImageConfig(flows=20))
    assert before.evicted > 0
    arrays = carried(before, MOST_FLOWS)
    check(arrays)
    again, evicted = adopted(CONFIG, arrays), before.evicted
    for i in range(500, 600):
        one = take(p, slice(i, i + 1))
        x = before.update(one)
        if before.evicted > evicted:
            break
        assert np.array_equal(again.update(one), x, equal_nan=True)


def test_the_flows_seen_last_are_kept_and_those_that_find_room_are_taken() -> None:
    p = stream(3, 600)
    few = carried(image(p), 7)
    assert len(few["flows"]) == 7
    check(few)
    all_of = carried(image(p), MOST_FLOWS)
    assert np.array_equal(few["flows"], all_of["flows"][-7:])
    for end in range(500, 600, 7):
        last = max(i for i in range(end) if p.kind[i] != Kind.UNREAD)
        (flow,) = carried(image(take(p, slice(end))), 1)["flows"].tolist()
        assert {flow[1], flow[4]} == {int(p.src_lo[last]), int(p.dst_lo[last])}
        assert {flow[2] & 0xFFFF, flow[5] & 0xFFFF} <= {int(p.sport[last]), int(p.dport[last]), 0}
    for room in (1, 2, 5):
        made = adopted(AfterImageConfig(flows=room), all_of)
        assert 1 <= made.flows <= room
        made.update(p)


def test_the_order_in_which_flows_were_seen_is_kept_for_evictions() -> None:
    arrays = carried(image(stream(3, 600)), MOST_FLOWS)
    made = adopted(CONFIG, arrays).tables.flows[: len(arrays["flows"])]
    words = np.ascontiguousarray(made[np.argsort(made["seen"])]).view(np.int64).reshape(len(made), -1)
    assert np.array_equal(words[:, :7], arrays["flows"])
    assert np.array_equal(np.sort(made["seen"]), np.arange(len(made)))


def test_the_last_time_and_the_senders_are_known() -> None:
    p = stream(4, 300, ordered=True)
    arrays = carried(image(p), MOST_FLOWS)
    read = p.kind != 0
    assert last_of(arrays) == p.ts[read].max()
    sent = zip(p.src_mac[read].tolist(), p.src_hi[read].tolist(), p.src_lo[read].tolist())
    assert senders(arrays) == set(sent)


Arrays = dict[str, NDArray[Any]]


def good() -> Arrays:
    return carried(image(stream(5, 400)), MOST_FLOWS)


def put(name: str, at: Any, value: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name][at] = value

    return change


def turned(name: str, make: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = make(arrays[name])

    return change


HOSTILE = {
    "missing": lambda a: a.pop("pairs"),
    "unknown": lambda a: a.update(more=np.zeros(1)),
    "dtype": turned("streams", lambda a: a.astype(np.float32)),
    "dtype of rows": turned("records", lambda a: a.astype(np.int64)),
    "shape": turned("records", lambda a: a[:, :9].copy()),
    "no dimension": turned("stream_ts", lambda a: a[0].reshape(())),
    "three dimensions": turned("flows", lambda a: a[None].copy()),
    "fewer flows": turned("flows", lambda a: a[1:].copy()),
    "no flows": lambda a: a.update(flows=a["flows"][:0], records=a["records"][:0]),
    "fewer times": turned("stream_ts", lambda a: a[1:].copy()),
    "fewer times of pairs": turned("pair_ts", lambda a: a[1:].copy()),
    "negative row": put("records", (0, 0), -1),
    "row beyond the streams": put("records", (3, 7), 1 << 20),
    "row beyond the pairs": put("records", (3, 9), 1 << 20),
    "layer": put("flows", (2, 6), 3 << 8),
    "negative layer": put("flows", (2, 6), -1),
    "nan": put("streams", (0, 0), np.nan),
    "infinity": put("pairs", (0, 7), np.inf),
    "huge": put("streams", (0, 5), 1e30),
    "negative weight": put("streams", (0, 0), -1.0),
    "negative variance": put("streams", (0, 12), -1.0),
    "negative weight of a pair": put("pairs", (0, 0), -1.0),
    "flow twice": put("flows", 0, good()["flows"][1]),
    "stream of another host": put("records", (0, 2), int(good()["records"][1, 3])),
    "all streams one": put("records", (slice(None), slice(0, 8)), 0),
    "all pairs one": put("records", (slice(None), slice(8, 10)), 0),
    "pairs swapped": turned("records", lambda a: a[:, [0, 1, 2, 3, 4, 5, 6, 7, 9, 8]].copy()),
    "reversed": turned("records", lambda a: a[::-1].copy()),
}  # fmt: skip


def load(arrays: Arrays) -> AfterImage:
    check(arrays)
    return adopted(CONFIG, arrays)


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_arrays_are_refused(fault: str) -> None:
    arrays = good()
    HOSTILE[fault](arrays)
    with pytest.raises(StateError, match="streams: "):
        load(arrays)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_arrays_with_changed_bytes_are_refused_or_continue(data: st.DataObject) -> None:
    arrays = good()
    for _ in range(data.draw(st.integers(1, 4))):
        array = arrays[data.draw(st.sampled_from(sorted(arrays)))]
        at = data.draw(st.integers(0, array.nbytes - 1))
        array.reshape(-1).view(np.uint8)[at] = data.draw(st.integers(0, 255))
    try:
        made = load(arrays)
    except StateError:
        return
    p = stream(6, 300)
    x = made.update(p)
    assert np.isfinite(x[p.kind != 0]).all()
