"""What simple rules say a perturbation does, from the changes of training cells alone.

Each rule is a weighted sum of the training changes: `no_change` weighs none, `mean_shift` all targets alike, `target_mean` those of the
same target, `shrunken_mean` lies between the two gene by gene (empirical Bayes), `linear` is ridge regression on the target, one-hot, and
on its place among co-expressed genes (principal components of control cells, as Ahlmann-Eltze et al. 2025), `nearest` takes the most alike
other target. A target that was never seen and is no measured gene has nothing to go by: there all but `no_change` are the mean shift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from scmulan.errors import CellDataError
from scmulan.measures.change import Change, Floats, change_between, moments
from scmulan.measures.counts import Counts, as_counts, log_cp10k, same_genes

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Ridge penalties that `linear` chooses among by leaving out one training group at a time."""
N_COMPONENTS = 10
LEAST_CELLS = 5
"""A group of fewer training cells is left out: its change is noise."""


@dataclass(frozen=True, kw_only=True)
class TrainingChanges:
    """Changes of R groups of training cells (one guide each, or one target): what the rules learn from.

    Attributes
    ----------
    targets
        Target of each group, length R.
    n_cells
        ``[R]`` int64.
    mean, fold
        ``[R, G]``: as in `Change`, against the training control cells.
    error
        ``[R, G]``: variance of ``mean`` from the group's number of cells.
    place
        Gene symbol to its place among co-expressed genes, ``[K]``, mean zero and variance one over genes.
    left_out
        Groups of fewer than ``LEAST_CELLS`` cells.
    """

    targets: list[str]
    n_cells: NDArray[np.int64]
    mean: Floats
    fold: Floats
    error: Floats
    place: dict[str, Floats]
    left_out: list[str]

    def of_target(self, target: str) -> Floats:
        """``[R]``: share of each group in the target's training cells; zeros where it was never seen."""
        weight: Floats = np.where(np.asarray(self.targets) == target, self.n_cells, 0).astype(np.float64)
        share: Floats = weight / max(1.0, float(weight.sum()))
        return share

    def without(self, target: str) -> TrainingChanges:
        """The same without one target's cells, for one target held out at a time."""
        kept = np.flatnonzero(np.asarray(self.targets) != target)
        return TrainingChanges(
            targets=[self.targets[row] for row in kept], n_cells=self.n_cells[kept], mean=self.mean[kept], fold=self.fold[kept],
            error=self.error[kept], place=self.place, left_out=self.left_out,
        )  # fmt: skip


Rule: TypeAlias = Callable[[TrainingChanges, str], Change]
"""From training changes and a target: the predicted change."""


def training_changes(
    control: Counts,
    cells: Counts,
    targets: Iterable[Any],
    *,
    groups: Iterable[Any] | None = None,
    genes: Sequence[str] | None = None,
    seed: int = 0,
) -> TrainingChanges:
    """Changes of the training cells ``[C, G]`` by group against training control cells.

    Parameters
    ----------
    targets
        Perturbation of each cell.
    groups
        Guide of each cell, where there are several to a target; the targets when not given.
    genes
        Symbol of each gene, so that targets that are measured genes have a place.
    """
    control, cells = same_genes(control, cells, ("control", "perturbed"))
    named = np.asarray([str(target) for target in targets], dtype=object)
    grouped = named if groups is None else np.asarray([str(group) for group in groups], dtype=object)
    if not len(named) == len(grouped) == cells.shape[0]:
        raise CellDataError(
            f"{cells.shape[0]:,} training cells, {len(named):,} targets, {len(grouped):,} groups; needed one of each a cell"
        )
    before, kept, rows, left_out = moments(control), [], [], []
    for key in sorted(set(zip(named, grouped, strict=True))):
        at = np.flatnonzero((named == key[0]) & (grouped == key[1]))
        if len(at) < LEAST_CELLS:
            left_out.append(key[1])
            continue
        after = moments(cells[at])
        kept.append(key[0])
        rows.append((change_between(before, after), after.variance / after.n, after.n))
    if not rows:
        raise CellDataError(f"training changes: no group has {LEAST_CELLS} cells; needed one or more")
    return TrainingChanges(
        targets=kept, n_cells=np.array([n for _, _, n in rows], dtype=np.int64), mean=np.stack([change.mean for change, _, _ in rows]),
        fold=np.stack([change.fold for change, _, _ in rows]), error=np.stack([error for _, error, _ in rows]),
        place=_places(control, genes, seed) if genes is not None else {}, left_out=left_out,
    )  # fmt: skip


def no_change(training: TrainingChanges, target: str) -> Change:
    """Perturbed cells are as control cells."""
    return _weighed(training, np.zeros(len(training.targets)))


def mean_shift(training: TrainingChanges, target: str) -> Change:
    """The mean change over training targets, each target alike: one answer to every question."""
    return _weighed(training, _all_alike(training))


def target_mean(training: TrainingChanges, target: str) -> Change:
    """The mean change of the target's own training cells; the mean shift where it has none."""
    own = training.of_target(target)
    return _weighed(training, own if own.any() else _all_alike(training))


def shrunken_mean(training: TrainingChanges, target: str) -> Change:
    """The target's mean drawn towards the mean shift, the more the noisier the gene is and the less it differs between targets.

    Gene by gene, the share kept is ``t² / (t² + e²)``: ``t²`` the variance between targets beyond their sampling error, ``e²`` the error of
    this target's mean; by moments, never below zero.
    """
    own, alike = training.of_target(target), _all_alike(training)
    if not own.any():
        return mean_shift(training, target)
    by_target = np.stack([training.of_target(each) for each in sorted(set(training.targets))])
    means, errors = by_target @ training.mean, by_target**2 @ training.error
    if len(means) == 1:
        return target_mean(training, target)
    between = np.maximum(means.var(0, ddof=1) - errors.mean(0), 0)
    kept = between / np.maximum(between + own**2 @ training.error, 1e-12)
    weights_RG = alike[:, None] + kept[None] * (own - alike)[:, None]
    return Change(mean=(weights_RG * training.mean).sum(0), fold=(weights_RG * training.fold).sum(0))


def linear(training: TrainingChanges, target: str) -> Change:
    """Ridge regression of every gene's change on the target (one-hot) and its place among co-expressed genes.

    The penalty is that of ``PENALTIES`` with the least squared error on groups left out one at a time.
    """
    kernel = np.array([[_alike(training, one, other) for other in training.targets] for one in training.targets])
    asked = np.array([_alike(training, target, other) for other in training.targets])
    n, alike = len(training.targets), _all_alike(training)
    centred = training.mean - alike @ training.mean
    smoothers = [kernel @ np.linalg.inv(kernel + penalty * np.eye(n)) for penalty in PENALTIES]
    left_out = [np.sum(((centred - each @ centred) / (1 - np.diag(each))[:, None]) ** 2) for each in smoothers]
    solved = asked @ np.linalg.inv(kernel + PENALTIES[int(np.argmin(left_out))] * np.eye(n))
    return _weighed(training, alike * (1 - solved.sum()) + solved)


def nearest(training: TrainingChanges, target: str) -> Change:
    """The change of the most alike other target: by training change where the target was seen, else by co-expression with it."""
    others = sorted(set(training.targets) - {target})
    own = training.of_target(target)
    if own.any():
        asked, known = own @ training.mean, {each: training.of_target(each) @ training.mean for each in others}
    elif target in training.place:
        asked, known = training.place[target], {each: training.place[each] for each in others if each in training.place}
    else:
        return mean_shift(training, target)
    if not known:
        return mean_shift(training, target)
    return target_mean(training, max(known, key=lambda each: float(np.nan_to_num(_correlation(asked, known[each])))))


RULES: dict[str, Rule] = {
    "no change": no_change,
    "mean shift": mean_shift,
    "target mean": target_mean,
    "shrunken target mean": shrunken_mean,
    "linear": linear,
    "nearest perturbation": nearest,
}
OF_SEEN = ("target mean", "shrunken target mean")
"""Rules that say nothing of a target that was never seen: there they are the mean shift."""


def _weighed(training: TrainingChanges, weights_R: Floats) -> Change:
    return Change(mean=weights_R @ training.mean, fold=weights_R @ training.fold)


def _all_alike(training: TrainingChanges) -> Floats:
    """``[R]``: every target the same weight, divided over its groups by their cells."""
    weights: Floats = np.mean([training.of_target(each) for each in sorted(set(training.targets))], axis=0)
    return weights


def _alike(training: TrainingChanges, one: str, other: str) -> float:
    """Product of two targets' features: 1 for the same target, and the mean product of their places where both have one."""
    places = [training.place.get(each) for each in (one, other)]
    shared = float(np.mean(places[0] * places[1])) if places[0] is not None and places[1] is not None else 0.0
    return float(one == other) + shared


def _places(control: Any, genes: Sequence[str], seed: int) -> dict[str, Floats]:
    """Loadings of each gene on the first components of the control cells, standardised over genes."""
    values = log_cp10k(as_counts(control)).toarray().astype(np.float64)
    if len(genes) != values.shape[1]:
        raise CellDataError(f"{len(genes):,} gene names for {values.shape[1]:,} genes; needed one a gene")
    deviation = values.std(0)
    values = (values - values.mean(0)) / np.where(deviation > 0, deviation, 1)
    loadings = PCA(min(N_COMPONENTS, *values.shape), random_state=seed).fit(values).components_.T
    loadings = (loadings - loadings.mean(0)) / np.maximum(loadings.std(0), 1e-12)
    return dict(zip(map(str, genes), loadings, strict=True))


def _correlation(one: Floats, other: Floats) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(one, other)[0, 1])
