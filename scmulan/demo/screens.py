"""Perturbed cells of one data set as the demonstration takes them: what may be learnt from, what is held out, and the training changes.

Held-out cells have held-out control cells of their own: the noise of a shared control would correlate truth and prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scmulan.corpus.pairs import CONTROLS
from scmulan.demo.stage import Dataset, Stage
from scmulan.demo.whole import Rows, Whole
from scmulan.measures.change import moments, true_change
from scmulan.measures.change_baselines import TrainingChanges, training_changes

LEAST_HELD = 25
"""Held-out cells, and training cells, that a perturbation needs to be shown: the truth of fewer is noise."""
HIDDEN = ("perturbation", "guide", "condition", "treatment")
"""Columns of ``obs`` that would tell the answer."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """A data set of perturbed cells: rows to learn from and held-out ones, by perturbation, and the training changes."""

    whole: Whole
    train: dict[str, Rows]
    held: dict[str, Rows]
    control_train: Rows
    control_true: Rows
    training: TrainingChanges
    significant: dict[str, int]


def find(datasets: Sequence[Dataset]) -> Dataset | None:
    """The data set with the most held-out cells that were perturbed, of those that have controls on either side."""

    def n_perturbed(dataset: Dataset) -> int:
        sides = [dataset.held.fields.get("perturbation") or [], dataset.train.fields.get("perturbation") or []]
        if any(not set(CONTROLS) & set(side) for side in sides):
            return 0
        return sum(label is not None and label not in CONTROLS for label in sides[0])

    best = max(datasets, key=n_perturbed)
    return best if n_perturbed(best) else None


def open_screen(stage: Stage, dataset: Dataset) -> Screen | None:
    """Rows by perturbation, of those that the model has seen and of which there are enough cells; None of fewer than two."""
    whole = stage.whole(dataset)
    label, is_held = whole.field("perturbation"), whole.is_held
    is_control = np.isin(label.astype(str), CONTROLS)
    control_train, control_true = np.flatnonzero(is_control & ~is_held), np.flatnonzero(is_control & is_held)
    names = sorted({str(value) for value in label[~is_control] if value is not None} & set(stage.model.seen.values("perturbation")))
    train = {name: np.flatnonzero((label == name) & ~is_held) for name in names}
    held = {name: np.flatnonzero((label == name) & is_held) for name in names}
    kept = [name for name in names if len(held[name]) >= LEAST_HELD and len(train[name]) >= LEAST_HELD]
    if len(kept) < 2:
        return None
    counts, before = whole.counts, moments(whole.counts[control_train])
    rows = np.concatenate(list(train.values()))
    guides = whole.column("guide")
    training = training_changes(
        counts[control_train], counts[rows], label[rows].tolist(), groups=None if guides is None else [guides[row] for row in rows]
    )
    significant = {name: int(true_change(before, counts[train[name]]).is_significant.sum()) for name in kept}
    return Screen(
        whole=whole, train=train, held={name: held[name] for name in kept}, control_train=control_train, control_true=control_true,
        training=training, significant=significant,
    )  # fmt: skip
