"""What is put into the slots of a phrasing: names of the table of labels, genes, numbers, times, doses, made-up names; and misspelling.

Every draw takes its random generator. Names that would be read in two ways (``lung fibroblast`` for ``{cell_type}`` beside ``{organ}``)
are left out of the slots.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scmulan import assets
from scmulan.genes import GeneTable
from scmulan.metadata import canonical
from scmulan.requests_numbers import in_words

NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuioplsdfghjkaxcvbnmzb", strict=True))
SYLLABLE = "ba be bo ka ke ki lo la le ma me mi mo na ne no pa po ra re ri ro sa se si ta te ti to va ve xo za zu tri gly dex plo flu cor"
SYLLABLES = tuple(SYLLABLE.split(" "))
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "cell_type": ("cyte", "blast", "clast", " cell", "phil", "phage"),
    "perturbation": ("nib", "mab", "stat", "ine", "kinin", "lisib", "cillin", "tide"),
    "organ": ("um", "us", " gland", "ea"),
    "disease": ("itis", "oma", "osis", " syndrome", "emia"),
    "region": (" nucleus", " cortex", " lobe", "um"),
}
NAMED = ("organism", "assay", "organ", "region", "disease", "sex", "stage", "perturbation", "cell_type")
CLUSTERS = ("A", "B", "C", "zero", "one", "two", "four", "six")
UNKNOWN_SHARE = 0.06
LOWER_CASE_GENES = 0.15


class Fillers:
    """Draws what fills a slot; text as a person would type it.

    Parameters
    ----------
    material : of ``prompts/requests.yaml``
    genes : symbols that a model has tokens of
    """

    def __init__(self, material: Mapping[str, Any], genes: Sequence[str]):
        self.material, self.genes = material, [gene for gene in genes if len(gene) > 2 and not gene.startswith("ENS")]
        table = GeneTable.load()
        human = [str(symbol) for symbol, is_human in zip(table.symbols, table.is_human, strict=True) if is_human]
        self.all_genes = [symbol for symbol in human if len(symbol) > 2 and not symbol.startswith("ENS")]
        self.names = {name: _names_of(name, tuple(material["names"].get(name, ()))) for name in NAMED}
        self.asked = [(str(word), str(name)) for name, words in material["asked"].items() for word in words]

    def draw(self, slot: str, rng: np.random.Generator, *, is_single: bool = False) -> str:
        """Text for a slot; PromptError is the caller's, KeyError names a slot that there is no filler for."""
        makers: dict[str, Callable[[], str]] = {
            "number": lambda: _number(rng),
            "one": lambda: str(rng.choice(["a", "a", "a", "one", "one", "a single"])),
            "count": lambda: _large_number(rng),
            "copies": lambda: str(int(np.exp(rng.uniform(0, 5)))) if rng.random() < 0.85 else in_words(int(rng.integers(1, 21))),
            "cluster": lambda: str(rng.integers(0, 31)) if rng.random() < 0.85 else str(rng.choice(CLUSTERS)),
            "gene": lambda: self._gene(rng),
            "target": lambda: self._gene(rng),
            "time": lambda: _time(rng),
            "dose": lambda: _dose(rng, self.material["units"]),
            "nonsense": lambda: "".join(rng.choice(list("asdfghjklqwertyuiopzxcvbnm"), size=int(rng.integers(3, 10)))),
            "goal": lambda: self._state(rng),
            "start": lambda: self.name("cell_type", rng) if rng.random() < 0.85 else f"{rng.choice(self.material['names']['state'])} cells",
        }
        if slot in makers:
            return makers[slot]()
        field = {"organ_named": "organ", "assay_named": "assay", "against": "cell_type", "among": "cell_type"}.get(slot, slot)
        return self.name(field, rng, is_single=is_single)

    def name(self, field: str, rng: np.random.Generator, *, is_single: bool = False) -> str:
        """A name of a field, sometimes one that is made up."""
        if field in ENDINGS and rng.random() < UNKNOWN_SHARE:
            said = unknown_name(field, rng)
        else:
            own, table = self.names[field]
            pool = own if own and (not table or rng.random() < 0.55) else table
            said = pool[int(rng.integers(len(pool)))]
        if field == "cell_type" and not is_single and rng.random() < 0.85:
            said = plural(said)
        return said

    def _gene(self, rng: np.random.Generator) -> str:
        pool = self.genes if self.genes and rng.random() < 0.75 else self.all_genes
        gene = pool[int(rng.integers(len(pool)))]
        if rng.random() < LOWER_CASE_GENES and any(sign.isdigit() for sign in gene):
            return gene.lower() if rng.random() < 0.6 else gene.capitalize()
        return gene

    def _state(self, rng: np.random.Generator) -> str:
        if rng.random() < 0.7:
            return self.name("cell_type", rng)
        state = str(rng.choice(self.material["names"]["state"]))
        return state if rng.random() < 0.6 else f"{state} {rng.choice(['cells', 'state', 'T cells', 'fibroblasts'])}"


def unknown_name(field: str, rng: np.random.Generator) -> str:
    """A name that no table knows, spelled as names of the field are."""
    if field in ("cell_type", "perturbation") and rng.random() < 0.3:
        letters = "".join(rng.choice(list("ABCDGHKLMPRSTXZ"), size=int(rng.integers(2, 4))))
        return f"{letters}-{rng.integers(1, 9999)}" + (" cell" if field == "cell_type" else "")
    stem = "".join(rng.choice(SYLLABLES, size=int(rng.integers(1, 4))))
    return stem + str(rng.choice(ENDINGS[field]))


def plural(name: str) -> str:
    """Several of a cell type, where its plural is plain: ``B cells``, ``Tregs``; else the name as it is."""
    if name.endswith("s") or not name[-1].isalpha() or re.search(r",| of | in |\d$", name):
        return name
    if re.search(r"microglia|glia|endothelium|epithelium|stroma|lymphoid|myeloid|erythroid|bright|dim$", name):
        return name
    return f"{name}s"


@functools.lru_cache(maxsize=32)
def _names_of(field: str, own: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a field that stand in the material, and those of the table that people may type and that mean one thing only."""
    rows = [
        line.split("\t") for line in assets.path("tokenizer", "labels.tsv").read_text(encoding="utf-8").splitlines()[1:] if line.strip()
    ]
    organs = {plain for row in rows if row[0] in ("organ", "region") for plain in [row[1].lower(), *row[5].lower().split("|")] if plain}
    found: list[str] = []
    for row in rows:
        if row[0] == field:
            spelled = [row[1], *filter(None, row[5].split("|"))]
            found += [said for said in spelled if _is_typed(said, field, organs) and canonical(field, said).value == row[1]]
    return tuple(map(str, own)), tuple(dict.fromkeys(found))


def _is_typed(said: str, field: str, organs: set[str]) -> bool:
    """Whether a person would type it in a sentence, and it would be read in this one way."""
    if re.search(r"[\[\]();:]", said) or len(said.split()) > 6 or said.isdigit() or len(said) < 2 or said in ("None", "none"):
        return False
    if field == "cell_type":
        first = {" ".join(said.lower().split()[:n]) for n in (1, 2, 3)}
        return not first & organs and "PBMC" not in said and " of " not in said and said not in ("AM", "PT", "DCT")
    if field == "perturbation":
        return said not in ("control", "ctrl", "NT", "mock", "safe-targeting", "non_targeting")
    return not (field == "disease" and said in ("normal", "none", "control", "ctrl")) and "cell line" not in said


def _number(rng: np.random.Generator) -> str:
    kind, number = rng.random(), int(np.exp(rng.uniform(0.7, 7.5)))
    if kind < 0.3:
        number = int(rng.choice([5, 10, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 250, 300, 500, 1000, 2000]))
    if kind > 0.72:
        small = int(rng.integers(2, 100)) if kind < 0.92 else int(rng.integers(1, 10)) * 100 + int(rng.choice([0, 0, 50]))
        spelled = in_words(small)
        return str(rng.choice([spelled, spelled.replace("-", " "), "a dozen", "a hundred", "a thousand"], p=[0.6, 0.25, 0.05, 0.05, 0.05]))
    if number >= 1000:
        return str(rng.choice([str(number), f"{number:,}", f"{number // 1000}k"]))
    return str(number)


def _large_number(rng: np.random.Generator) -> str:
    number = int(rng.choice([1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 50, 100])) * 1000 if rng.random() < 0.8 else int(rng.integers(400, 40000))
    kind = rng.random()
    if number % 1000 == 0 and kind < 0.35:
        return f"{number // 1000}k"
    if number % 1000 == 0 and kind < 0.5 and number < 100_000:
        return f"{in_words(number // 1000)} thousand"
    return f"{number:,}" if kind < 0.75 else str(number)


def _time(rng: np.random.Generator) -> str:
    n = int(rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 18, 20, 21, 24, 28, 30, 36, 48, 60, 72, 90]))
    spelled = in_words(n) if 0 < n < 30 and rng.random() < 0.2 else str(n)
    forms = [f"day {spelled}", f"day {n}", f"d{n}", f"D{n}", f"{spelled} days", f"{n} d", f"{n}d", f"{spelled} hours", f"{n}h", f"{n} h"]
    forms += [f"{n} hrs", f"hour {n}", f"week {spelled}", f"{spelled} weeks", f"{n} min", f"{n} minutes", f"{n} hr", f"day{n}"]
    return str(rng.choice(forms))


def _dose(rng: np.random.Generator, units: Sequence[str]) -> str:
    amount = str(rng.choice(["0.1", "0.5", "1", "2", "5", "10", "20", "25", "50", "100", "200", "500", "1000"]))
    return f"{amount}{' ' if rng.random() < 0.7 else ''}{units[int(rng.integers(len(units)))]}"


def misspell(word: str, rng: np.random.Generator) -> str:
    """One slip of the fingers: two letters swapped, one dropped, doubled, or hit beside; the first letter is right."""
    at = int(rng.integers(1, len(word)))
    kind = rng.integers(4)
    if kind == 0 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + NEIGHBOURS.get(word[at].lower(), word[at]) + word[at + 1 :]


def misspell_text(text: str, rng: np.random.Generator, chance: float) -> str:
    """A text in which words of four letters or more are misspelt with a chance; what has digits or capitals inside is left alone."""
    words = re.split(r"(\s+)", text)
    may = [bool(re.fullmatch(r"[A-Za-z]?[a-z]{3,}[.,?!]?", word)) for word in words]
    return "".join(misspell(word, rng) if ok and rng.random() < chance else word for word, ok in zip(words, may, strict=True))
