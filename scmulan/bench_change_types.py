"""The answer of a type of cell that was never seen answering: interferon, one type held out at a time.

Cells of kang have no types: they are told by logistic regression on the embedded blood cells, over the genes that interferon leaves alone,
and brought to four kinds; the rest is left out. A way may learn from every cell but the type's stimulated cells and the truth's control
cells (``split.held``, ``split.control_true``). The rules know of each other type its answer, and of each type its control profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import assets
from scmulan.bench_change import COLUMNS, DRAWS, SCREENS, measure
from scmulan.cells import Cells, read_cells, read_h5ad
from scmulan.errors import PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures.baselines import fit_logistic_regression
from scmulan.measures.change import disjoint_halves, moments, true_change
from scmulan.measures.change_baselines import TrainingChanges, training_changes
from scmulan.measures.change_splits import ChangeSplit
from scmulan.measures.change_ways import ChangeTask, Predictor

Say = Callable[[str], None]
KINDS = ("T cell", "monocyte", "B cell", "natural killer cell")
STIMULATED, CONTROL = "IFN-beta", "control"
LABELLED = "zheng_pbmc_facs.h5ad"
STEADY_FOLD = 1.0
"""Genes that change significantly by more (log2) do not speak for the type of a cell."""


def change_types(
    *,
    data: Path | None,
    n: int | None,
    only: Sequence[str],
    seed: int,
    say: Say,
    predictors: Mapping[str, Predictor] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Each kind held out in turn, or those named, and the mean over them.

    ``n``: draws of the true cells for the intervals (50).
    """
    unknown = [name for name in only if name not in KINDS]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join(KINDS)}{nearest(unknown[0], KINDS)}")
    found = {task_name: measure([task], predictors or {}, draws=n or DRAWS) for task_name, task in tasks_of(data, seed=seed).items()
             if not only or task_name in only}  # fmt: skip
    means = {way: _means([each["ways"][way] for each in found.values()]) for way in next(iter(found.values()))["ways"]}
    for name, each in found.items():
        say(f"{name} held out: {json.dumps(each['targets'])}, ceiling {json.dumps(each['ceiling'])}")
        for way, row in each["ways"].items():
            say(f"  {way}: {json.dumps({key: value for key, value in row.items() if key != 'intervals'})}")
    for way, row in means.items():
        say(f"mean, {way}: {json.dumps(row)}")
    return {**found, "mean": means}


def tasks_of(data: Path | None, *, seed: int = 0) -> dict[str, ChangeTask]:
    """A task for each kind of cell: its name is the target, its stimulated cells are held out."""
    source = SCREENS["kang"]
    adata = read_h5ad((data if data is not None else assets.path("embedded", "cells")) / source.file)
    cells = read_cells(adata)
    counts, condition = cells.counts[:, cells.measured], adata.obs[source.column].astype(str).to_numpy()
    kinds = kinds_of(cells, condition)
    rows = {(kind, state): np.flatnonzero((kinds == kind) & (condition == state)) for kind in KINDS for state in (STIMULATED, CONTROL)}
    halves = {kind: [rows[kind, CONTROL][half] for half in disjoint_halves(len(rows[kind, CONTROL]), seed)] for kind in KINDS}
    changes = _changes_of_kinds(counts, rows, halves)
    found = {}
    for kind in KINDS:
        split = ChangeSplit(
            train=np.concatenate([rows[other, STIMULATED] for other in KINDS if other != kind]), held={kind: rows[kind, STIMULATED]},
            control_train=halves[kind][0], control_true=halves[kind][1], held_guides={}, left_out={},
        )  # fmt: skip
        found[kind] = ChangeTask(
            cells=cells, counts=counts, genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]], targets=kinds.tolist(),
            guides=None, split=split, seed=seed, training=changes.without(kind),
        )  # fmt: skip
    return found


def kinds_of(cells: Cells, condition: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One of ``KINDS`` for each cell, or ``other``."""
    known = read_cells(assets.path("embedded", "cells", LABELLED))
    shared = np.intersect1d(known.measured, cells.measured)
    truth = true_change(cells.counts[condition == CONTROL][:, shared], cells.counts[condition == STIMULATED][:, shared])
    steady = shared[~(truth.is_significant & (np.abs(truth.change.fold) > STEADY_FOLD))]
    fitted = fit_logistic_regression(known.counts[:, steady], [str(label) for label in known.fields["cell_type"]])
    said = fitted.predict(cells.counts[:, steady]).labels
    return np.array([next((kind for kind in KINDS if kind in label), "other") for label in said], dtype=object)


def _changes_of_kinds(
    counts: sp.csr_matrix, rows: Mapping[tuple[str, str], npt.NDArray[np.int64]], halves: Mapping[str, list[npt.NDArray[np.int64]]]
) -> TrainingChanges:
    """A row for each kind against its own control cells; its place is its control profile, standardised."""
    each = {kind: training_changes(counts[halves[kind][0]], counts[rows[kind, STIMULATED]], [kind] * len(rows[kind, STIMULATED]))
            for kind in KINDS}  # fmt: skip
    profiles = np.stack([moments(counts[halves[kind][0]]).mean for kind in KINDS])
    own = profiles - profiles.mean(0)
    own /= np.maximum(own.std(1, keepdims=True), 1e-12)
    stacked = {part: np.concatenate([getattr(change, part) for change in each.values()]) for part in ("n_cells", "mean", "fold", "error")}
    return TrainingChanges(targets=list(KINDS), place=dict(zip(KINDS, own, strict=True)), left_out=[], **stacked)


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    names = [name for name in (*COLUMNS, "rmse_top", "mmd") if name in rows[0]]
    values = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    return {name: round(float(np.mean(each)), 4) if each else None for name, each in values.items()}
