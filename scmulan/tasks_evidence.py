"""Which genes speak for one value of a field against another, in several cells: log-likelihood ratios, gene by gene.

The sum over genes, levels and the end is the log-likelihood ratio of a cell under the two values; told is the mean over cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scmulan.cells import AnnData
from scmulan.errors import PromptError
from scmulan.labels import as_answer

MOST_CELLS = 24
"""Cells that are looked at, at most; drawn evenly."""


def runner_up(model: Any, adata: AnnData, field: str, label: str | None) -> list[str]:
    """The two likeliest values of a field for cells as a whole, the label (where there is one) left out of the second place."""
    table = model.annotate(adata.copy()) if field == "cell_type" else model.describe(adata.copy()).get(field)
    if table is None or table.shape[1] < 2:
        raise PromptError(f"this model has seen no two values of {field} that genes could tell apart")
    order = [str(name) for name in table.mean().sort_values(ascending=False).index]
    others = [name for name in order if name != label]
    return order[:2] if label is None else others[:2]


def evidence(model: Any, adata: AnnData, field: str, label: str, against: str, *, seed: int = 0) -> tuple[pd.Series, int]:
    """Nats by which each gene speaks for ``label`` against ``against``, the mean over cells, strongest first; and the number of cells.

    Raises
    ------
    PromptError
        When the model has not seen one of the values; names the nearest.
    """
    label, against = (model.seen.known(field, name) for name in (label, against))
    chosen = np.sort(np.random.default_rng(seed).permutation(adata.n_obs)[:MOST_CELLS])
    ready = model.read(adata[chosen].copy(), reserve=model.opened.reserve())
    told = [name for name in ("organism", "assay", "organ") if name != field]
    given = model.opened.given(ready.cells, told)
    sides = []
    for name in (label, against):
        said = as_answer(name) if field == "cell_type" else {field: name}
        sides.append(model.nats(ready, [{**known, **said} for known in given]))
    vocabulary, total = model.vocabulary, np.zeros(model.vocabulary.n_genes)
    for row, (first, second) in enumerate(zip(*sides, strict=True)):
        ids = ready.ids[row]
        is_gene = ids >= vocabulary.first_gene
        np.add.at(total, ids[is_gene] - vocabulary.first_gene, (second - first)[is_gene])
    seen = np.flatnonzero(total)
    found = pd.Series(total[seen] / len(ready.ids), index=[vocabulary.genes[column] for column in seen])
    return found.sort_values(ascending=False), len(ready.ids)
