"""Later states and fates foretold from earlier cells of barcoded clones: simple ways, clones held out in folds.

What a way is given, and the simple ones, stand in `scmulan.measures.state_ways`. Data: LARRY, mouse blood formation at days 2, 4 and 6.
Held-out cells of all folds are measured together. The file has 34 cells of day 2, too few to tell ways apart: the steps from there are run
where they are named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scmulan import assets
from scmulan.cells import read_cells, read_h5ad
from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures.change import Floats
from scmulan.measures.fate import clone_folds, fate_score
from scmulan.measures.next_state import Followed, next_state_score
from scmulan.measures.populations import cell_space, population_distance
from scmulan.measures.state_ways import FATES, STATES, FatePredictor, Rows, StatePredictor, StateTask, as_points, fates_of
from scmulan.pairing import Pairs, pair_by_clone

Say = Callable[[str], None]
CELLS = "larry_haematopoiesis.h5ad"
STEPS = (("2", "4"), ("4", "6"), ("2", "6"))
USUAL = ("4-6",)
N_FOLDS = 5


def next_state(
    *,
    data: Path | None,
    only: Sequence[str],
    seed: int,
    say: Say,
    states: Mapping[str, StatePredictor] | None = None,
    fates: Mapping[str, FatePredictor] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """The steps of time that are named (day 4 to day 6 when none is): the simple ways, and any others that are given."""
    steps = {f"{one}-{other}": (one, other) for one, other in STEPS}
    unknown = [name for name in only if name not in steps]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join(steps)}{nearest(unknown[0], list(steps))}")
    found: dict[str, Any] = {}
    for name, (earlier, later) in steps.items():
        if name in (only or USUAL):
            tasks = tasks_of(data, earlier, later, seed=seed)
            found[f"day {name}"] = measure(tasks, states or {}, fates or {})
            for part in ("states", "fates"):
                for way, row in found[f"day {name}"][part].items():
                    say(f"day {name}, {part}, {way}: {json.dumps(row)}")
    return found


def tasks_of(data: Path | None, earlier: str, later: str, *, seed: int = 0) -> list[StateTask]:
    """A task for each fold of clones; folds without an earlier cell to foretell are left out."""
    path = (data if data is not None else assets.path("embedded", "cells")) / CELLS
    adata = read_h5ad(path)
    missing = [column for column in ("time", "clone", "cell_type") if column not in adata.obs]
    if missing:
        raise CellDataError(f"{path}: no column {missing[0]!r} in obs{nearest(missing[0], list(adata.obs))}")
    cells = read_cells(adata)
    counts = cells.counts[:, cells.measured]
    times, clones, types = (adata.obs[column].astype(str).tolist() for column in ("time", "clone", "cell_type"))
    folds, space = clone_folds(clones, N_FOLDS, seed=seed), cell_space(counts, seed=seed)
    every = pair_by_clone(times, clones, earlier=earlier, later=later)
    tasks = []
    for fold in range(N_FOLDS):
        train = np.flatnonzero(folds != fold)
        held = np.array(sorted({int(row) for row in every.earlier if folds[row] == fold}), dtype=np.int64)
        if not len(held):
            continue
        chosen = folds[every.earlier] != fold
        pairs = Pairs(earlier=every.earlier[chosen], later=every.later[chosen], weight=every.weight[chosen], record=every.record)
        tasks.append(
            StateTask(
                cells=cells, counts=counts, genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]], times=times,
                clones=clones, types=types, earlier=earlier, later=later, train=train, pairs=pairs, held=held, space=space, seed=seed,
            )
        )  # fmt: skip
    return tasks


def measure(tasks: Sequence[StateTask], states: Mapping[str, StatePredictor], fates: Mapping[str, FatePredictor]) -> dict[str, Any]:
    """Held-out cells of all folds together, a row for each way."""
    first = tasks[0]
    held = np.concatenate([task.held for task in tasks])
    every = pair_by_clone(first.times, first.clones, earlier=first.earlier, later=first.later)
    points = first.space.place(first.counts)
    place = {int(row): k for k, row in enumerate(held)}
    followed = Followed(earlier=np.array([place[int(row)] for row in every.earlier]), later=every.later, weight=every.weight)
    ceiling = _real_against_real(points[np.unique(every.later)], first) | _relative_against_relatives(points, followed, first, held)
    found: dict[str, Any] = {"pairs": every.record, "ceiling": ceiling, "states": {}}
    for name, way in {**STATES, **states}.items():
        said = np.concatenate([as_points(way(task), task) for task in tasks])
        score = next_state_score(
            said, points, followed, clones=[first.clones[row] for row in held], bandwidth=first.space.bandwidth, seed=first.seed
        )
        found["states"][name] = _rounded({**asdict(score.population), "error": score.error, "rank": score.rank})
    true, classes, left_out = fates_of(first, followed)
    found |= {"fate_classes": classes, "pairs_without_a_fate_class": left_out, "fates": {}}
    if len(classes) < 2:
        return found
    folds = [fold for fold, task in enumerate(tasks) for _ in task.held]
    for name, foretell in {**FATES, **fates}.items():
        said = np.concatenate([foretell(task, classes) for task in tasks])
        found["fates"][name] = _rounded(asdict(fate_score(true, classes, said, groups=folds)))
    return found


def _real_against_real(points: Floats, task: StateTask) -> dict[str, Any]:
    """Two random halves of the true later cells: what equal populations score."""
    shuffled = points[np.random.default_rng(task.seed).permutation(len(points))]
    half = len(points) // 2
    return _rounded(asdict(population_distance(shuffled[:half], shuffled[half:], bandwidth=task.space.bandwidth)))


def _relative_against_relatives(points: Floats, followed: Followed, task: StateTask, held: Rows) -> dict[str, Any]:
    """One later relative of each cell foretells the mean of the others, of the cells that have two or more."""
    rng, said, kept = np.random.default_rng(task.seed), points[held].copy(), []
    for cell in range(len(held)):
        of_cell = np.flatnonzero(followed.earlier == cell)
        if len(of_cell) > 1:
            one = rng.choice(of_cell)
            said[cell] = points[followed.later[one]]
            kept += [pair for pair in of_cell if pair != one]
    rest = Followed(earlier=followed.earlier[kept], later=followed.later[kept], weight=followed.weight[kept])
    if len(set(rest.earlier.tolist())) < 2:
        return {}
    score = next_state_score(said, points, rest, clones=[task.clones[row] for row in held], seed=task.seed)
    return _rounded({"relative_n_cells": score.n_cells, "relative_error": score.error, "relative_rank": score.rank})


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {name: round(each, 4) for name, each in value.items()}
        if isinstance(value, dict)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for key, value in row.items()
    }
