"""An index of many cells: recall at 10 against exact search, seconds to build, size and searches a second, for several ways to search.

Cells that no machine has embedded in an hour are made up: embeddings of real blood cells, mixed in pairs with a little noise, for speed
and recall alone. One thread. hnswlib stands beside faiss where it is installed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan import assets
from scmulan.cells import read_h5ad
from scmulan.search_build import BUILD_BREADTH, LINKS
from scmulan.search_folder import import_faiss
from scmulan.tasks import load

CELLS, QUERIES, NEIGHBOURS, EMBEDDED = 100_000, 500, 10, 400
MOST_MIXED, NOISE = 0.5, 0.15
"""Share of the second cell of a pair, at most; and noise, in standard deviations of each dimension."""
BREADTHS = (32, 128)
Points = npt.NDArray[np.float32]


def measure_search(*, model: str, n: int | None, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Every way on ``n`` (100,000) cells."""
    faiss, rng = import_faiss(), np.random.default_rng(seed)
    faiss.omp_set_num_threads(1)
    real, n_cells = _embedded(model), n or CELLS
    points, queries = _mixed(real, n_cells, rng), _mixed(real, QUERIES, rng)
    found: dict[str, Any] = {"cells": n_cells, "dimensions": points.shape[1], "ways": {}}
    exact = faiss.IndexFlatL2(points.shape[1])
    exact.add(points)
    began = time.perf_counter()
    true = exact.search(queries, NEIGHBOURS)[1]
    found["ways"]["all compared, float32"] = {"recall": 1.0, "searches_per_second": round(QUERIES / (time.perf_counter() - began))}
    halves = faiss.ScalarQuantizer.QT_fp16
    ways: dict[str, Callable[[], Any]] = {
        "all compared, float16": lambda: faiss.IndexScalarQuantizer(points.shape[1], halves),
        "faiss HNSW, float16": lambda: faiss.IndexHNSWSQ(points.shape[1], halves, LINKS),
        "faiss HNSW, float32": lambda: faiss.IndexHNSWFlat(points.shape[1], LINKS),
        "faiss IVF, float16": lambda: faiss.index_factory(points.shape[1], f"IVF{int(2 * n_cells**0.5)},SQfp16"),
    }
    for name, make in ways.items():
        for line, result in _of_faiss(faiss, make(), points, queries, true).items():
            found["ways"][f"{name}{line}"] = result
            say(f"{name}{line}: {result}")
    for line, result in _of_hnswlib(points, queries, true).items():
        found["ways"][line] = result
        say(f"{line}: {result}")
    return found


def _embedded(model: str) -> Points:
    """Embeddings of held-out blood cells."""
    adata = read_h5ad(assets.path("embedded", "cells", "zheng_pbmc_facs.h5ad"))
    held = adata[(adata.obs["split"] == "test").to_numpy()]
    return load(model).embed(held[: min(EMBEDDED, held.n_obs)].copy())


def _mixed(real: Points, n: int, rng: np.random.Generator) -> Points:
    one, other = rng.integers(len(real), size=(2, n))
    share = rng.random((n, 1), dtype=np.float32) * MOST_MIXED
    noise = rng.standard_normal((n, real.shape[1]), dtype=np.float32) * real.std(0) * NOISE
    return np.asarray(real[one] * (1 - share) + real[other] * share + noise, dtype=np.float32)


def _of_faiss(faiss: Any, index: Any, points: Points, queries: Points, true: npt.NDArray[np.int64]) -> dict[str, dict[str, float]]:
    is_graph, is_inverted = hasattr(index, "hnsw"), hasattr(index, "nprobe")
    if is_graph:
        index.hnsw.efConstruction = BUILD_BREADTH
    began = time.perf_counter()
    index.train(points[: 100 * int(2 * len(points) ** 0.5)])
    index.add(points)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        faiss.write_index(index, str(Path(folder, "index")))
        size = os.path.getsize(Path(folder, "index")) / 1e6
    found = {}
    for breadth in BREADTHS if is_graph or is_inverted else (0,):
        if is_graph:
            index.hnsw.efSearch = breadth
        if is_inverted:
            index.nprobe = breadth
        began = time.perf_counter()
        rows = index.search(queries, NEIGHBOURS)[1]
        found[f", breadth {breadth}" if breadth else ""] = _line(true, rows, seconds, size, time.perf_counter() - began)
    return found


def _of_hnswlib(points: Points, queries: Points, true: npt.NDArray[np.int64]) -> dict[str, dict[str, float]]:
    try:
        import hnswlib
    except ImportError:
        return {}
    index = hnswlib.Index("l2", points.shape[1])
    index.init_index(len(points), ef_construction=BUILD_BREADTH, M=LINKS)
    began = time.perf_counter()
    index.add_items(points, num_threads=1)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        index.save_index(str(Path(folder, "index")))
        size = os.path.getsize(Path(folder, "index")) / 1e6
    found = {}
    for breadth in BREADTHS:
        index.set_ef(breadth)
        began = time.perf_counter()
        rows = index.knn_query(queries, NEIGHBOURS, num_threads=1)[0]
        found[f"hnswlib, breadth {breadth}"] = _line(true, rows, seconds, size, time.perf_counter() - began)
    return found


def _line(true: npt.NDArray[np.int64], rows: npt.NDArray[Any], seconds: float, size: float, searching: float) -> dict[str, float]:
    recall = np.mean([len(set(one) & set(other)) / NEIGHBOURS for one, other in zip(true.tolist(), rows.tolist(), strict=True)])
    return {
        "recall": round(float(recall), 4),
        "build_seconds": round(seconds, 1),
        "megabytes": round(size, 1),
        "searches_per_second": round(len(true) / searching),
    }
