"""A stored matrix read by ranges of rows, however it is stored: CSR, dense, or CSC, which is rewritten by rows first.

Works on HDF5 and zarr alike; memory is bounded by the range asked for, and while rewriting by `ENTRIES_AT_ONCE`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.errors import CellDataError

ENTRIES_AT_ONCE = 8_000_000


class RowMatrix:
    """Rows of a stored matrix, in CSR or dense.

    Attributes
    ----------
    shape : (n_rows, n_columns)
    """

    def __init__(self, shape: tuple[int, int], *, dense: Any = None, data: Any = None, indices: Any = None, indptr: Any = None):
        self.shape, self._dense = shape, dense
        if dense is None:
            self._data, self._indices = Ahead(data), Ahead(indices)
            self._indptr: npt.NDArray[np.int64] = np.asarray(indptr[:], dtype=np.int64)
            _check_indptr(self._indptr, shape[0], min(data.shape[0], indices.shape[0]))

    def rows(self, first: int, last: int) -> Any:
        """Rows of a range, dense or CSR as they are stored, of any number type; CellDataError for an index out of bounds."""
        if self._dense is not None:
            return np.asarray(self._dense[first:last])
        start, end = int(self._indptr[first]), int(self._indptr[last])
        indices = self._indices.read(start, end)
        indptr = self._indptr[first : last + 1] - start
        _check_indices(indices, indptr, self.shape[1], first)
        found = sp.csr_matrix((self._data.read(start, end), indices, indptr), shape=(last - first, self.shape[1]))
        if not _is_each_once(indices, indptr):
            found.sum_duplicates()
        return found

    def rows_within(self, first: int, last: int, most: int) -> int:
        """The end of the longest range from ``first`` with at most ``most`` entries; at least one row."""
        if self._dense is not None:
            return min(last, first + max(1, most // max(self.shape[1], 1)))
        end = int(np.searchsorted(self._indptr, self._indptr[first] + most, side="right")) - 1
        return min(last, max(end, first + 1))


class Ahead:
    """A stored array that is mostly read from front to back: whole chunks are read, and those of the last range are kept."""

    def __init__(self, stored: Any) -> None:
        self._stored, self._chunk = stored, int((getattr(stored, "chunks", None) or (1,))[0])
        self._first, self._kept = 0, np.zeros(0, dtype=stored.dtype)

    def read(self, start: int, end: int) -> npt.NDArray[Any]:
        """Values of a range."""
        kept_to = self._first + len(self._kept)
        if not (self._first <= start and end <= kept_to):
            upto = min(-(-end // self._chunk) * self._chunk, int(self._stored.shape[0]))
            first = start // self._chunk * self._chunk
            overlaps = self._first <= first < kept_to
            read_from = kept_to if overlaps else first
            new = np.asarray(self._stored[read_from:upto])
            self._kept = np.concatenate([self._kept[first - self._first :], new]) if overlaps else new
            self._first = first
        return self._kept[start - self._first : end - self._first]


def open_by_rows(element: Any, place_of: Callable[[], Path]) -> RowMatrix:
    """A matrix of an AnnData store; a CSC one is rewritten by rows, once, into the folder that ``place_of`` names."""
    kind = str(element.attrs.get("encoding-type", "array"))
    if not hasattr(element, "keys"):
        if len(element.shape) != 2:
            raise CellDataError(f"a matrix of shape {tuple(element.shape)}; needed cells by genes")
        return RowMatrix((int(element.shape[0]), int(element.shape[1])), dense=element)
    kind = kind if "h5sparse_format" not in element.attrs else str(element.attrs["h5sparse_format"]) + "_matrix"
    n_rows, n_columns = (int(size) for size in element.attrs["shape" if "shape" in element.attrs else "h5sparse_shape"])
    if kind == "csr_matrix":
        return RowMatrix((n_rows, n_columns), data=element["data"], indices=element["indices"], indptr=element["indptr"])
    if kind != "csc_matrix":
        raise CellDataError(f"a matrix of kind {kind!r}; needed dense, csr_matrix or csc_matrix")
    place = place_of()
    if not place.is_dir():
        _rewrite(element, n_rows, n_columns, place)
    parts = {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr")}
    return RowMatrix((n_rows, n_columns), **parts)


def _rewrite(element: Any, n_rows: int, n_columns: int, place: Path) -> None:
    """CSC to CSR in files: entries are counted by row, then each range of columns is dealt out to the rows' places."""
    indptr = np.asarray(element["indptr"][:], dtype=np.int64)
    _check_indptr(indptr, n_columns, element["data"].shape[0])
    n_entries = int(indptr[-1])
    per_row = np.zeros(n_rows + 1, dtype=np.int64)
    for start in range(0, n_entries, ENTRIES_AT_ONCE):
        rows = np.asarray(element["indices"][start : min(start + ENTRIES_AT_ONCE, n_entries)])
        if len(rows) and (rows.min() < 0 or rows.max() >= n_rows):
            raise CellDataError(f"a row index of {int(rows.max() if rows.max() >= n_rows else rows.min()):,} among {n_rows:,} cells")
        per_row[1:] += np.bincount(rows, minlength=n_rows)
    by_row = np.cumsum(per_row)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.save(partial / "indptr.npy", by_row)
    data = np.lib.format.open_memmap(partial / "data.npy", mode="w+", dtype=element["data"].dtype, shape=(n_entries,))
    indices = np.lib.format.open_memmap(partial / "indices.npy", mode="w+", dtype=np.int32, shape=(n_entries,))
    free = by_row[:-1].copy()
    for start in range(0, n_entries, ENTRIES_AT_ONCE):
        end = min(start + ENTRIES_AT_ONCE, n_entries)
        rows = np.asarray(element["indices"][start:end])
        columns = np.searchsorted(indptr, np.arange(start, end), side="right") - 1
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        taken = np.bincount(sorted_rows, minlength=n_rows)
        rank = np.arange(end - start) - np.repeat(np.cumsum(taken) - taken, taken)
        at = free[sorted_rows] + rank
        data[at], indices[at] = np.asarray(element["data"][start:end])[order], columns[order]
        free += taken
    data.flush()
    indices.flush()
    try:
        partial.rename(place)
    except OSError:  # another process was first
        shutil.rmtree(partial)


def _check_indptr(indptr: npt.NDArray[np.int64], n_rows: int, n_entries: int) -> None:
    if len(indptr) != n_rows + 1:
        raise CellDataError(f"a damaged sparse matrix: {len(indptr):,} row bounds for {n_rows:,} rows")
    if indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] > n_entries:
        at = int(np.argmax(np.diff(indptr) < 0)) if (np.diff(indptr) < 0).any() else n_rows
        raise CellDataError(f"a damaged sparse matrix: its row bounds do not rise from 0 to {n_entries:,}, first at row {at:,}")


def _check_indices(indices: npt.NDArray[Any], indptr: npt.NDArray[np.int64], n_columns: int, first: int) -> None:
    if not len(indices) or (indices.min() >= 0 and indices.max() < n_columns):
        return
    wrong = np.flatnonzero((indices < 0) | (indices >= n_columns))
    row = first + int(np.searchsorted(indptr, wrong[0], side="right")) - 1
    raise CellDataError(
        f"a damaged sparse matrix: column index {int(indices[wrong[0]]):,} among {n_columns:,} genes, in the cell at position {row:,}"
        f" ({len(wrong):,} such entries); write the file again from its source"
    )


def _is_each_once(indices: npt.NDArray[Any], indptr: npt.NDArray[np.int64]) -> bool:
    """Whether columns strictly rise within each row."""
    if len(indices) < 2:
        return True
    rises = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    rises[starts[(starts > 0) & (starts < len(indices))] - 1] = True
    return bool(rises.all())
