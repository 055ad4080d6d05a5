"""First part: real cells that the model never saw, checked and annotated, beside logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scmulan import plots
from scmulan.cells import AnnData, Cells
from scmulan.cells_writing import annotate_adata, new_adata, write_h5ad
from scmulan.demo.stage import Dataset, Stage
from scmulan.evaluate import bars
from scmulan.evaluate.cells import pooled, predict
from scmulan.evaluate.page import beats
from scmulan.labels import as_answer
from scmulan.measures import baselines, metrics
from scmulan.measures.baselines import Predicted
from scmulan.measures.metrics import Annotation
from scmulan.metadata import canonical
from scmulan.report import shown
from scmulan.tasks import Model

OURS, THEIRS, COMMONEST = "scmulan", "logistic regression", "commonest label"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of held-out cells over all data sets, and of each data set, by who said them."""

    whole: dict[str, Annotation]
    by_dataset: dict[str, dict[str, Annotation]]


def run(stage: Stage) -> Labels:
    """Annotate all held-out cells, write ``annotated.h5ad``, and show how right the labels are."""
    stage.say("1  Real cells that the model never saw")
    cells = pooled([dataset.held for dataset in stage.datasets])
    with bars() as on_progress:
        ours = predict(stage.model, cells, on_progress, "annotate")
    stage.said.update(zip(zip(cells.dataset, cells.cell_ids, strict=True), ours.labels, strict=True))
    found = measure(stage, ours)
    write_h5ad(annotated(stage, cells, ours), stage.output / "annotated.h5ad")
    show(stage, found)
    best = found.whole
    stage.say(f"   accuracy {shown(best[OURS].accuracy)} over {best[OURS].n:,} cells, logistic regression {shown(best[THEIRS].accuracy)}")
    return found


def measure(stage: Stage, ours: Predicted) -> Labels:
    """Each data set's cells by the model, its own regression, and the commonest label of its training cells.

    Of a data set of one type nothing can be told apart: it has a row of its own and does not count among the whole, unless all are such.
    """
    by_dataset, start = {}, 0
    said: dict[str, list[str]] = {OURS: [], THEIRS: [], COMMONEST: []}
    stated: dict[str, list[float]] = {name: [] for name in said}
    true: list[str] = []
    counted = [dataset.name for dataset in stage.datasets if len(set(dataset.types)) > 1] or [dataset.name for dataset in stage.datasets]
    for dataset in stage.datasets:
        counts = dataset.counts(dataset.held)
        rows = slice(start, start + len(dataset.held))
        start = rows.stop
        answers = {
            OURS: Predicted(labels=ours.labels[rows], classes=ours.classes, probabilities=ours.probabilities[rows]),
            THEIRS: dataset.regression.predict(counts),
            COMMONEST: baselines.fit_majority_class(dataset.train_types).predict(counts),
        }
        by_dataset[dataset.name] = {who: _measured(dataset.types, each) for who, each in answers.items()}
        if dataset.name not in counted:
            continue
        true += dataset.types
        for who, each in answers.items():
            said[who] += each.labels
            stated[who] += each.probabilities.max(1).tolist()
    whole = {who: metrics.annotation(true, labels, probability=stated[who]) for who, labels in said.items()}
    return Labels(whole=whole, by_dataset=by_dataset)


def _measured(true: list[str], said: Predicted) -> Annotation:
    return metrics.annotation(true, said.labels, classes=said.classes, class_probabilities=said.probabilities)


def as_adata(model: Model, cells: Cells) -> AnnData:
    """Cells, of whatever data sets, as one AnnData with their fields in ``obs``."""
    genes = np.flatnonzero(np.asarray((cells.counts > 0).sum(0)).ravel())
    names = [f"{dataset}:{name}" for dataset, name in zip(cells.dataset, cells.cell_ids, strict=True)]
    obs = pd.DataFrame({name: pd.Categorical(values) for name, values in cells.fields.items()}, index=names)
    obs["dataset"] = pd.Categorical(cells.dataset)
    obs["original_cell_type"] = pd.Categorical(cells.originals.get("cell_type") or [None] * len(cells))
    return new_adata(cells.counts[:, genes], genes, model.table, obs=obs, organism="Homo sapiens")


def annotated(stage: Stage, cells: Cells, said: Predicted) -> AnnData:
    """The held-out cells of all data sets with their own labels and the model's, as `Model.annotate` writes them."""
    adata = as_adata(stage.model, cells)
    results = {
        "scmulan_cell_type": said.labels,
        "scmulan_cell_type_probability": said.probabilities.max(1),
        "scmulan_cell_type_ontology_id": [canonical("cell_type", label).ontology_id for label in said.labels],
        "scmulan_cell_type_lineage": [as_answer(label)["lineage"] or "" for label in said.labels],
    }
    annotate_adata(adata, results, uns=stage.model.provenance(task="annotate", labels=said.classes))
    return adata


def show(stage: Stage, found: Labels) -> None:
    """The section of the page."""
    report, ours, theirs = stage.report, found.whole[OURS], found.whole[THEIRS]
    report.headline("accuracy of labels", ours.accuracy, f"{THEIRS} {shown(theirs.accuracy)}")
    report.section("1. Real cells that the model never saw", words(found))
    report.table([_checked(dataset) for dataset in stage.datasets], caption="What was found in each file (`scmulan check`).")
    rows = [_row("all", found.whole), *(_row(name, each) for name, each in found.by_dataset.items())]
    report.table(rows, emphasise="all", caption="Accuracy and macro-F1 on held-out cells; the baselines know of one data set each.")
    for name, title in _largest(found):
        picture = plots.confusion_matrix(found.by_dataset[name][OURS], title=title)
        stage.picture(picture, f"confusion_{name}", f"Labels said against true labels, {name}.")
    if ours.calibration:
        caption = "Where the model states a probability of 80 %, are 80 % of the labels right? On the line, they are."
        stage.picture(plots.reliability(ours.calibration), "reliability", caption)


def words(found: Labels) -> str:
    """What the figures say, in plain words."""
    ours, theirs = found.whole[OURS], found.whole[THEIRS]
    better = [name for name, each in found.by_dataset.items() if beats(each[OURS].accuracy, each[THEIRS].accuracy) == "better than"]
    worse = [name for name, each in found.by_dataset.items() if beats(each[OURS].accuracy, each[THEIRS].accuracy) == "worse than"]
    single = [name for name, each in found.by_dataset.items() if _is_single(each)]
    several = len(found.by_dataset) - len(single)
    text = (
        f"{ours.n:,} cells of {several or len(single)} data sets, human and mouse, were kept from the model in training. It is told "
        "species, assay and organ, and names the type of each cell among the types it has seen there.\n\n"
        f"It is right for {shown(100 * ours.accuracy)} % of them, {beats(ours.accuracy, theirs.accuracy)} logistic regression on log "
        f"counts ({shown(100 * theirs.accuracy)} %), which was fitted on each data set by itself and knows of no other; its macro-F1, in "
        f"which rare types weigh as much as common ones, is {shown(ours.macro_f1)}, {beats(ours.macro_f1, theirs.macro_f1)} the "
        f"regression's {shown(theirs.macro_f1)}."
    )
    if single and several:
        text += f" The cells of {', '.join(single)} are all of one type and are left out of these figures."
    if better or worse:
        text += f" By data set, the model is ahead on {', '.join(better) or 'none'} and behind on {', '.join(worse) or 'none'}."
    return text


def _checked(dataset: Dataset) -> dict[str, object]:
    report = dataset.held.report
    return {
        "data set": dataset.name,
        "species": ", ".join(sorted({str(value) for value in dataset.held.fields["organism"] if value})),
        "counts": report["values"].found,
        "genes": report["genes"].found.split(";")[0].split(", and at least")[0],
        "verdict": report.verdict,
        "held out": len(dataset.held),
        "training": len(dataset.train),
    }


def _row(name: str, found: dict[str, Annotation]) -> dict[str, object]:
    row: dict[str, object] = {"data set": name, "cells": found[OURS].n, "types": sum(score.support > 0 for score in found[OURS].classes)}
    for who, each in found.items():
        row[f"accuracy, {who}"] = each.accuracy
    for who, each in found.items():
        row[f"macro-F1, {who}"] = each.macro_f1
    return row


def _is_single(found: dict[str, Annotation]) -> bool:
    return sum(score.support > 0 for score in found[OURS].classes) == 1


def _largest(found: Labels, most: int = 2) -> list[tuple[str, str]]:
    """The data sets of several types with the most held-out cells, and a title for each."""
    several = [name for name, each in found.by_dataset.items() if not _is_single(each)]
    names = sorted(several, key=lambda name: -found.by_dataset[name][OURS].n)[:most]
    return [(name, name) for name in names]
