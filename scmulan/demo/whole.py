"""All cells of one data set, held out and training, with the columns that a part about pairs of cells needs: split, clone, guide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells, read_cells, read_h5ad
from scmulan.genes import GeneTable

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A file of cells as it was read; rows are those of the file.

    Attributes
    ----------
    adata, cells : the same cells, as they are and as scmulan reads them
    is_held : (C,) whether the cell is held out
    """

    adata: AnnData
    cells: Cells
    is_held: npt.NDArray[np.bool_]

    @property
    def counts(self) -> sp.csr_matrix:
        """(C, G) counts of the genes that were measured."""
        return sp.csr_matrix(self.cells.counts[:, self.cells.measured])

    @property
    def genes(self) -> list[str]:
        """(G,) symbols of the genes that were measured."""
        return [str(symbol) for symbol in GeneTable.load().symbols[self.cells.measured]]

    def field(self, name: str) -> npt.NDArray[np.object_]:
        """(C,) a field of each cell, None where it is not known."""
        return np.array(self.cells.fields.get(name) or [None] * len(self.cells), dtype=object)

    def column(self, name: str) -> list[str] | None:
        """(C,) a column of ``obs`` as text; None where there is no such column."""
        return self.adata.obs[name].astype(str).tolist() if name in self.adata.obs else None

    def take(self, rows: Rows, *, without: Sequence[str] = ()) -> AnnData:
        """Some cells as AnnData, some columns left out, so that no answer stands in the question."""
        adata = self.adata[rows].copy()
        adata.obs = adata.obs.drop(columns=[name for name in without if name in adata.obs])
        return adata


def read_whole(path: Path) -> Whole:
    """Read a file whose ``obs["split"]`` says train or test."""
    adata = read_h5ad(path)
    return Whole(adata=adata, cells=read_cells(adata), is_held=(adata.obs["split"].astype(str) == "test").to_numpy())


def drawn(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many of some rows, in order."""
    chosen: Rows = np.sort(np.random.default_rng([seed, len(rows)]).permutation(rows)[:most])
    return chosen
