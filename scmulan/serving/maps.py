"""A map of cells: principal components of their counts, clusters, a UMAP, and the place of other cells on it.

Expression is log1p of counts per 10,000 over the genes that a data set measured; the components are those of its most variable genes.
Clusters are Leiden's on the graph of nearest neighbours. Other cells are laid where their neighbours among the map's cells lie.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scmulan.cells import Cells
from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError, EngineError

Floats = npt.NDArray[np.float32]
MOST_GENES, N_COMPONENTS, N_NEIGHBOURS = 2000, 30, 15
RESOLUTION = 1.0
MOST_EXACT = 50_000
"""Cells whose neighbours are found one by one; of more, nearly all are found by descent."""
LEAST_CELLS = 4
EPOCHS = 200


@dataclass(frozen=True)
class Space:
    """Cells by principal components.

    Attributes
    ----------
    measured : (M,) rows of the gene table that are read
    used : (G,) places in ``measured`` of the genes whose components they are
    mean_G, components_KG : of their log1p CP10k
    points_CK : the cells
    """

    measured: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    mean_G: Floats
    components_KG: Floats
    points_CK: Floats

    def write(self, path: Path, layout_C2: Floats) -> None:
        """Keep it with where its cells lie."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        np.savez_compressed(path, layout_C2=layout_C2, **kept)

    @classmethod
    def read(cls, path: Path) -> tuple[Space, Floats]:
        """What was kept, and where its cells lie."""
        with np.load(path, allow_pickle=False) as kept:
            return cls(**{name: kept[name] for name in cls.__dataclass_fields__}), kept["layout_C2"]

    def of(self, cells: Cells) -> Floats:
        """Other cells in this space, ``(N, K)``, over the genes that both measured; they have the map's mean of the rest.

        Raises
        ------
        CellDataError
            When fewer than a tenth of the genes was measured.
        """
        shared = np.isin(self.measured, cells.measured)
        there = shared[self.used]
        if there.mean() < 0.1:
            raise CellDataError(f"{int(there.sum()):,} of {len(there):,} genes of the map were measured in these cells; needed a tenth")
        values = log1p_cp10k(cells.counts[:, self.measured[shared]])
        columns = (np.cumsum(shared) - 1)[self.used[there]]
        centred = np.asarray(values[:, columns].todense(), dtype=np.float32) - self.mean_G[there]
        return np.asarray(centred @ self.components_KG[:, there].T, dtype=np.float32)


def space_of(cells: Cells, *, seed: int = 0) -> Space:
    """The principal components of cells; CellDataError for fewer than four."""
    if len(cells) < LEAST_CELLS:
        raise CellDataError(f"{len(cells)} cells; needed {LEAST_CELLS} or more for a map")
    values = log1p_cp10k(cells.counts[:, cells.measured]).astype(np.float32)
    mean = np.asarray(values.mean(0)).ravel()
    variance = np.asarray(values.multiply(values).mean(0)).ravel() - mean**2
    used = np.sort(np.argsort(-variance, kind="stable")[:MOST_GENES])
    used = used[variance[used] > 0]
    if len(used) < 2:
        raise CellDataError("all cells have the same counts; nothing to map")
    chosen = values[:, used]
    n = min(N_COMPONENTS, len(used) - 1, len(cells) - 1)
    fitted = PCA(n, svd_solver="arpack", random_state=seed).fit(chosen)
    points = fitted.transform(chosen)
    return Space(
        np.asarray(cells.measured, dtype=np.int64), used, mean[used].astype(np.float32), fitted.components_.astype(np.float32),
        np.ascontiguousarray(points, dtype=np.float32),
    )  # fmt: skip


def neighbours(points_CK: Floats, *, seed: int = 0) -> tuple[npt.NDArray[np.int64], Floats]:
    """Each cell and its nearest ones, ``(C, N)``, and how far they are."""
    n = min(N_NEIGHBOURS, len(points_CK) - 1) + 1
    if len(points_CK) <= MOST_EXACT:
        found = NearestNeighbors(n_neighbors=n, algorithm="brute").fit(points_CK)
        distances, places = found.kneighbors(points_CK)
        return places, distances.astype(np.float32)
    try:
        from pynndescent import NNDescent
    except ImportError as error:
        raise EngineError(f"a map of so many cells needs pynndescent ({error}); pip install 'scmulan[serve]'") from None
    places, distances = NNDescent(points_CK, n_neighbors=n, random_state=seed).neighbor_graph
    return places.astype(np.int64), distances.astype(np.float32)


def clusters_of(places_CN: npt.NDArray[np.int64], *, seed: int = 0) -> npt.NDArray[np.int32]:
    """Leiden clusters of the graph of neighbours, ``(C,)``, the largest first: edges weigh what their ends' neighbours have in common."""
    try:
        import igraph
    except ImportError as error:
        raise EngineError(f"clusters need igraph ({error}); pip install 'scmulan[serve]'") from None
    n_cells, n = places_CN.shape
    rows = np.repeat(np.arange(n_cells), n)
    graph = sp.csr_matrix((np.ones(rows.size, dtype=np.float32), (rows, places_CN.ravel())), shape=(n_cells, n_cells))
    either = graph.maximum(graph.T)
    common = sp.triu((graph @ graph.T).multiply(either), k=1).tocoo()
    weights = common.data / (2 * n - common.data)  # Jaccard
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = igraph.Graph(n_cells, np.column_stack([common.row, common.col]).tolist()).community_leiden(
            "modularity", weights=weights.tolist(), resolution=RESOLUTION, n_iterations=2
        )
    finally:
        igraph.set_random_number_generator(random)
    codes = np.asarray(found.membership)
    order = np.argsort(-np.bincount(codes), kind="stable")
    places: npt.NDArray[np.int32] = np.argsort(order)[codes].astype(np.int32)
    return places


def laid_out(points_CK: Floats, places_CN: npt.NDArray[np.int64], distances_CN: Floats, *, seed: int = 0) -> Floats:
    """UMAP of points whose neighbours are known, ``(C, 2)``, begun from their first two components."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise EngineError(f"a UMAP needs umap-learn ({error}); pip install 'scmulan[serve]'") from None
    begin = points_CK[:, :2] / max(float(np.abs(points_CK[:, :2]).max()), 1e-6) * 10
    how = {"n_neighbors": places_CN.shape[1], "precomputed_knn": (places_CN.astype(np.int32), distances_CN), "init": begin}
    made = UMAP(min_dist=0.3, n_epochs=EPOCHS, random_state=seed, n_jobs=1, **how)
    warnings.filterwarnings("ignore", message="precomputed_knn")  # others are placed by their neighbours, not by UMAP
    return np.asarray(made.fit_transform(points_CK), dtype=np.float32)


def placed(space: Space, layout_C2: Floats, cells: Cells) -> Floats:
    """Where other cells lie on a map, ``(N, 2)``: the mean of their neighbours' places, the nearer weighing more."""
    points = space.of(cells)
    found = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(space.points_CK))).fit(space.points_CK)
    distances, places = found.kneighbors(points)
    near = distances / np.maximum(distances[:, -1:], 1e-9)
    weights = np.exp(-4 * near**2)
    weights /= weights.sum(1, keepdims=True)
    laid: Floats = np.einsum("nk,nkd->nd", weights, layout_C2[places]).astype(np.float32)
    return laid


def components_of(points_CD: Floats, *, seed: int = 0) -> Floats:
    """Points along their own principal components, ``(C, K)``."""
    fitted = PCA(min(N_COMPONENTS, *points_CD.shape), random_state=seed)
    return np.ascontiguousarray(fitted.fit_transform(points_CD), dtype=np.float32)


def warm() -> None:
    """Have what lays cells out compiled before someone waits for it; nothing where it is not installed."""
    points = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    with contextlib.suppress(EngineError):
        laid_out(points, *neighbours(points))
