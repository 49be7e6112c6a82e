from __future__ import annotations

import numpy as np
import pytest

from models.kitnet.feature_map import CorrelationDistance, check_map, cluster
from tests.support import naive_kitnet as naive

SUMS = 1e-12  # sums in another order, of a few hundred terms of the order of 1


def mixed(n: int, d: int, seed: int = 3) -> np.ndarray:
    """Features in correlated groups of different strength."""
    rng = np.random.default_rng(seed)
    return rng.random((n, 4)) @ rng.random((4, d)) + 0.3 * rng.random((n, d))


def fitted(x: np.ndarray) -> CorrelationDistance:
    statistics = CorrelationDistance(x.shape[1])
    statistics.update(x)
    return statistics


def test_incremental_distances_equal_those_of_the_definition() -> None:
    x = mixed(200, 9)
    np.testing.assert_allclose(fitted(x).distance(), naive.distance(x), rtol=0, atol=SUMS)


def test_distances_are_the_same_however_samples_are_cut() -> None:
    x = mixed(100, 7)
    pieces = CorrelationDistance(7)
    for part in (x[:1], x[1:40], x[40:40], x[40:]):
        pieces.update(part)
    np.testing.assert_array_equal(pieces.distance(), fitted(x).distance())


def test_samples_with_unusable_values_are_skipped_and_counted() -> None:
    x = mixed(50, 4)
    bad = x.copy()
    bad[[3, 10, 20, 30], [0, 1, 2, 3]] = np.nan, np.inf, -np.inf, 1e200
    statistics = CorrelationDistance(4)
    assert statistics.update(bad) == 4
    assert statistics.samples == 46
    expected = fitted(np.delete(x, [3, 10, 20, 30], axis=0))
    np.testing.assert_array_equal(statistics.distance(), expected.distance())


def test_a_constant_feature_is_at_distance_one() -> None:
    x = mixed(50, 3)
    x[:, 1] = 5.0
    distance = fitted(x).distance()
    assert distance[0, 1] == distance[1, 2] == 1.0


@pytest.mark.parametrize("largest", [1, 2, 4, 30])
def test_clusters_equal_those_of_brute_force(largest: int) -> None:
    distance = fitted(mixed(200, 12)).distance()
    found = [set(part) for part in cluster(distance, largest)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, naive.clusters(distance, largest)))
    check_map(cluster(distance, largest), 12, largest)


def test_ties_go_by_index_and_not_by_the_last_bits() -> None:
    tied = np.ones((6, 6)) - np.eye(6)
    noise = np.random.default_rng(4).random((6, 6)) * 1e-14
    noisy = tied + np.triu(noise, 1) + np.triu(noise, 1).T
    assert cluster(tied, 3) == cluster(noisy, 3) == ((5,), (4,), (3,), (2, 0, 1))


def test_one_feature_is_its_own_cluster() -> None:
    assert cluster(np.zeros((1, 1)), 10) == ((0,),)


def test_a_long_chain_of_clusters_is_split_without_recursion() -> None:
    n = 2000
    distance = np.abs(np.subtract.outer(np.arange(n) ** 1.5, np.arange(n) ** 1.5))
    assert sum(len(part) for part in cluster(distance, 10)) == n


@pytest.mark.parametrize(
    ("feature_map", "problem"),
    [
        (((0, 1), (2,)), "0..3 once"),
        (((0, 1), (1, 2, 3)), "0..3 once"),
        (((0, 1, 2, 3),), "1..3"),
        (((0, 1, 2), (3,), ()), "1..3"),
        ((), "1..3"),
        (((0, 1), (2, 4)), "0..3 once"),
    ],
)
def test_a_map_that_is_no_partition_is_refused(
    feature_map: tuple[tuple[int, ...], ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        check_map(feature_map, 4, 3)
