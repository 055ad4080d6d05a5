"""Held-out cells thinned to a quarter of their counts and brought back to depth, beside ways that need no model.

The truth is the cell before it was thinned. Agreement with it is high for a cell that is left alone, whose counts are part of it: what
tells more is detection, whether a gene that the thinned cell lacks was there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import Cells
from scmulan.csentence_thinning import thin
from scmulan.decoding.sampling import Sampling
from scmulan.evaluate.cells import MODEL, Ground, Skipped, at_most, counter, spread
from scmulan.evaluate.given import Given, Prepared
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.perturbation_ways import onto_genes
from scmulan.genes import GeneTable
from scmulan.measures.recovery import Recovery, recovery
from scmulan.measures.recovery_ways import BY_TYPE, QUICK, EnhanceTask
from scmulan.tasks_changed import TOLD_TO_ENHANCE, expected_counts

SHARE = 0.25
ALL = "all cells"


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Ways to bring ``n_cells`` cells that kept ``share`` of their counts back to depth; see `scmulan.measures.recovery.Recovery`.

    ``counts`` are the median counts of a full and of a thinned cell; ``draws`` the cells that the model drew of each.
    """

    share: float
    n_cells: int
    n_train: int
    draws: int
    counts: tuple[float, float]
    ways: dict[str, Recovery]


def prepare(given: Given) -> Prepared[Depth]:
    """The section, or why it can't be measured."""
    if (reason := why_not_learnt(given.model, "enhance")) is not None:
        return Skipped(reason)
    posed = pose(given)
    return posed if isinstance(posed, Skipped) else lambda: _measured(given, *posed)


def pose(given: Given) -> tuple[EnhanceTask, sp.csr_matrix] | Skipped:
    """Held-out cells drawn evenly over types where there are types, thinned, and the same before; or why there are none."""
    ground, n, seed = given.ground, given.sizes.depth_cells, given.seed
    if isinstance(ground, Ground):
        part = at_most(ground, n, seed)
        held, train, types = part.held_out, part.train, part.train_types
    else:
        rows = np.sort(np.random.default_rng([seed, 3]).permutation(len(given.held.cells))[:n])
        held, train = given.held.cells.take(rows), given.train.cells
        types = [ALL] * len(train)
    genes = np.intersect1d(held.measured, train.measured)
    if not held.counts[:, genes].sum() or not train.counts[:, genes].sum():
        return Skipped("the held-out and the training cells share no gene that either side has counts of")
    genes = genes[np.asarray(held.counts[:, genes].sum(0) + train.counts[:, genes].sum(0)).ravel() > 0].astype(np.int32)
    full = sp.csr_matrix(held.counts[:, genes])
    task = EnhanceTask(
        thinned=thin(full, SHARE, seed),
        depth=np.asarray(full.sum(1), dtype=np.int64).ravel(),
        share=SHARE,
        genes=[str(symbol) for symbol in GeneTable.load().symbols[genes]],
        cells=dataclasses.replace(held, measured=genes),
        train=sp.csr_matrix(train.counts[:, genes]),
        train_types=types,
        seed=seed,
    )
    return task, full


def _measured(given: Given, task: EnhanceTask, full: sp.csr_matrix) -> Depth:
    totals = np.asarray(task.train.sum(0), dtype=np.float64).ravel() + 0.05
    several = len(set(task.train_types)) > 1
    ways: dict[str, Callable[[EnhanceTask], Any]] = {MODEL: lambda task: by_model(given, task)}
    ways |= {name: way for name, way in QUICK.items() if several or name not in BY_TYPE}
    found = {
        name: recovery(full, task.thinned, way(task), mean_profile=totals / totals.sum(), seed=given.seed) for name, way in ways.items()
    }
    return Depth(
        share=task.share,
        n_cells=full.shape[0],
        n_train=task.train.shape[0],
        draws=given.sizes.depth_draws,
        counts=(_median(full), _median(task.thinned)),
        ways=found,
    )


def by_model(given: Given, task: EnhanceTask) -> sp.csr_matrix:
    """What was seen of each cell, and for the rest of its full depth what the model expects along the cells that it drew."""
    changes, draws = given.model.changes.changes, given.sizes.depth_draws
    ready = changes.read(_thinned_cells(task))
    on_cell = counter(given.say, "enhance", draws * len(ready.ids))
    rewrite = functools.partial(
        changes.rewrite, "enhance", ready, {}, depths=task.depth, given=TOLD_TO_ENHANCE, wants_expected=True, on_cell=on_cell
    )
    drawn = [rewrite(sampling=Sampling(seed=given.seed + draw)).expected for draw in range(draws)]
    panel: npt.NDArray[np.float64] = ready.panel.astype(np.float64)  # what the data did not measure can't be part of the full cell
    measured = [sp.csr_matrix(each @ sp.diags(panel)) for each in drawn if each is not None]
    return onto_genes(given.model, expected_counts(ready.whole, measured, task.depth), task.genes)


def _thinned_cells(task: EnhanceTask) -> Cells:
    return dataclasses.replace(task.cells, counts=spread(task.thinned, task.cells.measured, task.cells.counts.shape[1]))


def _median(counts: sp.csr_matrix) -> float:
    return float(np.median(np.asarray(counts.sum(1))))
