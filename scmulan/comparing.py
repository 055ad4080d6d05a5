"""Genes that differ between two sets of cells: Welch's t test of log1p CP10k, with means and shares."""

from __future__ import annotations

import os
import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.stats import false_discovery_control, t

from scmulan.cells import AnnData, Cells, read_cells
from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError, ScmulanWarning
from scmulan.genes import GeneTable

LEAST = 3
"""Cells of a set for a test."""


def compare(a: AnnData | str | os.PathLike[str], b: AnnData | str | os.PathLike[str]) -> pd.DataFrame:
    """The genes that differ between two sets of cells, of any gene naming, most significant first.

    Returns
    -------
    As `compared`, a row for each gene, named by its symbol.

    Raises
    ------
    CellDataError
        When cells can't be read, a set has fewer than three cells, or both have no gene in common.
    """
    return compared(read_cells(a), read_cells(b), GeneTable.load())


def compared(first: Cells, second: Cells, table: GeneTable) -> pd.DataFrame:
    """The genes that both sets measured, most significant first.

    Returns
    -------
    (G, 6) for each gene: ``log2`` of the ratio of (mean CP10k + 1) of the second over the first; ``q``, its rate of false discoveries
    (Benjamini-Hochberg); ``mean_a``, ``mean_b``, means of CP10k; ``share_a``, ``share_b``, shares of cells that have it. In ``attrs``
    ``cells``, how many of each set were compared: those without counts are left out, with a warning

    Raises
    ------
    CellDataError
        When a set has fewer than three cells, or both have no gene in common.
    """
    first, second = _with_counts("a", first), _with_counts("b", second)
    for name, cells in (("a", first), ("b", second)):
        if len(cells) < LEAST:
            raise CellDataError(f"{name} has {len(cells)} cells; needed {LEAST} or more to compare")
    shared = np.intersect1d(first.measured, second.measured)
    if not len(shared):
        raise CellDataError("no gene was measured in both sets; nothing can be compared")
    values = [log1p_cp10k(cells.counts[:, shared]).astype(np.float64) for cells in (first, second)]
    q = false_discovery_control(welch(*values))
    means = [np.asarray(each.expm1().mean(0)).ravel() for each in values]
    shares = [np.asarray((each > 0).mean(0)).ravel() for each in values]
    log2 = np.log2(means[1] + 1) - np.log2(means[0] + 1)
    columns = {"log2": log2, "q": q, "mean_a": means[0], "mean_b": means[1], "share_a": shares[0], "share_b": shares[1]}
    found = pd.DataFrame(columns, index=pd.Index(table.symbols[shared].astype(str), name="gene"))
    found = found.iloc[np.lexsort((-np.abs(log2), q))]
    found.attrs["cells"] = [len(first), len(second)]
    return found


def _with_counts(name: str, cells: Cells) -> Cells:
    is_empty = np.diff(cells.counts.indptr) == 0
    if not is_empty.any():
        return cells
    warnings.warn(f"{name}: {is_empty.sum():,} of {len(cells):,} cells have no counts and are left out", ScmulanWarning, stacklevel=3)
    return cells.take(np.flatnonzero(~is_empty))


def welch(first: sp.csr_matrix, second: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """Two-sided p values of Welch's t test, gene by gene; 1 where neither set varies."""
    n = [each.shape[0] for each in (first, second)]
    mean = [np.asarray(each.mean(0)).ravel() for each in (first, second)]
    squared = [np.asarray(each.multiply(each).mean(0)).ravel() for each in (first, second)]
    error = [np.maximum(squared[k] - mean[k] ** 2, 0) / (n[k] - 1) for k in (0, 1)]
    both = error[0] + error[1]
    score = np.divide(mean[1] - mean[0], np.sqrt(both), out=np.zeros_like(both), where=both > 0)
    parts = error[0] ** 2 / (n[0] - 1) + error[1] ** 2 / (n[1] - 1)
    freedom = np.divide(both**2, parts, out=np.ones_like(both), where=parts > 0)
    found: npt.NDArray[np.float64] = 2 * t.sf(np.abs(score), freedom)
    return found
