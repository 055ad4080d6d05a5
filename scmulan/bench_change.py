"""A perturbation's cells foretold from control cells, and the perturbation told from the cells: every way beside the simple ones.

What a way is given, and the simple ones, stand in `scmulan.measures.change_ways`. Data sets: papalexi (25 targets) with
cells, guides or targets held out, and kang (interferon) with cells held out. With targets held out in folds, the mean shift leans away from
the fold's own targets, so that it ranks below chance: the mean of others is what is left without them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import assets
from scmulan.cells import read_cells, read_h5ad
from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures import shift
from scmulan.measures.change import Change, ChangeScore, Floats, TrueChange, compare_changes, true_change
from scmulan.measures.change_noise import Ceiling, intervals, noise_ceiling, redrawn_truths
from scmulan.measures.change_splits import HeldOut, split_changes
from scmulan.measures.change_ways import ChangeTask, Explainer, Predictor, foretold_by, simple_explainers, simple_predictors
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
        cells=cells,
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
        foretold = {target: each for task in tasks for target, each in foretold_by(way, task, space).items()}
        changes = {target: each for target, (each, _) in foretold.items()}
        points = {target: each for target, (_, each) in foretold.items()}
        row = _row(truths, changes, redrawn) | _population_row(true_points, points, space)
        if strong:
            row["with_an_effect"] = _row(_only(truths, strong), changes, [_only(each, strong) for each in redrawn]) | _population_row(
                _only(true_points, strong), points, space
            )
        found["ways"][name] = row
    return found


def explain(task: ChangeTask, explainers: Mapping[str, Explainer], *, most: int | None = None) -> dict[str, Any]:
    """Which perturbation: populations of 1, 10, 50 and all held-out cells, by look-up, by a classifier, and by the ways given.

    Parameters
    ----------
    most : held-out cells of each perturbation, drawn evenly; all of them where not given
    """
    ways = {**simple_explainers(task), **explainers}
    candidates = sorted({task.targets[row] for row in task.split.train})
    held = {name: spread_over(rows, most) for name, rows in task.split.held.items() if len(rows) >= LEAST_MEASURED}
    rows = np.concatenate(list(held.values()))
    labels = [name for name, each in held.items() for _ in each]
    drawn = {size: some for size in POPULATION_SIZES if (some := shift.draw_populations(labels, size, seed=task.seed))}
    populations = {size: [replace(each, rows=rows[each.rows]) for each in some] for size, some in drawn.items()}
    every, ends = list(itertools.chain(*populations.values())), np.cumsum([len(some) for some in populations.values()])
    scores = {name: np.split(way(task, every, candidates), ends[:-1]) for name, way in ways.items()}  # a cell is asked about once
    found: dict[str, Any] = {}
    for number, (size, some) in enumerate(populations.items()):
        targets = [each.target for each in some]
        answers = {name: shift.identification(targets, of_sizes[number], candidates) for name, of_sizes in scores.items()}
        one = next(iter(answers.values()))
        chance = {"queries": one.n, "candidates": one.n_candidates, "chance": [_short(one.chance_first), _short(one.chance_five)]}
        shares = {name: {part: _short(getattr(each, part)) for part in ("first", "five", "rank")} for name, each in answers.items()}
        found[f"{size or 'all'} cells"] = chance | shares
    return found


def spread_over(rows: npt.NDArray[np.int64], most: int | None) -> npt.NDArray[np.int64]:
    """At most so many of them, evenly over all."""
    if most is None or len(rows) <= most:
        return rows
    chosen: npt.NDArray[np.int64] = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    return chosen


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
