"""Which cells stand first in sentences about two cells: the controls of a perturbed cell, the ancestors of a later one.

Controls are told from the labels: cells of the same data set and of the same fields, but not perturbed. Ancestors are told by the
corpus, for it takes all cells of a data set to find them (``scmulan.corpus.states``). A first cell is of the same split as the second,
and is drawn anew each time. Limit: in a corpus of more than one window, first cells are looked for within the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scmulan.corpus.shards import CellRows
from scmulan.csentence import Ids

CONTROLS = ("control", "non-targeting control")
"""Labels of ``perturbation`` that stand for none."""
PERTURBED_FIELDS = ("perturbation", "dose")
RELAXED: tuple[tuple[str, ...], ...] = ((), ("time",), ("time", "donor"), ("time", "donor", "cell_type", "lineage", "stage", "sex"))
"""What a control need not share, where none shares it."""


@dataclass(frozen=True)
class FirstCells:
    """For each cell, those that may stand first in a sentence that it is the second cell of.

    Attributes
    ----------
    of_row : (C,) the place of each row's candidates in ``rows``, -1 where it has none
    rows, chances : candidates of one second cell or of many, and how likely each is to be drawn, adding up to 1
    """

    of_row: Ids
    rows: tuple[Ids, ...]
    chances: tuple[npt.NDArray[np.float64], ...]

    def has(self, row: int) -> bool:
        """Whether a row may be the second cell."""
        return bool(self.of_row[row] >= 0)

    def draw(self, row: int, uniform: float) -> int:
        """A first cell for a row, by a number from 0 to 1; another one than itself where there is any."""
        rows = self.rows[place := int(self.of_row[row])]
        at = min(int(np.searchsorted(np.cumsum(self.chances[place]), uniform, side="right")), len(rows) - 1)
        return int(rows[at] if rows[at] != row else rows[(at + 1) % len(rows)])


def first_cells_of(rows: CellRows, kinds: Set[str]) -> dict[str, FirstCells]:
    """First cells of each kind that is asked for."""
    makers: dict[str, Callable[[CellRows], FirstCells]] = {"control": controls_of, "earlier": ancestors_of, "shallower": selves}
    return {kind: makers[kind](rows) for kind in sorted(kinds)}


def is_control(perturbation: str | None) -> bool:
    """Whether a label of ``perturbation`` stands for none.

    >>> is_control("non-targeting control"), is_control("STAT1 knockout"), is_control(None)
    (True, False, False)
    """
    return perturbation in CONTROLS


def controls_of(rows: CellRows) -> FirstCells:
    """The unperturbed cells of each cell's data set, donor and other fields; where there are none, see ``RELAXED``.

    A control has the others as its own: what it becomes when nothing is done to it is learnt too.
    """
    labels = rows.fields.get("perturbation") or [None] * len(rows)
    controls = [row for row, label in enumerate(labels) if is_control(label)]
    of_row = np.full(len(rows), -1, dtype=np.int64)
    pools: list[Ids] = []
    for relaxed in RELAXED:
        is_of_type = "cell_type" not in relaxed  # a perturbed cell may have become another type; a control has not
        waiting = [row for row, label in enumerate(labels) if label is not None and of_row[row] < 0]
        if not is_of_type:
            waiting = [row for row in waiting if not is_control(labels[row])]
        if not waiting or not controls:
            break
        of_key = dict[tuple[str | None, ...], list[int]]()
        for row, key in zip(controls, _keys(rows, controls, relaxed), strict=True):
            of_key.setdefault(key, []).append(row)
        place_of = {key: len(pools) + number for number, key in enumerate(of_key)}
        pools += [np.array(members, dtype=np.int64) for members in of_key.values()]
        for row, key in zip(waiting, _keys(rows, waiting, relaxed), strict=True):
            if of_key.get(key, [row]) != [row]:
                of_row[row] = place_of[key]
    return FirstCells(of_row, tuple(pools), tuple(np.full(len(pool), 1 / len(pool)) for pool in pools))


def _keys(rows: CellRows, chosen: Sequence[int], relaxed: Sequence[str]) -> list[tuple[str | None, ...]]:
    """What a control shares with a perturbed cell, but for the relaxed fields."""
    columns: list[Sequence[str | None]] = [rows.datasets, rows.splits]
    if "donor" not in relaxed:
        columns.append(rows.donors)
    columns += [values for name, values in rows.fields.items() if name not in (*PERTURBED_FIELDS, *relaxed)]
    return [tuple(column[row] for column in columns) for row in chosen]


def ancestors_of(rows: CellRows) -> FirstCells:
    """The ancestors that the corpus tells of each cell."""
    place = {key: row for row, key in enumerate(zip(rows.datasets, rows.cell_ids, strict=True))}
    found = dict[int, list[tuple[int, float]]]()
    for dataset, earlier, later, weight in rows.states:
        first, second = place.get((dataset, earlier)), place.get((dataset, later))
        if first is not None and second is not None and rows.splits[first] == rows.splits[second]:
            found.setdefault(second, []).append((first, weight))
    of_row = np.full(len(rows), -1, dtype=np.int64)
    of_row[list(found)] = np.arange(len(found))
    weights = [np.array([weight for _, weight in pairs]) for pairs in found.values()]
    firsts = tuple(np.array([first for first, _ in pairs], dtype=np.int64) for pairs in found.values())
    return FirstCells(of_row, firsts, tuple(weight / weight.sum() for weight in weights))


def selves(rows: CellRows) -> FirstCells:
    """Each cell itself, of tasks whose first cell is the second measured less deeply."""
    return FirstCells(np.arange(len(rows)), tuple(np.array([row]) for row in range(len(rows))), (np.ones(1),) * len(rows))
