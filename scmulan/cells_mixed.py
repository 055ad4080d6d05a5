"""A large data set made of real cells, for measuring speed and memory and for nothing else.

Each cell is half of the counts of one real cell and half of those of another, drawn at random, with the labels of the first.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from anndata.io import write_elem

MADE_AT_ONCE = 20_000
CHUNK = 1_000_000


def make_cells(source: Path, path: Path, n_cells: int, seed: int) -> None:
    """A data set of cells mixed of real ones, written in blocks: gzip in HDF5, the library's own compression in zarr."""
    real, rng = anndata.read_h5ad(source), np.random.default_rng(seed)
    counts = sp.csr_matrix(real.X)
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    root = h5py.File(partial, "w") if path.suffix == ".h5ad" else zarr.open_group(partial, mode="w", zarr_format=2)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    matrix = root.create_group("X")
    indptr, filled, labels = [np.zeros(1, dtype=np.int64)], 0, []
    parts = {name: _growing(matrix, name, kind) for name, kind in (("data", np.float32), ("indices", np.int32))}
    for first in range(0, n_cells, MADE_AT_ONCE):
        pair = rng.integers(0, real.n_obs, size=(2, min(MADE_AT_ONCE, n_cells - first)))
        block = _halved(counts[pair[0]], rng) + _halved(counts[pair[1]], rng)
        block.sort_indices()
        end = filled + block.nnz
        for name, values in (("data", block.data), ("indices", block.indices)):
            parts[name].resize((end,))
            parts[name][filled:end] = values
        indptr.append(block.indptr[1:].astype(np.int64) + filled)
        filled = end
        labels.append(pair[0])
    matrix.create_dataset("indptr", data=np.concatenate(indptr)) if path.suffix == ".h5ad" else matrix.create_array(
        "indptr", data=np.concatenate(indptr), chunks=(CHUNK,)
    )
    matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, real.n_vars]})
    obs = real.obs.iloc[np.concatenate(labels)].copy()
    obs.index = pd.Index([f"made{number}" for number in range(n_cells)], dtype=object)
    for column in obs:
        obs[column] = obs[column].astype("category")
    write_elem(root, "obs", obs)
    write_elem(root, "var", real.var)
    write_elem(root, "uns", {"made": "each cell of halves of the counts of two real cells, for measuring speed"})
    if path.suffix == ".h5ad":
        root.close()
    partial.rename(path)


def _growing(group: Any, name: str, kind: Any) -> Any:
    if isinstance(group, h5py.Group):
        return group.create_dataset(
            name, shape=(0,), maxshape=(None,), dtype=kind, chunks=(CHUNK // 10,), compression="gzip", compression_opts=1
        )
    return group.create_array(name, shape=(0,), dtype=kind, chunks=(CHUNK,))


def _halved(counts: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    """Each count kept with a chance of one half."""
    kept = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    kept.data = rng.binomial(counts.data.astype(np.int64), 0.5).astype(np.float32)
    kept.eliminate_zeros()
    return kept
