"""What a perturbation changes, gene by gene, and what simple ways say of it from the cells that the embedded model learnt from."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pandas as pd

from scmulan.cells import AnnData, read_cells, read_h5ad
from scmulan.corpus.pairs import is_control
from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError
from scmulan.genes import GeneTable
from scmulan.serving.answers import Baselines, Changed, Way
from scmulan.serving.examples import example
from scmulan.tasks_changed import most_changed

MOST_TOLD = 2000
SCREEN = "papalexi_eccite_thp1"
"""The embedded data set of perturbed cells."""
LEAST = 10


def changes(cells: AnnData) -> list[Changed]:
    """Genes of predicted cells, most changed first: ``log2`` with its 95 % interval, ``q``.

    Raises
    ------
    CellDataError
        When nothing was predicted of them, gene by gene.
    """
    if "scmulan_change" not in cells.var:
        raise CellDataError("this result has no change of genes; needed one of a job `perturb`")
    most = most_changed(cells.var).head(MOST_TOLD)
    return [
        {
            "gene": str(gene),
            "log2": round(float(row["scmulan_change"]), 5),
            "low": round(float(row["scmulan_low"]), 5),
            "high": round(float(row["scmulan_high"]), 5),
            "q": float(row["scmulan_q_value"]),
        }
        for gene, row in most.iterrows()
    ]


@functools.cache
def _screen() -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.float64], list[str], dict[str, int]]:
    """Mean CP10k of each perturbation of the embedded screen, of its controls, the genes, and the cells of each; training cells alone."""
    adata = read_h5ad(example(SCREEN).path)
    adata = adata[(adata.obs["split"] == "train").to_numpy()].copy() if "split" in adata.obs else adata
    cells = read_cells(adata)
    labels = pd.Series(cells.fields["perturbation"])
    values = log1p_cp10k(cells.counts[:, cells.measured]).expm1()
    found, sizes = {}, {}
    for label, rows in labels.groupby(labels).groups.items():
        found[str(label)] = np.asarray(values[np.asarray(rows)].mean(0)).ravel()
        sizes[str(label)] = len(rows)
    control = next(label for label in found if is_control(label))
    return found, found[control], [str(symbol) for symbol in GeneTable.load().symbols[cells.measured]], sizes


def baselines(perturbation: str) -> Baselines:
    """Simple answers to what a perturbation changes, each with what it is.

    Parameters
    ----------
    perturbation : as its label is written, ``STAT1 knockout``
    """
    means, control, genes, sizes = _screen()
    others = [label for label in means if label != perturbation and not is_control(label)]
    whole = np.average([means[label] for label in others], axis=0, weights=[sizes[label] for label in others])
    ways: list[Way] = [
        {"name": "no change", "about": "The cells stay as they are.", "genes": []},
        {
            "name": "mean of the other perturbations",
            "about": f"What {len(others)} other perturbations of the same screen change on average.",
            "genes": _changed(whole, control, genes),
        },
    ]
    if sizes.get(perturbation, 0) < LEAST or is_control(perturbation):
        why = f"No cell of the embedded screen had {perturbation!r}: there is nothing real to set beside it, and the prediction is a guess."
        return {"ways": ways, "why": why}
    about = f"What {sizes[perturbation]:,} real cells with it had changed, against the screen's controls; the model has learnt from them."
    real: Way = {"name": "real cells of this perturbation", "about": about, "genes": _changed(means[perturbation], control, genes)}
    return {"ways": [*ways, real], "why": ""}


def _changed(after: npt.NDArray[np.float64], before: npt.NDArray[np.float64], genes: list[str]) -> list[Changed]:
    log2 = np.log2(after + 1) - np.log2(before + 1)
    order = np.argsort(-np.abs(log2), kind="stable")[:MOST_TOLD]
    return [{"gene": genes[place], "log2": round(float(log2[place]), 5)} for place in order]
