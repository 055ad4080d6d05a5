"""Third part: organ and every other field of a cell, asked of the model when it is given the cell alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scmulan import plots
from scmulan.cells import Cells
from scmulan.demo.labels import as_adata
from scmulan.demo.stage import Stage
from scmulan.evaluate import bars
from scmulan.evaluate.cells import counter, pooled
from scmulan.evaluate.page import beats
from scmulan.measures import baselines, metrics
from scmulan.report import shown

N_GENES = 1000
MOST_TRAINED = 100
OURS, REGRESSION, COMMONEST = "scmulan", "logistic regression", "commonest value"


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Share of cells whose field was said rightly, by field and by who said it, and the number of cells that have the field.

    ``examples`` holds, for a few cells, each field's probabilities and the true values.
    """

    n: int
    right: dict[str, dict[str, float]]
    cells: dict[str, int]
    examples: list[dict[str, dict[str, float]]]
    true: list[dict[str, str]]


def run(stage: Stage) -> Fields:
    """Ask all fields of a sample of held-out cells, and show how many are right."""
    stage.say("3  Organ and every other field, from the cell alone")
    cells = _sample(stage)
    adata = as_adata(stage.model, cells)
    with bars() as on_progress:
        described = stage.model.describe(adata, on_cell=counter(on_progress, "describe", len(cells)))
        located = stage.model.locate(adata, on_cell=counter(on_progress, "locate", len(cells)))
    found = measure(stage, cells, described, located)
    show(stage, found)
    stage.say("   right: " + ", ".join(f"{name} {shown(each[OURS])}" for name, each in found.right.items()))
    return found


def _sample(stage: Stage) -> Cells:
    """Held-out cells drawn evenly over data sets."""
    rng, share = np.random.default_rng([stage.seed, 5]), -(-stage.sizes.described // len(stage.datasets))
    return pooled([dataset.held.take(np.sort(rng.permutation(len(dataset.held))[:share])) for dataset in stage.datasets])


def measure(stage: Stage, cells: Cells, described: dict[str, pd.DataFrame], located: pd.DataFrame) -> Fields:
    """Accuracy of each field over the cells that have it, beside the commonest training value and a regression."""
    right: dict[str, dict[str, float]] = {}
    n: dict[str, int] = {}
    beside: dict[str, tuple[list[str], list[str]]] = {}
    for name, table in {"organ (locate)": located, **described}.items():
        field = name.split(" ")[0]
        true = cells.fields.get(field) or [None] * len(cells)
        rows = [row for row, value in enumerate(true) if value is not None]
        if not rows:
            continue
        said = table.idxmax(axis=1).to_numpy()
        if field not in beside:
            beside[field] = _baselines(stage, field, cells, rows)
        usual, fitted = beside[field]
        answers = {OURS: said[rows], REGRESSION: fitted, COMMONEST: usual}
        truth = np.array([true[row] for row in rows], dtype=object)
        right[name] = {who: float((np.asarray(answer, dtype=object) == truth).mean()) for who, answer in answers.items()}
        n[name] = len(rows)
    chosen = _examples(cells)
    return Fields(
        n=len(cells), right=right, cells=n,
        examples=[{name: _likeliest(table.iloc[row]) for name, table in described.items()} for row in chosen],
        true=[{name: str(values[row]) for name, values in cells.fields.items() if name in described and values[row]} for row in chosen],
    )  # fmt: skip


def _baselines(stage: Stage, field: str, cells: Cells, rows: list[int]) -> tuple[list[str], list[str]]:
    """The commonest training value, and what logistic regression says, for some cells; it is fitted on cells of all data sets."""
    rng = np.random.default_rng([stage.seed, 6])
    train = pooled([dataset.train.take(rng.permutation(len(dataset.train))[:MOST_TRAINED]) for dataset in stage.datasets])
    values = train.fields.get(field) or [None] * len(train)
    known = [row for row, value in enumerate(values) if value is not None]
    labels = [str(values[row]) for row in known]
    every = [str(value) for dataset in stage.datasets for value in dataset.train.fields.get(field) or [] if value is not None]
    usual = max(set(every), key=lambda value: (every.count(value), value))
    if len(set(labels)) < 2:
        return [usual] * len(rows), [usual] * len(rows)
    genes = np.flatnonzero(np.asarray((train.counts > 0).sum(0)).ravel() >= 5)
    genes = genes[metrics.highly_variable(metrics.log_cp10k(train.counts[:, genes]), min(N_GENES, len(genes)))]
    fitted = baselines.fit_logistic_regression(train.counts[known][:, genes], labels)
    return [usual] * len(rows), fitted.predict(cells.counts[rows][:, genes]).labels


def _examples(cells: Cells, most: int = 2) -> list[int]:
    """The first cells of those data sets whose cells have the most fields."""
    filled = [sum(values[row] is not None for values in cells.fields.values()) for row in range(len(cells))]
    first = {name: row for row, name in reversed(list(enumerate(cells.dataset)))}
    return sorted(first.values(), key=lambda row: (-filled[row], row))[:most]


def _likeliest(probabilities: pd.Series, most: int = 5) -> dict[str, float]:
    return {str(value): float(p) for value, p in probabilities.sort_values(ascending=False)[:most].items()}


def show(stage: Stage, found: Fields) -> None:
    """The section of the page."""
    stage.report.section("3. Organ and every other field, from the cell alone", words(found))
    rows = [{"field": name, "cells": found.cells[name], **each} for name, each in found.right.items()]
    stage.report.table(rows, caption="Share of cells of which the field was said rightly, over the held-out cells that have it.")
    for number, (answers, true) in enumerate(zip(found.examples, found.true, strict=True), 1):
        told = {name: values for name, values in answers.items() if name in true or next(iter(values)) != "none"}
        title = f"What the model tells of one cell: {true.get('cell_type', 'of no known type')}"
        stage.picture(
            plots.field_probabilities(told, true=true, title=title),
            f"fields_{number}",
            "Likeliest values of each field; the true ones are marked.",
        )


def words(found: Fields) -> str:
    """What the figures say, in plain words."""
    verdicts: dict[str, list[str]] = {}
    for name, each in found.right.items():
        verdicts.setdefault(beats(each[OURS], each[REGRESSION]), []).append(name.replace("_", " "))
    text = (
        f"Here the model is told nothing but the counts of a cell, and is asked where it comes from and how it was measured. {found.n:,} "
        "held-out cells, evenly over the data sets. Note that each data set has its own assay, so that much is told by how deep a cell "
        "is and which genes it lacks; a regression on 1,000 variable genes finds the same."
    )
    parts = [f"it is {verdict} that regression for {', '.join(names)}" for verdict, names in verdicts.items()]
    return f"{text}\n\nOf the fields, {'; '.join(parts)}."
