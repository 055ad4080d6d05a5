"""What a readout of counts says of a new organ by itself, over several draws of the labelled cells, beside logistic regression.

No model is asked: this is the part of an adapter's answer that rests on counts alone (`scmulan.readout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan.bench_organs import ORGANS, SIZES, divided, drawn, labelled_cells, types_of
from scmulan.cells import AnnData, read_cells
from scmulan.errors import PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures import metrics
from scmulan.measures.baselines import fit_logistic_regression
from scmulan.model import model_folder
from scmulan.readout import fit_readout
from scmulan.tokenizer import load_vocabulary

DRAWS = 6


def readout(
    *, model: str, data: Path | None, n: int | None, only: Sequence[str], seed: int, say: Callable[[str], None], **_: Any
) -> dict[str, Any]:
    """Mean accuracy and macro-F1 over ``n`` (6) draws of labelled and held-out cells, by organ and number of labelled cells.

    Parameters
    ----------
    model : whose vocabulary the readout reads
    only : organs; all that are at hand when none is named
    """
    unknown = [name for name in only if name not in ORGANS]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join(ORGANS)}{nearest(unknown[0], list(ORGANS))}")
    rows = GeneTable.load().index_of_symbols(load_vocabulary(model_folder(model)).genes)
    found: dict[str, Any] = {}
    for name in only or [name for name in ORGANS if ORGANS[name].is_embedded or data is not None]:
        adata = labelled_cells(ORGANS[name], data)
        for size in SIZES:
            draws = [_draw(adata, size, seed + number, rows) for number in range(n or DRAWS)]
            means = {way: np.mean([draw[way] for draw in draws], axis=0).round(3).tolist() for way in draws[0]}
            found[f"{name}, {size} cells"] = {way: {"accuracy": first, "macro_f1": second} for way, (first, second) in means.items()}
            say(f"{name}, {size} cells: {found[f'{name}, {size} cells']}")
    return {"draws": n or DRAWS, "organs": found}


def _draw(adata: AnnData, size: int, seed: int, rows: np.ndarray[Any, Any]) -> dict[str, tuple[float, float]]:
    pool, held = divided(adata, seed)
    known, asked = (read_cells(adata[chosen].copy()) for chosen in (drawn(pool, size, seed), held))
    genes, true = np.intersect1d(known.measured, asked.measured), types_of(asked)
    regression = fit_logistic_regression(known.counts[:, genes], types_of(known))
    counts = [sp.csr_matrix(cells.counts[:, rows]) for cells in (known, asked)]
    fitted = fit_readout(counts[0], types_of(known), seed=seed)
    said = fitted.log_probabilities(counts[1], panel=np.isin(rows, asked.measured)).argmax(1)
    answers = {
        "logistic regression": regression.predict(asked.counts[:, genes]).labels,
        "readout": [fitted.labels[place] for place in said],
    }
    scores = {way: metrics.annotation(true, labels) for way, labels in answers.items()}
    return {way: (score.accuracy, score.macro_f1) for way, score in scores.items()}
