"""How far reference cells are from one another: the scale on which a cell asked about is near to the reference, or is none of it.

A drawn share of the reference is compared with all of it. Where it holds several batches (data set and donor), a cell's neighbours are
taken from other batches than its own, among cells whose type another batch has, for a new cell is of another batch, too; else from
all other cells. The scale is the mean distance to the ``NEAR`` nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan.measures.neighbours import NEAR
from scmulan.search_folder import Parts

DRAWN = 1000
SHARES = (*(number / 100 for number in range(100)), 0.995, 0.999, 1.0)


def nearness_of(parts: Parts, *, seed: int = 0) -> dict[str, Any]:
    """Quantiles of the distance of reference cells to their nearest, for the card; empty for fewer than two cells."""
    texts = parts.texts(["dataset", "donor", "cell_type"])
    batch_C, type_C = _batches(texts), _codes(texts["cell_type"].to_pylist())
    rows = _rows_across(batch_C, type_C)
    across = "batches" if len(rows) > NEAR else "cells"
    rows = rows if across == "batches" else np.arange(len(batch_C))
    rows = np.sort(np.random.default_rng([seed, 41]).permutation(rows)[:DRAWN])
    group_C = batch_C if across == "batches" else np.arange(len(batch_C))
    distance = _distances(parts, rows, group_C)
    known = distance[np.isfinite(distance)]
    if not len(known):
        return {"across": across, "near": NEAR, "shares": [], "distances": []}
    return {"across": across, "near": NEAR, "shares": list(SHARES), "distances": [float(each) for each in np.quantile(known, SHARES)]}


def share_within(distance: npt.NDArray[np.floating[Any]], nearness: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Share of reference cells that are nearer to theirs than each cell is; (Q,), 1 beyond all of them.

    Parameters
    ----------
    distance : (Q,) mean distance to the ``NEAR`` nearest
    nearness : as from ``nearness_of``

    Examples
    --------
    >>> share_within(np.array([0.0, 1.5, 9.0]), {"shares": [0.0, 0.5, 1.0], "distances": [1.0, 2.0, 3.0]}).tolist()
    [0.0, 0.25, 1.0]
    """
    if not nearness["shares"]:
        return np.zeros(len(distance))
    found: npt.NDArray[np.float64] = np.interp(distance, nearness["distances"], nearness["shares"], left=0.0, right=1.0)
    return found


def _codes(values: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Values as numbers from 0, -1 for None."""
    place: dict[str, int] = {}
    return np.array([-1 if value is None else place.setdefault(value, len(place)) for value in values], dtype=np.int64)


def _batches(texts: Any) -> npt.NDArray[np.int64]:
    pairs = zip(texts["dataset"].to_pylist(), texts["donor"].to_pylist(), strict=True)
    return _codes([f"{dataset}\t{donor}" for dataset, donor in pairs])


def _rows_across(batch_C: npt.NDArray[np.int64], type_C: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cells whose type is among the cells of another batch too, ``NEAR`` times at least."""
    named = type_C >= 0
    if not named.any():
        return np.zeros(0, dtype=np.int64)
    n_batches = int(batch_C.max()) + 1
    count_TB = np.zeros((int(type_C.max()) + 1, n_batches), dtype=np.int64)
    np.add.at(count_TB, (type_C[named], batch_C[named]), 1)
    elsewhere = count_TB.sum(1)[type_C[named]] - count_TB[type_C[named], batch_C[named]]
    return np.asarray(np.flatnonzero(named)[elsewhere >= NEAR])


def _distances(parts: Parts, rows: npt.NDArray[np.int64], group_C: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean distance of some cells to the ``NEAR`` nearest of other groups, the parts read one by one; infinite where there are fewer."""
    drawn, first = list[npt.NDArray[np.float32]](), 0
    for states_CD in parts.states():
        inside = rows[(rows >= first) & (rows < first + len(states_CD))]
        drawn.append(states_CD[inside - first])
        first += len(states_CD)
    queries_QD = np.concatenate(drawn).astype(np.float64)
    best_QN, first = np.full((len(rows), NEAR), np.inf), 0
    for states_CD in parts.states():
        square_QC = (queries_QD**2).sum(1)[:, None] - 2 * queries_QD @ states_CD.T + (states_CD.astype(np.float64) ** 2).sum(1)
        square_QC[group_C[rows][:, None] == group_C[None, first : first + len(states_CD)]] = np.inf
        joined = np.concatenate([best_QN, square_QC], axis=1)
        best_QN = np.partition(joined, NEAR - 1, axis=1)[:, :NEAR]
        first += len(states_CD)
    return np.asarray(np.sqrt(np.maximum(best_QN, 0)).mean(1))
