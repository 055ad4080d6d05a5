"""An opened checkpoint as the tasks use it: cells read as sentences, prompts written, what it has seen, the provenance of results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import __version__, csentence, csentence_thinning
from scmulan.adapters_folder import Adapter, check_base, joined_labels, open_adapter
from scmulan.cells import AnnData, Cells, read_cells
from scmulan.engines.base import Engine
from scmulan.errors import PromptError, ScmulanWarning, VocabularyError, nearest, some
from scmulan.genes import GeneTable
from scmulan.labels import SeenLabels
from scmulan.model import Checkpoint
from scmulan.prompts import Prompts, SentenceWriter, load_prompts
from scmulan.rates import Rates
from scmulan.readout import Readout

MOST_VIEWS = 4
"""A cell that is longer than what was learnt from is answered about from so many thinned views of it, at most."""


def warn_of_empty(names: Sequence[str], n_empty: int, n_cells: int, *, stacklevel: int = 2) -> None:
    """Say how many cells have nothing that the model can read, by name the first of them."""
    if n_empty:
        warnings.warn(
            f"{n_empty:,} of {n_cells:,} cells have no count of a gene of this model ({some(names, n_empty)}): what is said of them "
            "rests on their fields alone; leave them out",
            ScmulanWarning,
            stacklevel=stacklevel,
        )


@dataclass(frozen=True)
class Ready:
    """Cells as the model reads them.

    Attributes
    ----------
    cells : as the file had them
    ids : one ``<cell> ... </cell>`` a cell, thinned where it would not fit
    whole : (C, vocabulary genes) CSR of the counts before any thinning
    counts : (C, vocabulary genes) CSR of what the ids say
    panel : (vocabulary genes,) bool, the genes that were measured
    thinned : (C,) bool
    outside : share of counts of genes that the vocabulary lacks
    """

    cells: Cells
    ids: csentence.Ragged
    whole: sp.csr_matrix
    counts: sp.csr_matrix
    panel: npt.NDArray[np.bool_]
    thinned: npt.NDArray[np.bool_]
    outside: float

    @property
    def empty(self) -> list[str]:
        """Names of the cells without a count of a gene of the model."""
        return [self.cells.cell_ids[row] for row in np.flatnonzero(np.diff(self.whole.indptr) == 0)]


class Opened:
    """A checkpoint, the engine that runs it, and what its sentences are read and written with.

    Attributes
    ----------
    rows : (vocabulary genes,) row of the gene table of each gene of the vocabulary
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine):
        self.checkpoint, self.engine, self.vocabulary = checkpoint, engine, checkpoint.vocabulary
        self.prompts: Prompts = load_prompts()
        self.writer = SentenceWriter(checkpoint.tokenizer, checkpoint.vocabulary, self.prompts)
        self.seen = SeenLabels.of_card(checkpoint.card)
        self.adapters: dict[str, Adapter] = {}
        self.adapter: str | None = None
        self.readout, self.rates = Readout.of(checkpoint.folder), Rates.of(checkpoint.folder)
        self.table = GeneTable.load()
        self.rows = self.table.index_of_symbols(self.vocabulary.genes)

    def add_adapter(self, folder: str | Path, name: str | None = None) -> str:
        """As ``Model.add_adapter``."""
        found = open_adapter(folder)
        check_base(found, self.checkpoint.card, self.checkpoint.folder)
        name = name or Path(folder).resolve().name
        self.engine.add_adapter(name, found)
        self.adapters[name] = found
        self.use(name)
        return name

    def use(self, adapter: str | None) -> None:
        """As ``Model.use``."""
        if adapter is not None and adapter not in self.adapters:
            known = f"loaded: {', '.join(self.adapters)}" if self.adapters else "none is loaded"
            raise PromptError(f"adapter {adapter!r}: {known}{nearest(adapter, list(self.adapters))}")
        self.engine.use_adapter(adapter)
        self.adapter = adapter
        labels = self.checkpoint.card["labels"]
        if adapter is not None:
            labels = joined_labels(labels, self.adapters[adapter].card["labels"])
        self.seen = SeenLabels.of_card({"labels": labels})
        folder = self.checkpoint.folder if adapter is None else self.adapters[adapter].folder
        self.readout, self.rates = Readout.of(folder), Rates.of(folder)

    @property
    def length(self) -> int:
        """Longest sentence that the model or the adapter in use was trained on; it reads those best, so longer cells are thinned to it."""
        card = self.checkpoint.card if self.adapter is None else self.adapters[self.adapter].card
        learnt = card.get("recipe", {}).get("packing", {}).get("context", self.checkpoint.context)
        return min(int(learnt), self.checkpoint.context)

    def genes_beyond(self, organism: str) -> list[str]:
        """Genes that training cells of a species had, though the gene table does not know them of it, by symbol."""
        cards = [self.checkpoint.card] if self.adapter is None else [self.checkpoint.card, self.adapters[self.adapter].card]
        sources = [source for card in cards for source in card.get("sources", [])]
        return sorted({gene for source in sources for gene in source.get("genes_beyond_species", {}).get(organism, [])})

    def reserve(self, answer: int = 48) -> int:
        """Ids that a sentence keeps free for fields and answer."""
        return min(64 + answer, self.length // 4)

    def read(self, source: str | Path | AnnData | Cells, *, reserve: int = 0, fields: Mapping[str, str] | None = None) -> Ready:
        """As ``Model.read``."""
        cells = source if isinstance(source, Cells) else read_cells(source, fields=fields)
        used = np.unique(cells.counts.indices)
        if not len(used):
            raise VocabularyError("no cell has any count; nothing can be read from them")
        ready = self.ready(cells, used, reserve=reserve)
        warn_of_empty(ready.empty, len(ready.empty), len(cells), stacklevel=5)
        return ready

    def ready(self, cells: Cells, genes: npt.NDArray[np.integer[Any]], *, reserve: int = 0) -> Ready:
        """Cells as sentences of some rows of the gene table; cells without a count of them are left to `warn_of_empty`."""
        symbols = [str(symbol) for symbol in self.table.symbols[genes]]
        counts, _ = csentence.to_vocabulary_order(cells.counts[:, genes], symbols, self.vocabulary)
        outside = 1 - float(counts.sum() / max(int(cells.counts.sum()), 1))
        read, thinned = csentence_thinning.thin_to_fit(counts, self.length - reserve)
        panel = np.isin(self.rows, cells.measured)
        return Ready(cells, csentence.encode(read, self.vocabulary), counts, read, panel, thinned, outside)

    def column_of(self, name: str, organism: str | None = None) -> int:
        """Vocabulary column of a gene by any of its names; VocabularyError where it is unknown, or not of this model."""
        row = int(self.table.resolve([name], organism).index[0])
        if row < 0:
            raise VocabularyError(f"gene {name!r} is not known; nearest: {some(self.table.nearest(name)) or 'none'}")
        symbol = str(self.table.symbols[row])
        if symbol not in self.vocabulary.column_of:
            raise VocabularyError(f"gene {name!r} is known, but this model's training cells did not hold it, so it can't be asked about")
        return self.vocabulary.column_of[symbol]

    def views(self, counts: sp.csr_matrix) -> list[csentence.Ragged]:
        """Sentences of cells to be asked about: one of each, or several thinnings of all where the model learnt from less than it can hold.

        Parameters
        ----------
        counts : (C, vocabulary genes) CSR, before any thinning
        """
        found = list[csentence.Ragged]()
        for seed in range(min(MOST_VIEWS, self.checkpoint.context // self.length)):
            read, thinned = csentence_thinning.thin_to_fit(counts, self.length - self.reserve(), seed=seed)
            found.append(csentence.encode(read, self.vocabulary))
            if not thinned.any():
                break
        return found

    def given(self, cells: Cells, names: Sequence[str]) -> list[dict[str, str | None]]:
        """Known fields of each cell, those that the model has seen values of."""
        columns = {name: cells.fields.get(name) or [None] * len(cells) for name in names}
        return self.known([{name: columns[name][row] for name in names} for row in range(len(cells))])

    def known(self, fields: Sequence[Mapping[str, str | None]]) -> list[dict[str, str | None]]:
        """Fields of cells, without the values that the model has not seen."""
        names = {name for of_cell in fields for name in of_cell}
        seen = {name: set(self.seen.values(name)) for name in names}
        return [{name: value if value in seen[name] else None for name, value in of_cell.items()} for of_cell in fields]

    def provenance(self, **how: Any) -> dict[str, Any]:
        """As ``Model.provenance``."""
        card = self.checkpoint.card
        used = self.adapters[self.adapter].sha256 if self.adapter is not None else "none"  # said too, for an earlier result may stand there
        adapter = {"adapter": self.adapter or "none", "adapter_sha256": used}
        model = {"model": str(self.checkpoint.folder.name), "weights_sha256": card["weights_sha256"]}
        return {**model, **adapter, "scmulan": __version__, **how}

    def losses(self, ready: Ready) -> dict[str, Any]:
        """What of the cells did not reach the model, for the provenance."""
        return {"share_of_counts_outside_vocabulary": round(ready.outside, 6), "cells_thinned_to_fit": int(ready.thinned.sum())}
