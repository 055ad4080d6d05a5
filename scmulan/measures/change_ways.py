"""Ways to foretell what a perturbation does, and to tell which it was: what each is given, and the simple ones that all are held against.

A way to foretell is a `Predictor`: it is given a `ChangeTask` and returns, for each held-out target, cells or a change. It may learn from
the rows of ``task.split.train`` and ``control_train`` alone; the truth's control cells are others. An `Explainer` scores candidates for
populations of cells, by the same training cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from scmulan.cells import Cells
from scmulan.measures import change_baselines as rules
from scmulan.measures import shift
from scmulan.measures.change import Change, Floats, change_between, moments
from scmulan.measures.change_baselines import TrainingChanges, training_changes
from scmulan.measures.change_splits import ChangeSplit
from scmulan.measures.populations import CellSpace


@dataclass(frozen=True, kw_only=True)
class ChangeTask:
    """What a way to foretell is given.

    Attributes
    ----------
    cells
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

    cells: Cells
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


def simple_explainers(task: ChangeTask) -> dict[str, Explainer]:
    """Look-up by correlation with the candidates' training changes, and logistic regression on their training cells."""
    return {"correlation": _by_lookup(False), "correlation, mean taken off": _by_lookup(True), "logistic regression": _by_classifier(task)}


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


def foretold_by(way: Predictor, task: ChangeTask, space: CellSpace) -> dict[str, tuple[Change, Floats]]:
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
