"""Fates: what kind of cell a cell's relatives become, foretold as probabilities, and the simple ways to foretell it.

The truth is a set of pairs of an earlier cell and a later relative (`scmulan.pairing`), each with a weight and the later cell's label; a
cell may have several fates. Cells of one clone must be all in training or all held out (`clone_folds`): relatives are alike. Log loss is
the cross-entropy in nats; a probability counts as ``FLOOR`` at least, for with few cells one answer of zero would decide the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from scmulan.errors import CellDataError
from scmulan.measures.change import Floats
from scmulan.measures.counts import Counts, as_counts, log_cp10k

FLOOR = 1e-3
LEAST_CELLS = 5
"""A fate that fewer earlier cells have, or lack, has no AUROC."""
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Fates:
    """Pairs of a cell, ``[N]`` rows among the earlier cells, and a fate, N labels; weights ``[N]`` that sum to one for each cell."""

    cell: Ints
    label: list[str]
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class FateScore:
    """Foretold fates against the true ones.

    ``log_loss`` in nats, mean over cells; ``accuracy`` the weight of the likeliest fate among a cell's true ones; ``auroc`` the mean of
    ``auroc_by_fate`` (the pairs' weight decides how much a cell counts for and against a fate); None where no fate has enough cells.
    Where groups are given, cells are compared within their group only.
    """

    n_cells: int
    log_loss: float
    accuracy: float
    auroc: float | None
    auroc_by_fate: dict[str, float]


def fate_score(fates: Fates, classes: Sequence[str], probabilities: ArrayLike, *, groups: Sequence[Any] | None = None) -> FateScore:
    """Probabilities ``[C, K]`` of the fates ``classes`` of the earlier cells, by row, against the fates of those that have one.

    Parameters
    ----------
    groups
        Fold of each earlier cell ``[C]``, for the AUROC: what was learnt without a fold leans away from it, so that cells of different
        folds do not compare (the bare shares would have an AUROC below 0.5).

    Raises
    ------
    CellDataError
        When a fate is no class, a row does not sum to one, or there is no pair.
    """
    said = np.asarray(probabilities, dtype=np.float64)
    unknown = sorted(set(fates.label) - set(classes))
    if unknown or not fates.label:
        raise CellDataError(f"fate {unknown[0]!r} is no class" if unknown else "fates: no pair; needed one or more")
    if said.ndim != 2 or said.shape[1] != len(classes) or not np.allclose(said.sum(1), 1, atol=1e-3):
        raise CellDataError(f"probabilities of shape {said.shape}; needed one row a cell, {len(classes)} columns, each row summing to one")
    cells, true = _true_shares(fates, classes)
    said = said[cells]
    clipped = np.maximum(said, FLOOR) / np.maximum(said, FLOOR).sum(1, keepdims=True)
    group = np.zeros(len(cells), dtype=object) if groups is None else np.asarray(groups, dtype=object)[cells]
    by_fate = {name: _auroc(true[:, k], said[:, k], group) for k, name in enumerate(classes)}
    known = {name: value for name, value in by_fate.items() if value is not None}
    return FateScore(
        n_cells=len(cells),
        log_loss=float(-(true * np.log(clipped)).sum(1).mean()),
        accuracy=float(true[np.arange(len(cells)), said.argmax(1)].mean()),
        auroc=float(np.mean(list(known.values()))) if known else None,
        auroc_by_fate=known,
    )


def clone_folds(clones: Iterable[Any], n_folds: int = 5, *, seed: int = 0) -> Ints:
    """A fold from 0 to ``n_folds - 1`` for each cell ``[C]``; cells of one clone share it.

    Examples
    --------
    >>> folds = clone_folds([7, 7, 8, 9], 2)
    >>> bool(folds[0] == folds[1]), sorted(set(folds.tolist()))
    (True, [0, 1])
    """
    named = [str(clone) for clone in clones]
    order = np.random.default_rng(seed).permutation(sorted(set(named)))
    fold_of = {clone: place % n_folds for place, clone in enumerate(order)}
    return np.array([fold_of[clone] for clone in named], dtype=np.int64)


def foretell_shares(train: Fates, classes: Sequence[str], n: int) -> Floats:
    """The fates' shares among training pairs, one added to each count, for all of ``n`` cells: ``[n, K]``."""
    counted = np.array([sum(w for w, said in zip(train.weight, train.label, strict=True) if said == name) for name in classes]) + 1
    return np.tile(counted / counted.sum(), (n, 1))


def foretell_by_regression(train_counts: Counts, train: Fates, counts: Counts, classes: Sequence[str], *, C: float = 0.02) -> Floats:
    """Logistic regression of the fate on log1p CP10k of the earlier cell, weighted by pairs: ``[len(counts), K]``."""
    known = sorted(set(train.label))
    if len(known) < 2:
        return foretell_shares(train, classes, as_counts(counts).shape[0])
    log = log_cp10k(as_counts(train_counts))
    model = LogisticRegression(C=C, max_iter=300).fit(log[train.cell], train.label, sample_weight=train.weight)
    said = np.zeros((as_counts(counts).shape[0], len(classes)))
    said[:, [list(classes).index(name) for name in model.classes_]] = model.predict_proba(log_cp10k(as_counts(counts)))
    return said


def foretell_by_neighbours(train_points: Floats, train: Fates, points: Floats, classes: Sequence[str], *, k: int = 20) -> Floats:
    """Shares of the fates of the ``k`` nearest training cells that have one, in some space, with one prior cell of their shares."""
    cells, true = _true_shares(train, classes)
    near = NearestNeighbors(n_neighbors=min(k, len(cells))).fit(train_points[cells]).kneighbors(points, return_distance=False)
    shares = true[near].sum(1) + foretell_shares(train, classes, 1)
    said: Floats = shares / shares.sum(1, keepdims=True)
    return said


def _true_shares(fates: Fates, classes: Sequence[str]) -> tuple[Ints, Floats]:
    """The cells that have a fate, and the share of each class in each cell's fates."""
    cells, place = np.unique(fates.cell, return_inverse=True)
    shares = np.zeros((len(cells), len(classes)))
    np.add.at(shares, (place, np.array([list(classes).index(name) for name in fates.label])), fates.weight)
    return cells, shares / shares.sum(1, keepdims=True)


def _auroc(true: Floats, said: Floats, group: NDArray[Any]) -> float | None:
    """Area under the ROC curve over pairs of cells of one group."""
    if min((true > 0).sum(), (true < 1).sum()) < LEAST_CELLS:
        return None
    won = compared = 0.0
    for each in set(group.tolist()):
        a, b, at, n = true[group == each], 1 - true[group == each], said[group == each], int((group == each).sum())
        if a.sum() > 0 and b.sum() > 0:
            area = roc_auc_score(np.r_[np.ones(n), np.zeros(n)], np.r_[at, at], sample_weight=np.r_[a, b])
            won, compared = won + area * a.sum() * b.sum(), compared + a.sum() * b.sum()
    return float(won / compared) if compared else None
