"""The rates of a fine-tuning (``scmulan.rates``): fitted on the labelled cells that the model was tuned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scmulan.corpus.pack import counts_of
from scmulan.corpus.shards import Corpus
from scmulan.csentence import encode
from scmulan.csentence_thinning import thin_to_fit
from scmulan.engines.transformers_rates import taken_and_expected
from scmulan.finetune_cells import labelled, opened_with, shards_of_new, tell
from scmulan.finetune_split import TRAIN
from scmulan.metadata import FIELDS
from scmulan.rates import Kind, fit_rates, kind_of
from scmulan.training.loop import Say

MOST_CELLS = 500
"""No more cells are read than these."""


def add_rates(folder: Path, base: Path, corpus: Corpus, n_new: int, *, seed: int, say: Say) -> None:
    """Fit the rates and lay them into the folder of an adapter or model, its card told; none where no cell has a type."""
    rows = labelled(corpus.read(TRAIN, shards_of_new(corpus, n_new)), MOST_CELLS, seed)
    if not len(rows):
        return
    opened, engine = opened_with(folder, base)
    read, _ = thin_to_fit(counts_of(rows.ids, opened.writer), opened.length - opened.reserve())
    cells = encode(read, opened.vocabulary)
    fields = opened.known([{name: rows.fields.get(name, [None] * len(rows))[row] for name in FIELDS} for row in range(len(rows))])
    of_kind = dict[Kind, list[int]]()
    for row, known in enumerate(fields):
        of_kind.setdefault(kind_of(known), []).append(row)
    sums = []
    for members in of_kind.values():
        prompts = [opened.writer.prompt("generate", fields[row]) for row in members]
        sums.append(taken_and_expected(engine, prompts, [cells[row] for row in members]))
    taken_K2V, expected_K2V = (np.stack(parts) for parts in zip(*sums, strict=True))
    rates = fit_rates(taken_K2V, expected_K2V, list(of_kind), opened.vocabulary)
    tell(folder, "rates", rates.save(folder), {"kinds": [list(kind) for kind in of_kind], "cells": len(rows)})
    genes = slice(opened.vocabulary.first_gene, opened.vocabulary.last_gene)
    share = taken_K2V[..., genes].sum() / expected_K2V[..., genes].sum()
    say(f"rates: {len(rows):,} cells of {len(of_kind)} kinds, which take {share:.2f} times as many genes as the model expects")
