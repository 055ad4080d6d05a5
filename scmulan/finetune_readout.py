"""The readout of a fine-tuning: fitted on the labelled cells that the model was tuned on, its weight on those held out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from scmulan.adapters_folder import CONFIG
from scmulan.corpus.blocks import number_of
from scmulan.corpus.pack import counts_of
from scmulan.corpus.shards import CellRows, Corpus, write_json
from scmulan.engines.transformers import TransformersEngine
from scmulan.finetune_split import HELD, TRAIN
from scmulan.model import CARD, file_hash, load_card, load_checkpoint
from scmulan.model_card import write_card
from scmulan.readout import fit_readout
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.tasks_opened import Opened
from scmulan.training.loop import Say

MOST_OF_LABEL, MOST_CELLS, MOST_HELD = 300, 5000, 500
"""A readout is for few cells: of each label, of all that are learnt from, and of those held out no more are read than these."""


def shards_of_new(corpus: Corpus, n_new: int) -> list[str]:
    """Shards of the first ``n_new`` sources, which are those of the new cells."""
    return [shard["file"] for shard in corpus.manifest["shards"] if number_of(shard["file"]) < n_new]


def add_readout(folder: Path, base: Path, corpus: Corpus, n_new: int, *, seed: int, say: Say) -> None:
    """Fit a readout of cell types and lay it into the folder of an adapter or model, its card told; none where there is one type."""
    files = shards_of_new(corpus, n_new)
    learnt, held = (labelled(corpus.read(split, files), most, seed) for split, most in ((TRAIN, MOST_CELLS), (HELD, MOST_HELD)))
    types, held_types = ([str(label) for label in rows.fields.get("cell_type", [])] for rows in (learnt, held))
    if len(set(types)) < 2:
        say("no readout of counts: the cells to learn from are not of two types")
        return
    opened = opened_with(folder, base)
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
    path = whole.save(folder)
    card = load_card(folder)
    trust = dict(zip(("regression", "multinomial"), whole.trust, strict=True))
    card["readout"] = {"labels": list(whole.labels), "cells": len(types), **trust, "answer": whole.answer, "sha256": file_hash(path)}
    write_json(folder / CARD, card)
    write_card(folder, card)
    say(f"readout of counts: {len(types):,} cells, the model's answer weighed {whole.answer:g}")


def opened_with(folder: Path, base: Path) -> Opened:
    """A tuned model, or a base with the adapter of a folder in use."""
    is_adapter = (folder / CONFIG).is_file()
    checkpoint = load_checkpoint(base if is_adapter else folder)
    opened = Opened(checkpoint, TransformersEngine(checkpoint))
    if is_adapter:
        opened.add_adapter(folder)
    return opened


def labelled(rows: CellRows, most: int, seed: int) -> CellRows:
    """Cells that have a type: no more than ``MOST_OF_LABEL`` of each and ``most`` of all, drawn."""
    labels = rows.fields.get("cell_type") or [None] * len(rows)
    kept, taken = list[int](), Counter[str]()
    for row in np.random.default_rng([seed, 23]).permutation(len(rows)).tolist():
        label = labels[row]
        if label and taken[label] < MOST_OF_LABEL and len(kept) < most:
            taken[label] += 1
            kept.append(row)
    return rows.select(sorted(kept))
