"""The rates of a fine-tuning (``scmulan.rates``): fitted on the cells that the model was tuned on, for each task that writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from scmulan.corpus.pack import counts_of
from scmulan.corpus.pairs import controls_of
from scmulan.corpus.shards import CellRows, Corpus
from scmulan.csentence import Ids, Ragged, encode
from scmulan.csentence_thinning import thin_to_fit
from scmulan.engines.transformers import TransformersEngine
from scmulan.engines.transformers_rates import taken_and_expected
from scmulan.finetune_cells import labelled, opened_with, shards_of_new, tell
from scmulan.finetune_split import TRAIN
from scmulan.metadata import FIELDS
from scmulan.rates import Kind, Rates, fit_rates, kind_of
from scmulan.tasks_changes import AFTER, GIVEN, first_room
from scmulan.tasks_opened import Opened
from scmulan.training.loop import Say

MOST_CELLS = 500
"""No more cells are read than these, of the task `generate`."""
MOST_PERTURBED = 20_000
"""Nor than these, of `perturb`: what a perturbation does is little beside what a cell is."""

Prompts = Callable[[int], Ids]


def add_rates(folder: Path, base: Path, corpus: Corpus, n_new: int, *, tasks: Collection[str], seed: int, say: Say) -> None:
    """Fit the rates of the tasks that were learnt and lay them into the folder of an adapter or model, its card told; none where no
    cell is of a known kind."""
    rows = corpus.read(TRAIN, shards_of_new(corpus, n_new))
    opened, engine = opened_with(folder, base)
    fits = {"generate": _of_types, "perturb": _of_perturbations}
    found = [(name, *fit(opened, engine, rows, seed)) for name, fit in fits.items() if name in tasks]
    rates = Rates({kind: each for _, of_task, _, _ in found for kind, each in of_task.of_kind.items()})
    if not rates.of_kind:
        return
    cells = sum(n for _, _, n, _ in found)
    tell(folder, "rates", rates.save(folder), {"kinds": [list(kind) for kind in rates.of_kind], "cells": cells})
    for name, of_task, n, share in found:
        if n:
            say(f"rates of {name}: {n:,} cells of {len(of_task.of_kind)} kinds, {share:.2f} times the genes that the model expects")


Fit = tuple[Rates, int, float]


def _of_types(opened: Opened, engine: TransformersEngine, rows: CellRows, seed: int) -> Fit:
    """Rates of the types of cells, and how many cells they are of."""
    rows = labelled(rows, MOST_CELLS, seed)
    if not len(rows):
        return Rates({}), 0, 1.0
    read, _ = thin_to_fit(counts_of(rows.ids, opened.writer), opened.length - opened.reserve())
    fields = opened.known([_fields(rows, row) for row in range(len(rows))])
    kinds = [kind_of(known) for known in fields]
    return _fitted(opened, engine, encode(read, opened.vocabulary), kinds, lambda row: opened.writer.prompt("generate", fields[row]))


def _of_perturbations(opened: Opened, engine: TransformersEngine, rows: CellRows, seed: int) -> Fit:
    """Rates of perturbed cells (and of controls, which were perturbed by nothing), each behind a control."""
    first_cells, rng = controls_of(rows), np.random.default_rng([seed, 31])
    chosen = np.flatnonzero(first_cells.of_row >= 0)
    if not len(chosen):
        return Rates({}), 0, 1.0
    chosen = np.sort(rng.permutation(chosen)[:MOST_PERTURBED])
    first = np.array([first_cells.draw(int(row), uniform) for row, uniform in zip(chosen, rng.random(len(chosen)), strict=True)])
    counts, room = counts_of(rows.ids, opened.writer), first_room(opened)
    before, after = (encode(thin_to_fit(counts[of], room)[0], opened.vocabulary) for of in (first, chosen))
    given = opened.known([{name: _fields(rows, int(row)).get(name) for name in GIVEN} for row in first])
    asked = [{name: _fields(rows, int(row)).get(name) for name in AFTER} for row in chosen]
    kinds = [kind_of({**of_first, **of_second}, "perturb") for of_first, of_second in zip(given, asked, strict=True)]

    def prompt(number: int) -> Ids:
        return opened.writer.prompt("perturb", given[number], cell=before[number], after=asked[number])

    return _fitted(opened, engine, after, kinds, prompt)


def _fitted(opened: Opened, engine: TransformersEngine, cells: Ragged, kinds: Sequence[Kind], prompt: Prompts) -> Fit:
    of_kind = dict[Kind, list[int]]()
    for number, kind in enumerate(kinds):
        of_kind.setdefault(kind, []).append(number)
    sums = [taken_and_expected(engine, [prompt(one) for one in members], [cells[one] for one in members]) for members in of_kind.values()]
    taken_K2V, expected_K2V = (np.stack(parts) for parts in zip(*sums, strict=True))
    genes = slice(opened.vocabulary.first_gene, opened.vocabulary.last_gene)
    share = float(taken_K2V[..., genes].sum() / expected_K2V[..., genes].sum())
    return fit_rates(taken_K2V, expected_K2V, list(of_kind), opened.vocabulary), len(kinds), share


def _fields(rows: CellRows, row: int) -> Mapping[str, str | None]:
    return {name: rows.fields.get(name, [None] * len(rows))[row] for name in FIELDS}
