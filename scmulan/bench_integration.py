"""Embeddings across assays, donors and species: scmulan beside PCA, Harmony and scVI, on real cells whose types are known.

    assays    four batches of human lung-cancer lines: CEL-seq2, Drop-seq, two plates of CEL-seq2 with two lines more
    donors    mouse lung immune cells by animal
    species   human blood (Zheng, held out) against mouse lung (Zilionis), by lineage; neutrophils are of the mouse alone
    blood     human blood (Zheng, held out) against that of another laboratory (Kang), control and under interferon-beta, by lineage;
              Kang's cells have no types: cells that show the markers of one lineage alone get it, the others are left out

Measured are integration over the labels that two batches share (`scmulan.measures.integration`), and labels carried from each batch to
each other by the nearest 15 cells. scmulan sees each cell alone, and no label and no batch; the others are fitted to all of these cells,
and Harmony and scVI are told the batches. With ``--only scib`` the library scib-metrics measures the same, as a check from outside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import assets
from scmulan.bench_integration_ways import WAYS, Joined, embed_by, scib_metrics_of
from scmulan.cells import AnnData, Cells, read_cells, read_h5ad
from scmulan.errors import PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.measures.integration import integration
from scmulan.measures.neighbours import transfer
from scmulan.metadata import lineage_of
from scmulan.tasks import Model, load

Say = Callable[[str], None]
CELLS_OF_LABEL = 100
SCIB = "scib"
MARKERS = {
    "T cell": ("CD3D", "CD3E", "CD3G", "CD2"),
    "B cell": ("MS4A1", "CD79A", "CD79B", "CD19"),
    "natural killer cell": ("NCAM1", "KLRD1", "KLRF1", "KLRC1"),
    "mononuclear phagocyte": ("CD14", "LYZ", "FCN1", "CST3"),
}
LEAST_COUNTS = 2
"""Counts of a lineage's markers that a cell without types needs to be taken for it, with none of the other lineages' of the first two."""


@dataclass(frozen=True)
class Batch:
    """A file, or some of its cells.

    Attributes
    ----------
    label : ``cell_type``, ``lineage``, or ``markers``
    where : column of ``obs`` and the value that the cells have there
    is_embedded : the file comes with the package, and ``seen`` says which of its cells the demo model was trained on
    """

    name: str
    file: str
    label: str
    where: tuple[str, str] | None = None
    is_embedded: bool = False


ZHENG = Batch("Zheng", "zheng_pbmc_facs.h5ad", "lineage", ("split", "test"), is_embedded=True)
ANIMALS = ("t_1", "t_2", "h_1", "h_2")
SETTINGS: dict[str, tuple[Batch, ...]] = {
    "assays": (
        Batch("CEL-seq2", "mixology_sc_celseq2.h5ad", "cell_type"),
        Batch("Drop-seq", "mixology_sc_dropseq.h5ad", "cell_type", is_embedded=True),
        Batch("CEL-seq2 plate 1", "mixology_sc_celseq2_5cl_p1.h5ad", "cell_type"),
        Batch("CEL-seq2 plate 2", "mixology_sc_celseq2_5cl_p2.h5ad", "cell_type"),
    ),
    "donors": tuple(Batch(animal, "zilionis_mouse_lung.h5ad", "cell_type", ("Animal", animal)) for animal in ANIMALS),
    "species": (ZHENG, Batch("mouse lung", "zilionis_mouse_lung.h5ad", "lineage")),
    "blood": (
        ZHENG,
        Batch("Kang, control", "kang_pbmc_ifnb.h5ad", "markers", ("condition", "control")),
        Batch("Kang, interferon", "kang_pbmc_ifnb.h5ad", "markers", ("condition", "IFN-beta")),
    ),
}


def integration_bench(
    *, model: str, device: str, data: Path | None, n: int | None, only: Sequence[str], seed: int, say: Say, **_: Any
) -> dict[str, Any]:
    """Every way in every setting.

    Parameters
    ----------
    data : folder of the files
    n : most cells of each label in each batch
    only : ``SETTINGS`` and ``WAYS``, all when none is named; and ``scib``
    """
    known = (*SETTINGS, *WAYS, SCIB)
    unknown = [name for name in only if name not in known]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join(known)}{nearest(unknown[0], known)}")
    if data is None:
        raise PromptError("bench integration: needs cells of several laboratories, which are not embedded; give --data FOLDER")
    opened, found = load(model, device=device), dict[str, Any]()
    for name in [name for name in SETTINGS if name in only] or list(SETTINGS):
        joined = join([cells_of(batch, data, n or CELLS_OF_LABEL, seed) for batch in SETTINGS[name]], SETTINGS[name])
        found[name] = {"cells": len(joined.labels), "labels": count(joined), "ways": {}}
        say(f"{name}: {json.dumps(found[name]['labels'])}")
        for way in [way for way in WAYS if way in only] or list(WAYS):
            found[name]["ways"][way] = measured(opened, joined, way, seed=seed, with_scib=SCIB in only)
            say(f"{name}, {way}: {json.dumps(found[name]['ways'][way])}")
    return {"model": model, "seed": seed, "settings": found}


def cells_of(batch: Batch, data: Path, most: int, seed: int) -> tuple[Cells, list[str]]:
    """Cells of a batch with their labels, at most so many of each label, drawn; cells without one are left out."""
    path = (assets.path("embedded", "cells") if batch.is_embedded else data) / batch.file
    adata: AnnData = read_h5ad(path)
    if batch.where is not None:
        column, value = batch.where
        adata = adata[(adata.obs[column].astype(str) == value).to_numpy()].copy()
    cells = read_cells(adata)
    labels = marker_lineages(cells) if batch.label == "markers" else list(cells.fields["cell_type"])
    if batch.label == "lineage":
        labels = [lineage_of(label) or label if label else None for label in labels]
    rng, taken = np.random.default_rng([seed, 61]), dict[str, int]()
    kept = list[int]()
    for row in rng.permutation(len(labels)).tolist():
        label = labels[row]
        if label is not None and taken.get(label, 0) < most:
            taken[label] = taken.get(label, 0) + 1
            kept.append(row)
    kept.sort()
    return cells.take(kept), [str(labels[row]) for row in kept]


def marker_lineages(cells: Cells) -> list[str | None]:
    """The lineage whose markers a cell shows, where it shows no other's; None else. A stand-in for types, made of the counts themselves."""
    table = GeneTable.load()
    strong_CL = np.stack([_sum_of(cells, table, genes[:2]) for genes in MARKERS.values()], axis=1)
    all_CL = np.stack([_sum_of(cells, table, genes) for genes in MARKERS.values()], axis=1)
    names, found = list(MARKERS), list[str | None]()
    for strong, every in zip(strong_CL, all_CL, strict=True):
        best = int(every.argmax())
        others = np.delete(strong, best).sum()
        found.append(names[best] if every[best] >= LEAST_COUNTS and others == 0 else None)
    return found


def _sum_of(cells: Cells, table: GeneTable, genes: Sequence[str]) -> npt.NDArray[np.int64]:
    columns = [row for row in table.index_of_symbols(list(genes)).tolist() if row >= 0]
    return np.asarray(cells.counts[:, columns].sum(1)).ravel().astype(np.int64)


def join(parts: Sequence[tuple[Cells, list[str]]], batches: Sequence[Batch]) -> Joined:
    """Cells of several batches, over the genes that all of them measured."""
    genes = parts[0][0].measured
    for cells, _ in parts[1:]:
        genes = np.intersect1d(genes, cells.measured)
    return Joined(
        cells=tuple(cells for cells, _ in parts),
        counts=sp.vstack([cells.counts[:, genes] for cells, _ in parts], format="csr"),
        labels=np.array([label for _, labels in parts for label in labels]),
        batches=np.repeat([batch.name for batch in batches], [len(labels) for _, labels in parts]),
    )


def count(joined: Joined) -> dict[str, dict[str, int]]:
    """Cells by batch and label."""
    found = dict[str, dict[str, int]]()
    for name in dict.fromkeys(joined.batches.tolist()):
        labels, numbers = np.unique(joined.labels[joined.batches == name], return_counts=True)
        found[str(name)] = {str(label): int(number) for label, number in zip(labels, numbers, strict=True)}
    return found


def measured(model: Model, joined: Joined, way: str, *, seed: int, with_scib: bool) -> dict[str, Any]:
    """The measures of one way."""
    began = time.perf_counter()
    points = embed_by(way, model, joined, seed=seed)
    seconds = time.perf_counter() - began
    of_label = {label: len(set(joined.batches[joined.labels == label])) for label in set(joined.labels.tolist())}
    shared = np.array([of_label[label] > 1 for label in joined.labels])
    found = _rounded(asdict(integration(points[shared], joined.labels[shared], joined.batches[shared], seed=seed)))
    pairs, scores = dict[str, Any](), list[dict[str, Any]]()
    for one, other in permutations(dict.fromkeys(joined.batches.tolist()), 2):
        known, asked = joined.batches == one, joined.batches == other
        score = asdict(transfer(points[known], joined.labels[known], points[asked], joined.labels[asked]))
        pairs[f"{one} to {other}"] = _rounded({name: score[name] for name in ("accuracy", "macro_f1", "novelty_auc")})
        scores.append(score)
    means = {f"mean_{name}": _mean([score[name] for score in scores]) for name in ("accuracy", "macro_f1", "novelty_auc")}
    result = {**found, **_rounded(means), "transfer": pairs, "seconds": round(seconds, 1)}
    if with_scib:
        result["scib_metrics"] = _rounded(scib_metrics_of(points[shared], joined.labels[shared], joined.batches[shared], seed=seed))
    return result


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
