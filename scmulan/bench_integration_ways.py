"""The embeddings that `scmulan.bench_integration` compares, and scib-metrics as a measure from outside.

Of PCA, Harmony and scVI: 2,000 genes of those all batches measured, by the mean over batches of a gene's rank of variance in log CP10k;
50 components; else the defaults of their libraries. ``PCA, batches standardised`` brings each gene to mean 0 and variance 1 within each
batch first, the simplest correction there is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells
from scmulan.errors import EngineError
from scmulan.measures.counts import components, log_cp10k
from scmulan.tasks import Model
from scmulan.tasks_embedding import EmbeddingSettings

Points = npt.NDArray[np.float32]
N_GENES, N_COMPONENTS, VIEWS = 2000, 50, 4
MOST_DEVIATIONS = 10.0
INSTALL = "pip install 'scmulan[integration]'"


@dataclass(frozen=True)
class Joined:
    """Cells of several batches.

    Attributes
    ----------
    cells : of each batch
    counts : (C, genes that all batches measured) CSR
    labels, batches : (C,) texts
    """

    cells: tuple[Cells, ...]
    counts: sp.csr_matrix
    labels: npt.NDArray[np.str_]
    batches: npt.NDArray[np.str_]

    @cached_property
    def variable(self) -> npt.NDArray[np.int64]:
        """Columns of the genes that vary most in every batch."""
        ranks = np.zeros(self.counts.shape[1])
        for name in np.unique(self.batches):
            log = log_cp10k(self.counts[self.batches == name])
            variance = np.asarray(log.multiply(log).mean(0)).ravel() - np.asarray(log.mean(0)).ravel() ** 2
            ranks += np.argsort(np.argsort(-variance, kind="stable"), kind="stable")
        return np.sort(np.argsort(ranks, kind="stable")[:N_GENES])

    @cached_property
    def read(self) -> dict[int, Points]:
        """Filled by the first way that has scmulan read the cells: its points by number of views."""
        return {}


def embed_by(way: str, model: Model, joined: Joined, *, seed: int) -> Points:
    """Points of all cells by one of ``WAYS``; EngineError when its library is not installed."""
    return WAYS[way](model, joined, seed)


def _scmulan(views: int = EmbeddingSettings.views, place: str | None = None) -> Callable[[Model, Joined, int], Points]:
    """scmulan's embedding, or the part of it that was read at one place."""

    def embed(model: Model, joined: Joined, seed: int) -> Points:
        settings = EmbeddingSettings(views=views)
        if views not in joined.read:
            parts = [model.embeddings.of_counts(model.read(cells).whole, settings) for cells in joined.cells]
            joined.read[views] = np.concatenate(parts)
        points = joined.read[views]
        return points if place is None else np.split(points, len(settings.at), axis=1)[settings.at.index(place)]

    return embed


def _pca(model: Model | None, joined: Joined, seed: int) -> Points:
    return components(log_cp10k(joined.counts)[:, joined.variable].toarray(), N_COMPONENTS, seed)


def _pca_standardised(model: Model, joined: Joined, seed: int) -> Points:
    log = log_cp10k(joined.counts)[:, joined.variable].toarray()
    for name in np.unique(joined.batches):
        rows = joined.batches == name
        log[rows] = (log[rows] - log[rows].mean(0)) / np.maximum(log[rows].std(0), 0.01)
    return components(np.clip(log, -MOST_DEVIATIONS, MOST_DEVIATIONS), N_COMPONENTS, seed)


def _harmony(model: Model, joined: Joined, seed: int) -> Points:
    try:
        import harmonypy
    except ImportError:
        raise EngineError(f"bench integration: Harmony needs harmonypy, which is not installed; {INSTALL}") from None
    logging.getLogger("harmonypy").setLevel(logging.WARNING)
    points, batches = _pca(None, joined, seed), pd.DataFrame({"batch": joined.batches.astype(str)})
    corrected = np.asarray(harmonypy.run_harmony(points, batches, ["batch"], random_state=seed).Z_corr, dtype=np.float32)
    return corrected if corrected.shape == points.shape else corrected.T


def _scvi(model: Model, joined: Joined, seed: int) -> Points:
    try:
        import scvi
    except ImportError:
        raise EngineError(f"bench integration: scVI needs scvi-tools, which is not installed; {INSTALL}") from None
    for name in ("scvi", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obs = pd.DataFrame({"batch": joined.batches.astype(str)})
        adata = AnnData(sp.csr_matrix(joined.counts[:, joined.variable], dtype=np.float32), obs=obs)
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        fitted = scvi.model.SCVI(adata)
        fitted.train(accelerator="cpu", enable_progress_bar=False, logger=False)
        return np.asarray(fitted.get_latent_representation(), dtype=np.float32)


WAYS: dict[str, Callable[[Model, Joined, int], Points]] = {
    "scmulan": _scmulan(),
    "scmulan at cell_type": _scmulan(place="cell_type"),
    "scmulan at lineage": _scmulan(place="lineage"),
    "scmulan, 4 views": _scmulan(views=VIEWS),
    "PCA": _pca,
    "PCA, batches standardised": _pca_standardised,
    "Harmony": _harmony,
    "scVI": _scvi,
}


def scib_metrics_of(points: Points, labels: npt.NDArray[np.str_], batches: npt.NDArray[np.str_], *, seed: int) -> dict[str, float]:
    """The measures of scib-metrics, each from 0 to 1."""
    try:
        import scib_metrics
        from scib_metrics.nearest_neighbors import NeighborsResults
    except ImportError:
        raise EngineError(f"bench integration --only scib: needs scib-metrics, which is not installed; {INSTALL}") from None
    from scmulan.measures.neighbours import nearest

    kinds, groups = np.unique(labels, return_inverse=True)[1], np.unique(batches, return_inverse=True)[1]
    index, distance = nearest(points, k=89)
    own = np.arange(len(points))[:, None]
    index, distance = np.concatenate([own, index], axis=1), np.concatenate([np.zeros((len(points), 1)), distance], axis=1)
    near = {k: NeighborsResults(indices=index[:, :k], distances=distance[:, :k].astype(np.float32)) for k in (15, 50, 90)}
    clusters = scib_metrics.nmi_ari_cluster_labels_kmeans(points, kinds)
    biology = {
        "nmi": clusters["nmi"],
        "ari": clusters["ari"],
        "silhouette_label": scib_metrics.silhouette_label(points, kinds),
        "clisi": scib_metrics.clisi_knn(near[90], kinds),
    }
    mixing = {
        "bras": scib_metrics.bras(points, kinds, groups),
        "ilisi": scib_metrics.ilisi_knn(near[90], groups),
        "kbet": scib_metrics.kbet_per_label(near[50], groups, kinds),
        "connectivity": scib_metrics.graph_connectivity(near[15], kinds),
    }
    means = [float(np.mean([float(value) for value in part.values()])) for part in (biology, mixing)]
    found = {name: float(value) for name, value in {**biology, **mixing}.items()}
    return {**found, "biology": means[0], "mixing": means[1], "overall": 0.6 * means[0] + 0.4 * means[1]}
