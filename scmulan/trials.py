"""How a cell should be written, settled by small models trained alike on one data set (``scmulan bench sentence``).

A trial is a layout of the cell, a loss, and changes of the recipe. For each: nats per held-out cell given its fields and depth,
annotation, ids per cell and seconds per step. ``shuffled`` spreads a cell over all orders of each level's genes, so the logarithm
of how many there are is taken from its nats, which leaves an upper bound.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammaln, log_softmax
from sklearn.metrics import accuracy_score, f1_score
from transformers import PreTrainedTokenizerFast

from scmulan import csentence, csentence_thinning
from scmulan.corpus.build import build_corpus
from scmulan.corpus.own_tokenizer import build_plan_tokenizer
from scmulan.corpus.pack import epoch_packs
from scmulan.corpus.plan import read_plan
from scmulan.csentence import BOUNDS, N_DEPTHS, Ids, Vocabulary
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import PromptError, nearest
from scmulan.hazard import next_log_probabilities
from scmulan.labels import as_answer
from scmulan.model import load_checkpoint
from scmulan.prompts import Prompts, Sentence, SentenceWriter, Task
from scmulan.training.held_out import Data, evaluate
from scmulan.training.loop import Run
from scmulan.training.packed import Loss, PackInputs, shipped_loss
from scmulan.training.recipe import Recipe, fill
from scmulan.training.seen import seen_labels

Say = Callable[[str], None]

CONTEXT = 820
LONGEST = 2048
STEPS = 300
ROWS = 1024
PLAN = {"path": "embedded:zheng_pbmc_facs.h5ad", "split": {"by": "column"}}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to write cells and to train on them.

    Attributes
    ----------
    layout : a name of ``LAYOUTS``
    loss : ``shipped`` (hazards, in chunks), ``hazards``, ``legal`` or ``all`` (softmax over whole rows)
    gene_order : of the ids, as in a corpus plan
    changes : of the recipe
    """

    layout: str = "levels"
    loss: str = "shipped"
    gene_order: str = "rising"
    changes: Mapping[str, Any] = field(default_factory=dict)


TRIALS: dict[str, Trial] = {
    "as shipped": Trial(),
    "as shipped, another seed": Trial(changes={"seed": 1}),
    "softmax over the legal ids": Trial(loss="legal"),
    "softmax over all ids": Trial(loss="all"),
    "ids by falling detection": Trial(gene_order="falling"),
    "ids in alphabetical order": Trial(gene_order="alphabetical"),
    "genes of a level shuffled, softmax over the legal ids": Trial(layout="shuffled", loss="legal"),
    "gene order with levels between, softmax over the legal ids": Trial(layout="between", loss="legal"),
    "gene order with levels between, hazards": Trial(layout="between", loss="hazards"),
    "gene-value pairs, softmax over the legal ids": Trial(layout="pairs", loss="legal"),
    "gene-value pairs, hazards": Trial(layout="pairs", loss="hazards"),
    "labels weigh 1": Trial(changes={"loss": {"fields": 1.0}}),
    "labels weigh 3": Trial(changes={"loss": {"fields": 3.0}}),
    "labels weigh 30": Trial(changes={"loss": {"fields": 30.0}}),
    "no cell thinned": Trial(changes={"packing": {"thin_share": 0.0}}),
    "half of the cells thinned to the end": Trial(changes={"packing": {"thin_share": 0.5}, "thin_until": 1.0}),
    "gene embeddings started at random": Trial(changes={"model": {"gene_start": "random"}}),
}


LAYOUTS = ("levels", "shuffled", "between", "pairs")
"""``levels``: the c-sentence; ``shuffled``: its genes in any order within a level; ``between``: genes in id order, a level wherever it
changes; ``pairs``: genes in id order, each followed by its level."""


# -- layouts ---------------------------------------------------------------------------------------------------------------


def lay_out(cell: Ids, layout: str, vocabulary: Vocabulary, rng: np.random.Generator) -> Ids:
    """A cell's ids, from ``<cell>`` to ``</cell>``, in another layout."""
    v, body = vocabulary, cell[2:-1]
    is_gene = body >= v.first_gene
    place = np.maximum.accumulate(np.where(is_gene, 0, np.arange(len(body)))) if len(body) else body
    gene, level = body[is_gene], body[place][is_gene]
    if layout == "shuffled":
        order = np.lexsort((rng.random(len(gene)), level))
    else:
        order = np.lexsort((gene, level)) if layout == "levels" else np.argsort(gene)
    gene, level = gene[order], level[order]
    if layout == "pairs":
        laid = np.stack([gene, level], axis=1).ravel()
    else:
        opens = np.flatnonzero(np.append(True, level[1:] != level[:-1])) if len(level) else np.zeros(0, np.int64)
        laid = np.insert(gene, opens, level[opens])
    return np.concatenate([cell[:2], laid, cell[-1:]])


def orders_within_levels(cell: Ids, vocabulary: Vocabulary) -> float:
    """Log of the number of orders in which the genes of a cell's levels could stand."""
    is_level = (cell >= vocabulary.first_level) & (cell < vocabulary.end_of_cell)
    at = np.flatnonzero(is_level | (cell == vocabulary.end_of_cell))
    return float(gammaln(np.diff(at)).sum())


class TrialWriter(SentenceWriter):
    """Writes cells in a layout, for two tasks: to generate and to annotate."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, prompts: Prompts, *, layout: str):
        tasks: dict[str, Task] = {name: prompts.tasks[name] for name in ("generate", "annotate")}
        super().__init__(tokenizer, vocabulary, dataclasses.replace(prompts, tasks=tasks))
        self.layout = layout

    def training_sentence(
        self,
        task: Task,
        fields: Mapping[str, str | None],
        cell: Ids,
        rng: np.random.Generator,
        *,
        is_depth_true: bool = True,
        first: tuple[Ids, Mapping[str, str | None]] | None = None,
    ) -> Sentence:
        """One sentence, the cell in the trial's layout."""
        laid = lay_out(cell, self.layout, self.vocabulary, rng)
        return super().training_sentence(task, fields, laid, rng, is_depth_true=is_depth_true, first=first)


# -- losses over whole rows of the vocabulary ------------------------------------------------------------------------------


def legal_rows(ids: Ids, at: Ids, layout: str, vocabulary: Vocabulary) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which ids may follow the positions ``at`` of a pack, under a layout's grammar.

    Returns
    -------
    legal : (len(at), vocabulary.size) bool
    in_cell : (len(at),) bool, whether genes, levels and the end of a cell are what may follow
    """
    v = vocabulary
    legal = np.zeros((len(at), v.size), dtype=bool)
    inside = np.cumsum((ids == v.cell).astype(int) - (ids == v.end_of_cell))[at] == 1
    after_cell = ids[at] == v.cell
    legal[after_cell, v.first_depth : v.first_depth + N_DEPTHS] = True
    legal[~inside, v.text[0] : v.first_depth] = True
    legal[~inside & ~_must_be_word(ids, at, v), v.eos : v.text[0]] = True
    legal[~inside, v.first_gene : v.last_gene] = True
    in_cell = inside & ~after_cell
    starts = np.flatnonzero(ids == v.cell)
    starts = starts[np.searchsorted(starts, at, side="right") - 1] if len(starts) else at
    for row in np.flatnonzero(in_cell):
        legal[row] = _legal_in_cell(ids[starts[row] + 2 : at[row] + 1], layout, v)
    return legal, in_cell


def _must_be_word(ids: Ids, at: Ids, v: Vocabulary) -> npt.NDArray[np.bool_]:
    """Whether positions stand right after a field's token."""
    here, following = ids[at], ids[at + 1]
    is_word = ((following >= v.text[0]) & (following < v.text[1])) | (following >= v.first_gene)
    return (here >= len(BOUNDS)) & (here < v.text[0]) & is_word


def _legal_in_cell(body: Ids, layout: str, v: Vocabulary) -> npt.NDArray[np.bool_]:
    """What may follow the genes and levels of a cell that stand already; (vocabulary.size,)."""
    legal = np.zeros(v.size, dtype=bool)
    gene_ids, level_ids = body[body >= v.first_gene], body[body < v.first_gene]
    after_gene = bool(len(body)) and body[-1] >= v.first_gene
    after_level = bool(len(body)) and not after_gene
    last_gene = gene_ids[-1] if len(gene_ids) else v.first_gene - 1
    levels, genes = slice(v.first_level, v.end_of_cell), slice(v.first_gene, v.last_gene)
    if layout == "pairs":
        legal[levels] = after_gene
        legal[last_gene + 1 : v.last_gene] = not after_gene
        legal[v.end_of_cell] = after_level
        return legal
    legal[v.end_of_cell] = after_gene
    if layout == "between":
        legal[levels] = not after_level
        legal[level_ids[-1:]] = False
        legal[last_gene + 1 : v.last_gene] = bool(len(body))
        return legal
    legal[(level_ids[-1] + 1 if len(level_ids) else v.first_level) : v.end_of_cell] = not after_level
    if len(body):
        legal[genes if layout == "shuffled" or after_level else slice(last_gene + 1, v.last_gene)] = True
    legal[gene_ids] = False
    return legal


def loss_over_rows(
    hidden_TD: torch.Tensor,
    output_VD: torch.Tensor,
    inputs: PackInputs,
    vocabulary: Vocabulary,
    *,
    layout: str,
    loss: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``scmulan.training.packed.Loss`` says, with every logit of a row made: over ``all`` ids, the ``legal`` ones, or by ``hazards``."""
    v, ids, weights_T = vocabulary, inputs.ids, torch.from_numpy(inputs.weights).to(hidden_TD.device)
    learnt = np.flatnonzero(inputs.is_learnt[1:])
    total = torch.zeros((), device=hidden_TD.device)
    nats_T = torch.zeros(len(hidden_TD), device=hidden_TD.device)
    for first in range(0, len(learnt), ROWS):
        at = learnt[first : first + ROWS]
        target = torch.from_numpy(ids[at + 1])
        with torch.autocast(hidden_TD.device.type, enabled=False):  # float32, as in the shipped loss
            logits = hidden_TD[torch.from_numpy(at)] @ output_VD.T
        if loss == "all":
            chances = logits.log_softmax(1)
        else:
            legal, in_cell = (torch.from_numpy(part) for part in legal_rows(ids, at, layout, v))
            chances = logits.masked_fill(~legal, -torch.inf).log_softmax(1)
            if loss == "hazards":
                chances = torch.where(in_cell[:, None], next_log_probabilities(logits, legal, v), chances)
        nats = -chances.gather(1, target[:, None])[:, 0]
        total = total + (nats * weights_T[torch.from_numpy(at)]).sum()
        nats_T[torch.from_numpy(at)] = nats.detach()
    return total, nats_T


# -- one trial -------------------------------------------------------------------------------------------------------------


def run_trials(
    names: Sequence[str] = (), *, steps: int = STEPS, preset: str = "small", folder: Path | None = None, say: Say = print
) -> dict[str, dict[str, float]]:
    """The trials of those names (all when none is given), one after another; figures by trial."""
    for name in names:
        if name not in TRIALS:
            raise PromptError(f"trial {name!r}: needed one of {', '.join(TRIALS)}{nearest(name, list(TRIALS))}")
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        for number, name in enumerate(names or TRIALS):
            found[name] = _run_trial(TRIALS[name], place / f"trial-{number}", place, steps=steps, preset=preset)
            say(f"{name}: {found[name]}")
    return found


def _corpus(place: Path, gene_order: str) -> Path:
    """The corpus in one order of ids, built where it is not there yet."""
    folder = place / f"ids-{gene_order}"
    if not (folder / "corpus" / "manifest.json").is_file():
        plan = read_plan({"sources": [PLAN], "tokenizer": {"least_cells": 40, "text_size": 400, "gene_order": gene_order}})
        build_plan_tokenizer(plan, folder / "tokenizer")
        build_corpus(plan, folder / "tokenizer", folder / "corpus")
    return folder / "corpus"


def _recipe(trial: Trial, output: Path, corpus: Path, steps: int, preset: str) -> Recipe:
    given: dict[str, Any] = {
        "output": str(output),
        "corpus": str(corpus),
        "model": {"preset": preset},
        "packing": {"context": CONTEXT},
        "optimizer": {"matrix_lr": 0.015, "lr": 0.006},
        "loss": {"fields": 10.0},
        "steps": steps,
        "compile": True,
        "evaluate_every": 10 * steps,
        "checkpoint_every": 10 * steps,
    }
    for key, value in trial.changes.items():
        given[key] = {**given.get(key, {}), **value} if isinstance(value, Mapping) else value
    recipe: Recipe = fill(Recipe, given, "trial")
    return recipe


def _run_trial(trial: Trial, output: Path, place: Path, *, steps: int, preset: str) -> dict[str, float]:
    corpus = _corpus(place, trial.gene_order)
    recipe = _recipe(trial, output, corpus, steps, preset)
    loss: Loss = shipped_loss if trial.loss == "shipped" else partial(loss_over_rows, layout=trial.layout, loss=trial.loss)
    write = partial(TrialWriter, layout=trial.layout)
    run = Run(recipe, corpus, say=lambda line: None, log_with=None, make_writer=write, loss_of=loss)
    run.held_out = None
    run.lm.config.max_position_embeddings = LONGEST
    began = time.perf_counter()
    folder = run.train()
    seconds = time.perf_counter() - began
    held = Data.open(run.corpus, "test", run.writer)
    return {
        **_nats(run, held),
        **_annotation(run, held, folder),
        "ids_per_cell": round(float(np.mean([len(cell) for cell in _laid(run, held)])), 1),
        "seconds_per_step": round(seconds / steps, 3),
    }


def _writer(run: Run) -> TrialWriter:
    assert isinstance(run.writer, TrialWriter)
    return run.writer


def _laid(run: Run, held: Data) -> list[Ids]:
    """Held-out cells, thinned to the context of the trials, in the trial's layout."""
    counts, _ = csentence_thinning.thin_to_fit(held.counts, CONTEXT - 64)
    ids = csentence.encode(counts, run.vocabulary)
    rng = np.random.default_rng(0)
    return [lay_out(ids[row], _writer(run).layout, run.vocabulary, rng) for row in range(len(ids))]


def _nats(run: Run, held: Data) -> dict[str, float]:
    """Nats of levels and genes of each held-out cell given all its fields and its depth, mean."""
    writer = copy.copy(_writer(run))
    whole = dataclasses.replace(writer.prompts.tasks["generate"], drop={}, weight=1.0)
    writer.prompts = dataclasses.replace(writer.prompts, tasks={"generate": whole})
    packs = epoch_packs(held.rows, held.counts, writer, run.recipe.packing, seed=1, epoch=0, augment=False)
    found = evaluate(run.module, run.packed, packs, writer, run.weights, run.parallel).per_sentence
    nats = found["generate/level"] + found["generate/gene"]
    if writer.layout == "shuffled":
        nats -= float(np.mean([orders_within_levels(cell, run.vocabulary) for cell in _laid(run, held)]))
    return {"nats_per_cell": round(nats, 1), "nats_of_levels": round(found["generate/level"], 1)}


def _annotation(run: Run, held: Data, folder: Path) -> dict[str, float]:
    """Accuracy, macro-F1 and nats of the cell type from the cell alone, among the types of the training cells."""
    true = np.array(held.rows.fields["cell_type"], dtype=str)
    names = sorted({seen["cell_type"] for seen in seen_labels(run.corpus) if "cell_type" in seen})
    engine = TransformersEngine(load_checkpoint(folder))
    prompts = [run.writer.prompt("annotate", {}, cell=cell) for cell in _laid(run, held)]
    scores = engine.score(prompts, [run.writer.answer(as_answer(name), ["lineage", "cell_type"]) for name in names])
    chances, said = log_softmax(scores, axis=1), np.array(names)[scores.argmax(1)]
    return {
        "accuracy": round(float(accuracy_score(true, said)), 4),
        "macro_f1": round(float(f1_score(true, said, average="macro")), 4),
        "nats_of_type": round(float(-np.mean([row[names.index(label)] for row, label in zip(chances, true, strict=True)])), 3),
    }
