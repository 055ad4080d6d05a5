"""Later states and fates foretold from earlier cells of barcoded clones: simple ways, clones held out in folds.

A way is a `StatePredictor` or a `FatePredictor`: it is given a `StateTask` and may learn from the cells of ``task.train`` alone, which has
no cell of a held-out clone. Data: LARRY, mouse blood formation at days 2, 4 and 6. Held-out cells of all folds are measured together. The
file has 34 cells of day 2, too few to tell ways apart: the steps from there are run where they are named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from scmulan import assets
from scmulan.cells import AnnData, read_cells, read_h5ad
from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures.change import Floats
from scmulan.measures.fate import (
    Fates,
    clone_folds,
    fate_score,
    foretell_by_neighbours,
    foretell_by_regression,
    foretell_shares,
)
from scmulan.measures.next_state import Followed, as_neighbour, next_state_score, relatives_mean
from scmulan.measures.populations import CellSpace, cell_space, population_distance
from scmulan.pairing import Pairs, pair_by_clone, pair_by_transport

Say = Callable[[str], None]
CELLS = "larry_haematopoiesis.h5ad"
STEPS = (("2", "4"), ("4", "6"), ("2", "6"))
N_NEIGHBOURS = 20
USUAL = ("4-6",)
N_FOLDS = 5
UNDECIDED = ("undiff",)
"""Labels that are no fate: a later cell that has not differentiated says nothing yet."""
LEAST_CELLS = 5
"""Earlier cells that a fate needs to be a class."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StateTask:
    """What a way is given for one fold.

    Attributes
    ----------
    adata, counts, genes
        All cells as they were read, and ``[C, G]`` int32 CSR of the measured genes.
    times, clones, types
        Of each cell.
    earlier, later
        The two times.
    train
        Rows of all cells, of any time, whose clone is not held out.
    pairs
        Pairs of training cells.
    held
        Rows of the earlier cells to foretell.
    space
        In which states are measured.
    """

    adata: AnnData
    counts: sp.csr_matrix
    genes: list[str]
    times: list[str]
    clones: list[str]
    types: list[str]
    earlier: str
    later: str
    train: Rows
    pairs: Pairs
    held: Rows
    space: CellSpace
    seed: int

    def rows_at(self, time: str) -> Rows:
        """Training rows of a time."""
        rows: Rows = self.train[np.array([self.times[row] == time for row in self.train])]
        return rows


class StatePredictor(Protocol):
    """A way to foretell the later state of each cell of ``task.held``: counts over the task's genes, or points of its space ``[n, K]``."""

    def __call__(self, task: StateTask) -> sp.csr_matrix | Floats: ...


class FatePredictor(Protocol):
    """A way to foretell fates: probabilities ``[n, len(classes)]`` for the cells of ``task.held``."""

    def __call__(self, task: StateTask, classes: Sequence[str]) -> Floats: ...


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
                adata=adata, counts=counts, genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]], times=times,
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
        said = np.concatenate([_as_points(way(task), task) for task in tasks])
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


def fates_of(task: StateTask, followed: Followed) -> tuple[Fates, list[str], int]:
    """Fates of pairs, the classes that enough earlier cells have, and how many pairs have none of them."""
    labels = [task.types[row] for row in followed.later]
    cells_of = {name: len({int(c) for c, label in zip(followed.earlier, labels, strict=True) if label == name}) for name in set(labels)}
    classes = sorted(name for name, n in cells_of.items() if n >= LEAST_CELLS and name not in UNDECIDED)
    kept = np.array([label in classes for label in labels])
    weight = followed.weight[kept]
    total = np.bincount(followed.earlier[kept], weight)
    fates = Fates(
        cell=followed.earlier[kept], label=[labels[k] for k in np.flatnonzero(kept)], weight=weight / total[followed.earlier[kept]]
    )
    return fates, classes, int((~kept).sum())


def _training_fates(task: StateTask, classes: Sequence[str]) -> tuple[Rows, Fates]:
    """Training rows with a fate of the classes, and the fates by their place among them."""
    kept = np.array([task.types[row] in classes for row in task.pairs.later], dtype=bool)
    rows, place = np.unique(task.pairs.earlier[kept], return_inverse=True)
    weight = task.pairs.weight[kept]
    weight = weight / np.bincount(place, weight)[place]
    return rows, Fates(cell=place.astype(np.int64), label=[task.types[row] for row in task.pairs.later[kept]], weight=weight)


def _as_points(said: Any, task: StateTask) -> Floats:
    points: Floats = task.space.place(said) if sp.issparse(said) else np.asarray(said, dtype=np.float64)
    if points.shape != (len(task.held), len(task.space.axes)):
        raise CellDataError(
            f"foretold states of shape {points.shape}; needed {len(task.held)} cells, counts or {len(task.space.axes)} scores"
        )
    return points


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


def _population_mean(task: StateTask) -> Floats:
    mean = task.space.place(task.counts[task.rows_at(task.later)]).mean(0)
    return np.tile(mean, (len(task.held), 1))


def _later_cells(task: StateTask) -> Floats:
    """Real training cells of the later time, drawn at random: the right population, and nothing of the cell."""
    rows = np.random.default_rng(task.seed).choice(task.rows_at(task.later), len(task.held))
    return task.space.place(task.counts[rows])


def _neighbour(task: StateTask) -> Floats:
    points = task.space.place(task.counts)
    pairs = Followed(earlier=task.pairs.earlier, later=task.pairs.later, weight=task.pairs.weight)
    return as_neighbour(points, points, pairs, points[task.held], seed=task.seed)


def _neighbours_mean(task: StateTask) -> Floats:
    """The mean of the relatives of the nearest training cells."""
    points = task.space.place(task.counts)
    pairs = Followed(earlier=task.pairs.earlier, later=task.pairs.later, weight=task.pairs.weight)
    known, means = relatives_mean(points, pairs)
    near = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(known))).fit(points[known])
    mean: Floats = means[near.kneighbors(points[task.held], return_distance=False)].mean(1)
    return mean


def _mean_shift(task: StateTask) -> Floats:
    """Each cell moved by the mean difference of the two times."""
    before, after = (task.space.place(task.counts[task.rows_at(time)]).mean(0) for time in (task.earlier, task.later))
    moved: Floats = task.space.place(task.counts[task.held]) + (after - before)
    return moved


def _transported(task: StateTask) -> tuple[Rows, Pairs]:
    """Held-out earlier cells, with training cells of either time, under a transport plan that knows of no clone."""
    rows = np.concatenate([task.held, task.rows_at(task.earlier), task.rows_at(task.later)])
    times = [task.times[row] for row in rows]
    return rows, pair_by_transport(task.counts[rows], times, earlier=task.earlier, later=task.later, most=20, seed=task.seed)


def _by_transport(task: StateTask) -> Floats:
    rows, pairs = _transported(task)
    points, rng = task.space.place(task.counts[rows]), np.random.default_rng(task.seed)
    chosen = []
    for cell in range(len(task.held)):
        of_cell = np.flatnonzero(pairs.earlier == cell)
        chosen.append(pairs.later[rng.choice(of_cell, p=pairs.weight[of_cell])])
    moved: Floats = points[np.array(chosen)]
    return moved


def _fate_shares(task: StateTask, classes: Sequence[str]) -> Floats:
    return foretell_shares(_training_fates(task, classes)[1], classes, len(task.held))


def _fate_by_regression(task: StateTask, classes: Sequence[str]) -> Floats:
    rows, fates = _training_fates(task, classes)
    return foretell_by_regression(task.counts[rows], fates, task.counts[task.held], classes)


def _fate_by_neighbours(task: StateTask, classes: Sequence[str]) -> Floats:
    rows, fates = _training_fates(task, classes)
    return foretell_by_neighbours(task.space.place(task.counts[rows]), fates, task.space.place(task.counts[task.held]), classes)


def _fate_by_transport(task: StateTask, classes: Sequence[str]) -> Floats:
    """Types of the cells that the plan takes a cell to, with a prior of the classes alike."""
    rows, pairs = _transported(task)
    said = np.full((len(task.held), len(classes)), 0.05)
    for cell, later, weight in zip(pairs.earlier, pairs.later, pairs.weight, strict=True):
        if cell < len(task.held) and task.types[rows[later]] in classes:
            said[cell, list(classes).index(task.types[rows[later]])] += weight
    shares: Floats = said / said.sum(1, keepdims=True)
    return shares


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {name: round(each, 4) for name, each in value.items()}
        if isinstance(value, dict)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for key, value in row.items()
    }


STATES: dict[str, StatePredictor] = {
    "no change": lambda task: task.space.place(task.counts[task.held]),
    "population mean": _population_mean,
    "mean shift": _mean_shift,
    "later cells at random": _later_cells,
    "nearest neighbour's relative": _neighbour,
    "mean of neighbours' relatives": _neighbours_mean,
    "optimal transport": _by_transport,
}
FATES: dict[str, FatePredictor] = {
    "shares": _fate_shares,
    "logistic regression": _fate_by_regression,
    "nearest cells": _fate_by_neighbours,
    "optimal transport": _fate_by_transport,
}
