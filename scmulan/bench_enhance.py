"""Shallow cells brought back to depth: simple ways and well-known libraries, on real cells thinned to a share of their counts.

What a way is given, and the simple ones, stand in `scmulan.measures.recovery_ways`. Cells are the held-out ones of the embedded blood data,
with labels true by experiment; the rest is for learning. MAGIC and scVI have rows where they are installed (``magic-impute``,
``scvi-tools``); they are asked for by name, ``--only``, for they are slow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan import assets
from scmulan.cells import AnnData, read_cells, read_h5ad
from scmulan.csentence_thinning import thin
from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures.recovery import cluster_agreement, recovery
from scmulan.measures.recovery_ways import QUICK, THINNED_TRAINING_SEED, Enhancer, EnhanceTask

Say = Callable[[str], None]
SHARES = (0.1, 0.25, 0.5)
CELLS = "zheng_pbmc_facs.h5ad"
HELD_OUT = 0.2
SCVI_EPOCHS = 60


def enhance(
    *,
    data: Path | None,
    n: int | None,
    only: Sequence[str],
    seed: int,
    say: Say,
    enhancers: Mapping[str, Enhancer] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Every way at every share of the depth.

    Parameters
    ----------
    n : held-out cells at most
    only : ways by name; the quick ones when none is named
    enhancers : further ways, always run
    """
    unknown = [name for name in only if name not in {**QUICK, **LIBRARIES}]
    if unknown:
        known = [*QUICK, *LIBRARIES]
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join(known)}{nearest(unknown[0], known)}")
    ways = {name: way for name, way in {**QUICK, **LIBRARIES}.items() if (name in only if only else name in QUICK)}
    found: dict[str, Any] = {}
    for share in SHARES:
        task, full, types = task_of(data, share, n=n, seed=seed)
        rows = measure(task, full, types, {**ways, **(enhancers or {})}, say)
        found[f"{share:.0%} of the depth"] = {
            "cells": len(types),
            "ari_of_full_cells": round(cluster_agreement(full, types, seed=seed), 4),
        } | rows
    return found


def task_of(data: Path | None, share: float, *, n: int | None = None, seed: int = 0) -> tuple[EnhanceTask, sp.csr_matrix, list[str]]:
    """The task at a share of the depth, and what is kept from it: the full cells and their types."""
    path = (data if data is not None else assets.path("embedded", "cells")) / CELLS
    adata = read_h5ad(path)
    if "cell_type" not in adata.obs:
        raise CellDataError(f"{path}: no column 'cell_type' in obs; needed for the clusters")
    held = _held_out(adata, n, seed)
    cells = read_cells(adata)
    counts, types = cells.counts[:, cells.measured], adata.obs["cell_type"].astype(str).to_numpy()
    full, rest = counts[held], np.setdiff1d(np.arange(adata.n_obs), _held_out(adata, None, seed))
    task = EnhanceTask(
        thinned=thin(full, share, seed),
        depth=np.asarray(full.sum(1), dtype=np.int64).ravel(),
        share=share,
        genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]],
        cells=cells.take(held),
        train=counts[rest],
        train_types=types[rest].tolist(),
        seed=seed,
    )
    return task, full, types[held].tolist()


def measure(task: EnhanceTask, full: sp.csr_matrix, types: Sequence[str], ways: Mapping[str, Enhancer], say: Say) -> dict[str, Any]:
    """A row for each way."""
    totals = np.asarray(task.train.sum(0), dtype=np.float64).ravel() + 0.05
    found = {}
    for name, way in ways.items():
        measured = asdict(recovery(full, task.thinned, way(task), labels=types, mean_profile=totals / totals.sum(), seed=task.seed))
        row = {key: None if value is None else round(value, 4) for key, value in measured.items() if key != "n_cells"}
        found[name] = row
        say(f"{task.share:.0%} of the depth, {name}: {json.dumps(row)}")
    return found


def _held_out(adata: AnnData, n: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Rows whose ``split`` is test, or a fifth where there is no split; ``n`` of them at most."""
    rng = np.random.default_rng([seed, 3])
    if "split" in adata.obs:
        rows = np.flatnonzero((adata.obs["split"] == "test").to_numpy())
    else:
        rows = np.sort(rng.choice(adata.n_obs, round(HELD_OUT * adata.n_obs), replace=False))
    return rows if n is None or len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def _by_magic(task: EnhanceTask) -> Any:
    """MAGIC with its own settings on the thinned cells: roots of size-normalised counts of genes seen in three cells, then squared."""
    try:
        import magic
    except ImportError as error:
        raise PromptError("MAGIC is not installed: pip install magic-impute") from error
    seen = np.flatnonzero(np.asarray((task.thinned > 0).sum(0)).ravel() >= 3)
    total = np.maximum(np.asarray(task.thinned.sum(1), dtype=np.float64).ravel(), 1)
    shares = (sp.diags(1e4 / total) @ task.thinned)[:, seen].toarray()
    rates = np.zeros(task.thinned.shape)
    rates[:, seen] = np.square(np.maximum(magic.MAGIC(verbose=0, random_state=task.seed, n_jobs=1).fit_transform(np.sqrt(shares)), 0))
    return rates


def _by_scvi(task: EnhanceTask) -> Any:
    """scVI with its own settings, ``SCVI_EPOCHS`` epochs over training cells, whole and thinned alike, and the thinned cells."""
    try:
        import scvi
    except ImportError as error:
        raise PromptError("scVI is not installed: pip install scvi-tools") from error
    scvi.settings.seed = task.seed
    parts = [task.thinned, task.train, thin(task.train, task.share, task.seed + THINNED_TRAINING_SEED)]
    counts = sp.vstack(parts, format="csr").astype(np.float32)
    adata = AnnData(counts, obs=pd.DataFrame(index=[f"cell_{row}" for row in range(counts.shape[0])]))
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    model.train(max_epochs=SCVI_EPOCHS, accelerator="cpu", enable_progress_bar=False)
    return model.get_normalized_expression(indices=np.arange(task.thinned.shape[0]), n_samples=10, return_mean=True, return_numpy=True)


LIBRARIES: dict[str, Enhancer] = {"MAGIC": _by_magic, "scVI": _by_scvi}
"""Run where they are named."""
