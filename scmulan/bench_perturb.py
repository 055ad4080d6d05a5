"""The model beside the simple ways: fine-tuned on the training cells of a perturbation data set, then asked about those held out.

What is trained on is ``task.split.train`` and ``control_train`` of `scmulan.bench_change`, never a control cell of the truth; a twentieth
of it tells when training is best. All weights are trained, for a data set of thousands of cells is no adapter's.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scmulan import assets, bench_change
from scmulan.bench_change import SCREENS, SETTINGS
from scmulan.cells import AnnData, read_h5ad
from scmulan.errors import PromptError, nearest
from scmulan.evaluate.perturbation_ways import explain, foretell
from scmulan.measures.change_ways import ChangeTask
from scmulan.metadata import canonical
from scmulan.tasks import Model, load

Say = Callable[[str], None]
RECIPE: dict[str, Any] = {
    "tasks": {"perturb": 5.0, "explain_shift": 2.0, "generate": 1.0},
    "adapter": None,
    "readout": False,
    "rates": True,
    "packing": {"context": 1024, "pack_tokens": 4096, "thin_share": 0.2, "thin_least": 0.4},
    "optimizer": {"matrix_lr": 0.005, "lr": 0.002, "warmup": 20, "stable": 0.5, "last": 0.02},
    "loss": {"fields": 5.0},
    "steps": 900,
    "evaluate_every": 100,
    "evaluation_cells": 400,
    "patience": 8,
}
WHICH = ": which perturbation"
CELLS = 400
"""Cells that are written of each perturbation."""
VALID = 20
"""One training cell in so many tells when to stop."""


def perturb(
    *,
    model: str,
    data: Path | None,
    n: int | None,
    only: Sequence[str],
    seed: int,
    say: Say,
    steps: int | None = None,
    keep: Path | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Each setting of ``bench change``, or those named, with a model that was trained on it.

    Parameters
    ----------
    model : folder of the base that is fine-tuned; or, with one setting named, of a model that was trained on that very split
    only : settings; with ``: which perturbation`` behind the name, that question alone
    n : cells written of each perturbation (400), and, where given, cells of each that are asked which perturbation they had (all)
    steps : of fine-tuning (900)
    keep : folder of the tuned models; training goes on where it was stopped, and a model that is there is not trained again
    """
    recipe = RECIPE | ({"steps": steps} if steps is not None else {})
    wanted = [name for name in SETTINGS if not only or any(name.startswith(each.removesuffix(WHICH)) for each in only)]
    is_written = not only or any(not each.endswith(WHICH) for each in only)
    if not wanted:
        raise PromptError(f"--only {only[0]!r}: needed one of {'; '.join(SETTINGS)}{nearest(only[0], list(SETTINGS))}")
    found: dict[str, Any] = {}
    for name in wanted:
        screen, held_out = SETTINGS[name]
        task = bench_change.task_of(screen, held_out, data, seed=seed)
        with tempfile.TemporaryDirectory() as scratch:
            folder = (keep or Path(scratch)) / name.replace(", ", "_").replace(" ", "_")
            opened, minutes = tuned(model, task, screen, recipe, folder, data=data, seed=seed, say=say)
        asked: dict[str, Any] = {"model": opened, "label_of": functools.partial(label_of, screen), "seed": seed}
        if is_written:
            ways = {"scmulan": functools.partial(foretell, **asked, n=n or CELLS)}
            found[name] = bench_change.measure([task], ways) | {"minutes": minutes}
            bench_change.say_table(name, found[name], say)
        if screen == "papalexi":
            explainer = functools.partial(explain, **asked)
            found[name + WHICH] = bench_change.explain(task, {"scmulan": explainer}, most=n)
            say(f"{name}{WHICH}: {found[name + WHICH]}")
    return {"recipe": recipe, "settings": found}


def tuned(
    base: str, task: ChangeTask, screen: str, recipe: Mapping[str, Any], folder: Path, *, data: Path | None, seed: int, say: Say
) -> tuple[Model, float]:
    """A model fine-tuned on the training cells of a task, and the minutes it took; the base itself where it has learnt them already."""
    opened = load(base)
    if set(opened.seen.values("perturbation")) >= {label_of(screen, target) for target in task.split.held}:
        return opened, 0.0
    began = time.perf_counter()
    settings = {**recipe, "held_out": {"column": "split"}}
    found = opened.finetune(training_cells(task, screen, data, seed), folder, seed=seed, say=say, **settings)
    return found, round((time.perf_counter() - began) / 60, 1)


def training_cells(task: ChangeTask, screen: str, data: Path | None, seed: int = 0) -> AnnData:
    """The cells of a task that may be learnt from, with labels that the model reads and a split of their own."""
    rows = np.sort(np.concatenate([task.split.train, task.split.control_train]))
    adata = read_h5ad((data if data is not None else assets.path("embedded", "cells")) / SCREENS[screen].file)[rows].copy()
    adata.obs = adata.obs.drop(columns=SCREENS[screen].column)
    adata.obs["perturbation"] = [label_of(screen, task.targets[row]) for row in rows]
    is_valid = np.random.default_rng([seed, 29]).permutation(len(rows)) % VALID == 0
    adata.obs["split"] = np.where(is_valid, "valid", "train")
    return adata


def label_of(screen: str, target: str) -> str:
    """A target as the model calls it: genes of papalexi were knocked out."""
    source = SCREENS[screen]
    is_gene = source.guide is not None and target != source.control
    return f"{target} knockout" if is_gene else canonical("perturbation", target).value
