"""Count matrices and the scales that cells are measured on: log1p of counts per 10,000, variable genes, principal components.

Matrices are cells × genes, CSR or dense, of whole counts from zero up; anything else is refused, because a figure on
normalised values would not be the figure it is named after. Suffixes: C cells, G genes, K components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA

from scmulan.errors import CellDataError

Counts: TypeAlias = Any
"""Cells × genes: a scipy sparse matrix or array, or a numpy array, of whole counts."""


@dataclass(frozen=True, kw_only=True)
class GeneStatistics:
    """Of each gene over cells: mean and variance of log1p CP10k, and share of cells without it; each ``[G]``, float64."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    zero_fraction: NDArray[np.float64]


def as_counts(counts: Counts, name: str = "counts") -> sp.csr_matrix:
    """The matrix as CSR of int32, or an error that says why it is not one of counts.

    Raises
    ------
    CellDataError
        When there is no cell or gene, or a value is negative, fractional or not finite.

    Examples
    --------
    >>> as_counts([[0.0, 2.0]]).dtype
    dtype('int32')
    """
    matrix = sp.csr_matrix(counts)
    if 0 in matrix.shape:
        raise CellDataError(f"{name}: {matrix.shape[0]:,} cells × {matrix.shape[1]:,} genes; needed at least one of each")
    values = matrix.data
    if values.dtype.kind not in "iub":
        bad = values[~(np.isfinite(values) & (values == np.rint(values)))]
        if bad.size:
            raise CellDataError(f"{name}: {bad.size:,} values are no whole counts, {bad[0]} among them; needed raw counts")
    if values.size and values.min() < 0:
        raise CellDataError(f"{name}: found a value of {values.min()}; needed counts from zero up")
    return matrix.astype(np.int32)


def same_genes(real: Counts, generated: Counts, names: tuple[str, str] = ("real", "generated")) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Both matrices by `as_counts`; CellDataError unless their numbers of genes agree."""
    first, second = as_counts(real, names[0]), as_counts(generated, names[1])
    if first.shape[1] != second.shape[1]:
        raise CellDataError(
            f"{names[0]} cells have {first.shape[1]:,} genes, {names[1]} cells {second.shape[1]:,}; needed the same genes in the same order"
        )
    return first, second


def log_cp10k(counts: Counts) -> sp.csr_matrix:
    """log1p of counts scaled to 10,000 a cell: CSR of float32, ``[C, G]``. A cell without counts stays zero.

    Examples
    --------
    >>> log_cp10k([[1, 1, 0]]).toarray().round(3).tolist()
    [[8.517000198364258, 8.517000198364258, 0.0]]
    """
    scaled = sp.csr_matrix(counts, dtype=np.float32)
    total = np.asarray(scaled.sum(1)).ravel()
    total[total == 0] = 1
    log: sp.csr_matrix = (sp.diags(1e4 / total) @ scaled).log1p().tocsr()
    return log


def highly_variable(log_train: sp.csr_matrix, n: int = 1000) -> NDArray[np.int64]:
    """Columns of the ``n`` genes whose log1p CP10k varies most over the training cells, most variable first.

    Variance of the values as they are: plain on purpose, so that everyone who measures chooses the same genes.

    Examples
    --------
    >>> highly_variable(sp.csr_matrix([[0.0, 1.0, 2.0], [0.0, 1.0, 0.0]]), 1).tolist()
    [2]
    """
    log_train = sp.csr_matrix(log_train)
    variance = np.asarray(log_train.multiply(log_train).mean(0)).ravel() - np.asarray(log_train.mean(0)).ravel() ** 2
    return np.argsort(-variance, kind="stable")[:n].astype(np.int64)


def gene_statistics(counts: Counts) -> GeneStatistics:
    """Mean and variance of log1p CP10k and zero fraction of each gene, over all cells given.

    Examples
    --------
    >>> gene_statistics([[1, 0], [1, 3]]).zero_fraction.tolist()
    [0.0, 0.5]
    """
    counts = as_counts(counts)
    log = log_cp10k(counts).astype(np.float64)
    mean = np.asarray(log.mean(0)).ravel()
    variance = np.maximum(np.asarray(log.multiply(log).mean(0)).ravel() - mean**2, 0)
    return GeneStatistics(mean=mean, variance=variance, zero_fraction=1 - np.asarray((counts > 0).mean(0)).ravel())


def dense_log(counts: Counts, genes: ArrayLike) -> NDArray[np.float32]:
    """Dense log1p CP10k of the chosen gene columns, ``[C, len(genes)]``; cells are scaled by the total over all genes."""
    counts = as_counts(counts)
    columns = np.asarray(genes)
    if columns.ndim != 1 or not columns.size or columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= counts.shape[1]:
        raise CellDataError(
            f"genes to compare on: needed one or more column numbers from 0 to {counts.shape[1] - 1:,}, as of highly_variable"
        )
    values: NDArray[np.float32] = log_cp10k(counts)[:, columns].toarray()
    return values


def components(values: NDArray[np.float32], n_components: int, seed: int) -> NDArray[np.float32]:
    """Scores on the first principal components, ``[C, K]``; K is smaller where the values have fewer."""
    n = min(n_components, *values.shape)
    scores: NDArray[np.float32] = PCA(n, random_state=seed).fit_transform(values)
    return scores


def pooled_components(
    real: Counts, generated: Counts, hvg: ArrayLike, *, n_components: int = 50, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Principal components of real and generated cells together, on log1p CP10k of the chosen genes.

    Returns
    -------
    Scores of the real cells ``[C, K]`` and of the generated cells ``[C', K]``, float32.
    """
    real, generated = same_genes(real, generated)
    both = components(np.vstack([dense_log(real, hvg), dense_log(generated, hvg)]), n_components, seed)
    return both[: real.shape[0]], both[real.shape[0] :]
