"""The methods of a `Model` that edit genes in silico."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from scmulan.cells import AnnData
from scmulan.engines.base import Advance
from scmulan.tasks_edits import Action, Edited, edit
from scmulan.tasks_model_base import ModelBase
from scmulan.tasks_screen import CONTROLS, MOST_CELLS, screen


class EditingModel(ModelBase):
    """What the model reads in cells whose genes are edited, and screens of genes toward a goal."""

    def edit(
        self,
        adata: AnnData,
        genes: Mapping[str, Action],
        *,
        labels: Sequence[str] | None = None,
        key_added: str = "scmulan_edit",
        on_cell: Advance | None = None,
    ) -> Edited:
        """What the model says of cells when genes are edited in their sentences; a reading, not an intervention that was learnt.

        Parameters
        ----------
        genes : by gene, any naming: ``delete``, ``lower`` (a quarter of the counts, 1 at least), ``raise`` (four times the counts; 4 where
            there are none) or a whole count
        labels : the labels to choose from; those the model saw for the cells' organism and organ when not given
        key_added : prefix of the columns of ``obs``; the edited cells' embeddings go to ``obsm["X_" + key_added]``

        Returns
        -------
        Edited
            Shifts of the embedding, of the log-likelihood of the rest of the cell, and of the labels' exact probabilities; how many
            cells had nothing to delete.

        Raises
        ------
        VocabularyError, PromptError
            When a gene is unknown, not of this model, or was not measured in these cells.
        """
        return edit(self.answers, adata, genes, labels=labels, key_added=key_added, on_cell=on_cell)

    def screen(
        self,
        adata: AnnData,
        goal: Mapping[str, str],
        *,
        start: Mapping[str, str] | None = None,
        genes: Sequence[str] | None = None,
        action: Action = "raise",
        pairs: bool = False,
        by: str = "odds",
        most_cells: int = MOST_CELLS,
        controls: int = CONTROLS,
        seed: int = 0,
        on_variant: Advance | None = None,
    ) -> pd.DataFrame:
        """Genes, or pairs of them, by how far editing them takes cells toward a goal; a reading, not an intervention that was learnt.

        Parameters
        ----------
        goal, start : one field each, as ``{"cell_type": "monocyte"}`` or ``{"lineage": "T cell"}``; the cells of the start are edited
            where cells have labels; without a start all are, and the goal stands against every other label
        genes : all that the cells have when not given
        action : ``raise``, ``delete``, ``lower`` or a whole count, as for `edit`
        pairs : all pairs of ``genes``; ``beyond_sum`` is what a pair does beyond its two genes alone
        by : ``odds``, shift of the log-odds of the goal (nats); ``embedding``, shift from the start's middle toward the goal's; or
            ``gradient``, a first guess at ``odds`` for all genes at once, of genes that are raised
        most_cells : at most so many cells are edited, drawn evenly
        controls : how many genes detected about as often are edited beside ``genes``, for the null; without ``genes``, all others are

        Returns
        -------
        DataFrame, the furthest toward the goal first
            ``rank``, mean ``shift`` over ``cells`` (those that the edit changed), ``sd`` and ``share_toward`` over cells, ``detection``,
            and ``z``, ``p``, ``q`` beside genes of like detection (`scmulan.measures.matched`).
        """
        return screen(
            self.answers, adata, goal, start=start, genes=genes, action=action, pairs=pairs, by=by, most_cells=most_cells,
            controls=controls, seed=seed, on_variant=on_variant,
        )  # fmt: skip
