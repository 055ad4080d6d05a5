"""Cells written by the model: the fields of those asked for, the genes they are written around, and the cells as counts or AnnData."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan import csentence
from scmulan.cells import AnnData
from scmulan.cells_writing import new_adata
from scmulan.csentence import Ids
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance, CellRequest
from scmulan.errors import PromptError
from scmulan.rates import RatesOfKind
from scmulan.tasks_opened import Opened

DEFAULT_ORGANISM = "Homo sapiens"


@dataclass(frozen=True)
class Frame:
    """What stands around the counts of written cells.

    Attributes
    ----------
    obs : a row a cell
    kept : (G,) vocabulary columns of the genes that are written down
    organism : whose names the genes have
    how : the provenance
    """

    obs: pd.DataFrame
    kept: npt.NDArray[np.intp]
    organism: str
    how: dict[str, Any]


def depths_of(depth: int | None, n: int) -> list[int] | None:
    """A depth for each of n cells; PromptError where it is none."""
    if depth is not None and depth < 1:
        raise PromptError(f"depth {depth}: needed at least 1 count a cell")
    return None if depth is None else [depth] * n


def spreads(sampling: Sampling) -> np.random.Generator:
    """What draws the counts within their levels, of all cells in the order of their numbers."""
    return np.random.default_rng([sampling.seed, 11])


class WrittenCells:
    """Cells that an opened checkpoint writes."""

    def __init__(self, opened: Opened):
        self.opened, self.vocabulary, self.table = opened, opened.vocabulary, opened.table

    def rows_for(self, n: int, fields: Mapping[str, str | None], seed: int) -> list[dict[str, str]]:
        """As ``Model.rows_for``."""
        if n < 1:
            raise PromptError(f"n is {n}: needed at least 1 cell")
        for name in fields:
            if name not in self.opened.prompts.fields:
                raise PromptError(f"{name!r} is not a field; fields: {', '.join(self.opened.prompts.fields)}")
        given = {name: self.opened.seen.known(name, value) for name, value in fields.items() if value}
        return self.opened.seen.matching(given).draw(n, np.random.default_rng([seed, 7]))

    def around(self, genes: Mapping[str, int], organism: str | None = None) -> dict[int, int]:
        """As ``Model.around``."""
        found: dict[int, int] = {}
        for name, count in genes.items():
            column = self.opened.column_of(name, organism)
            if int(count) != count or count < 1:
                raise PromptError(f"gene {name}={count}: needed a whole count of 1 or more")
            if column in found:
                twice = next(other for other in genes if self.opened.column_of(other, organism) == column)
                raise PromptError(f"{twice!r} and {name!r} are one gene, {self.vocabulary.genes[column]}; give each gene once")
            found[column] = int(csentence.level_of([int(count)])[0])
        return found

    def counts(
        self,
        rows: Sequence[Mapping[str, str | None]],
        sampling: Sampling,
        *,
        around: Sequence[Mapping[int, int]] | None = None,
        depths: npt.ArrayLike | None = None,
        on_cell: Advance | None = None,
    ) -> sp.csr_matrix:
        """As ``Model.write_counts``."""
        written = self.sentences(rows, sampling, around=around, depths=depths, on_cell=on_cell)
        return csentence.decode_many(written, self.vocabulary, spreads(sampling))

    def sentences(
        self,
        rows: Sequence[Mapping[str, str | None]],
        sampling: Sampling,
        *,
        first: int = 0,
        around: Sequence[Mapping[int, int]] | None = None,
        depths: npt.ArrayLike | None = None,
        on_cell: Advance | None = None,
    ) -> list[Ids]:
        """The same as ids, of cells of which the first has the number ``first``: a cell's draws hang on the seed and its number."""
        v, depth_ids = self.vocabulary, None if depths is None else self.vocabulary.first_depth + csentence.depth_of(depths)
        panels = {name: self.panel(name) for name in {row.get("organism") or DEFAULT_ORGANISM for row in rows}}
        requests = []
        for number, row in enumerate(rows):
            genes = around[number] if around else {}
            named = self.opened.writer.genes_ids(list(genes), list(genes.values())) if genes else None
            request = CellRequest(
                prompt=self.opened.writer.prompt("complete" if genes else "generate", row, genes=named),
                row=first + number,
                depth=None if depth_ids is None else int(depth_ids[number]),
                panel=panels[row.get("organism") or DEFAULT_ORGANISM],
                rates=self.rates_of(row, sampling),
                forced=tuple((column, int(v.level_id(level))) for column, level in genes.items()),
            )
            requests.append(request)
        return self.opened.engine.generate(requests, sampling, on_cell=on_cell)

    def write(
        self,
        rows: Sequence[Mapping[str, str]],
        around: Mapping[int, int],
        task: str,
        sampling: Sampling,
        depth: int | None,
        naming: str,
        on_cell: Advance | None,
    ) -> AnnData:
        """Cells of some fields around some genes as AnnData."""
        counts = self.counts(rows, sampling, around=[around] * len(rows), depths=depths_of(depth, len(rows)), on_cell=on_cell)
        frame = self.frame(rows, around, task, sampling)
        return new_adata(
            counts[:, frame.kept],
            self.opened.rows[frame.kept],
            self.table,
            obs=frame.obs,
            organism=frame.organism,
            naming=naming,
            uns={"scmulan": frame.how},
        )

    def frame(self, rows: Sequence[Mapping[str, str]], around: Mapping[int, int], task: str, sampling: Sampling) -> Frame:
        """What stands around the counts of cells of some fields."""
        names = [name for name in self.opened.prompts.fields if any(name in row for row in rows)]
        obs = pd.DataFrame(
            {name: pd.Categorical([row.get(name) for row in rows]) for name in names}, index=[f"generated_{m}" for m in range(len(rows))]
        )
        organisms = list(dict.fromkeys(row.get("organism", DEFAULT_ORGANISM) for row in rows))
        measured = np.any([self.panel(organism) for organism in organisms], axis=0)
        measured[list(around)] = True
        kept = np.flatnonzero(measured)
        how: dict[str, Any] = {"task": task, **dataclasses.asdict(sampling)}
        how["rates"] = any(self.rates_of(row, sampling) is not None for row in rows)
        if around:
            how["genes"] = {self.vocabulary.genes[column]: int(csentence.LEVEL_COUNTS[level]) for column, level in around.items()}
        return Frame(obs, kept, organisms[0], self.opened.provenance(**how))

    def rates_of(self, row: Mapping[str, str | None], sampling: Sampling) -> RatesOfKind | None:
        """Rates of a cell of these fields; None where none are wanted, or known of its kind."""
        return self.opened.rates.of_row(row) if sampling.rates and self.opened.rates is not None else None

    def panel(self, organism: str) -> npt.NDArray[np.bool_]:
        """Genes of the vocabulary that a species has, or that training cells of that species were said to have; (n_genes,)."""
        panel: npt.NDArray[np.bool_] = self.table.is_of(organism)[self.opened.rows]
        panel[self.vocabulary.columns(self.opened.genes_beyond(organism))] = True
        return panel if panel.any() else np.ones(len(self.opened.rows), dtype=bool)
