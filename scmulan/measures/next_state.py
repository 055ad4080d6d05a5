"""Later states foretold from earlier cells: the population as a whole, and each cell against its own relatives.

Predictions and truths are points in one `CellSpace`, so that means, moved cells and generated counts are measured alike. The population
distance asks whether the cells are like real later cells; the error whether a cell went where its relatives did, which a mean does well;
the rank whether clones are told apart, which a mean can't do. No one of the three is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from scmulan.errors import CellDataError
from scmulan.measures.change import Floats
from scmulan.measures.fate import Ints
from scmulan.measures.populations import PopulationDistance, population_distance


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Pairs ``[N]`` of a row of earlier cells and a row of later cells, with weights that sum to one for each earlier cell."""

    earlier: Ints
    later: Ints
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class NextStateScore:
    """Foretold cells against the later relatives of the earlier cells.

    Attributes
    ----------
    population
        Distance of all foretold cells from all later relatives.
    error
        Distance of a foretold cell from the mean of its relatives, mean over cells, in the units of the space.
    rank
        Mean share of the other clones whose later mean is farther from the clone's foretold mean than its own (0.5 by chance and for one
        answer to all); None without clones, or for fewer than two.
    """

    n_cells: int
    population: PopulationDistance
    error: float
    rank: float | None


def next_state_score(
    predicted: Floats,
    later: Floats,
    pairs: Followed,
    *,
    clones: Sequence[Any] | None = None,
    bandwidth: float | None = None,
    seed: int = 0,
) -> NextStateScore:
    """Points foretold for each earlier cell ``[C, K]`` against points of later cells ``[M, K]``.

    Earlier cells without a pair, and later cells without one, take no part.

    Raises
    ------
    CellDataError
        When there are fewer than two earlier cells with a pair.
    """
    cells, means = relatives_mean(later, pairs)
    if len(cells) < 2:
        raise CellDataError(f"next state: {len(cells)} earlier cells have a later relative; needed at least 2")
    said = predicted[cells]
    return NextStateScore(
        n_cells=len(cells),
        population=population_distance(later[np.unique(pairs.later)], said, bandwidth=bandwidth, seed=seed),
        error=float(np.linalg.norm(said - means, axis=1).mean()),
        rank=None if clones is None else _clone_rank(said, means, [str(clones[cell]) for cell in cells]),
    )


def relatives_mean(later: Floats, pairs: Followed) -> tuple[Ints, Floats]:
    """The earlier cells that have a pair, and the weighted mean of each one's relatives."""
    cells, place = np.unique(pairs.earlier, return_inverse=True)
    total, weight = np.zeros((len(cells), later.shape[1])), np.zeros(len(cells))
    np.add.at(total, place, later[pairs.later] * pairs.weight[:, None])
    np.add.at(weight, place, pairs.weight)
    return cells.astype(np.int64), total / weight[:, None]


def as_neighbour(train_earlier: Floats, train_later: Floats, train_pairs: Followed, earlier: Floats, *, seed: int = 0) -> Floats:
    """For each earlier cell ``[C, K]`` a later relative, drawn by weight, of the nearest training cell: a real cell, ``[C, K]``."""
    known = np.unique(train_pairs.earlier)
    near = NearestNeighbors(n_neighbors=1).fit(train_earlier[known]).kneighbors(earlier, return_distance=False).ravel()
    rng, found = np.random.default_rng(seed), []
    for cell in known[near]:
        of_cell = np.flatnonzero(train_pairs.earlier == cell)
        weight = train_pairs.weight[of_cell]
        found.append(train_pairs.later[rng.choice(of_cell, p=weight / weight.sum())])
    drawn: Floats = train_later[np.array(found, dtype=np.int64)]
    return drawn


def _clone_rank(said: Floats, means: Floats, clones: list[str]) -> float | None:
    names = sorted(set(clones))
    if len(names) < 2:
        return None
    labels = np.array(clones, dtype=object)
    foretold, true = (np.stack([side[labels == name].mean(0) for name in names]) for side in (said, means))
    distance = np.linalg.norm(foretold[:, None] - true[None], axis=2).round(9)
    own = np.diag(distance)[:, None]
    farther = (distance > own).sum(1) + ((distance == own).sum(1) - 1) / 2
    return float((farther / (len(names) - 1)).mean())
