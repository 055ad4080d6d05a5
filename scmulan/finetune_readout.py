"""The readout of a fine-tuning: fitted on the labelled cells that the model was tuned on, its weight on those held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import scipy.sparse as sp

from scmulan.corpus.pack import counts_of
from scmulan.corpus.shards import Corpus
from scmulan.finetune_cells import labelled, opened_with, shards_of_new, tell
from scmulan.finetune_split import HELD, TRAIN
from scmulan.readout import fit_readout
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.training.loop import Say

MOST_CELLS, MOST_HELD = 5000, 500
"""A readout is for few cells: of all that are learnt from, and of those held out, no more are read than these."""


def add_readout(folder: Path, base: Path, corpus: Corpus, n_new: int, *, seed: int, say: Say) -> None:
    """Fit a readout of cell types and lay it into the folder of an adapter or model, its card told; none where there is one type."""
    files = shards_of_new(corpus, n_new)
    learnt, held = (labelled(corpus.read(split, files), most, seed) for split, most in ((TRAIN, MOST_CELLS), (HELD, MOST_HELD)))
    types, held_types = ([str(label) for label in rows.fields.get("cell_type", [])] for rows in (learnt, held))
    if len(set(types)) < 2:
        say("no readout of counts: the cells to learn from are not of two types")
        return
    opened, _ = opened_with(folder, base)
    answers = Answers(opened)
    counts, held_counts = (counts_of(rows.ids, answers.writer) for rows in (learnt, held))
    whole = first = fit_readout(counts, types, seed=seed)
    if len(held):
        fields = [{name: held.fields.get(name, [None] * len(held))[row] for name in GIVEN_TO_ANNOTATE} for row in range(len(held))]
        said = answers.said_of_types(held_counts, opened.known(fields), first.labels)
        first = first.with_answer(said, held_counts, held_types)
        of_known = [row for row, label in enumerate(held_types) if label in first.labels]
        types += [held_types[row] for row in of_known]
        whole = dataclasses.replace(fit_readout(sp.vstack([counts, held_counts[of_known]], "csr"), types, seed=seed), answer=first.answer)
    trust = dict(zip(("regression", "multinomial"), whole.trust, strict=True))
    tell(folder, "readout", whole.save(folder), {"labels": list(whole.labels), "cells": len(types), **trust, "answer": whole.answer})
    say(f"readout of counts: {len(types):,} cells, the model's answer weighed {whole.answer:g}")
