"""Perturbed cells foretold, and perturbations told from cells, on held-out cells beside the rules that need no model.

Data set by data set: what is learnt from are its training cells, controls told from their labels; the truth is held-out perturbed cells
against held-out control cells (half of the training controls where none is held out), so that truth and prediction share no control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.corpus.pairs import is_control
from scmulan.evaluate.cells import MODEL, Side, Skipped, counter, of_dataset
from scmulan.evaluate.given import Given, Prepared
from scmulan.evaluate.learnt import perturbations_seen, why_not_learnt
from scmulan.evaluate.perturbation_ways import explain, foretell, from_real_controls
from scmulan.genes import GeneTable
from scmulan.measures import shift
from scmulan.measures.change import Change, Floats, TrueChange, compare_changes, disjoint_halves, true_change
from scmulan.measures.change_baselines import LEAST_CELLS as LEAST_TRAIN
from scmulan.measures.change_noise import noise_ceiling
from scmulan.measures.change_splits import LEAST_CELLS, ChangeSplit
from scmulan.measures.change_ways import ChangeTask, Explainer, Predictor, foretold_by, simple_explainers, simple_predictors, training_of
from scmulan.measures.populations import CellSpace, cell_space, population_distance

FROM_REAL = "scmulan, change from measured controls"
TARGET_MEAN = "target mean"
"""The rule that is shown beside the model perturbation by perturbation."""
N_SPLITS = 5
SIZES = (1, 10)
"""Cells of the populations of which the perturbation is asked, beside all that are asked about."""
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """A way to foretell, means over perturbations; see `scmulan.measures.change`. None where a side does not vary, or for one alone.

    Attributes
    ----------
    pearson, pearson_top : of the change in log1p CP10k over all genes, and over the 20 most changed
    pearson_own : the same over all genes, the mean of all perturbations taken off either side
    rmse : of the change, log1p CP10k
    rank : share of the other perturbations whose true change is less alike; 0.5 by chance
    energy : energy distance of foretold from held-out cells
    by_perturbation : ``pearson`` of each
    """

    pearson: float | None
    pearson_top: float | None
    pearson_own: float | None
    rmse: float
    rank: float | None
    energy: float
    by_perturbation: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Told:
    """How often the right perturbation is first, or among the first five, and the share of wrong ones that score below it."""

    first: float
    five: float
    rank: float


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which perturbation it was, of ``n`` populations and among ``n_candidates``, by way; chance is of any order that looks at no cell."""

    n: int
    n_candidates: int
    chance_first: float
    chance_five: float
    ways: dict[str, Told]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """The perturbations of one data set.

    Attributes
    ----------
    cells : held-out cells of each perturbation that was measured
    n_written : cells that the model wrote of each
    controls : where the truth's control cells are from
    ceiling : Pearson over all genes that the noise of the held-out cells allows
    which : by the number of cells asked about together; empty where there is one perturbation, or the task was not learnt
    left_out : why a perturbation among the held-out cells was not measured, or could not be told
    """

    dataset: str
    cells: dict[str, int]
    n_written: int
    n_control: int
    n_control_train: int
    controls: str
    n_genes: int
    ceiling: float | None
    ways: dict[str, Foreseen]
    which: dict[str, Which]
    left_out: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Posed:
    """A data set's task, where the truth's controls are from, and what was left out of it."""

    dataset: str
    task: ChangeTask
    controls: str
    left_out: dict[str, str]


def prepare(given: Given) -> Prepared[list[Perturbation]]:
    """The data sets that have a perturbation which the model has seen, held-out and training cells of it and controls; or why none has."""
    cells = given.held.cells
    labels = cells.fields.get("perturbation") or [None] * len(cells)
    datasets = sorted({name for name, label in zip(cells.dataset, labels, strict=True) if label and not is_control(label)})
    if not datasets:
        return Skipped("no held-out cell is said to be perturbed (`scmulan check` says which columns of obs were read)")
    if (reason := why_not_learnt(given.model, "perturb")) is not None:
        return Skipped(reason)
    posed = given.those_posed("perturbation", [pose(given, name) for name in datasets])
    return posed if isinstance(posed, Skipped) else lambda: [_measured(given, each) for each in posed]


def pose(given: Given, dataset: str) -> Posed | Skipped:
    """What the ways are asked about one data set, or why nothing can be asked."""
    both, n_train = of_dataset(given.train, given.held, dataset)
    labels = [str(label) if label else "" for label in both.cells.fields.get("perturbation") or [None] * len(both.cells)]
    rows_of: tuple[dict[str, list[int]], dict[str, list[int]]] = {}, {}
    for row, label in enumerate(labels):
        if label:
            rows_of[row >= n_train].setdefault("" if is_control(label) else label, []).append(row)
    known, asked = rows_of
    control_train, control_true, controls = _controls(known.pop("", []), asked.pop("", []), given.seed)
    if min(len(control_train), len(control_true)) < LEAST_CELLS:
        n = f"{len(control_train)} training and {len(control_true)} held-out control cells"
        return Skipped(f"{n}; needed {LEAST_CELLS} of each", dataset)
    seen = set(perturbations_seen(given.model))
    known = {label: rows for label, rows in known.items() if label in seen and len(rows) >= LEAST_TRAIN}
    why = {label: _why_left_out(label, len(rows), seen, known) for label, rows in sorted(asked.items())}
    kept = {label: np.array(rows) for label, rows in sorted(asked.items()) if not why[label]}
    left_out = {label: reason for label, reason in why.items() if reason}
    if not kept:
        return Skipped("; ".join(f"{label}: {reason}" for label, reason in list(left_out.items())[:3]), dataset)
    split = ChangeSplit(
        train=np.sort(np.concatenate([np.array(rows) for rows in known.values()])), held=kept, control_train=control_train,
        control_true=control_true, held_guides={}, left_out={},
    )  # fmt: skip
    return Posed(dataset=dataset, task=_task(both, labels, split, given), controls=controls, left_out=left_out)


def _controls(known: Sequence[int], held: Sequence[int], seed: int) -> tuple[Ints, Ints, str]:
    """Rows of control cells to foretell from, and of the truth."""
    if len(held) >= LEAST_CELLS:
        return np.array(known, dtype=np.int64), np.array(held, dtype=np.int64), "held-out cells"
    one, other = (np.array(known, dtype=np.int64)[half] for half in disjoint_halves(len(known), seed))
    return one, other, "half of the training cells, for too few are held out"


def _why_left_out(label: str, n: int, seen: set[str], known: Mapping[str, Sequence[int]]) -> str:
    if label not in seen:
        return "not among the perturbations that the model has seen"
    if label not in known:
        return f"fewer than {LEAST_TRAIN} training cells"
    return f"{n} held-out cells; needed {LEAST_CELLS}" if n < LEAST_CELLS else ""


def _task(both: Side, labels: list[str], split: ChangeSplit, given: Given) -> ChangeTask:
    guides = both.column(given.guide)
    cells = both.cells
    task = ChangeTask(
        cells=cells,
        counts=sp.csr_matrix(cells.counts[:, cells.measured]),
        genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]],
        targets=labels,
        guides=[each or label for each, label in zip(guides, labels, strict=True)] if any(guides) else None,
        split=split,
        seed=given.seed,
    )
    return replace(task, training=training_of(task))


def _measured(given: Given, posed: Posed) -> Perturbation:
    task, seed, n_written = posed.task, given.seed, given.sizes.cells_per_perturbation
    control = task.counts[task.split.control_true]
    cells = {name: task.counts[rows] for name, rows in task.split.held.items()}
    truths = {name: true_change(control, each) for name, each in cells.items()}
    space = cell_space(sp.vstack([control, *cells.values()]), seed=seed)
    points = {name: space.place(each) for name, each in cells.items()}
    on_cell = counter(given.say, f"perturb: {posed.dataset}", n_written * (len(cells) + 1))
    written = foretell(task, model=given.model, n=n_written, seed=seed, on_cell=on_cell)
    ways: dict[str, Predictor] = {MODEL: lambda _: written, FROM_REAL: lambda _: from_real_controls(written)}
    ways |= simple_predictors(unseen=False)
    which = _which(given, task)
    return Perturbation(
        dataset=posed.dataset,
        cells={name: truth.n_cells for name, truth in truths.items()},
        n_written=n_written,
        n_control=len(task.split.control_true),
        n_control_train=len(task.split.control_train),
        controls=posed.controls,
        n_genes=len(task.genes),
        ceiling=noise_ceiling(control, cells, n_splits=N_SPLITS, seed=seed).pearson,
        ways={name: _foreseen(way, task, truths, points, space) for name, way in ways.items()},
        which=which if isinstance(which, dict) else {},
        left_out=posed.left_out | ({"which perturbation": which.reason} if isinstance(which, Skipped) else {}),
    )


def _foreseen(
    way: Predictor, task: ChangeTask, truths: Mapping[str, TrueChange], points: Mapping[str, Floats], space: CellSpace
) -> Foreseen:
    foretold = foretold_by(way, task, space)
    changes: dict[str, Change] = {name: change for name, (change, _) in foretold.items()}
    found = compare_changes(truths, changes)
    energies = [population_distance(each, foretold[name][1], bandwidth=space.bandwidth).energy for name, each in points.items()]
    return Foreseen(
        pearson=found.means.pearson,
        pearson_top=found.means.pearson_top,
        pearson_own=found.means.pearson_specific,
        rmse=found.means.rmse,
        rank=found.discrimination.rank if found.discrimination is not None else None,
        energy=float(np.mean(energies)),
        by_perturbation={name: score.pearson for name, score in found.scores.items()},
    )


def _which(given: Given, task: ChangeTask) -> dict[str, Which] | Skipped:
    """Populations of one, ten and all of the cells that are asked about; the same cells for every way."""
    candidates = sorted({task.targets[row] for row in task.split.train})
    if len(candidates) < 2:
        return Skipped("there is one perturbation alone, so nothing to tell apart")
    if (reason := why_not_learnt(given.model, "explain_shift")) is not None:
        return Skipped(reason)
    seed, n_explained = given.seed, given.sizes.explained_cells
    rows, labels = _asked(task, n_explained, seed)
    counts = Counter(labels)
    drawn = {f"{size} cell{'s' * (size > 1)}": shift.draw_populations(labels, size, seed=seed) for size in SIZES if size < n_explained}
    drawn[f"all asked about, up to {max(counts.values())} cells"] = shift.draw_populations(labels, None, seed=seed)
    populations = {name: [replace(each, rows=rows[each.rows]) for each in found] for name, found in drawn.items() if found}
    alone = [shift.Population(target="", rows=np.array([row])) for row in rows]
    scores = explain(task, alone, candidates, model=given.model, seed=seed, on_cell=counter(given.say, "explain_shift", len(rows)))
    ways: dict[str, Explainer] = {MODEL: _looked_up(rows, scores), **simple_explainers(task)}
    return {name: _told(task, found, candidates, ways) for name, found in populations.items()}


def _asked(task: ChangeTask, n: int, seed: int) -> tuple[Ints, list[str]]:
    """At most ``n`` held-out cells of each perturbation, and its label."""
    rng = np.random.default_rng([seed, 23])
    drawn = {name: np.sort(rng.permutation(rows)[:n]) for name, rows in task.split.held.items()}
    return np.concatenate(list(drawn.values())), [name for name, rows in drawn.items() for _ in rows]


def _looked_up(rows: Ints, scores_CK: Floats) -> Explainer:
    """The model's scores, made once for every cell: those of a population are the sum of its cells'."""
    place = {int(row): number for number, row in enumerate(rows)}

    def score(task: ChangeTask, populations: Sequence[shift.Population], candidates: Sequence[str]) -> Floats:
        return np.stack([scores_CK[[place[int(row)] for row in each.rows]].sum(0) for each in populations])

    return score


def _told(task: ChangeTask, populations: Sequence[shift.Population], candidates: Sequence[str], ways: Mapping[str, Explainer]) -> Which:
    true = [each.target for each in populations]
    found = {name: shift.identification(true, way(task, populations, candidates), candidates) for name, way in ways.items()}
    one = next(iter(found.values()))
    return Which(
        n=one.n,
        n_candidates=one.n_candidates,
        chance_first=one.chance_first,
        chance_five=one.chance_five,
        ways={name: Told(first=each.first, five=each.five, rank=each.rank) for name, each in found.items()},
    )
