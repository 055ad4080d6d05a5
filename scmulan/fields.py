"""Labels of cells from the columns of ``obs``: which column holds which field, every value to its preferred label, the rest filled in.

Values that stand for nothing ("unknown", NaN) become None. What a label says of other fields is filled in where they are absent: a region
its organ, a cell type its lineage, a cell line its organ and disease. The original spelling is kept beside the preferred one.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scmulan import metadata
from scmulan.errors import CellDataError, nearest, some

Values = list[str | None]
KINDS: dict[str, tuple[type, ...]] = {
    "texts": (str,), "true or false": (bool, np.bool_), "numbers": (int, float, np.number), "dates": (datetime.date, np.datetime64),
}  # fmt: skip


@dataclass(kw_only=True)
class FieldSet:
    """Labels of n cells.

    Attributes
    ----------
    fields, originals
        Canonical field to n preferred labels, and to n labels as the data set spelled them; in the order of `metadata.FIELDS`.
    columns
        Canonical field to the place it was found in, ``obs['tissue']``.
    kinds
        Canonical field to how many cells have a text, a number, ... there.
    donors, datasets
        n donors and data sets, None where not given.
    """

    fields: dict[str, Values] = field(default_factory=dict)
    originals: dict[str, Values] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    donors: Values = field(default_factory=list)
    datasets: Values = field(default_factory=list)

    def put(self, name: str, values: Values, where: str) -> None:
        """Take a field's values as the data set spells them; a region or cell type may mean something else from organ to organ."""
        organs = self.fields.get("organ") if name in ("region", "cell_type") else None
        pairs = list(zip(values, organs or [None] * len(values), strict=True))
        labels = {pair: canonical_all(name, pair[0], pair[1]) for pair in dict.fromkeys(pairs) if pair[0] is not None}
        self.originals[name], self.fields[name], self.columns[name] = values, [labels.get(pair) for pair in pairs], where


def read_fields(obs: pd.DataFrame, chosen: Mapping[str, str], uns: Mapping[str, object]) -> FieldSet:
    """Fields of the cells in ``obs``.

    Parameters
    ----------
    obs
        A row a cell.
    chosen
        Field to the column to use, before the usual names (`metadata.obs_columns`).
    uns
        Where the species is when ``obs`` doesn't say it.

    Raises
    ------
    CellDataError
        A chosen field or column does not exist; the message names the nearest.
    """
    found, columns = FieldSet(), choose_columns(obs, chosen)
    for name in metadata.FIELDS:
        column = columns[name]
        if column is not None:
            found.put(name, _with_ids(obs, name, column), f"obs[{column!r}]")
            found.kinds[name] = kinds_of(values_of(obs, column))
    said = next((str(uns[key]) for key in metadata.obs_columns("organism") if isinstance(uns.get(key), str)), None)
    if said and "organism" not in found.fields:
        found.put("organism", [said] * len(obs), "uns['organism']")
    donor, dataset = columns["donor"], columns["dataset"]
    found.donors = _texts(values_of(obs, donor)) if donor else [None] * len(obs)
    found.datasets = _texts(values_of(obs, dataset)) if dataset else [None] * len(obs)
    _complete(found, len(obs))
    return found


def choose_columns(obs: pd.DataFrame, chosen: Mapping[str, str]) -> dict[str, str | None]:
    """The column of each field, donor and data set, None where there is none; CellDataError as `read_fields` says."""
    known = list(metadata.COLUMNS)
    for name in chosen:
        if name not in metadata.COLUMNS:
            raise CellDataError(f"field {name!r} is unknown; needed one of {', '.join(known)}{nearest(name, known)}")
    return {name: _column(obs, name, chosen.get(name)) for name in known}


def canonical_all(name: str, value: str | None, organ: str | None = None) -> str | None:
    """Preferred label; of each part where several are joined by " || " (diseases in CELLxGENE's schema)."""
    if value is None:
        return None
    return " || ".join(metadata.canonical(name, part, organ).value for part in value.split(" || "))


def _column(obs: pd.DataFrame, name: str, chosen: str | None) -> str | None:
    """The column of a field: the one chosen, else the first usual name that is there and has a value."""
    names = [str(column) for column in obs.columns]
    if chosen is not None:
        if chosen not in names:
            raise CellDataError(f"field {name}: obs has no column {chosen!r}; found {some(names, most=8)}{nearest(chosen, names)}")
        return chosen
    lower = {column.lower(): column for column in reversed(names)}
    for usual in metadata.obs_columns(name):
        column = usual if usual in names else lower.get(usual.lower())
        if column is not None and any(_texts(values_of(obs, column))) and not _speaks_of_disease(obs, name, column):
            return column
    return None


def _speaks_of_disease(obs: pd.DataFrame, name: str, column: str) -> bool:
    """Whether ``condition``, usually a perturbation, holds diseases here."""
    if name != "perturbation" or column.lower() != "condition":
        return False
    labels = [metadata.canonical("disease", value) for value in set(_texts(values_of(obs, column))) if value is not None]
    others = [label for label in labels if label.value != "normal"]
    # a gene's symbol may be a disease's synonym in MONDO (NF1): there, most values have to be diseases
    return any(label.in_table for label in others) or 2 * sum(label.known for label in others) > len(others)


def values_of(obs: pd.DataFrame, name: str) -> pd.Series:
    """A column by its name; the first of them where it stands there twice, or where the name is no text."""
    return obs.iloc[:, [str(column) for column in obs.columns].index(name)]


def _distinct(column: pd.Series) -> tuple[np.ndarray, list[object]]:
    """Each value's place among the distinct ones, -1 for one that stands for nothing; lists and the like are distinct by their text."""
    values = column.astype(object)
    try:
        codes, categories = pd.factorize(values, use_na_sentinel=True)
    except TypeError:  # lists and the like can't be compared
        codes, categories = pd.factorize(values.map(str), use_na_sentinel=True)
    kept = np.array([not metadata.is_absent(value) for value in categories], dtype=bool)
    return np.where((codes >= 0) & np.append(kept, False)[codes], codes, -1), list(categories)


def _texts(column: pd.Series) -> Values:
    """Values as text, None where absent."""
    codes, categories = _distinct(column)
    names = [str(value) for value in categories]
    return [names[code] if code >= 0 else None for code in codes.tolist()]


def kinds_of(column: pd.Series) -> dict[str, int]:
    """How many values are text, numbers, true or false, or something else; absent ones are not counted.

    >>> kinds_of(pd.Series(["B cell", 3, None, 0.5]))
    {'numbers': 2, 'texts': 1}
    """
    codes, categories = _distinct(column)
    often, found = np.bincount(codes[codes >= 0], minlength=len(categories)), Counter[str]()
    for value, count in zip(categories, often.tolist(), strict=True):
        found[next((kind for kind, types in KINDS.items() if isinstance(value, types)), "others")] += count
    return {kind: count for kind, count in found.most_common() if count}


def _with_ids(obs: pd.DataFrame, name: str, column: str) -> Values:
    """Values of a column; one that is not in the table is replaced by its ontology id where that is given too and known."""
    values = _texts(values_of(obs, column))
    id_column = next((usual for usual in metadata.obs_columns(name) if usual.endswith("_ontology_term_id") and usual in obs.columns), None)
    if id_column is None or id_column == column:
        return values
    pairs = list(zip(values, _texts(values_of(obs, id_column)), strict=True))
    best = {pair: _better(name, *pair) for pair in dict.fromkeys(pairs)}
    return [best[pair] for pair in pairs]


def _better(name: str, value: str | None, ontology_id: str | None) -> str | None:
    if ontology_id is None or (value is not None and metadata.canonical(name, value).in_table):
        return value
    return ontology_id if value is None or metadata.canonical(name, ontology_id).known else value


def _complete(found: FieldSet, n_cells: int) -> None:
    """Fill in what labels imply, cell by cell but each combination once."""
    none: Values = [None] * n_cells
    names = ("organ", "cell_type", "region", "disease", "lineage")
    rows = list(zip(*(found.fields.get(name, none) for name in names), strict=True))
    filled = {row: implied(*row) for row in dict.fromkeys(rows)}
    for position, name in enumerate(("organ", "region", "disease", "lineage")):
        values = [filled[row][position] for row in rows]
        if any(values):
            found.fields[name] = values
            found.originals.setdefault(name, none)
            found.columns.setdefault(name, "implied by other fields")
    present = [name for name in metadata.FIELDS if any(found.fields.get(name, ()))]
    found.fields = {name: found.fields[name] for name in present}
    found.originals = {name: found.originals[name] for name in present}


def implied(
    organ: str | None, cell_type: str | None, region: str | None, disease: str | None, lineage: str | None
) -> tuple[str | None, str | None, str | None, str | None]:
    """Organ, region, disease and lineage of a cell after filling in what its other labels say.

    A region given as the organ is taken apart, by the table or else by UBERON, and the organ that a cell type implies replaces an absent
    one and "cell culture".

    >>> implied("cerebral cortex", None, None, None, None)
    ('brain', 'cerebral cortex', None, None)
    >>> implied("dentate gyrus of hippocampal formation", None, None, None, None)
    ('brain', 'dentate gyrus of hippocampal formation', None, None)
    >>> implied("cell culture", "A549 cell", None, None, None)
    ('lung', None, 'lung adenocarcinoma', 'malignant cell')
    """
    kind = metadata.canonical("cell_type", cell_type) if cell_type else None
    says: Mapping[str, str] = kind.implies if kind else {}
    if organ and (whole := (place := metadata.canonical("organ", organ)).implies.get("organ")):
        organ, region = whole, region or place.value
    if organ is None or metadata.CULTURE in (organ, says.get("organ")):
        region = region or says.get("region")
        of_region = metadata.canonical("region", region).implies.get("organ") if region else None
        organ = says.get("organ") or of_region or organ
    return organ, region, disease or says.get("disease"), lineage or (kind.lineage if kind else None) or None


def unique_names(names: Sequence[str]) -> list[str]:
    """Names with ``-1``, ``-2`` ... added to those seen before.

    >>> unique_names(["a", "a", "a-1"])
    ['a', 'a-2', 'a-1']
    """
    taken, numbers, unique = set(names), dict[str, int](), list[str]()
    for name in names:
        if name not in numbers:
            numbers[name] = 0
            unique.append(name)
            continue
        while (spelled := f"{name}-{(number := numbers[name] + 1)}") in taken:
            numbers[name] = number
        numbers[name] = number
        taken.add(spelled)
        unique.append(spelled)
    return unique
