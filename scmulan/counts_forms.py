"""Forms of values that a matrix of counts is no longer in: told apart by their moments, and undone where that gives the counts back.

A zero count that was stored as another number (log(x + c), c not 1) is the matrix's commonest and smallest value; it is taken off and the
rest treated as any other scale. Z-scores, residuals and values scaled gene by gene have lost the counts for good, and the error says so.
Limit: moments are taken over at most 20,000 cells, evenly spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan.counts import LARGEST_LOG, ONE_SUM, Scale, Values, as_csr, in_memory, is_whole, to_counts
from scmulan.errors import CellDataError

MOST_CELLS = 20_000
FEWEST_GENES = 10  # with a standard deviation, to speak of moments at all
LOG_BASES = {"ln(x + c)": np.e, "log2(x + c)": 2.0, "log10(x + c)": 10.0}
NORMS = {1e4: "CP10k: 10,000 a cell", 1e6: "CPM: 1,000,000 a cell"}


def read_values(matrix: Any, genes: np.ndarray | None = None, names: tuple[Sequence[Any], Sequence[Any]] | None = None) -> Values:
    """Counts of a matrix in any form.

    Parameters
    ----------
    matrix
        (n_cells, n_vars) numbers, sparse or dense, in memory, on disk or lazy.
    genes
        Columns to take; all where not given.
    names
        Names of the cells and of the columns, for the error that says where a value can't be a count.

    Raises
    ------
    CellDataError
        Values that are no numbers, NaN, infinite or negative; it names their form where it can be told, and the first place.
    """
    matrix = in_memory(matrix)
    matrix = matrix if genes is None else matrix[:, genes]
    shifted = without_floor(matrix)
    if shifted is not None:
        return shifted

    def tell(row: int, column: int) -> str:
        where = f"cell {str(names[0][row])!r}, gene {str(names[1][column])!r}" if names else f"row {row}, column {column}"
        return f", first in {where}{form_of(matrix)}"

    return to_counts(as_csr(matrix, tell))


def form_of(matrix: Any) -> str:
    """A clause that names what was done to values some of which can't be counts, or an empty string where that can't be told."""
    mean, deviation = _moments(matrix)
    if not np.isfinite(mean).all():
        return ""
    mean, deviation = mean[deviation > 0], deviation[deviation > 0]
    if len(mean) >= FEWEST_GENES and (np.abs(mean) < 0.05).mean() > 0.6:
        is_unit = (np.abs(deviation - 1) < 0.1).mean() > 0.6
        form = "z-scores, mean 0 and standard deviation 1 in each gene" if is_unit else "residuals, or centred: mean 0 in each gene"
        return f" ({form}; counts can't be recovered from them)"
    cells = _sample(matrix, 200, matrix.shape[1])
    if matrix.shape[1] >= FEWEST_GENES and (np.abs(cells.mean(axis=1)) < 1e-3 * np.abs(cells).max()).mean() > 0.9:
        return " (mean 0 in each cell: centred log-ratios; counts can't be recovered from them)"
    return ""


def is_unit_variance(matrix: Any) -> bool:
    """Whether each gene was divided by its standard deviation."""
    deviation = _moments(in_memory(matrix))[1]
    deviation = deviation[deviation > 0]
    return len(deviation) >= FEWEST_GENES and bool((np.abs(deviation - 1) < 0.02).mean() > 0.8)


def _moments(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of some genes, over some cells."""
    dense = _sample(matrix)
    if len(dense) < 2 or not np.isfinite(dense).all():
        return np.full(dense.shape[1], np.nan), np.zeros(dense.shape[1])
    return dense.mean(axis=0), dense.std(axis=0, ddof=1)


def _sample(matrix: Any, most_cells: int = MOST_CELLS, most_genes: int = 200) -> np.ndarray:
    """(at most most_cells, at most most_genes) float64 dense: cells and genes evenly spread."""
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, most)).astype(int))
        for size, most in zip(matrix.shape, (most_cells, most_genes), strict=True)
    )
    part = sp.csr_matrix(matrix)[rows][:, columns].toarray() if sp.issparse(matrix) else matrix[np.ix_(rows, columns)]
    return np.asarray(part, dtype=np.float64)


def holds_whole_numbers(matrix: Any) -> bool:
    """Whether a matrix looks like counts: whole numbers, none negative, some above 1; a look at some cells and genes."""
    try:
        dense = _sample(in_memory(matrix))
    except CellDataError:
        return False
    return bool(np.isfinite(dense).all() and (dense >= 0).all() and is_whole(dense.ravel()) and (dense > 1).any())


def floor_of(matrix: Any) -> float | None:
    """The number that stands for no count, where that is not 0: the smallest value, and common in nearly every cell."""
    if sp.issparse(matrix) or matrix.shape[1] < 2 * FEWEST_GENES or matrix.dtype.kind != "f":
        return None
    part = _sample(matrix, 200, matrix.shape[1])
    floor = float(part.min())
    if not np.isfinite(part).all() or floor == 0 or is_whole(part.ravel()):
        return None
    share = (part <= floor + _slack(floor)).mean(axis=1)
    is_common = (share > 0.1).mean() > 0.95 and share.mean() < 0.999
    return floor if is_common and matrix.min() >= floor - _slack(floor) else None


def _slack(floor: float) -> float:
    return 2e-6 * max(1.0, abs(floor))


def without_floor(matrix: Any) -> Values | None:
    """Values of a dense matrix of logarithms of (x + c), zeros taken off; None where it is no such matrix."""
    floor = floor_of(matrix)
    if floor is None:
        return None
    rows, columns = np.nonzero(matrix > floor + _slack(floor))
    csr = sp.csr_matrix((matrix[rows, columns].astype(np.float64), (rows, columns)), shape=matrix.shape)
    if not len(csr.data) or not np.isfinite(csr.data).all() or csr.data.max() > LARGEST_LOG:
        return None
    values = to_counts(csr, scales={name: _above(floor, base) for name, base in LOG_BASES.items()})
    return values if values.kind == "recovered" or values.spread < ONE_SUM else None


def _above(floor: float, base: float) -> Scale:
    """What takes ``log_base(x + c)`` back to x, where ``floor`` is that of x = 0."""
    return lambda values: np.power(base, values) - np.power(base, floor)


def norm_of(values: Values) -> str:
    """How cells of normalised values were brought to one size, in words."""
    depth = np.asarray(values.counts.sum(axis=1)).ravel()
    depth = depth[depth > 0]
    middle = float(np.median(depth)) if len(depth) else 0.0
    is_at_depth = bool(middle) and abs(values.size_factor / middle - 1) < ONE_SUM
    if values.spread > ONE_SUM:
        if is_at_depth and abs(values.spread - depth.std() / depth.mean()) < 1e-3:
            return "never divided by a size factor"
        return f"{values.size_factor:,.0f} a cell in the median: size factors that differ, or genes left out since"
    named = next((text for norm, text in NORMS.items() if abs(values.size_factor / norm - 1) < 0.005), None)
    return named or f"{values.size_factor:,.0f} a cell" + (", the median depth" if is_at_depth else "")
