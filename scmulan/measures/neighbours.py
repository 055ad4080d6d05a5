"""Nearest cells, exactly, and what they say: labels by votes that fall with distance, and whether a cell is near enough for them to count.

Points are an embedding, cells × dimensions; distances are Euclidean. Limit: exact search compares every pair, a block of queries at a
time; `scmulan.search` has the index for many cells. Suffixes: C reference cells, Q cells asked about, K neighbours, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

from scmulan.errors import CellDataError
from scmulan.measures.annotation import annotation

PAIRS_AT_ONCE = 4_000_000
K = 15
"""Neighbours that vote on a label."""
NEAR = 5
"""Neighbours whose mean distance says how far a cell is from the reference."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Labels that ``n`` cells took from their ``k`` nearest among ``n_reference`` cells, against the true ones.

    ``known`` is the share of cells whose true label the reference has; ``accuracy`` and ``macro_f1`` are over those cells (None if
    there is none). ``novelty_auc`` says how well the distance to the nearest ``NEAR`` tells cells whose label the reference lacks from
    the others: 1 if all of them are farther, 0.5 by chance, None where there are only cells of one kind.
    """

    n_reference: int
    n: int
    k: int
    known: float
    accuracy: float | None
    macro_f1: float | None
    novelty_auc: float | None


def as_points(points: ArrayLike, name: str = "points") -> NDArray[np.float32]:
    """An embedding as float32 ``[C, D]``; CellDataError when it is none or holds values that are not finite."""
    found = np.asarray(points, dtype=np.float32)
    if found.ndim != 2 or 0 in found.shape:
        raise CellDataError(f"{name}: shape {found.shape}; needed cells × dimensions, at least one of each")
    bad = int((~np.isfinite(found)).any(1).sum())
    if bad:
        raise CellDataError(f"{name}: {bad:,} of {len(found):,} cells have values that are not finite; embed them again")
    return found


def nearest(
    reference: ArrayLike, queries: ArrayLike | None = None, *, k: int = K, apart: Sequence[Any] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest reference cells of each query, nearest first; of equally near ones the earlier.

    Parameters
    ----------
    reference : (C, D)
    queries : (Q, D); the reference itself when not given, each cell then not among its own neighbours
    apart : (C,) of a reference asked about itself: neighbours are of another group than the cell, such as another data set

    Returns
    -------
    index : (Q, K) int64 rows of the reference; K is smaller where there are fewer cells
    distance : (Q, K) float32, infinite where a group leaves fewer than K cells

    Examples
    --------
    >>> index, distance = nearest([[0.0], [1.0], [5.0]], [[4.0]], k=2)
    >>> index.tolist(), distance.tolist()
    ([[2, 1]], [[1.0, 3.0]])
    """
    reference_CD = as_points(reference, "reference")
    is_self = queries is None
    queries_QD = reference_CD if queries is None else as_points(queries, "queries")
    if reference_CD.shape[1] != queries_QD.shape[1]:
        raise CellDataError(
            f"queries have {queries_QD.shape[1]} dimensions, the reference {reference_CD.shape[1]}; needed the same embedding"
        )
    k = min(k, len(reference_CD) - is_self)
    if k < 1:
        raise CellDataError("one cell has no other to be near to; needed two or more")
    groups = None if apart is None else np.unique(np.asarray(apart, dtype=str), return_inverse=True)[1]
    square_C = (reference_CD.astype(np.float64) ** 2).sum(1)
    index, distance = np.zeros((len(queries_QD), k), np.int64), np.zeros((len(queries_QD), k), np.float32)
    step = max(1, PAIRS_AT_ONCE // len(reference_CD))
    for first in range(0, len(queries_QD), step):
        rows = slice(first, first + step)
        block_QD = queries_QD[rows].astype(np.float64)
        square_QC = square_C - 2 * (block_QD @ reference_CD.T) + (block_QD**2).sum(1)[:, None]
        if groups is not None:
            square_QC[groups[rows][:, None] == groups[None, :]] = np.inf
        elif is_self:
            square_QC[np.arange(len(block_QD)), np.arange(first, first + len(block_QD))] = np.inf
        chosen = np.sort(np.argpartition(square_QC, k - 1, axis=1)[:, :k], axis=1)
        kept = np.take_along_axis(square_QC, chosen, 1)
        order = np.argsort(kept, axis=1, kind="stable")
        index[rows] = np.take_along_axis(chosen, order, 1)
        distance[rows] = np.sqrt(np.maximum(np.take_along_axis(kept, order, 1), 0))
    return index, distance


def vote(
    labels: Sequence[str | None], index: NDArray[np.int64], distance: NDArray[np.floating[Any]]
) -> tuple[list[str], NDArray[np.float64]]:
    """Share of each label among a cell's neighbours, a neighbour weighing ``exp(-(d / m)^2)``, m the mean distance of the cell's K.

    The scale is the cell's own, so that sparse and dense places vote alike. A neighbour without a label has no voice.

    Parameters
    ----------
    labels : (C,) of the reference
    index, distance : (Q, K), as from ``nearest``; -1 or infinite for no neighbour

    Returns
    -------
    names : the L labels that any of the neighbours has, sorted
    share : (Q, L); a row adds up to 1, or to 0 where no neighbour has a label

    Examples
    --------
    >>> names, share = vote(["B", "NK", None], np.array([[0, 1]]), np.array([[1.0, 1.0]]))
    >>> names, share.tolist()
    (['B', 'NK'], [[0.5, 0.5]])
    """
    used = np.unique(index[index >= 0])
    names = sorted({str(labels[row]) for row in used if labels[row] is not None})
    place = {name: number for number, name in enumerate(names)}
    code_C = np.full(len(labels), -1)
    code_C[used] = [place.get(str(labels[row]), -1) if labels[row] is not None else -1 for row in used]
    has = (index >= 0) & np.isfinite(distance)
    near = np.where(has, distance, 0.0).astype(np.float64)
    scale = near.sum(1, keepdims=True) / np.maximum(has.sum(1, keepdims=True), 1)
    weight = np.where(has, np.exp(-((near / np.maximum(scale, 1e-12)) ** 2)), 0.0)
    code_QK = np.where(has, code_C[index], -1)
    share = np.zeros((len(index), len(names)))
    row, column = np.nonzero(code_QK >= 0)
    np.add.at(share, (row, code_QK[row, column]), weight[row, column])
    total = share.sum(1, keepdims=True)
    return names, np.divide(share, total, out=share, where=total > 0)


def transfer(reference: ArrayLike, labels: Iterable[Any], queries: ArrayLike, true: Iterable[Any], *, k: int = K) -> Transfer:
    """Labels carried from reference cells to others by `vote`, measured against the true ones.

    Examples
    --------
    >>> transfer([[0.0], [1.0], [9.0]], ["B", "B", "NK"], [[0.4], [8.0], [5.0]], ["B", "NK", "mast cell"], k=1).accuracy
    1.0
    """
    of_reference, truth = [str(label) for label in labels], np.array([str(label) for label in true], dtype=object)
    if len(of_reference) != len(as_points(reference)) or len(truth) != len(as_points(queries)):
        raise CellDataError(
            f"labels: {len(of_reference):,} for {len(as_points(reference)):,} reference cells and {len(truth):,} for "
            f"{len(as_points(queries)):,} others; needed one a cell"
        )
    index, distance = nearest(reference, queries, k=max(k, NEAR))
    names, share = vote(of_reference, index[:, :k], distance[:, :k])
    known = np.isin(truth, of_reference)
    said = np.array(names, dtype=object)[share.argmax(1)]
    found = annotation(truth[known], said[known]) if known.any() else None
    return Transfer(
        n_reference=len(of_reference),
        n=len(truth),
        k=min(k, index.shape[1]),
        known=float(known.mean()),
        accuracy=None if found is None else found.accuracy,
        macro_f1=None if found is None else found.macro_f1,
        novelty_auc=None if known.all() or not known.any() else float(roc_auc_score(~known, distance[:, :NEAR].mean(1))),
    )
