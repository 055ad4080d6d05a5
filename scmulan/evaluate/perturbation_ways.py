"""The model as a way to foretell perturbed cells, and to tell a perturbation from cells (`scmulan.measures.change_ways`).

Perturbed cells are written from training control cells, and the same cells are written again with no perturbation: the change between
the two is the model's, free of what sets its cells apart from real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from scipy.special import log_softmax

from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance
from scmulan.measures.change import Floats
from scmulan.measures.change_ways import ChangeTask, Foretold
from scmulan.measures.shift import Population
from scmulan.tasks import Model
from scmulan.tasks_changes import LEAST_SHARE

Naming = Callable[[str], str]
"""From a target of a task to the model's label of ``perturbation``."""


def foretell(
    task: ChangeTask, *, model: Model, n: int, seed: int, label_of: Naming = str, on_cell: Advance | None = None
) -> dict[str, Foretold]:
    """``n`` cells of each held-out target, written from training control cells, beside the same cells written with none."""
    changes = model.changes.changes
    ready, sampling = changes.read(task.cells.take(task.split.control_train)), Sampling(seed=seed, coupled=True)

    def written(label: str) -> sp.csr_matrix:
        predicted = changes.rewrite("perturb", ready, {"perturbation": label}, n=n, sampling=sampling, on_cell=on_cell)
        return onto_genes(model, predicted.counts, task.genes)

    untouched = written(changes.control())
    return {target: Foretold(cells=written(label_of(target)), control=untouched) for target in task.split.held}


def from_real_controls(foretold: Mapping[str, Foretold]) -> dict[str, Foretold]:
    """The same cells, their change taken from the training control cells as they were measured."""
    return {target: Foretold(cells=each.cells) for target, each in foretold.items()}


def explain(
    task: ChangeTask,
    populations: Sequence[Population],
    candidates: Sequence[str],
    *,
    model: Model,
    seed: int,
    label_of: Naming = str,
    on_cell: Advance | None = None,
) -> Floats:
    """Scores of the candidates for populations of cells; each cell adds what it says beyond how common a perturbation was."""
    changes = model.changes.changes
    rows = np.unique(np.concatenate([each.rows for each in populations]))
    labels = [label_of(name) for name in candidates]
    controls, asked = task.cells.take(task.split.control_train), task.cells.take(rows)
    said = log_softmax(changes.explain(controls, asked, labels, seed=seed, on_cell=on_cell), axis=1)
    said -= np.log(np.maximum(changes.shares(labels), LEAST_SHARE))
    place = {row: number for number, row in enumerate(rows.tolist())}
    return np.stack([said[[place[row] for row in np.asarray(each.rows).tolist()]].sum(0) for each in populations])


def onto_genes(model: Model, counts: sp.csr_matrix, genes: Sequence[str]) -> sp.csr_matrix:
    """Counts over the vocabulary as counts over some genes, by symbol; 0 of a gene that the vocabulary lacks."""
    columns = model.vocabulary.columns(list(genes))
    known = np.flatnonzero(columns >= 0)
    onto = sp.csr_matrix((np.ones(len(known), dtype=np.int32), (columns[known], known)), shape=(counts.shape[1], len(genes)))
    return sp.csr_matrix(counts @ onto)
