"""Labels carried from training cells to held-out cells by their nearest neighbours, in the model's embedding and in principal components.

The votes are those of ``scmulan.search`` (`scmulan.measures.neighbours.vote`), the neighbours exact. Principal components are fitted to
both sides at once; the model sees each cell alone. Harmony and scVI, for cells of several batches, stand in ``scmulan bench integration``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import Cells
from scmulan.evaluate.cells import MODEL, Ground, Skipped, at_most, counter, evenly, reserve
from scmulan.evaluate.given import Given, Prepared
from scmulan.measures.counts import components, highly_variable, log_cp10k
from scmulan.measures.neighbours import K, Transfer, transfer
from scmulan.tasks_embedding import EmbeddingSettings

PCA = "principal components"
N_GENES, N_COMPONENTS = 2000, 50
Points = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Labels of ``n`` held-out cells by votes of their ``k`` nearest among ``n_reference`` training cells, by way."""

    n: int
    n_reference: int
    k: int
    ways: dict[str, Transfer]


def prepare(given: Given) -> Prepared[Mapped]:
    """The section, or why it can't be measured."""
    ground = given.ground
    if isinstance(ground, Skipped):
        return ground
    return lambda: _measured(given, ground)


def _measured(given: Given, ground: Ground) -> Mapped:
    part = at_most(ground, given.sizes.mapped_cells, given.seed)
    rows = evenly(ground.train_types, given.sizes.reference_cells, given.seed)
    lent, types = ground.train.take(rows), [ground.train_types[row] for row in rows]
    n = len(rows)
    ways = {
        MODEL: _embedded(given, [lent, part.held_out]),
        PCA: _components(sp.vstack([ground.counts(lent), ground.counts(part.held_out)], format="csr"), given.seed),
    }
    found = {name: transfer(points[:n], types, points[n:], part.types) for name, points in ways.items()}
    return Mapped(n=len(part.types), n_reference=n, k=min(K, n), ways=found)


def _embedded(given: Given, sides: Sequence[Cells]) -> Points:
    model, on_cell = given.model, counter(given.say, "embed", sum(len(cells) for cells in sides))
    read = [model.read(cells, reserve=reserve(model)).whole for cells in sides]
    return np.concatenate([model.embeddings.of_counts(each, EmbeddingSettings(), on_cell=on_cell) for each in read])


def _components(counts: sp.csr_matrix, seed: int) -> Points:
    log = log_cp10k(counts)
    points: Points = components(log[:, highly_variable(log, N_GENES)].toarray(), N_COMPONENTS, seed).astype(np.float32)
    return points
