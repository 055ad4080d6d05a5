"""How full packs are: the share of their places that hold an id, for contexts and pack sizes, beside the bound that no packing beats."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scmulan.bench_sentences import EMBEDDED, Material, corpus_of
from scmulan.corpus.pack import Packing, _fill_bins

Say = Callable[[str], None]
SETTINGS = ((1024, 4096), (1024, 8192), (1024, 16384), (1024, 32768), (2048, 4096), (2048, 8192), (2048, 16384), (2048, 32768))


def measure_packing(
    *, tokenizer: str | None, data: Path | None, settings: Sequence[tuple[int, int]] = SETTINGS, say: Say = print
) -> dict[str, Any]:
    """Fill of the first epoch's packs of a corpus, for pairs of context and pack size, in ids."""
    found: dict[str, Any] = {"tokenizer": tokenizer or "demo"}
    with tempfile.TemporaryDirectory() as scratch:
        corpus = corpus_of(Path(scratch), tokenizer or "demo", data=data, sources=EMBEDDED)
        for context in sorted({context for context, _ in settings}):
            packs = Material.of(corpus, Packing(context=context, pack_tokens=context)).packs
            lengths = np.concatenate([np.diff(bounds) for bounds in packs.bounds])
            for size in (size for one, size in settings if one == context):
                found[f"context {context}, pack {size}"] = fill_of(lengths, size)
                say(f"context {context}, pack {size}: {found[f'context {context}, pack {size}']}")
    return found


def fill_of(lengths: np.ndarray, size: int) -> dict[str, Any]:
    """Packs, their fill, and what the fill would be at best: the ids over the fewest packs that could hold them.

    ``fill_but_last`` leaves out the emptiest pack, which a corpus has one of however large it is.
    """
    bins = _fill_bins(lengths, size)
    filled = np.sort([lengths[members].sum() for members in bins])
    total, pairs = int(lengths.sum()), int((lengths > size / 2).sum())
    fewest = max(math.ceil(total / size), pairs)
    return {
        "sentences": len(lengths),
        "mean_length": round(float(lengths.mean()), 1),
        "longest": int(lengths.max()),
        "share_of_ids_in_longest_tenth": round(float(np.sort(lengths)[-len(lengths) // 10 :].sum() / total), 3),
        "packs": len(bins),
        "fill": round(total / (len(bins) * size), 4),
        "fill_at_best": round(total / (fewest * size), 4),
        "fill_but_last": round(float(filled[1:].mean() / size), 4) if len(bins) > 1 else None,
        "packs_below_99_percent": int((filled < 0.99 * size).sum()),
    }
