"""What a model says of genes, one method a question: ``model.genes.like("GATA1")``.

All of it is read off the model as it is. Nothing here was learnt from cells in which a gene was switched; that is ``perturb``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from scmulan import tasks_genes
from scmulan.cells import AnnData
from scmulan.engines.base import Advance
from scmulan.tasks_answers import Answers
from scmulan.tasks_edits import Action
from scmulan.tasks_genes import LEAST_CELLS, GeneEmbeddings, GenePrograms
from scmulan.tasks_probe import FOLDS, Probed, probe_genes
from scmulan.tasks_regulators import MOST_CELLS, regulators


class AboutGenes:
    """Questions about genes, put to an opened checkpoint."""

    def __init__(self, answers: Answers):
        self.answers, self.opened = answers, answers.opened

    def embeddings(
        self,
        adata: AnnData,
        *,
        groupby: str | None = "cell_type",
        layer: int | None = None,
        least_cells: int = LEAST_CELLS,
        on_cell: Advance | None = None,
    ) -> GeneEmbeddings:
        """Contextual embeddings: the mean hidden state at each gene's id in the cells of each group, no label told.

        Parameters
        ----------
        groupby : column of ``obs``; None puts all cells together
        layer : after which layer, 0 being the embeddings of the input; the middle one when not given
        least_cells : a gene that fewer cells of a group have is left out of it

        Raises
        ------
        PromptError, CellDataError, EngineError
            When there is no such column, no gene in enough cells, no such layer, or the engine shows no hidden states.
        """
        return tasks_genes.gene_embeddings(
            self.opened, adata, groupby=groupby, layer=layer, least_cells=least_cells, on_cell=on_cell
        )  # fmt: skip

    def like(
        self, gene: str, adata: AnnData | None = None, *, group: str | None = None, groupby: str | None = None, n: int = 10
    ) -> pd.Series:
        """The ``n`` genes most like one, by cosine: of rows of the embedding matrix or, where cells are given, of contextual embeddings.

        Parameters
        ----------
        gene : by any of its names
        adata : cells in which the genes are looked at
        groupby, group : look only at the cells of one group, a value of a column of ``obs``

        Examples
        --------
        >>> import scmulan
        >>> scmulan.load("demo").genes.like("Elane", n=2).index.tolist()
        ['PRTN3', 'MPO']
        """
        symbol = tasks_genes.symbol_of(self.opened, gene)
        if adata is None:
            return tasks_genes.genes_like(tasks_genes.gene_rows(self.opened), symbol, n)
        found = self.embeddings(adata, groupby=groupby or ("cell_type" if group is not None else None))
        return tasks_genes.genes_like(found.of(group), symbol, n)

    def programs(self, adata: AnnData, *, n: int = 20, layer: int | None = None, seed: int = 0) -> GenePrograms:
        """``n`` programs of genes whose contextual embeddings are alike (Ward's method on their directions, the genes of most cells).

        Each comes with how its genes are correlated in the cells' counts beside random genes detected as often, and the whole with its
        silhouette beside that of shuffled embeddings.
        """
        found = self.embeddings(adata, groupby=None, layer=layer)
        return tasks_genes.gene_programs(self.opened, adata, found.of(), found.cells.droplevel("group"), n=n, seed=seed)

    def regulators(
        self,
        adata: AnnData,
        tfs: Sequence[str] | None = None,
        *,
        action: Action = "raise",
        most_cells: int = MOST_CELLS,
        seed: int = 0,
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """What editing each regulator does to every gene's chance of being taken along the cell.

        Parameters
        ----------
        tfs : regulators by any of their names; those of ``tokenizer/regulators.tsv`` that the cells have when not given
        action : ``raise``, ``delete``, ``lower`` or a whole count, as for ``Model.edit``
        most_cells : at most so many cells, drawn evenly

        Returns
        -------
        DataFrame (regulators, genes)
            Mean shift of the logarithm of a gene's cumulative hazard, over the cells that the edit changed (``attrs["cells"]``); genes of
            at least 2 % of the cells; NaN for the regulator itself.
        """
        return regulators(self.answers, adata, tfs, action=action, most_cells=most_cells, seed=seed, on_cell=on_cell)

    def probe(
        self,
        adata: AnnData,
        labels: Mapping[str, str],
        *,
        layer: int | None = None,
        folds: int = FOLDS,
        seed: int = 0,
        on_cell: Advance | None = None,
    ) -> Probed:
        """Whether embeddings tell classes of genes apart by a cross-validated linear probe, beside mean expression and profiles alone.

        Parameters
        ----------
        labels : class by gene, any gene naming

        Raises
        ------
        PromptError
            When fewer than two classes have as many genes in these cells as there are folds.
        """
        return probe_genes(self.opened, adata, labels, layer=layer, folds=folds, seed=seed, on_cell=on_cell)
