"""Which features go to which autoencoder (Mirsky et al. 2018, IV-B): correlated ones together.

`CorrelationDistance` gathers statistics, a sample at a time; `cluster` makes the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.kernels import allocating

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import ClusterNode

Floats = NDArray[np.float64]
FeatureMap = tuple[tuple[int, ...], ...]  # the features of each autoencoder; each feature stands in one

LIMIT = 1e100  # values beyond it, and those that are not finite, are unusable: their square may overflow
DISTANCE_DIGITS = 12  # distances that agree to so many decimals are tied: what remains is rounding noise


class CorrelationDistance:
    """Incremental correlation distance of d features: 1 - correlation of the residuals from the running mean.

    A residual is taken from the mean up to and including its own sample, as published, and not from the final
    mean. Two features of which one never moved are at distance 1.
    """

    def __init__(self, features: int) -> None:
        self.samples = 0  # that were used
        self.total = np.zeros(features)  # (d,) sums of the values
        self.squares = np.zeros(features)  # (d,) sums of the squared residuals
        self.products = np.zeros((features, features))  # sums of the products of residuals, upper triangle

    def update(self, x: Floats) -> int:
        """Add the rows of x (n, d) in order; returns how many were skipped for an unusable value."""
        used = accumulate(x, self.samples, self.total, self.squares, self.products)
        self.samples += int(used)
        return len(x) - int(used)

    def distance(self) -> Floats:
        """(d, d) symmetric, zeros on the diagonal, in 0..2; small negatives from rounding are made 0."""
        root = np.sqrt(self.squares)
        scale = np.outer(root, root)
        scale[scale == 0.0] = 1e-100
        upper = np.triu(np.maximum(0.0, 1.0 - self.products / scale), 1)
        return np.asarray(upper + upper.T)


@allocating
def accumulate(x: Floats, samples: int, total: Floats, squares: Floats, products: Floats) -> int:
    """Add rows to the statistics, which are changed in place; returns how many rows were usable.

    samples: rows already in. products: only above the diagonal.
    """
    d = x.shape[1]
    residual = np.empty(d)
    n = samples
    for r in range(x.shape[0]):
        usable = True
        for i in range(d):
            usable &= abs(x[r, i]) <= LIMIT
        if not usable:
            continue
        n += 1
        for i in range(d):
            total[i] += x[r, i]
            residual[i] = x[r, i] - total[i] / n
            squares[i] += residual[i] * residual[i]
        for i in range(d):
            for j in range(i + 1, d):
                products[i, j] += residual[i] * residual[j]
    return n - samples


def cluster(distance: Floats, largest: int) -> FeatureMap:
    """Split the single-linkage dendrogram of `distance` (d, d) until no part exceeds `largest` features.

    Clusters, and the features in one, stand in the order of the dendrogram's leaves, the part that was joined
    first to the left; initial weights go by position, so the order matters. Ties go by index: the pairs are
    ranked by (distance, i, j) and linked by rank, which single linkage does not feel otherwise, so the map
    depends neither on SciPy's inner order nor on the last bits of the statistics.
    """
    from scipy.cluster.hierarchy import linkage, to_tree  # half a second, which a frozen model can do without

    d = len(distance)
    if d == 1:
        return ((0,),)
    pairs = np.round(distance[np.triu_indices(d, 1)], DISTANCE_DIGITS)
    rank = np.empty(len(pairs))
    rank[np.argsort(pairs, kind="stable")] = np.arange(len(pairs))
    tree = to_tree(linkage(rank, method="single"))
    return tuple(tuple(int(i) for i in part.pre_order()) for part in split(tree, max(1, largest)))


def split(tree: ClusterNode, largest: int) -> list[ClusterNode]:
    """The highest nodes of a dendrogram with at most `largest` leaves, left to right."""
    parts, todo = [], [tree]
    while todo:
        node = todo.pop()
        left, right = node.get_left(), node.get_right()
        if node.get_count() <= largest or left is None or right is None:
            parts.append(node)
        else:
            todo += [right, left]
    return parts


def check_map(feature_map: FeatureMap, features: int, largest: int) -> None:
    """Raise ValueError unless each of `features` stands once, in clusters of 1..`largest`."""
    sizes = [len(part) for part in feature_map]
    if not sizes or min(sizes) < 1 or max(sizes) > largest:
        raise ValueError(f"feature map has clusters of {sizes} features, each must have 1..{largest}")
    if sorted(i for part in feature_map for i in part) != list(range(features)):
        raise ValueError(f"feature map must hold each of the features 0..{features - 1} once")
