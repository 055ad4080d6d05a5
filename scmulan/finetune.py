"""Fine-tuning: labelled cells and a model in; an adapter (or a whole model) that has learnt their labels out.

Labels are text, so new organs, types, assays, perturbations and times need no new row of the vocabulary. The cells become a corpus under
the model's own tokenizer, with some held out (``scmulan.finetune_split``), and go through the training loop.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scmulan.adapters_folder import base_of, joined_labels
from scmulan.cells import AnnData
from scmulan.cells_writing import write_h5ad
from scmulan.corpus.blocks import open_source
from scmulan.corpus.build import build_corpus
from scmulan.corpus.plan import EMBEDDED, Plan, Source, Split, TokenizerPlan, read_plan
from scmulan.corpus.shards import Corpus, write_json
from scmulan.errors import CellDataError, some
from scmulan.finetune_cells import shards_of_new
from scmulan.finetune_mix import Generate, old_sources
from scmulan.finetune_rates import add_rates
from scmulan.finetune_readout import add_readout
from scmulan.finetune_recipe import FinetuneRecipe, fill_finetune
from scmulan.finetune_split import HELD, TRAIN, Division, as_said, divide
from scmulan.model import CARD, load_card, model_folder
from scmulan.model_card import write_card
from scmulan.prompts import SentenceWriter
from scmulan.training.loop import Run, Say
from scmulan.training.seen import seen_labels

KINDS = ("cell_type", "perturbation", "time", "region", "organ", "lineage", "disease", "stage", "assay")
"""The field whose labels are divided between what is learnt from and what is held out: the first that the cells have."""


def finetune(
    cells: AnnData | str | Path,
    output: str | Path,
    *,
    base: str | Path = "demo",
    generate: Generate | None = None,
    say: Say = print,
    **settings: Any,
) -> Path:
    """Train an adapter, or all weights, on labelled cells.

    Parameters
    ----------
    cells : AnnData, or a file or store; counts, and labels in ``obs``
    output : folder for all that is made
    base : the model, a folder or ``demo``
    generate : its ``Model.generate``, where it is to write stand-ins (``mix={"generated": 200}``)
    settings : lines of ``FinetuneRecipe``, as ``steps=100, adapter={"rank": 8}, mix={"generated": 200}``

    Returns
    -------
    The adapter's folder, or the model's where ``adapter=None``.

    Raises
    ------
    RecipeError, CellDataError, CheckpointError
        For a setting, cells or a model that can't be used.

    Examples
    --------
    >>> folder = finetune(adata, "kidney-lora")  # doctest: +SKIP
    >>> model = scmulan.load("demo", adapter=folder)  # doctest: +SKIP
    """
    output = Path(output)
    if isinstance(cells, AnnData):
        output.mkdir(parents=True, exist_ok=True)
        write_h5ad(cells, output / "cells.h5ad")
        cells = output / "cells.h5ad"
    named = str(cells) if str(cells).startswith(EMBEDDED) else str(Path(cells).absolute())
    given = {**settings, "cells": named, "output": str(output), "base": str(base)}
    return run_finetune(fill_finetune(given, "finetune"), generate=generate, say=say)


def run_finetune(recipe: FinetuneRecipe, *, generate: Generate | None = None, say: Say = print) -> Path:
    """Carry a fine-tuning recipe out; it goes on where it stopped. Returns the folder of the adapter or model."""
    base, output, prompts = model_folder(recipe.base), Path(recipe.output), recipe.prompts()
    card = load_card(base)
    recipe.training(base, output / "corpus", is_held_out=True)  # what is wrong with its lines is said before the work
    output.mkdir(parents=True, exist_ok=True)
    sources = _sources(recipe)
    division, split_files = _divide(recipe, sources, output)
    for line in division.lines():
        say(line)
    _check_labels(recipe, division, say)
    fresh = [dataclasses.replace(source, split=Split(by="file", file=str(file))) for source, file in zip(sources, split_files, strict=True)]
    old = old_sources(recipe, base, output, n_new=division.splits.count(TRAIN), generate=generate, say=say)
    plan = Plan(sources=(*fresh, *old), tokenizer=TokenizerPlan(folder=str(base)))
    manifest = build_corpus(plan, base, output / "corpus", say=say)
    _say_of_genes(manifest, say)
    is_held_out = HELD in division.splits
    training = recipe.training(base, output / "corpus", is_held_out=is_held_out, context=card.get("context"))
    writer = lambda tokenizer, vocabulary, _: SentenceWriter(tokenizer, vocabulary, prompts)  # noqa: E731
    folder = Run(training, output / "corpus", say=say, log_with=None, make_writer=writer).train()
    _finish_card(folder, recipe, card, base, division, Corpus(output / "corpus"), n_old=len(old))
    if recipe.readout and recipe.weight_of("annotate"):
        add_readout(folder, base, Corpus(output / "corpus"), len(fresh), seed=recipe.seed, say=say)
    if recipe.rates and not recipe.is_answering_only():
        tasks = [name for name in prompts.tasks if recipe.weight_of(name)]
        add_rates(folder, base, Corpus(output / "corpus"), len(fresh), tasks=tasks, seed=recipe.seed, say=say)
    return folder


def _sources(recipe: FinetuneRecipe) -> list[Source]:
    entries = recipe.cells if isinstance(recipe.cells, list) else [recipe.cells]
    return list(read_plan({"sources": entries}, Path(recipe.folder)).sources)


def _divide(recipe: FinetuneRecipe, sources: list[Source], output: Path) -> tuple[Division, list[Path]]:
    """How the cells of all sources are divided, and a file that says it for each source."""
    labels, donors, said, sizes = list[str | None](), list[str | None](), list[str](), list[int]()
    column, found = recipe.held_out.column, dict[str, list[str | None]]()
    for source in sources:
        store = open_source(source, output / "scratch")
        fields = store.labels(0, store.n_cells)
        sizes.append(store.n_cells)
        donors += fields.donors
        for name in KINDS:
            found.setdefault(name, []).extend(fields.fields.get(name) or [None] * store.n_cells)
        if column is not None:
            said += [value or "" for value in store.column(column, 0, store.n_cells)]
    where = some([Path(source.path).name for source in sources])
    labels = next((values for values in found.values() if any(values)), [None] * sum(sizes))
    division = as_said(said, labels, donors, column, where) if column is not None else divide(labels, donors, recipe.held_out, where)
    files, first = [], 0
    for n_cells in sizes:
        text = "\n".join(division.splits[first : first + n_cells]) + "\n"
        path = output / f"split-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"
        path.write_text(text)
        files.append(path)
        first += n_cells
    return division, files


def _check_labels(recipe: FinetuneRecipe, division: Division, say: Say) -> None:
    """CellDataError when there is nothing to tell apart and nothing else to learn; a word when annotation would learn one answer."""
    learnt = [label for label in division.labels[TRAIN] if label]
    if not learnt and recipe.is_answering_only():
        raise CellDataError(
            f"no cell has a label ({', '.join(KINDS)}), and the tasks are of labels alone; name a column, fields: {{cell_type: COLUMN}}"
        )
    if len(learnt) == 1 and recipe.mix is None:
        what = f"every cell is {learnt[0]!r}, so a model that is asked would learn to say that of any cell"
        if recipe.is_answering_only():
            raise CellDataError(f"{what}; add cells of other labels, mix old ones in (mix:), or train generate too")
        say(f"{what}; mix old cells in (mix:) if you mean to annotate with it")


def _say_of_genes(manifest: Mapping[str, Any], say: Callable[[str], None]) -> None:
    for source in manifest["sources"]:
        if source["share_of_counts_outside_vocabulary"] > 0.02:
            say(f"{source['file']}: {source['share_of_counts_outside_vocabulary']:.1%} of its counts are of genes the model has no id for")


def _finish_card(
    folder: Path, recipe: FinetuneRecipe, base_card: Mapping[str, Any], base: Path, division: Division, corpus: Corpus, *, n_old: int
) -> None:
    """Say in the card what was tuned, how the cells were divided, and the labels of the new cells alone."""
    card = json.loads((folder / CARD).read_text())
    labels = seen_labels(corpus, shards_of_new(corpus, len(card["sources"]) - n_old))
    is_whole = recipe.adapter is None
    card["labels"] = joined_labels(base_card["labels"], labels) if is_whole else labels
    card["sources"] = [*(base_card.get("sources", []) if is_whole else []), *card["sources"]]
    card |= {"tuned_from" if is_whole else "base": base_of(base_card, base), "held_out": division.to_dict(), "recipe": recipe.to_dict()}
    write_json(folder / CARD, card)
    write_card(folder, card)
