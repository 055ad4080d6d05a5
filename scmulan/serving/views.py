"""Views of cells that ask no model: columns to colour by, maps, places on them, comparisons; the cells read last are kept for the next."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scmulan.cells import AnnData, Cells, read_cells, read_h5ad
from scmulan.comparing import compared
from scmulan.errors import CellDataError, PromptError
from scmulan.genes import GeneTable
from scmulan.serving import maps
from scmulan.serving.asked_views import CellSet, Cluster, Compare, Map, Place, View
from scmulan.serving.columns import Values, array, column, expression
from scmulan.serving.uploads import Uploads

EMBEDDING = "X_scmulan"
KEPT = 2
"""Sets of cells that are kept as they were read."""
JSON, NPZ, CSV = "json", "npz", "csv"
MOST_TOLD = 2000
"""Genes of a comparison that a page is told; the table holds all."""
OfJob = Callable[[str, str, str], Path]
"""A file of the result of a job, by its id, its owner and the file's kind; JobError where there is none."""


class Seen:
    """Cells as they were read: over the gene table, and their columns."""

    def __init__(self, adata: AnnData):
        self.obs: pd.DataFrame = adata.obs
        self.cells: Cells = read_cells(adata)
        self.spaces: dict[int, maps.Space] = {}
        self.graphs: dict[tuple[str | None, int], tuple[npt.NDArray[np.int64], maps.Floats]] = {}
        """Neighbours and distances, by the job of an embedding (None: of counts) and the seed."""


class Views:
    """Views of the files and results of a server.

    Parameters
    ----------
    files : the uploads of an owner
    of_job : files of results
    """

    def __init__(self, files: Callable[[str], Uploads], of_job: OfJob):
        self.files, self.of_job = files, of_job
        self.table = GeneTable.load()
        self._seen: dict[str, Seen] = {}
        self._lock = threading.Lock()

    def seen(self, owner: str, *, file_id: str | None = None, job_id: str | None = None) -> Seen:
        """Cells of a file or of a job's result."""
        assert file_id is not None or job_id is not None
        key = f"{owner}/{file_id or job_id}"
        with self._lock:  # who comes second waits for the first to have read them
            if key not in self._seen:
                adata = self.files(owner).cells(file_id) if file_id else read_h5ad(self.of_job(str(job_id), owner, "h5ad"))
                for old in list(self._seen)[: len(self._seen) - KEPT + 1]:
                    del self._seen[old]
                self._seen[key] = Seen(adata)
            else:
                self._seen[key] = self._seen.pop(key)  # the last used goes last
            return self._seen[key]

    def values(self, owner: str, file_id: str, *, obs: str | None, gene: str | None) -> Values:
        """A column or a gene of the cells of a file."""
        upload = self.files(owner).get(file_id)
        if (obs is None) == (gene is None):
            raise PromptError("needed either obs=COLUMN or gene=NAME")
        seen = self.seen(owner, file_id=upload.id)
        return column(seen.obs, obs) if obs is not None else expression(seen.cells, str(gene), self.table)

    def check(self, asked: View, owner: str) -> None:
        """What an owner lacks raises, as UploadUnknown or JobError; PromptError for cells that are not there."""
        if isinstance(asked, Map | Cluster) and asked.embedding is not None:
            self.of_job(asked.embedding, owner, "h5ad")
        if isinstance(asked, Place):
            self.of_job(asked.map_id, owner, NPZ)
            self.of_job(asked.job_id, owner, "h5ad")
        for one in (asked.a, asked.b) if isinstance(asked, Compare) else ():
            if one.file_id is not None:
                self.files(owner).get(one.file_id)
            else:
                self.of_job(str(one.job_id), owner, "h5ad")

    def carry(self, asked: View, owner: str, folder: Path) -> None:
        """Do what is asked and keep it in a folder."""
        if isinstance(asked, Map):
            said = self._map(asked, owner, folder)
        elif isinstance(asked, Cluster):
            said = self._cluster(asked, owner, folder)
        elif isinstance(asked, Place):
            space, layout = maps.Space.read(self.of_job(asked.map_id, owner, NPZ))
            cells = self.seen(owner, job_id=asked.job_id).cells
            said = {"coordinates": array(maps.placed(space, layout, cells), "float32"), "cells": len(cells)}
        else:
            assert isinstance(asked, Compare)
            said = self._compare(asked, owner, folder)
        (folder / f"0.{JSON}").write_text(json.dumps(said))

    def finish(self, task: str, pieces: Sequence[Path], folder: Path) -> dict[str, Any]:
        """Make results of what was kept; a summary."""
        for path in pieces:
            shutil.copyfile(path, folder / f"result{path.suffix}")
        said = json.loads((folder / f"result.{JSON}").read_text())
        return {name: value for name, value in said.items() if isinstance(value, int | float | str)}

    def _map(self, asked: Map, owner: str, folder: Path) -> dict[str, Any]:
        began = time.perf_counter()
        points, space = self._points(asked, owner)
        layout = points[:, :2]
        if asked.layout == "umap":
            layout = maps.laid_out(points, *self._graph(asked, points, owner), seed=asked.seed)
        if space is not None:
            space.write(folder / f"0.{NPZ}", layout)
        seconds = round(time.perf_counter() - began, 2)
        n_genes = 0 if space is None else len(space.used)
        return {"layout": asked.layout, "coordinates": array(layout, "float32"), "cells": len(layout), "genes": n_genes, "seconds": seconds}

    def _cluster(self, asked: Cluster, owner: str, folder: Path) -> dict[str, Any]:
        began = time.perf_counter()
        points, _ = self._points(asked, owner)
        codes = maps.clusters_of(self._graph(asked, points, owner)[0], seed=asked.seed)
        obs_names = self.seen(owner, file_id=asked.file_id).obs.index
        pd.DataFrame({"cluster": codes}, index=obs_names).to_csv(folder / f"0.{CSV}")
        clusters: Values = {
            "name": "cluster",
            "kind": "category",
            "categories": [str(number) for number in range(int(codes.max()) + 1)],
            "codes": array(codes, "int32"),
        }
        return {"clusters": clusters, "cells": len(codes), "seconds": round(time.perf_counter() - began, 2)}

    def _points(self, asked: Map | Cluster, owner: str) -> tuple[maps.Floats, maps.Space | None]:
        """The cells by components: of their counts, in the space that is kept with them, or of an embedding."""
        seen = self.seen(owner, file_id=asked.file_id)
        if asked.embedding is not None:
            return self._embedding(asked, owner, len(seen.cells)), None
        if asked.seed not in seen.spaces:
            seen.spaces[asked.seed] = maps.space_of(seen.cells, seed=asked.seed)
        return seen.spaces[asked.seed].points_CK, seen.spaces[asked.seed]

    def _graph(self, asked: Map | Cluster, points_CK: maps.Floats, owner: str) -> tuple[npt.NDArray[np.int64], maps.Floats]:
        """The neighbours of points, found once."""
        graphs, key = self.seen(owner, file_id=asked.file_id).graphs, (asked.embedding, asked.seed)
        if key not in graphs:
            graphs[key] = maps.neighbours(points_CK, seed=asked.seed)
        return graphs[key]

    def _embedding(self, asked: Map | Cluster, owner: str, n_cells: int) -> maps.Floats:
        """The embedding of an ``embed`` job, along its first principal components."""
        found = read_h5ad(self.of_job(str(asked.embedding), owner, "h5ad"))
        if EMBEDDING not in found.obsm or found.n_obs != n_cells:
            raise CellDataError(f"embedding: that job has no embedding of all {n_cells:,} cells of the file; needed a job `embed` on all")
        return maps.components_of(np.asarray(found.obsm[EMBEDDING], dtype=np.float32), seed=asked.seed)

    def _compare(self, asked: Compare, owner: str, folder: Path) -> dict[str, Any]:
        found = compared(self._set(asked.a, owner), self._set(asked.b, owner), self.table)
        found.to_csv(folder / f"0.{CSV}")
        rounded = found.head(MOST_TOLD).round({name: 4 for name in found if name != "q"}).reset_index()
        return {"cells": found.attrs["cells"], "measured": len(found), "genes": rounded.to_dict("records")}

    def _set(self, one: CellSet, owner: str) -> Cells:
        cells = self.seen(owner, file_id=one.file_id, job_id=one.job_id).cells
        if one.rows is None:
            return cells
        if max(one.rows) >= len(cells):
            raise PromptError(f"rows: {max(one.rows):,}, but there are {len(cells):,} cells, numbered from 0")
        return cells.take(one.rows)
