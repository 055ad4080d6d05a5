"""Generated cells against real ones, statistic by statistic: each gene, the difference between two types, depth.

Sampling noise alone keeps correlations and slopes below one and distances above zero, so each figure is read beside the same
of real cells against other real cells. A log fold change is ``log2((mean CP10k of one type + 1) / (of the other + 1))``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import ks_2samp, pearsonr, spearmanr

from scmulan.errors import CellDataError
from scmulan.measures.counts import Counts, gene_statistics, log_cp10k, same_genes


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of one statistic over genes, generated against real. Correlations are None where a side does not vary."""

    pearson: float | None
    spearman: float | None
    rmse: float


@dataclass(frozen=True, kw_only=True)
class GeneAgreement:
    """Agreement of mean and variance of log1p CP10k and of the share of zeros, over the genes that either side has."""

    n_genes: int
    mean: Agreement
    variance: Agreement
    zero_fraction: Agreement


@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """Generated log fold changes from ``second`` to ``first`` on the real ones, over the pair's top genes."""

    first: str
    second: str
    slope: float | None
    pearson: float | None


@dataclass(frozen=True, kw_only=True)
class LogFoldChangeAgreement:
    """Medians over pairs of types, and each pair. A slope below that of real cells against real ones means types too alike."""

    n_pairs: int
    n_genes: int
    slope: float | None
    pearson: float | None
    pairs: list[PairAgreement]


@dataclass(frozen=True, kw_only=True)
class DepthAgreement:
    """Library size (counts per cell) and genes detected per cell: medians, and Kolmogorov-Smirnov distance (0 the same, 1 apart)."""

    real_total: float
    generated_total: float
    total_distance: float
    real_genes: float
    generated_genes: float
    genes_distance: float


def gene_agreement(real: Counts, generated: Counts) -> GeneAgreement:
    """Pearson, Spearman and root mean square error of each gene's mean, variance (log1p CP10k) and share of zeros.

    Genes that no cell of either side has are left out: they agree for nothing.
    """
    real, generated = same_genes(real, generated)
    one, other = gene_statistics(real), gene_statistics(generated)
    seen = (one.zero_fraction < 1) | (other.zero_fraction < 1)
    if not seen.any():
        raise CellDataError("gene agreement: no gene has a count in any cell, real or generated")
    return GeneAgreement(
        n_genes=int(seen.sum()),
        mean=_agreement(one.mean[seen], other.mean[seen]),
        variance=_agreement(one.variance[seen], other.variance[seen]),
        zero_fraction=_agreement(one.zero_fraction[seen], other.zero_fraction[seen]),
    )


def log_fold_change_agreement(
    real: Counts,
    real_types: Iterable[str],
    generated: Counts,
    generated_types: Iterable[str],
    *,
    top: int = 100,
    min_cells: int = 10,
) -> LogFoldChangeAgreement:
    """Do two generated types differ by as much as the real ones do, and in the same genes?

    For each pair of types with ``min_cells`` on both sides: log2 of the ratio of mean CP10k, one added to each; over the ``top``
    genes by size of the real fold change, the slope (least squares with intercept) and correlation of generated on real.
    """
    real, generated = same_genes(real, generated)
    one, other = (_log_means(*side, min_cells) for side in ((real, real_types, "real"), (generated, generated_types, "generated")))
    shared = sorted(one.keys() & other.keys())
    pairs = [_pair_agreement(a, b, one[a] - one[b], other[a] - other[b], top) for a, b in combinations(shared, 2)]
    slopes = [pair.slope for pair in pairs if pair.slope is not None]
    correlations = [pair.pearson for pair in pairs if pair.pearson is not None]
    return LogFoldChangeAgreement(
        n_pairs=len(pairs),
        n_genes=min(top, real.shape[1]),
        slope=float(np.median(slopes)) if slopes else None,
        pearson=float(np.median(correlations)) if correlations else None,
        pairs=pairs,
    )


def depth_agreement(real: Counts, generated: Counts) -> DepthAgreement:
    """Medians of counts and of genes per cell, and how far apart their distributions are."""
    real, generated = same_genes(real, generated)
    real_total, generated_total = (np.asarray(side.sum(1), dtype=np.float64).ravel() for side in (real, generated))
    real_genes, generated_genes = (np.asarray((side > 0).sum(1), dtype=np.float64).ravel() for side in (real, generated))
    return DepthAgreement(
        real_total=float(np.median(real_total)),
        generated_total=float(np.median(generated_total)),
        total_distance=float(ks_2samp(real_total, generated_total).statistic),
        real_genes=float(np.median(real_genes)),
        generated_genes=float(np.median(generated_genes)),
        genes_distance=float(ks_2samp(real_genes, generated_genes).statistic),
    )


def _agreement(real: NDArray[np.float64], generated: NDArray[np.float64]) -> Agreement:
    rmse = float(np.sqrt(np.mean((generated - real) ** 2)))
    if len(real) < 2 or np.ptp(real) == 0 or np.ptp(generated) == 0:
        return Agreement(pearson=None, spearman=None, rmse=rmse)
    return Agreement(pearson=float(pearsonr(real, generated)[0]), spearman=float(spearmanr(real, generated)[0]), rmse=rmse)


def _log_means(counts: sp.csr_matrix, types: Iterable[str], side: str, min_cells: int) -> dict[str, NDArray[np.float64]]:
    """log2 of mean CP10k plus one, ``[G]``, of each type with enough cells."""
    labels = np.asarray([str(label) for label in types], dtype=object)
    if len(labels) != counts.shape[0]:
        raise CellDataError(f"{side} types: {len(labels):,} labels for {counts.shape[0]:,} cells; needed one a cell")
    cp10k = log_cp10k(counts).astype(np.float64).expm1()
    means = {}
    for label in sorted(set(labels)):
        of_type = labels == label
        if of_type.sum() >= min_cells:
            means[label] = np.log2(np.asarray(cp10k[of_type].mean(0)).ravel() + 1)
    return means


def _pair_agreement(first: str, second: str, real: NDArray[np.float64], generated: NDArray[np.float64], top: int) -> PairAgreement:
    genes = np.argsort(-np.abs(real), kind="stable")[:top]
    x, y = real[genes], generated[genes]
    if len(x) < 2 or np.ptp(x) == 0:
        return PairAgreement(first=first, second=second, slope=None, pearson=None)
    slope = float(np.cov(x, y, bias=True)[0, 1] / x.var())
    return PairAgreement(first=first, second=second, slope=slope, pearson=float(pearsonr(x, y)[0]) if np.ptp(y) > 0 else None)
