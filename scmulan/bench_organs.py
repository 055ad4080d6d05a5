"""A new organ from few labelled cells: an adapter and full fine-tuning beside logistic regression and the base untouched.

The base has seen neither the organ nor its labels (`training/organs_base.yaml`). Every way is given the same cells, drawn by type, and
asked about the same held-out ones, among the types of the cells it was given; of a tuned model the answer is measured as users get it,
with its readout of counts, and ``alone``. Cells that an adapter writes of the organ stand beside the negative binomial of the same cells.
Lung needs a folder of data (`--data`); skin and heart are embedded.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan import assets
from scmulan.adapters_folder import READOUT, WEIGHTS
from scmulan.cells import AnnData, Cells, read_cells, read_h5ad
from scmulan.decoding.sampling import Sampling
from scmulan.errors import PromptError, nearest
from scmulan.evaluate.cells import fields_of
from scmulan.measures import metrics
from scmulan.measures.baselines import fit_logistic_regression, sample_by_type, thin
from scmulan.tasks import Model, load

Say = Callable[[str], None]
SIZES = (20, 50, 100, 300)
HELD_OUT = 150
BLOOD = 100
MIXED, CELLS, CELLS_OF_ALL = "adapter, old cells mixed in", "generated cells", "generated cells, all weights"
WAYS: dict[str, dict[str, Any]] = {
    "adapter": {},
    "all weights": {"adapter": None},
    "adapter in 4 bits": {"adapter": {"bits": 4}},
    "adapter in 8 bits": {"adapter": {"bits": 8}},
    MIXED: {"mix": {"cells": [{"path": "embedded:zheng_pbmc_facs.h5ad", "split": {"by": "column"}}], "share": 0.3}},
    CELLS: {},
    CELLS_OF_ALL: {"adapter": None, "optimizer": {"lr": 0.002}},
}
USUAL = ("adapter", "all weights")
"""The ways that are measured where none is named."""
SETTINGS: dict[str, Any] = {
    "tasks": {"annotate": 1.0},
    "packing": {"context": 256, "pack_tokens": 2048, "thin_share": 0.5, "thin_least": 0.3},
    "steps": 120,
    "evaluate_every": 30,
    "patience": 3,
}
"""Of each fine-tuning: to annotate alone, on short views of each cell."""
WRITING: dict[str, Any] = {
    "tasks": {"generate": 1.0},
    "packing": {"context": 1024, "pack_tokens": 4096, "thin_share": 0.0},
    "optimizer": {"lr": 0.01},
    "steps": 300,
    "evaluate_every": 100,
    "patience": 2,
}
"""Of what writes cells, learnt whole."""
N_HVG = 1000
TOLD_APART_AT = 800
"""Genes that cells are thinned to before they are told apart: real ones were thinned to fit a sentence, so that their number would tell."""


@dataclass(frozen=True)
class Organ:
    """A data set that the base has not seen, and the column of its labels (its cell types when not given)."""

    file: str
    label: str | None = None
    is_embedded: bool = True


ORGANS = {
    "skin": Organ("joost_epidermis.h5ad"),
    "heart": Organ("ipsc_cm_timecourse.h5ad"),
    "lung": Organ("zilionis_mouse_lung.h5ad", "Minor subset", is_embedded=False),
}


def organs(*, model: str, data: Path | None, n: int | None, only: Sequence[str], seed: int, say: Say, **_: Any) -> dict[str, Any]:
    """Accuracy and macro-F1 of each way by organ and number of cells.

    Parameters
    ----------
    model : folder of a base
    n : one number of labelled cells, instead of ``SIZES``
    only : organs and ``WAYS``; all organs and ``USUAL`` when none is named
    """
    unknown = [name for name in only if name not in (*ORGANS, *WAYS)]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join((*ORGANS, *WAYS))}{nearest(unknown[0], (*ORGANS, *WAYS))}")
    wanted = [name for name in ORGANS if name in only] or [name for name in ORGANS if ORGANS[name].is_embedded or data is not None]
    ways = [way for way in WAYS if way in only] or list(USUAL)
    found: dict[str, Any] = {}
    for name in wanted:
        adata = labelled_cells(ORGANS[name], data)
        pool, held = divided(adata, seed)
        for size in (n,) if n else SIZES:
            chosen = drawn(pool, size, seed)
            result = _measure(model, adata[chosen].copy(), adata[held].copy(), ways, seed=seed)
            found[f"{name}, {len(chosen)} cells"] = result
            say(f"{name}, {len(chosen)} cells: {json.dumps(result)}")
    return {"model": model, "settings": SETTINGS, "organs": found}


def labelled_cells(organ: Organ, data: Path | None) -> AnnData:
    """The organ's cells, those without a label left out; their labels in ``obs["cell_type"]``."""
    if not organ.is_embedded and data is None:
        raise PromptError(f"{organ.file} is not embedded; give its folder, --data FOLDER")
    folder = assets.path("embedded", "cells") if organ.is_embedded or data is None else data
    adata = read_h5ad(folder / organ.file)
    if organ.label is not None:
        adata.obs["cell_type"] = adata.obs[organ.label]
    adata = adata[adata.obs["cell_type"].notna().to_numpy()].copy()
    kinds = adata.obs["cell_type"].value_counts()
    return adata[adata.obs["cell_type"].isin(kinds.index[kinds >= 10]).to_numpy()].copy()


def divided(adata: AnnData, seed: int) -> tuple[dict[str, npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Rows to draw labelled cells from, by type, and rows held out: a fifth of each type, ``HELD_OUT`` at most."""
    types = adata.obs["cell_type"].astype(str).to_numpy()
    rng, pool, held = np.random.default_rng([seed, 5]), {}, []
    share = min(0.2, HELD_OUT / len(types))
    for label in np.unique(types):
        rows = rng.permutation(np.flatnonzero(types == label))
        n_held = max(2, round(share * len(rows)))
        held.append(rows[:n_held])
        pool[str(label)] = rows[n_held:]
    return pool, np.sort(np.concatenate(held))


def drawn(pool: Mapping[str, npt.NDArray[np.int64]], size: int, seed: int) -> npt.NDArray[np.int64]:
    """So many rows, each type in its share and with two at least, or all there are."""
    total = sum(len(rows) for rows in pool.values())
    taken = [rows[: max(2, round(size * len(rows) / total))] for rows in pool.values()]
    return np.sort(np.random.default_rng([seed, 6]).permutation(np.concatenate(taken))[: max(size, 2 * len(pool))])


def _measure(base: str, labelled: AnnData, held: AnnData, ways: Sequence[str], *, seed: int) -> dict[str, Any]:
    opened, known, asked = load(base), read_cells(labelled), read_cells(held)
    genes, types, true = np.intersect1d(known.measured, asked.measured), types_of(known), types_of(asked)
    regression = fit_logistic_regression(known.counts[:, genes], types)
    labels = sorted(set(types))
    found = {
        "logistic regression": scored(true, regression.predict(asked.counts[:, genes]).labels),
        "base untouched": scored(true, _said(opened, held, labels)),
    }
    found["base untouched"]["blood_accuracy"] = _blood(opened)
    for way in ways:
        with tempfile.TemporaryDirectory() as name:
            began, folder = time.perf_counter(), Path(name, "tuned")
            is_of_cells = way in (CELLS, CELLS_OF_ALL)
            settings = {**(WRITING if is_of_cells else SETTINGS), **WAYS[way]}
            tuned = load(base).finetune(labelled, folder, seed=seed, say=lambda line: None, **settings)
            minutes = round((time.perf_counter() - began) / 60, 1)
            if is_of_cells:
                found[way] = {**_told_apart(tuned, labelled, held, seed), "minutes": minutes}
                continue
            found[way] = {**scored(true, _said(tuned, held, labels)), "alone": scored(true, _said(tuned, held, labels, readout=False))}
            sizes = {part: sum(file.stat().st_size for file in folder.glob(f"*/{part}")) / 1e6 for part in (WEIGHTS, READOUT)}
            found[way] |= {"minutes": minutes, "blood_accuracy": _blood(tuned), "answer_weighed": _weight_of_answer(tuned)}
            found[way] |= {"adapter_mb": round(sizes[WEIGHTS], 2), "readout_mb": round(sizes[READOUT], 2)}
    return found


def _weight_of_answer(model: Model) -> float | None:
    return model.opened.readout.answer if model.opened.readout is not None else None


def _told_apart(model: Model, labelled: AnnData, held: AnnData, seed: int) -> dict[str, float]:
    """How well a forest tells written cells from held-out ones, as the model reads them, and thinned alike; and of the baseline."""
    known, asked = (model.read(cells, reserve=model.opened.reserve()) for cells in (labelled, held))
    of_known = set(types_of(known.cells))
    rows = [row for row, label in enumerate(types_of(asked.cells)) if label in of_known]
    real, prompts = asked.counts[rows], [fields_of(model, asked.cells)[row] for row in rows]
    made = {
        "with rates": model.write_counts(prompts, Sampling(seed=seed)),
        "model alone": model.write_counts(prompts, Sampling(seed=seed, rates=False)),
        "negative binomial": sample_by_type(known.counts, types_of(known.cells), [types_of(asked.cells)[row] for row in rows], seed=seed),
    }
    hvg = metrics.highly_variable(metrics.log_cp10k(known.counts), N_HVG)
    found = dict[str, float]()
    for name, cells in made.items():
        pairs = {"": (real, cells), ", thinned": (thin(real, TOLD_APART_AT, seed=1), thin(cells, TOLD_APART_AT, seed=2))}
        for how, (one, other) in pairs.items():
            score = metrics.two_sample_auc(one, other, hvg, seed=seed)
            found |= {f"{name}{how} auc_pcs": round(score.auc_pcs, 3), f"{name}{how} auc_hvgs": round(score.auc_hvgs, 3)}
    return found


def types_of(cells: Cells) -> list[str]:
    return [str(label) for label in cells.fields["cell_type"]]


def _said(model: Model, adata: AnnData, labels: Sequence[str], *, readout: bool = True) -> list[str]:
    asked = adata.copy()
    model.annotate(asked, labels=labels, readout=readout)
    return [str(label) for label in asked.obs["scmulan_cell_type"]]


def scored(true: Sequence[str], said: Sequence[str]) -> dict[str, Any]:
    found = metrics.annotation(true, said)
    return {"accuracy": round(found.accuracy, 3), "macro_f1": round(found.macro_f1, 3)}


def _blood(model: Model) -> float:
    """Accuracy on held-out blood cells of the base's own training data, among the types of blood."""
    adata = read_h5ad(assets.path("embedded", "cells", "zheng_pbmc_facs.h5ad"))
    held = adata[np.flatnonzero(adata.obs["split"] == "test")[:: max(1, 775 // BLOOD)]].copy()
    cells = read_cells(held)
    types = types_of(cells)
    return float(scored(types, _said(model, held, sorted(set(types))))["accuracy"])
