"""What is held out of a perturbation data set: cells, guides, or whole targets; and the control cells, halved.

One half of the control cells is for training and for prediction, the other for the truth alone, so that no noise is shared. A model that is
measured on a split must have been trained on ``train`` and ``control_train`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.measures.change import disjoint_halves

HeldOut = Literal["cells", "guides", "targets"]
LEAST_CELLS = 10
"""A target is measured on as many held-out cells or more, and a held-out guide has as many."""
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ChangeSplit:
    """Rows of a data set.

    Attributes
    ----------
    train
        Perturbed cells to learn from.
    held
        Target to its held-out cells, which the truth is made of.
    control_train, control_true
        Disjoint halves of the control cells.
    held_guides
        Target to the guide that was held out, where guides are.
    left_out
        Targets that could not be held out, and why.
    """

    train: Rows
    held: dict[str, Rows]
    control_train: Rows
    control_true: Rows
    held_guides: dict[str, str]
    left_out: dict[str, str]


def split_changes(
    targets: Iterable[Any],
    control: str,
    *,
    held_out: HeldOut = "cells",
    guides: Iterable[Any] | None = None,
    share: float = 0.2,
    fold: int = 0,
    n_folds: int = 5,
    seed: int = 0,
) -> ChangeSplit:
    """The rows to learn from and those held out.

    Parameters
    ----------
    targets
        Perturbation of each cell.
    control
        What the control cells are called among them.
    held_out
        ``cells``: a random ``share`` of each target's; ``guides``: all cells of one guide of each target, drawn by seed;
        ``targets``: all cells of the targets of fold ``fold`` of ``n_folds``.

    Raises
    ------
    CellDataError
        When there is no control cell, or nothing can be held out.
    """
    if held_out not in get_args(HeldOut):
        raise PromptError(f"held out {held_out!r}: needed one of cells, guides, targets{nearest(held_out, get_args(HeldOut))}")
    named = np.asarray([str(target) for target in targets], dtype=object)
    guided = np.asarray([str(guide) for guide in guides], dtype=object) if guides is not None else None
    controls = np.flatnonzero(named == control)
    if len(controls) < 2:
        raise CellDataError(f"control cells: {len(controls)} are {control!r}; needed 2, better 500{nearest(control, sorted(set(named)))}")
    one, other = (controls[half] for half in disjoint_halves(len(controls), seed))
    names, rng = sorted(set(named) - {control}), np.random.default_rng([seed, 7])
    folded = set(rng.permutation(names)[fold::n_folds]) if held_out == "targets" else set(names)
    held: dict[str, Rows] = {}
    held_guides, left_out = {}, {}
    for name in (each for each in names if each in folded):
        rows = np.flatnonzero(named == name)
        if held_out == "guides":
            guide = _drawn_guide(guided, rows, rng)
            if guide is None:
                left_out[name] = f"no guide of {LEAST_CELLS} cells beside another"
                continue
            held_guides[name], rows = guide, rows[guided[rows] == guide]  # type: ignore[index]
        elif held_out == "cells":
            rows = np.sort(rng.choice(rows, round(share * len(rows)), replace=False))
        if len(rows) < LEAST_CELLS:
            left_out[name] = f"{len(rows)} cells to hold out; needed {LEAST_CELLS}"
        else:
            held[name] = rows
    if not held:
        raise CellDataError(f"nothing to hold out: {left_out}")
    taken = np.concatenate([controls, *held.values()])
    return ChangeSplit(
        train=np.setdiff1d(np.arange(len(named)), taken), held=held, control_train=one, control_true=other, held_guides=held_guides,
        left_out=left_out,
    )  # fmt: skip


def _drawn_guide(guides: NDArray[Any] | None, rows: Rows, rng: np.random.Generator) -> str | None:
    """A guide of these cells that has enough of them, where another has enough to learn from."""
    if guides is None:
        raise PromptError("guides held out: needed the guide of each cell")
    names, n = np.unique(guides[rows].astype(str), return_counts=True)
    large = names[n >= LEAST_CELLS]
    return str(rng.choice(large)) if len(large) > 1 else None
