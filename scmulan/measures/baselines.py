"""What a simple model does on the same cells: every figure of scmulan is printed beside these.

Labels: the commonest one, and logistic regression on log counts. Cells: for each type a multinomial (its mean profile, no
variation beyond sampling) or a negative binomial with a dispersion for every gene, genes independent given the depth.
The protocol of the published figures on Zheng et al. 2017 is kept to the digit: nothing here is tuned for or against anyone.
Draws are from a seed or a numpy Generator, which then goes on from where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.stats import nbinom
from sklearn.linear_model import LogisticRegression

from scmulan.errors import CellDataError, VocabularyError, nearest
from scmulan.measures.counts import Counts, as_counts, log_cp10k, same_genes

Seed: TypeAlias = int | np.random.Generator
FLOORS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Least dispersions that `negative_binomial_nats` chooses among."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Labels of C cells, the K classes chosen among, and the probability of each class, ``[C, K]``."""

    labels: list[str]
    classes: list[str]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MajorityClass:
    """Says the commonest training label of every cell, with the shares among training cells as probabilities."""

    classes: list[str]
    shares: NDArray[np.float64]

    def predict(self, counts: Counts) -> Predicted:
        """The same answer for each cell of ``counts`` ``[C, G]``."""
        n = as_counts(counts).shape[0]
        return Predicted(labels=[self.classes[self.shares.argmax()]] * n, classes=self.classes, probabilities=np.tile(self.shares, (n, 1)))


@dataclass(frozen=True, kw_only=True)
class LogisticBaseline:
    """Multinomial logistic regression on log1p CP10k of all genes."""

    model: LogisticRegression

    def predict(self, counts: Counts) -> Predicted:
        """Labels and probabilities of cells ``[C, G]`` on the genes of the fit."""
        counts = as_counts(counts)
        if counts.shape[1] != self.model.n_features_in_:
            raise CellDataError(f"logistic regression: cells of {counts.shape[1]:,} genes; it was fitted on {self.model.n_features_in_:,}")
        probabilities = self.model.predict_proba(log_cp10k(counts))
        classes = [str(label) for label in self.model.classes_]
        return Predicted(labels=[classes[k] for k in probabilities.argmax(1)], classes=classes, probabilities=probabilities)


@dataclass(frozen=True, kw_only=True)
class Multinomial:
    """Each count of a cell is an independent draw from one profile ``[G]``, which sums to one."""

    profile: NDArray[np.float64]

    def sample(self, depths: ArrayLike, seed: Seed) -> sp.csr_matrix:
        """Counts ``[len(depths), G]``, int32; each cell sums to its depth."""
        rng = np.random.default_rng(seed)
        return _stack(rng.multinomial(depth, self.profile) for depth in np.asarray(depths))


@dataclass(frozen=True, kw_only=True)
class NegativeBinomial:
    """Gene g of a cell of depth d: mean ``d · profile[g]``, variance ``mean + mean² / dispersion[g]``; genes independent."""

    profile: NDArray[np.float64]
    dispersion: NDArray[np.float64]

    def sample(self, depths: ArrayLike, seed: Seed) -> sp.csr_matrix:
        """Counts ``[len(depths), G]``, int32; each cell sums to its depth on average only."""
        rng = np.random.default_rng(seed)
        mean = np.asarray(depths)[:, None] * self.profile[None]
        drawn = rng.poisson(rng.gamma(self.dispersion[None], mean / self.dispersion[None] + 1e-12))
        return sp.csr_matrix(drawn.astype(np.int32))

    def nats(self, counts: Counts) -> NDArray[np.float64]:
        """Negative log likelihood of each cell given its depth, in nats, ``[C]``."""
        cells = as_counts(counts).toarray()
        mean = cells.sum(1)[:, None] * self.profile[None]
        theta = self.dispersion[None]
        nats: NDArray[np.float64] = -np.asarray(nbinom.logpmf(cells, theta, theta / (theta + mean))).sum(1)
        return nats


def fit_majority_class(labels: Iterable[Any]) -> MajorityClass:
    """The commonest label; of equals, the first in the alphabet.

    Examples
    --------
    >>> fit_majority_class(["B", "NK", "NK"]).predict([[1]]).labels
    ['NK']
    """
    classes, n = np.unique([str(label) for label in labels], return_counts=True)
    if not len(classes):
        raise CellDataError("majority class: no training label; needed one or more")
    return MajorityClass(classes=[str(label) for label in classes], shares=n / n.sum())


def fit_logistic_regression(counts: Counts, labels: Iterable[Any], *, C: float = 0.02, max_iter: int = 300) -> LogisticBaseline:
    """Logistic regression on log1p CP10k of training cells ``[C, G]``; ``C`` is the inverse strength of its L2 penalty."""
    counts, names = _labelled(counts, labels)
    if len(set(names)) < 2:
        raise CellDataError(f"logistic regression: all training cells are {names[0]!r}; needed two labels or more")
    return LogisticBaseline(model=LogisticRegression(C=C, max_iter=max_iter).fit(log_cp10k(counts), names))


def fit_multinomial(counts: Counts) -> Multinomial:
    """Summed counts of the cells ``[C, G]``, as shares. Genes that were never seen are never drawn."""
    totals = np.asarray(as_counts(counts).sum(0)).ravel()
    if not totals.any():
        raise CellDataError("multinomial: the training cells have no counts")
    return Multinomial(profile=totals / totals.sum())


def fit_negative_binomial(counts: Counts, floor: float = 0.01) -> NegativeBinomial:
    """Profile of the cells ``[C, G]`` and dispersion of each gene, by moments after scaling cells to equal depth.

    Dispersions are kept between ``floor`` and 1,000 (all but Poisson). A low floor keeps bursty genes bursty in samples; a
    higher one is kinder to the likelihood of genes seen in a few cells.
    """
    cells = as_counts(counts).toarray()
    depth = cells.sum(1)
    if not depth.all():
        raise CellDataError(f"negative binomial: {int((depth == 0).sum()):,} training cells have no counts; leave them out")
    scaled = cells / (depth / depth.mean())[:, None]
    mean, variance = scaled.mean(0) + 1e-6, scaled.var(0)
    theta = np.where(variance > mean, mean**2 / np.maximum(variance - mean, 1e-6), 1e3)
    profile = (cells.sum(0) + 0.05) / (cells.sum() + 0.05 * cells.shape[1])
    return NegativeBinomial(profile=profile, dispersion=np.clip(theta, floor, 1e3))


def sample_by_type(
    train: Counts,
    train_types: Iterable[Any],
    asked: Iterable[Any],
    kind: Literal["multinomial", "negative binomial"] = "negative binomial",
    *,
    seed: Seed = 0,
) -> sp.csr_matrix:
    """One simulated cell for each type asked for, in that order, from a model of its type's training cells.

    Depths are drawn from the type's training cells. The dispersion floor is 0.01.

    Returns
    -------
    Counts ``[len(asked), G]``, CSR of int32.

    Raises
    ------
    VocabularyError
        When a type asked for has no training cell.
    """
    counts, types = _labelled(train, train_types)
    wanted = np.asarray([str(label) for label in asked], dtype=object)
    rng = np.random.default_rng(seed)
    blocks, places = [], []
    for label in sorted(set(wanted)):
        _known(label, types)
        cells, at = counts[types == label], np.flatnonzero(wanted == label)
        simulator = fit_multinomial(cells) if kind == "multinomial" else fit_negative_binomial(cells)
        blocks.append(simulator.sample(rng.choice(np.asarray(cells.sum(1)).ravel(), len(at)), rng))
        places.append(at)
    return as_counts(sp.vstack(blocks, format="csr")[np.argsort(np.concatenate(places))])


def negative_binomial_nats(
    train: Counts, train_types: Iterable[Any], cells: Counts, types: Iterable[Any], *, floors: Sequence[float] = FLOORS
) -> NDArray[np.float64]:
    """Nats of each cell under the negative binomial of its type, given its depth, ``[C]``.

    For each type the floor is taken that suits these very cells best, which flatters the baseline: a model that beats it has
    beaten the best of ``floors``. Give one floor for a figure without that.
    """
    train, cells = same_genes(train, cells, ("training", "measured"))
    train, train_labels = _labelled(train, train_types)
    cells, labels = _labelled(cells, types)
    nats = np.zeros(cells.shape[0])
    for label in sorted(set(labels)):
        _known(label, train_labels)
        of_type, at = train[train_labels == label], labels == label
        options = [fit_negative_binomial(of_type, floor).nats(cells[at]) for floor in floors]
        nats[at] = min(options, key=lambda option: float(option.mean()))
    return nats


def thin(counts: Counts, n_genes: int, *, seed: Seed = 0) -> sp.csr_matrix:
    """Cells made shallower, each count kept by chance, until at most ``n_genes`` genes are detected in each.

    A binomial draw with probability ``0.97 · n_genes / detected``, again where it was not enough; cells with few enough genes
    stay as they are.

    Returns
    -------
    Counts ``[C, G]``, CSR of int32.

    Examples
    --------
    >>> int((thin([[3, 1, 2, 1]], 2) > 0).sum()) <= 2
    True
    """
    if n_genes < 1:
        raise CellDataError(f"thin: at most {n_genes} genes a cell; needed 1 or more")
    thinned = as_counts(counts).copy()
    thinned.eliminate_zeros()
    thinned.sort_indices()
    rng = np.random.default_rng(seed)
    for start, stop in zip(thinned.indptr[:-1], thinned.indptr[1:], strict=True):
        cell = thinned.data[start:stop]
        while (detected := int((cell > 0).sum())) > n_genes:
            cell[:] = rng.binomial(cell, n_genes / detected * 0.97)
    thinned.eliminate_zeros()
    return thinned


def _labelled(counts: Counts, labels: Iterable[Any]) -> tuple[sp.csr_matrix, NDArray[Any]]:
    matrix, names = as_counts(counts), np.asarray([str(label) for label in labels], dtype=object)
    if matrix.shape[0] != len(names):
        raise CellDataError(f"{matrix.shape[0]:,} cells but {len(names):,} labels; needed one a cell")
    return matrix, names


def _known(label: str, types: Iterable[str]) -> None:
    known = sorted(set(types))
    if label not in known:
        raise VocabularyError(f"type {label!r}: no training cell has it{nearest(label, known)}")


def _stack(rows: Iterable[NDArray[Any]]) -> sp.csr_matrix:
    return as_counts(sp.vstack([sp.csr_matrix(row[None]) for row in rows]))
