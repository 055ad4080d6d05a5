"""Packs made ahead of training: the same that training would make, in files, by processes or on a cluster without a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scmulan.corpus.pack import Packing
from scmulan.corpus.shards import MANIFEST, Corpus, file_hash
from scmulan.corpus.windows import Window, clear_partial, windows_of, write_manifest, write_window
from scmulan.corpus.workers import Failure, Workers
from scmulan.errors import CorpusError
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary
from scmulan.training.recipe import Recipe, packing_of
from scmulan.training.seen import training_size


@dataclass(frozen=True)
class _Task:
    """A window to be written."""

    corpus: str
    manifest_sha256: str
    window: Window
    packing: Packing
    seed: int


def pack_ahead(
    recipe: Recipe, corpus_folder: Path, *, epochs: int, workers: Workers, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Write the packs of a recipe's first epochs beside its corpus; what is there already is left as it is.

    Returns
    -------
    dict
        Windows, packs, the share of their places that hold an id, and the folders.
    """
    manifest_sha256 = file_hash(Corpus(corpus_folder).folder / MANIFEST)
    corpus, writer = _opened(str(corpus_folder), manifest_sha256)
    cells, tokens = training_size(corpus, recipe.packing.context)
    if not cells:
        raise CorpusError(f"{corpus.folder}: no cell in the train split; change the plan's split")
    tasks = []
    for epoch in range(epochs):
        packing = packing_of(recipe, tokens, epoch)
        windows = windows_of(corpus, packing.window_cells, seed=recipe.seed, epoch=epoch)
        clear_partial(corpus, writer, packing, recipe.seed)
        tasks += [_Task(str(corpus_folder), manifest_sha256, window, packing, recipe.seed) for window in windows]
    records: dict[str, tuple[_Task, dict[str, Any]]] = {}
    for task, result in workers.run(_write, tasks):
        if isinstance(result, Failure):
            raise CorpusError(result.message)
        say(f"{task.window.name}: {result['packs']:,} packs")
        records[task.window.name] = task, result
    by_packing: dict[str, list[tuple[_Task, dict[str, Any]]]] = {}
    for name in sorted(records):
        by_packing.setdefault(repr(records[name][0].packing), []).append(records[name])
    folders = [
        write_manifest(corpus, writer, found[0][0].packing, recipe.seed, [result for _, result in found]) for found in by_packing.values()
    ]
    packs = sum(result["packs"] for _, result in records.values())
    fill = sum(result["packs"] * result["fill"] for _, result in records.values()) / max(packs, 1)
    return {"windows": len(records), "packs": packs, "fill": round(fill, 4), "folders": [str(folder) for folder in folders]}


def _write(task: _Task) -> dict[str, Any]:
    corpus, writer = _opened(task.corpus, task.manifest_sha256)
    return write_window(corpus, task.window, writer, task.packing, seed=task.seed)


@functools.lru_cache(maxsize=1)
def _opened(folder: str, manifest_sha256: str) -> tuple[Corpus, SentenceWriter]:
    """A corpus and what writes its sentences, read once until the corpus is built anew."""
    tokenizer = Path(folder) / "tokenizer"
    return Corpus(folder), SentenceWriter(load_tokenizer(tokenizer), load_vocabulary(tokenizer), load_prompts())
