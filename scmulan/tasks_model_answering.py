"""The methods of a `Model` that answer about cells: labels with exact probabilities, embeddings, nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scmulan.cells import AnnData
from scmulan.cells_writing import annotate_adata
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.errors import PromptError, some
from scmulan.levels import LEVELS, as_obs, coarsen, terms_of
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE
from scmulan.tasks_embedding import EmbeddingSettings
from scmulan.tasks_model_base import ModelBase
from scmulan.tasks_opened import Ready


class AnsweringModel(ModelBase):
    """Labels, embeddings and likelihoods of cells."""

    def annotate(
        self,
        adata: AnnData,
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
        cluster: str | None = None,
        given: Sequence[str] = GIVEN_TO_ANNOTATE,
        by: str = "answer",
        readout: bool = True,
        level: str | Sequence[str] = "cell_type",
        key_added: str = "scmulan_cell_type",
        fields: Mapping[str, str] | None = None,
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """Cell types with exact probabilities over a closed set of labels; written into ``adata`` too.

        Parameters
        ----------
        labels : the labels to choose from; those the model saw for the cell's organism and organ when not given
        threshold : below this probability the answer is ``unassigned``
        cluster : column of ``obs``; the cells of a cluster then also get the label of the largest summed probability
        given : fields that the model is told where the data have them
        by : ``answer``, the model's answer to the question; or ``both``: for cells it is not sure of, the geometric mean of the
            answer and of the likelihood of the cell under each possible label, which is more often right and takes longer
        readout : weigh in what the adapter's readout of counts says (``scmulan.readout``), where it has one
        level : ``cell_type``; ``lineage``; or coarser terms, such as ``["T cell", "B cell"]``, to which probabilities are summed up

        Returns
        -------
        DataFrame (C, labels)
            Probabilities; a row adds up to 1, a label that was not asked of a cell is 0.
        """
        if cluster is not None and cluster not in adata.obs:
            raise PromptError(f"cluster {cluster!r} is not a column of obs; columns: {some(adata.obs, most=8)}")
        if level not in LEVELS:
            terms_of(level)  # says before the work, not after it, that there is no such term
        ready = self.read(adata, reserve=self.opened.reserve(), fields=fields)
        table = coarsen(self.annotate_ready(ready, labels=labels, given=given, by=by, readout=readout, on_cell=on_cell), level)
        obs = as_obs(table, key_added, threshold)
        if cluster is not None:
            groups = adata.obs[cluster].astype(str).to_numpy()
            winner = table.groupby(groups).sum().idxmax(axis=1)
            obs[f"{key_added}_cluster"] = winner.loc[groups].to_list()
        at = level if isinstance(level, str) else list(level)
        voices = {"by": by, "readout": readout and self.opened.readout is not None}
        how = self.provenance(
            task="annotate", labels=list(table.columns), given=list(given), **voices, level=at, **self.opened.losses(ready)
        )
        annotate_adata(adata, obs, uns=how)
        return table.set_axis(adata.obs_names)

    def annotate_ready(
        self,
        ready: Ready,
        *,
        labels: Sequence[str] | None = None,
        given: Sequence[str] = GIVEN_TO_ANNOTATE,
        by: str = "answer",
        readout: bool = True,
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """Probabilities of cell types of cells that were read already; parameters as in ``annotate``."""
        return self.answers.cell_types(ready, labels=labels, given=given, by=by, readout=readout, on_cell=on_cell)

    def locate(self, adata: AnnData, *, key_added: str = "scmulan_organ", on_cell: Advance | None = None) -> pd.DataFrame:
        """The organ (and region) of each cell, from the cell alone; probabilities (C, organs), written into ``adata`` too."""
        tables, ready = self.answers.fields(adata, "locate", ("organ", "region"), on_cell)
        self._put_fields(adata, tables, {"organ": key_added, "region": "scmulan_region"}, "locate", ready)
        return tables["organ"].set_axis(adata.obs_names)

    def describe(self, adata: AnnData, *, on_cell: Advance | None = None) -> dict[str, pd.DataFrame]:
        """Every field of each cell, from the cell alone; field -> probabilities (C, values), written into ``adata`` too."""
        names = tuple(name for name in self.prompts.task("describe").predict if self.seen.values(name))
        tables, ready = self.answers.fields(adata, "describe", names, on_cell)
        self._put_fields(adata, tables, {name: f"scmulan_{name}" for name in tables}, "describe", ready)
        return {name: table.set_axis(adata.obs_names) for name, table in tables.items()}

    def _put_fields(self, adata: AnnData, tables: Mapping[str, pd.DataFrame], keys: Mapping[str, str], task: str, ready: Ready) -> None:
        obs: dict[str, Any] = {}
        for name, table in tables.items():
            best = table.to_numpy().argmax(1)
            obs[keys[name]] = [str(table.columns[number]) for number in best]
            obs[f"{keys[name]}_probability"] = table.to_numpy()[np.arange(len(table)), best]
        annotate_adata(adata, obs, uns=self.provenance(task=task, **self.opened.losses(ready)))

    def embed(
        self,
        adata: AnnData,
        *,
        at: Sequence[str] = EmbeddingSettings.at,
        views: int = EmbeddingSettings.views,
        key_added: str = "X_scmulan",
        on_cell: Advance | None = None,
    ) -> npt.NDArray[np.float32]:
        """Embedding of each cell, told no label: the same alone, batched or shuffled; also in ``adata.obsm``.

        Parameters
        ----------
        at : fields at whose opening, right after the question for the cell type, the hidden state is read
        views : thinnings averaged of a cell that does not fit a sentence

        Returns
        -------
        (C, places x D) float32: the state at each place, of length 1, side by side
        """
        settings = EmbeddingSettings(at=tuple(at) if not isinstance(at, str) else (at,), views=views)
        ready = self.read(adata, reserve=self.opened.reserve())
        points = self.embeddings.of_counts(ready.whole, settings, on_cell=on_cell)
        how = self.provenance(task="embed", **settings.to_dict(), **self.opened.losses(ready))
        annotate_adata(adata, {}, obsm={key_added: points}, uns=how)
        return points

    def embedding_prompt(self, cell: Ids) -> Ids:
        """The cell and the opening of the question for its type: the same ids for every cell, no label among them."""
        return np.concatenate([self.writer.prompt("annotate", {}, cell=cell), [self.writer.control_id("<cell_type>")]])

    def nats(
        self, source: AnnData | Ready, fields: Sequence[Mapping[str, str | None]], *, on_cell: Advance | None = None
    ) -> list[npt.NDArray[np.float64]]:
        """Nats of every id of each cell's sentence given its fields, among the genes that were measured; their sum is minus the
        log-likelihood of the cell."""
        return self.answers.nats(source, fields, on_cell=on_cell)

    def speaks_for(self, adata: AnnData, row: int, label: str, against: str) -> pd.Series:
        """Genes by how much they speak for one cell type against another in one cell, in nats; by symbol, strongest first.

        The sum over genes, levels and the end is the log-likelihood ratio of the cell under the two types.
        """
        return self.answers.speaks_for(adata, row, label, against)
