"""A shallow measurement brought back to depth, against the full cell that it was thinned from.

What is recovered is rates or counts, on any scale for each cell. Two kinds of figure, since the thinned counts are part of the full cell's:
agreement with the full cell, which leaving the cell alone does well already; and of what was removed alone (`removed_nats`, and detection
among the genes that the thinned cell lacks), which shares no molecule with what was given. Given a cell's rates, kept and removed
counts are independent for Poisson counts: molecular cross-validation, Batson, Royer and Webber 2019 (bioRxiv 786269).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from scmulan.errors import CellDataError
from scmulan.measures.change import Floats
from scmulan.measures.counts import Counts, as_counts, components, highly_variable, log_cp10k, same_genes

MIXED = 0.01
"""Share of the mean profile of all cells that is mixed into a recovered profile before its nats are counted: no gene is impossible."""
SEEN_IN = 0.05
"""Genes in at least such a share of the full cells are compared gene by gene."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Recovered cells against full ones, in log1p CP10k. None where nothing varies.

    Attributes
    ----------
    pearson_cell, spearman_cell
        Over the genes of each cell; median over cells.
    pearson_gene, spearman_gene
        Over cells, of each gene that 5 % of the full cells have; median over genes. A gene that does not vary counts as 0.
    rmse
        Over all cells and genes.
    detection
        Area under the ROC curve of a recovered value for whether the full cell has the gene, among the genes that the thinned one lacks;
        mean over cells; 0.5 is chance.
    removed_nats
        Cross-entropy in nats of each removed molecule's gene under the recovered profile of its cell.
    ari
        Adjusted Rand index of k-means clusters (as many as labels, on 50 principal components of 1,000 variable genes) and the labels.
    """

    n_cells: int
    pearson_cell: float | None
    spearman_cell: float | None
    pearson_gene: float
    spearman_gene: float
    rmse: float
    detection: float | None
    removed_nats: float
    ari: float | None


def recovery(
    full: Counts, thinned: Counts, recovered: Any, *, labels: Iterable[Any] | None = None, mean_profile: Floats | None = None, seed: int = 0
) -> Recovery:
    """Full and thinned counts ``[C, G]`` and what was recovered ``[C, G]``, numbers from zero up.

    Parameters
    ----------
    labels
        Cell types, for the clustering.
    mean_profile
        ``[G]``: what is mixed into each recovered profile; of the training cells at best, of the thinned cells when not given.

    Raises
    ------
    CellDataError
        When shapes differ, a thinned count is above the full one, or a recovered value is negative or not finite.
    """
    full, thinned = same_genes(full, thinned, ("full", "thinned"))
    rates = _rates(recovered, full.shape)
    if full.shape != thinned.shape or (full - thinned).min() < 0:
        raise CellDataError("recovery: a thinned cell is not part of its full cell; needed the same cells in the same order")
    true, said = log_cp10k(full).toarray(), log_cp10k(sp.csr_matrix(rates)).toarray()
    genes = np.flatnonzero(np.asarray((full > 0).mean(0)).ravel() >= SEEN_IN)
    columns = [side[:, genes].T for side in (true, said)]
    by_gene = [_correlations(*columns), _correlations(*(rankdata(side, axis=1) for side in columns))]
    by_cell = [_correlations(true, said), _correlations(*(rankdata(side, axis=1) for side in (true, said)))]
    medians = [float(np.median(each[~np.isnan(each)])) if (~np.isnan(each)).any() else None for each in by_cell]
    return Recovery(
        n_cells=full.shape[0],
        pearson_cell=medians[0],
        spearman_cell=medians[1],
        pearson_gene=float(np.median(np.nan_to_num(by_gene[0]))),
        spearman_gene=float(np.median(np.nan_to_num(by_gene[1]))),
        rmse=float(np.sqrt(np.mean((said - true) ** 2))),
        detection=_detection(full, thinned, rates),
        removed_nats=_removed_nats(sp.csr_matrix(full - thinned), rates, mean_profile if mean_profile is not None else _profile(thinned)),
        ari=None if labels is None else cluster_agreement(sp.csr_matrix(rates), labels, seed=seed),
    )


def cluster_agreement(rates: Any, labels: Iterable[Any], *, seed: int = 0) -> float:
    """Adjusted Rand index of k-means clusters of cells and their labels."""
    named = [str(label) for label in labels]
    log = log_cp10k(rates)
    if log.shape[0] != len(named):
        raise CellDataError(f"clusters: {log.shape[0]:,} cells but {len(named):,} labels; needed one a cell")
    points = components(log[:, highly_variable(log)].toarray(), 50, seed)
    clusters = KMeans(len(set(named)), n_init=5, random_state=seed).fit_predict(points)
    return float(adjusted_rand_score(named, clusters))


def _rates(recovered: Any, shape: tuple[int, int]) -> Floats:
    rates = np.asarray(recovered.toarray() if sp.issparse(recovered) else recovered, dtype=np.float64)
    if rates.shape != tuple(shape):
        raise CellDataError(f"recovered cells are {rates.shape[0]:,} × {rates.shape[1]:,}, full cells {shape[0]:,} × {shape[1]:,}")
    bad = ~np.isfinite(rates) | (rates < 0)
    if bad.any():
        raise CellDataError(f"recovered: {int(bad.sum()):,} values are negative or not finite; needed rates or counts from zero up")
    return rates


def _correlations(one: Floats, other: Floats) -> Floats:
    """Pearson of each row; NaN where a side does not vary."""
    sides = [rows - rows.mean(1, keepdims=True) for rows in (one.astype(np.float64), other.astype(np.float64))]
    norms = [np.linalg.norm(rows, axis=1) for rows in sides]
    product = norms[0] * norms[1]
    found: Floats = np.divide((sides[0] * sides[1]).sum(1), product, out=np.full(len(one), np.nan), where=product > 1e-9)
    return found


def _detection(full: sp.csr_matrix, thinned: sp.csr_matrix, rates: Floats) -> float | None:
    has, had, areas = full.toarray() > 0, thinned.toarray() > 0, []
    for row in range(len(rates)):
        lacking = ~had[row]
        positive = has[row, lacking]
        n = int(positive.sum())
        if 0 < n < len(positive):
            ranks = rankdata(rates[row, lacking])
            areas.append((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))
    return float(np.mean(areas)) if areas else None


def _profile(counts: sp.csr_matrix) -> Floats:
    totals = np.asarray(counts.sum(0), dtype=np.float64).ravel() + 0.05
    profile: Floats = totals / totals.sum()
    return profile


def _removed_nats(removed: sp.csr_matrix, rates: Floats, mean_profile: Floats) -> float:
    """A cell of which nothing was recovered has the mean profile."""
    removed = as_counts(removed).tocoo()
    if removed.sum() == 0:
        return 0.0
    total = rates.sum(1)
    share = np.divide(rates[removed.row, removed.col], total[removed.row], out=np.zeros(removed.nnz), where=total[removed.row] > 0)
    mixed = np.where(total[removed.row] > 0, MIXED, 1.0)
    mean = np.maximum(mean_profile, 1e-9)[removed.col]
    return float(-(removed.data * np.log((1 - mixed) * share + mixed * mean)).sum() / removed.sum())
