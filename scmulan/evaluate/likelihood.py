"""Nats per held-out cell given its fields and depth, beside the negative binomial of its type on the same cells and genes.

The model writes counts above ten as levels, so what it costs to say which count of the level it was is added, for a fair sum.
The negative binomial knows the depth to the count, the model within half an octave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import csentence, csentence_thinning
from scmulan.csentence import LEVEL_FLOORS
from scmulan.evaluate.cells import MODEL, Ground, OnProgress, Skipped, counter, fields_of, reserve
from scmulan.evaluate.given import Given, Prepared
from scmulan.measures import baselines
from scmulan.tasks import Model

BINOMIAL = "negative binomial per type"


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Nats per cell given fields and depth, means over the cells; lower is better.

    ``parts`` of scmulan: levels and genes are the sentence's; ``counts within levels`` is what it costs to say which count
    of a level above ten a gene has, each as likely as the other; ``depth`` is not in the sum, for it is given.
    """

    genes: str
    n: int
    n_genes: int
    genes_per_cell: float
    n_thinned: int
    nats: dict[str, float]
    error: dict[str, float]
    difference_error: float
    parts: dict[str, float]
    by_type: dict[str, dict[str, float]]


def prepare(given: Given) -> Prepared[list[Likelihood]]:
    """The section, or why it can't be measured."""
    ground = given.ground
    return ground if isinstance(ground, Skipped) else lambda: likelihoods(given.model, ground, seed=given.seed, say=given.say)


def likelihoods(
    model: Model, ground: Ground, *, seed: int, say: OnProgress, least_cells: int = 40, most_genes: int = 800
) -> list[Likelihood]:
    """Nats per held-out cell, over genes seen in ``least_cells`` training cells with cells thinned to ``most_genes`` genes, and
    over all genes of the vocabulary with cells thinned to the context."""
    rows = model.table.index_of_symbols(model.vocabulary.genes)
    held, train = (sp.csr_matrix(cells.counts[:, rows]) for cells in (ground.held_out, ground.train))
    often = np.asarray((train > 0).sum(0)).ravel() >= least_cells
    found = []
    if often.any():
        frequent = sp.csr_matrix(held @ sp.diags(often.astype(np.int32), dtype=np.int32), dtype=np.int32)
        frequent.eliminate_zeros()
        thinned = baselines.thin(frequent, most_genes, seed=seed)
        name = f"genes detected in {least_cells} or more training cells; cells thinned to {most_genes} genes or fewer"
        found.append(_likelihood(model, ground, name, frequent, thinned, train, often, say))
    every = np.asarray((train > 0).sum(0)).ravel() > 0
    every |= np.asarray((held > 0).sum(0)).ravel() > 0
    return [*found, _likelihood(model, ground, "all genes of the vocabulary that these cells have", held, held, train, every, say)]


def _likelihood(
    model: Model,
    ground: Ground,
    name: str,
    whole: sp.csr_matrix,
    cells: sp.csr_matrix,
    train: sp.csr_matrix,
    kept: npt.NDArray[np.bool_],
    say: OnProgress,
) -> Likelihood:
    """Nats of cells (C, V) under a panel of the genes ``kept`` (V,), which alone have counts."""
    cells, _ = csentence_thinning.thin_to_fit(cells, model.checkpoint.context - reserve(model))
    ids = csentence.encode(cells, model.vocabulary)
    ready = dataclasses.replace(model.read(ground.held_out, reserve=reserve(model)), ids=ids, counts=cells, panel=kept)
    nats = model.nats(ready, fields_of(model, ground.held_out), on_cell=counter(say, "likelihood", len(ids)))
    parts = _parts(model, cells, ids, nats)
    filled = np.asarray(train[:, kept].sum(1)).ravel() > 0
    types = np.array(ground.train_types)[filled]
    ours = parts["levels"] + parts["genes"] + parts["counts within levels"]
    theirs = baselines.negative_binomial_nats(train[filled][:, kept], types, cells[:, kept], ground.types)
    both, names = {MODEL: ours, BINOMIAL: theirs}, np.array(ground.types)
    n = len(ours)
    return Likelihood(
        genes=name,
        n=n,
        n_genes=int(kept.sum()),
        genes_per_cell=float((cells > 0).sum(1).mean()),
        n_thinned=int((np.asarray((cells.sum(1) < whole.sum(1))).ravel()).sum()),
        nats={who: float(values.mean()) for who, values in both.items()},
        error={who: _standard_error(values) for who, values in both.items()},
        difference_error=_standard_error(ours - theirs),
        parts={part: float(values.mean()) for part, values in parts.items()},
        by_type={str(label): {who: float(values[names == label].mean()) for who, values in both.items()} for label in np.unique(names)},
    )


def _parts(
    model: Model, cells: sp.csr_matrix, ids: csentence.Ragged, nats: Sequence[npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Nats of each part of each cell's sentence, (C,) each."""
    first_gene, n = model.vocabulary.first_gene, len(ids)
    is_gene = [ids[row][2:] >= first_gene for row in range(n)]
    spans = sp.csr_matrix((_span_nats(cells.data), cells.indices, cells.indptr), shape=cells.shape)
    return {
        "levels": np.array([nats[row][2:][~is_gene[row]].sum() for row in range(n)]),
        "genes": np.array([nats[row][2:][is_gene[row]].sum() for row in range(n)]),
        "counts within levels": np.asarray(spans.sum(1)).ravel(),
        "depth": np.array([nats[row][1] for row in range(n)]),
    }


def _span_nats(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """log of how many counts share each count's level; 0 up to ten."""
    level = csentence.level_of(counts)
    return np.log((LEVEL_FLOORS[level + 1] - LEVEL_FLOORS[level]).astype(np.float64))


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
