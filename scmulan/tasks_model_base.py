"""What every method of a `Model` stands on: the checkpoint, its engine, the adapters in use, cells as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from scmulan.adapters_folder import Adapter
from scmulan.cells import AnnData, Cells
from scmulan.engines.base import Engine
from scmulan.labels import SeenLabels
from scmulan.model import Checkpoint
from scmulan.tasks_about_genes import AboutGenes
from scmulan.tasks_answers import Answers
from scmulan.tasks_changed import ChangedCells
from scmulan.tasks_embedding import Embeddings
from scmulan.tasks_opened import Opened, Ready
from scmulan.tasks_writing import WrittenCells


class ModelBase:
    """A checkpoint and the engine that runs it."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine):
        self.checkpoint, self.vocabulary = checkpoint, checkpoint.vocabulary
        self.opened = Opened(checkpoint, engine)
        self.prompts, self.writer, self.table = self.opened.prompts, self.opened.writer, self.opened.table
        self.written, self.answers, self.changes = WrittenCells(self.opened), Answers(self.opened), ChangedCells(self.opened)
        self.embeddings = Embeddings(self.opened)
        self.genes = AboutGenes(self.answers)

    @property
    def engine(self) -> Engine:
        """What runs the checkpoint; ids in and out."""
        return self.opened.engine

    @property
    def seen(self) -> SeenLabels:
        """The labels that the model was trained on, those of the adapter in use among them."""
        return self.opened.seen

    @property
    def adapter(self) -> str | None:
        """Name of the adapter in use."""
        return self.opened.adapter

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """The loaded adapters by name."""
        return self.opened.adapters

    def add_adapter(self, folder: str | Path, name: str | None = None) -> str:
        """Load an adapter beside those there are, and use it; returns its name, the folder's when not given.

        Raises
        ------
        CheckpointError
            When the folder is damaged, of another base or tokenizer, or the name is taken.
        """
        return self.opened.add_adapter(folder, name)

    def use(self, adapter: str | None) -> Self:
        """Answer with one of the loaded adapters from now on, or with none; returns the model itself."""
        self.opened.use(adapter)
        return self

    def read(self, source: str | Path | AnnData | Cells, *, reserve: int = 0, fields: Mapping[str, str] | None = None) -> Ready:
        """Cells as sentences that leave ``reserve`` ids of the context free.

        Raises
        ------
        CellDataError, VocabularyError
            When the cells can't be read, or no gene of theirs is in the vocabulary.
        """
        return self.opened.read(source, reserve=reserve, fields=fields)

    def sentence(self, adata: AnnData, row: int = 0) -> str:
        """One cell's c-sentence as text."""
        ready = self.read(adata[[row]].copy(), reserve=self.opened.reserve())
        return str(self.checkpoint.tokenizer.decode(ready.ids[0]))

    def provenance(self, **how: Any) -> dict[str, Any]:
        """What made a result: model, versions and how it was asked."""
        return self.opened.provenance(**how)
