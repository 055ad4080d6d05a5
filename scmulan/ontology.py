"""Terms of the ontologies behind the labels: any id or spelling to one term, what stands above it, how far two are apart.

Cell Ontology (CL), UBERON, MONDO, the assays of EFO, and the stages of HsapDv and MmusDv, one table each in
``tokenizer/ontologies/``, built by `scmulan.ontology_build` and read when a term of it is first asked for. "Above" is what a term is
or is part of; of these relations the tables keep those that no two others imply, so that steps can be counted.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scmulan import assets
from scmulan.errors import VocabularyError, nearest
from scmulan.spelling import loose, plain

COLUMNS = ("number", "label", "parents", "spellings")
LIFE_CYCLE = ("UBERON:0000104", "UBERON:0035943")  # of UBERON, what is a stage and no place
OF_FIELD: dict[str, tuple[str, ...]] = {
    "cell_type": ("CL",), "organ": ("UBERON",), "region": ("UBERON",), "disease": ("MONDO",), "assay": ("EFO",),
    "stage": ("HsapDv", "MmusDv", "UBERON"),
}  # fmt: skip
NAMES = tuple(dict.fromkeys(name for names in OF_FIELD.values() for name in names))


@dataclass(frozen=True, order=True)
class Term:
    """A term: its id, ``CL:0000236``, and its preferred label."""

    id: str
    label: str


class Ontology:
    """One ontology. Terms are given by id; an id that it has not is a VocabularyError, one that was replaced is its successor's.

    Attributes
    ----------
    name, version
        ``"CL"``, ``"v2026-03-26"``.
    """

    def __init__(self, text: str) -> None:
        head, _, rest = text.rstrip("\n").partition("\n")
        width = len(COLUMNS)
        cells = rest.replace("\n", "\t").split("\t")
        if not head.startswith("# ") or tuple(cells[:width]) != COLUMNS or len(cells) % width:
            found = f"found {head[:60]!r} and columns {cells[:width]}"
            raise VocabularyError(f"ontology table: {found}, needed {list(COLUMNS)}; build it with scmulan.ontology_build")
        self.name, self.version = head.split()[1:3]
        self._numbers, self._labels, self._parents, self._spellings = (cells[width + i :: width] for i in range(width))
        self._above: dict[int, dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        """Row of every number, a replaced one's being its successor's."""
        old = ((name[1:], row) for row, text in enumerate(self._spellings) if "#" in text for name in text.split("|") if name[:1] == "#")
        return {**dict(old), **{number: row for row, number in enumerate(self._numbers)}}

    @functools.cached_property
    def _named(self) -> dict[str, int]:
        """Row of every spelling, as a loose key."""
        named = {name: row for row, text in enumerate(self._spellings) if text for name in text.split("|")}
        named.update((label, row) for row, label in enumerate(loose("\n".join(self._labels).lower()).split("\n")))
        return named

    def _row(self, term_id: str) -> int:
        prefix, _, number = term_id.replace("_", ":", 1).partition(":")
        row = self._row_of.get(number) if prefix.lower() == self.name.lower() else None
        if row is None:
            raise VocabularyError(f"term {term_id!r} is not in {self.name} {self.version}; needed an id like {self._id(0)}")
        return row

    def _id(self, row: int) -> str:
        return f"{self.name}:{self._numbers[row]}"

    def __contains__(self, term_id: str) -> bool:
        prefix, _, number = term_id.replace("_", ":", 1).partition(":")
        return prefix.lower() == self.name.lower() and number in self._row_of

    def term(self, term_id: str) -> Term:
        """The term of an id."""
        row = self._row(term_id)
        return Term(self._id(row), self._labels[row])

    def find(self, spelling: str) -> Term | None:
        """The term of an id, label or exact synonym; None when there is none, or when several share the spelling.

        >>> Ontology.load("CL").find("B lymphocyte")
        Term(id='CL:0000236', label='B cell')
        """
        return self.find_key(plain(spelling))

    def find_key(self, key: str) -> Term | None:
        """As `find`, for a spelling that is a plain key already (`scmulan.spelling`)."""
        if key in self:
            return self.term(key)
        row = self._named.get(loose(key))
        return None if row is None else Term(self._id(row), self._labels[row])

    def labels(self) -> list[str]:
        """Every preferred label, in order of ids."""
        return list(self._labels)

    def ids(self) -> list[str]:
        """Every id, in order; replaced ones are not among them."""
        return [self._id(row) for row in range(len(self))]

    def parents(self, term_id: str) -> list[str]:
        """What stands right above a term."""
        return [self._id(row) for row in self._parent_rows(self._row(term_id))]

    def ancestors(self, term_id: str) -> dict[str, int]:
        """The term and all above it, each with the least number of steps to it, nearest first.

        >>> list(Ontology.load("CL").ancestors("CL:0000236"))[:2]
        ['CL:0000236', 'CL:0000945']
        """
        return {self._id(row): steps for row, steps in self._rows_above(self._row(term_id)).items()}

    def is_a(self, term_id: str, other: str) -> bool:
        """Whether a term is the other, or is one of its kind or a part of it."""
        return self._row(other) in self._rows_above(self._row(term_id))

    def most_specific(self, term_id: str, coarser: Iterable[str]) -> dict[str, int]:
        """Of some coarser terms those that a term is and that stand above no other such term, each with its steps from the term."""
        above = self._rows_above(self._row(term_id))
        found = [row for row in dict.fromkeys(self._row(each) for each in coarser) if row in above]
        higher = {row for other in found for row in self._rows_above(other) if row != other}
        return {self._id(row): above[row] for row in found if row not in higher}

    def roll_up(self, term_id: str, coarser: Iterable[str]) -> str | None:
        """Of some coarser terms the most specific that a term is; of several, the nearest, then the first given.

        >>> Ontology.load("CL").roll_up("CL:0000625", ["CL:0000738", "CL:0000542"])  # CD8 T cell: leukocyte or lymphocyte
        'CL:0000542'
        """
        found = self.most_specific(term_id, coarser)
        return min(found, key=found.__getitem__, default=None)

    def common_ancestor(self, first: str, second: str) -> str | None:
        """The most specific term above both (or one of them); of several the one with the fewest steps, then the lowest id."""
        one, two = self._rows_above(self._row(first)), self._rows_above(self._row(second))
        shared = one.keys() & two.keys()
        lowest = shared.difference(*(self._rows_above(row).keys() - {row} for row in shared)) if shared else shared
        return self._id(min(lowest, key=lambda row: (one[row] + two[row], row))) if lowest else None

    def distance(self, first: str, second: str) -> int | None:
        """Least number of steps from one term up to a shared ancestor and down to the other; None when they share none.

        >>> Ontology.load("CL").distance("CL:0000624", "CL:0000625")  # CD4 and CD8 T cell
        2
        """
        one, two = self._rows_above(self._row(first)), self._rows_above(self._row(second))
        return min((one[row] + two[row] for row in one.keys() & two.keys()), default=None)

    def _parent_rows(self, row: int) -> list[int]:
        return [self._row_of[number] for number in self._parents[row].split()]

    def _rows_above(self, row: int) -> Mapping[int, int]:
        """Rows above a row and itself, with steps, nearest first."""
        if row not in self._above:
            steps, edge = {row: 0}, [row]
            while edge:
                reached = dict.fromkeys(above for below in edge for above in self._parent_rows(below))
                edge, n = [above for above in reached if above not in steps], steps[edge[0]] + 1
                steps.update(dict.fromkeys(edge, n))
            self._above[row] = steps
        return self._above[row]

    @classmethod
    def load(cls, name: str) -> Ontology:
        """A shipped ontology; read once a process."""
        if name not in NAMES:
            raise VocabularyError(f"ontology {name!r}: needed one of {', '.join(NAMES)}{nearest(name, NAMES)}")
        return _load(assets.path("tokenizer", "ontologies", f"{name}.tsv.gz"))


def find(field: str, keys: Sequence[str]) -> Term | None:
    """The term that a field's value names, by the first of its keys (`scmulan.spelling.keys`) that is one; None when none is.

    A stage that the ontologies of several species have by the same name is a term without an id.
    """
    for key in keys:
        terms = [term for name in OF_FIELD.get(field, ()) if (term := Ontology.load(name).find_key(key)) is not None and _fits(field, term)]
        if terms:
            return terms[0] if len(terms) == 1 else Term("", terms[0].label)
    return None


def _fits(field: str, term: Term) -> bool:
    """Whether a term of UBERON is a stage where a stage is asked for, and a place where a place is."""
    if not term.id.startswith("UBERON:"):
        return True
    return (field == "stage") == any(Ontology.load("UBERON").is_a(term.id, root) for root in LIFE_CYCLE)


@functools.lru_cache(maxsize=len(NAMES))
def _load(path: Path) -> Ontology:
    return Ontology(gzip.decompress(path.read_bytes()).decode())
