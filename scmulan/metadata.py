"""Labels of cells as text: any spelling of an organ, cell type, assay ... to one preferred label and its ontology id.

The table is ``tokenizer/labels.tsv``, for people to read and extend: field, preferred label (the ontology's name where one exists),
ontology id (of the term, or of the nearest broader one), lineage (cell types only), what the label implies for other fields,
and synonyms (``Basal [skin]`` holds in that organ only). Letter case, plurals, underscores, hyphens, British spelling and a bracketed
remark make no difference. What the table does not know is looked up in the ontologies (`scmulan.ontology`), and takes lineage and organ
from the nearest terms above it that the table knows. What neither knows passes through as cleaned text and says so; it is never dropped.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from scmulan import assets, ontology
from scmulan.errors import CellDataError, VocabularyError, nearest
from scmulan.ontology import Ontology
from scmulan.spelling import keys, plain

FIELDS: tuple[str, ...] = (
    "organism", "assay", "organ", "region", "disease", "stage", "sex", "time", "perturbation", "dose", "lineage", "cell_type",
)  # fmt: skip
ABSENT = frozenset(("", "unknown", "na", "n/a", "nan", "none", "null", "<na>", "not available", "not applicable", "unassigned", "-", "?"))
CULTURE = "cell culture"  # the organ of cells that are of none; gives way to the organ a cell type implies
UNITS = {"d": "day", "day": "day", "days": "day", "h": "hour", "hr": "hour", "hrs": "hour", "hour": "hour", "hours": "hour",
         "w": "week", "wk": "week", "week": "week", "weeks": "week", "min": "minute", "minutes": "minute"}  # fmt: skip
COLUMNS: dict[str, tuple[str, ...]] = {
    "organism": ("organism", "species", "organism_ontology_term_id"),
    "assay": ("assay", "technology", "protocol", "platform", "chemistry", "method", "assay_ontology_term_id"),
    "organ": ("organ", "tissue", "tissue_general", "organ_part", "tissue_ontology_term_id"),
    "region": ("region", "tissue_region", "anatomical_region", "subtissue"),
    "disease": ("disease", "diagnosis", "disease_state", "disease_status", "disease_ontology_term_id"),
    "stage": ("development_stage", "developmental_stage", "stage", "age_group", "age", "development_stage_ontology_term_id"),
    "sex": ("sex", "gender", "sex_ontology_term_id"),
    "time": ("time", "timepoint", "time_point", "day", "days", "time_info"),
    "perturbation": ("perturbation", "perturbations", "target_gene", "gene_target", "treatment", "stimulation", "stim", "condition"),
    "dose": ("dose", "dosage", "dose_value", "concentration"),
    "lineage": ("lineage", "cell_lineage", "major_cell_type", "broad_cell_type"),
    "cell_type": (
        "cell_type", "celltype", "cell_types", "celltypes", "cell_ontology_class", "cell_label", "cell_annotation", "annotation",
        "author_cell_type", "cell_type_ontology_term_id",
    ),
    "donor": ("donor_id", "donor", "individual", "patient", "patient_id", "subject", "animal", "mouse_id", "replicate"),
    "dataset": ("dataset_id", "dataset", "study", "project"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Label:
    """A value of a field: preferred spelling, ontology id (or ``""``), as it was written, and whether it is known, and in the table."""

    value: str
    original: str
    ontology_id: str = ""
    lineage: str = ""
    implies: dict[str, str] = field(default_factory=dict)
    known: bool = False
    in_table: bool = False


def obs_columns(name: str) -> tuple[str, ...]:
    """Column names of ``obs`` in which a field (or ``"donor"``, ``"dataset"``) is looked for, best first."""
    if name not in COLUMNS:
        raise VocabularyError(f"field {name!r} is unknown; needed one of {', '.join(COLUMNS)}{nearest(name, list(COLUMNS))}")
    return COLUMNS[name]


def is_absent(value: object) -> bool:
    """Whether a value stands for no value: ``None``, NaN, ``""``, ``"unknown"``, ``"NA"`` ..."""
    return value is None or value != value or str(value).strip().lower() in ABSENT


def canonical(name: str, value: str, organ: str | None = None) -> Label:
    """Preferred label of a field's value, given as label, synonym or ontology id in any spelling.

    Where an organ is given, what a spelling means there goes first: the table's ``Basal [skin]``. The table goes before the ontologies.

    Examples
    --------
    >>> canonical("cell_type", "CD19+ B").value, canonical("cell_type", "b_cells").ontology_id
    ('B cell', 'CL:0000236')
    >>> canonical("cell_type", "CL_0000985").value, canonical("cell_type", "IgG plasma cells").lineage
    ('IgG plasma cell', 'B cell')
    >>> canonical("organ", "cell of  Mars").known
    False
    """
    obs_columns(name)
    original = str(value)
    tried = keys(name, original, organ)
    found = next((label for key in tried if (label := _table().get((name, key)))), None) or _of_term(name, tuple(tried))
    if found is not None:
        return dataclasses.replace(found, original=original)
    if name == "lineage":
        kind = canonical("cell_type", original)
        return Label(value=kind.value, original=original, ontology_id=kind.ontology_id, known=kind.known)
    time = _time(original) if name == "time" else None
    cleaned = re.sub(r"[\s_]+", " ", original).strip()
    return Label(value=time or cleaned or original, original=original, known=time is not None)


def lineage_of(cell_type: str) -> str | None:
    """Coarse type of a cell type, for example ``"T cell"``; None when the table does not know it.

    >>> lineage_of("Treg")
    'T cell'
    """
    return canonical("cell_type", cell_type).lineage or None


def known_labels(name: str) -> list[str]:
    """Preferred labels of a field, in the order of the table."""
    return list(dict.fromkeys(label.value for (field_name, _), label in _table().items() if field_name == name))


@functools.lru_cache(maxsize=16)
def labels_by_spelling(name: str) -> dict[str, str]:
    """Preferred label of every spelling of a field in the table, by its plain key."""
    return {key: label.value for (field_name, key), label in _table().items() if field_name == name}


def _time(text: str) -> str | None:
    """``"D6"``, ``"6 days"`` and a bare ``"6.0"`` to ``"day 6"``, ``"24h"`` to ``"hour 24"``; None for what is no time."""
    unit = "|".join(UNITS)
    found = re.fullmatch(rf"(?i)({unit})?[ _-]?(\d+(?:\.\d+)?)[ _-]?({unit})?", text.strip())
    if found is None or (found[1] and found[3]):
        return None
    return f"{UNITS[(found[1] or found[3] or 'd').lower()]} {float(found[2]):g}"


@functools.lru_cache(maxsize=4096)
def _of_term(name: str, tried: tuple[str, ...]) -> Label | None:
    """Label of a spelling that the field's rows of the table lack and its ontologies know; the table's row where it has the term."""
    table = _table()
    if name == "organ" and (region := next((table[place] for key in tried if (place := ("region", key)) in table), None)):
        return region
    term = ontology.find(name, tried)
    if term is None:
        return None
    same = [(name, plain(term.id)), (name, plain(term.label))] + ([("region", plain(term.id))] if name == "organ" else [])
    if row := next((table[place] for place in same if place in table), None):
        return row
    lineage = _lineage(term.id) if name == "cell_type" else ""
    organ = _organ(term.id) if name in ("organ", "region") else ""
    implies = {"organ": organ} if organ else {}
    return Label(value=term.label, original=term.label, ontology_id=term.id, lineage=lineage, implies=implies, known=True)


def _organ(term_id: str) -> str:
    """The table's organ that a place is or is part of, ``""`` when it is in none."""
    organs = _rows_by_id("organ")
    found = Ontology.load("UBERON").roll_up(term_id, organs)
    return organs[found].value if found else ""


def _lineage(term_id: str) -> str:
    """Lineage of a cell type outside the table: that of the most specific types above it in the table, ``""`` where there is none.

    Where these disagree, one whose lineage the ontology bears out goes first (not so: a secretory cell, epithelial by the table), then one
    that is no heading of other lineages (a macrophage of the brain is a macrophage before it is a neural cell), then the nearest.
    """
    rows, cells = _rows_by_id("cell_type"), Ontology.load("CL")
    borne_out, headings = _lineage_terms()
    found = cells.most_specific(term_id, rows)
    best = min(found, key=lambda each: (each not in borne_out, each in headings, found[each]), default=None)
    return rows[best].lineage if best else ""


@functools.lru_cache(maxsize=1)
def _lineage_terms() -> tuple[frozenset[str], frozenset[str]]:
    """Terms of the table that are of their lineage by the ontology too, and lineages that stand above other lineages."""
    rows, cells = _rows_by_id("cell_type"), Ontology.load("CL")
    of = {name: canonical("cell_type", name).ontology_id for name in {label.lineage for label in rows.values()}}
    lineages = set(filter(None, of.values()))
    borne_out = frozenset(each for each, label in rows.items() if of[label.lineage] and cells.is_a(each, of[label.lineage]))
    return borne_out, frozenset(above for each in lineages for above in cells.ancestors(each) if above != each and above in lineages)


@functools.lru_cache(maxsize=4)
def _rows_by_id(name: str) -> dict[str, Label]:
    """The table's first row of each term of a field, in the order of the table; rows without an id are not among them."""
    found: dict[str, Label] = {}
    for (field_name, _), label in _table().items():
        if field_name == name and label.ontology_id:
            found.setdefault(label.ontology_id, label)
    return found


@functools.lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str], Label]:
    return read_labels(assets.path("tokenizer", "labels.tsv"))


def read_labels(path: Path) -> dict[tuple[str, str], Label]:
    """(field, plain spelling) to label; a label's own spelling wins over a synonym, the earlier row over the later."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    labels: list[tuple[str, Label, list[str]]] = []
    for number, row in enumerate(rows, start=2):
        if len(row) != 6 or row[0] not in FIELDS:
            raise CellDataError(f"{path}, line {number}: found {row[:2]}, needed six tab-separated columns that begin with a field")
        name, value, ontology_id, lineage, implied, spellings = row
        implies = dict(pair.split("=", 1) for pair in implied.split("|") if pair)
        label = Label(value=value, original=value, ontology_id=ontology_id, lineage=lineage, implies=implies, known=True, in_table=True)
        labels.append((name, label, [*filter(None, spellings.split("|")), *filter(None, [ontology_id])]))
    table: dict[tuple[str, str], Label] = {}
    for name, label, _ in labels:
        table.setdefault((name, plain(label.value)), label)
    for name, label, synonyms in labels:
        for spelling in synonyms:
            table.setdefault((name, plain(spelling)), label)
    for (name, key), label in list(table.items()):
        table.setdefault((name, key.replace("-", " ")), label)
    return table
