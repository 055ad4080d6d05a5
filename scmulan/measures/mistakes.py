"""How far wrong cell types are from right ones: by steps in the Cell Ontology, and whether at least the lineage is right.

Steps count up from one type to the nearest shared ancestor and down to the other: CD4 T cell to CD8 T cell 2, to hepatocyte many more.
Two labels of one term (states of a type) are 0 apart. A mistake is measured only where both labels have an id; the others are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from scmulan.errors import CellDataError
from scmulan.metadata import canonical, lineage_of
from scmulan.ontology import Ontology


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Wrong answers about ``n`` cells.

    Attributes
    ----------
    n, n_wrong
        Cells, and those answered wrongly; a cell without an answer is none of these.
    n_without_id
        Wrong answers of which the true or the said type has no id in the Cell Ontology: they have no distance.
    mean_distance
        Mean steps between true and said type over the other wrong answers; None where there is none.
    lineage_accuracy
        Share of all cells whose answer has the true lineage; a type without lineage stands for itself, no answer is wrong.
    """

    n: int
    n_wrong: int
    n_without_id: int
    mean_distance: float | None
    lineage_accuracy: float


def mistakes(true: Iterable[Any], said: Iterable[Any]) -> Mistakes:
    """Distance of wrong answers and accuracy of lineages, from true cell types and those said (None or NaN: no answer).

    Raises
    ------
    CellDataError
        When lengths differ or there is no cell.

    Examples
    --------
    >>> found = mistakes(["naive B cell", "naive B cell", "T cell"], ["naive B cell", "memory B cell", "monocyte"])
    >>> found.n_wrong, found.mean_distance, round(found.lineage_accuracy, 2)
    (2, 3.0, 0.67)
    """
    truth, answers = [str(label) for label in true], list(said)
    if not truth or len(truth) != len(answers):
        raise CellDataError(
            f"labels: {len(truth):,} true ones but {len(answers):,} of 'said'; needed one of each a cell, and one cell or more"
        )
    pairs = Counter((label, str(answer)) for label, answer in zip(truth, answers, strict=True) if not pd.isna(answer))
    wrong = {pair: cells for pair, cells in pairs.items() if pair[0] != pair[1]}
    far = {pair: steps for pair in wrong if (steps := distance(*pair)) is not None}
    n_measured = sum(wrong[pair] for pair in far)
    right = sum(cells for pair, cells in pairs.items() if (lineage_of(pair[0]) or pair[0]) == (lineage_of(pair[1]) or pair[1]))
    return Mistakes(
        n=len(truth),
        n_wrong=sum(wrong.values()),
        n_without_id=sum(wrong.values()) - n_measured,
        mean_distance=sum(wrong[pair] * steps for pair, steps in far.items()) / n_measured if n_measured else None,
        lineage_accuracy=right / len(truth),
    )


def distance(first: str, second: str) -> int | None:
    """Steps between two cell types in the Cell Ontology, None where one has no id in it.

    >>> distance("CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell")
    2
    """
    cells, ids = Ontology.load("CL"), [canonical("cell_type", label).ontology_id for label in (first, second)]
    return cells.distance(*ids) if all(each in cells for each in ids) else None
