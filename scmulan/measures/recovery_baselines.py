"""Simple ways to bring a shallow cell back to depth: leaving it alone, its neighbours, and its type's mean with what was seen.

Each returns non-negative rates ``[C, G]`` on a scale of its own for each cell, as `recovery` takes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scmulan.errors import CellDataError
from scmulan.measures.baselines import fit_negative_binomial
from scmulan.measures.change import Floats
from scmulan.measures.counts import Counts, as_counts, highly_variable, log_cp10k, same_genes

LEAST_CELLS = 5
"""Training cells that a type needs for a profile of its own."""


def leave_alone(thinned: Counts) -> Floats:
    """The thinned counts as they are."""
    alone: Floats = as_counts(thinned).toarray().astype(np.float64)
    return alone


def smooth_by_neighbours(thinned: Counts, reference: Counts | None = None, *, k: int = 15, n_components: int = 30, seed: int = 0) -> Floats:
    """The summed shares of each cell and its ``k`` nearest cells, each cell's counts as shares.

    Neighbours are found on principal components of log1p CP10k of 1,000 variable genes: among the thinned cells, or among reference cells
    ``[R, G]`` of full depth where they are given.
    """
    thinned = as_counts(thinned)
    pool = thinned if reference is None else same_genes(thinned, reference, ("thinned", "reference"))[1]
    log = log_cp10k(pool)
    columns = highly_variable(log)
    values = log[:, columns].toarray()
    fitted = PCA(min(n_components, *values.shape), random_state=seed).fit(values)
    nearest = NearestNeighbors(n_neighbors=min(k, pool.shape[0])).fit(fitted.transform(values))
    near = nearest.kneighbors(fitted.transform(log_cp10k(thinned)[:, columns].toarray()), return_distance=False)
    picks = sp.csr_matrix((np.ones(near.size), near.ravel(), np.arange(len(near) + 1) * near.shape[1]), shape=(len(near), pool.shape[0]))
    summed: Floats = (picks @ _shares(pool)).toarray()
    return summed if reference is None else summed + _shares(thinned).toarray()


def posterior_of_types(
    thinned: Counts, said_types: Iterable[Any], train: Counts, train_types: Iterable[Any], *, floor: float = 0.2
) -> Floats:
    """Mean of the gamma posterior of each gene's rate, given the cell's counts and its type's negative binomial.

    With the type's profile ``p`` and dispersion ``θ`` of its training cells (`fit_negative_binomial`), a cell of depth d with count x has
    the rate ``p (x + θ) / (d p + θ)``. A type of fewer than five training cells has the profile of all.

    Raises
    ------
    CellDataError
        When lengths differ.
    """
    thinned, train = same_genes(thinned, train, ("thinned", "training"))
    said, known = (np.asarray([str(each) for each in labels], dtype=object) for labels in (said_types, train_types))
    if len(said) != thinned.shape[0] or len(known) != train.shape[0]:
        raise CellDataError(
            f"types: {len(said):,} and {len(known):,} for {thinned.shape[0]:,} thinned and {train.shape[0]:,} training cells"
        )
    rates = np.zeros(thinned.shape)
    for label in sorted(set(said)):
        rows = np.flatnonzero(known == label)
        fitted = fit_negative_binomial(train[rows] if len(rows) >= LEAST_CELLS else train, floor)
        at = said == label
        counts = thinned[at].toarray().astype(np.float64)
        depth, theta = counts.sum(1, keepdims=True), fitted.dispersion[None]
        rates[at] = fitted.profile[None] * (counts + theta) / (depth * fitted.profile[None] + theta)
    return rates


def expected_of_types(
    thinned: Counts, depth: ArrayLike, said_types: Iterable[Any], train: Counts, train_types: Iterable[Any], *, floor: float = 0.2
) -> Floats:
    """The expected full cell: the counts that were seen, and of those removed the share that `posterior_of_types` gives each gene.

    ``depth`` ``[C]`` is the full cell's number of counts. Were the negative binomial true, no way had a smaller squared error of counts.
    """
    rates = posterior_of_types(thinned, said_types, train, train_types, floor=floor)
    seen = as_counts(thinned).toarray().astype(np.float64)
    removed = np.asarray(depth, dtype=np.float64) - seen.sum(1)
    if removed.shape != (len(seen),) or (removed < 0).any():
        raise CellDataError("expected cells: needed a depth for each cell, no less than what was seen of it")
    expected: Floats = seen + removed[:, None] * rates / rates.sum(1, keepdims=True)
    return expected


def _shares(counts: sp.csr_matrix) -> sp.csr_matrix:
    total = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    return sp.csr_matrix(sp.diags(1 / np.maximum(total, 1)) @ counts)
