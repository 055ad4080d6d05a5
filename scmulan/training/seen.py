"""What a corpus's training cells are like as a whole, read a shard at a time: how many, how long, which genes, which labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from scmulan.corpus.pack import counts_of
from scmulan.corpus.shards import Corpus
from scmulan.metadata import FIELDS
from scmulan.prompts import SentenceWriter

SHARDS_FOR_DETECTION = 64
"""So many shards, spread over the corpus, say well enough how often each gene is detected."""


def training_size(corpus: Corpus, context: int) -> tuple[int, float]:
    """Training cells, and the ids an epoch of them has when each is cut down to the context."""
    cells, tokens = 0, 0.0
    for shard in corpus.manifest["shards"]:
        table = corpus.table(shard["file"], ["split", "ids"])
        lengths = pc.list_value_length(table.filter(pc.equal(table["split"], "train"))["ids"]).to_numpy()
        cells, tokens = cells + len(lengths), tokens + float(np.minimum(lengths, context).sum())
    return cells, tokens


def detection(corpus: Corpus, writer: SentenceWriter) -> npt.NDArray[np.float64]:
    """Share of training cells that detect each gene of the vocabulary, (G,)."""
    shards = corpus.manifest["shards"]
    chosen = np.unique(np.linspace(0, len(shards) - 1, min(SHARDS_FOR_DETECTION, len(shards))).astype(int))
    detected, cells = np.zeros(writer.vocabulary.n_genes), 0
    for place in chosen:
        rows = corpus.read("train", [shards[place]["file"]])
        if len(rows):
            detected += np.asarray((counts_of(rows.ids, writer) > 0).sum(axis=0)).ravel()
            cells += len(rows)
    return detected / max(cells, 1)


def seen_labels(corpus: Corpus, files: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Each combination of fields among the training cells, with its number of cells; of some of the shards when they are named."""
    names = [name for name in FIELDS if name in corpus.field_names]
    seen: dict[tuple[str | None, ...], int] = {}
    for file in files if files is not None else [shard["file"] for shard in corpus.manifest["shards"]]:
        table = corpus.table(file, ["split", *names])
        grouped = table.filter(pc.equal(table["split"], "train")).group_by(names).aggregate([("split", "count")])
        for row in grouped.to_pylist():
            key = tuple(row.get(name) for name in FIELDS)
            seen[key] = seen.get(key, 0) + row["split_count"]
    return [
        {**{name: value for name, value in zip(FIELDS, key, strict=True) if value}, "cells": count}
        for key, count in sorted(seen.items(), key=str)
    ]
