"""How well an embedding of cells from several batches keeps their types apart and their batches together.

The measures of scIB (Luecken et al. 2022, Nat Methods 19:41), by their published formulas, each from 0 (worst) to 1 (best):
silhouette of labels and of batches, connectivity of each label's part of the neighbour graph, LISI (Korsunsky et al. 2019, Nat Methods
16:1289) of labels and of batches, and NMI and ARI of k-means with as many clusters as labels. The batch silhouette is that of 2022,
not its later variant BRAS. Means as in scIB: biology weighs 0.6, batches 0.4. Suffixes: C cells, K neighbours, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples, silhouette_score

from scmulan.errors import CellDataError
from scmulan.measures.neighbours import as_points, nearest

GRAPH_K, LISI_K = 15, 90
"""Neighbours of the graph and of LISI, as in scIB; LISI's perplexity is a third of its neighbours."""
BIOLOGY_WEIGHT = 0.6
STARTS = 10


@dataclass(frozen=True, kw_only=True)
class Integration:
    """Measures of an embedding of ``n`` cells; None where undefined, for instance of batches where there is one.

    ``biology`` is the mean of nmi, ari, silhouette_label and clisi, ``mixing`` that of silhouette_batch, ilisi and connectivity,
    ``overall`` 0.6 of the former and 0.4 of the latter.
    """

    n: int
    n_labels: int
    n_batches: int
    nmi: float | None
    ari: float | None
    silhouette_label: float | None
    clisi: float | None
    silhouette_batch: float | None
    ilisi: float | None
    connectivity: float
    biology: float | None
    mixing: float | None
    overall: float | None


def integration(points: ArrayLike, labels: Iterable[Any], batches: Iterable[Any], *, seed: int = 0) -> Integration:
    """Measures of one embedding.

    Parameters
    ----------
    points : (C, D)
    labels, batches : (C,) what each cell is, and which batch it is of
    seed : of the starts of k-means

    Raises
    ------
    CellDataError
        When lengths differ or the points are no embedding.
    """
    points_CD = as_points(points)
    kinds, groups = codes(labels, len(points_CD), "labels"), codes(batches, len(points_CD), "batches")
    n_labels, n_batches = int(kinds.max()) + 1, int(groups.max()) + 1
    index, distance = nearest(points_CD, k=max(GRAPH_K, LISI_K))
    nmi, ari = _of_clusters(points_CD, kinds, seed) if n_labels > 1 else (None, None)
    of_labels, of_batches = median_lisi(kinds, index, distance), median_lisi(groups, index, distance)
    found: dict[str, float | None] = {
        "nmi": nmi,
        "ari": ari,
        "silhouette_label": (float(silhouette_score(points_CD, kinds)) + 1) / 2 if 1 < n_labels < len(kinds) else None,
        "clisi": (n_labels - of_labels) / (n_labels - 1) if n_labels > 1 else None,
        "silhouette_batch": silhouette_batch(points_CD, kinds, groups),
        "ilisi": (of_batches - 1) / (n_batches - 1) if n_batches > 1 else None,
    }
    connectivity = graph_connectivity(kinds, index[:, :GRAPH_K])
    biology = _mean([found[name] for name in ("nmi", "ari", "silhouette_label", "clisi")])
    mixing = _mean([found["silhouette_batch"], found["ilisi"], connectivity if n_batches > 1 else None])
    overall = None if biology is None or mixing is None else BIOLOGY_WEIGHT * biology + (1 - BIOLOGY_WEIGHT) * mixing
    return Integration(
        n=len(kinds), n_labels=n_labels, n_batches=n_batches, connectivity=connectivity, biology=biology, mixing=mixing,
        overall=overall, **found,
    )  # fmt: skip


def codes(names: Iterable[Any], n_cells: int, what: str) -> NDArray[np.int64]:
    """Names as numbers from 0 in sorted order; CellDataError unless there is one a cell."""
    found = np.array([str(name) for name in names])
    if len(found) != n_cells:
        raise CellDataError(f"{what}: {len(found):,} for {n_cells:,} cells; needed one a cell")
    return np.asarray(np.unique(found, return_inverse=True)[1], dtype=np.int64)


def silhouette_batch(points: ArrayLike, labels: NDArray[np.int64], batches: NDArray[np.int64]) -> float | None:
    """Mean over labels of the mean of 1 - abs(silhouette of batch) among the label's cells; None if no label is in two batches.

    Examples
    --------
    >>> silhouette_batch([[0.0], [0.0], [1.0], [1.0]], np.zeros(4, int), np.array([0, 0, 1, 1]))
    0.0
    """
    points_CD, found = as_points(points), []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        n_batches = len(np.unique(batches[rows]))
        if 1 < n_batches < len(rows):
            found.append(float(np.mean(1 - np.abs(silhouette_samples(points_CD[rows], batches[rows])))))
    return float(np.mean(found)) if found else None


def graph_connectivity(labels: NDArray[np.int64], index: NDArray[np.int64]) -> float:
    """Mean over labels of the share of its cells in the largest connected part of the label's neighbour graph.

    Parameters
    ----------
    labels : (C,)
    index : (C, K) nearest other cells of each

    Examples
    --------
    >>> graph_connectivity(np.array([0, 0, 0, 1]), np.array([[1], [0], [3], [2]]))
    0.8333333333333333
    """
    n_cells, k = index.shape
    graph = sp.csr_matrix((np.ones(n_cells * k), (np.repeat(np.arange(n_cells), k), index.ravel())), shape=(n_cells, n_cells))
    shares = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        _, part = connected_components(graph[rows][:, rows], directed=False)
        shares.append(np.bincount(part).max() / len(rows))
    return float(np.mean(shares))


def median_lisi(names: NDArray[np.int64], index: NDArray[np.int64], distance: NDArray[np.floating[Any]]) -> float:
    """Median over cells of the inverse Simpson index of names among neighbours, which weigh as Gaussians of a fixed perplexity."""
    weight_CK = perplexity_weights(distance, max(index.shape[1] / 3, 1.0))
    simpson_C = np.zeros(len(index))
    for name in range(int(names.max()) + 1):
        simpson_C += ((names[index] == name) * weight_CK).sum(1) ** 2
    return float(np.median(1 / simpson_C))


def perplexity_weights(distance: NDArray[np.floating[Any]], perplexity: float) -> NDArray[np.float64]:
    """Weights ``exp(-beta d)`` of neighbours, a row adding up to 1, beta found for each cell so that exp(entropy) is the perplexity.

    Examples
    --------
    >>> perplexity_weights(np.array([[1.0, 1.0, 1.0, 1.0]]), 4).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    near = np.asarray(distance, dtype=np.float64)
    near = near - near.min(1, keepdims=True)
    near /= np.maximum(near.mean(1, keepdims=True), 1e-12)
    low, high = np.zeros(len(near)), np.full(len(near), np.inf)
    beta, wanted = np.ones(len(near)), np.log(perplexity)
    for _ in range(60):
        weight = np.exp(-beta[:, None] * near)
        share = weight / weight.sum(1, keepdims=True)
        entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(1)
        is_wide = entropy > wanted
        low, high = np.where(is_wide, beta, low), np.where(is_wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2)
    return np.asarray(share)


def _of_clusters(points_CD: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """NMI and ARI of k-means with as many clusters as labels."""
    said = KMeans(int(labels.max()) + 1, n_init=STARTS, random_state=seed).fit_predict(points_CD)
    return float(normalized_mutual_info_score(labels, said)), float(adjusted_rand_score(labels, said))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
