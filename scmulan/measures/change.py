"""A predicted change of cells against the true one: gene by gene, and across perturbations, where a collapse would show.

A change is the mean of perturbed cells less the mean of control cells, in log1p CP10k; a log fold change is
``log2((mean CP10k + 1) / (that of control + 1))``. Truth and prediction must each have control cells of their own (`disjoint_halves`): the
noise of a shared control is part of both changes and correlates them where nothing was predicted. Correlations are of changes, never of
expression, which any two cells share. Sources: simple baselines, Ahlmann-Eltze et al. 2025 (Nature Methods); what is a perturbation's
own, Systema 2025 (Nature Biotechnology); rank of the right perturbation, Virtual Cell Challenge 2025 (Cell).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, rankdata, ttest_ind_from_stats

from scmulan.errors import CellDataError, some
from scmulan.measures.counts import Counts, as_counts, log_cp10k, same_genes

Floats: TypeAlias = NDArray[np.float64]
TOP = 20
"""Genes that count as the most changed."""
FALSE_DISCOVERIES = 0.05
"""Benjamini-Hochberg rate below which a gene counts as truly changed."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of each gene over ``n`` cells: mean and variance of log1p CP10k and mean CP10k, each ``[G]``."""

    n: int
    mean: Floats
    variance: Floats
    cp10k: Floats


@dataclass(frozen=True, kw_only=True)
class Change:
    """From control to perturbed cells, each ``[G]``: ``mean`` in log1p CP10k, ``fold`` in log2 of mean CP10k plus one."""

    mean: Floats
    fold: Floats


@dataclass(frozen=True, kw_only=True)
class TrueChange:
    """A measured change, with Welch's t of each gene ``[G]`` and which genes changed at a false discovery rate of 5 %, ``[G]`` bool."""

    change: Change
    score: Floats
    is_significant: NDArray[np.bool_]
    n_cells: int
    n_control: int


@dataclass(frozen=True, kw_only=True)
class ChangeScore:
    """A predicted change against the true one. None where a side does not vary, or no gene changed.

    Attributes
    ----------
    pearson, pearson_top
        Of the change in log1p CP10k over all genes, and over the most changed (by the truth's Welch t, up or down).
    pearson_specific
        Over all genes, what is this perturbation's own: the mean of all true changes taken off the true one, that of all predicted
        changes off the predicted one (one mean for both would correlate them). None for a single perturbation.
    rmse, rmse_top, mae
        In log1p CP10k, over all genes or the most changed.
    direction
        Share of the significant genes whose predicted change has the right sign; no change is half right.
    fold_slope
        Least squares through the origin of predicted on true log fold changes of the most changed genes: 1 as large, 0 none.
    marker_recall
        Share of the most changed genes among as many genes of the largest predicted change.
    """

    pearson: float | None
    pearson_top: float | None
    pearson_specific: float | None
    rmse: float
    rmse_top: float
    mae: float
    direction: float | None
    fold_slope: float | None
    marker_recall: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far apart perturbations are: root mean square distance between their changes, predicted and true.

    ``ratio`` near 0 is a collapse onto one answer. The noise of few cells is part of the true spread, so that a perfect prediction
    has a ratio below 1: see ``signal`` of `scmulan.measures.change_noise.Ceiling`.
    """

    predicted: float
    true: float
    ratio: float | None


@dataclass(frozen=True, kw_only=True)
class Discrimination:
    """Is a predicted change nearest to the true change of its own perturbation?

    ``rank`` is the mean share of the other perturbations whose true change correlates less with the prediction than the right one's
    (0.5 by chance and for one answer to all, 1 best; ties count half); ``first`` the share where the right one is first (ties share it).
    """

    n: int
    rank: float
    first: float


@dataclass(frozen=True, kw_only=True)
class ChangeComparison:
    """All perturbations: the mean of each score over those that have it, the scores, and what shows across perturbations.

    Spread and discrimination are None for a single perturbation.
    """

    n: int
    means: ChangeScore
    spread: Spread | None
    discrimination: Discrimination | None
    scores: dict[str, ChangeScore]


def disjoint_halves(n: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two disjoint random halves of the numbers below ``n``, each sorted; the first has one more where ``n`` is odd.

    Examples
    --------
    >>> one, other = disjoint_halves(5)
    >>> len(one), len(other), sorted({*one.tolist(), *other.tolist()})
    (3, 2, [0, 1, 2, 3, 4])
    """
    order = np.random.default_rng([seed, n]).permutation(n)
    return np.sort(order[: (n + 1) // 2]), np.sort(order[(n + 1) // 2 :])


def moments(counts: Counts) -> Moments:
    """Means and variances of each gene over the cells ``[C, G]``."""
    log = log_cp10k(as_counts(counts)).astype(np.float64)
    mean = np.asarray(log.mean(0)).ravel()
    square = np.asarray(log.multiply(log).mean(0)).ravel()
    return Moments(n=log.shape[0], mean=mean, variance=np.maximum(square - mean**2, 0), cp10k=np.asarray(log.expm1().mean(0)).ravel())


def change_between(control: Counts | Moments, cells: Counts | Moments) -> Change:
    """The change from control cells ``[C, G]`` to cells ``[C', G]`` of the same genes; moments may stand for either.

    Examples
    --------
    >>> change_between([[1, 1]], [[2, 2]]).mean.tolist()
    [0.0, 0.0]
    """
    before, after = _both_moments(control, cells)
    return Change(mean=after.mean - before.mean, fold=np.log2(after.cp10k + 1) - np.log2(before.cp10k + 1))


def true_change(control: Counts | Moments, cells: Counts | Moments) -> TrueChange:
    """The change of real cells, with how sure it is of each gene.

    Raises
    ------
    CellDataError
        When either side has fewer than two cells, or the genes differ.
    """
    before, after = _both_moments(control, cells)
    if min(before.n, after.n) < 2:
        raise CellDataError(f"true change: {before.n} control and {after.n} perturbed cells; needed at least 2 of each, better 100")
    score, p_value = _welch(before, after)
    significant = false_discovery_control(p_value) < FALSE_DISCOVERIES
    return TrueChange(change=change_between(before, after), score=score, is_significant=significant, n_cells=after.n, n_control=before.n)


def score_change(truth: TrueChange, predicted: Change, *, top: int = TOP) -> ChangeScore:
    """One predicted change against the true one, ``top`` genes counting as the most changed; ``pearson_specific`` is None."""
    true, said = truth.change.mean, predicted.mean
    if said.shape != true.shape or predicted.fold.shape != true.shape:
        raise CellDataError(
            f"predicted change of {len(said):,} genes, true change of {len(true):,}; needed the same genes in the same order"
        )
    most = np.argsort(-np.abs(truth.score), kind="stable")[:top]
    off = said - true
    return ChangeScore(
        pearson=pearson(said, true),
        pearson_top=pearson(said[most], true[most]),
        pearson_specific=None,
        rmse=float(np.sqrt(np.mean(off**2))),
        rmse_top=float(np.sqrt(np.mean(off[most] ** 2))),
        mae=float(np.abs(off).mean()),
        direction=_right_signs(said[truth.is_significant], true[truth.is_significant]),
        fold_slope=_slope(truth.change.fold[most], predicted.fold[most]),
        marker_recall=_recall(most, said),
    )


def compare_changes(truths: Mapping[str, TrueChange], predicted: Mapping[str, Change], *, top: int = TOP) -> ChangeComparison:
    """The predicted change of each perturbation against its true one, and what shows across perturbations.

    Raises
    ------
    CellDataError
        When a perturbation has no prediction, or there is none.
    """
    missing = [name for name in truths if name not in predicted]
    if missing or not truths:
        raise CellDataError(
            f"predicted changes: none for {some(missing)}" if missing else "true changes: no perturbation; needed one or more"
        )
    scores = {name: score_change(truth, predicted[name], top=top) for name, truth in truths.items()}
    several = len(scores) > 1
    true_PG, said_PG = (np.stack(rows) for rows in zip(*((truths[n].change.mean, predicted[n].mean) for n in scores), strict=True))
    if several:
        own = zip(scores.items(), said_PG - said_PG.mean(0), true_PG - true_PG.mean(0), strict=True)
        scores = {name: replace(score, pearson_specific=pearson(said, true)) for (name, score), said, true in own}
    return ChangeComparison(
        n=len(scores),
        means=mean_score(list(scores.values())),
        spread=spread(said_PG, true_PG) if several else None,
        discrimination=discrimination(said_PG, true_PG) if several else None,
        scores=scores,
    )


def mean_score(scores: Sequence[ChangeScore]) -> ChangeScore:
    """The mean of each score over those that have it."""
    columns = {each.name: [getattr(score, each.name) for score in scores] for each in fields(ChangeScore)}
    kept = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return ChangeScore(**{name: float(np.mean(values)) if values else None for name, values in kept.items()})  # type: ignore[arg-type]


def spread(predicted_PG: Floats, true_PG: Floats) -> Spread:
    """Distance between perturbations, of two or more changes ``[P, G]`` predicted and true."""
    said, true = (_mean_distance(changes) for changes in (predicted_PG, true_PG))
    return Spread(predicted=said, true=true, ratio=said / true if true > 0 else None)


def discrimination(predicted_PG: Floats, true_PG: Floats) -> Discrimination:
    """Rank of each perturbation's own true change by Pearson with its prediction; a prediction that does not vary ties with all."""
    correlation_PP = np.nan_to_num(_standardised(predicted_PG) @ _standardised(true_PG).T).round(12)
    n = len(correlation_PP)
    own = np.diag(correlation_PP)[:, None]
    below = np.stack([rankdata(row) for row in correlation_PP])[np.arange(n), np.arange(n)] - 1
    tied_first = (correlation_PP == own).sum(1)
    is_first = own.ravel() >= correlation_PP.max(1)
    return Discrimination(n=n, rank=float(below.mean() / (n - 1)), first=float((is_first / tied_first).mean()))


def pearson(one: Floats, other: Floats) -> float | None:
    """Pearson correlation; None where a side does not vary.

    Examples
    --------
    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), pearson(np.zeros(3), np.arange(3.0))
    (1.0, None)
    """
    if len(one) < 2 or np.ptp(one) <= 1e-12 or np.ptp(other) <= 1e-12:
        return None
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1, 1).round(12))


def _both_moments(control: Counts | Moments, cells: Counts | Moments) -> tuple[Moments, Moments]:
    if not isinstance(control, Moments) and not isinstance(cells, Moments):
        control, cells = same_genes(control, cells, ("control", "perturbed"))
    before, after = (each if isinstance(each, Moments) else moments(each) for each in (control, cells))
    if len(before.mean) != len(after.mean):
        raise CellDataError(f"control cells have {len(before.mean):,} genes, perturbed cells {len(after.mean):,}; needed the same genes")
    return before, after


def _welch(before: Moments, after: Moments) -> tuple[Floats, Floats]:
    """Welch's t and its p value of each gene; 0 and 1 where neither side varies."""
    stds = [np.sqrt(each.variance * each.n / (each.n - 1)) for each in (after, before)]
    varies = (stds[0] > 0) | (stds[1] > 0)
    score, p_value = np.zeros(len(varies)), np.ones(len(varies))
    score[varies], p_value[varies] = ttest_ind_from_stats(
        after.mean[varies], stds[0][varies], after.n, before.mean[varies], stds[1][varies], before.n, equal_var=False
    )
    return score, p_value


def _right_signs(said: Floats, true: Floats) -> float | None:
    return float(np.where(said == 0, 0.5, np.sign(said) == np.sign(true)).mean()) if len(true) else None


def _slope(true: Floats, said: Floats) -> float | None:
    square = float(true @ true)
    return float(true @ said) / square if square > 0 else None


def _recall(most: NDArray[np.int64], said: Floats) -> float:
    """Share of the genes ``most`` among as many of the largest ``said``; of equals at the edge, each is in by chance."""
    size = np.abs(said)
    edge = np.sort(size)[-len(most)]
    above, at = size > edge, size == edge
    chance = (len(most) - above.sum()) / at.sum()
    return float((above[most].sum() + chance * at[most].sum()) / len(most))


def _mean_distance(changes_PG: Floats) -> float:
    """Root mean square Euclidean distance over pairs of rows: twice the summed variance, for pairs of different rows."""
    n = len(changes_PG)
    return float(np.sqrt(2 * changes_PG.var(0).sum() * n / (n - 1)))


def _standardised(rows: Floats) -> Floats:
    centred = rows - rows.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    standard: Floats = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-12)
    return standard
