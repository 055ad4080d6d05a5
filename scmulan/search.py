"""Nearest cells of an index: search, and labels carried over by their votes.

An index is opened only with the model and adapter that made it, and its files are compared with their hashes. Neighbours vote with
weights that fall with distance (`scmulan.measures.neighbours.vote`). A cell that is farther from the reference than reference cells are
from one another (`scmulan.search_nearness`) stays unassigned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scmulan.cells import AnnData
from scmulan.cells_writing import annotate_adata
from scmulan.engines.base import Advance
from scmulan.errors import CheckpointError, PromptError, nearest
from scmulan.measures.neighbours import NEAR, K, as_points, vote
from scmulan.metadata import FIELDS
from scmulan.search_build import made_with
from scmulan.search_folder import (
    AGAIN,
    NEIGHBOURS,
    TEXTS,
    Parts,
    check_files,
    check_made_by,
    import_faiss,
    read_index_card,
)
from scmulan.search_nearness import share_within
from scmulan.tasks_embedding import EmbeddingSettings

if TYPE_CHECKING:
    from scmulan.tasks import Model

BEYOND = 0.99
UNASSIGNED = "unassigned"
LABELLED = ("dataset", "donor", *FIELDS)


class CellIndex:
    """An index of reference cells, opened.

    Parameters
    ----------
    folder : as written by ``index_cells``
    model : checked against the one that made it, where given
    check_hash : compare every file with its hash, which reads all of them

    Raises
    ------
    CheckpointError
        When a file is missing or damaged, or another model or adapter made it.
    EngineError
        When faiss is not installed.
    """

    def __init__(self, folder: str | Path, model: Model | None = None, *, check_hash: bool = True):
        self.folder, self.card = Path(folder), read_index_card(folder)
        if model is not None:
            self.check(model)
        if check_hash:
            check_files(self.folder, self.card)
        faiss = import_faiss()
        try:
            self._neighbours: Any = faiss.read_index(str(self.folder / NEIGHBOURS))
        except RuntimeError as error:
            raise CheckpointError(f"{self.folder / NEIGHBOURS}: can't be read ({str(error).splitlines()[0]}); {AGAIN}") from None
        if (self._neighbours.ntotal, self._neighbours.d) != (len(self), self.card["dimensions"]):
            raise CheckpointError(
                f"{self.folder}: {self._neighbours.ntotal:,} cells of {self._neighbours.d} dimensions in {NEIGHBOURS}, "
                f"{len(self):,} of {self.card['dimensions']} by the card; {AGAIN}"
            )
        self.parts = Parts(self.folder, [entry["file"] for entry in self.card["parts"]])
        self._texts: Any = None

    def __len__(self) -> int:
        return int(self.card["n_cells"])

    @property
    def settings(self) -> EmbeddingSettings:
        """How its cells were embedded."""
        return EmbeddingSettings.of(self.card["embedding"])

    def check(self, model: Model) -> None:
        """CheckpointError unless this model, with the adapter in use, made the index."""
        used = made_with(model)
        check_made_by(self.card, used["model"], used["adapter"], self.folder)

    def nearest(self, points: npt.ArrayLike, k: int = 10) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The nearest reference cells of some points, nearest first.

        Parameters
        ----------
        points : (Q, D), as from ``Model.embed`` with the settings of the index

        Returns
        -------
        rows : (Q, K) int64 numbers of reference cells, -1 for none; K is smaller where the index has fewer cells
        distance : (Q, K) float32, Euclidean; infinite for none
        """
        if k < 1:
            raise PromptError(f"k {k}: needed 1 or more")
        points_QD = as_points(points)
        if points_QD.shape[1] != self._neighbours.d:
            raise CheckpointError(
                f"{self.folder}: points of {points_QD.shape[1]} dimensions, the index has {self._neighbours.d}; "
                f"embed them as its cells were: {self.card['embedding']}"
            )
        k = min(k, len(self))
        if hasattr(self._neighbours, "hnsw"):
            self._neighbours.hnsw.efSearch = max(128, 2 * k)
        square, rows = self._neighbours.search(np.ascontiguousarray(points_QD), k)
        distance = np.where(rows >= 0, np.sqrt(np.maximum(square, 0)), np.inf).astype(np.float32)
        return rows.astype(np.int64), distance

    def said_of(self, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
        """What the index says of some reference cells: cell_id, source, dataset, donor and fields; a row each."""
        found = self._all_texts().take(rows)
        return pd.DataFrame({name: pd.array(found[name].to_pylist(), dtype=object) for name in TEXTS})

    def labels(self, name: str) -> list[str | None]:
        """A field of all reference cells; PromptError for what is no field or unknown of every cell."""
        if name not in LABELLED:
            raise PromptError(f"field {name!r}: needed one of {', '.join(LABELLED)}{nearest(name, LABELLED)}")
        found: list[str | None] = self._all_texts()[name].to_pylist()
        if all(value is None for value in found):
            raise PromptError(f"{self.folder}: none of its cells has a {name}; index labelled cells, or transfer another field")
        return found

    def _all_texts(self) -> Any:
        if self._texts is None:
            self._texts = self.parts.texts()
        return self._texts

    def beyond(self, distance: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Share of reference cells that lie nearer to theirs than each cell does; (Q,), 1 beyond all of them.

        Parameters
        ----------
        distance : (Q, K), as from ``nearest`` with ``k`` of ``NEAR`` or more
        """
        return share_within(distance[:, :NEAR].mean(1), self.card["nearness"])


def opened(index: CellIndex | str | Path, model: Model) -> CellIndex:
    """The index, opened if it is named by its folder, and checked against the model."""
    if isinstance(index, CellIndex):
        index.check(model)
        return index
    return CellIndex(index, model)


def search(model: Model, adata: AnnData, index: CellIndex | str | Path, *, k: int = 10, on_cell: Advance | None = None) -> pd.DataFrame:
    """As ``Model.search``."""
    index = opened(index, model)
    rows, distance = index.nearest(_points(model, adata, index, on_cell)[0], k)
    query, rank = np.nonzero(rows >= 0)
    names = [str(name) for name in adata.obs_names]
    pairs = pd.DataFrame({"cell": [names[each] for each in query], "rank": rank + 1, "distance": distance[query, rank]})
    return pd.concat([pairs, index.said_of(rows[query, rank])], axis=1)


def transfer(
    model: Model,
    adata: AnnData,
    index: CellIndex | str | Path,
    *,
    field: str = "cell_type",
    k: int = K,
    beyond: float | None = None,
    threshold: float = 0.0,
    key_added: str | None = None,
    on_cell: Advance | None = None,
) -> pd.DataFrame:
    """As ``Model.transfer``.

    Parameters
    ----------
    k : neighbours that vote
    beyond : a cell stays ``unassigned`` when more than this share of reference cells lie nearer to theirs than it does; 1 for never.
        When not given, ``BEYOND`` where the index knows how far batches lie from each other, and never where each of its types is in
        one batch: by the distances within a batch, all cells of another would be strangers.
    threshold : below this share of the votes a cell stays ``unassigned``
    """
    if (beyond is not None and not 0 <= beyond <= 1) or not 0 <= threshold <= 1:
        raise PromptError(f"beyond {beyond}, threshold {threshold}: needed shares, from 0 to 1")
    index = opened(index, model)
    labels = index.labels(field)
    if beyond is None:
        beyond = BEYOND if index.card["nearness"]["across"] == "batches" else 1.0
    points, losses = _points(model, adata, index, on_cell)
    rows, distance = index.nearest(points, max(k, NEAR))
    names, share = vote(labels, rows[:, :k], distance[:, :k])
    outside = index.beyond(distance)
    best, top = share.argmax(1) if names else np.zeros(len(share), int), share.max(1, initial=0.0)
    is_open = (top <= 0) | (top < threshold) | (outside > beyond)
    said = [UNASSIGNED if is_open[row] else names[best[row]] for row in range(len(share))]
    key = key_added or f"scmulan_transferred_{field}"
    how = {"task": "transfer", "index": index.folder.name, "index_cells": len(index), "field": field, "k": k, "threshold": threshold}
    how |= {"beyond": beyond, "near_across": index.card["nearness"]["across"]}
    uns = model.provenance(**how, **index.settings.to_dict(), **losses)
    annotate_adata(adata, {key: said, f"{key}_probability": top, f"{key}_beyond": outside}, uns=uns)
    return pd.DataFrame(share, index=adata.obs_names, columns=names)


def _points(model: Model, adata: AnnData, index: CellIndex, on_cell: Advance | None) -> tuple[npt.NDArray[np.float32], Mapping[str, Any]]:
    """Points of cells, as those of the index were made, and what of the cells did not reach the model."""
    ready = model.read(adata, reserve=model.opened.reserve())
    return model.embeddings.of_counts(ready.whole, index.settings, on_cell=on_cell), model.opened.losses(ready)
