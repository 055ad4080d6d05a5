"""How well a change could be predicted at all, and how sure a figure is: halves of the true cells, and true cells drawn again.

With ``r`` the correlation of the changes of two halves, the change of all cells has reliability ``2r / (1 + r)`` (Spearman-Brown), and the
noiseless change would correlate with it by the root of that. The halves' difference is twice the noise of the whole, so that a perfect
prediction has half their root mean square error. Both control and perturbed cells are halved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp

from scmulan.errors import CellDataError
from scmulan.measures.change import (
    TOP,
    Change,
    ChangeComparison,
    ChangeScore,
    Moments,
    TrueChange,
    change_between,
    compare_changes,
    disjoint_halves,
    mean_score,
    moments,
    true_change,
)
from scmulan.measures.counts import Counts, as_counts, log_cp10k


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What the noise of the true cells allows.

    Attributes
    ----------
    pearson
        What the noiseless change of each perturbation would be expected to reach over all genes; the mean over perturbations.
    rmse
        Root mean square error that it would be left with, log1p CP10k; the mean over perturbations.
    signal
        Root mean square distance between perturbations with the noise taken off: products of the halves' differences.
    signal_share
        ``signal`` over the true spread: the `Spread.ratio` of the noiseless changes.
    halves
        Scores of one half of the cells as a prediction of the other, the mean over perturbations.
    halves_rank, halves_first
        Discrimination of the halves; None for one perturbation, as are signal and its share. These are no ceilings: each half is
        noisier than all cells, so that a prediction from more cells can be better.
    """

    n_splits: int
    pearson: float | None
    rmse: float
    signal: float | None
    signal_share: float | None
    halves: ChangeScore
    halves_rank: float | None
    halves_first: float | None


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Of a mean over perturbations: the figure, and 1.96 standard errors on either side, from true cells drawn again."""

    value: float
    low: float
    high: float


def noise_ceiling(control: Counts, cells: Mapping[str, Counts], *, n_splits: int = 10, seed: int = 0, top: int = TOP) -> Ceiling:
    """Halves of the true cells against each other, in ``n_splits`` random splits.

    Parameters
    ----------
    control
        The control cells of the truth ``[C, G]``.
    cells
        Perturbation to its true cells ``[C', G]``; each needs four or more.

    Raises
    ------
    CellDataError
        When a side has fewer than four cells.
    """
    few = [name for name, each in (("control", control), *cells.items()) if as_counts(each).shape[0] < 4]
    if few:
        raise CellDataError(f"noise ceiling: fewer than 4 cells of {few[0]!r}; needed 4 to halve, better 100")
    truths = {name: true_change(control, each).change.mean for name, each in cells.items()}
    splits = [_halves(control, cells, seed + split) for split in range(n_splits)]
    found = [compare_changes(one, other, top=top) for one, other in splits]
    correlation = [float(np.mean([each.scores[name].pearson or 0.0 for each in found])) for name in cells]
    signal = _signal(splits) if len(cells) > 1 else None
    spreads = np.stack(list(truths.values()))
    true = np.sqrt(2 * spreads.var(0).sum() * len(spreads) / max(1, len(spreads) - 1))
    ranks = [each.discrimination for each in found if each.discrimination is not None]
    return Ceiling(
        n_splits=n_splits,
        pearson=float(np.mean([np.sqrt(max(0.0, 2 * r / (1 + r)) if r > -1 else 0.0) for r in correlation])),
        rmse=float(np.mean([each.means.rmse for each in found]) / 2),
        signal=signal,
        signal_share=None if signal is None or true == 0 else float(signal / true),
        halves=mean_score([each.means for each in found]),
        halves_rank=float(np.mean([each.rank for each in ranks])) if ranks else None,
        halves_first=float(np.mean([each.first for each in ranks])) if ranks else None,
    )


def redrawn_truths(control: Counts, cells: Mapping[str, Counts], *, n: int = 100, seed: int = 0) -> list[dict[str, TrueChange]]:
    """The true changes from cells drawn again with replacement, control and perturbed, ``n`` times.

    Which genes changed most, and significantly, stays as all cells say, so that every draw asks the same question.
    """
    rng = np.random.default_rng(seed)
    before = _redrawn(control, n, rng)
    after = {name: (true_change(control, each), _redrawn(each, n, rng)) for name, each in cells.items()}
    return [
        {name: _with_change(truth, change_between(before[draw], drawn[draw])) for name, (truth, drawn) in after.items()}
        for draw in range(n)
    ]


def intervals(
    found: ChangeComparison, predicted: Mapping[str, Change], redrawn: list[dict[str, TrueChange]], *, top: int = TOP
) -> dict[str, Interval]:
    """An interval for each mean score of a comparison, and for ``rank``, over the draws of `redrawn_truths`.

    The figure plus and minus 1.96 standard deviations over draws: drawn cells are noisier than the cells, so that the quantiles of
    correlations would all lie below the figure.
    """
    again = [_figures(compare_changes(truths, predicted, top=top)) for truths in redrawn]
    result = {}
    for name, value in _figures(found).items():
        error = 1.96 * float(np.std([each[name] for each in again if name in each], ddof=1)) if len(again) > 1 else float("nan")
        result[name] = Interval(value=value, low=value - error, high=value + error)
    return result


def share_better(
    name: str,
    first: Mapping[str, Change],
    second: Mapping[str, Change],
    redrawn: list[dict[str, TrueChange]],
) -> float:
    """Share of draws in which the first prediction is better than the second by the mean score ``name``: less error, more of the rest."""
    sides = [np.array([_figures(compare_changes(truths, side)).get(name, 0.0) for truths in redrawn]) for side in (first, second)]
    gain = (sides[0] - sides[1]) * (-1 if name in ("rmse", "rmse_top", "mae") else 1)
    return float(np.where(gain == 0, 0.5, gain > 0).mean())


def _halves(control: Counts, cells: Mapping[str, Counts], seed: int) -> tuple[dict[str, TrueChange], dict[str, Change]]:
    control_halves = [moments(as_counts(control)[rows]) for rows in disjoint_halves(as_counts(control).shape[0], seed)]
    truths, said = {}, {}
    for name, each in cells.items():
        one, other = (moments(as_counts(each)[rows]) for rows in disjoint_halves(as_counts(each).shape[0], seed))
        truths[name], said[name] = true_change(control_halves[0], one), change_between(control_halves[1], other)
    return truths, said


def _signal(splits: list[tuple[dict[str, TrueChange], dict[str, Change]]]) -> float:
    """Root of twice the summed covariance between halves over perturbations, the unbiased square of distance; 0 if negative."""
    squares = []
    for truths, said in splits:
        one = np.stack([truth.change.mean for truth in truths.values()])
        other = np.stack([change.mean for change in said.values()])
        squares.append(2 * ((one - one.mean(0)) * (other - other.mean(0))).sum() / (len(one) - 1))
    return float(np.sqrt(max(0.0, float(np.mean(squares)))))


def _redrawn(counts: Counts, n: int, rng: np.random.Generator) -> list[Moments]:
    """Moments of the cells drawn again; variances are left at zero, for no test is made of them."""
    log = log_cp10k(as_counts(counts)).astype(np.float64)
    n_cells = log.shape[0]
    times = sp.csr_matrix(rng.multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=n) / n_cells)
    mean, cp10k = (times @ log).toarray(), (times @ log.expm1()).toarray()
    return [Moments(n=n_cells, mean=mean[draw], variance=np.zeros_like(mean[draw]), cp10k=cp10k[draw]) for draw in range(n)]


def _with_change(truth: TrueChange, change: Change) -> TrueChange:
    return TrueChange(
        change=change, score=truth.score, is_significant=truth.is_significant, n_cells=truth.n_cells, n_control=truth.n_control
    )


def _figures(found: ChangeComparison) -> dict[str, float]:
    named = {each.name: getattr(found.means, each.name) for each in fields(ChangeScore)}
    if found.discrimination is not None:
        named["rank"] = found.discrimination.rank
    return {name: value for name, value in named.items() if value is not None}
