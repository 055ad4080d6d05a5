"""What is fitted after a fine-tuning (readout, rates): the labelled cells and the tuned model that it needs, its line in the card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from scmulan.adapters_folder import CONFIG
from scmulan.corpus.blocks import number_of
from scmulan.corpus.shards import CellRows, Corpus, write_json
from scmulan.engines.transformers import TransformersEngine
from scmulan.model import CARD, file_hash, load_card, load_checkpoint
from scmulan.model_card import write_card
from scmulan.tasks_opened import Opened

MOST_OF_LABEL = 300
"""Of each label, no more cells are read than these."""


def shards_of_new(corpus: Corpus, n_new: int) -> list[str]:
    """Shards of the first ``n_new`` sources, which are those of the new cells."""
    return [shard["file"] for shard in corpus.manifest["shards"] if number_of(shard["file"]) < n_new]


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


def opened_with(folder: Path, base: Path) -> tuple[Opened, TransformersEngine]:
    """A tuned model, or a base with the adapter of a folder in use; and its engine."""
    is_adapter = (folder / CONFIG).is_file()
    checkpoint = load_checkpoint(base if is_adapter else folder)
    engine = TransformersEngine(checkpoint)
    opened = Opened(checkpoint, engine)
    if is_adapter:
        opened.add_adapter(folder)
    return opened, engine


def tell(folder: Path, line: str, path: Path, content: dict[str, Any]) -> None:
    """Say in a folder's card, and on its page, what was laid beside the weights, with the hash of its file."""
    card = load_card(folder)
    card[line] = {**content, "sha256": file_hash(path)}
    write_json(folder / CARD, card)
    write_card(folder, card)
