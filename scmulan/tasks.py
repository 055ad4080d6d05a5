"""The model as its users see it: AnnData in, AnnData out, one method a task.

    model = scmulan.load("demo")
    cells = model.generate(organ="blood", cell_type="B cell", n=50)
    model.annotate(adata)

A method that answers reads the cells (`tasks_opened`), asks for exact probabilities (`tasks_answers`) and writes them into the AnnData;
one that writes cells has them from `tasks_writing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan.adapters_folder import Adapter
from scmulan.cells import AnnData, Cells
from scmulan.cells_writing import annotate_adata
from scmulan.csentence import Ids
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance, Engine
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import PromptError, some
from scmulan.labels import SeenLabels
from scmulan.levels import LEVELS, as_obs, coarsen, terms_of
from scmulan.metadata import canonical
from scmulan.model import Checkpoint, load_checkpoint
from scmulan.tasks_about_genes import AboutGenes
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.tasks_asking import Answer, Asked, answer, requests_given
from scmulan.tasks_carrying import Circumstances
from scmulan.tasks_changed import ChangedCells
from scmulan.tasks_edits import Action, Edited, edit
from scmulan.tasks_embedding import Embeddings, EmbeddingSettings
from scmulan.tasks_opened import Opened, Ready
from scmulan.tasks_reading import Reader, Reading
from scmulan.tasks_screen import CONTROLS, MOST_CELLS, screen
from scmulan.tasks_writing import WrittenCells

if TYPE_CHECKING:
    from scmulan.search import CellIndex


def load(
    name: str | Path = "demo",
    *,
    adapter: str | Path | None = None,
    adapters: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
) -> Model:
    """Open a model folder, or the embedded one by the name ``demo``.

    Parameters
    ----------
    adapter : folder of an adapter that was trained on this model, used from the start
    adapters : several by name; none is used before ``model.use(name)``

    Raises
    ------
    CheckpointError
        When the folder is missing, damaged, or has another tokenizer.
    """
    checkpoint = load_checkpoint(name)
    model = Model(checkpoint, engine or TransformersEngine(checkpoint, device=device))
    for called, folder in (adapters or {}).items():
        model.add_adapter(folder, called)
    model.use(None)
    if adapter is not None:
        model.add_adapter(adapter)
    return model


class Model:
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

    # -- adapters ---------------------------------------------------------------------------------------------------------

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

    def use(self, adapter: str | None) -> Model:
        """Answer with one of the loaded adapters from now on, or with none; returns the model itself."""
        self.opened.use(adapter)
        return self

    def finetune(self, cells: AnnData | str | Path, output: str | Path, **settings: Any) -> Model:
        """Train an adapter (or, with ``adapter=None``, all weights) on labelled cells, and go on with what was trained.

        Parameters
        ----------
        cells : AnnData, or a file or store of cells; labels in ``obs``
        output : folder that gets the split, the curve and the adapter, ``output/adapter``
        settings : lines of the recipe, as ``steps=200, adapter={"rank": 8}``; see ``scmulan.finetune_recipe.FinetuneRecipe``

        Returns
        -------
        This model with the adapter in use, under the output's name (``model.use(None)`` is the base again); a new one where all weights
        were trained.
        """
        from scmulan.finetune import finetune

        used = self.adapter
        self.use(None)  # stand-ins are the base's
        try:
            folder = finetune(cells, output, base=self.checkpoint.folder, generate=self.generate, **settings)
        finally:
            self.use(used)
        if (folder / "model.safetensors").is_file():
            return load(folder, device=str(getattr(self.engine, "device", "cpu")))
        self.add_adapter(folder, Path(output).resolve().name)
        return self

    def read(self, source: str | Path | AnnData | Cells, *, reserve: int = 0, fields: Mapping[str, str] | None = None) -> Ready:
        """Cells as sentences that leave ``reserve`` ids of the context free.

        Raises
        ------
        CellDataError, VocabularyError
            When the cells can't be read, or no gene of theirs is in the vocabulary.
        """
        return self.opened.read(source, reserve=reserve, fields=fields)

    # -- tasks that write cells -------------------------------------------------------------------------------------------

    def generate(
        self,
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        least_hazard: float = Sampling.least_hazard,
        rates: bool = Sampling.rates,
        depth: int | None = None,
        naming: str = "symbol",
        on_cell: Advance | None = None,
        **fields: str | None,
    ) -> AnnData:
        """Cells of a kind.

        Parameters
        ----------
        n : number of cells
        temperature, top_p, least_hazard, rates : as in ``Sampling``
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
        sampling = Sampling(temperature=temperature, top_p=top_p, least_hazard=least_hazard, seed=seed, rates=rates)
        return self.written.write(rows, {}, "generate", sampling, depth, naming, on_cell)

    def complete(
        self,
        genes: Mapping[str, int],
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        least_hazard: float = Sampling.least_hazard,
        rates: bool = Sampling.rates,
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
        sampling = Sampling(temperature=temperature, top_p=top_p, least_hazard=least_hazard, seed=seed, rates=rates)
        return self.written.write(rows, around, "complete", sampling, depth, naming, on_cell)

    def rows_for(self, n: int, fields: Mapping[str, str | None], seed: int) -> list[dict[str, str]]:
        """Fields of n cells to write: those given, the others drawn from what was seen together with them."""
        return self.written.rows_for(n, fields, seed)

    def around(self, genes: Mapping[str, int], organism: str | None = None) -> dict[int, int]:
        """Level by vocabulary column of the genes that a cell is to be written around, from counts by any gene name.

        Raises
        ------
        VocabularyError, PromptError
            When a gene is unknown, not of this model, given twice, or its count is not whole and positive.
        """
        return self.written.around(genes, organism)

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
        return self.written.counts(rows, sampling, around=around, depths=depths, on_cell=on_cell)

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

    # -- nearest cells of an index ----------------------------------------------------------------------------------------

    def search(self, adata: AnnData, index: CellIndex | str | Path, *, k: int = 10, on_cell: Advance | None = None) -> pd.DataFrame:
        """The ``k`` nearest reference cells of each cell, by an index that this model made (`scmulan.search_build.index_cells`).

        Returns
        -------
        DataFrame (C x k)
            A row for each pair, nearest first: ``cell``, ``rank`` from 1, ``distance``, ``cell_id``, ``source``, ``dataset``, ``donor``
            and the fields of the reference cell.

        Raises
        ------
        CheckpointError
            When the index was made with another model or adapter, or a file of it is damaged.
        """
        from scmulan.search import search

        return search(self, adata, index, k=k, on_cell=on_cell)

    def transfer(
        self, adata: AnnData, index: CellIndex | str | Path, *, field: str = "cell_type", key_added: str | None = None, **settings: Any
    ) -> pd.DataFrame:
        """Labels by votes of the nearest reference cells; written into ``adata`` too.

        Parameters
        ----------
        field : whose labels; ``cell_type``, ``lineage``, ``organ`` ...
        key_added : column of ``obs``, ``scmulan_transferred_FIELD`` when not given; ``_probability`` and ``_beyond`` stand beside it
        settings : ``k``, ``beyond``, ``threshold`` and ``on_cell`` of `scmulan.search.transfer`

        Returns
        -------
        DataFrame (C, labels)
            Shares of the votes; a row adds up to 1, or to 0 where no neighbour has a label.
        """
        from scmulan.search import transfer

        return transfer(self, adata, index, field=field, key_added=key_added, **settings)

    def embedding_prompt(self, cell: Ids) -> Ids:
        """The cell and the opening of the question for its type: the same ids for every cell, no label among them."""
        return np.concatenate([self.writer.prompt("annotate", {}, cell=cell), [self.writer.control_id("<cell_type>")]])

    # -- tasks about cells that change ------------------------------------------------------------------------------------

    def perturb(
        self,
        adata: AnnData,
        perturbation: str | Mapping[str, str],
        *,
        dose: str | None = None,
        time: str | None = None,
        n: int | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        on_cell: Advance | None = None,
    ) -> AnnData:
        """The cells as they would be after a perturbation, learnt from cells that were perturbed beside cells that were not.

        Parameters
        ----------
        adata : control cells; each is answered about by itself
        perturbation : ``{"STAT1": "knockout"}``, several genes at once, or a label such as ``"interferon beta"``
        dose, time : as in the training cells, for example ``"10 nM"`` and ``"hour 24"``
        n : cells to predict, from cells drawn evenly; one for each cell when not given
        sampling : as in ``generate``; ``seed`` is taken when not given

        Returns
        -------
        AnnData
            Predicted cells, ``obs["scmulan_from"]`` the cell of each. In ``var``, what the perturbation changes beside the same cells
            predicted with none: ``scmulan_before``, ``_after``, ``_change`` (log2), ``_low``, ``_high`` and ``_q_value``.

        Raises
        ------
        PromptError
            When the model has learnt from no perturbed cell, or a gene or label is unknown. A perturbation that no training cell had is
            answered with a warning.
        """
        return self.changes.perturb(
            adata, perturbation, {"dose": dose, "time": time}, n, sampling or Sampling(seed=seed, coupled=True), on_cell
        )

    def explain_shift(
        self,
        control: AnnData,
        perturbed: AnnData,
        *,
        perturbations: Sequence[str] | None = None,
        seed: int = 0,
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """Which perturbation turned control cells into others, likeliest first.

        Parameters
        ----------
        perturbations : to choose from; all that the model has learnt when not given

        Returns
        -------
        DataFrame
            A row a perturbation: ``probability``, over all cells as one population; ``mean_probability`` of a single cell; ``cells``, of
            which it is the likeliest. Each cell's own answer is written into ``perturbed.obs``.
        """
        return self.changes.explain(control, perturbed, perturbations, seed, on_cell)

    def next_state(
        self,
        adata: AnnData,
        time: str,
        *,
        n: int | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        on_cell: Advance | None = None,
    ) -> AnnData:
        """What the cells become by a later time, for example ``"day 6"``; as `perturb` gives it."""
        return self.changes.next_state(adata, time, n, sampling or Sampling(seed=seed), on_cell)

    def fate(self, adata: AnnData, time: str, *, labels: Sequence[str] | None = None, on_cell: Advance | None = None) -> pd.DataFrame:
        """Probabilities of the types that each cell takes by a later time; (C, types), the likeliest written into ``adata`` too."""
        return self.changes.fate(adata, time, labels, on_cell)

    def enhance(
        self,
        adata: AnnData,
        depth: int,
        *,
        draws: int = 4,
        seed: int = 0,
        sampling: Sampling | None = None,
        on_cell: Advance | None = None,
    ) -> AnnData:
        """The same cells, measured to a greater depth.

        Parameters
        ----------
        depth : counts a cell to aim at, within half an octave
        draws : whole cells that are drawn for each; more of them make a smoother estimate

        Returns
        -------
        AnnData
            ``layers["counts"]``, one draw a cell; ``layers["expected"]``, float32, the counts that were seen and, for the rest of the
            depth, the mean of all draws; ``X`` log1p CP10k of ``expected``.
        """
        return self.changes.enhance(adata, depth, draws, sampling or Sampling(seed=seed), on_cell)

    # -- genes edited in silico -------------------------------------------------------------------------------------------

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

    # -- questions in English ---------------------------------------------------------------------------------------------

    def ask(
        self,
        adata: AnnData | str | None = None,
        question: str | None = None,
        *,
        request: Asked | None = None,
        index: Any = None,
        seed: int = 0,
    ) -> Answer:
        """A question in English, answered in sentences whose every number comes from a result.

        Parameters
        ----------
        adata : the cells that are asked about; may be left out where the question needs none
        question : one or several questions in English; or
        request : what to do, as ``Answer.request`` gives it or as plain data, ``{"task": "generate", "organ": "lung", "number": 10}``
        index : of reference cells, for questions after similar ones

        Returns
        -------
        Answer
            ``request`` (printable, to be corrected and given back), ``results``, ``text``, and the probability of the reading.

        Raises
        ------
        PromptError
            When there is no question, a request can't be read, or the model was trained without questions.
        """
        if isinstance(adata, str):
            adata, question = None, adata if question is None else question
        if request is None and question is None:
            raise PromptError("nothing was asked; needed a question, or request= with what to do")
        reading = (
            self.read_questions([question])[0]
            if request is None and question is not None
            else requests_given(request or (), list(self.prompts.fields))
        )
        return answer(reading, Circumstances(model=self, adata=adata, index=index, seed=seed))

    def read_questions(self, questions: Sequence[str]) -> list[Reading]:
        """How each question is read: the requests, and how probable they are; nothing is carried out."""
        if self.checkpoint.card.get("recipe", {}).get("packing", {}).get("questions", 0) < 1:
            raise PromptError(
                f"{self.checkpoint.folder.name}: this model was trained without questions (packing.questions in its recipe is 0); "
                "give request= instead, for example request={'task': 'annotate'}"
            )
        return Reader(self.opened).read(questions)

    # -- a cell as a sentence ---------------------------------------------------------------------------------------------

    def sentence(self, adata: AnnData, row: int = 0) -> str:
        """One cell's c-sentence as text."""
        ready = self.read(adata[[row]].copy(), reserve=self.opened.reserve())
        return str(self.checkpoint.tokenizer.decode(ready.ids[0]))

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

    # -- provenance -------------------------------------------------------------------------------------------------------

    def provenance(self, **how: Any) -> dict[str, Any]:
        """What made a result: model, versions and how it was asked."""
        return self.opened.provenance(**how)
