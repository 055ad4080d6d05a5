"""Whether cells are read and written exactly: counts and ids there and back, draws under the automaton, cells and genes shuffled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan import assets, csentence
from scmulan.bench_screen import held_out
from scmulan.cells import AnnData, Cells, read_cells
from scmulan.csentence import EXACT_TO, LEVEL_FLOORS, level_of
from scmulan.decoding.sampling import Sampling
from scmulan.engines import CellRequest
from scmulan.errors import PromptError, SentenceError
from scmulan.tasks import Model, load

Say = Callable[[str], None]
SAMPLED_AT_ONCE = 256


def _files(data: Path | None) -> list[Path]:
    folder = data if data is not None else assets.path("embedded", "cells")
    found = sorted(folder.glob("*.h5ad"))
    if not found:
        raise PromptError(f"{folder}: no .h5ad file in it")
    return found


def blood_cells(n: int) -> AnnData:
    """Held-out cells of the embedded blood data, n of them."""
    held = held_out("zheng_pbmc_facs")
    taken = held[np.arange(n) % held.n_obs].copy()
    taken.obs_names = [f"cell_{row}" for row in range(n)]
    return taken


def _ready_counts(opened: Model, cells: Cells) -> sp.csr_matrix:
    """All counts of the cells that the vocabulary has, not thinned; (C, vocabulary genes)."""
    used = np.unique(cells.counts.indices)
    symbols = [str(symbol) for symbol in opened.table.symbols[used]]
    return csentence.to_vocabulary_order(cells.counts[:, used], symbols, opened.vocabulary)[0]


def roundtrip(*, model: str, data: Path | None, say: Say, **_: Any) -> dict[str, Any]:
    """Counts to ids to counts, and ids to text to ids, over every cell of the files and every vocabulary entry."""
    opened = load(model)
    vocabulary, tokenizer = opened.vocabulary, opened.checkpoint.tokenizer
    totals = {
        "cells": 0,
        "counts": 0,
        "counts_to_10_wrong": 0,
        "larger_counts_off_by_more_than_half_a_step": 0,
        "cells_whose_text_differs": 0,
    }
    for path in _files(data):
        counts = _ready_counts(opened, read_cells(path))
        ids = csentence.encode(counts, vocabulary)
        back = csentence.decode_many([ids[row] for row in range(len(ids))], vocabulary)
        true, said = counts.data, back.data
        same_places = np.array_equal(counts.indices, back.indices) and np.array_equal(counts.indptr, back.indptr)
        totals["cells"] += len(ids)
        totals["counts"] += len(true)
        totals["counts_to_10_wrong"] += int(((true <= EXACT_TO) & (true != said)).sum()) if same_places else len(true)
        totals["larger_counts_off_by_more_than_half_a_step"] += _beyond_half_a_step(true, said) if same_places else len(true)
        totals["cells_whose_text_differs"] += _texts_that_differ(tokenizer, ids)
        say(f"{path.name}: {len(ids):,} cells")
    return totals | _vocabulary_roundtrip(opened)


def _beyond_half_a_step(true: np.ndarray, said: np.ndarray) -> int:
    level = level_of(true)
    low, high = LEVEL_FLOORS[level], LEVEL_FLOORS[level + 1] - 1
    half = np.sqrt((LEVEL_FLOORS[level + 1]) / low)
    ratio = np.maximum(true, said) / np.minimum(true, said)
    return int(((true > EXACT_TO) & ((ratio > half * 1.0001) & (np.abs(true - said) > (high - low + 1) / 2))).sum())


def _texts_that_differ(tokenizer: Any, ids: csentence.Ragged) -> int:
    wrong = 0
    for first in range(0, len(ids), 256):
        block = [ids[row].tolist() for row in range(first, min(first + 256, len(ids)))]
        texts = tokenizer.batch_decode(block)
        again = tokenizer(texts, add_special_tokens=False)["input_ids"]
        wrong += sum(one != other for one, other in zip(block, again, strict=True))
    return wrong


def _vocabulary_roundtrip(opened: Model) -> dict[str, int]:
    """Entries whose text encodes back to them; a byte that is not text alone is counted apart."""
    tokenizer = opened.checkpoint.tokenizer
    entries = sorted(set(tokenizer.get_vocab().values()))
    texts = tokenizer.batch_decode([[number] for number in entries])
    again = tokenizer(texts, add_special_tokens=False)["input_ids"]
    not_text = sum("\ufffd" in text for text in texts)
    wrong = sum(ids != [number] and "\ufffd" not in text for number, ids, text in zip(entries, again, texts, strict=True))
    return {"vocabulary_entries": len(entries), "vocabulary_entries_that_differ": wrong, "bytes_that_are_no_text_alone": not_text}


def sampling(*, model: str, device: str, seed: int, n: int | None, only: Sequence[str], say: Say, **_: Any) -> dict[str, Any]:
    """Tokens drawn from the model under the automaton, each checked by the parser, which knows nothing of the automaton.

    ``only`` names the engine: transformers where not given, vllm, or a URL.
    """
    opened, wanted = load(model, device=device, engine=next(iter(only), "transformers")), n or 1_000_000
    tokens = cells = broken = empty = 0
    began = time.perf_counter()
    while tokens < wanted:
        prompts = [opened.writer.prompt("generate", row) for row in opened.rows_for(SAMPLED_AT_ONCE, {}, seed + cells)]
        requests = [CellRequest(prompt=prompt, row=row) for row, prompt in enumerate(prompts)]
        for ids in opened.engine.generate(requests, Sampling(seed=seed + cells)):
            tokens, cells = tokens + len(ids) - 1, cells + 1
            try:
                empty += not len(csentence.decode(ids, opened.vocabulary)[0])
            except SentenceError as error:
                broken += 1
                say(f"cell {cells}: {error}")
        say(f"{tokens:,} tokens in {cells:,} cells, {broken} do not parse; {tokens / (time.perf_counter() - began):,.0f} tokens/s")
    return {"tokens": tokens, "cells": cells, "cells_that_do_not_parse": broken, "empty_cells": empty}


def invariance(*, model: str, device: str, seed: int, n: int | None, say: Say, **_: Any) -> dict[str, Any]:
    """The same cells as they are, with cells shuffled, genes shuffled, both, and one by one."""
    opened, n = load(model, device=device), n or 64
    adata = blood_cells(n)
    rng = np.random.default_rng(seed)
    cell_order, gene_order = rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)
    plain = _answers(opened, adata)
    found: dict[str, Any] = {"cells": n, "dtype": str(getattr(opened.engine, "dtype", ""))}
    variants = {
        "cells_shuffled": (adata[cell_order].copy(), cell_order),
        "genes_shuffled": (adata[:, gene_order].copy(), np.arange(n)),
        "both_shuffled": (adata[cell_order][:, gene_order].copy(), cell_order),
    }
    for name, (variant, order) in variants.items():
        found[name] = _difference(plain, _answers(opened, variant), order)
        say(f"{name}: {found[name]}")
    alone = [_answers(opened, adata[[row]].copy()) for row in range(min(n, 16))]
    joined = tuple(np.concatenate([answer[part] for answer in alone]) for part in range(4))
    found["one_by_one"] = _difference(tuple(part[: len(alone)] for part in plain), joined, np.arange(len(alone)))
    return found


def _answers(opened: Model, adata: AnnData) -> tuple[np.ndarray, ...]:
    """Sentences (as text), labels, probabilities and embeddings of cells."""
    ready = opened.read(adata, reserve=opened.opened.reserve())
    sentences = np.array([" ".join(map(str, ready.ids[row])) for row in range(len(ready.ids))], dtype=object)
    table = opened.annotate(adata)
    return sentences, adata.obs["scmulan_cell_type"].astype(str).to_numpy(), table.max(axis=1).to_numpy(), opened.embed(adata)


def _difference(plain: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...], order: np.ndarray) -> dict[str, float]:
    sentences, labels, probability, states = (part[order] for part in plain)
    scale = float(np.abs(states).max())
    return {
        "sentences_that_differ": int((sentences != other[0]).sum()),
        "labels_that_differ": int((labels != other[1]).sum()),
        "largest_probability_difference": float(np.abs(probability - other[2]).max()),
        "largest_embedding_difference_share": float(np.abs(states - other[3]).max() / scale),
    }
