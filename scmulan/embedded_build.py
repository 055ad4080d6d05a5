"""Builds the embedded cells: real data sets that may be shipped, packed small, with ontology labels and fixed splits.

    python -m scmulan.embedded_build SOURCE_FOLDER -o embedded/cells

The counts stay as their authors published them (whatever ``scmulan check`` then finds); only the storage is made small: whole
numbers as the smallest integers, gzip. The authors' cell type stays in ``original_cell_type``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.model_selection import train_test_split

from scmulan import cells as cells_module
from scmulan.cells_writing import write_h5ad
from scmulan.errors import CellDataError
from scmulan.measures.change_splits import split_changes
from scmulan.measures.fate import clone_folds
from scmulan.metadata import canonical


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that may be shipped: its file, the repository it comes from, that repository's licence, the publication."""

    name: str
    repository: str
    licence: str
    publication: str


SOURCES = (
    Source(
        name="zheng_pbmc_facs", repository="stephenslab/fastTopics", licence="BSD-2-Clause", publication="Zheng et al. 2017, 10x Genomics"
    ),
    Source(name="larry_haematopoiesis", repository="AllonKleinLab/cospar", licence="MIT", publication="Weinreb et al. 2020"),
    Source(name="joost_epidermis", repository="mkarikom/RSoptSC", licence="MIT", publication="Joost et al. 2016, GSE67602"),
    Source(name="ipsc_cm_timecourse", repository="gongx030/scDatasets", licence="MIT", publication="iPSC to cardiomyocyte time course"),
    Source(name="pollen_cortex", repository="gongx030/scDatasets", licence="MIT", publication="Pollen et al. 2014"),
    Source(name="mixology_sc_dropseq", repository="LuyiTian/sc_mixology", licence="MIT", publication="Tian et al. 2019"),
    Source(name="papalexi_eccite_thp1", repository="Katsevich-Lab/sceptredata", licence="MIT", publication="Papalexi et al. 2021"),
)
KEPT_COLUMNS = ("tissue", "organism", "assay", "dataset", "time", "donor", "clone", "guide", "perturbation", "condition")
TEST_SHARE = 0.2
CLONE_FOLDS = 5
DEEPEST = 60_000
NO_TARGET = "non-targeting"


def build(source_folder: Path, output: Path) -> pd.DataFrame:
    """Write one ``.h5ad`` a source and ``SOURCES.tsv``; returns a table of names, cells, genes, bytes."""
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for source in SOURCES:
        path = source_folder / f"{source.name}.h5ad"
        adata = _small(cells_module.read_h5ad(path), source)
        target = output / path.name
        write_h5ad(adata, target)
        _repack(target)
        rows.append({**source.__dict__, "cells": adata.n_obs, "genes": adata.n_vars, "bytes": target.stat().st_size})
    table = pd.DataFrame(rows)
    table.drop(columns="bytes").to_csv(output / "SOURCES.tsv", sep="\t", index=False)
    return table


def _small(adata: cells_module.AnnData, source: Source) -> cells_module.AnnData:
    """The data set with few columns of obs, integer storage, a fixed split, and reads far beyond any sentence thinned."""
    matrix = sp.csr_matrix(adata.X)
    matrix.sort_indices()
    if np.array_equal(matrix.data, np.round(matrix.data)):
        matrix = _thin_reads(matrix.astype(np.int64), seed=0)
    kept = np.asarray((matrix > 0).sum(0)).ravel() > 0
    obs = adata.obs[[name for name in KEPT_COLUMNS if name in adata.obs]].copy()
    written = adata.obs["cell_type"].astype(str)
    tissue = adata.obs["tissue"].astype(str).map(lambda value: canonical("organ", value).value)
    labels = {value: canonical("cell_type", value, tissue[written == value].iloc[0]) for value in written.unique()}
    obs["cell_type"] = written.map(lambda value: labels[value].value)
    obs["cell_type_ontology_term_id"] = written.map(lambda value: labels[value].ontology_id or "unknown")
    obs["original_cell_type"] = written
    obs["split"] = _split(obs)
    if "guide" in obs:
        target = obs["perturbation"].astype(str)
        obs["perturbation"] = np.where(target == NO_TARGET, f"{NO_TARGET} control", target + " knockout")
    for name in obs:
        obs[name] = obs[name].astype(str).astype("category")
    small = cells_module.AnnData(X=matrix[:, kept], obs=obs, var=adata.var.iloc[np.flatnonzero(kept)][[]])
    small.uns["source"] = {key: str(value) for key, value in source.__dict__.items()}
    return small


def _thin_reads(matrix: sp.csr_matrix, seed: int) -> sp.csr_matrix:
    """Cells of full-length reads, millions of them, thinned to 60,000: said in SOURCES and in uns."""
    total = np.asarray(matrix.sum(1)).ravel()
    rate = np.repeat(np.minimum(1, DEEPEST / np.maximum(total, 1)), np.diff(matrix.indptr))
    matrix.data = np.random.default_rng(seed).binomial(matrix.data, rate)
    matrix.eliminate_zeros()
    if matrix.max() > np.iinfo(np.uint16).max:
        raise CellDataError(f"a count of {matrix.max():,} does not fit 16 bits after thinning")
    return matrix.astype(np.uint16 if matrix.max() > 255 else np.uint8)


def _split(obs: pd.DataFrame) -> np.ndarray:
    """``test`` for one guide of each target and half of the controls of a screen, for a fifth of the clones, else for 20 % of each type."""
    split = np.full(len(obs), "train", dtype=object)
    if "guide" in obs:
        parts = split_changes(obs["perturbation"], NO_TARGET, held_out="guides", guides=obs["guide"], seed=0)
        split[np.concatenate([parts.control_true, *parts.held.values()])] = "test"
    elif "clone" in obs:
        split[clone_folds(obs["clone"].astype(str), CLONE_FOLDS, seed=0) == 0] = "test"
    else:
        split[_of_each_type(obs["original_cell_type"])] = "test"
    return split


def _of_each_type(labels: pd.Series) -> np.ndarray:
    """Rows of 20 % of the cells of each type."""
    counts = labels.value_counts()
    grouped = labels.where(labels.map(counts) > 1, counts.index[0])  # a single cell can't be split; it goes with the largest type
    _, test = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, stratify=grouped, random_state=0)
    return np.asarray(test)


def _repack(path: Path) -> None:
    """Store the file anew: names as text of one length, which gzip reaches, and the sparse matrix's parts with byte shuffling."""
    packed = path.with_suffix(".packed")
    with h5py.File(path, "r") as old, h5py.File(packed, "w") as new:
        new.attrs.update(old.attrs)
        old.visititems(lambda name, item: _store(new, name, item))
    packed.rename(path)


def _store(file: h5py.File, name: str, item: h5py.Group | h5py.Dataset) -> None:
    """A group or an array of another file, in few bytes."""
    if isinstance(item, h5py.Group):
        stored = file.create_group(name)
    elif item.shape == ():
        stored = file.create_dataset(name, data=item[()], dtype=item.dtype)
    else:
        values, dtype = item[:], item.dtype
        if h5py.check_string_dtype(dtype) is not None:
            dtype = h5py.string_dtype("utf-8", max(len(value) for value in values))
        chunks = (min(len(values), 1 << 18),)
        stored = file.create_dataset(
            name, data=values.astype(dtype), dtype=dtype, compression="gzip", compression_opts=9, shuffle=True, chunks=chunks
        )
    stored.attrs.update(item.attrs)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source_folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    print(build(given.source_folder, given.output).to_string(index=False))


if __name__ == "__main__":
    main()
