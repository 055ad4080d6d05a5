"""Labels said of cells, measured against the true ones: right or wrong, and how well the stated probability knows it.

A prediction of None (or NaN) is an abstention: wrong in accuracy and in recall, absent from precision and calibration,
and counted in coverage. Calibration error: Guo et al. 2017 (arXiv 1706.04599), equal-width bins. Brier score: Brier 1950,
summed over classes, so it runs from 0 to 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_fscore_support

from scmulan.errors import CellDataError, some
from scmulan.measures.mistakes import Mistakes

FLOOR = 1e-12
"""Least probability in a log loss: a label held impossible costs 27.6 nats, not infinity."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one label was recognised. ``support`` is the number of cells that truly have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Cells whose stated probability lies in ``(low, high]``; the means are None where there is no cell."""

    low: float
    high: float
    n: int
    probability: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far stated probabilities are from the share that is right.

    ``error`` is the expected calibration error, ``n`` the number of cells with an answer. ``brier`` and ``log_loss`` (nats) need
    the probabilities of all classes, else they are None; ``n_outside`` counts the cells whose true label is no class.
    """

    n: int
    error: float
    bins: list[ReliabilityBin]
    brier: float | None = None
    log_loss: float | None = None
    n_outside: int = 0


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Labels said of ``n`` cells, against the true ones.

    ``accuracy`` is over all cells, ``accuracy_answered`` over those not abstained from (a share ``coverage``; None if there is
    none). ``macro_f1`` is the mean over every label that is true or said of some cell, as scikit-learn's; ``balanced_accuracy``
    the mean recall over labels that are true of some. ``confusion[i][j]`` counts cells that are ``labels[i]`` and were said to be
    ``labels[j]``; ``abstained[i]`` those of ``labels[i]`` without an answer. ``mistakes`` is None where the labels are no cell types.
    """

    n: int
    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    coverage: float
    accuracy_answered: float | None
    classes: list[ClassScore]
    labels: list[str]
    confusion: list[list[int]]
    abstained: list[int]
    calibration: Calibration | None = None
    mistakes: Mistakes | None = None


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """Share of generated cells that a classifier says to be of the type asked for, over all and by type."""

    n: int
    share: float
    by_type: dict[str, float]


def annotation(
    true: Iterable[Any],
    said: Iterable[Any],
    *,
    probability: ArrayLike | None = None,
    classes: Iterable[str] | None = None,
    class_probabilities: ArrayLike | None = None,
    n_bins: int = 10,
) -> Annotation:
    """Accuracy, F1, confusion and, where probabilities are given, calibration of labels said of cells.

    Parameters
    ----------
    true, said
        True labels, and labels said, length C; None or NaN where nothing was said.
    probability
        Stated probability of the label said, ``[C]``. Taken from ``class_probabilities`` where it is not given.
    classes, class_probabilities
        The K labels chosen among, and their probabilities ``[C, K]``, each row summing to one.
    n_bins
        Bins of the reliability diagram, of equal width.

    Raises
    ------
    CellDataError
        When lengths differ, there is no cell, a true label is missing, or probabilities are none.

    Examples
    --------
    >>> found = annotation(["B", "B", "NK", "NK"], ["B", "NK", "NK", None])
    >>> found.accuracy, found.coverage, found.confusion, found.abstained
    (0.5, 0.75, [[1, 1], [0, 1]], [0, 1])
    """
    truth, answer = _true_labels(true), _labels(said)
    _same_length(truth, answer, "said")
    labels = sorted({label for label in [*truth, *answer] if label is not None})
    i, j = _codes(truth, labels), _codes(answer, labels)
    answered, right = j >= 0, i == j
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (i[answered], j[answered]), 1)
    scores = _class_scores(i, j, labels)
    measured = None
    if probability is not None or class_probabilities is not None:
        measured = calibration(
            truth, answer, probability=probability, classes=classes, class_probabilities=class_probabilities, n_bins=n_bins
        )
    return Annotation(
        n=len(i),
        accuracy=float(right.mean()),
        macro_f1=float(np.mean([score.f1 for score in scores])),
        balanced_accuracy=float(np.mean([score.recall for score in scores if score.support])),
        coverage=float(answered.mean()),
        accuracy_answered=float(right[answered].mean()) if answered.any() else None,
        classes=scores,
        labels=labels,
        confusion=confusion.tolist(),
        abstained=np.bincount(i[~answered], minlength=len(labels)).tolist(),
        calibration=measured,
    )


def calibration(
    true: Iterable[Any],
    said: Iterable[Any],
    *,
    probability: ArrayLike | None = None,
    classes: Iterable[str] | None = None,
    class_probabilities: ArrayLike | None = None,
    n_bins: int = 10,
) -> Calibration:
    """Expected calibration error with its reliability bins, and Brier score and log loss; parameters as in `annotation`.

    The error is the mean over answered cells of ``|share right - mean probability|`` of their bin.

    Examples
    --------
    >>> calibration(["B", "B", "NK", "NK"], ["B", "B", "B", "B"], probability=[0.75, 0.75, 0.75, 0.75]).error
    0.25
    """
    truth, answer = _true_labels(true), _labels(said)
    _same_length(truth, answer, "said")
    brier = log_loss = None
    n_outside = 0
    if class_probabilities is not None:
        names, full_CK = _class_probabilities(classes, class_probabilities, len(truth))
        brier, log_loss, n_outside = _proper_scores(truth, names, full_CK)
        if probability is None:
            at = _codes(answer, names)
            probability = np.where(at >= 0, full_CK[np.arange(len(at)), at], 0.0)
    if probability is None:
        raise CellDataError("calibration: needed the probability of each label said, or of all classes; found neither")
    answered = np.array([label is not None for label in answer])
    stated = np.asarray(probability, dtype=float)
    _same_length(truth, stated, "probability")
    _in_unit_interval(stated[answered], "probability")
    right = np.array([a == b for a, b in zip(truth, answer, strict=True)])[answered]
    bins = _reliability_bins(stated[answered], right, n_bins)
    gaps = [each.n * abs(each.accuracy - each.probability) for each in bins if each.accuracy is not None and each.probability is not None]
    n = int(answered.sum())
    return Calibration(n=n, error=sum(gaps) / n if n else 0.0, bins=bins, brier=brier, log_loss=log_loss, n_outside=n_outside)


def recognised_share(asked: Iterable[Any], said: Iterable[Any]) -> Recognised:
    """Share of generated cells of which a classifier says the type that was asked for; an abstention counts as not recognised.

    The same share among real cells of these types belongs beside it: no classifier is always right.

    Examples
    --------
    >>> recognised_share(["B", "B", "NK"], ["B", "NK", "NK"]).by_type
    {'B': 0.5, 'NK': 1.0}
    """
    wanted, answer = _true_labels(asked), _labels(said)
    _same_length(wanted, answer, "said")
    right = pd.Series([a == b for a, b in zip(wanted, answer, strict=True)], dtype=float)
    by_type = {str(label): float(share) for label, share in right.groupby(wanted).mean().items()}
    return Recognised(n=len(wanted), share=float(right.mean()), by_type=by_type)


def _labels(labels: Iterable[Any]) -> list[str | None]:
    return [None if pd.isna(label) else str(label) for label in labels]


def _true_labels(labels: Iterable[Any]) -> list[str]:
    found = _labels(labels)
    known = [label for label in found if label is not None]
    if not found or len(known) < len(found):
        raise CellDataError(f"true labels: {len(found) - len(known):,} of {len(found):,} missing; needed one for each of one cell or more")
    return known


def _codes(names: Sequence[str | None], labels: list[str]) -> NDArray[np.int64]:
    """Place of each name among the labels, -1 where it is none of them."""
    place = {label: k for k, label in enumerate(labels)}
    return np.array([-1 if name is None else place.get(name, -1) for name in names], dtype=np.int64)


def _same_length(true: list[str], other: Any, name: str) -> None:
    if len(true) != len(other):
        raise CellDataError(f"labels: {len(true):,} true ones but {len(other):,} of {name!r}; needed one of each a cell")


def _in_unit_interval(values: NDArray[np.float64], name: str) -> None:
    bad = values[~((values >= -1e-6) & (values <= 1 + 1e-6))]
    if bad.size:
        raise CellDataError(f"{name}: found {some(bad, bad.size)}; needed values from 0 to 1")


def _class_scores(true_codes: NDArray[Any], said_codes: NDArray[Any], labels: list[str]) -> list[ClassScore]:
    columns = precision_recall_fscore_support(true_codes, said_codes, labels=range(len(labels)), zero_division=0)
    return [
        ClassScore(label=label, precision=float(p), recall=float(r), f1=float(f), support=int(n))
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    ]


def _class_probabilities(classes: Iterable[str] | None, given: ArrayLike, n_cells: int) -> tuple[list[str], NDArray[np.float64]]:
    names = [] if classes is None else [str(name) for name in classes]
    full_CK = np.asarray(given, dtype=float)
    if full_CK.shape != (n_cells, len(names)):
        raise CellDataError(f"class_probabilities: shape {full_CK.shape}; needed {n_cells:,} cells × {len(names):,} classes")
    _in_unit_interval(full_CK, "class_probabilities")
    off = np.abs(full_CK.sum(1) - 1)
    if off.max() > 1e-3:
        raise CellDataError(f"class_probabilities: row {off.argmax()} sums to {full_CK[off.argmax()].sum():.4f}; needed 1")
    return names, full_CK


def _proper_scores(true: list[str], names: list[str], full_CK: NDArray[np.float64]) -> tuple[float, float, int]:
    """Brier score, log loss in nats, and how many true labels are no class."""
    at = _codes(true, names)
    given = np.where(at >= 0, full_CK[np.arange(len(at)), at], 0.0)
    brier = (full_CK**2).sum(1) - 2 * given + 1
    return float(brier.mean()), float(-np.log(np.maximum(given, FLOOR)).mean()), int((at < 0).sum())


def _reliability_bins(stated: NDArray[np.float64], right: NDArray[np.bool_], n_bins: int) -> list[ReliabilityBin]:
    edges = np.linspace(0, 1, n_bins + 1)
    at = np.searchsorted(edges[1:-1], stated, side="left")
    bins = []
    for b in range(n_bins):
        inside = at == b
        n = int(inside.sum())
        means = (float(stated[inside].mean()), float(right[inside].mean())) if n else (None, None)
        bins.append(ReliabilityBin(low=float(edges[b]), high=float(edges[b + 1]), n=n, probability=means[0], accuracy=means[1]))
    return bins
