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
import scipy.sparse as sp
from scipy.special import log_softmax

from scmulan import bench_change
from scmulan.bench_change import SCREENS, SETTINGS, ChangeTask, Foretold
from scmulan.cells import AnnData
from scmulan.decoding.sampling import Sampling
from scmulan.errors import PromptError, nearest
from scmulan.measures.change import Floats
from scmulan.measures.shift import Population
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
CELLS = 400
"""Cells that are written of each perturbation."""
VALID = 20
"""One training cell in so many tells when to stop."""


def perturb(*, model: str, data: Path | None, n: int | None, only: Sequence[str], seed: int, say: Say, **_: Any) -> dict[str, Any]:
    """Each setting of ``bench change``, or those named, with a model that was trained on it.

    Parameters
    ----------
    model : folder of the base that is fine-tuned; or, with one setting named, of a model that was trained on that very split
    n : cells written of each perturbation (400)
    """
    wanted = [name for name in SETTINGS if not only or any(name.startswith(each) for each in only)]
    if not wanted:
        raise PromptError(f"--only {only[0]!r}: needed one of {'; '.join(SETTINGS)}{nearest(only[0], list(SETTINGS))}")
    found: dict[str, Any] = {}
    for name in wanted:
        screen, held_out = SETTINGS[name]
        task = bench_change.task_of(screen, held_out, data, seed=seed)
        opened, minutes = tuned(model, task, screen, seed=seed, say=say)
        ways = {"scmulan": functools.partial(foretell, model=opened, screen=screen, n=n or CELLS, seed=seed)}
        found[name] = bench_change.measure([task], ways) | {"minutes": minutes}
        bench_change.say_table(name, found[name], say)
        if screen == "papalexi":
            explainer = functools.partial(explain, model=opened, screen=screen, seed=seed)
            found[f"{name}: which perturbation"] = bench_change.explain(task, {"scmulan": explainer})
            say(f"{name}: which perturbation: {found[f'{name}: which perturbation']}")
    return {"recipe": RECIPE, "settings": found}


def tuned(base: str, task: ChangeTask, screen: str, *, seed: int, say: Say) -> tuple[Model, float]:
    """A model fine-tuned on the training cells of a task, and the minutes it took; the base itself where it has learnt them already."""
    opened = load(base)
    if set(opened.seen.values("perturbation")) >= {label_of(screen, target) for target in task.split.held}:
        return opened, 0.0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        settings = {**RECIPE, "held_out": {"column": "split"}}
        found = opened.finetune(training_cells(task, screen, seed), Path(name, "tuned"), seed=seed, say=say, **settings)
        return found, round((time.perf_counter() - began) / 60, 1)


def training_cells(task: ChangeTask, screen: str, seed: int = 0) -> AnnData:
    """The cells of a task that may be learnt from, with labels that the model reads and a split of their own."""
    rows = np.sort(np.concatenate([task.split.train, task.split.control_train]))
    adata = task.adata[rows].copy()
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


def foretell(task: ChangeTask, *, model: Model, screen: str, n: int, seed: int) -> Mapping[str, Foretold]:
    """Cells of each held-out target, written from control cells of the training half, beside the same cells written with none."""
    changes = model.changes.changes
    ready = changes.read(controls_of(task, screen))
    sampling = Sampling(seed=seed, coupled=True)

    def written(label: str) -> sp.csr_matrix:
        return onto_task(model, task, changes.rewrite("perturb", ready, {"perturbation": label}, n=n, sampling=sampling).counts)

    untouched = written(changes.control())
    return {target: Foretold(cells=written(label_of(screen, target)), control=untouched) for target in task.split.held}


def explain(
    task: ChangeTask, populations: Sequence[Population], candidates: Sequence[str], *, model: Model, screen: str, seed: int
) -> Floats:
    """Scores of the candidates for populations of cells; each cell adds what it says beyond how common a perturbation was."""
    changes = model.changes.changes
    rows = np.unique(np.concatenate([each.rows for each in populations]))
    labels = [label_of(screen, name) for name in candidates]
    asked = task.adata[rows].copy()
    asked.obs = asked.obs.drop(columns=SCREENS[screen].column)
    said = log_softmax(changes.explain(controls_of(task, screen), asked, labels, seed=seed), axis=1)
    said -= np.log(np.maximum(changes.shares(labels), 1e-6))
    place = {row: number for number, row in enumerate(rows.tolist())}
    return np.stack([said[[place[row] for row in np.asarray(each.rows).tolist()]].sum(0) for each in populations])


def controls_of(task: ChangeTask, screen: str) -> AnnData:
    """The control cells that may be told from."""
    adata = task.adata[task.split.control_train].copy()
    adata.obs = adata.obs.drop(columns=SCREENS[screen].column)
    return adata


def onto_task(model: Model, task: ChangeTask, counts: sp.csr_matrix) -> sp.csr_matrix:
    """Counts over the vocabulary as counts over the task's genes; 0 of a gene that the vocabulary lacks."""
    columns = model.vocabulary.columns(task.genes)
    known = np.flatnonzero(columns >= 0)
    onto = sp.csr_matrix((np.ones(len(known), dtype=np.int32), (columns[known], known)), shape=(counts.shape[1], len(task.genes)))
    return sp.csr_matrix(counts @ onto)
