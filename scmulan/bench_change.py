"""A perturbation's cells foretold from control cells, and the perturbation told from the cells: every way beside the simple ones.

A way to foretell is a `Predictor`: it is given a `ChangeTask` and returns, for each held-out target, cells or a change. It may learn from
the rows of ``task.split.train`` and ``control_train`` alone; the truth's control cells are others. Data sets: papalexi (25 targets) with
cells, guides or targets held out, and kang (interferon) with cells held out. With targets held out in folds, the mean shift leans away from
the fold's own targets, so that it ranks below chance: the mean of others is what is left without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from scmulan import assets
from scmulan.cells import AnnData, read_cells, read_h5ad
from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures import change_baselines as rules
from scmulan.measures import shift
from scmulan.measures.change import Change, ChangeScore, Floats, TrueChange, change_between, compare_changes, moments, true_change
from scmulan.measures.change_baselines import TrainingChanges, training_changes
from scmulan.measures.change_noise import Ceiling, intervals, noise_ceiling, redrawn_truths
from scmulan.measures.change_splits import ChangeSplit, HeldOut, split_changes
from scmulan.measures.populations import CellSpace, cell_space, population_distance

Say = Callable[[str], None]
N_FOLDS = 5
DRAWS = 50
EFFECT = 20
"""A target with so many significantly changed genes over all its cells counts as one with an effect."""
POPULATION_SIZES: tuple[int | None, ...] = (1, 10, 50, None)
LEAST_MEASURED = 50
"""Held-out cells of a target for it to be asked about, so that all sizes but the last are over the same targets."""


@dataclass(frozen=True)
class Screen:
    """A data set of perturbed cells: its file, the columns of ``obs``, and what control cells are called."""

    file: str
    column: str
    control: str
    guide: str | None = None


SCREENS = {
    "papalexi": Screen("papalexi_eccite_thp1.h5ad", "perturbation", "non-targeting", "guide"),
    "kang": Screen("kang_pbmc_ifnb.h5ad", "condition", "control"),
}
SETTINGS: dict[str, tuple[str, HeldOut]] = {
    "papalexi, cells held out": ("papalexi", "cells"),
    "papalexi, guides held out": ("papalexi", "guides"),
    "papalexi, targets held out": ("papalexi", "targets"),
    "kang, cells held out": ("kang", "cells"),
}


@dataclass(frozen=True, kw_only=True)
class ChangeTask:
    """What a way to foretell is given.

    Attributes
    ----------
    adata
        All cells as they were read; rows as in ``split``.
    counts
        ``[C, G]`` int32 CSR of the measured genes, whose symbols are ``genes``.
    targets, guides
        Of each cell.
    split
        Rows to learn from and held out. ``split.held`` is there for its keys: what to foretell.
    training
        The training changes that the rules go by, where they are not simply those of the training cells by target.
    """

    adata: AnnData
    counts: sp.csr_matrix
    genes: list[str]
    targets: list[str]
    guides: list[str] | None
    split: ChangeSplit
    seed: int
    training: TrainingChanges | None = None


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """A foretold population, as counts ``[n, G]`` over the task's genes, and the control cells that its change is from.

    ``control`` is that which the cells were made from (or cells that the same model wrote unperturbed); all of ``control_train`` when None.
    """

    cells: Any
    control: Any = None


class Predictor(Protocol):
    """A way to foretell: for each target of ``task.split.held``, cells or a mean change."""

    def __call__(self, task: ChangeTask) -> Mapping[str, Foretold | Change]: ...


class Explainer(Protocol):
    """A way to tell the perturbation: scores ``[Q, K]`` of the candidates for populations of rows of the task's cells."""

    def __call__(self, task: ChangeTask, populations: Sequence[shift.Population], candidates: Sequence[str]) -> Floats: ...


def change(
    *,
    data: Path | None,
    n: int | None,
    only: Sequence[str],
    seed: int,
    say: Say,
    predictors: Mapping[str, Predictor] | None = None,
    explainers: Mapping[str, Explainer] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Every setting, or those named: the simple ways, and any others that are given.

    Parameters
    ----------
    n : draws of the true cells for the intervals (50)
    only : names of ``SETTINGS``, or their beginnings
    predictors, explainers : further ways, by name
    """
    wanted = _settings(only)
    found: dict[str, Any] = {}
    for name in wanted:
        screen, held_out = SETTINGS[name]
        tasks = [task_of(screen, held_out, data, seed=seed, fold=fold) for fold in range(N_FOLDS if held_out == "targets" else 1)]
        found[name] = measure(tasks, predictors or {}, draws=n or DRAWS)
        say_table(name, found[name], say)
        if screen == "papalexi" and held_out != "targets":
            found[f"{name}: which perturbation"] = explained = explain(tasks[0], explainers or {})
            for size, ways in explained.items():
                say(f"{name}: which perturbation, {size}: {json.dumps(ways)}")
    return found


def task_of(screen: str, held_out: HeldOut, data: Path | None, *, seed: int = 0, fold: int = 0) -> ChangeTask:
    """The task of a data set and what is held out; the same split for the same seed and fold."""
    source = SCREENS[screen]
    folder = data if data is not None else assets.path("embedded", "cells")
    adata = read_h5ad(folder / source.file)
    for column in (source.column, source.guide):
        if column is not None and column not in adata.obs:
            raise CellDataError(f"{source.file}: no column {column!r} in obs{nearest(column, list(adata.obs))}")
    cells = read_cells(adata)
    targets = adata.obs[source.column].astype(str).tolist()
    guides = adata.obs[source.guide].astype(str).tolist() if source.guide is not None else None
    return ChangeTask(
        adata=adata,
        counts=cells.counts[:, cells.measured],
        genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]],
        targets=targets,
        guides=guides,
        split=split_changes(targets, source.control, held_out=held_out, guides=guides, fold=fold, n_folds=N_FOLDS, seed=seed),
        seed=seed,
    )


def measure(tasks: Sequence[ChangeTask], predictors: Mapping[str, Predictor], *, draws: int = DRAWS) -> dict[str, Any]:
    """The folds of one setting, measured together: the noise ceiling, and a row for each way to foretell."""
    first = tasks[0]
    if any(not np.array_equal(task.split.control_true, first.split.control_true) for task in tasks):
        raise ValueError("folds of one setting need the same control cells of the truth; measure each alone")
    control = first.counts[first.split.control_true]
    cells = {name: first.counts[rows] for task in tasks for name, rows in sorted(task.split.held.items())}
    truths = {name: true_change(control, each) for name, each in cells.items()}
    redrawn = redrawn_truths(control, cells, n=draws, seed=first.seed)
    space = cell_space(sp.vstack([control, *cells.values()]), seed=first.seed)
    true_points = {name: space.place(each) for name, each in cells.items()}
    seen = {first.targets[row] for row in first.split.train}
    ways = {**simple_predictors(unseen=not seen & set(first.split.held)), **predictors}
    strong = {name for name in cells if _has_effect(first, name)} if len(cells) > 1 else set()
    found: dict[str, Any] = {
        "targets": {name: truth.n_cells for name, truth in truths.items()},
        "significant_genes": {name: int(truth.is_significant.sum()) for name, truth in truths.items()},
        "targets_with_an_effect": sorted(strong),
        "ceiling": _ceiling_row(noise_ceiling(control, cells, seed=first.seed), true_points, space),
        "ways": {},
    }
    if strong:
        some = {name: each for name, each in cells.items() if name in strong}
        found["ceiling_with_an_effect"] = _ceiling_row(noise_ceiling(control, some, seed=first.seed), _only(true_points, strong), space)
    for name, way in ways.items():
        foretold = {target: each for task in tasks for target, each in _foretell(way, task, space).items()}
        changes = {target: each for target, (each, _) in foretold.items()}
        points = {target: each for target, (_, each) in foretold.items()}
        row = _row(truths, changes, redrawn) | _population_row(true_points, points, space)
        if strong:
            row["with_an_effect"] = _row(_only(truths, strong), changes, [_only(each, strong) for each in redrawn]) | _population_row(
                _only(true_points, strong), points, space
            )
        found["ways"][name] = row
    return found


def simple_predictors(*, unseen: bool) -> dict[str, Predictor]:
    """The rules of `scmulan.measures.change_baselines`, and training cells of the target again, where it was seen."""
    wanted = {name: rule for name, rule in rules.RULES.items() if not unseen or name not in rules.OF_SEEN}
    found: dict[str, Predictor] = {name: _by_rule(rule) for name, rule in wanted.items()}
    if not unseen:
        found["training cells of the target"] = _training_cells
    return found


def training_of(task: ChangeTask) -> TrainingChanges:
    """The changes of the task's training cells, by guide where guides are known."""
    if task.training is not None:
        return task.training
    rows = task.split.train
    return training_changes(
        task.counts[task.split.control_train], task.counts[rows], [task.targets[row] for row in rows],
        groups=None if task.guides is None else [task.guides[row] for row in rows], genes=task.genes, seed=task.seed,
    )  # fmt: skip


def explain(task: ChangeTask, explainers: Mapping[str, Explainer]) -> dict[str, Any]:
    """Which perturbation: populations of 1, 10, 50 and all held-out cells, by look-up, by a classifier, and by the ways given."""
    ways: dict[str, Explainer] = {"correlation": _by_lookup(False), "correlation, mean taken off": _by_lookup(True), **explainers}
    fitted = _by_classifier(task)
    ways["logistic regression"] = fitted
    candidates = sorted({task.targets[row] for row in task.split.train})
    held = {name: rows for name, rows in task.split.held.items() if len(rows) >= LEAST_MEASURED}
    rows = np.concatenate(list(held.values()))
    labels = [name for name, each in held.items() for _ in each]
    found: dict[str, Any] = {}
    for size in POPULATION_SIZES:
        drawn = shift.draw_populations(labels, size, seed=task.seed)
        if not drawn:
            continue
        populations = [replace(each, rows=rows[each.rows]) for each in drawn]
        answers = {name: shift.identification([p.target for p in populations], way(task, populations, candidates), candidates)
                   for name, way in ways.items()}  # fmt: skip
        one = next(iter(answers.values()))
        chance = {"queries": one.n, "candidates": one.n_candidates, "chance": [_short(one.chance_first), _short(one.chance_five)]}
        shares = {name: {part: _short(getattr(each, part)) for part in ("first", "five", "rank")} for name, each in answers.items()}
        found[f"{size or 'all'} cells"] = chance | shares
    return found


def _by_rule(rule: rules.Rule) -> Predictor:
    def foretell(task: ChangeTask) -> Mapping[str, Foretold | Change]:
        training = training_of(task)
        return {target: rule(training, target) for target in task.split.held}

    return foretell


def _training_cells(task: ChangeTask) -> Mapping[str, Foretold | Change]:
    rows = {target: [row for row in task.split.train if task.targets[row] == target] for target in task.split.held}
    return {target: Foretold(cells=task.counts[each]) for target, each in rows.items()}


def _by_lookup(is_centred: bool) -> Explainer:
    def score(task: ChangeTask, populations: Sequence[shift.Population], candidates: Sequence[str]) -> Floats:
        training = training_of(task)
        profiles = np.stack([rules.target_mean(training, name).mean for name in candidates])
        changes = shift.population_changes(task.counts, populations, moments(task.counts[task.split.control_true]).mean)
        return shift.correlation_lookup(profiles, changes, is_centred=is_centred)

    return score


def _by_classifier(task: ChangeTask) -> Explainer:
    rows = task.split.train
    fitted = shift.fit_classifier(task.counts[rows], [task.targets[row] for row in rows])

    def score(task: ChangeTask, populations: Sequence[shift.Population], candidates: Sequence[str]) -> Floats:
        return shift.classifier_scores(fitted, task.counts, populations, candidates)

    return score


def _foretell(way: Predictor, task: ChangeTask, space: CellSpace) -> dict[str, tuple[Change, Floats]]:
    """Of each held-out target the foretold change, and cells as points: those foretold, or control cells all moved by the change."""
    control = task.counts[task.split.control_train]
    before, at = moments(control), space.place(control)
    found = {}
    for target, each in way(task).items():
        if isinstance(each, Change):
            found[target] = each, space.moved(at, each.mean)
        else:
            found[target] = change_between(before if each.control is None else moments(each.control), each.cells), space.place(each.cells)
    return found


def _has_effect(task: ChangeTask, target: str) -> bool:
    rows = [row for row, name in enumerate(task.targets) if name == target]
    controls = np.concatenate([task.split.control_train, task.split.control_true])
    return int(true_change(task.counts[controls], task.counts[rows]).is_significant.sum()) >= EFFECT


def _row(truths: Mapping[str, TrueChange], changes: Mapping[str, Change], redrawn: list[dict[str, TrueChange]]) -> dict[str, Any]:
    compared = compare_changes(truths, changes)
    row: dict[str, Any] = {each.name: _short(getattr(compared.means, each.name)) for each in fields(ChangeScore)}
    if compared.spread is not None and compared.discrimination is not None:
        row |= {"spread": _short(compared.spread.ratio), "rank": _short(compared.discrimination.rank)}
        row["first"] = _short(compared.discrimination.first)
    row["intervals"] = {name: [_short(each.low), _short(each.high)] for name, each in intervals(compared, changes, redrawn).items()}
    return row


def _population_row(true: Mapping[str, Floats], foretold: Mapping[str, Floats], space: CellSpace) -> dict[str, Any]:
    found = [asdict(population_distance(points, foretold[name], bandwidth=space.bandwidth)) for name, points in true.items()]
    return {name: _short(float(np.mean([each[name] for each in found]))) for name in ("energy", "mmd")}


def _ceiling_row(ceiling: Ceiling, points: Mapping[str, Floats], space: CellSpace) -> dict[str, Any]:
    """The ceiling, with the distance of one half of the true cells from the other."""
    apart = _population_row({name: each[::2] for name, each in points.items()}, {name: each[1::2] for name, each in points.items()}, space)
    plain = {name: _short(value) for name, value in asdict(ceiling).items() if name not in ("halves", "n_splits")}
    halves = {name: _short(value) for name, value in asdict(ceiling.halves).items()}
    return plain | {"halves": halves} | {f"halves_{name}": value for name, value in apart.items()}


def _only(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _settings(only: Sequence[str]) -> list[str]:
    for name in only:
        if not any(setting.startswith(name) for setting in SETTINGS):
            raise PromptError(f"--only {name!r}: needed one of {'; '.join(SETTINGS)}{nearest(name, list(SETTINGS))}")
    return [setting for setting in SETTINGS if not only or any(setting.startswith(name) for name in only)]


COLUMNS = ("pearson", "pearson_top", "pearson_specific", "rmse", "direction", "fold_slope", "marker_recall", "spread", "rank", "energy")


def say_table(name: str, found: Mapping[str, Any], say: Say) -> None:
    """The rows of a setting, of all its targets and of those with an effect."""
    say(f"{name}: {json.dumps(found['targets'])}")
    for part, ceiling in ((None, "ceiling"), ("with_an_effect", "ceiling_with_an_effect")):
        if ceiling not in found:
            continue
        say(f"{name}{', targets with an effect: ' + ', '.join(found['targets_with_an_effect']) if part else ''}")
        say(f"  ceiling {json.dumps(found[ceiling])}")
        say("  " + " ".join(f"{column:>16}" for column in ("", *COLUMNS)))
        for way, row in found["ways"].items():
            shown = row if part is None else row[part]
            say(f"  {way:>30} " + " ".join(f"{'-' if shown.get(c) is None else format(shown[c], '.3f'):>16}" for c in COLUMNS))
