"""The readout of a fine-tuning: fitted on the labelled cells that the model was tuned on, its weight on those held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scmulan.adapters_folder import CONFIG
from scmulan.corpus.blocks import number_of
from scmulan.corpus.pack import counts_of
from scmulan.corpus.shards import Corpus, write_json
from scmulan.engines.transformers import TransformersEngine
from scmulan.finetune_split import HELD, TRAIN
from scmulan.model import CARD, file_hash, load_card, load_checkpoint
from scmulan.model_card import write_card
from scmulan.readout import fit_readout
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.tasks_opened import Opened
from scmulan.training.loop import Say

MOST_OF_LABEL, MOST_CELLS = 300, 5000
"""A readout is for few cells: of more, no more are read than these."""


def shards_of_new(corpus: Corpus, n_new: int) -> list[str]:
    """Shards of the first ``n_new`` sources, which are those of the new cells."""
    return [shard["file"] for shard in corpus.manifest["shards"] if number_of(shard["file"]) < n_new]


def add_readout(folder: Path, base: Path, corpus: Corpus, n_new: int, *, seed: int, say: Say) -> None:
    """Fit a readout of cell types and lay it into the folder of an adapter or model, its card told; none where there is one type."""
    opened = _opened(folder, base)
    answers = Answers(opened)
    rows = corpus.read(files=shards_of_new(corpus, n_new))
    labels = rows.fields.get("cell_type") or []
    of_split = {
        split: _some([row for row, label in enumerate(labels) if label and rows.splits[row] == split], labels, seed)
        for split in (TRAIN, HELD)
    }
    counts = counts_of(rows.ids, answers.writer)
    learnt, held = of_split[TRAIN], of_split[HELD]
    types = [str(labels[row]) for row in learnt]
    if len(set(types)) < 2:
        say("no readout of counts: every cell is of one type")
        return
    first = fit_readout(counts[learnt], types, seed=seed)
    if held:
        known = opened.known([{name: rows.fields.get(name, [None] * len(rows))[row] for name in GIVEN_TO_ANNOTATE} for row in held])
        said = answers.said_of_types(counts[held], known, first.labels)
        first = first.with_answer(said, counts[held], [str(labels[row]) for row in held])
    every = [*learnt, *(row for row in held if labels[row] in first.labels)]
    whole = dataclasses.replace(fit_readout(counts[every], [str(labels[row]) for row in every], seed=seed), answer=first.answer)
    path = whole.save(folder)
    card = load_card(folder)
    trust = dict(zip(("regression", "multinomial"), whole.trust, strict=True))
    card["readout"] = {"labels": list(whole.labels), "cells": len(every), **trust, "answer": whole.answer, "sha256": file_hash(path)}
    write_json(folder / CARD, card)
    write_card(folder, card)
    say(f"readout of counts: {len(every):,} cells, the model's answer weighed {whole.answer:g}")


def _opened(folder: Path, base: Path) -> Opened:
    is_adapter = (folder / CONFIG).is_file()
    checkpoint = load_checkpoint(base if is_adapter else folder)
    opened = Opened(checkpoint, TransformersEngine(checkpoint))
    if is_adapter:
        opened.add_adapter(folder)
    return opened


def _some(rows: Sequence[int], labels: Sequence[str | None], seed: int) -> list[int]:
    """No more than ``MOST_OF_LABEL`` of each label and ``MOST_CELLS`` of all, drawn."""
    drawn, taken = np.random.default_rng([seed, 23]).permutation(list(rows)).astype(int).tolist(), dict[str | None, int]()
    kept = list[int]()
    for row in drawn:
        taken[labels[row]] = taken.get(labels[row], 0) + 1
        if taken[labels[row]] <= MOST_OF_LABEL and len(kept) < MOST_CELLS:
            kept.append(row)
    return sorted(kept)
