"""How fast cells become a corpus, and in how much memory: a large data set is made of real cells, then built from in several ways.

Cells for throughput alone: each is half of the counts of one real cell and half of those of another, drawn at random, with the first one's
labels. Every measurement runs in a process of its own, whose peak memory the system tells.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan import assets, csentence
from scmulan.cells_mixed import make_cells
from scmulan.cells_on_disk import CellStore
from scmulan.corpus.blocks import vocabulary_columns
from scmulan.corpus.build import build_corpus
from scmulan.corpus.plan import read_plan
from scmulan.corpus.workers import Workers
from scmulan.tokenizer import load_vocabulary

Say = Callable[[str], None]
CELLS = 1_000_000
IN_MEMORY = 8192
RANKED = 4096
CONTEXT = 2048


def corpus(data: Path | None, n: int | None, seed: int, say: Say) -> dict[str, Any]:
    """Cells per second and peak memory of each way to a corpus, for a tenth of a tenth, a tenth and all of ``n`` cells."""
    source = (data or assets.path("embedded", "cells")) / "zheng_pbmc_facs.h5ad"
    folder = Path("corpora") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    n = n or CELLS
    found: dict[str, Any] = {"made of": source.name}
    for size in sorted({max(n // 100, 1000), max(n // 10, 1000), n}):
        for suffix in ("h5ad", "zarr"):
            path = folder / f"cells-{size}.{suffix}"
            if not path.exists():
                say(f"making {path}")
                make_cells(source, path, size, seed)
            ways = {"build": 1} | ({"build, 2 processes": 2} if size == n else {})
            for name, workers in ways.items():
                found[f"{suffix}, {size:,} cells, {name}"] = measured("build", path, workers)
                say(f"{suffix}, {size:,} cells, {name}: {found[f'{suffix}, {size:,} cells, {name}']}")
    largest = folder / f"cells-{n}.h5ad"
    for name in ("encode", "scanpy", "ranks"):
        found[name] = measured(name, largest if name != "scanpy" else folder / f"cells-{max(n // 10, 1000)}.h5ad", 1)
        say(f"{name}: {found[name]}")
    return found


def measured(what: str, path: Path, workers: int) -> dict[str, Any]:
    """One measurement in a process of its own: cells per second, seconds, and the largest memory of it and of its workers, in MB."""
    code = "from scmulan.bench_corpus import measure; measure()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, what, str(path), str(workers)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"measuring {what} of {path} failed")
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def measure() -> None:
    """What a measuring process does: its arguments say what, of which data set, with how many workers."""
    what, path, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    ways = {"build": _build, "encode": _encode, "scanpy": _scanpy, "ranks": _ranks}
    if workers == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    n_cells, seconds = ways[what](path, workers)
    peak = max(own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    print(json.dumps({"cells per second": round(n_cells / seconds), "seconds": round(seconds, 1), "peak MB": round(peak)}))


def own_peak() -> int:
    """Largest resident memory of this process in kB; what ``getrusage`` says counts the parent's, too."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    found = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    return found if found is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _build(path: Path, workers: int) -> tuple[int, float]:
    """Data set to Parquet shards and manifest, all of it."""
    output = path.with_name(f"corpus-{os.getpid()}")
    began = time.perf_counter()
    plan = read_plan({"sources": [str(path.absolute())], "deduplicate": True})
    manifest = build_corpus(plan, assets.path("embedded", "model"), output, workers=Workers(count=workers))
    seconds = time.perf_counter() - began
    shutil.rmtree(output)
    return int(manifest["cells"]), seconds


def _counts(path: Path, n_cells: int) -> tuple[sp.csr_matrix, csentence.Vocabulary]:
    vocabulary = load_vocabulary(assets.path("embedded", "model"))
    with CellStore(path) as store:
        onto = vocabulary_columns(store, vocabulary)
        spans = list(store.spans(0, min(n_cells, store.n_cells)))
        counts = sp.vstack([store.counts(*span, onto, vocabulary.n_genes)[0] for span in spans], format="csr")
    counts.sort_indices()
    return counts, vocabulary


def _encode(path: Path, workers: int) -> tuple[int, float]:
    """Counts in memory to ids, the fastest of five."""
    counts, vocabulary = _counts(path, IN_MEMORY)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        csentence.encode(counts, vocabulary)
        times.append(time.perf_counter() - began)
    return counts.shape[0], min(times)


def _scanpy(path: Path, workers: int) -> tuple[int, float]:
    """scanpy reading the file, and no more."""
    import scanpy

    began = time.perf_counter()
    adata = scanpy.read_h5ad(path)
    return adata.n_obs, time.perf_counter() - began


def _ranks(path: Path, workers: int) -> tuple[int, float]:
    """Counts in memory to genes ranked by normalised expression over the gene's median, cell by cell, as Geneformer's tokenizer does."""
    counts, _ = _counts(path, RANKED)
    by_gene = sp.csc_matrix(counts)
    spans = zip(by_gene.indptr[:-1], by_gene.indptr[1:], strict=True)
    median = np.array([np.median(by_gene.data[start:end]) if end > start else 1.0 for start, end in spans])
    tokens = np.arange(4, 4 + counts.shape[1], dtype=np.uint16)
    began = time.perf_counter()
    for row in range(counts.shape[0]):
        span = slice(counts.indptr[row], counts.indptr[row + 1])
        values = counts.data[span] / counts.data[span].sum() * 10_000 / median[counts.indices[span]]
        tokens[counts.indices[span][np.argsort(-values)]][:CONTEXT]
    return counts.shape[0], time.perf_counter() - began
