"""The model as its users see it: AnnData in, AnnData out, one method a task.

    model = scmulan.load("demo")
    cells = model.generate(organ="blood", cell_type="B cell", n=50)
    model.annotate(adata)

Each method reads cells (`scmulan.cells`), writes prompts (`scmulan.prompts`), asks the engine, and brings the answer back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan import __version__, csentence
from scmulan.cells import AnnData, Cells, read_cells
from scmulan.cells_writing import annotate_adata, new_adata
from scmulan.csentence import Ids
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance, CellRequest, Engine
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import PromptError, VocabularyError, some
from scmulan.genes import GeneTable
from scmulan.labels import SeenLabels, as_answer, choose
from scmulan.levels import LEVELS, as_obs, coarsen, terms_of
from scmulan.metadata import canonical
from scmulan.model import Checkpoint, load_checkpoint
from scmulan.prompts import Prompts, SentenceWriter, load_prompts

GIVEN_TO_ANNOTATE = ("organism", "assay", "organ")
ABSENT = "none"
DEFAULT_ORGANISM = "Homo sapiens"
BY = ("answer", "both")
SURE, POSSIBLE = 0.98, 0.01
"""Of ``annotate(by="both")``: a cell with a label of at least ``SURE`` is left as it is; labels below ``POSSIBLE`` keep their share."""


@dataclass(frozen=True)
class Ready:
    """Cells as the model reads them.

    Attributes
    ----------
    cells : as the file had them
    ids : one ``<cell> ... </cell>`` a cell, thinned where it would not fit
    counts : (C, vocabulary genes) CSR of what the ids say
    panel : (vocabulary genes,) bool, the genes that were measured
    thinned : (C,) bool
    outside : share of counts of genes that the vocabulary lacks
    """

    cells: Cells
    ids: csentence.Ragged
    counts: sp.csr_matrix
    panel: npt.NDArray[np.bool_]
    thinned: npt.NDArray[np.bool_]
    outside: float


def load(name: str | Path = "demo", *, device: str = "cpu", engine: Engine | None = None) -> Model:
    """Open a model folder, or the embedded one by the name ``demo``.

    Raises
    ------
    CheckpointError
        When the folder is missing, damaged, or has another tokenizer.
    """
    checkpoint = load_checkpoint(name)
    return Model(checkpoint, engine or TransformersEngine(checkpoint, device=device))


class Model:
    """A checkpoint and the engine that runs it."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine):
        self.checkpoint, self.engine, self.vocabulary = checkpoint, engine, checkpoint.vocabulary
        self.prompts: Prompts = load_prompts()
        self.writer = SentenceWriter(checkpoint.tokenizer, checkpoint.vocabulary, self.prompts)
        self.seen = SeenLabels.of_card(checkpoint.card)
        self.table = GeneTable.load()
        self._rows = self.table.index_of_symbols(self.vocabulary.genes)

    # -- cells in ---------------------------------------------------------------------------------------------------------

    def read(self, source: str | Path | AnnData | Cells, *, reserve: int = 0, fields: Mapping[str, str] | None = None) -> Ready:
        """Cells as sentences that leave ``reserve`` ids of the context free.

        Raises
        ------
        CellDataError, VocabularyError
            When the cells can't be read, or no gene of theirs is in the vocabulary.
        """
        cells = source if isinstance(source, Cells) else read_cells(source, fields=fields)
        used = np.unique(cells.counts.indices)
        symbols = [str(symbol) for symbol in self.table.symbols[used]]
        if not symbols:
            raise VocabularyError("no cell has any count; nothing can be read from them")
        counts, _ = csentence.to_vocabulary_order(cells.counts[:, used], symbols, self.vocabulary)
        outside = 1 - float(counts.sum() / max(int(cells.counts.sum()), 1))
        counts, thinned = csentence.thin_to_fit(counts, self.checkpoint.context - reserve)
        panel = np.isin(self._rows, cells.measured)
        return Ready(cells, csentence.encode(counts, self.vocabulary), counts, panel, thinned, outside)

    def _given(self, cells: Cells, names: Sequence[str]) -> list[dict[str, str | None]]:
        """Known fields of each cell, those that the model has seen values of."""
        known = {name: set(self.seen.values(name)) for name in names}
        columns = {name: cells.fields.get(name) or [None] * len(cells) for name in names}
        return [{name: columns[name][row] if columns[name][row] in known[name] else None for name in names} for row in range(len(cells))]

    # -- tasks that write cells -------------------------------------------------------------------------------------------

    def generate(
        self,
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        least_hazard: float = Sampling.least_hazard,
        depth: int | None = None,
        naming: str = "symbol",
        on_cell: Advance | None = None,
        **fields: str | None,
    ) -> AnnData:
        """Cells of a kind.

        Parameters
        ----------
        n : number of cells
        temperature, top_p, least_hazard : as in ``Sampling``
        depth : counts per cell to aim at (within half an octave); drawn by the model when not given
        fields : any of the model's fields, for example ``organ="blood", cell_type="B cell"``; those left open are drawn in
            proportion to the training cells that agree with those given

        Returns
        -------
        AnnData
            ``layers["counts"]`` int32 counts, ``X`` log1p CP10k, the fields in ``obs``, provenance in ``uns["scmulan"]``.

        Raises
        ------
        PromptError
            When a value was never seen, or no training cell had the values together; names what is possible.
        """
        rows = self.rows_for(n, fields, seed)
        sampling = Sampling(temperature=temperature, top_p=top_p, least_hazard=least_hazard, seed=seed)
        return self._write(rows, {}, "generate", sampling, depth, naming, on_cell)

    def complete(
        self,
        genes: Mapping[str, int],
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        least_hazard: float = Sampling.least_hazard,
        depth: int | None = None,
        naming: str = "symbol",
        on_cell: Advance | None = None,
        **fields: str | None,
    ) -> AnnData:
        """Cells that hold some genes at given counts, as scMulan's gene prompting; not an intervention.

        Parameters
        ----------
        genes : counts by gene, for example ``{"GATA1": 8}``; any gene naming
        """
        if not genes:
            raise PromptError("no gene given; needed at least one, for example --gene GATA1=8")
        organism = fields.get("organism")
        around = self.around(genes, canonical("organism", organism).value if organism else None)
        rows = self.rows_for(n, fields, seed)
        sampling = Sampling(temperature=temperature, top_p=top_p, least_hazard=least_hazard, seed=seed)
        return self._write(rows, around, "complete", sampling, depth, naming, on_cell)

    def rows_for(self, n: int, fields: Mapping[str, str | None], seed: int) -> list[dict[str, str]]:
        """Fields of n cells to write: those given, the others drawn from what was seen together with them."""
        if n < 1:
            raise PromptError(f"n is {n}: needed at least 1 cell")
        for name in fields:
            if name not in self.prompts.fields:
                raise PromptError(f"{name!r} is not a field; fields: {', '.join(self.prompts.fields)}")
        given = {name: self.seen.known(name, value) for name, value in fields.items() if value}
        return self.seen.matching(given).draw(n, np.random.default_rng([seed, 7]))

    def around(self, genes: Mapping[str, int], organism: str | None = None) -> dict[int, int]:
        """Level by vocabulary column of the genes that a cell is to be written around, from counts by any gene name.

        Raises
        ------
        VocabularyError, PromptError
            When a gene is unknown, not of this model, given twice, or its count is not whole and positive.
        """
        found: dict[int, int] = {}
        for name, count in genes.items():
            row = int(self.table.resolve([name], organism).index[0])
            if row < 0:
                raise VocabularyError(f"gene {name!r} is not known; nearest: {some(self.table.nearest(name)) or 'none'}")
            symbol = str(self.table.symbols[row])
            if symbol not in self.vocabulary.column_of:
                raise VocabularyError(
                    f"gene {name!r} is known, but this model's training cells did not hold it, so it can't be prompted with"
                )
            if int(count) != count or count < 1:
                raise PromptError(f"gene {name}={count}: needed a whole count of 1 or more")
            column = self.vocabulary.column_of[symbol]
            if column in found:
                twice = [other for other in genes if self.table.symbols[self.table.resolve([other], organism).index[0]] == symbol]
                raise PromptError(f"{twice[0]!r} and {name!r} are one gene, {symbol}; give each gene once")
            found[column] = int(csentence.level_of([int(count)])[0])
        return found

    def write_counts(
        self,
        rows: Sequence[Mapping[str, str | None]],
        sampling: Sampling,
        *,
        around: Sequence[Mapping[int, int]] | None = None,
        depths: npt.ArrayLike | None = None,
        on_cell: Advance | None = None,
    ) -> sp.csr_matrix:
        """One cell for each prompt; fields that a prompt lacks stay open.

        Parameters
        ----------
        rows : (C,) fields of the prompts
        around : (C,) the genes that each cell is written around, as from ``Model.around``; an empty one for none
        depths : (C,) counts to aim at, within half an octave; drawn by the model when not given

        Returns
        -------
        CSR (C, vocabulary genes), int32 counts
        """
        v, depth_ids = self.vocabulary, None if depths is None else self.vocabulary.first_depth + csentence.depth_of(depths)
        panels = {name: self._panel(name) for name in {row.get("organism") or DEFAULT_ORGANISM for row in rows}}
        requests = []
        for number, row in enumerate(rows):
            genes = around[number] if around else {}
            named = self.writer.genes_ids(list(genes), list(genes.values())) if genes else None
            request = CellRequest(
                prompt=self.writer.prompt("complete" if genes else "generate", row, genes=named),
                row=number,
                depth=None if depth_ids is None else int(depth_ids[number]),
                panel=panels[row.get("organism") or DEFAULT_ORGANISM],
                forced=tuple((column, int(v.level_id(level))) for column, level in genes.items()),
            )
            requests.append(request)
        written = self.engine.generate(requests, sampling, on_cell=on_cell)
        return csentence.decode_many(written, v, np.random.default_rng([sampling.seed, 11]))

    def _write(
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
        if depth is not None and depth < 1:
            raise PromptError(f"depth {depth}: needed at least 1 count a cell")
        depths = None if depth is None else [depth] * len(rows)
        counts = self.write_counts(rows, sampling, around=[around] * len(rows), depths=depths, on_cell=on_cell)
        names = [name for name in self.prompts.fields if any(name in row for row in rows)]
        obs = pd.DataFrame(
            {name: pd.Categorical([row.get(name) for row in rows]) for name in names}, index=[f"generated_{m}" for m in range(len(rows))]
        )
        organisms = list(dict.fromkeys(row.get("organism", DEFAULT_ORGANISM) for row in rows))
        measured = np.any([self._panel(organism) for organism in organisms], axis=0)
        measured[list(around)] = True
        kept = np.flatnonzero(measured)
        how: dict[str, Any] = {"task": task, **dataclasses.asdict(sampling)}
        if around:
            how["genes"] = {self.vocabulary.genes[column]: int(csentence.LEVEL_COUNTS[level]) for column, level in around.items()}
        return new_adata(
            counts[:, kept],
            self._rows[kept],
            self.table,
            obs=obs,
            organism=organisms[0],
            naming=naming,
            uns={"scmulan": self.provenance(**how)},
        )

    def _panel(self, organism: str) -> npt.NDArray[np.bool_]:
        """Genes of the vocabulary that a species has; (n_genes,)."""
        spelled = self.table.mouse_symbols if organism == "Mus musculus" else self.table.gene_ids
        panel = np.asarray(spelled)[self._rows] != ""
        return panel if panel.any() else np.ones(len(self._rows), dtype=bool)

    # -- tasks that answer about cells ------------------------------------------------------------------------------------

    def annotate(
        self,
        adata: AnnData,
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
        cluster: str | None = None,
        given: Sequence[str] = GIVEN_TO_ANNOTATE,
        by: str = "answer",
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
        ready = self.read(adata, reserve=self._reserve(), fields=fields)
        table = coarsen(self.annotate_ready(ready, labels=labels, given=given, by=by, on_cell=on_cell), level)
        obs = as_obs(table, key_added, threshold)
        if cluster is not None:
            groups = adata.obs[cluster].astype(str).to_numpy()
            winner = table.groupby(groups).sum().idxmax(axis=1)
            obs[f"{key_added}_cluster"] = winner.loc[groups].to_list()
        at = level if isinstance(level, str) else list(level)
        how = self.provenance(task="annotate", labels=list(table.columns), given=list(given), by=by, level=at, **self._losses(ready))
        annotate_adata(adata, obs, uns=how)
        return table.set_axis(adata.obs_names)

    def annotate_ready(
        self,
        ready: Ready,
        *,
        labels: Sequence[str] | None = None,
        given: Sequence[str] = GIVEN_TO_ANNOTATE,
        by: str = "answer",
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """Probabilities of cell types of cells that were read already; parameters as in ``annotate``."""
        if by not in BY:
            raise PromptError(f"by {by!r}: needed one of {', '.join(BY)}")
        known = self._given(ready.cells, given)
        chosen = choose(labels, "labels") if labels is not None else None
        sets: dict[tuple[str, ...], list[int]] = {}
        for row, fields in enumerate(known):
            sets.setdefault(tuple(chosen or self._labels_for(fields)), []).append(row)
        columns = sorted({label for names in sets for label in names})
        found = pd.DataFrame(0.0, index=range(len(known)), columns=columns)
        for names, rows in sets.items():
            answers = [as_answer(name) for name in names]
            asked = ["lineage", "cell_type"] if all(answer["lineage"] for answer in answers) else ["cell_type"]
            prompts = [self.writer.prompt("annotate", known[row], cell=ready.ids[row]) for row in rows]
            scores = self.engine.score(prompts, [self.writer.answer(answer, asked) for answer in answers], on_cell=on_cell)
            shares = _softmax(scores)
            if by == "both":
                shares = self._weigh_likelihood(ready, rows, [known[row] for row in rows], names, shares)
            found.loc[rows, list(names)] = shares
        return found

    def _weigh_likelihood(
        self,
        ready: Ready,
        rows: Sequence[int],
        known: Sequence[Mapping[str, str | None]],
        names: Sequence[str],
        shares_CL: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Shares of labels with the likelihood of each cell under its possible labels weighed in; (C, labels)."""
        possible_CL = (shares_CL >= POSSIBLE) & (shares_CL.max(1, keepdims=True) < SURE)
        possible_CL &= possible_CL.sum(1, keepdims=True) > 1
        pairs = np.argwhere(possible_CL)
        prompts = [self.writer.prompt("generate", {**known[cell], **as_answer(names[label])}) for cell, label in pairs]
        nats = self.engine.nats(prompts, [ready.ids[rows[cell]] for cell, _ in pairs], panel=ready.panel)
        weighed_CL = np.where(possible_CL, np.log(np.maximum(shares_CL, 1e-300)), -np.inf)
        for (cell, label), each in zip(pairs, nats, strict=True):
            weighed_CL[cell, label] -= each[2:].sum()  # without <cell> and its depth
        unsure = possible_CL.any(1)
        weighed_CL[unsure] = _softmax(weighed_CL[unsure] / 2) * (shares_CL * possible_CL)[unsure].sum(1, keepdims=True)
        return np.where(possible_CL, weighed_CL, shares_CL)

    def _labels_for(self, fields: Mapping[str, str | None]) -> list[str]:
        place = {name: value for name, value in fields.items() if name in ("organism", "organ") and value}
        return self.seen.values("cell_type", place) or self.seen.values("cell_type")

    def locate(self, adata: AnnData, *, key_added: str = "scmulan_organ", on_cell: Advance | None = None) -> pd.DataFrame:
        """The organ (and region) of each cell, from the cell alone; probabilities (C, organs), written into ``adata`` too."""
        tables, ready = self._ask_fields(adata, "locate", ("organ", "region"), on_cell)
        self._put_fields(adata, tables, {"organ": key_added, "region": "scmulan_region"}, "locate", ready)
        return tables["organ"].set_axis(adata.obs_names)

    def describe(self, adata: AnnData, *, on_cell: Advance | None = None) -> dict[str, pd.DataFrame]:
        """Every field of each cell, from the cell alone; field -> probabilities (C, values), written into ``adata`` too."""
        names = tuple(name for name in self.prompts.task("describe").predict if self.seen.values(name))
        tables, ready = self._ask_fields(adata, "describe", names, on_cell)
        self._put_fields(adata, tables, {name: f"scmulan_{name}" for name in tables}, "describe", ready)
        return {name: table.set_axis(adata.obs_names) for name, table in tables.items()}

    def _ask_fields(
        self, adata: AnnData, task: str, names: Sequence[str], on_cell: Advance | None
    ) -> tuple[dict[str, pd.DataFrame], Ready]:
        """Exact joint probabilities of the combinations that were seen, and from them those of each field."""
        combinations = list(dict.fromkeys(tuple((name, combination.get(name)) for name in names) for combination in self.seen.combinations))
        answers = [self.writer.answer(dict(combination), list(names)) for combination in combinations]
        ready = self.read(adata, reserve=self._reserve(max(len(answer) for answer in answers)))
        prompts = [self.writer.prompt(task, {}, cell=ready.ids[row]) for row in range(len(ready.ids))]
        joint = _softmax(self.engine.score(prompts, answers, on_cell=on_cell))
        tables = {}
        for place, name in enumerate(names):
            values = [combination[place][1] or ABSENT for combination in combinations]
            tables[name] = pd.DataFrame({value: joint[:, [v == value for v in values]].sum(1) for value in dict.fromkeys(values)})
        return tables, ready

    def _put_fields(self, adata: AnnData, tables: Mapping[str, pd.DataFrame], keys: Mapping[str, str], task: str, ready: Ready) -> None:
        obs: dict[str, Any] = {}
        for name, table in tables.items():
            best = table.to_numpy().argmax(1)
            obs[keys[name]] = [str(table.columns[number]) for number in best]
            obs[f"{keys[name]}_probability"] = table.to_numpy()[np.arange(len(table)), best]
        annotate_adata(adata, obs, uns=self.provenance(task=task, **self._losses(ready)))

    def embed(self, adata: AnnData, *, key_added: str = "X_scmulan", on_cell: Advance | None = None) -> npt.NDArray[np.float32]:
        """Embedding of each cell, read at one fixed place after the cell and told no label; (C, D), also in ``adata.obsm``."""
        ready = self.read(adata, reserve=self._reserve())
        states = self.engine.hidden([self.embedding_prompt(ready.ids[row]) for row in range(len(ready.ids))], on_cell=on_cell)
        annotate_adata(adata, {}, obsm={key_added: states}, uns=self.provenance(task="embed", **self._losses(ready)))
        return states

    def embedding_prompt(self, cell: Ids) -> Ids:
        """The cell and the opening of the question for its type: the same ids for every cell, no label among them."""
        return np.concatenate([self.writer.prompt("annotate", {}, cell=cell), [self.writer.control_id("<cell_type>")]])

    # -- a cell as a sentence ---------------------------------------------------------------------------------------------

    def sentence(self, adata: AnnData, row: int = 0) -> str:
        """One cell's c-sentence as text."""
        ready = self.read(adata[[row]].copy(), reserve=self._reserve())
        return str(self.checkpoint.tokenizer.decode(ready.ids[0]))

    def nats(
        self, source: AnnData | Ready, fields: Sequence[Mapping[str, str | None]], *, on_cell: Advance | None = None
    ) -> list[npt.NDArray[np.float64]]:
        """Nats of every id of each cell's sentence given its fields, among the genes that were measured; their sum is minus the
        log-likelihood of the cell."""
        ready = source if isinstance(source, Ready) else self.read(source, reserve=self._reserve())
        prompts = [self.writer.prompt("generate", fields[row]) for row in range(len(ready.ids))]
        return self.engine.nats(prompts, [ready.ids[row] for row in range(len(ready.ids))], panel=ready.panel, on_cell=on_cell)

    def speaks_for(self, adata: AnnData, row: int, label: str, against: str) -> pd.Series:
        """Genes by how much they speak for one cell type against another in one cell, in nats; by symbol, strongest first.

        The sum over genes, levels and the end is the log-likelihood ratio of the cell under the two types.
        """
        ready = self.read(adata[[row]].copy(), reserve=self._reserve())
        fields = self._given(ready.cells, GIVEN_TO_ANNOTATE)[0]
        asked = [{**fields, **as_answer(canonical("cell_type", name).value)} for name in (label, against)]
        first, second = (self.engine.nats([self.writer.prompt("generate", f)], [ready.ids[0]], panel=ready.panel)[0] for f in asked)
        ids = ready.ids[0]
        is_gene = ids >= self.vocabulary.first_gene
        names = [self.vocabulary.genes[number - self.vocabulary.first_gene] for number in ids[is_gene]]
        return pd.Series((second - first)[is_gene], index=names).sort_values(ascending=False)

    # -- provenance -------------------------------------------------------------------------------------------------------

    def provenance(self, **how: Any) -> dict[str, Any]:
        """What made a result: model, versions and how it was asked."""
        card = self.checkpoint.card
        return {"model": str(self.checkpoint.folder.name), "weights_sha256": card["weights_sha256"], "scmulan": __version__, **how}

    def _losses(self, ready: Ready) -> dict[str, Any]:
        return {"share_of_counts_outside_vocabulary": round(ready.outside, 6), "cells_thinned_to_fit": int(ready.thinned.sum())}

    def _reserve(self, answer: int = 48) -> int:
        """Ids that a sentence keeps free for fields and answer."""
        return min(64 + answer, self.checkpoint.context // 4)


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))
