"""A corpus divided, and thinned, without tearing what belongs together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError
from probing.corpus.split import split, thin, units
from tests.support.corpora import table


def runs(n: int, *, twins: int = 1, samples: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """Rows of n runs, or of n pairs of so many twins."""
    rows: list[dict[str, Any]] = []
    for k in range(n):
        for twin in range(twins):
            for sample in range(samples):
                kind = "-".join(f"{key}-{value}" for key, value in changes.items())
                name = f"{k:03d}-{'abc'[twin]}-{kind}"
                pair = f"{k:03d}{kind}-{sample}" if twins > 1 else ""
                rows.append({"run": name, "pair": pair, "sample": sample, "sport": len(rows)} | changes)
    return rows


def test_twins_are_one_unit_and_other_runs_are_their_own() -> None:
    rows = table(
        {"run": "a", "pair": "p-0"}, {"run": "b", "pair": "p-0"}, {"run": "a", "pair": ""}, {"run": "c"},
        {"run": "a", "pair": "p-1"}, {"run": "b", "pair": "p-1"}, {"run": "d"},
    )  # fmt: skip
    found = units(rows)
    assert found.runs == (("c",), ("d",), ("a", "b"))
    assert found.names == ("c", "d", "p-0")
    assert dict(zip(rows.column("run").to_pylist(), found.of_row.tolist())) == {
        "a": 2,
        "b": 2,
        "c": 0,
        "d": 1,
    }


@pytest.mark.parametrize("seed", range(5))
def test_no_run_and_no_pair_is_torn_apart(seed: int) -> None:
    rows = table(*runs(20), *runs(30, twins=3, group="twins"), *runs(7, activity="post"))
    parts = split(rows, {"train": 0.6, "calibrate": 0.2, "test": 0.2}, seed)
    assert (np.sum(list(parts.values()), axis=0) == 1).all()
    for name in ("run", "pair"):
        values = np.array(rows.column(name).to_pylist())
        kinds = [set(values[mask].tolist()) - {""} for mask in parts.values()]
        assert not kinds[0] & kinds[1]
        assert not kinds[0] & kinds[2]
        assert not kinds[1] & kinds[2]


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_of_run_is_shared_out_evenly(seed: int) -> None:
    rows = table(*runs(20), *runs(10, activity="post"), *runs(5, scenario="ftp"))
    test = split(rows, {"train": 0.8, "test": 0.2}, seed)["test"]
    kinds = list(
        zip(*(np.array(rows.column(n).to_pylist())[test].tolist() for n in ("scenario", "activity")))
    )
    assert [kinds.count(kind) for kind in (("http", "get"), ("http", "post"), ("ftp", "get"))] == [16, 8, 4]


def test_kinds_of_a_single_run_do_not_all_come_to_the_same_part() -> None:
    rows = table(*(row for k in range(100) for row in runs(1, samples=1, group=f"{k}")))
    assert 30 < split(rows, {"a": 0.5, "b": 0.5}, 1)["a"].sum() < 70


def test_a_split_follows_from_the_seed() -> None:
    rows = table(*runs(50))
    one, same, other = (split(rows, {"a": 0.5, "b": 0.5}, seed)["a"] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_split_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = table(*runs(30), *runs(30, activity="post"))
    turned = rows.take(list(range(rows.num_rows))[::-1])
    one, other = (split(t, {"a": 0.5, "b": 0.5}, 3)["a"] for t in (rows, turned))
    assert (one == other[::-1]).all()


@pytest.mark.parametrize("shares", [{}, {"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be positive and add up to 1"):
        split(table({}), shares, 1)


def test_thinning_keeps_the_share_and_every_kind() -> None:
    rows = table(
        *runs(100), *runs(40, twins=2, activity="post"), *runs(1, group="rare"), *runs(1, scenario="ftp")
    )
    kept = thin(rows, 0.25, 1)
    mask = np.isin(rows.column("run").to_pylist(), kept)
    assert 0.25 <= mask.mean() < 0.27  # all rows have as many packets
    for name in ("group", "scenario", "activity"):
        values = np.array(rows.column(name).to_pylist())
        assert set(values[mask].tolist()) == set(values.tolist())
    twins = [name for name in kept if "post" in name]
    assert sorted(name.replace("-a-", "-b-") for name in twins if "-a-" in name) == [
        n for n in twins if "-b-" in n
    ]
    shares = [len(twins) / 80, (len(kept) - len(twins)) / 102]
    assert shares == pytest.approx([0.25, 0.25], abs=0.05)  # no kind at the expense of another


def test_thinning_counts_packets_or_connections() -> None:
    rows = table(*({"run": f"{k}", "packets_up": 10**k} for k in range(10)))
    for seed in range(5):
        assert "9" in thin(rows, 0.5, seed)  # nearly all packets
        assert len(thin(rows, 0.5, seed, "connections")) == 5


def test_all_is_kept_when_all_is_wanted() -> None:
    rows = table(*runs(9, twins=2))
    assert thin(rows, 1, 1) == sorted(set(rows.column("run").to_pylist()))


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="must be more than 0 and at most 1"):
        thin(table({}), share, 1)


SHARES = {"train": 0.6, "calibrate": 0.2, "test": 0.2}


def counts(rows: Any, *names: str) -> dict[str, dict[tuple[str, ...], int]]:
    """The number of rows of each combination of labels, by part."""
    found: dict[str, dict[tuple[str, ...], int]] = {}
    for part, mask in split(rows, SHARES, 3).items():
        kinds = list(zip(*(np.array(rows.column(name).to_pylist())[mask].tolist() for name in names)))
        found[part] = {kind: kinds.count(kind) for kind in set(kinds)}
    return found


def test_every_way_to_end_is_shared_out_evenly_even_where_each_run_is_a_group_of_its_own() -> None:
    rows = table(
        *(row for k in range(40) for row in runs(1, samples=1, group=f"{k}", termination="fin")),
        *(row for k in range(10) for row in runs(1, samples=1, group=f"{k}", termination="sudden")),
    )
    found = counts(rows, "termination")
    assert found["train"] == {("fin",): 24, ("sudden",): 6}
    assert found["calibrate"] == {("fin",): 8, ("sudden",): 2}
    assert found["test"] == {("fin",): 8, ("sudden",): 2}


def test_groups_of_one_activity_are_shared_out_nearly_evenly() -> None:
    rows = table(*(row for k in range(8) for row in runs(10, samples=1, group=f"{k}")))
    found = counts(rows, "group")
    assert sum(found["test"].values()) == 16
    assert set(found["test"].values()) <= {1, 2, 3}
    assert set(found["train"].values()) <= {5, 6, 7}
    assert len(found["test"]) == 8


def test_a_connection_that_was_refused_does_not_make_a_run_another_kind() -> None:
    rows = []
    for k in range(10):
        rows += runs(1, samples=3, group=f"{k}")
        if k % 2:
            rows[-1]["termination"] = "refused"
    assert sum(counts(table(*rows), "activity")["test"].values()) == 6


def test_users_in_the_background_do_not_make_a_run_another_kind() -> None:
    rows = []
    for k in range(10):
        rows += runs(1, samples=3, group=f"{k}")
        rows[-1] |= {"background": 1, "scenario": f"{'dns' if k % 2 else 'ntp'}", "activity": "lookup"}
    found = {part: sum(n.values()) for part, n in counts(table(*rows), "run").items()}
    assert found == {"train": 18, "calibrate": 6, "test": 6}


def test_thinning_keeps_every_way_to_end() -> None:
    rows = table(*runs(30), *runs(1, termination="sudden"), *runs(1, termination="rst"))
    mask = np.isin(rows.column("run").to_pylist(), thin(rows, 0.2, 1))
    assert set(np.array(rows.column("termination").to_pylist())[mask]) == {"fin", "sudden", "rst"}
