"""A new organ from few labelled cells: an adapter and full fine-tuning beside logistic regression and the base untouched.

The base has seen neither the organ nor its labels (`training/organs_base.yaml`). Every way is given the same cells, drawn by type, and
asked about the same held-out ones, among the types of the cells it was given. Lung needs a folder of data (`--data`); skin and heart
are embedded.
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
from scmulan.adapters_folder import WEIGHTS
from scmulan.cells import AnnData, read_cells, read_h5ad
from scmulan.errors import PromptError, nearest
from scmulan.evaluate.cells import shared_ground
from scmulan.measures import metrics
from scmulan.measures.baselines import fit_logistic_regression
from scmulan.tasks import Model, load

Say = Callable[[str], None]
SIZES = (20, 50, 100, 300)
HELD_OUT = 150
BLOOD = 150
WAYS: dict[str, dict[str, Any]] = {"adapter": {}, "all weights": {"adapter": None}}
SETTINGS: dict[str, Any] = {
    "tasks": {"annotate": 1.0},
    "packing": {"context": 256, "pack_tokens": 2048, "thin_share": 0.5, "thin_least": 0.3},
    "loss": {"fields": 10.0},
    "steps": 400,
    "evaluate_every": 40,
    "patience": 4,
}
"""Of each fine-tuning: to annotate alone, on short views of each cell."""


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
    only : organs, and ``adapter`` or ``all weights``; all when none is named
    """
    unknown = [name for name in only if name not in (*ORGANS, *WAYS)]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join((*ORGANS, *WAYS))}{nearest(unknown[0], (*ORGANS, *WAYS))}")
    wanted = [name for name in ORGANS if name in only] or [name for name in ORGANS if ORGANS[name].is_embedded or data is not None]
    ways = [way for way in WAYS if way in only] or list(WAYS)
    found: dict[str, Any] = {}
    for name in wanted:
        adata = _adata(ORGANS[name], data)
        pool, held = _divided(adata, seed)
        for size in (n,) if n else SIZES:
            chosen = _drawn(pool, size, seed)
            result = _measure(model, adata[chosen].copy(), adata[held].copy(), ways, seed=seed)
            found[f"{name}, {len(chosen)} cells"] = result
            say(f"{name}, {len(chosen)} cells: {json.dumps(result)}")
    return {"model": model, "settings": SETTINGS, "organs": found}


def _adata(organ: Organ, data: Path | None) -> AnnData:
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


def _divided(adata: AnnData, seed: int) -> tuple[dict[str, npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
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


def _drawn(pool: Mapping[str, npt.NDArray[np.int64]], size: int, seed: int) -> npt.NDArray[np.int64]:
    """So many rows, each type in its share and with two at least, or all there are."""
    total = sum(len(rows) for rows in pool.values())
    taken = [rows[: max(2, round(size * len(rows) / total))] for rows in pool.values()]
    return np.sort(np.random.default_rng([seed, 6]).permutation(np.concatenate(taken))[: max(size, 2 * len(pool))])


def _measure(base: str, labelled: AnnData, held: AnnData, ways: Sequence[str], *, seed: int) -> dict[str, Any]:
    opened = load(base)
    ground = shared_ground(opened, read_cells(held), read_cells(labelled))
    regression = fit_logistic_regression(ground.counts(ground.train), ground.train_types)
    labels = sorted(set(ground.train_types))
    found = {
        "logistic regression": _scores(ground.types, regression.predict(ground.counts(ground.held_out)).labels),
        "base untouched": _scores(ground.types, _said(opened, held, labels)),
    }
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            tuned = load(base).finetune(labelled, Path(folder, "tuned"), seed=seed, say=lambda line: None, **SETTINGS, **WAYS[way])
            minutes = (time.perf_counter() - began) / 60
            scores = _scores(ground.types, _said(tuned, held, labels))
            size = sum(file.stat().st_size for file in Path(folder).glob(f"tuned/*/{WEIGHTS}")) / 1e6
            found[way] = {**scores, "minutes": round(minutes, 1), **({"adapter_mb": round(size, 2)} if size else {})}
            found[way]["blood_accuracy"] = _blood(tuned)
    found["base untouched"]["blood_accuracy"] = _blood(opened)
    return found


def _said(model: Model, adata: AnnData, labels: Sequence[str]) -> list[str]:
    asked = adata.copy()
    model.annotate(asked, labels=labels)
    return [str(label) for label in asked.obs["scmulan_cell_type"]]


def _scores(true: Sequence[str], said: Sequence[str]) -> dict[str, Any]:
    found = metrics.annotation(true, said)
    return {"accuracy": round(found.accuracy, 3), "macro_f1": round(found.macro_f1, 3)}


def _blood(model: Model) -> float:
    """Accuracy on held-out blood cells of the base's own training data, among the types of blood."""
    adata = read_h5ad(assets.path("embedded", "cells", "zheng_pbmc_facs.h5ad"))
    held = adata[np.flatnonzero(adata.obs["split"] == "test")[:: max(1, 775 // BLOOD)]].copy()
    cells = read_cells(held)
    types = [str(label) for label in cells.fields["cell_type"]]
    return float(_scores(types, _said(model, held, sorted(set(types))))["accuracy"])
