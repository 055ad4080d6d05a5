"""Answers at a coarser level: probabilities of cell types summed up to lineages, or to any terms of the Cell Ontology.

The sums are exact, because the labels exclude each other. What is of none of the terms asked for is summed too, as ``other``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scmulan.errors import PromptError, nearest, some
from scmulan.labels import as_answer, choose
from scmulan.metadata import canonical, known_labels
from scmulan.ontology import Ontology

LEVELS = ("cell_type", "lineage")
UNASSIGNED, OTHER = "unassigned", "other"


def coarsen(table: pd.DataFrame, level: str | Sequence[str]) -> pd.DataFrame:
    """Probabilities (C, labels) summed up to a level; (C, coarser labels), in the order of the terms, else of the alphabet.

    Raises
    ------
    PromptError
        When two of the terms are one, one is no cell type that is known, or no label is of any of them.

    Examples
    --------
    >>> coarsen(pd.DataFrame({"naive B cell": [0.2], "plasma cell": [0.3], "natural killer cell": [0.5]}), "lineage").to_dict("records")
    [{'B cell': 0.5, 'natural killer cell': 0.5}]
    """
    if level == "cell_type":
        return table
    above = coarser([str(label) for label in table.columns], level)
    names = sorted(set(above.values())) if level == "lineage" else terms_of(level)
    names += [OTHER] * (OTHER in above.values() and OTHER not in names)
    sums = {name: table[[label for label in table.columns if above[str(label)] == name]].sum(axis=1) for name in names}
    return pd.DataFrame(sums, index=table.index)


def coarser(labels: Sequence[str], level: str | Sequence[str]) -> dict[str, str]:
    """What each label is at a level: itself, its lineage (itself where none is known), or the most specific of some terms."""
    if level == "cell_type":
        return {label: label for label in labels}
    if level == "lineage":
        return {label: as_answer(label)["lineage"] or label for label in labels}
    terms = terms_of(level)
    found = {label: _among(label, terms) for label in labels}
    if set(found.values()) == {OTHER}:
        raise PromptError(f"level: none of {some(labels)} is one of {some(terms)}; needed cell_type, lineage, or terms above the labels")
    return found


def terms_of(level: str | Sequence[str]) -> list[str]:
    """The terms of a level in preferred spelling; PromptError where one is not known."""
    given = [level] if isinstance(level, str) else list(level)
    for term in given:
        if term.lower() in LEVELS:
            raise PromptError(f"level {term!r} stands alone: give it by itself, in small letters, or cell types by name or id")
        if not canonical("cell_type", term).known:
            near = nearest(term, [*LEVELS, *known_labels("cell_type")])
            raise PromptError(f"level {term!r}: not a known cell type{near}; needed cell_type, lineage, or cell types by name or id")
    return choose(given, "level")


def as_obs(table: pd.DataFrame, key: str, threshold: float) -> dict[str, Any]:
    """Columns for ``obs`` from probabilities (C, labels): the likeliest label of each cell, its probability, ontology id and lineage."""
    best = table.to_numpy().argmax(1)
    probability = table.to_numpy()[np.arange(len(table)), best]
    said = np.where(probability >= threshold, table.columns.to_numpy()[best], UNASSIGNED)
    kinds = {label: canonical("cell_type", label) for label in set(said) - {UNASSIGNED, OTHER}}
    ids = [kinds[label].ontology_id if label in kinds else "" for label in said]
    lineages = [kinds[label].lineage if label in kinds else "" for label in said]
    return {key: list(said), f"{key}_probability": probability, f"{key}_ontology_id": ids, f"{key}_lineage": lineages}


def _among(label: str, terms: Sequence[str]) -> str:
    """The most specific of some terms that a label is, by its own id or by its lineage's; ``other`` when it is none of them."""
    kind, cells = canonical("cell_type", label), Ontology.load("CL")
    if kind.value in terms:
        return kind.value
    by_id = {known.ontology_id: term for term in terms if (known := canonical("cell_type", term)).ontology_id in cells}
    of = [kind.ontology_id, canonical("cell_type", kind.lineage).ontology_id if kind.lineage else ""]
    own, by_lineage = (cells.roll_up(each, by_id) if each in cells else None for each in of)
    if own and by_lineage:  # a plasma cell is a leukocyte by its id and a B cell by its lineage: a B cell
        return by_id[by_lineage if cells.is_a(by_lineage, own) else own]
    return by_id.get(own or by_lineage or "", OTHER)
