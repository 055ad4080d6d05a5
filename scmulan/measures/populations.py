"""Populations of cells as clouds of points: how far a predicted cloud lies from the true one.

Points are scores on principal components of real cells, the same for every prediction, so that no prediction chooses its own scale.
Energy distance: Székely and Rizzo 2013, ``2 E|X-Y| - E|X-X'| - E|Y-Y'|``, Euclidean; squared MMD: unbiased, Gretton et al. 2012;
Wasserstein: the mean distance of the best one-to-one assignment of as many cells of either side. The first two are 0 on average for equal
clouds, and may be negative; the last is not, so that it needs real cells against real cells beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances

from scmulan.errors import CellDataError
from scmulan.measures.change import Floats
from scmulan.measures.counts import Counts, as_counts, dense_log, highly_variable, log_cp10k


@dataclass(frozen=True, kw_only=True)
class CellSpace:
    """Principal components of real cells: gene columns ``[H]``, their mean ``[H]``, axes ``[K, H]``, and the width of the MMD's kernel."""

    columns: NDArray[np.int64]
    mean: Floats
    axes: Floats
    bandwidth: float

    def place(self, counts: Counts) -> Floats:
        """Scores of cells ``[C, G]``: ``[C, K]``."""
        points: Floats = (dense_log(counts, self.columns) - self.mean) @ self.axes.T
        return points

    def moved(self, points: Floats, change: ArrayLike) -> Floats:
        """Points ``[C, K]`` moved by a change ``[G]`` in log1p CP10k: every cell alike, as a prediction of means would have it."""
        there: Floats = points + np.asarray(change, dtype=np.float64)[self.columns] @ self.axes.T
        return there


@dataclass(frozen=True, kw_only=True)
class PopulationDistance:
    """Distance of two clouds of ``n_true`` and ``n_predicted`` points, in the units of the space (log1p CP10k)."""

    n_true: int
    n_predicted: int
    energy: float
    mmd: float
    wasserstein: float


def cell_space(real: Counts, *, n_genes: int = 1000, n_components: int = 50, seed: int = 0) -> CellSpace:
    """The space of real cells ``[C, G]``: log1p CP10k of the most variable genes, principal components."""
    real = as_counts(real)
    columns = highly_variable(log_cp10k(real), n_genes)
    values = dense_log(real, columns).astype(np.float64)
    fitted = PCA(min(n_components, *values.shape), random_state=seed).fit(values)
    points = drawn((values - fitted.mean_) @ fitted.components_.T, 1000, seed)
    between = euclidean_distances(points)[np.triu_indices(len(points), 1)]
    width = float(np.median(between)) if len(between) else 1.0
    return CellSpace(columns=columns, mean=fitted.mean_, axes=fitted.components_, bandwidth=width or 1.0)


def population_distance(
    true: Floats, predicted: Floats, *, bandwidth: float | None = None, most: int = 1000, seed: int = 0
) -> PopulationDistance:
    """Distance of two clouds ``[C, K]`` and ``[C', K]``, of at most ``most`` points each, drawn by ``seed``.

    Parameters
    ----------
    bandwidth
        Of the kernel ``exp(-d² / 2σ²)``; the median distance of all points when not given.

    Raises
    ------
    CellDataError
        When a cloud has fewer than two points.
    """
    if min(len(true), len(predicted)) < 2:
        raise CellDataError(f"distance of populations: {len(true)} true and {len(predicted)} predicted cells; needed at least 2 of each")
    one, other = drawn(true, most, seed), drawn(predicted, most, seed + 1)
    between = euclidean_distances(one, other)
    within = [euclidean_distances(side) for side in (one, other)]
    width = bandwidth or float(np.median(between)) or 1.0
    kernels = [np.exp(-(distances**2) / (2 * width**2)) for distances in (between, *within)]
    return PopulationDistance(
        n_true=len(one),
        n_predicted=len(other),
        energy=float(2 * between.mean() - sum(_mean_of_pairs(each) for each in within)),
        mmd=float(sum(_mean_of_pairs(each) for each in kernels[1:]) - 2 * kernels[0].mean()),
        wasserstein=_assigned(between),
    )


def drawn(points: Floats, most: int, seed: int) -> Floats:
    """All rows, or ``most`` of them drawn at random in their order."""
    if len(points) <= most:
        return points
    return points[np.sort(np.random.default_rng(seed).choice(len(points), most, replace=False))]


def _mean_of_pairs(square: Floats) -> float:
    """Mean over pairs of different cells."""
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))


def _assigned(between: Floats) -> float:
    n = min(between.shape)
    rows, columns = linear_sum_assignment(between[:n, :n])
    return float(between[rows, columns].mean())
