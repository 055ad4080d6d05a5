"""Which labelled cells are held out from fine-tuning: whole donors where that can be, else some of each label.

A held-out cell tells when to stop. Cells of one donor are alike, so a donor is held out whole, if there are at least three and no label
would be left without a cell to learn from; what was done is reported with its counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scmulan.errors import CellDataError, RecipeError

LEAST_DONORS = 3
TRAIN, HELD = "train", "valid"
BY = ("auto", "donor", "label")


@dataclass(frozen=True, kw_only=True)
class HeldOutRecipe:
    """Which cells are held out.

    Attributes
    ----------
    by : ``donor``, ``label`` (some cells of each), or ``auto``: donors where they can be parted
    share : of the cells, about; 0 holds none out, and training goes through all its steps
    column : column of ``obs`` that says train, valid or test, instead
    """

    by: str = "auto"
    share: float = 0.15
    column: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise RecipeError(f"held_out.by {self.by!r}: needed one of {', '.join(BY)}")
        if not 0 <= self.share < 1:
            raise RecipeError(f"held_out.share {self.share:g}: needed a share from 0 to less than 1")


@dataclass(frozen=True, kw_only=True)
class Division:
    """How cells were divided.

    Attributes
    ----------
    splits : (C,) ``train`` or ``valid`` (or ``test``, where a column said so)
    by, why : what was held out, and why not donors where it was not
    donors : split to its donors
    labels : split to label to cells
    """

    splits: list[str]
    by: str
    why: str
    donors: dict[str, list[str]]
    labels: dict[str, dict[str, int]]

    def lines(self) -> list[str]:
        """What a user is told."""
        counts = Counter(self.splits)
        held = ", ".join(f"{cells} {label}" for label, cells in self.labels.get(HELD, {}).items())
        lines = [f"{counts[TRAIN]:,} cells to learn from, {counts[HELD]:,} held out ({self.by}{'; ' if self.why else ''}{self.why})"]
        if counts[HELD]:
            lines.append(f"held out: {held}" + (f"; of donors {', '.join(self.donors[HELD])}" if self.by == "donor" else ""))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For the card: counts, not cells."""
        return {"by": self.by, "why": self.why, "cells": dict(Counter(self.splits)), "donors": self.donors, "labels": self.labels}


def divide(labels: Sequence[str | None], donors: Sequence[str | None], recipe: HeldOutRecipe, where: str) -> Division:
    """Divide cells by their labels and donors.

    Parameters
    ----------
    labels : (C,) what has to stay among the cells to learn from; None for cells that have none

    Raises
    ------
    CellDataError
        When there are too few cells, or donors are asked for and can't be parted.
    """
    if len(labels) < 2:
        raise CellDataError(f"{where}: {len(labels)} cell; needed at least 2, and some of each label, to learn from")
    names, groups = [label or "" for label in labels], list(donors)
    if recipe.share == 0:
        return _described([TRAIN] * len(names), names, groups, "none", "the recipe says so")
    held, why = None, ""
    if recipe.by in ("auto", "donor"):
        held, why = _whole_donors(names, groups, recipe)
        if held is None and recipe.by == "donor":
            raise CellDataError(f"{where}: held_out.by donor, but {why}; take held_out.by label")
    if held is not None:
        return _described([HELD if donor in held else TRAIN for donor in groups], names, groups, "donor", "")
    chosen = _some_of_each(names, recipe)
    if not chosen.any():
        raise CellDataError(
            f"{where}: a share of {recipe.share:g} of {len(names)} cells holds none out without leaving a label with none to learn from; "
            "raise held_out.share, or set it to 0 to train without"
        )
    return _described([HELD if is_held else TRAIN for is_held in chosen], names, groups, "label", why)


def as_said(splits: Sequence[str], labels: Sequence[str | None], donors: Sequence[str | None], column: str, where: str) -> Division:
    """A division that a column said; CellDataError when it leaves nothing to learn from."""
    if TRAIN not in splits:
        raise CellDataError(f"{where}: obs[{column!r}] calls no cell train, so there is nothing to learn from")
    if HELD not in splits:  # what is to stop by is whatever was not learnt from
        splits = [HELD if split == "test" else split for split in splits]
    return _described(list(splits), [label or "" for label in labels], list(donors), "column", column)


def _whole_donors(labels: list[str], donors: list[str | None], recipe: HeldOutRecipe) -> tuple[set[str] | None, str]:
    """Donors to hold out: as many labels as can be, in about the share of cells; or None and why not."""
    if None in donors or len(set(donors)) < LEAST_DONORS:
        known = len(set(donors) - {None})
        return None, f"{known} donors are known, and {LEAST_DONORS} are needed" if None not in donors else "not every cell has a donor"
    of_donor: dict[str, Counter[str]] = {}
    for label, donor in zip(labels, donors, strict=True):
        of_donor.setdefault(str(donor), Counter())[label] += 1
    left, most = Counter(labels), max(1.0, 2 * recipe.share * len(labels))
    held: set[str] = set()
    covered: set[str] = set()
    order = [sorted(of_donor)[place] for place in np.random.default_rng(recipe.seed).permutation(len(of_donor))]
    while sum(sum(of_donor[donor].values()) for donor in held) < recipe.share * len(labels):
        size = sum(sum(of_donor[donor].values()) for donor in held)
        possible = [
            donor
            for donor in order
            if donor not in held and size + of_donor[donor].total() <= most and all(left[label] > n for label, n in of_donor[donor].items())
        ]
        if not possible:
            break
        best = max(possible, key=lambda donor: (len(set(of_donor[donor]) - covered), -of_donor[donor].total()))
        held.add(best)
        covered |= set(of_donor[best])
        left -= of_donor[best]
    if not held:
        return None, "no donor can be held out that leaves each label a cell to learn from, and at least half of what is wanted"
    return held, ""


def _some_of_each(labels: list[str], recipe: HeldOutRecipe) -> np.ndarray:
    """(C,) bool: the share of each label's cells, drawn; never a label's last one."""
    rng = np.random.default_rng(recipe.seed)
    names, codes = np.unique(labels, return_inverse=True)
    cells = np.bincount(codes)
    wanted = recipe.share * cells
    take = np.floor(wanted).astype(int)
    # what is still owed to the whole goes to the labels that rounding cost most
    owed = round(recipe.share * len(labels)) - int(take.sum())
    for place in np.argsort(-(wanted - take) - rng.random(len(names)) * 1e-6)[: max(owed, 0)]:
        take[place] += 1
    take = np.minimum(take, cells - 1)
    chosen = np.zeros(len(labels), dtype=bool)
    for code, n in enumerate(take):
        chosen[rng.permutation(np.flatnonzero(codes == code))[:n]] = True
    return chosen


def _described(splits: list[str], labels: list[str], donors: list[str | None], by: str, why: str) -> Division:
    found = {name: [place for place, split in enumerate(splits) if split == name] for name in dict.fromkeys(sorted(splits))}
    return Division(
        splits=splits, by=by, why=why,
        donors={name: sorted({donor for place in places if (donor := donors[place]) is not None}) for name, places in found.items()},
        labels={name: dict(sorted(Counter(labels[place] for place in places).items())) for name, places in found.items()},
    )  # fmt: skip
