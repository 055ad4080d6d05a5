"""Held-out loss after equal tokens: AdamW for all, or Muon for the layers' matrices, at several learning rates, and two schedules.

Small models trained alike on the embedded blood cells: the same packs in the same order, clipped alike. Limit: what is best at this size
and length need not be so at another.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scmulan.bench_sentences import corpus_of
from scmulan.errors import PromptError, nearest
from scmulan.training.held_out import evaluate
from scmulan.training.loop import Run
from scmulan.training.recipe import Recipe, fill

Say = Callable[[str], None]
STEPS = 200
ADAMW = (0.002, 0.004, 0.008)
MUON = ((0.005, 0.004), (0.015, 0.006), (0.03, 0.006))
TRIALS: dict[str, dict[str, Any]] = {
    **{f"AdamW, {rate:g}": {"matrix_lr": 0.0, "lr": rate} for rate in ADAMW},
    **{f"Muon, {matrix:g} and AdamW, {rate:g}": {"matrix_lr": matrix, "lr": rate} for matrix, rate in MUON},
    "AdamW, 0.004, cosine": {"matrix_lr": 0.0, "lr": 0.004, "schedule": "cosine"},
    "Muon, 0.015 and AdamW, 0.006, cosine": {"matrix_lr": 0.015, "lr": 0.006, "schedule": "cosine"},
}  # fmt: skip
"""What of ``optimizer:`` in the recipe each trial sets."""


def measure_optimizers(
    *, steps: int | None, only: Sequence[str], seeds: Sequence[int], preset: str = "small", say: Say = print
) -> dict[str, Any]:
    """Held-out loss at the end of each trial, for each seed, and the last nats of a cell given its fields."""
    for name in only:
        if name not in TRIALS:
            raise PromptError(f"bench optimizers: {name!r}: needed one of {'; '.join(TRIALS)}{nearest(name, list(TRIALS))}")
    steps = steps or STEPS
    found: dict[str, Any] = {"preset": preset, "steps": steps, "seeds": list(seeds), "trials": {}}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        corpus = corpus_of(place, "demo").folder
        for name in only or TRIALS:
            runs = [_trained(TRIALS[name], place / f"{number}-{name}", corpus, steps, preset, seed) for number, seed in enumerate(seeds)]
            found["trials"][name] = {key: [run[key] for run in runs] for key in runs[0]}
            say(f"{name}: {found['trials'][name]}")
    return found


def _trained(settings: Mapping[str, Any], output: Path, corpus: Path, steps: int, preset: str, seed: int) -> dict[str, float]:
    given: dict[str, Any] = {
        "output": str(output), "corpus": str(corpus), "seed": seed, "steps": steps, "model": {"preset": preset},
        "optimizer": dict(settings), "loss": {"fields": 10.0},
        "evaluate_every": 10 * steps, "checkpoint_every": 10 * steps, "compile": True,
    }  # fmt: skip
    recipe: Recipe = fill(Recipe, given, "trial")
    run = Run(recipe, corpus, say=lambda line: None, log_with=None)
    held_out, run.held_out = run.held_out, None  # once at the end will do
    began = time.process_time()
    run.train()
    seconds = time.process_time() - began
    assert held_out is not None
    held = evaluate(run.module, run.packed, held_out, run.writer, run.weights, run.parallel)
    cell = held.per_sentence["generate/cell"]
    return {
        "held_out_loss": round(held.loss, 4),
        "nats_per_cell": round(cell, 1),
        "tokens": run.tokens,
        "processor_seconds": round(seconds, 1),
    }
