"""Cells written in pieces into one file, as ``Model.generate`` and ``Model.complete`` write them.

A cell's draws hang on the seed and its number, so that the cells are the same whatever the pieces and wherever a run was stopped.
Pieces keep ids; counts are drawn within their levels at the end, in one go through all cells, as they are in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from scmulan import __version__, csentence
from scmulan.cells_grown import new_file
from scmulan.cells_writing import var_of_genes
from scmulan.counts import log1p_cp10k
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance
from scmulan.metadata import canonical
from scmulan.pieces.carrying import Answer, Opening, Where, carry
from scmulan.pieces.kept import Kept, Piece, kept_beside
from scmulan.tasks import Model
from scmulan.tasks_writing import Frame, depths_of, spreads

PIECE_CELLS = 256


@dataclass(frozen=True, kw_only=True)
class Write:
    """Cells of some fields, around some genes where they are given; parameters as in ``Model.generate`` and ``Model.complete``."""

    n: int
    fields: Mapping[str, str | None] = field(default_factory=dict)
    genes: Mapping[str, int] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    depth: int | None = None
    naming: str = "symbol"

    def of(self) -> dict[str, Any]:
        """What the cells depend on."""
        asked = {"n": self.n, "fields": dict(self.fields), "genes": dict(self.genes), "depth": self.depth}
        return {"task": "complete" if self.genes else "generate", **asked, **asdict(self.sampling)}

    def asked(self, model: Model) -> tuple[list[dict[str, str]], dict[int, int]]:
        """Fields of each cell, and the genes that all are written around."""
        organism = self.fields.get("organism")
        around = model.around(self.genes, canonical("organism", organism).value if organism else None) if self.genes else {}
        return model.rows_for(self.n, self.fields, self.sampling.seed), around

    def begin(self, model: Model, scratch: Path, stack: ExitStack) -> Answer:
        rows, around = self.asked(model)

        def answer(first: int, last: int, tick: Advance) -> Piece:
            n = last - first
            cells = model.written.sentences(
                rows[first:last], self.sampling, first=first, around=[around] * n, depths=depths_of(self.depth, n), on_cell=tick
            )
            offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in cells])])
            return Piece(pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(cells).astype(np.int32))))

        return answer


@dataclass(frozen=True)
class WrittenDown:
    """How large the cells are that were written: counts and genes of each, (C,)."""

    counts: npt.NDArray[np.int64]
    genes: npt.NDArray[np.int64]


def write_file(
    opening: Opening,
    work: Write,
    output: str | Path,
    *,
    where: Where = Where(),  # noqa: B008
    size: int = PIECE_CELLS,
    tick: Advance = lambda n: None,
) -> WrittenDown:
    """Any number of cells into a file; a run that was stopped is gone on with.

    Raises
    ------
    PromptError
        As ``Model.generate``; or when ``OUTPUT.parts`` has pieces of another model or option.
    CellDataError
        When the file can't be written; pieces that are finished are kept.
    """
    path = Path(output).absolute()
    depths_of(work.depth, 1)
    with kept_beside(path, {"scmulan": __version__, **work.of(), **opening.of(), "cells of a piece": size}) as folder:
        kept, open_model = Kept(folder, work.n, size), functools.cache(opening.here(where).open)
        model = open_model()
        rows, around = work.asked(model)  # this and the next say before the work what can't be asked for
        frame = model.written.frame(rows, around, str(work.of()["task"]), work.sampling)
        var = var_of_genes(model.opened.rows[frame.kept], model.table, frame.organism, work.naming)
        carry(work, opening, open_model, kept, where, tick)
        return _write_down(path, model, frame, var, work, kept)


def _write_down(path: Path, model: Model, frame: Frame, var: pd.DataFrame, work: Write, kept: Kept) -> WrittenDown:
    """Counts drawn within their levels, piece by piece, and the file."""
    obs = frame.obs.set_axis(pd.Index([str(name) for name in frame.obs.index], dtype=object))
    rng, sizes = spreads(work.sampling), list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]()
    with new_file(path, obs, var, {"scmulan": frame.how}) as file:
        whole, logs = file.matrix("layers/counts", np.int32), file.matrix("X", np.float32)
        for number in range(len(kept)):
            counts = csentence.decode_many(_cells(kept.read(number)), model.vocabulary, rng)[:, frame.kept]
            counts = sp.csr_matrix(counts, dtype=np.int32)
            whole.add(counts)
            logs.add(log1p_cp10k(counts))
            sizes.append((np.asarray(counts.sum(1)).ravel().astype(np.int64), np.diff(counts.indptr).astype(np.int64)))
        whole.close()
        logs.close()
    return WrittenDown(*(np.concatenate(parts) for parts in zip(*sizes, strict=True)))


def _cells(piece: Piece) -> list[npt.NDArray[np.int32]]:
    offsets, ids = piece.values.offsets.to_numpy(), piece.values.flatten().to_numpy()
    return np.split(ids, offsets[1:-1])
