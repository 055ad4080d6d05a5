"""Ways to foretell later states and fates of cells of barcoded clones: what each is given, and the simple ones that all are held against.

A way is a `StatePredictor` or a `FatePredictor`: it is given a `StateTask` and may learn from the cells of ``task.train`` alone, which has
no cell of a held-out clone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from scmulan.cells import Cells
from scmulan.errors import CellDataError
from scmulan.measures.change import Floats
from scmulan.measures.fate import Fates, foretell_by_neighbours, foretell_by_regression, foretell_shares
from scmulan.measures.next_state import Followed, as_neighbour, relatives_mean
from scmulan.measures.populations import CellSpace
from scmulan.pairing import Pairs, pair_by_transport

N_NEIGHBOURS = 20
UNDECIDED = ("undiff", "hematopoietic multipotent progenitor cell")
"""Labels that are no fate: a later cell that has not differentiated says nothing yet."""
LEAST_CELLS = 5
"""Earlier cells that a fate needs to be a class."""
TRANSPORT = "optimal transport"
"""The way that needs the library POT."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StateTask:
    """What a way is given for one fold.

    Attributes
    ----------
    cells, counts, genes
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

    cells: Cells
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


def fates_of(task: StateTask, followed: Followed) -> tuple[Fates, list[str], int]:
    """Fates of pairs, the classes that enough earlier cells have, and how many pairs have none of them."""
    labels = [task.types[row] for row in followed.later]
    cells_of = {name: len({int(c) for c, label in zip(followed.earlier, labels, strict=True) if label == name}) for name in set(labels)}
    classes = sorted(name for name, n in cells_of.items() if name and n >= LEAST_CELLS and name not in UNDECIDED)
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


def as_points(said: Any, task: StateTask) -> Floats:
    points: Floats = task.space.place(said) if sp.issparse(said) else np.asarray(said, dtype=np.float64)
    if points.shape != (len(task.held), len(task.space.axes)):
        raise CellDataError(
            f"foretold states of shape {points.shape}; needed {len(task.held)} cells, counts or {len(task.space.axes)} scores"
        )
    return points


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


STATES: dict[str, StatePredictor] = {
    "no change": lambda task: task.space.place(task.counts[task.held]),
    "population mean": _population_mean,
    "mean shift": _mean_shift,
    "later cells at random": _later_cells,
    "nearest neighbour's relative": _neighbour,
    "mean of neighbours' relatives": _neighbours_mean,
    TRANSPORT: _by_transport,
}
FATES: dict[str, FatePredictor] = {
    "shares": _fate_shares,
    "logistic regression": _fate_by_regression,
    "nearest cells": _fate_by_neighbours,
    TRANSPORT: _fate_by_transport,
}
