"""Spellings of labels: the keys under which one is looked up, in the table of labels and in the ontologies alike.

Letter case, plurals, underscores, hyphens, British spelling and a bracketed remark make no difference; the exact key goes first.
"""

from __future__ import annotations

import re

BRACKET_FIELDS = frozenset(("assay", "organ", "region"))  # here a bracketed remark does not change what the label names
BRITISH = {"haem": "hem", "aemia": "emia", "oesoph": "esoph", "tumour": "tumor", "foet": "fet", "paed": "ped", "neurone": "neuron"}
TERM_ID = re.compile(r"(?:.*/)?([a-z]+)[ :](\d{3,})")  # in a plain key: cl:0000236, cl 0000236, .../obo/cl 0000236


def plain(text: str) -> str:
    """Key under which a spelling is looked up: lower case, American, no underscores or double spaces.

    >>> plain("Haematopoietic  Stem_Cell")
    'hematopoietic stem cell'
    """
    key = re.sub(r"[\s_]+", " ", text.strip().lower()).replace("’", "'")
    for british, american in BRITISH.items():
        key = key.replace(british, american)
    return key


def keys(name: str, text: str, organ: str | None = None) -> list[str]:
    """Keys to try for a spelling of a field, the exact one first; what it means in an organ before what it means anywhere.

    >>> keys("cell_type", "B-cells")
    ['b-cells', 'b-cell', 'b cells', 'b cell', 'b-cells cell']
    """
    key = plain(text)
    found = [f"{key} [{plain(organ)}]", key] if organ else [key]
    if name in BRACKET_FIELDS:
        found.append(re.sub(r" ?\([^()]*\)$", "", key))
    if name == "stage":
        found.append(re.sub(r"\b(human|mouse) ", "", key))  # as CELLxGENE wrote until 2024: 25-year-old human stage
    as_noun = [_singular(key), key.replace("-", " "), _singular(key.replace("-", " ")), f"{key} cell"]
    found += as_noun if name in ("cell_type", "lineage", "organ") else [key.replace("-", " "), key.replace(" ", "")]
    if term := TERM_ID.fullmatch(key):
        found.append(f"{term[1]}:{term[2]}")
    return [key for key in dict.fromkeys(found) if key]


def loose(key: str) -> str:
    """A plain key, or several, without hyphens and commas, as the ontologies are searched.

    >>> loose("cd8-positive, alpha-beta t cell")
    'cd8 positive alpha beta t cell'
    """
    return key.replace("-", " ").replace(",", "")


def _singular(key: str) -> str:
    """``"b cells"`` to ``"b cell"``, ``"neutrophils"`` to ``"neutrophil"``."""
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key
