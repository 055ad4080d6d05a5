"""Cells as shallower measurements of themselves: binomial thinning, at a rate or until the c-sentence fits.

A draw depends on the seed and on the cell's own counts alone, so that a cell thins alike wherever it stands.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.csentence import canonical_counts, level_of, sentence_lengths
from scmulan.errors import SentenceError


def thin(counts: sp.csr_matrix, keep: npt.ArrayLike, seed: int) -> sp.csr_matrix:
    """Binomial thinning: each row keeps each of its counts with probability ``keep``.

    The draw depends on the seed and on the cell's own counts, never on its row or its neighbours.
    """
    counts = canonical_counts(counts, copy=True)
    for row, rate in enumerate(np.broadcast_to(np.asarray(keep, dtype=np.float64), counts.shape[0])):
        if rate < 1:
            span = slice(counts.indptr[row], counts.indptr[row + 1])
            draw = _cell_rng(counts.indices[span], counts.data[span], seed)
            counts.data[span] = draw.binomial(counts.data[span], rate)
    counts.eliminate_zeros()
    return counts


def thin_to_fit(counts: sp.csr_matrix, most_tokens: npt.ArrayLike, seed: int = 0) -> tuple[sp.csr_matrix, npt.NDArray[np.bool_]]:
    """Thin the rows whose sentence is longer than ``most_tokens`` until it fits.

    Returns
    -------
    counts : (C, G) CSR
    thinned : (C,) bool
        Which rows were thinned.
    """
    limit = np.broadcast_to(np.asarray(most_tokens), counts.shape[0])
    if (limit < 8).any():
        raise SentenceError(f"{int(limit.min())} tokens are left for a cell; needed at least 8: give fewer fields or a longer context")
    counts = canonical_counts(counts)
    long = sentence_lengths(counts) > limit
    if not long.any():
        return counts, long
    counts = counts.copy()
    for row in np.flatnonzero(long):
        span = slice(counts.indptr[row], counts.indptr[row + 1])
        counts.data[span] = _fit_cell(counts.indices[span], counts.data[span], int(limit[row]), seed)
    counts.eliminate_zeros()
    return counts, long


def _fit_cell(columns: npt.NDArray[np.integer], values: npt.NDArray[np.integer], most: int, seed: int) -> npt.NDArray[np.integer]:
    """Thinned counts whose sentence has at most ``most`` tokens: the rate is solved for, then lowered until the draw fits."""
    levels = len(np.unique(level_of(values)))
    wanted = max(most - 3 - 0.7 * levels, 1)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        detected = -np.expm1(values * np.log1p(-middle)).sum()
        low, high = (middle, high) if detected < wanted else (low, middle)
    rate, rng = low, _cell_rng(columns, values, seed)
    while True:
        drawn = rng.binomial(values, rate)
        used = drawn[drawn > 0]
        if len(used) + len(np.unique(level_of(used))) + 3 <= most:
            return drawn
        rate *= 0.98


def _cell_rng(columns: npt.NDArray[np.integer], values: npt.NDArray[np.integer], seed: int) -> np.random.Generator:
    digest = zlib.crc32(values.astype(np.int32).tobytes(), zlib.crc32(columns.astype(np.int32).tobytes()))
    return np.random.Generator(np.random.Philox(key=np.array([seed & 0xFFFFFFFF, digest], dtype=np.uint64)))
