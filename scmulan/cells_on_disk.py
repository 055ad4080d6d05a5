"""A data set on disk, opened once and read in blocks of cells: ``.h5ad`` files and zarr stores of any size in bounded memory.

What holds for the whole is settled once: where the counts lie and on which scale, its genes and its columns of labels, by the steps of
`scmulan.cells.read_cells` over cells spread evenly over the store. Each block is then held to that. A matrix stored by columns is
rewritten by rows first, in a scratch folder (`scmulan.by_rows`); a layout older than anndata 0.8 is rewritten in today's, in memory.
Limit: whole-store facts about cells (doubled names, doubled cells) are those of the cells looked at.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan import metadata
from scmulan.by_rows import Ahead, RowMatrix, open_by_rows
from scmulan.cells import COUNT_LAYERS, Cells, is_gene_column, read_draft
from scmulan.cells_stored import (
    categories_of,
    close,
    column_names,
    column_values,
    identity_of,
    index_of,
    open_group,
    organism_of,
    slice_of,
    var_of,
)
from scmulan.counts import SCALES, Values, as_csr, counts_like
from scmulan.counts_forms import read_values
from scmulan.doctor import CellReport
from scmulan.errors import CellDataError, nearest
from scmulan.fields import FieldSet, choose_columns, read_fields
from scmulan.genes import GeneMatch, GeneTable

LOOKED_AT = 1024
"""Cells from which a store's values are judged."""
RUNS = 16
DISTINCT = 1000
NONZERO_AT_ONCE = 2_000_000
CELLS_AT_ONCE = 8192


@dataclass(frozen=True)
class _Settled:
    """What holds for all cells of a store."""

    report: CellReport
    where: str
    values: Values
    match: GeneMatch
    columns: dict[str, str]
    is_gene: npt.NDArray[np.bool_]


class CellStore:
    """A data set on disk.

    Attributes
    ----------
    path : Path
    n_cells : int
    gene_index : (n_vars,) int32
        Gene table row of each variable of the matrix that holds the counts, -1 for what is no gene or unknown.
    report : CellReport
        What was found in the cells looked at.

    Parameters
    ----------
    scratch
        Folder for a matrix that has to be rewritten by rows.
    is_looked_over
        The file was looked over for damage before (`cells_damage`), which reads all of it.

    Raises
    ------
    CellDataError
        The store can't be read, or no counts or no known gene are in it; the message names the fix.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fields: Mapping[str, str] | None = None,
        organism: str | None = None,
        layer: str | None = None,
        scratch: Path | None = None,
        is_looked_over: bool = False,
    ) -> None:
        self.path, self._organism = Path(path), organism
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._kept: dict[str, Ahead] = {}
        with _naming(self.path):
            self._group = open_group(self.path, self._scratch, is_looked_over=is_looked_over)
            try:
                self._uns = organism_of(self._group)
                self.n_cells = int(index_of(self._group["obs"]).shape[0])
                self._settled = self._settle(dict(fields or {}), layer)
                self._matrix = self._open_matrix(self._settled.where)
            except BaseException:
                self.close()
                raise
        self.report = self._settled.report
        self.gene_index = np.full(len(self._settled.is_gene), -1, dtype=np.int32)
        self.gene_index[self._settled.is_gene] = self._settled.match.index

    def close(self) -> None:
        """Let go of the file."""
        close(self._group)

    def __enter__(self) -> CellStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def spans(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """Ranges of cells that together cover ``first`` to ``last``, each small enough to be held in memory several times."""
        last = self.n_cells if last is None else last
        while first < last:
            end = self._matrix.rows_within(first, min(last, first + CELLS_AT_ONCE), NONZERO_AT_ONCE)
            yield first, end
            first = end

    def counts(self, first: int, last: int, onto: npt.NDArray[np.int32], width: int) -> tuple[sp.csr_matrix, int]:
        """Counts of a range of cells.

        Parameters
        ----------
        onto : (n_vars,) int32
            Column of the result for each variable, -1 to leave it out; variables that share a column are summed.
        width : number of columns of the result

        Returns
        -------
        counts : (last - first, width) int32 CSR, each entry once and positive, in no order within a row
        total : sum of all counts of genes, those left out too
        """
        with _naming(self.path, first, last):
            raw = self._matrix.rows(first, last)
            counts = _whole(raw, self._settled)
            is_gene = self._settled.is_gene
            total = int(counts.data.sum() if is_gene.all() else counts.data[is_gene[counts.indices]].sum())
            return _relabelled(counts, onto, width), total

    def cells(self, first: int, last: int) -> Cells:
        """A range of cells as `scmulan.cells.read_cells` gives those of the whole; genes and report are the store's."""
        width = len(GeneTable.load())
        counts = sp.vstack([self.counts(*span, self.gene_index, width)[0] for span in self.spans(first, last)], format="csr")
        counts.sort_indices()
        labels = self.labels(first, last)
        none: list[str | None] = [None] * (last - first)
        return Cells(
            counts=counts, measured=np.unique(self.gene_index[self.gene_index >= 0]), fields=labels.fields, originals=labels.originals,
            cell_ids=self.names(first, last), donors=labels.donors or none,
            dataset=[name or self.path.stem for name in labels.datasets or none], genes=self._settled.match, report=self.report,
        )  # fmt: skip

    def labels(self, first: int, last: int) -> FieldSet:
        """Labels of a range of cells."""
        with _naming(self.path, first, last):
            labels = read_fields(self._obs(first, last), self._settled.columns, self._uns)
        n_cells, told = last - first, self._settled.match.organism
        if self._organism is not None:
            labels.fields["organism"] = [metadata.canonical("organism", self._organism).value] * n_cells
        elif "organism" not in labels.fields:
            labels.fields = {"organism": [told] * n_cells, **labels.fields}
        return labels

    def column(self, name: str, first: int, last: int) -> list[str | None]:
        """A column of ``obs`` as text, None where absent; CellDataError when there is no such column."""
        with _naming(self.path):
            names = column_names(self._group["obs"])
            if name not in names:
                raise CellDataError(f"no column obs[{name!r}]{nearest(name, names)}")
            values = column_values(self._group["obs"][name], first, last, self._kept)
        return [None if metadata.is_absent(value) else str(value) for value in values]

    @property
    def columns(self) -> list[str]:
        """Columns of ``obs``."""
        return column_names(self._group["obs"])

    @property
    def file(self) -> Path:
        """The file that is read: the source itself, or what was rewritten of it where its layout is of old."""
        return Path(self._group.filename) if isinstance(self._group, h5py.File) else self.path

    @property
    def has_counts(self) -> bool:
        """Whether the values are counts or give them back exactly."""
        return self._settled.values.kind not in ("pseudo-counts", "rounded")

    def column_of(self, field: str) -> str | None:
        """The column of ``obs`` that a field is read from."""
        return self._settled.columns.get(field)

    def names(self, first: int, last: int) -> list[str]:
        """Names of a range of cells, as they stand."""
        with _naming(self.path, first, last):
            return [str(name) for name in slice_of(index_of(self._group["obs"]), first, last, self._kept)]

    def identity(self) -> str:
        """As `identity_of` says."""
        return identity_of(self.path)

    # -- what holds for all cells ---------------------------------------------------------------------------------------------

    def _settle(self, fields: dict[str, str], layer: str | None) -> _Settled:
        if self.n_cells == 0:
            raise CellDataError("0 cells: an empty matrix")
        digest = self._digest(fields)
        columns = {name: column for name, column in choose_columns(digest, fields).items() if column is not None}
        sample = self._sample(list(digest.columns), layer)
        draft = read_draft(sample, columns, self._organism, layer)
        draft.report.source = str(self.path)
        draft.report.raise_problem()
        assert draft.place is not None
        assert draft.values is not None
        assert draft.match is not None
        if sample.n_obs < self.n_cells:
            draft.report.add(
                "cells looked at", "ok", f"the findings are of {sample.n_obs:,} of {self.n_cells:,} cells, spread over the file"
            )
        return _Settled(draft.report, draft.place.where, draft.values, draft.match, columns, is_gene_column(draft.place.var))

    def _digest(self, fields: Mapping[str, str]) -> pd.DataFrame:
        """Distinct values of each column that may hold labels, so that columns are chosen by the whole store."""
        usual = {name.lower() for names in metadata.COLUMNS.values() for name in names}
        names = [name for name in column_names(self._group["obs"]) if name.lower() in usual or name in fields.values()]
        distinct = {name: self._distinct(name) for name in names}
        longest = max((len(values) for values in distinct.values()), default=0)
        return pd.DataFrame({name: pd.Series(values + [None] * (longest - len(values)), dtype=object) for name, values in distinct.items()})

    def _distinct(self, name: str) -> list[Any]:
        element = self._group["obs"][name]
        if "categories" in element:
            return list(categories_of(element))[:DISTINCT]
        found: dict[Any, None] = {}
        for first in range(0, self.n_cells, 100_000):
            found.update(
                dict.fromkeys(pd.unique(pd.Series(column_values(element, first, min(first + 100_000, self.n_cells)), dtype=object)))
            )
            if len(found) > DISTINCT:
                break
        return list(found)[:DISTINCT]

    def _sample(self, columns: list[str], layer: str | None) -> anndata.AnnData:
        """Cells spread over the store, with every matrix that may hold counts."""
        runs = min(RUNS, self.n_cells)
        size = LOOKED_AT // runs
        starts = [0] if self.n_cells <= LOOKED_AT else np.linspace(0, self.n_cells - size, runs).astype(int).tolist()
        ranges = [(0, self.n_cells)] if self.n_cells <= LOOKED_AT else [(start, start + size) for start in starts]
        obs = pd.concat([self._obs(*span, columns) for span in ranges])
        obs.index = pd.Index([name for span in ranges for name in self.names(*span)], dtype=object)
        matrices = {where: self._open_matrix(where) for where in self._places(layer)}
        places = {where: _stack([matrix.rows(*span) for span in ranges]) for where, matrix in matrices.items()}
        var = var_of(self._group)
        adata = anndata.AnnData(X=places.pop("X", None), obs=obs, var=var, uns=dict(self._uns))
        if "raw" in places:
            adata.raw = anndata.AnnData(X=places.pop("raw"), obs=pd.DataFrame(index=obs.index), var=var_of(self._group["raw"]))
        for where, matrix in places.items():
            adata.layers[where] = matrix
        return adata

    def _places(self, layer: str | None) -> list[str]:
        layers = list(self._group["layers"]) if "layers" in self._group else []
        wanted = [name for name in layers if name in COUNT_LAYERS or name == layer]
        has_raw = "raw" in self._group and "X" in self._group["raw"]
        return wanted + (["raw"] if has_raw else []) + (["X"] if "X" in self._group else [])

    def _open_matrix(self, where: str) -> RowMatrix:
        name = where.removeprefix("layers['").removesuffix("']")
        place = {"X": "X", "raw": "raw/X"}.get(name, f"layers/{name}")

        def rewritten() -> Path:
            return self._scratch / f"by-rows-{hashlib.sha256(f'{self.identity()} {place}'.encode()).hexdigest()[:16]}"

        return open_by_rows(self._group[place], rewritten)

    def _obs(self, first: int, last: int, columns: list[str] | None = None) -> pd.DataFrame:
        names = columns if columns is not None else self._label_columns
        obs = self._group["obs"]
        return pd.DataFrame({name: column_values(obs[name], first, last, self._kept) for name in names}, index=pd.RangeIndex(last - first))

    @functools.cached_property
    def _label_columns(self) -> list[str]:
        """Columns that labels are read from: those chosen, and those of their ontology ids."""
        ids = {usual for name in self._settled.columns for usual in metadata.obs_columns(name) if usual.endswith("_ontology_term_id")}
        chosen = set(self._settled.columns.values())
        return [name for name in column_names(self._group["obs"]) if name in chosen or name in ids]


class _naming:
    """Errors met inside are CellDataErrors that name the store, and the cells where they are known."""

    def __init__(self, path: Path, first: int | None = None, last: int | None = None) -> None:
        cells = f", cells {first:,} to {last - 1:,}" if first is not None and last is not None else ""
        self.where = f"{path}{cells}"
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CellDataError):
            message = str(error)
            raise CellDataError(message if message.startswith(str(self.path)) else f"{self.where}: {message}") from error.__cause__
        if isinstance(error, Exception) and not isinstance(error, MemoryError | AssertionError):
            # h5py, zarr and anndata raise many kinds of error here; each means that the store can't be read.
            found = f"{type(error).__name__}: {error}"
            raise CellDataError(f"{self.where}: can't be read, so cut short, damaged or no AnnData; copy it again ({found})") from error


# -- values --------------------------------------------------------------------------------------------------------------------


def _stack(blocks: list[Any]) -> Any:
    return sp.csr_matrix(sp.vstack(blocks, format="csr")) if sp.issparse(blocks[0]) else np.vstack(blocks)


def _whole(raw: Any, settled: _Settled) -> sp.csr_matrix:
    """Counts of a block, as its store's scale has it; CellDataError where the block holds something else."""
    values = settled.values
    if values.kind == "counts" and raw.dtype.kind in "iuf":
        csr = sp.csr_matrix(raw)
        with np.errstate(invalid="ignore"):
            data = csr.data.astype(np.int32)
        if (data == csr.data).all() and data.min(initial=0) >= 0:
            return sp.csr_matrix((data, csr.indices, csr.indptr), shape=csr.shape)
    if values.kind == "counts" or values.scale in SCALES:
        return counts_like(as_csr(raw), values)
    found = read_values(raw)
    if found.scale != values.scale:
        raise CellDataError(
            f"values on the scale {found.scale}, where the other cells looked at have {values.scale}; give them as a file of their own"
        )
    return found.counts


def _relabelled(counts: sp.csr_matrix, onto: npt.NDArray[np.int32], width: int) -> sp.csr_matrix:
    """Columns renamed, those left out and zeros dropped, those that fell together summed."""
    columns, data = onto[counts.indices], counts.data
    kept = (columns >= 0) & (data > 0)
    named = np.bincount(onto[onto >= 0], minlength=width)
    if (named > 1).any():
        together = np.flatnonzero(kept & (named > 1)[columns])
        rows = np.searchsorted(counts.indptr, together, side="right") - 1
        _, first, place = np.unique(rows * width + columns[together], return_index=True, return_inverse=True)
        data = data.copy()
        data[together[first]] = np.bincount(place, weights=data[together]).astype(data.dtype)
        kept[np.delete(together, first)] = False
    ends = np.concatenate([[0], np.cumsum(kept)])
    return sp.csr_matrix((data[kept], columns[kept], ends[counts.indptr]), shape=(counts.shape[0], width))
