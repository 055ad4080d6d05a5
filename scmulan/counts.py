"""Counts from whatever a matrix holds: found, recovered exactly, or made as pseudo-counts; never guessed in silence.

Size-normalised UMI counts are multiples of one unit a cell, whatever the size factor and logarithm: undo the logarithm, divide by the
unit, and every value is a whole number. That is verified value by value; a cell that fails it (TPM, RPKM, imputed, rounded values) gets
pseudo-counts at a stated depth. Limit: a cell of which every count shares a factor comes back divided by that factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan.errors import CellDataError, some

PSEUDO_DEPTH = 10_000
LARGEST = 2**31 - 1
ONE_SUM = 0.02  # spread below which all cells are taken to have been brought to one sum
Scale = Callable[[np.ndarray], np.ndarray]  # what undoes a scale
SCALES: dict[str, Scale] = {
    "size-normalised": lambda values: values,
    "log1p": np.expm1,
    "log2(x + 1)": lambda values: np.exp2(values) - 1,
    "log10(x + 1)": lambda values: 10**values - 1,
    "square root": np.square,
}
LOGARITHMS = ("log1p", "log2(x + 1)", "log10(x + 1)", "ln(x + c)", "log2(x + c)", "log10(x + c)")
LARGEST_LOG = 50  # no logarithm of a count is larger: e^50 is 5e21, 2^50 is 1e15
MOST_SHARED = 8  # the smallest non-zero count of a cell may be up to this many counts
NEAR = 0.1  # less than an eighth, so that no cell whose smallest count is up to eight is taken for one with a larger unit
TOLERANCE, TOLERANCE_SLOPE = 0.02, 2e-5  # of a whole number; float32 logarithms are off by about 1e-6 of the value
LARGEST_TOLD = 0.25 / TOLERANCE_SLOPE  # above it every number is near enough to a whole one, so it says nothing
MOST_LOOSE = 0.2  # share of a cell's values that may be so large


@dataclass(frozen=True, kw_only=True)
class Values:
    """What a matrix held and how it became counts.

    Attributes
    ----------
    counts
        (n_cells, n_genes) int32 CSR, sorted indices, no explicit zeros.
    kind
        ``"counts"``, ``"recovered"``, ``"rounded"`` (estimated counts) or ``"pseudo-counts"``.
    scale
        How the values were stored: ``"counts"``, a key of `SCALES`, or of the scales given.
    recovered
        Share of the non-empty cells whose counts are exact.
    residual
        Largest distance from a whole number in those cells, in counts.
    size_factor
        Median sum of a cell's values after undoing the logarithm or root.
    spread
        Standard deviation of those sums over their mean: 0 where every cell was brought to one sum.
    """

    counts: sp.csr_matrix
    kind: str
    scale: str
    recovered: float
    residual: float
    size_factor: float
    spread: float = math.nan


def in_memory(matrix: Any) -> Any:
    """A matrix of numbers in memory, sparse or a two-dimensional array; CellDataError for anything else, and for damaged indices."""
    for load in ("to_memory", "compute"):  # on disk, dask
        matrix = getattr(matrix, load)() if hasattr(matrix, load) else matrix
    is_sparse = bool(sp.issparse(matrix))
    matrix = matrix if is_sparse else np.asarray(matrix)
    if matrix.dtype.kind not in "biuf":
        raise CellDataError(f"values of type {matrix.dtype}; numbers are needed")
    if not is_sparse and matrix.dtype.kind == "f" and matrix.dtype.itemsize not in (4, 8):
        matrix = matrix.astype(np.float64)  # scipy knows no other floats
    if matrix.ndim != 2:
        raise CellDataError(f"an array of {matrix.ndim} dimensions; needed two, cells by genes")
    if is_sparse and matrix.format in ("csr", "csc"):
        try:
            matrix.check_format(full_check=True)
        except (ValueError, IndexError) as error:
            raise CellDataError(f"a damaged sparse matrix ({error}); write the file anew from its source") from error
    return matrix


def as_csr(matrix: Any, tell: Callable[[int, int], str] = lambda row, column: "") -> sp.csr_matrix:
    """A matrix as CSR of float64 with sorted indices and no zeros; CellDataError for NaN, infinite or negative values.

    ``tell`` gives a clause about the first such value, by its row and column.
    """
    matrix = in_memory(matrix)
    csr = sp.csr_matrix(matrix).astype(np.float64)
    csr.sum_duplicates()
    for is_bad, what, fix in (
        (~np.isfinite(csr.data), "NaN or infinite", "replace them, or give the layer with raw counts"),
        (csr.data < 0, "negative (scaled, or corrected for batches)", "counts are needed, in layers['counts'], raw or X"),
    ):
        if is_bad.any():
            cells = np.unique(np.searchsorted(csr.indptr, np.flatnonzero(is_bad), side="right") - 1)
            is_are = "value is" if is_bad.sum() == 1 else "values are"
            clause = tell(int(cells[0]), int(csr.indices[np.argmax(is_bad)]))
            raise CellDataError(f"{is_bad.sum():,} {is_are} {what}, in cells at positions {some(cells)}{clause}; {fix}")
    csr.eliminate_zeros()
    return csr


def to_counts(csr: sp.csr_matrix, pseudo_depth: int = PSEUDO_DEPTH, scales: Mapping[str, Scale] = SCALES) -> Values:
    """Counts of a finite CSR matrix (n_cells, n_genes) whose values are positive under each of the scales (name to what undoes it)."""
    if scales is SCALES and is_whole(csr.data):
        depth, spread = _middle_and_spread(csr.data, csr.indptr)
        return Values(
            counts=_whole(csr, csr.data), kind="counts", scale="counts", recovered=1.0, residual=0.0, size_factor=depth, spread=spread
        )
    scale, share = max(((name, _recoverable(csr, name, undo)) for name, undo in scales.items()), key=lambda found: found[1])
    if share < 0.5:
        return _not_recovered(csr, pseudo_depth, scales)
    return _recovered(csr, scales[scale](csr.data), scale, pseudo_depth)


def counts_like(csr: sp.csr_matrix, found: Values, pseudo_depth: int = PSEUDO_DEPTH) -> sp.csr_matrix:
    """Counts of more cells of a matrix of which ``found`` was found under one of `SCALES`; CellDataError where they hold something else."""
    if found.kind == "recovered":
        return _recovered(csr, SCALES[found.scale](csr.data), found.scale, pseudo_depth).counts
    if found.kind == "pseudo-counts":
        return _whole(csr, _pseudo(SCALES[found.scale](csr.data), csr.indptr, pseudo_depth))
    if found.kind == "counts" and not is_whole(csr.data):
        cells = np.unique(np.searchsorted(csr.indptr, np.flatnonzero(np.abs(csr.data - np.rint(csr.data)) >= 1e-3), side="right") - 1)
        raise CellDataError(
            f"{len(cells):,} cells hold values that are no counts, where the other cells looked at do: cells at {some(cells)} of these; "
            "data sets on different scales were joined: give each as a file of its own"
        )
    return _whole(csr, np.rint(csr.data))


def _recovered(csr: sp.csr_matrix, values: np.ndarray, scale: str, pseudo_depth: int) -> Values:
    """Counts from values on the scale of counts; cells that are no multiples of one unit become pseudo-counts."""
    distance = np.abs(values - np.rint(values))
    if (distance <= np.minimum(NEAR, TOLERANCE + TOLERANCE_SLOPE * values)).all():  # logged, but never divided by a size factor
        whole, exact, residual = np.rint(values), np.ones(csr.shape[0], dtype=bool), float(distance.max())
    else:
        whole, exact, residual = recover(values, csr.indptr)
    filled = np.diff(csr.indptr) > 0
    pseudo = _pseudo(values, csr.indptr, pseudo_depth)
    data = np.where(np.repeat(exact, np.diff(csr.indptr)), whole, pseudo)
    size_factor, spread = _middle_and_spread(values, csr.indptr)
    return Values(
        counts=_whole(csr, data), kind="recovered", scale=scale, recovered=float(exact[filled].mean()), residual=residual,
        size_factor=size_factor, spread=spread,
    )  # fmt: skip


def is_whole(values: np.ndarray) -> bool:
    """Whether all values are whole numbers, to a thousandth."""
    return bool((np.abs(values - np.rint(values)) < 1e-3).all())


def recover(values: np.ndarray, indptr: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Whole numbers of which each cell's values are multiples.

    Parameters
    ----------
    values
        (nnz,) float64, positive, not logged.
    indptr
        (n_cells + 1,) as in CSR.

    Returns
    -------
    (nnz,) float64 whole numbers, (n_cells,) bool whether all of a cell's are within tolerance, and the largest distance in those cells.
    """
    lengths = np.diff(indptr)
    filled = np.flatnonzero(lengths)
    exact = np.zeros(len(lengths), dtype=bool)
    whole, residual = np.ones_like(values), 0.0
    for shared in range(1, MOST_SHARED + 1):
        todo = filled[~exact[filled]]
        if not len(todo):
            break
        entries = np.flatnonzero(np.repeat(~exact, lengths))
        starts = np.concatenate([[0], np.cumsum(lengths[todo])[:-1]])
        rows = np.repeat(np.arange(len(todo)), lengths[todo])
        unit = np.minimum.reduceat(values[entries], starts) / shared
        multiple = values[entries] / _refined(values[entries], unit, rows, starts)[rows]
        nearest = np.maximum(np.rint(multiple), 1)
        distance = np.abs(multiple - nearest)
        fits = np.maximum.reduceat(distance - TOLERANCE_SLOPE * nearest, starts) <= TOLERANCE
        loose = np.add.reduceat((nearest > LARGEST_TOLD).astype(np.int64), starts)
        fits &= (loose <= MOST_LOOSE * lengths[todo]) & (np.maximum.reduceat(nearest, starts) <= LARGEST)
        whole[entries[fits[rows]]] = nearest[fits[rows]]
        residual = max(residual, float(distance[fits[rows]].max(initial=0.0)))
        exact[todo[fits]] = True
    return whole, exact, residual


def _refined(values: np.ndarray, unit: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A cell's unit by least squares over its values near 1 to 30 units: from one rounded value it is too coarse for large counts."""
    multiple = values / unit[rows]
    whole = np.rint(multiple)
    whole[(whole > 30) | (np.abs(multiple - whole) > NEAR)] = 0
    square = np.add.reduceat(whole * whole, starts)
    found: np.ndarray = np.divide(np.add.reduceat(values * whole, starts), square, out=unit.copy(), where=square > 0)
    return found


def _recoverable(csr: sp.csr_matrix, scale: str, undo: Scale, most: int = 200) -> float:
    """Share of up to ``most`` cells, evenly spread, whose counts come back under one scale."""
    filled = np.flatnonzero(np.diff(csr.indptr) > 1)
    if not len(filled) or (scale in LOGARITHMS and csr.data.max() > LARGEST_LOG):
        return 0.0
    some_cells = csr[filled[np.linspace(0, len(filled) - 1, min(most, len(filled))).astype(int)]]
    return float(recover(undo(some_cells.data), some_cells.indptr)[1].mean())


def _not_recovered(csr: sp.csr_matrix, depth: int, scales: Mapping[str, Scale]) -> Values:
    """Estimated counts rounded, anything else as pseudo-counts."""
    scale = _likely_scale(csr, scales)
    values = scales[scale](csr.data)
    size_factor, spread = _middle_and_spread(values, csr.indptr)
    near_whole = np.abs(csr.data - np.rint(csr.data)) < 1e-3
    is_estimate = scale == "size-normalised" and near_whole.mean() > 0.3 and spread > 0.05
    data = np.rint(values) if is_estimate else _pseudo(values, csr.indptr, depth)
    kind = "rounded" if is_estimate else "pseudo-counts"
    return Values(
        counts=_whole(csr, data), kind=kind, scale=scale, recovered=0.0, residual=float("nan"), size_factor=size_factor, spread=spread
    )


def _likely_scale(csr: sp.csr_matrix, scales: Mapping[str, Scale]) -> str:
    """The scale under which all cells have one sum, else the first logarithm where no value is above 20 (e^20 is 5e8), else the first."""
    is_small = csr.data.max() <= LARGEST_LOG
    possible = {name: undo for name, undo in scales.items() if is_small or name not in LOGARITHMS}
    spread = {name: _middle_and_spread(undo(csr.data), csr.indptr)[1] for name, undo in possible.items()}
    best = min(spread, key=lambda name: spread[name])
    if spread[best] < ONE_SUM:
        return best
    logarithm = next((name for name in possible if name in LOGARITHMS), None)
    return logarithm if logarithm and csr.data.max() < 20 else next(iter(scales))


def _sums(values: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums: np.ndarray = total[indptr[1:]] - total[indptr[:-1]]
    return sums


def _middle_and_spread(values: np.ndarray, indptr: np.ndarray) -> tuple[float, float]:
    """Median of the cells' sums, and their standard deviation over their mean; empty cells left out."""
    sums = _sums(values, indptr)
    sums = sums[sums > 0]
    return (float(np.median(sums)), float(sums.std() / sums.mean())) if len(sums) else (0.0, 0.0)


def _pseudo(values: np.ndarray, indptr: np.ndarray, depth: int) -> np.ndarray:
    """Values scaled to ``depth`` a cell and rounded."""
    sums = _sums(values, indptr)
    factor = np.divide(depth, sums, out=np.zeros_like(sums), where=sums > 0)
    pseudo: np.ndarray = np.rint(values * np.repeat(factor, np.diff(indptr)))
    return pseudo


def _whole(csr: sp.csr_matrix, data: np.ndarray) -> sp.csr_matrix:
    """The matrix with int32 ``data`` in place of its values, zeros left out."""
    if data.max(initial=0) > LARGEST:
        raise CellDataError(f"a count of {data.max():,.0f}: more than {LARGEST:,}")
    counts = sp.csr_matrix((np.rint(data).astype(np.int32), csr.indices.copy(), csr.indptr.copy()), shape=csr.shape)
    counts.eliminate_zeros()
    return counts


def log1p_cp10k(counts: sp.csr_matrix) -> sp.csr_matrix:
    """(n_cells, n_genes) float32: log1p of counts per ten thousand; a cell without counts stays zero."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    values = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    values.data = np.log1p(values.data * np.repeat(1e4 / np.maximum(1, depth), np.diff(values.indptr)))
    return values.astype(np.float32)
