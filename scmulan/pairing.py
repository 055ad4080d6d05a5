"""Cells of one time paired with cells of a later one: by clone where clones are known, else by optimal transport.

Nobody has seen one cell twice, so that a pair is a claim: two cells of one clone are relatives, two cells of a transport plan are only
near by. `Pairs.record` says which it was, with every parameter, for the manifest of what is learnt from them. Transport is that of POT
(entropic, balanced), which needs numpy and scipy alone; moscot would bring a second array library for the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError, some


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of an earlier and a later cell.

    Attributes
    ----------
    earlier, later
        ``[N]`` int64: rows of the cells that were given.
    weight
        ``[N]`` float64: of each pair; those of one earlier cell sum to one.
    record
        What was done, as plain data for a manifest: method, parameters, cells by time, cells and clones without a pair.
    """

    earlier: npt.NDArray[np.int64]
    later: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    record: dict[str, Any]

    def __len__(self) -> int:
        return len(self.earlier)


def pair_by_clone(times: Iterable[Any], clones: Sequence[Any], *, earlier: Any, later: Any) -> Pairs:
    """Every cell of the earlier time with every cell of its clone at the later time.

    Parameters
    ----------
    times, clones
        Of each cell; a clone of None or NaN is not known.

    Raises
    ------
    CellDataError
        When a time has no cell, or no clone is seen at both.

    Examples
    --------
    >>> found = pair_by_clone(["2", "4", "4"], [7, 7, 8], earlier="2", later="4")
    >>> found.earlier.tolist(), found.later.tolist(), found.record["earlier_cells_without_a_pair"]
    ([0], [1], 0)
    """
    before, after = _rows_of(times, earlier, later)
    by_clone: dict[str, list[int]] = {}
    for row in after:
        if (clone := _known(clones[row])) is not None:
            by_clone.setdefault(clone, []).append(int(row))
    partners = [(int(row), by_clone.get(_known(clones[row]) or "", [])) for row in before]
    pairs = [(row, other, 1 / len(others)) for row, others in partners for other in others]
    if not pairs:
        raise CellDataError(f"pairs by clone: no clone is seen at both {earlier!r} and {later!r}; pair by transport")
    rows, others, weights = (np.array(column) for column in zip(*pairs, strict=True))
    record = {
        "method": "clones", "earlier": str(earlier), "later": str(later), "earlier_cells": len(before), "later_cells": len(after),
        "clones": len({_known(clones[row]) for row in rows}), "pairs": len(pairs),
        "earlier_cells_without_a_pair": sum(not found for _, found in partners),
        "later_cells_without_a_pair": len(after) - len(np.unique(others)),
    }  # fmt: skip
    return Pairs(earlier=rows.astype(np.int64), later=others.astype(np.int64), weight=weights.astype(np.float64), record=record)


def pair_by_transport(
    counts: sp.csr_matrix,
    times: Iterable[Any],
    *,
    earlier: Any,
    later: Any,
    n_genes: int = 1000,
    n_components: int = 30,
    entropy: float = 0.05,
    most: int = 5,
    seed: int = 0,
) -> Pairs:
    """The heaviest partners of each earlier cell under an entropic optimal transport plan.

    Parameters
    ----------
    counts
        ``[C, G]`` counts of all cells.
    n_genes, n_components
        Most variable genes of log1p CP10k over both times, and principal components of them: the cost is squared Euclidean distance there.
    entropy
        Of the plan, in units of the median cost: smaller is sharper.
    most
        Partners kept for each earlier cell.

    Raises
    ------
    CellDataError
        When a time has fewer than two cells, POT is not installed, or the plan did not converge.
    """
    before, after = _rows_of(times, earlier, later)
    if min(len(before), len(after)) < 2:
        raise CellDataError(f"pairs by transport: {len(before)} cells at {earlier!r}, {len(after)} at {later!r}; needed at least 2 of each")
    points = _points(counts[np.concatenate([before, after])], n_genes, n_components, seed)
    plan, error = _plan(points[: len(before)], points[len(before) :], entropy)
    most = min(most, len(after))
    heaviest = np.argsort(-plan, axis=1, kind="stable")[:, :most]
    kept = np.take_along_axis(plan, heaviest, axis=1)
    record = {
        "method": "optimal transport", "library": f"POT {_pot().__version__}", "earlier": str(earlier), "later": str(later),
        "earlier_cells": len(before), "later_cells": len(after), "pairs": heaviest.size, "n_genes": n_genes,
        "n_components": points.shape[1],
        "cost": "squared Euclidean over its median", "entropy": entropy, "partners": most, "seed": seed, "marginal_error": error,
        "share_of_the_plan_kept": round(float(kept.sum()), 4),
    }  # fmt: skip
    return Pairs(
        earlier=np.repeat(before, most), later=after[heaviest.ravel()], weight=(kept / kept.sum(1, keepdims=True)).ravel(), record=record
    )


def pair_cells(
    counts: sp.csr_matrix, times: Sequence[Any], *, earlier: Any, later: Any, clones: Sequence[Any] | None = None, **transport: Any
) -> Pairs:
    """By clone where clones are given and one is seen at both times, else by transport; the record says which."""
    if clones is not None:
        before, after = _rows_of(times, earlier, later)
        shared = {_known(clones[row]) for row in before} & {_known(clones[row]) for row in after} - {None}
        if shared:
            return pair_by_clone(times, clones, earlier=earlier, later=later)
    return pair_by_transport(counts, times, earlier=earlier, later=later, **transport)


def _rows_of(times: Iterable[Any], earlier: Any, later: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    said = np.asarray([str(time) for time in times], dtype=object)
    rows = [np.flatnonzero(said == str(time)).astype(np.int64) for time in (earlier, later)]
    for time, found in zip((earlier, later), rows, strict=True):
        if not len(found):
            raise CellDataError(f"time {str(time)!r}: no cell has it; found {some(sorted(set(said)))}")
    return rows[0], rows[1]


def _known(clone: Any) -> str | None:
    return None if clone is None or clone != clone or str(clone) in ("", "nan", "None", "<NA>") else str(clone)


def _points(counts: sp.csr_matrix, n_genes: int, n_components: int, seed: int) -> npt.NDArray[np.float64]:
    from sklearn.decomposition import PCA

    log = log1p_cp10k(counts)
    variance = np.asarray(log.multiply(log).mean(0)).ravel() - np.asarray(log.mean(0)).ravel() ** 2
    values = log[:, np.argsort(-variance, kind="stable")[:n_genes]].toarray().astype(np.float64)
    points: npt.NDArray[np.float64] = PCA(min(n_components, *values.shape), random_state=seed).fit_transform(values)
    return points


def _plan(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], entropy: float) -> tuple[npt.NDArray[np.float64], float]:
    """Transport plan ``[N, M]``, summing to one, and how far its later side is from uniform (summed differences)."""
    cost = (before**2).sum(1)[:, None] + (after**2).sum(1)[None] - 2 * before @ after.T
    cost = np.maximum(cost, 0) / (np.median(cost) or 1.0)
    sides = [np.full(n, 1 / n) for n in cost.shape]
    plan = _pot().sinkhorn(*sides, cost, reg=entropy, method="sinkhorn_log", numItermax=5000, stopThr=1e-6, warn=False)
    error = float(np.abs(plan.sum(0) - sides[1]).sum())
    if not np.isfinite(plan).all() or error > 0.05:
        raise CellDataError(f"transport plan: its margins are off by {error:.2g} after 5,000 rounds; give a larger entropy than {entropy}")
    return plan, error


def _pot() -> Any:
    try:
        import ot
    except ImportError as error:
        raise CellDataError("pairs by transport need the library POT: pip install 'scmulan[transport]'") from error
    return ot
