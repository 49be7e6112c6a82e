"""The features of each autoencoder (Mirsky et al. 2018, IV-B): correlated ones together.

`CorrelationDistance` gathers statistics, one sample at a time; `cluster` makes the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.kernels import allocating

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import ClusterNode

Floats = NDArray[np.float64]
FeatureMap = tuple[tuple[int, ...], ...]  # the features of each autoencoder; each feature is in one of them

LIMIT = 1e100  # largest usable value; the square of a larger one, or of one that is not finite, may overflow
DISTANCE_DIGITS = 12  # decimals up to which two distances count as equal: the rest is rounding noise


class CorrelationDistance:
    """Incremental correlation distance of d features: 1 - correlation of the residuals from the running mean.

    As published, a residual is taken from the mean up to and including its own sample, not from the final mean. The
    distance is 1 if one of two features never moved.
    """

    def __init__(self, features: int) -> None:
        self.samples = 0  # samples used
        self.total = np.zeros(features)  # (d,) sums of the values
        self.squares = np.zeros(features)  # (d,) sums of the squared residuals
        self.products = np.zeros((features, features))  # sums of the products of residuals, upper triangle

    def update(self, x: Floats) -> int:
        """Add the rows of x (n, d) in order; returns the number of rows skipped for an unusable value."""
        used = accumulate(x, self.samples, self.total, self.squares, self.products)
        self.samples += int(used)
        return len(x) - int(used)

    def distance(self) -> Floats:
        """(d, d) symmetric, zeros on the diagonal, in 0..2; small negatives from rounding become 0."""
        root = np.sqrt(self.squares)
        scale = np.outer(root, root)
        scale[scale == 0.0] = 1e-100
        upper = np.triu(np.maximum(0.0, 1.0 - self.products / scale), 1)
        return np.asarray(upper + upper.T)


@allocating
def accumulate(x: Floats, samples: int, total: Floats, squares: Floats, products: Floats) -> int:
    """Add rows to the statistics, in place; returns the number of usable rows.

    samples: rows added before. products: above the diagonal only.
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

    Clusters, and the features in each, are in the order of the dendrogram's leaves, the part that was joined first on
    the left; initial weights go by position, so the order matters. Ties go by index: the pairs are ranked by
    (distance, i, j) and linked by rank, which gives the same single linkage. So the map depends neither on SciPy's
    internal order nor on the last bits of the statistics.
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
    """Raise ValueError unless each of `features` is in the map once, in clusters of 1..`largest`."""
    sizes = [len(part) for part in feature_map]
    if not sizes or min(sizes) < 1 or max(sizes) > largest:
        raise ValueError(f"feature map has clusters of {sizes} features, each must have 1..{largest}")
    if sorted(i for part in feature_map for i in part) != list(range(features)):
        raise ValueError(f"feature map must hold each of the features 0..{features - 1} once")
