"""Whether embeddings of genes tell classes of genes apart, beside what the cells' counts alone tell.

A linear probe, cross-validated: each gene is in one fold, with the same folds for all features. Classes often differ in how much their
genes are expressed, so embeddings are set beside mean expression alone, and beside the genes' profiles over the same cells, which need no
model; where those do as well, the embeddings know nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scmulan.cells import AnnData
from scmulan.engines.base import Advance
from scmulan.errors import PromptError, some
from scmulan.measures.counts import log_cp10k
from scmulan.tasks_genes import gene_embeddings, gene_rows, symbols_of
from scmulan.tasks_opened import Opened

Floats = npt.NDArray[np.float64]
FOLDS = 5
STRENGTH = 0.1
"""Inverse strength of the probe's L2 penalty, for all features alike."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """How well each kind of features tells classes of genes apart.

    Attributes
    ----------
    table : one row for each kind of features: ``auc`` (macro, one class against the rest), ``auc_sd`` over folds, ``accuracy``,
        ``accuracy_sd``, ``features``
    genes : how many genes of each class were asked about
    left_out : genes that the vocabulary lacks, or that are in too few of the cells
    majority : accuracy of saying the commonest class
    """

    table: pd.DataFrame
    genes: dict[str, int]
    left_out: list[str]
    majority: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        shown = {str(name): {key: float(value) for key, value in row.items()} for name, row in self.table.to_dict("index").items()}
        return {"features": shown, "genes": self.genes, "left_out": len(self.left_out), "majority_accuracy": self.majority}


def probe_genes(
    opened: Opened,
    adata: AnnData,
    labels: Mapping[str, str],
    *,
    layer: int | None = None,
    folds: int = FOLDS,
    least_cells: int = 3,
    seed: int = 0,
    on_cell: Advance | None = None,
) -> Probed:
    """As ``Model.probe_genes``."""
    symbols = symbols_of(opened, list(labels))
    contextual = gene_embeddings(opened, adata, groupby=None, layer=layer, least_cells=least_cells, on_cell=on_cell).of()
    class_of = {symbol: str(labels[name]) for name, symbol in symbols.items() if symbol in contextual.index}
    genes, classes = list(class_of), np.array(list(class_of.values()), dtype=object)
    n_of = {str(name): int(n) for name, n in zip(*np.unique(classes.astype(str), return_counts=True), strict=True)}
    if folds < 2 or len(n_of) < 2 or min(n_of.values()) < folds:
        raise PromptError(
            f"classes of genes {n_of or 'none'}: needed two or more, each with at least as many genes as there are folds ({folds}); "
            f"{len(labels) - len(genes):,} of the {len(labels):,} genes given are not in these cells"
        )
    counts = opened.read(adata, reserve=opened.reserve()).whole
    columns = opened.vocabulary.columns(genes)
    features: dict[str, Floats] = {
        "contextual embedding": contextual.loc[genes].to_numpy(np.float64),
        "row of the embedding matrix": gene_rows(opened).loc[genes].to_numpy(np.float64),
        "mean expression and detection": _mean_expression(counts[:, columns]),
        "profile over the cells": _profiles(log_cp10k(counts)[:, columns], seed),
    }
    rows = {name: _judged(values, classes, folds, seed) for name, values in features.items()}
    return Probed(
        table=pd.DataFrame(rows).T.rename_axis("features_of"),
        genes=n_of,
        left_out=[name for name in labels if symbols.get(name) not in class_of],
        majority=max(n_of.values()) / len(genes),
    )


def _mean_expression(counts: sp.csr_matrix) -> Floats:
    """Logarithm of the mean count, the share of cells, and the mean where the gene is; (genes, 3)."""
    mean = np.asarray(counts.mean(0)).ravel()
    detection = np.asarray((counts > 0).mean(0)).ravel()
    return np.stack([np.log(mean + 1e-4), detection, np.log(mean / np.maximum(detection, 1e-9) + 1e-4)], axis=1)


def _profiles(logs: sp.csr_matrix, seed: int) -> Floats:
    """Each gene's log CP10k over the cells, in at most 50 components; (genes, components)."""
    matrix = sp.csr_matrix(logs.T)
    n = min(50, min(matrix.shape) - 1)
    return np.asarray(TruncatedSVD(n, random_state=seed).fit_transform(matrix), dtype=np.float64) if n > 0 else matrix.toarray()


def _judged(values: Floats, classes: npt.NDArray[np.object_], folds: int, seed: int) -> dict[str, float]:
    """AUC and accuracy of a cross-validated probe: means and standard deviations over folds."""
    auc, accuracy = [], []
    names = sorted(set(classes))
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(values, classes):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000, class_weight="balanced"))
        said = probe.fit(values[train], classes[train]).predict_proba(values[test])
        of_each = [roc_auc_score(classes[test] == name, said[:, place]) for place, name in enumerate(names)]
        auc.append(float(np.mean(of_each)))
        accuracy.append(float(accuracy_score(classes[test], np.array(names, dtype=object)[said.argmax(1)])))
    found = {"auc": auc, "accuracy": accuracy}
    spread = {f"{name}_sd": float(np.std(each, ddof=1)) for name, each in found.items()}
    return {**{name: float(np.mean(each)) for name, each in found.items()}, **spread, "features": float(values.shape[1])}


def labelled_genes(text: str, where: str) -> dict[str, str]:
    """Gene and class from lines of two columns, separated by a tab or comma; PromptError names the first line that has not two.

    >>> labelled_genes("CD19\\tB cell\\nCD3E,T cell", "list")
    {'CD19': 'B cell', 'CD3E': 'T cell'}
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("\t" if "\t" in line else ",")]
        if len(parts) != 2 or not all(parts):
            raise PromptError(f"{where}, line {number}: found {line!r}; needed a gene and its class, with a tab or comma between")
        if found.setdefault(parts[0], parts[1]) != parts[1]:
            raise PromptError(
                f"{where}, line {number}: gene {parts[0]!r} is of {some([found[parts[0]], parts[1]])}; give each gene one class"
            )
    return found
