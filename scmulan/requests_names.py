"""Names in a request as the rest of scmulan spells them: labels, times, groups and genes looked up, slips of the fingers mended.

What was read otherwise than it was typed is said in a note; a name that no table knows is kept as it was typed, and its nearest is named.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from scmulan.errors import nearest
from scmulan.genes import GeneTable
from scmulan.metadata import canonical, known_labels, labels_by_spelling
from scmulan.requests import GeneAsked, Request, read_material
from scmulan.requests_numbers import TENS, UNITS, number_of
from scmulan.spelling import plain

ALIKE, LEAST_LETTERS = 0.82, 5
"""How like a known spelling a name must be to be taken for it, and how long: of shorter ones too many are one slip apart."""
PLACE = re.compile(r" (?:tissue|sample|organ|samples|tissues)$", re.IGNORECASE)
STATE = re.compile(r" (?:states?|fates?|identity|phenotype|lineage)$", re.IGNORECASE)
BESIDE = {"organ": PLACE, "region": PLACE, "state": STATE}
"""Words that stand beside the names of a field and are no part of them."""
ARTICLE = re.compile(r"^(?:an?|the|some|these|those|my|either|both)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """A name as it is spelled by the tables, whether they know it, and what is to be said of how it was read."""

    value: str
    is_known: bool
    note: str = ""


def with_names(request: Request, typed: str = "") -> tuple[Request, list[str]]:
    """The request with every name looked up, and notes on those that were mended or are not known.

    Parameters
    ----------
    typed : the question, from which names that no table knows get their letter case back
    """
    notes: list[str] = []

    def named(field: str, said: str) -> str:
        found = name_of(field, _as_typed(said, typed))
        notes.extend([found.note] if found.note else [])
        return found.value

    fields = {field: named(field, said) for field, said in request.fields.items()}
    genes = []
    for gene in request.genes:
        found = gene_of(_as_typed(gene.name, typed))
        notes.extend([found.note] if found.note else [])
        genes.append(GeneAsked(name=found.value, count=gene.count, action=gene.action))
    return replace(
        request,
        fields=fields,
        among=tuple(named("cell_type", said) for said in request.among),
        cluster=_cluster(request.cluster) if request.cluster else request.cluster,
        genes=tuple(genes),
        against=named("cell_type", request.against) if request.against else None,
        start=named("state", request.start) if request.start else None,
        goal=named("state", request.goal) if request.goal else None,
    ), notes


def name_of(field: str, said: str) -> Named:
    """A field's value in the spelling of the tables; ``state`` is a cell type, or else any word for how cells are.

    >>> name_of("cell_type", "monocites").value, name_of("organ", "the lungs").value, name_of("time", "two days").value
    ('monocyte', 'lung', 'day 2')
    >>> name_of("perturbation", "stat1 knockout").value
    'STAT1 knockout'
    """
    said = " ".join(said.split())
    without = ARTICLE.sub("", said)
    if field == "time":
        return _time(said)
    if field == "dose":
        return Named(said, True)
    if field == "perturbation" and (found := _of_gene(said)):
        return found
    kind = "cell_type" if field == "state" else field
    meanings = {plain(str(word)): str(meant) for word, meant in (read_material()["meanings"].get(kind) or {}).items()}
    beside = BESIDE.get(field)
    bare = beside.sub("", without) if beside else without
    for word in dict.fromkeys([said, without, bare, without.removesuffix("s")]):
        label = canonical(kind, meanings.get(plain(word), word))
        if label.known:
            return Named(label.value, True)
    if len(without) >= LEAST_LETTERS and (near := _near(kind, plain(without))):
        return Named(near, True, f"{said!r} was read as the {kind} {near!r}")
    if field == "state":
        return Named(without, False)
    known = tuple(known_labels(kind))
    return Named(without, False, f"{without!r} is no {kind.replace('_', ' ')} that the tables of labels know{nearest(without, known)}")


@functools.lru_cache(maxsize=4096)
def _near(field: str, key: str) -> str | None:
    """The label of the known spelling that is most like a key; None where none is alike enough."""
    table = labels_by_spelling(field)
    singular = key.removesuffix("s")
    for tried in dict.fromkeys([key, singular, f"{singular} cell"]):
        found = difflib.get_close_matches(tried, [known for known in table if abs(len(known) - len(tried)) <= 3], n=1, cutoff=ALIKE)
        if found:
            return table[found[0]]
    return None


def _of_gene(said: str) -> Named | None:
    """A perturbation that is something done to a gene, the gene spelled as the table has it."""
    words = said.rsplit(" ", 1)
    if len(words) != 2 or words[1] not in read_material()["perturbed_by"].values():
        return None
    gene = gene_of(words[0])
    return Named(f"{gene.value} {words[1]}", gene.is_known, gene.note)


def gene_of(said: str) -> Named:
    """A gene's symbol; unknown names keep their spelling and name the nearest.

    >>> gene_of("gata1").value, gene_of("ENSG00000102145").value, gene_of("Cd3d").value
    ('GATA1', 'GATA1', 'CD3D')
    """
    table = GeneTable.load()
    row = int(table.resolve([said]).index[0])
    if row >= 0:
        return Named(str(table.symbols[row]), True)
    near = table.nearest(said)
    return Named(said, False, f"no gene is called {said!r}" + (f"; nearest: {', '.join(near)}" if near else ""))


def _time(said: str) -> Named:
    words = [str(number_of(word)) if word.split("-")[0] in UNITS | TENS else word for word in said.lower().split()]
    label = canonical("time", " ".join(words))
    if label.known:
        return Named(label.value, True)
    return Named(said, False, f"{said!r} is no time that can be read; needed as 'day 4'")


def _cluster(said: str) -> str:
    """A group's name: ``four`` is ``4``."""
    number = number_of(said) if said.lower() in UNITS or said.strip().isdigit() else None
    return str(number) if number is not None else ("0" if said.lower() == "zero" or said == "0" else said)


def _as_typed(said: str, typed: str) -> str:
    """The words with the letter case in which they were typed, where the question has them."""
    pattern = re.escape(said).replace(r"\ ", r"[\s\-‑–]+")
    found: Callable[[str], re.Match[str] | None] = re.compile(pattern, re.IGNORECASE).search
    match = found(typed) if typed else None
    return " ".join(match[0].split()) if match else said
