"""Label values that become labels of the metrics."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.labels.rules import Probes
from engine.labels.slices import Slices


def sliced(probes: Probes, names: tuple[str, ...], most: int) -> Slices:
    slices = Slices(names, most)
    slices.meet(probes)
    return slices


def test_slices_keep_the_first_values_and_fold_the_rest_into_other() -> None:
    probes: dict[int, dict[str, str]] = {0: {}} | {
        10 + k: {"task": t, "load": load}
        for k, (t, load) in enumerate(zip("abcab", ["1", "2", "1", "3", "1"]))
    }
    slices = sliced(probes, ("task", "load"), 2)
    assert [slices.values(k) for k in probes] == [
        ("", ""), ("a", "1"), ("b", "2"), ("other", "1"), ("a", "other"), ("b", "1"),
    ]  # fmt: skip
    assert [slices.folded(k) for k in probes] == [(), (), (), ("task",), ("load",), ()]


def test_probes_that_are_met_later_change_no_value_given_before() -> None:
    slices = sliced({1: {"task": "a"}}, ("task",), 2)
    slices.meet({1: {"task": "a"}, 2: {"task": "b"}, 3: {"task": "c"}})
    assert [slices.values(k) for k in (1, 2, 3, 4)] == [("a",), ("b",), ("other",), ("",)]
    assert slices.folded(4) == ()


def test_a_slice_that_a_probe_does_not_have_is_empty_and_not_folded() -> None:
    slices = sliced({0: {}, 7: {"load": "1"}}, ("task",), 1)
    assert [(slices.values(k), slices.folded(k)) for k in (0, 7)] == [(("",), ())] * 2


@given(values=st.lists(st.text(max_size=3), max_size=30), most=st.integers(1, 5))
def test_a_slice_has_never_more_values_than_allowed(values: list[str], most: int) -> None:
    slices = sliced({k: {"task": v} for k, v in enumerate(values)}, ("task",), most)
    assert len({slices.values(k)[0] for k in range(len(values))} - {"", "other"}) <= most
