"""Tenth part: training cells as an index, held-out cells beside their nearest, and labels carried over by votes.

Limit: reference and held-out cells are of one data set, so nothing is asked here of batches; ``docs/mapping.md`` has what was measured.
"""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from scmulan.cells import Cells
from scmulan.demo.labels import as_adata
from scmulan.demo.stage import Dataset, Skipped, Stage
from scmulan.demo.whole import drawn
from scmulan.evaluate.page import beats
from scmulan.measures.counts import highly_variable, log_cp10k
from scmulan.measures.metrics import Annotation, annotation
from scmulan.measures.neighbours import K, nearest, vote
from scmulan.report import shown
from scmulan.search import CellIndex
from scmulan.search_build import index_cells

TITLE = "10. Nearest cells of an index"
OURS, THEIRS = "scmulan", "PCA"
N_GENES, N_COMPONENTS, SHOWN = 1000, 50, 5


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Labels that held-out cells took from their nearest training cells, by the model's embedding and by principal components.

    ``example`` are the nearest cells of one held-out cell of type ``example_type``.
    """

    dataset: str
    n_reference: int
    n: int
    accuracy: dict[str, float]
    macro_f1: dict[str, float]
    unassigned: int
    example_type: str
    example: list[dict[str, str | float | int]]


def run(stage: Stage) -> Mapped | Skipped:
    """Build an index of training cells in the folder ``index``, and carry their labels over to held-out cells."""
    stage.say("10  Nearest cells of an index")
    if importlib.util.find_spec("faiss") is None:
        return stage.skip(TITLE, "faiss is not installed; pip install 'scmulan[search]'")
    found = measure(stage, stage.largest)
    show(stage, found)
    ours, theirs = found.accuracy[OURS], found.accuracy[THEIRS]
    stage.say(f"   {found.n} cells take labels from {found.n_reference}: accuracy {shown(ours)}, neighbours in {THEIRS} {shown(theirs)}")
    return found


def measure(stage: Stage, dataset: Dataset) -> Mapped:
    """Labels by votes of the nearest, in either space."""
    reference = dataset.train.take(drawn(np.arange(len(dataset.train)), stage.sizes.indexed, stage.seed))
    asked = dataset.held.take(drawn(np.arange(len(dataset.held)), stage.sizes.mapped, stage.seed))
    folder = stage.output / "index"
    shutil.rmtree(folder, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = CellIndex(index_cells(stage.model, [as_adata(stage.model, reference)], folder), stage.model)
    adata = as_adata(stage.model, asked)
    del adata.obs["cell_type"], adata.obs["original_cell_type"]
    stage.model.transfer(adata, index)
    said = adata.obs["scmulan_transferred_cell_type"].astype(str).tolist()
    true, labels = ([str(label) for label in cells.fields["cell_type"]] for cells in (asked, reference))
    both = {OURS: annotation(true, said), THEIRS: by_components(dataset, reference, asked, labels, true, stage.seed)}
    pairs = stage.model.search(adata[[0]].copy(), index, k=SHOWN)
    return Mapped(
        dataset=dataset.name, n_reference=len(reference), n=len(asked), accuracy={who: each.accuracy for who, each in both.items()},
        macro_f1={who: each.macro_f1 for who, each in both.items()}, unassigned=said.count("unassigned"), example_type=true[0],
        example=[
            {"rank": int(row["rank"]), "cell": str(row["cell_id"]), "distance": float(row["distance"]), "type": str(row["cell_type"])}
            for _, row in pairs.iterrows()
        ],
    )  # fmt: skip


def by_components(dataset: Dataset, reference: Cells, asked: Cells, labels: list[str], true: list[str], seed: int) -> Annotation:
    """The same votes in principal components of the reference cells' variable genes."""
    logs = [log_cp10k(dataset.counts(cells)) for cells in (reference, asked)]
    columns = highly_variable(logs[0], min(N_GENES, logs[0].shape[1]))
    values = [each[:, columns].toarray() for each in logs]
    fitted = PCA(min(N_COMPONENTS, *values[0].shape), random_state=seed).fit(values[0])
    rows, distance = nearest(fitted.transform(values[0]), fitted.transform(values[1]), k=K)
    names, share = vote(labels, rows, distance)
    return annotation(true, [names[best] for best in share.argmax(1)])


def show(stage: Stage, found: Mapped) -> None:
    """The section of the page."""
    stage.report.section(TITLE, words(found))
    rows = [{"neighbours by": who, "accuracy": found.accuracy[who], "macro-F1": found.macro_f1[who]} for who in found.accuracy]
    stage.report.table(rows, emphasise=OURS, caption=f"Labels of {found.n} held-out cells by votes of the {K} nearest training cells.")
    stage.report.table(found.example, caption=f"The nearest cells of one held-out cell, a {found.example_type}.")


def words(found: Mapped) -> str:
    """What was mapped and what the figures say, in plain words."""
    ours, theirs = found.accuracy[OURS], found.accuracy[THEIRS]
    text = (
        f"{found.n_reference} training cells of {found.dataset} were embedded once and kept as an index (`scmulan index build`). "
        f"{found.n} held-out cells, of which the model is told no label, are looked up in it and take the label that their nearest vote "
        f"for (`model.transfer`): {shown(100 * ours)} % are right, {beats(ours, theirs)} the same votes in principal components of these "
        f"reference cells ({shown(100 * theirs)} %)."
    )
    if found.unassigned:
        text += f" {found.unassigned} lay too far from all of them and stayed without a label, which counts as wrong."
    return text
