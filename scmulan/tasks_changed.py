"""Predicted cells as AnnData, and what changed: gene by gene with intervals, over cells that were predicted pair by pair."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.special import softmax
from scipy.stats import false_discovery_control, t

from scmulan.cells import AnnData
from scmulan.cells_writing import annotate_adata, new_adata
from scmulan.counts import log1p_cp10k
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance
from scmulan.errors import PromptError, ScmulanWarning, some
from scmulan.perturbations import perturbation_of
from scmulan.tasks_changes import LEAST_SHARE, Changes, Predicted
from scmulan.tasks_opened import Opened

DRAWS = 1000
"""Draws of cells for an interval."""
INTERVAL = 95.0
LEAST_PAIRS = 10
"""For fewer cells no p value is told: counts of a few cells are far from normal, and a gene that three cells take would look sure."""
TOLD_TO_ENHANCE = ("organism", "assay", "organ")
"""Fields that `enhance` is told: what a cell is shall be read from the cell."""
CONTROL_CELL = "scmulan_from"
"""Column of obs: the cell that each was predicted from."""


class ChangedCells:
    """The tasks about cells that change, AnnData in and AnnData out."""

    def __init__(self, opened: Opened):
        self.opened, self.changes = opened, Changes(opened)

    def perturb(
        self,
        adata: AnnData,
        given: str | Mapping[str, str],
        more: Mapping[str, str | None],
        n: int | None,
        sampling: Sampling,
        on_cell: Advance | None,
    ) -> AnnData:
        """As ``Model.perturb``."""
        found = self.changes.perturbation(given)
        more = {name: self.opened.seen.known(name, value) if value else None for name, value in more.items()}
        ready = self.changes.read(adata)
        after = {"perturbation": found.label, **more}
        perturbed, untouched = (
            self.changes.rewrite("perturb", ready, fields, n=n, sampling=sampling, on_cell=on_cell if fields is after else None)
            for fields in (after, {**after, "perturbation": self.changes.control(), "dose": None})
        )
        cells = predicted_adata(
            self.opened, perturbed, adata, task="perturb", sampling=sampling, changed=after, is_learnt=found.is_seen, **after
        )
        table = change_table(untouched.counts[:, ready.panel], perturbed.counts[:, ready.panel], seed=sampling.seed)
        for name in table:
            cells.var[f"scmulan_{name}"] = table[name].to_numpy()
        return cells

    def explain(
        self, control: AnnData, perturbed: AnnData, perturbations: Sequence[str] | None, seed: int, on_cell: Advance | None
    ) -> pd.DataFrame:
        """As ``Model.explain_shift``."""
        seen = self.opened.seen
        asked = [perturbation_of(each, seen, self.opened.table) for each in perturbations or ()]
        if unseen := [each.label for each in asked if not each.is_seen]:
            raise PromptError(
                f"{some(unseen)}: no training cell had it, so the model can't tell it from others; it has learnt "
                f"{some(seen.values('perturbation')) or 'none'}"
            )
        labels = list(dict.fromkeys(each.label for each in asked)) if perturbations else seen.values("perturbation")
        if len(labels) < 2:
            raise PromptError(
                f"{some(labels) or 'no perturbation'} alone to choose from; needed two or more that the model has learnt; "
                "a model learns them by `scmulan finetune` from cells with a column `perturbation`"
            )
        said_CL = self.changes.explain(control, perturbed, labels, seed=seed, on_cell=on_cell)
        # cells of one population: each adds what it says beyond how common a perturbation was in training
        prior_L = np.log(np.maximum(self.changes.shares(labels), LEAST_SHARE))
        together_L = softmax(prior_L + (said_CL - prior_L).sum(0))
        shares_CL, best = np.exp(said_CL), said_CL.argmax(1)
        annotate_adata(
            perturbed,
            {"perturbation": [labels[place] for place in best], "perturbation_probability": shares_CL.max(1)},
            uns=self.opened.provenance(task="explain_shift", perturbations=list(labels), seed=seed),
        )
        found = pd.DataFrame(
            {"probability": together_L, "mean_probability": shares_CL.mean(0), "cells": np.bincount(best, minlength=len(labels))},
            index=pd.Index(labels, name="perturbation"),
        )
        return found.sort_values(["probability", "mean_probability"], ascending=False, kind="stable")

    def next_state(self, adata: AnnData, time: str, n: int | None, sampling: Sampling, on_cell: Advance | None) -> AnnData:
        """As ``Model.next_state``."""
        after = {"time": self.opened.seen.known("time", time)}
        predicted = self.changes.rewrite("next_state", self.changes.read(adata), after, n=n, sampling=sampling, on_cell=on_cell)
        changed = {**after, "cell_type": None, "lineage": None}
        return predicted_adata(self.opened, predicted, adata, task="next_state", sampling=sampling, changed=changed, **after)

    def fate(self, adata: AnnData, time: str, labels: Sequence[str] | None, on_cell: Advance | None) -> pd.DataFrame:
        """As ``Model.fate``."""
        table, ready = self.changes.fates(adata, time, labels, on_cell)
        best = table.to_numpy().argmax(1)
        obs = {"fate": [str(table.columns[place]) for place in best], "fate_probability": table.to_numpy().max(1)}
        annotate_adata(adata, obs, uns=self.opened.provenance(task="fate", time=time, **self.opened.losses(ready)))
        return table.set_axis(adata.obs_names)

    def enhance(self, adata: AnnData, depth: int, draws: int, sampling: Sampling, on_cell: Advance | None) -> AnnData:
        """As ``Model.enhance``."""
        if depth < 1 or draws < 1:
            raise PromptError(f"depth {depth} and draws {draws}: needed at least 1 of each")
        ready = self.changes.read(adata)
        is_deeper = np.asarray(ready.whole.sum(1)).ravel() >= depth
        if is_deeper.any():
            warnings.warn(
                f"{is_deeper.sum():,} of {len(is_deeper):,} cells have {depth:,} counts or more already: expected counts are "
                "those that were seen",
                ScmulanWarning,
                stacklevel=3,
            )
        depths = np.full(len(ready.ids), depth)
        rewrite = functools.partial(self.changes.rewrite, "enhance", ready, {}, depths=depths, given=TOLD_TO_ENHANCE, wants_expected=True)
        first = rewrite(sampling=sampling, on_cell=on_cell)
        seeds = range(sampling.seed + 1, sampling.seed + draws)
        more = [rewrite(sampling=dataclasses.replace(sampling, seed=seed)) for seed in seeds]
        cells = predicted_adata(self.opened, first, adata, task="enhance", sampling=sampling, changed={}, depth=depth, draws=draws)
        cells.obs_names = adata.obs_names
        told = [each.expected for each in (first, *more) if each.expected is not None]
        expected = expected_counts(ready.whole[:, ready.panel], [each[:, ready.panel] for each in told], depth)
        cells.layers["expected"] = expected
        cells.X = log1p_cp10k(expected)
        return cells


def expected_counts(seen: sp.csr_matrix, draws: Sequence[sp.csr_matrix], depth: npt.ArrayLike) -> sp.csr_matrix:
    """Counts at a depth: those that were seen, and for the rest of the depth the mean share of each gene over draws; (C, G) float32.

    A count that was seen is certain. What is unseen at depth ``T`` of a cell seen at depth ``S`` are ``T - S`` counts more, of which gene
    g has a share that is taken from whole cells drawn by the model, or from what it expects along them. ``depth`` is one for all, or (C,).
    """
    total = np.asarray(seen.sum(1)).ravel()
    drawn = sp.csr_matrix(sum(draws[1:], start=draws[0]), dtype=np.float64)
    shares = sp.diags(1 / np.maximum(np.asarray(drawn.sum(1)).ravel(), 1)) @ drawn
    rest = sp.diags(np.maximum(np.asarray(depth) - total, 0).astype(np.float64)) @ shares
    return sp.csr_matrix(seen + rest, dtype=np.float32)


def predicted_adata(
    opened: Opened, predicted: Predicted, adata: AnnData, *, task: str, sampling: Sampling, changed: Mapping[str, str | None], **how: Any
) -> AnnData:
    """Predicted cells: counts of the genes that were measured, in the file's own names; fields as given, but for those that change.

    Parameters
    ----------
    changed : fields of the second cell
    """
    ready, source = predicted.ready, predicted.source
    kept = np.flatnonzero(ready.panel)
    names = {name: values for name, values in ready.cells.fields.items() if any(values)}
    obs = pd.DataFrame({name: [values[row] for row in source] for name, values in names.items() if name not in changed})
    for name, value in changed.items():
        if value is not None:
            obs[name] = value
    obs[CONTROL_CELL] = [str(adata.obs_names[row]) for row in source]
    obs.index = pd.Index([f"{task}_{number}" for number in range(len(source))], dtype=object)
    organism = next((value for value in ready.cells.fields.get("organism", []) if value), "Homo sapiens")
    uns = opened.provenance(task=task, **dataclasses.asdict(sampling), **how, **opened.losses(ready))
    return new_adata(
        predicted.counts[:, kept],
        opened.rows[kept],
        opened.table,
        obs=obs.astype(object).where(obs.notna(), None).astype("category"),
        organism=organism,
        uns={"scmulan": uns},
    )


def change_table(before: sp.csr_matrix, after: sp.csr_matrix, *, seed: int = 0) -> pd.DataFrame:
    """What changed between two sets of cells, row by row of the same origin.

    Parameters
    ----------
    before, after : (N, G) CSR counts; row i of both was predicted from one cell

    Returns
    -------
    DataFrame (G, ...)
        ``before`` and ``after``, means of CP10k; ``change``, log2 of the ratio of (mean CP10k + 1), with ``low`` and ``high``, its 95 %
        interval over draws of cells; ``p_value`` of a paired t test of log1p CP10k (1 for fewer than ``LEAST_PAIRS`` cells),
        ``q_value`` its Benjamini-Hochberg rate. An interval says how sure the mean of predicted cells is, not how right the model is.
    """
    first, second = (np.expm1(log1p_cp10k(counts)).tocsr() for counts in (before, after))
    n = first.shape[0]
    means = [np.asarray(each.mean(0)).ravel() for each in (first, second)]
    draws_DN = np.random.default_rng([seed, 19]).multinomial(n, np.full(n, 1 / n), size=DRAWS) / n
    drawn = [np.asarray(draws_DN @ each) for each in (first, second)]
    change_DG = np.log2(drawn[1] + 1) - np.log2(drawn[0] + 1)
    low, high = np.percentile(change_DG, [50 - INTERVAL / 2, 50 + INTERVAL / 2], axis=0)
    p_value = _paired(log1p_cp10k(before), log1p_cp10k(after))
    return pd.DataFrame(
        {
            "before": means[0],
            "after": means[1],
            "change": np.log2(means[1] + 1) - np.log2(means[0] + 1),
            "low": low,
            "high": high,
            "p_value": p_value,
            "q_value": false_discovery_control(p_value),
        }
    )


def most_changed(genes: pd.DataFrame) -> pd.DataFrame:
    """The genes of predicted cells, most changed first: by the end of the interval that is nearer to no change, so that few cells put no
    noisy gene first; then by the change.

    Parameters
    ----------
    genes : as ``Model.perturb`` writes them into ``var``: ``scmulan_change``, ``scmulan_low``, ``scmulan_high``
    """
    genes = genes[genes["scmulan_change"].notna()]
    low, high, change = (genes[f"scmulan_{name}"].to_numpy(dtype=float) for name in ("low", "high", "change"))
    sure = np.maximum(0.0, np.where(change > 0, low, -high))
    return genes.iloc[np.lexsort((-np.abs(change), -sure))]


def _paired(before: sp.csr_matrix, after: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """Two-sided p values of a paired t test; 1 where nothing varies, and everywhere where pairs are too few for their mean to be normal."""
    difference = sp.csr_matrix(after - before).astype(np.float64)
    n = difference.shape[0]
    if n < LEAST_PAIRS:
        return np.ones(difference.shape[1])
    mean = np.asarray(difference.mean(0)).ravel()
    variance = np.asarray(difference.multiply(difference).mean(0)).ravel() - mean**2
    error = np.sqrt(np.maximum(variance, 0) / (n - 1))
    score = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
    found: npt.NDArray[np.float64] = 2 * t.sf(np.abs(score), n - 1)
    return found
