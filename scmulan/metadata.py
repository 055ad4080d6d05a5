"""Labels of cells as text: any spelling of an organ, cell type, assay ... to one preferred label and its ontology id.

The table is ``tokenizer/labels.tsv``, for people to read and extend: field, preferred label (the ontology's name where one exists),
ontology id (of the term, or of the nearest broader one), lineage (cell types only), what the label implies for other fields,
and synonyms (``Basal [skin]`` holds in that organ only). Letter case, plurals, underscores, hyphens, British spelling and a bracketed
remark make no difference. A label the table does not know passes through as cleaned text and says so; it is never dropped.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from scmulan import assets
from scmulan.errors import CellDataError, VocabularyError, nearest

FIELDS: tuple[str, ...] = (
    "organism", "assay", "organ", "region", "disease", "stage", "sex", "time", "perturbation", "dose", "lineage", "cell_type",
)  # fmt: skip
ABSENT = frozenset(("", "unknown", "na", "n/a", "nan", "none", "null", "<na>", "not available", "not applicable", "unassigned", "-", "?"))
CULTURE = "cell culture"  # the organ of cells that are of none; gives way to the organ a cell type implies
BRACKET_FIELDS = frozenset(("assay", "organ", "region"))  # here a bracketed remark does not change what the label names
BRITISH = {"haem": "hem", "aemia": "emia", "oesoph": "esoph", "tumour": "tumor", "foet": "fet", "paed": "ped", "neurone": "neuron"}
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
    """A value of a field: preferred spelling, ontology id (or ``""``), as it was written, and whether the table knows it."""

    value: str
    original: str
    ontology_id: str = ""
    lineage: str = ""
    implies: dict[str, str] = field(default_factory=dict)
    known: bool = False


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

    Where an organ is given, what a spelling means there goes first: the table's ``Basal [skin]``.

    Examples
    --------
    >>> canonical("cell_type", "CD19+ B").value, canonical("cell_type", "b_cells").ontology_id
    ('B cell', 'CL:0000236')
    >>> canonical("organ", "Swim  bladder").known
    False
    """
    obs_columns(name)
    original = str(value)
    found = next((label for key in _keys(name, original, organ) if (label := _table().get((name, key)))), None)
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


def _time(text: str) -> str | None:
    """``"D6"``, ``"6 days"`` and a bare ``"6.0"`` to ``"day 6"``, ``"24h"`` to ``"hour 24"``; None for what is no time."""
    unit = "|".join(UNITS)
    found = re.fullmatch(rf"(?i)({unit})?[ _-]?(\d+(?:\.\d+)?)[ _-]?({unit})?", text.strip())
    if found is None or (found[1] and found[3]):
        return None
    return f"{UNITS[(found[1] or found[3] or 'd').lower()]} {float(found[2]):g}"


def _plain(text: str) -> str:
    """Key under which a spelling is looked up: lower case, American, no underscores or double spaces."""
    key = re.sub(r"[\s_]+", " ", text.strip().lower()).replace("’", "'")
    for british, american in BRITISH.items():
        key = key.replace(british, american)
    return key


def _keys(name: str, text: str, organ: str | None) -> list[str]:
    """Keys to try for a spelling, the exact one first."""
    key = _plain(text)
    keys = [f"{key} [{_plain(organ)}]", key] if organ else [key]
    if name in BRACKET_FIELDS:
        keys.append(re.sub(r" ?\([^()]*\)$", "", key))
    loose = [_singular(key), key.replace("-", " "), _singular(key.replace("-", " ")), f"{key} cell"]
    keys += loose if name in ("cell_type", "lineage", "organ") else [key.replace("-", " "), key.replace(" ", "")]
    return [key for key in dict.fromkeys(keys) if key]


def _singular(key: str) -> str:
    """``"b cells"`` to ``"b cell"``, ``"neutrophils"`` to ``"neutrophil"``."""
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


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
        label = Label(value=value, original=value, ontology_id=ontology_id, lineage=lineage, implies=implies, known=True)
        labels.append((name, label, [*filter(None, spellings.split("|")), *filter(None, [ontology_id])]))
    table: dict[tuple[str, str], Label] = {}
    for name, label, _ in labels:
        table.setdefault((name, _plain(label.value)), label)
    for name, label, synonyms in labels:
        for spelling in synonyms:
            table.setdefault((name, _plain(spelling)), label)
    for (name, key), label in list(table.items()):
        table.setdefault((name, key.replace("-", " ")), label)
    return table
