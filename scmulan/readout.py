"""A readout of counts that stands beside a tuned model's answer: what the labelled cells say of a cell by their counts alone.

Of tens of cells plain statistics learn more than a language model does. A readout has two voices, each linear in what it reads: a
logistic regression on log CP10k, and the multinomial of each label's counts, drawn toward the profile of all.
How far each is trusted is fitted on the same cells, by cross-validation; how far the model's own answer is, on the cells held out from
its tuning. It lies in the adapter's folder as one safetensors file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.special import log_softmax, logsumexp

from scmulan.adapters_folder import READOUT
from scmulan.csentence import LEVEL_COUNTS, level_of
from scmulan.errors import CellDataError, CheckpointError
from scmulan.measures.counts import log_cp10k

PENALTY = 0.02
"""Inverse strength of the regression's L2 penalty, as that of the baseline in ``measures.baselines``."""
DRAWN = 1e5
"""The profile of all cells is added to each label's as if it were so many counts."""
FOLDS = 5
REPEATED_BELOW = 200
"""With fewer cells than this the cross-validation is done twice, over other folds."""
SHARES = np.linspace(0, 1, 11)
"""Of the multinomial in the two voices."""
SHARPNESS, BOUNDS = 0.7, (-1.5, 2.0)
"""Log of the mean distance of labels from their mean that few cells are drawn toward, for some tell all apart at any; and its bounds."""
ABSENT = -20.0
EARNED = 4.0
"""So many nats of held-out cells the model's answer has to save before it is weighed with an exponent of 1."""
ANSWERS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Log-probabilities of labels from counts.

    Attributes
    ----------
    labels : K names
    columns : (G,) the genes it reads, as columns of the vocabulary
    slopes : (K, G) of the regression, with its ``intercepts`` (K,)
    means : (G,) mean log CP10k among the cells it learnt from, which stand for a gene that was not measured
    profiles : (K, G) log shares of counts
    trust : exponents of the regression and of the multinomial
    answer : exponent of the model's own answer beside them; 0 where no cell was held out to fit it
    """

    labels: tuple[str, ...]
    columns: npt.NDArray[np.int64]
    slopes: npt.NDArray[np.float32]
    intercepts: npt.NDArray[np.float32]
    means: npt.NDArray[np.float32]
    profiles: npt.NDArray[np.float32]
    trust: tuple[float, float] = (1.0, 1.0)
    answer: float = 0.0

    def log_probabilities(
        self, counts: sp.csr_matrix, labels: Sequence[str] | None = None, *, panel: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float64]:
        """Log-probability of each label for cells; (C, labels).

        Parameters
        ----------
        counts : (C, vocabulary genes) CSR
        labels : some of its own, among which a row adds up to 1; all when not given
        panel : (vocabulary genes,) bool, those that were measured; all when not given
        """
        voices = self.voices(counts, panel)
        chosen = [self.labels.index(label) for label in (self.labels if labels is None else labels)]
        pooled: npt.NDArray[np.float64] = log_softmax(np.tensordot(self.trust, voices, 1)[:, chosen], axis=1)
        return pooled

    def voices(self, counts: sp.csr_matrix, panel: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
        """What the regression and the multinomial say before they are weighed, as logits; (2, C, K)."""
        is_measured = np.ones(len(self.columns), dtype=bool) if panel is None else panel[self.columns]
        seen = _as_levels(counts[:, self.columns[is_measured]])
        slopes, unseen = self.slopes[:, is_measured].astype(np.float64), self.slopes[:, ~is_measured].astype(np.float64)
        regression = log_cp10k(seen) @ slopes.T + unseen @ self.means[~is_measured] + self.intercepts
        profiles = self.profiles[:, is_measured].astype(np.float64)
        total = np.maximum(np.asarray(seen.sum(1), dtype=np.float64).reshape(-1, 1), 1)
        multinomial = 1000 * (seen @ (profiles - logsumexp(profiles, axis=1, keepdims=True)).T) / total
        return np.stack([np.asarray(regression), multinomial - multinomial.mean(1, keepdims=True)])

    def with_answer(self, said: npt.NDArray[np.float64], counts: sp.csr_matrix, true: Sequence[str]) -> Readout:
        """The same readout, the model's answer weighed as serves best on cells that neither was fitted on.

        Parameters
        ----------
        said : (C, K) log-probabilities that the model gives its labels
        true : (C,) their labels; those of others are left out
        """
        rows = [row for row, label in enumerate(true) if label in self.labels]
        if not rows:
            return self
        place = np.array([self.labels.index(true[row]) for row in rows])
        own = self.log_probabilities(counts[rows])

        def cost(exponent: float) -> float:
            pooled = log_softmax(own + exponent * said[rows], axis=1)
            return float(-pooled[np.arange(len(rows)), place].mean() + EARNED * exponent**2 / len(rows))

        return dataclasses.replace(self, answer=min(ANSWERS, key=cost))

    def save(self, folder: Path) -> Path:
        """Write it into an adapter's or a model's folder."""
        overall = self.profiles.mean(0)
        tensors = {
            "columns": self.columns.astype(np.int32), "means": self.means.astype(np.float16), "intercepts": self.intercepts,
            "slopes": self.slopes.astype(np.float16), "profile": overall, "profiles": (self.profiles - overall).astype(np.float16),
            "exponents": np.array([*self.trust, self.answer], dtype=np.float32),
        }  # fmt: skip
        path = folder / READOUT
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, {"labels": json.dumps(self.labels)})
        return path

    @classmethod
    def of(cls, folder: Path) -> Readout | None:
        """That of a folder; None where there is none, CheckpointError where it can't be read."""
        path = folder / READOUT
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                labels = tuple(json.loads(file.metadata()["labels"]))
            regression, multinomial, answer = (round(float(value), 6) for value in tensors["exponents"])
            return cls(
                labels=labels, columns=tensors["columns"].astype(np.int64), slopes=tensors["slopes"].astype(np.float32),
                intercepts=tensors["intercepts"], means=tensors["means"].astype(np.float32),
                profiles=tensors["profile"] + tensors["profiles"].astype(np.float32), trust=(regression, multinomial), answer=answer,
            )  # fmt: skip
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be read ({error}); copy the folder again") from error


def fit_readout(counts: sp.csr_matrix, labels: Sequence[str], *, seed: int = 0) -> Readout:
    """A readout of labelled cells.

    Parameters
    ----------
    counts : (C, vocabulary genes) CSR
    labels : (C,)

    Raises
    ------
    CellDataError
        When all cells have one label.
    """
    counts, names = sp.csr_matrix(counts), tuple(sorted(set(labels)))
    if len(names) < 2:
        raise CellDataError(f"readout: every cell is {names[0]!r}; needed two labels or more")
    place = np.array([names.index(label) for label in labels])
    whole = _fit_voices(counts, place, names)
    said, true = list[npt.NDArray[np.float64]](), list[npt.NDArray[np.int64]]()
    for fold in _folds(place, seed):
        if len(np.unique(place[~fold])) > 1 and fold.any():
            said.append(_fit_voices(counts[~fold], place[~fold], names).voices(counts[fold]))
            true.append(place[fold])
    if not said:
        return whole
    return dataclasses.replace(whole, trust=_trust(np.concatenate(said, axis=1), np.concatenate(true), len(labels)))


def _fit_voices(counts: sp.csr_matrix, place: npt.NDArray[np.int64], names: tuple[str, ...]) -> Readout:
    from sklearn.linear_model import LogisticRegression  # takes a second to import, and only fitting needs it

    columns = np.flatnonzero(np.asarray(counts.sum(0)).ravel())
    seen = _as_levels(counts[:, columns])
    log = log_cp10k(seen)
    regression = LogisticRegression(C=PENALTY, max_iter=300).fit(log, place)
    slopes, intercepts = np.zeros((len(names), len(columns))), np.full(len(names), ABSENT)
    if len(regression.classes_) == 2:  # one row says both
        slopes[regression.classes_] = np.stack([-regression.coef_[0], regression.coef_[0]]) / 2
        intercepts[regression.classes_] = np.array([-1, 1]) * regression.intercept_[0] / 2
    else:
        slopes[regression.classes_], intercepts[regression.classes_] = regression.coef_, regression.intercept_
    sums = sp.csr_matrix((np.ones(len(place)), (place, np.arange(len(place)))), shape=(len(names), len(place))) @ seen
    sums = np.asarray(sums.toarray(), dtype=np.float64)
    overall = (sums.sum(0) + 0.1) / (sums.sum(0) + 0.1).sum()
    profiles = np.log(sums + DRAWN * overall) - np.log(sums.sum(1, keepdims=True) + DRAWN)
    return Readout(
        labels=names, columns=columns, slopes=slopes.astype(np.float32), intercepts=intercepts.astype(np.float32),
        means=np.asarray(log.mean(0), dtype=np.float32).ravel(), profiles=profiles.astype(np.float32),
    )  # fmt: skip


def _as_levels(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Counts as the sentence says them, for a corpus keeps no finer ones."""
    counts = sp.csr_matrix(counts, copy=True)
    counts.eliminate_zeros()
    counts.data = LEVEL_COUNTS[level_of(counts.data)].astype(np.int32)
    return counts


def _folds(place: npt.NDArray[np.int64], seed: int) -> list[npt.NDArray[np.bool_]]:
    """Masks of the cells left out in turn, each label spread over the folds."""
    rng, masks = np.random.default_rng([seed, 17]), []
    for _ in range(2 if len(place) < REPEATED_BELOW else 1):
        fold = np.zeros(len(place), dtype=np.int64)
        for label in np.unique(place):
            rows = rng.permutation(np.flatnonzero(place == label))
            fold[rows] = (np.arange(len(rows)) + rng.integers(FOLDS)) % FOLDS
        masks += [fold == number for number in range(FOLDS)]
    return masks


def _trust(said: npt.NDArray[np.float64], true: npt.NDArray[np.int64], n_cells: int) -> tuple[float, float]:
    """Exponents of least cross-validated loss: the multinomial's share, which has to earn its place, and the sharpness of both."""
    from scipy.optimize import minimize_scalar

    spread = 1 / np.maximum(np.abs(said - said.mean(2, keepdims=True)).mean((1, 2)), 1e-9)
    found = list[tuple[float, npt.NDArray[np.float64]]]()
    for share in SHARES:
        exponents = spread * (1 - share, share)
        pooled = np.tensordot(exponents, said, 1)

        def loss(log_sharpness: float, pooled: npt.NDArray[np.float64] = pooled) -> float:
            nats = -log_softmax(np.exp(log_sharpness) * pooled, axis=1)[np.arange(len(true)), true].mean()
            return float(nats + (log_sharpness - SHARPNESS) ** 2 / n_cells)

        best = minimize_scalar(loss, bounds=BOUNDS, method="bounded")
        found.append((best.fun + share**2 / n_cells, np.exp(best.x) * exponents))
    regression, multinomial = min(found, key=lambda each: each[0])[1]
    return float(regression), float(multinomial)
