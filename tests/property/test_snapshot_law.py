"""Law 7: a detector restored from a snapshot continues bit for bit, wherever the snapshot was taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connections.bounds import TrackerConfig
from engine.consumer.snapshot import Snapshot, SnapshotStore, Stamp
from engine.errors import StateError
from tests.property.test_laws import ROOMY, SMALL, blocks, detector, flat
from tests.support.streams import stream

STAMP = Stamp("topic", 4, "digest")


@pytest.mark.compiled
@pytest.mark.parametrize("config", [SMALL, ROOMY], ids=["evicting", "roomy"])
@given(
    seed=st.integers(0, 2**32 - 1), at=st.lists(st.integers(0, 400), min_size=1, max_size=6), data=st.data()
)
@settings(max_examples=25, deadline=None)
def test_a_restored_detector_gives_the_rows_that_the_first_would_have_given(
    config: TrackerConfig, seed: int, at: list[int], data: st.DataObject
) -> None:
    parts = blocks(stream(seed, 400), at)
    k = data.draw(st.integers(0, len(parts)))
    one = detector(config)
    said = [batch for block in parts[:k] for batch in one.process(block)]
    store = SnapshotStore(f"memory://law-{seed}-{k}", "packets")
    store.save(Snapshot(0, k, one.state()), STAMP)
    found = store.newest(0, STAMP)
    assert found is not None
    other = detector(config)
    other.restore(found.state)
    rest = [[b for block in parts[k:] for b in d.process(block)] + d.flush() for d in (one, other)]
    assert flat(rest[0]) == flat(rest[1])
    assert sum(map(len, said + rest[0])) > 0
    for name in ("packets", "lost_packets", "repeated_packets", "dropped", "unread"):
        assert getattr(one, name) == getattr(other, name)
    assert one.tracker.counters == other.tracker.counters
    assert [one.counters(s) for s in one.scorers] == [other.counters(s) for s in other.scorers]
    assert [s.version for s in one.scorers] == [s.version for s in other.scorers]


@pytest.mark.compiled
def test_a_state_is_a_copy_that_later_packets_do_not_change() -> None:
    first, second = blocks(stream(5, 400), [200])
    d = detector(ROOMY)
    d.process(first)
    arrays, _ = d.state()
    before = {name: array.copy() for name, array in arrays.items()}
    d.process(second)
    assert all(np.array_equal(before[name], arrays[name]) for name in arrays)


@pytest.mark.compiled
def test_a_state_of_another_capacity_is_refused() -> None:
    (block,) = blocks(stream(6, 100), [])
    d = detector(ROOMY)
    d.process(block)
    with pytest.raises(
        StateError,
        match="state of partition 0 does not fit: saved with a capacity of 4096 connections, this table has 6",
    ):
        detector(SMALL).restore(d.state())
