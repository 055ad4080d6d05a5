"""Genes as the model knows them: their embeddings in the cells of each type, which are alike, and programs of genes that go together.

A gene's contextual embedding is the hidden state at its id, the mean over the cells that have it. A cell is read from its highest counts
down, so the state knows of the gene and of those above it. The last layer says what comes next and hardly which gene it stands at, so a
middle layer is taken. Limit: of a model with tied matrices the input and output rows of a gene are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score

from scmulan.cells import AnnData
from scmulan.engines.base import Advance
from scmulan.engines.transformers_places import of_transformers, states_of_cells
from scmulan.errors import CellDataError, PromptError, nearest, some
from scmulan.measures.counts import log_cp10k
from scmulan.tasks_opened import Opened

LEAST_CELLS = 3
SHUFFLES = 20
MOST_GENES = 2000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GeneEmbeddings:
    """Contextual embeddings of genes.

    Attributes
    ----------
    embeddings : one row for each group of cells and gene (MultiIndex ``group``, ``gene``), D columns, float32
    cells : how many cells of the group had the gene; the same index
    layer : the layer they were read at
    """

    embeddings: pd.DataFrame
    cells: pd.Series
    layer: int

    @property
    def groups(self) -> list[str]:
        """Groups of cells, in order."""
        return list(self.embeddings.index.get_level_values("group").unique())

    def of(self, group: str | None = None) -> pd.DataFrame:
        """Genes of one group, or of all groups, weighted by their cells; (genes, D)."""
        if group is not None and group not in self.groups:
            raise PromptError(f"group {group!r}: not among {some(self.groups, most=8)}{nearest(group, self.groups)}")
        if group is not None:
            return pd.DataFrame(self.embeddings.xs(group, level="group"))
        total = self.embeddings.mul(self.cells, axis=0).groupby(level="gene").sum()
        return total.div(self.cells.groupby(level="gene").sum(), axis=0)


def gene_embeddings(
    opened: Opened,
    adata: AnnData,
    *,
    groupby: str | None = "cell_type",
    layer: int | None = None,
    least_cells: int = LEAST_CELLS,
    on_cell: Advance | None = None,
) -> GeneEmbeddings:
    """As ``Model.gene_embeddings``."""
    if groupby is not None and groupby not in adata.obs:
        raise PromptError(f"groupby {groupby!r} is not a column of obs; columns: {some(adata.obs, most=8)}")
    engine = of_transformers(opened.engine)
    layer = engine.lm.config.num_hidden_layers // 2 if layer is None else layer
    ready, v = opened.read(adata, reserve=opened.reserve()), opened.vocabulary
    of_cell = adata.obs[groupby].astype(str).to_numpy() if groupby is not None else np.full(adata.n_obs, "all")
    groups, group_of = np.unique(of_cell, return_inverse=True)
    columns = np.flatnonzero(np.asarray((ready.counts > 0).sum(0)).ravel())
    place_of = np.full(v.n_genes, -1)
    place_of[columns] = np.arange(len(columns))
    sums = np.zeros((len(groups), len(columns), engine.lm.config.hidden_size), np.float32)
    cells = np.zeros(sums.shape[:2], np.int64)
    sentences = [ready.ids[row] for row in range(len(ready.ids))]
    opening = [np.array([v.bos])] * len(sentences)  # no label before the cell
    for row, states_TD in states_of_cells(engine, opening, sentences, layer=layer, on_cell=on_cell):
        at = np.flatnonzero(sentences[row] >= v.first_gene)
        places = place_of[sentences[row][at] - v.first_gene]
        sums[group_of[row], places] += states_TD.cpu().numpy()[at]  # a gene stands once in a cell
        cells[group_of[row], places] += 1
    group, gene = np.nonzero(cells >= max(least_cells, 1))
    if not len(group):
        raise CellDataError(f"no gene is in {least_cells} cells of one {groupby}; give more cells, or least_cells=1")
    names = np.array(v.genes, dtype=object)[columns]
    index = pd.MultiIndex.from_arrays([groups[group], names[gene]], names=["group", "gene"])
    table = pd.DataFrame(sums[group, gene] / cells[group, gene][:, None], index=index)
    return GeneEmbeddings(embeddings=table, cells=pd.Series(cells[group, gene], index=index, name="cells"), layer=layer)


def gene_rows(opened: Opened) -> pd.DataFrame:
    """Row of the embedding matrix of each gene, whatever cell it stands in; (vocabulary genes, D)."""
    engine, v = of_transformers(opened.engine), opened.vocabulary
    return pd.DataFrame(engine.body.embed_tokens.weight[v.first_gene : v.last_gene].detach().float().cpu().numpy(), index=list(v.genes))


def genes_like(table: pd.DataFrame, gene: str, n: int = 10) -> pd.Series:
    """The genes most like one by the cosine of embeddings (genes, D), less what all genes have in common; without the gene itself."""
    if gene not in table.index:
        raise PromptError(
            f"gene {gene!r}: in too few of these cells to have an embedding there{nearest(gene, [str(g) for g in table.index])}"
        )
    directions = _directions(table)
    cosine = pd.Series(directions @ directions[table.index.get_loc(gene)], index=table.index, name="cosine")
    return cosine.drop(gene).sort_values(ascending=False).head(n)


def _directions(table: pd.DataFrame) -> Floats:
    """Embeddings less their mean, of length 1."""
    centred = table.to_numpy(np.float64) - table.to_numpy(np.float64).mean(0)
    found: Floats = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return found


@dataclass(frozen=True, kw_only=True)
class GenePrograms:
    """Genes that go together.

    Attributes
    ----------
    genes : symbols of each program, largest program first
    table : one row a program: ``genes``; ``correlation``, mean correlation of its genes' log CP10k over the cells; ``p``, share of random
        sets of genes detected as often that are correlated as much
    silhouette, silhouette_shuffled, p : of the whole clustering by cosine distance, the mean of the same where every column of the
        embeddings is shuffled over genes, and the share of shufflings that are as good
    """

    genes: list[list[str]]
    table: pd.DataFrame
    silhouette: float
    silhouette_shuffled: float
    p: float


def gene_programs(
    opened: Opened, adata: AnnData, table: pd.DataFrame, cells: pd.Series, *, n: int = 20, most_genes: int = MOST_GENES, seed: int = 0
) -> GenePrograms:
    """As ``Model.gene_programs``, of embeddings (genes, D) and how many cells each stands on."""
    table = table.loc[cells.loc[table.index].sort_values(ascending=False, kind="stable").index[:most_genes]]
    if not 2 <= n < len(table):
        raise PromptError(f"n is {n}: needed 2 programs or more, and fewer than the {len(table):,} genes")
    rng = np.random.default_rng([seed, 29])
    directions = _directions(table)
    program = _clusters(directions, n)
    quality = float(silhouette_score(directions, program, metric="cosine"))
    shuffled = []
    for _ in range(SHUFFLES):
        mixed = rng.permuted(directions, axis=0)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        shuffled.append(float(silhouette_score(mixed, _clusters(mixed, n), metric="cosine")))
    found = sorted(([str(gene) for gene in table.index[program == k]] for k in np.unique(program)), key=len, reverse=True)
    logs = log_cp10k(opened.read(adata, reserve=opened.reserve()).whole)
    together = _correlations(logs[:, opened.vocabulary.columns([str(gene) for gene in table.index])].toarray())
    rows = [_coherence(together, np.flatnonzero(table.index.isin(genes)), cells.loc[table.index].to_numpy(), rng) for genes in found]
    return GenePrograms(
        genes=found,
        table=pd.DataFrame([{"genes": len(genes), **row} for genes, row in zip(found, rows, strict=True)]),
        silhouette=quality,
        silhouette_shuffled=float(np.mean(shuffled)),
        p=(1 + sum(each >= quality for each in shuffled)) / (1 + SHUFFLES),
    )


def _clusters(directions: Floats, n: int) -> npt.NDArray[np.int64]:
    """Program of each gene by Ward's method; Euclidean distances of directions rise with their cosine distances."""
    return np.asarray(fcluster(linkage(directions, "ward"), n, "maxclust"), dtype=np.int64)


def _correlations(logs_CG: npt.NDArray[np.float32]) -> Floats:
    """Correlation of genes over cells; (G, G), 0 where a gene does not vary."""
    centred = logs_CG - logs_CG.mean(0)
    scaled = centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-12)
    found: Floats = scaled.T @ scaled
    return found


def _coherence(
    together_GG: Floats, members: npt.NDArray[np.int64], cells: npt.NDArray[np.int64], rng: np.random.Generator, draws: int = 100
) -> dict[str, float]:
    """Mean correlation of a program's genes, and how often genes of like detection reach it."""
    if len(members) < 2:
        return {"correlation": float("nan"), "p": float("nan")}

    def mean_of(places: npt.NDArray[np.int64]) -> float:
        n = len(places)
        return float((together_GG[np.ix_(places, places)].sum() - np.trace(together_GG[np.ix_(places, places)])) / (n * (n - 1)))

    order = np.argsort(cells, kind="stable")
    rank = np.argsort(order, kind="stable")[members]
    own, chance = mean_of(members), 0
    for _ in range(draws):  # each gene changed for one that stands within 25 ranks of it by detection
        drawn = np.unique(order[np.clip(rank + rng.integers(-25, 26, len(members)), 0, len(cells) - 1)])
        chance += len(drawn) > 1 and mean_of(drawn) >= own
    return {"correlation": own, "p": (1 + chance) / (1 + draws)}


def symbol_of(opened: Opened, gene: str, organism: str | None = None) -> str:
    """A gene as the vocabulary spells it, from any of its names."""
    return opened.vocabulary.genes[opened.column_of(gene, organism)]


def symbols_of(opened: Opened, genes: Sequence[str]) -> dict[str, str]:
    """Names as given to symbols of the vocabulary, those it lacks left out."""
    index = opened.table.resolve(list(genes)).index
    found = {name: str(opened.table.symbols[row]) for name, row in zip(genes, index, strict=True) if row >= 0}
    return {name: symbol for name, symbol in found.items() if symbol in opened.vocabulary.column_of}
