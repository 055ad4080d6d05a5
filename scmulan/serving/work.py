"""The work of jobs, by the model's own methods: a file in blocks of cells, cells to be written in lots, the rest whole.

A piece is kept as an ``.h5ad`` of what was added to its cells, or of the cells that were written, and the pieces are joined at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan.cells import AnnData
from scmulan.cells_writing import join_cells, read_back, write_h5ad
from scmulan.engines.base import Advance
from scmulan.serving.asked import TASKS, Asked, Complete, ExplainShift, Generate, options
from scmulan.serving.asked_views import VIEWS
from scmulan.serving.jobs import Job
from scmulan.serving.models import Models
from scmulan.serving.uploads import Uploads
from scmulan.serving.views import Views
from scmulan.serving.warned import warned
from scmulan.tasks_changed import most_changed

ADDS = ("annotate", "locate", "describe", "embed", "fate", "edit")
"""Tasks that add to the cells of a file; the others give cells or a table of their own."""
TOLD = 12
"""Lines of a summary."""


def seed_of_piece(seed: int, number: int) -> int:
    """The seed of a piece of a job."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Work:
    """Carries jobs out with the models of a server, on the files of each job's owner."""

    def __init__(self, models: Models, files: Callable[[str], Uploads], views: Views):
        self.models, self.files, self.views = models, files, views
        self._last: tuple[str, AnnData] | None = None

    @staticmethod
    def asks_model(job: Job) -> bool:
        """Whether a job asks a model, for which it has to stand in line."""
        return job.task not in VIEWS

    def cells(self, job: Job) -> AnnData:
        """The cells of a job's file, all of them; those of the last file are kept, for its pieces come one after another."""
        file_id = str(job.asked["file_id"])
        upload = self.files(job.owner).get(file_id)
        if self._last is None or self._last[0] != upload.id:
            self._last = (upload.id, self.files(job.owner).cells(file_id))
        return self._last[1]

    def pieces(self, job: Job) -> int:
        """Into how many pieces a job is cut."""
        if not self.asks_model(job) or (asked := read(job)).IN_PIECES == 0:
            return 1
        n = asked.n if isinstance(asked, Generate) else len(self.rows(job))
        return max(1, -(-n // asked.IN_PIECES))

    def rows(self, job: Job) -> npt.NDArray[np.int64]:
        """Which cells of its file a job is about, in its order."""
        wanted = job.asked.get("rows")
        n_cells = self.files(job.owner).get(job.asked["file_id"]).cells
        return np.arange(n_cells) if wanted is None else np.array(wanted, dtype=np.int64)

    def carry(self, job: Job, number: int, folder: Path, tick: Advance) -> list[str]:
        """Do one piece and keep what comes of it in a folder; warnings."""
        path = folder / f"{number:06d}.h5ad"
        if not self.asks_model(job):
            self.views.carry(VIEWS[job.task].model_validate(job.asked), job.owner, folder)
            return []
        asked = read(job)
        with warned() as said:
            found = self._whole(asked, job, tick) if asked.IN_PIECES == 0 else self._piece(asked, job, number, tick)
        if isinstance(found, pd.DataFrame):
            found.to_csv(path.with_suffix(".csv"))
        else:
            write_h5ad(found, path)
        return said

    def _piece(self, asked: Asked, job: Job, number: int, tick: Advance) -> AnnData:
        model = self.models.use(asked.model)
        if isinstance(asked, Generate):
            how = options(asked)
            n = min(asked.IN_PIECES, asked.n - number * asked.IN_PIECES)
            how |= {"n": n, "seed": seed_of_piece(asked.seed, number)}
            fields = how.pop("fields")
            written = model.complete(how.pop("genes"), **how, **fields, on_cell=tick) if isinstance(asked, Complete) else None
            cells = written if written is not None else model.generate(**how, **fields, on_cell=tick)
            cells.obs_names = [f"cell_{number * asked.IN_PIECES + place}" for place in range(cells.n_obs)]
            return cells
        cells = self.cells(job)[self.rows(job)[number * asked.IN_PIECES : (number + 1) * asked.IN_PIECES]].copy()
        known = set(cells.obs), set(cells.obsm)
        how = options(asked)
        if "seed" in how:  # or the cells of every piece would share their draws
            how["seed"] = seed_of_piece(how["seed"], number)
        found = getattr(model, asked.TASK)(cells, **how, on_cell=tick)
        if asked.TASK not in ADDS:
            return found
        added = AnnData(
            obs=cells.obs[[name for name in cells.obs if name not in known[0] or name.startswith("scmulan_")]],
            obsm={name: values for name, values in cells.obsm.items() if name not in known[1]},
            uns={"scmulan": cells.uns["scmulan"]},
        )
        if isinstance(found, pd.DataFrame):  # probabilities
            added.obsm[f"{asked.TASK}_probabilities"] = found.set_axis(cells.obs_names)
        return added

    def _whole(self, asked: Asked, job: Job, tick: Advance) -> AnnData | pd.DataFrame:
        model = self.models.use(asked.model)
        cells = self.cells(job)[self.rows(job)].copy()
        if isinstance(asked, ExplainShift):
            return model.explain_shift(cells, self.files(job.owner).cells(asked.perturbed_file_id), **options(asked), on_cell=tick)
        if asked.TASK == "screen":
            return model.screen(cells, **options(asked), on_variant=tick)
        found: AnnData = model.perturb(cells, **options(asked), on_cell=tick)
        return found

    def finish(self, job: Job, folder: Path) -> dict[str, Any]:
        """Join the pieces into ``result.h5ad`` and ``result.csv``; a summary."""
        pieces = sorted((folder / "pieces").iterdir())
        if not self.asks_model(job):
            return self.views.finish(job.task, pieces, folder)
        asked = read(job)
        if pieces[0].suffix == ".csv":
            table = pd.read_csv(pieces[0], index_col=0)
            table.to_csv(folder / "result.csv")
            return {"rows": len(table), "first": json.loads(table.head(TOLD).reset_index().to_json(orient="records"))}
        parts = [read_back(path) for path in pieces]
        joined = join_cells(parts)
        if asked.TASK in ADDS:
            cells = self.cells(job)[self.rows(job)].copy()
            cells.obs = cells.obs.drop(columns=[name for name in joined.obs if name in cells.obs]).join(joined.obs)
            for name, values in joined.obsm.items():
                cells.obsm[name] = values
            cells.uns["scmulan"] = parts[0].uns["scmulan"]
            joined = cells
        write_h5ad(joined, folder / "result.h5ad")
        told = [joined.obs, *(each.add_prefix("p: ") for each in joined.obsm.values() if isinstance(each, pd.DataFrame))]
        pd.concat(told, axis=1).to_csv(folder / "result.csv")
        return summary(asked, joined)


def read(job: Job) -> Asked:
    """What a job was asked of a model, as it was when it was taken."""
    return TASKS[job.task].model_validate(job.asked)


def summary(asked: Asked, cells: AnnData) -> dict[str, Any]:
    """What a result holds, in a few lines of plain data."""
    told: dict[str, Any] = {"cells": cells.n_obs, "genes": cells.n_vars}
    for name in cells.obs:
        probability = f"{name}_probability"
        if name.startswith("scmulan_") and probability in cells.obs:
            grouped = cells.obs.groupby(cells.obs[name].astype(str), observed=True)[probability].agg(["size", "mean"])
            most = grouped.sort_values("size", ascending=False).head(TOLD)
            told[str(name)] = [
                {"label": str(label), "cells": int(row["size"]), "mean_probability": round(float(row["mean"]), 4)}
                for label, row in most.iterrows()
            ]
    if "counts" in cells.layers:
        counts = sp.csr_matrix(cells.layers["counts"])
        told["median_counts"] = float(np.median(np.asarray(counts.sum(1)).ravel()))
        told["median_genes"] = float(np.median(np.diff(counts.indptr)))
    if "scmulan_q_value" in cells.var:
        most = most_changed(cells.var[cells.var["scmulan_q_value"] < 0.05]).head(TOLD)
        told["changed"] = [
            {"gene": str(gene), "log2_change": round(float(row["scmulan_change"]), 4), "q": float(row["scmulan_q_value"])}
            for gene, row in most.iterrows()
        ]
    return told
