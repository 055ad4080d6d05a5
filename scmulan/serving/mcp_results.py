"""What the tools return: plain data of a few dozen rows at most, whose schemas assistants are told, and sentences beside it.

Every number is one of a result object of scmulan, counted or averaged over its cells; what is left out of a list is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from scmulan.cells import AnnData
from scmulan.tasks_saying import LISTED, Saying

MOST_ROWS = 24
"""Rows of a list in a result."""
MOST_GENES = 10
SIGNIFICANT = 5


class Result(BaseModel):
    """What every tool returns."""

    output: str | None = Field(default=None, description="File that was written, inside the server's folder.")
    warnings: list[str] = Field(default=[], description="What to know of before the result is used.")


class LabelRow(BaseModel):
    """A label and the cells that got it."""

    label: str
    cells: int
    mean_probability: float | None = Field(default=None, description="Of the label, over those cells.")


class Labels(BaseModel):
    """Labels that cells got, most cells first."""

    rows: list[LabelRow]
    left_out: int = Field(default=0, description="Labels of fewer cells that are not listed.")


class Labelled(Result):
    """Cells with the label of one field each."""

    cells: int
    mean_probability: float = Field(description="Of each cell's own label, over all cells.")
    labels: Labels
    never_seen: list[str] = Field(default=[], description="Labels asked for that no training cell had: told by their words alone.")
    by_cluster: dict[str, str] = Field(default={}, description="The label of the largest summed probability of each cluster.")
    fates: dict[str, float] = Field(default={}, description="Mean probability of each type over all cells.")


class Described(Result):
    """Cells with the labels of every field."""

    cells: int
    fields: dict[str, Labels]


class Embedded(Result):
    """Cells with an embedding."""

    cells: int
    dimensions: int
    key: str = Field(description="Of obsm, in the file that was written.")


class GeneRow(BaseModel):
    """A gene and what was found of it."""

    gene: str
    value: float = Field(description="Mean CP10k, log2 change or shift, as the result says.")
    low: float | None = Field(default=None, description="Lower end of a 95 % interval over cells.")
    high: float | None = Field(default=None, description="Upper end of it.")
    q: float | None = Field(default=None, description="False discovery rate.")


class Written(Result):
    """Cells that the model wrote."""

    cells: int
    median_counts: float
    median_genes: float
    fields: dict[str, Labels] = Field(default={}, description="Labels of the cells, by field.")
    top_genes: list[GeneRow] = Field(description="Genes by mean CP10k over the cells.")


class Changed(Written):
    """Cells as they would be after a change."""

    changed_genes: int | None = Field(default=None, description="Genes with q below 0.05; none is told of fewer than ten cells.")
    changes: list[GeneRow] = Field(default=[], description="Genes by log2 change, the largest first, either way.")


class ShiftRow(BaseModel):
    """A perturbation that may have turned some cells into others."""

    perturbation: str
    probability: float = Field(description="Over all cells as one population.")
    mean_probability: float = Field(description="Of a single cell.")
    cells: int = Field(description="Cells of which it is the likeliest.")


class Explained(Result):
    """Perturbations, likeliest first."""

    cells: int
    rows: list[ShiftRow]
    left_out: int = 0


class Enhanced(Written):
    """Cells as if measured deeper."""

    median_counts_before: float


class Edited(Result):
    """What the model makes of cells whose genes were edited; a reading, not an intervention that was learnt."""

    genes: dict[str, str | int]
    cells: int
    cells_changed: int
    cells_without_the_gene: dict[str, int]
    cosine: float | None = Field(default=None, description="Mean distance of embeddings before and after, of the cells changed.")
    log_likelihood: float | None = Field(default=None, description="Nats by which the rest of a cell became likelier.")
    probability_shift: dict[str, float] = Field(default={}, description="Mean shift of each label's probability, the largest first.")


class ScreenRow(BaseModel):
    """A gene, or a pair, and how far editing it takes cells toward the goal."""

    rank: int
    gene: str
    shift: float | None = Field(default=None, description="Mean over the cells that the edit changed, in the units of `by`.")
    share_toward: float | None = Field(default=None, description="Share of those cells that go toward the goal.")
    cells: int
    z: float | None = Field(default=None, description="Beside genes that are detected as often, as p and q.")
    p: float | None = None
    q: float | None = None


class Screened(Result):
    """Genes ranked toward a goal; a reading, not an intervention that was learnt."""

    genes: int = Field(description="Genes or pairs ranked; rows has the first of them.")
    cells: int
    toward: list[str]
    away: list[str]
    by: str
    rows: list[ScreenRow]


class Found(Result):
    """What the nearest reference cells of some cells are."""

    cells: int
    neighbours: int
    mean_distance: float | None = None
    fields: dict[str, Labels] = Field(description="Labels of the neighbours, by field; cells counts neighbours.")


class Answered(Result):
    """A question, how it was read, and the answer."""

    request: list[dict[str, Any]] = Field(description="What was done; give it back as `request`, corrected, where the reading is wrong.")
    probability: float = Field(description="Of this reading; below 0.5 it is to be checked.")
    notes: list[str] = Field(default=[], description="Names that were mended or are not known.")
    answer: str = Field(description="Every number in it is a fact of a result.")
    results: list[dict[str, Any]] = Field(default=[], description="For each request: whether it was done, the sentences and their facts.")


class Checked(Result):
    """What the doctor found in a file."""

    verdict: str = Field(description="ok, warning or problem; with a problem the file can't be used.")
    findings: list[dict[str, Any]] = Field(description="Question, verdict, what was found, and the fix where one is needed.")


def number(value: Any) -> float | None:
    """A number to five significant digits; None for what is none."""
    found = float(value)
    return float(f"{found:.{SIGNIFICANT}g}") if math.isfinite(found) else None


def plain(value: Any) -> Any:
    """Facts as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return number(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def labels_of(labels: pd.Series[Any], probability: pd.Series[Any] | None = None) -> Labels:
    """Labels by how many cells have them, with the mean probability of those."""
    names = labels.astype(object).where(labels.notna(), "unknown").astype(str)
    counts = names.value_counts()
    means = probability.groupby(names.to_numpy()).mean() if probability is not None else None
    rows = [
        LabelRow(label=str(label), cells=int(n), mean_probability=number(means[str(label)]) if means is not None else None)
        for label, n in counts.iloc[:MOST_ROWS].items()
    ]
    return Labels(rows=rows, left_out=max(0, len(counts) - MOST_ROWS))


def said_of_labels(template: str, labels: Labels, n: int, p: float, **facts: Any) -> str:
    """The sentence that `ask` would say of labels."""
    saying = Saying()
    entries = [{"label": row.label, "count": row.cells, "share": row.cells / n} for row in labels.rows[:LISTED]]
    saying.add_list(template, entries, n=n, p=p, **facts)
    return " ".join(saying.sentences)


def sizes_of(cells: AnnData) -> dict[str, Any]:
    """Counts and genes of the median cell, and the genes that cells have most of."""
    counts = cells.layers["counts"].tocsr()
    depth = np.asarray(counts.sum(1)).ravel()
    shares = np.asarray(cells.X.expm1().mean(0)).ravel()  # X is log1p CP10k
    order = np.argsort(-shares, kind="stable")[:MOST_GENES]
    top = [GeneRow(gene=str(cells.var_names[place]), value=number(shares[place]) or 0.0) for place in order]
    return {
        "cells": int(cells.n_obs),
        "median_counts": float(np.median(depth)),
        "median_genes": float(np.median(np.diff(counts.indptr))),
        "top_genes": top,
    }


def fields_of(cells: AnnData, names: Sequence[str]) -> dict[str, Labels]:
    """Labels of cells by field, of those fields that they have."""
    return {name: labels_of(cells.obs[name]) for name in names if name in cells.obs}
