"""Which perturbation moved these cells? Answers for populations of a few or many cells, and the simple ways to find one.

A query is a population of perturbed cells of one target, and control cells; the answer is a score for each candidate. Look-up by
correlation compares the change of the query with the change of each candidate's training cells; the control cells of either must be
disjoint, else their noise is what agrees. Logistic regression adds up the log probabilities of single cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from scmulan.errors import CellDataError, nearest
from scmulan.measures.baselines import LogisticBaseline
from scmulan.measures.change import Floats
from scmulan.measures.counts import Counts, as_counts, log_cp10k


@dataclass(frozen=True, kw_only=True)
class Population:
    """Rows ``[n]`` of cells of one target."""

    target: str
    rows: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Identification:
    """How often the right one of ``n_candidates`` is among the first, over ``n`` queries; candidates of equal score share their places.

    ``rank`` is the mean share of the wrong candidates that score below the right one (0.5 by chance). ``chance_first`` and ``chance_five``
    are those of any order that does not look at the cells. ``confusion[i][j]`` is the share of the queries of ``targets[i]`` that were said
    to be ``targets[j]``; ``by_target`` the share of each target's queries that were right.
    """

    n: int
    n_candidates: int
    first: float
    five: float
    rank: float
    chance_first: float
    chance_five: float
    by_target: dict[str, float]
    targets: list[str]
    confusion: list[list[float]]


def draw_populations(labels: Iterable[Any], size: int | None, *, per_target: int = 20, seed: int = 0) -> list[Population]:
    """Populations of ``size`` cells of each label, drawn without replacement; one of all its cells where ``size`` is None.

    A label with fewer cells than ``size`` is left out: compare populations of different sizes over the same labels only.

    Examples
    --------
    >>> [(each.target, len(each.rows)) for each in draw_populations(["a", "a", "b"], 2, per_target=1)]
    [('a', 2)]
    """
    named = np.asarray([str(label) for label in labels], dtype=object)
    rng, found = np.random.default_rng(seed), []
    for label in sorted(set(named)):
        rows = np.flatnonzero(named == label)
        if size is None:
            found.append(Population(target=label, rows=rows))
        elif len(rows) >= size:
            drawn = (rng.choice(rows, size, replace=False) for _ in range(per_target))
            found += [Population(target=label, rows=np.sort(each)) for each in drawn]
    return found


def population_changes(counts: Counts, populations: Sequence[Population], control_mean: ArrayLike) -> Floats:
    """Change of each population from the mean of control cells ``[G]``, in log1p CP10k: ``[Q, G]``."""
    log = log_cp10k(as_counts(counts)).astype(np.float64)
    means = np.stack([np.asarray(log[each.rows].mean(0)).ravel() for each in populations])
    changes: Floats = means - np.asarray(control_mean)
    return changes


def correlation_lookup(profiles_KG: Floats, queries_QG: Floats, *, is_centred: bool = False) -> Floats:
    """Pearson of each query's change with each candidate's, ``[Q, K]``.

    ``is_centred``: the mean over candidates is taken off the profiles first, so that what is common to all of them counts for nothing.
    """
    profiles = profiles_KG - profiles_KG.mean(0) if is_centred else profiles_KG
    sides = [rows - rows.mean(1, keepdims=True) for rows in (queries_QG, profiles)]
    norms = [np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in sides]
    scores: Floats = (sides[0] / norms[0]) @ (sides[1] / norms[1]).T
    return scores


def fit_classifier(counts: Counts, targets: Iterable[Any], *, C: float = 0.001, max_iter: int = 600) -> LogisticBaseline:
    """Logistic regression of the target on log1p CP10k of single cells, every target alike likely beforehand.

    ``C`` is that of 0.0003 to 0.02 with the most right answers on shallow cells of 25 targets.
    """
    model = LogisticRegression(C=C, max_iter=max_iter, class_weight="balanced")
    return LogisticBaseline(model=model.fit(log_cp10k(as_counts(counts)), [str(target) for target in targets]))


def classifier_scores(fitted: LogisticBaseline, counts: Counts, populations: Sequence[Population], candidates: Sequence[str]) -> Floats:
    """Sum over each population's cells of the log probability of each candidate, ``[Q, K]``."""
    said = fitted.predict(counts)
    missing = [name for name in candidates if name not in said.classes]
    if missing:
        raise CellDataError(f"candidate {missing[0]!r}: the classifier has no training cell of it{nearest(missing[0], said.classes)}")
    log = np.log(np.maximum(said.probabilities[:, [said.classes.index(name) for name in candidates]], 1e-12))
    return np.stack([log[each.rows].sum(0) for each in populations])


def identification(true: Sequence[str], scores_QK: ArrayLike, candidates: Sequence[str]) -> Identification:
    """Of each query's true target and its scores for the candidates, higher is likelier.

    Raises
    ------
    CellDataError
        When a true target is no candidate, lengths differ, or a score is not a number.

    Examples
    --------
    >>> found = identification(["a", "b"], [[0.9, 0.1, 0.0], [0.5, 0.2, 0.1]], ["a", "b", "c"])
    >>> found.first, found.rank
    (0.5, 0.75)
    """
    scores = np.asarray(scores_QK, dtype=np.float64)
    if scores.shape != (len(true), len(candidates)) or not len(true) or len(candidates) < 2:
        raise CellDataError(f"scores of shape {scores.shape}; needed {len(true):,} queries × {len(candidates):,} candidates, two at least")
    if np.isnan(scores).any():
        raise CellDataError(f"scores: {int(np.isnan(scores).any(1).sum()):,} queries have one that is not a number")
    unknown = [name for name in true if name not in candidates]
    if unknown:
        raise CellDataError(f"target {unknown[0]!r} is no candidate{nearest(unknown[0], list(candidates))}")
    at = np.array([list(candidates).index(name) for name in true])
    own = scores[np.arange(len(at)), at][:, None]
    above, tied = (scores > own).sum(1), (scores == own).sum(1)  # the right one ties with itself
    first, five = (np.clip((places - above) / tied, 0, 1) for places in (1, 5))
    n = len(candidates)
    return Identification(
        n=len(true),
        n_candidates=n,
        first=float(first.mean()),
        five=float(five.mean()),
        rank=float(1 - ((above + (tied - 1) / 2) / (n - 1)).mean()),
        chance_first=1 / n,
        chance_five=min(1.0, 5 / n),
        by_target={candidates[k]: float(first[at == k].mean()) for k in sorted(set(at.tolist()))},
        targets=list(candidates),
        confusion=_confusion(at, scores),
    )


def _confusion(at: NDArray[np.int64], scores: Floats) -> list[list[float]]:
    said = scores == scores.max(1, keepdims=True)
    share = said / said.sum(1, keepdims=True)
    n = scores.shape[1]
    return [share[at == k].mean(0).tolist() if (at == k).any() else [0.0] * n for k in range(n)]
