"""Generated and real cells as points: told apart by a classifier or a kernel, and too near to training cells or not.

A figure here means something only beside the same figure of real cells against other real cells and of a simple simulator
(``baselines.py``). Sources: two-sample test by classifier, Lopez-Paz and Oquab 2017 (arXiv 1610.06545); standard error of an
AUC, Hanley and McNeil 1982; unbiased MMD, Gretton et al. 2012 (JMLR 13:723), lemma 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from scmulan.errors import CellDataError
from scmulan.measures.counts import Counts, components, dense_log, pooled_components, same_genes

N_TREES = 300
"""Trees of the two-sample forest: part of the published protocol, not a setting."""


@dataclass(frozen=True, kw_only=True)
class TelltaleGene:
    """A gene by which generated cells are known; means are of log1p CP10k, importance is the forest's (it sums to one over genes)."""

    gene: str
    importance: float
    real_mean: float
    generated_mean: float


@dataclass(frozen=True, kw_only=True)
class TwoSample:
    """Area under the ROC curve of a random forest that tells generated cells from real ones; 0.5 is indistinguishable.

    ``n`` is the number of cells on each side. The standard errors are of Hanley and McNeil; they take the folds as one test set.
    """

    n: int
    auc_pcs: float
    auc_pcs_error: float
    auc_hvgs: float
    auc_hvgs_error: float
    telltale: list[TelltaleGene] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Mmd:
    """Unbiased squared maximum mean discrepancy, which may be negative; ``p_value`` and ``null_95`` are from permuted labels."""

    n_real: int
    n_generated: int
    squared: float
    p_value: float
    null_95: float
    bandwidth: float
    n_permutations: int


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Are generated cells nearer to training cells than fresh real cells are?

    ``ratio`` is the median distance to the nearest training cell, generated over held-out: about 1 is as fresh as a real cell,
    near 0 is copying; smooth cells lie below 1 too, so read it with ``share_nearest``, the share nearer than the held-out cells'
    1st percentile (0.01 by chance), and ``n_copies``, generated cells that repeat a training cell count for count.
    """

    ratio: float | None
    share_nearest: float
    n_copies: int
    generated_distance: float
    held_out_distance: float


def two_sample_auc(
    real: Counts,
    generated: Counts,
    hvg: ArrayLike,
    *,
    seed: int = 0,
    gene_names: Sequence[str] | None = None,
    n_telltale: int = 20,
    n_jobs: int = 2,
) -> TwoSample:
    """How well a random forest tells generated cells from real ones, on 50 principal components and on the variable genes.

    log1p CP10k over all genes, then the columns ``hvg``; 300 trees, five folds stratified and shuffled by ``seed``. Where one
    side has more cells, as many are drawn from it by ``seed`` as the other has.

    Parameters
    ----------
    real, generated
        Counts ``[C, G]``, the same genes in the same order.
    hvg
        Columns to compare on, chosen on training cells (`highly_variable`).
    gene_names
        Names of all G genes. Where given, the ``n_telltale`` genes that give generated cells away are named.

    Raises
    ------
    CellDataError
        When genes differ or a side has fewer than 5 cells.
    """
    real, generated = same_genes(real, generated)
    n = min(real.shape[0], generated.shape[0])
    if n < 5:
        raise CellDataError(f"two-sample AUC: {real.shape[0]} real and {generated.shape[0]} generated cells; needed 5 of each, better 500")
    real, generated = _at_most(real, n, seed), _at_most(generated, n, seed)
    both = np.vstack([dense_log(real, hvg), dense_log(generated, hvg)])
    is_generated = np.r_[np.zeros(n), np.ones(n)]
    auc_pcs, auc_hvgs = (_forest_auc(values, is_generated, seed, n_jobs) for values in (components(both, 50, seed), both))
    telltale = []
    if gene_names is not None:
        names = [str(gene_names[g]) for g in np.asarray(hvg)]
        telltale = _telltale(both, is_generated, names, n_telltale, seed, n_jobs)
    return TwoSample(
        n=n,
        auc_pcs=auc_pcs,
        auc_pcs_error=_auc_error(auc_pcs, n),
        auc_hvgs=auc_hvgs,
        auc_hvgs_error=_auc_error(auc_hvgs, n),
        telltale=telltale,
    )


def mmd(
    real: Counts,
    generated: Counts,
    hvg: ArrayLike,
    *,
    seed: int = 0,
    n_components: int = 50,
    n_permutations: int = 1000,
    most: int = 2000,
) -> Mmd:
    """Unbiased squared MMD on pooled principal components, with kernel ``exp(-d² / 2σ²)`` and a permutation p value.

    σ is the median distance between pooled cells. At most ``most`` cells a side are used, drawn by ``seed``.
    The p value is ``(1 + permutations at least as large) / (1 + permutations)``.
    """
    real, generated = same_genes(real, generated)
    real, generated = _at_most(real, most, seed), _at_most(generated, most, seed)
    n, m = real.shape[0], generated.shape[0]
    if min(n, m) < 2:
        raise CellDataError(f"MMD: {n} real and {m} generated cells; needed at least 2 of each")
    cells = np.vstack(pooled_components(real, generated, hvg, n_components=n_components, seed=seed)).astype(np.float64)
    squared_distance = euclidean_distances(cells, squared=True)
    bandwidth = float(np.sqrt(np.median(squared_distance[np.triu_indices(n + m, 1)]))) or 1.0
    kernel = np.exp(-squared_distance / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0)
    rng = np.random.default_rng(seed)
    is_real = np.r_[np.ones(n), np.zeros(m)]
    sides = np.column_stack([is_real, *(rng.permutation(is_real) for _ in range(n_permutations))])
    values = _unbiased_mmd(kernel, sides, n, m)
    observed, null = values[0], values[1:]
    return Mmd(
        n_real=n,
        n_generated=m,
        squared=float(observed),
        p_value=float((1 + (null >= observed).sum()) / (1 + n_permutations)),
        null_95=float(np.quantile(null, 0.95)),
        bandwidth=bandwidth,
        n_permutations=n_permutations,
    )


def memorisation(
    train: Counts, generated: Counts, held_out: Counts, hvg: ArrayLike, *, seed: int = 0, n_components: int = 50
) -> Memorisation:
    """Distance of generated cells to their nearest training cell, beside that of held-out real cells.

    Euclidean, on principal components of the training cells (log1p CP10k of the columns ``hvg``).
    """
    train, generated = same_genes(train, generated, ("training", "generated"))
    _, held_out = same_genes(train, held_out, ("training", "held-out"))
    known = dense_log(train, hvg)
    from_train = PCA(min(n_components, *known.shape), random_state=seed).fit(known)
    nearest = NearestNeighbors(n_neighbors=1).fit(from_train.transform(known))
    made, fresh = (nearest.kneighbors(from_train.transform(dense_log(cells, hvg)))[0].ravel() for cells in (generated, held_out))
    usual = float(np.median(fresh))
    seen = set(_fingerprints(train))
    return Memorisation(
        ratio=float(np.median(made)) / usual if usual > 0 else None,
        share_nearest=float((made < np.quantile(fresh, 0.01)).mean()),
        n_copies=sum(row in seen for row in _fingerprints(generated)),
        generated_distance=float(np.median(made)),
        held_out_distance=usual,
    )


def _at_most(counts: sp.csr_matrix, n: int, seed: int) -> sp.csr_matrix:
    """All cells in their order, or ``n`` drawn at random in their order."""
    if counts.shape[0] <= n:
        return counts
    return counts[np.sort(np.random.default_rng(seed).choice(counts.shape[0], n, replace=False))]


def _forest(seed: int, n_jobs: int) -> RandomForestClassifier:
    return RandomForestClassifier(N_TREES, n_jobs=n_jobs, random_state=seed)


def _forest_auc(values: NDArray[np.float32], is_generated: NDArray[np.float64], seed: int, n_jobs: int) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    said = cross_val_predict(_forest(seed, n_jobs), values, is_generated, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_generated, said))


def _auc_error(auc: float, n: int) -> float:
    """Hanley-McNeil standard error of an AUC with ``n`` cells on each side."""
    both_above, both_below = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n - 1) * (both_above - auc**2 + both_below - auc**2)) / n**2
    return float(np.sqrt(max(variance, 0.0)))


def _telltale(
    both: NDArray[np.float32], is_generated: NDArray[np.float64], names: Sequence[str], most: int, seed: int, n_jobs: int
) -> list[TelltaleGene]:
    importance = _forest(seed, n_jobs).fit(both, is_generated).feature_importances_
    means = both[is_generated == 0].mean(0), both[is_generated == 1].mean(0)
    return [
        TelltaleGene(gene=names[g], importance=float(importance[g]), real_mean=float(means[0][g]), generated_mean=float(means[1][g]))
        for g in np.argsort(-importance, kind="stable")[:most]
    ]


def _unbiased_mmd(kernel: NDArray[np.float64], is_real: NDArray[np.float64], n: int, m: int) -> NDArray[np.float64]:
    """Squared MMD of each column of sides ``[n + m, P]``; the kernel's diagonal is zero, so that no cell meets itself."""
    within_real = np.einsum("cp,cp->p", is_real, kernel @ is_real)
    to_all = kernel.sum(1) @ is_real
    between = to_all - within_real
    within_generated = kernel.sum() - to_all - between
    value: NDArray[np.float64] = within_real / (n * (n - 1)) + within_generated / (m * (m - 1)) - 2 * between / (n * m)
    return value


def _fingerprints(counts: sp.csr_matrix) -> Iterator[tuple[bytes, bytes]]:
    """One key a cell, equal for cells that are equal count for count."""
    ordered = counts.copy()
    ordered.sum_duplicates()
    ordered.eliminate_zeros()
    for start, stop in zip(ordered.indptr[:-1], ordered.indptr[1:], strict=True):
        yield ordered.indices[start:stop].tobytes(), ordered.data[start:stop].tobytes()
