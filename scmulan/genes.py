"""Gene identity: every spelling of a human or mouse gene to one row of the gene table.

A row is one gene; a mouse gene with a one-to-one human orthologue shares the human gene's row, the others have rows of their own.
Names are matched in any letter case, in this order: Ensembl id (with or without version), symbol, alias of the data's species, the
same of the other species, what R and spreadsheets made of a symbol (``HLA.DRA``, ``X5830416P10Rik``, ``2-Sep``), and last the stem of a
made-unique name (``PNRC2-1``, ``Gm20854_loc1``). So an approved symbol always wins over an alias of another gene, and an alias that
several genes had belongs to the one the table gives it. The table is ``tokenizer/genes.tsv.gz``, built by `scmulan.genes_build`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scmulan import assets
from scmulan.errors import VocabularyError, some

HUMAN, MOUSE = "Homo sapiens", "Mus musculus"
LOCUS_GROUPS = ("protein-coding gene", "immune receptor gene", "non-coding RNA", "pseudogene", "other")
COLUMNS = ("symbol", "gene_id", "mouse_symbol", "mouse_gene_id", "group", "aliases", "mouse_aliases")
PREFIXES = {HUMAN: "ENSG", MOUSE: "ENSMUSG"}
ENSEMBL_ID = re.compile(r"ENS(?:MUS)?G\d{11}")
VERSION = re.compile(r"ENS(?:MUS)?G\d{11}\.\d+$")
GENOME_PREFIX = re.compile(r"^(?:(HG19|HG38|GRCH3[78])|(MM9|MM10|MM39|GRCM3[89]))[_-]+")
STEM = re.compile(r"^(.+?)(?:[-.]\d{1,3}|_\d{1,3}|_LOC\d+|__\w+)$")
DATE = re.compile(r"^(?P<day>\d{1,2})-(?P<month>MAR|SEP|DEC)$|^(?P<name>MARCH|MAR|SEPT|SEP|DEC)-?(?P<number>\d{1,2})$")
MONTHS = {"MAR": "MARCHF", "SEP": "SEPTIN", "DEC": "DELEC"}  # as renamed since, because spreadsheets took them for dates
WAYS = (
    "symbol", "older name", "symbol of the other species", "older name of the other species", "respelled", "Ensembl id",
    "Ensembl id with version", "unknown",
)  # fmt: skip
MOST_KEPT = 8
"""Sets of names whose genes are kept."""
SPECIES = {
    HUMAN: ("homo sapiens", "human", "h. sapiens", "hsapiens", "hs", "ncbitaxon:9606", "9606"),
    MOUSE: ("mus musculus", "mouse", "mice", "murine", "m. musculus", "mmusculus", "mm", "ncbitaxon:10090", "10090"),
}


def species_of(organism: str | None) -> str | None:
    """``"Homo sapiens"``, ``"Mus musculus"`` or None, for an organism's name or taxon id as people write it."""
    text = (organism or "").strip().lower().replace("_", " ")
    return next((species for species, spellings in SPECIES.items() if text in spellings), None)


@dataclass(frozen=True, kw_only=True)
class GeneMatch:
    """Where names of genes lie in the gene table.

    Attributes
    ----------
    index
        (n,) int32 row of the table for each name, -1 where unknown.
    naming
        What the names mostly are: ``"symbol"``, ``"ensembl"``, or ``"mixed"`` when each is more than a twentieth.
    organism
        What the names say: ``"Homo sapiens"`` or ``"Mus musculus"``.
    unknown
        Names that were not found, in input order.
    merged
        How many names fell on a gene that an earlier name also names.
    """

    index: np.ndarray
    naming: str
    organism: str
    unknown: list[str] = field(default_factory=list)
    merged: int = 0

    def guesses(self, most: int = 3) -> dict[str, list[str]]:
        """Nearest known spellings of the first ``most`` unknown names."""
        table = GeneTable.load()
        return {name: table.nearest(name) for name in self.unknown[:most]}

    def only(self, kept: np.ndarray, names: Sequence[str]) -> GeneMatch:
        """The same with the names outside of ``kept``, (n,) bool, taken for unknown."""
        index = np.where(kept, self.index, -1).astype(np.int32)
        return dataclasses.replace(self, index=index, unknown=_unknown(names, index), merged=_merged(index))


class GeneTable:
    """Canonical genes, one row each.

    Attributes
    ----------
    symbols
        (G,) str, unique: the human symbol, or the mouse symbol of a mouse-only gene. The text of the gene's token.
    gene_ids, mouse_symbols, mouse_gene_ids
        (G,) str, ``""`` where there is none. Ids are Ensembl's, without version.
    locus_groups
        (G,) str, one of `LOCUS_GROUPS`.
    is_human
        (G,) bool, False for a mouse-only gene.
    is_recent
        (G,) bool: only the newest annotation release has the gene, so hardly any data set does.
    """

    def __init__(self, text: str) -> None:
        width = len(COLUMNS)
        cells = text.rstrip("\n").replace("\n", "\t").split("\t")
        if tuple(cells[:width]) != COLUMNS or len(cells) % width:
            raise VocabularyError(f"gene table: found columns {cells[:width]}, needed {list(COLUMNS)}; build it with scmulan.genes_build")
        symbols, ids, mouse, mouse_ids, groups, self._aliases, self._mouse_aliases = (cells[width + i :: width] for i in range(width))
        full = [f"ENSG{number:0>11}" if number and number != "-" else "" for number in ids]
        mouse_full = [number and f"ENSMUSG{number:0>11}" for number in mouse_ids]
        symbols = [symbol or a or b for symbol, a, b in zip(symbols, full, mouse_full, strict=True)]
        spelled = [s if m == "=" else s.capitalize() if m == "~" else m or i for s, m, i in zip(symbols, mouse, mouse_full, strict=True)]
        self.symbols, self.gene_ids = np.array(symbols, dtype=object), np.array(full, dtype=object)
        self.mouse_symbols, self.mouse_gene_ids = np.array(spelled, dtype=object), np.array(mouse_full, dtype=object)
        self.locus_groups = np.array([LOCUS_GROUPS[int(group[0])] for group in groups], dtype=object)
        self.is_human = np.array(ids, dtype=object) != ""
        self.is_recent = np.array([len(group) > 1 for group in groups])

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def load(cls) -> GeneTable:
        """The shipped table; read once a process."""
        return _load(assets.path("tokenizer", "genes.tsv.gz"))

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """Row of every Ensembl id; an id of today wins over a retired one."""
        found: dict[str, int] = {}
        columns = {HUMAN: (self._aliases, self.gene_ids), MOUSE: (self._mouse_aliases, self.mouse_gene_ids)}
        for species, (aliases, ids) in columns.items():
            prefix = PREFIXES[species]
            retired = ((name, row) for row, text in enumerate(aliases) if "#" in text for name in text.split("|") if name[0] == "#")
            found.update((f"{prefix}{name[1:]:0>11}", row) for name, row in retired)
            found.update((gene_id, row) for row, gene_id in enumerate(ids) if gene_id)
        return found

    @functools.cached_property
    def _names(self) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
        """For each species the upper-cased symbols and the upper-cased aliases, each to its row."""
        human = {symbol.upper(): row for row, symbol in enumerate(self.symbols) if self.is_human[row]}
        mouse = {symbol.upper(): row for row, symbol in enumerate(self.mouse_symbols) if symbol}
        return {HUMAN: (human, _alias_rows(self._aliases)), MOUSE: (mouse, _alias_rows(self._mouse_aliases))}

    @functools.cached_property
    def _is_nameless(self) -> np.ndarray:
        """(G,) bool: the symbol is only an id."""
        return np.asarray((self.symbols == self.gene_ids) | (self.symbols == self.mouse_gene_ids))

    @functools.cached_property
    def _exact(self) -> dict[str, int]:
        return {symbol: row for row, symbol in enumerate(self.symbols)}

    def resolve(self, names: Sequence[str], organism: str | None = None) -> GeneMatch:
        """Find each name's row.

        Parameters
        ----------
        names
            Symbols, aliases or Ensembl ids, in any mixture.
        organism
            Species whose names go first; told from the names where not given.

        Examples
        --------
        >>> table = GeneTable.load()
        >>> match = table.resolve(["gata1", "ENSG00000102145.12", "no such gene"])
        >>> table.symbols[match.index[:2]].tolist(), match.unknown, match.merged
        (['GATA1', 'GATA1'], ['no such gene'], 1)
        """
        return self._resolved(tuple(names), organism)

    @functools.cached_property
    def _resolved(self) -> Callable[[tuple[str, ...], str | None], GeneMatch]:
        """`_resolve`, with the last answers kept: a server is asked about the same files again and again, half a second each."""
        return functools.lru_cache(MOST_KEPT)(self._resolve)

    def _resolve(self, names: tuple[str, ...], organism: str | None) -> GeneMatch:
        upper = [_plain(name) for name in names]
        found = MOUSE if self.species(names).sum(dtype=np.int64) < 0 else HUMAN
        order = self._order(species_of(organism) or found)
        index = np.fromiter((self._find(name, order)[0] for name in upper), dtype=np.int32, count=len(upper))
        index.flags.writeable = False
        share = sum(name.startswith("ENS") and ENSEMBL_ID.match(name) is not None for name in upper) / max(1, len(upper))
        return GeneMatch(
            index=index,
            naming="ensembl" if share > 0.95 else "symbol" if share < 0.05 else "mixed",
            organism=found,
            unknown=_unknown(names, index),
            merged=_merged(index),
        )

    def ways(self, names: Sequence[str], organism: str) -> list[str]:
        """How `resolve` finds each name: one of `WAYS`.

        >>> GeneTable.load().ways(["GATA1", "MLL", "GATA1-1", "ENSG00000102145.12", "H2-K1"], HUMAN)
        ['symbol', 'older name', 'respelled', 'Ensembl id with version', 'symbol of the other species']
        """
        order = self._order(organism)
        return [self._find(_plain(name), order)[1] for name in names]

    def match(
        self, names: Sequence[str], ids: Sequence[Sequence[str]], symbols: Sequence[Sequence[str]], organism: str | None = None
    ) -> GeneMatch:
        """As `resolve`, where further columns name the same genes: ids go before the names, symbols fill in what is still unknown.

        A retired id of which the table knows no name (hg19's of CCL5) does not go before a name that it knows.

        Parameters
        ----------
        names
            (n,) names as the data set's index has them; their naming is the match's, unless hardly any is known.
        ids, symbols
            Columns of n Ensembl ids or symbols each.
        """
        main, *others = (self.resolve(column, organism) for column in (names, *ids, *symbols))
        index = main.index
        for number, other in enumerate(others):
            first, second = (other.index, index) if number < len(ids) else (index, other.index)
            is_worse = self._is_nameless[first] & (second >= 0) & ~self._is_nameless[second]
            index = np.where((first >= 0) & ~is_worse, first, second)
        voice = max([main, *others], key=lambda match: int((match.index >= 0).sum()) * (5 if match is main else 1))
        return GeneMatch(
            index=index,
            naming=voice.naming,
            organism=voice.organism,
            unknown=_unknown(names, index),
            merged=_merged(index),
        )

    def _order(self, first: str) -> list[dict[str, int]]:
        """Symbols and aliases of a species, then of the other."""
        return [kind for species in (first, MOUSE if first == HUMAN else HUMAN) for kind in self._names[species]]

    def _find(self, name: str, order: Sequence[dict[str, int]]) -> tuple[int, str]:
        """Row of an upper-cased name, and in which of `WAYS` it was found; ``order`` is that of `_order`."""
        if name.startswith("ENS") or "ENSG0" in name or "ENSMUSG0" in name:
            found = ENSEMBL_ID.search(name)
            if found is not None:
                row = self._ids.get(found[0], -1)
                return row, "unknown" if row < 0 else "Ensembl id with version" if VERSION.match(name) else "Ensembl id"
        for names, way in zip(order, WAYS, strict=False):
            if name in names:
                return names[name], way
        for respelled in _respellings(name):
            for names in (order[0], order[2]):
                if respelled in names:
                    return names[respelled], "respelled"
        return -1, "unknown"

    def species(self, names: Sequence[str]) -> np.ndarray:
        """(n,) int8: 1 for a name that speaks for human, -1 for one that speaks for mouse, 0 for one of either or neither.

        A name speaks by its genome's prefix (``mm10_``), its Ensembl prefix, as the symbol of one species only, or by its letter case.
        """
        return self._votes(tuple(names))

    @functools.cached_property
    def _votes(self) -> Callable[[tuple[str, ...]], np.ndarray]:
        """`_vote`, with the last answers kept."""
        return functools.lru_cache(MOST_KEPT)(self._vote)

    def _vote(self, names: tuple[str, ...]) -> np.ndarray:
        human, mouse = self._names[HUMAN][0], self._names[MOUSE][0]
        votes = np.zeros(len(names), dtype=np.int8)
        for position, name in enumerate(names):
            key, genome = _plain(name), GENOME_PREFIX.match(str(name).strip().upper())
            if genome is not None or ENSEMBL_ID.match(key):
                votes[position] = 1 if (genome[1] if genome is not None else key.startswith("ENSG")) else -1
                continue
            row, mouse_row = human.get(key), mouse.get(key)
            votes[position] = (row is not None) - (mouse_row is not None)
            if row is not None and mouse_row is not None:
                votes[position] = int(name == self.symbols[row]) - int(name == self.mouse_symbols[mouse_row])
        votes.flags.writeable = False
        return votes

    def is_of(self, organism: str) -> np.ndarray:
        """(G,) bool: genes that a species is known to have; every organism but mouse is read as human."""
        return np.asarray((self.mouse_symbols if species_of(organism) == MOUSE else self.gene_ids) != "")

    def spell(self, index: np.ndarray, organism: str = HUMAN, naming: str = "symbol") -> list[str]:
        """Names of rows in a species' own spelling; where it has none, the other species' name.

        Parameters
        ----------
        index
            (n,) rows of the table.
        naming
            ``"symbol"`` or ``"ensembl"``; a gene without an id gets its symbol.
        """
        columns = {
            (HUMAN, "symbol"): (self.symbols,),
            (HUMAN, "ensembl"): (self.gene_ids, self.mouse_gene_ids, self.symbols),
            (MOUSE, "symbol"): (self.mouse_symbols, self.symbols),
            (MOUSE, "ensembl"): (self.mouse_gene_ids, self.gene_ids, self.symbols),
        }
        key = (species_of(organism) or HUMAN, naming)
        if key not in columns:
            raise VocabularyError(f"gene naming {naming!r}: needed 'symbol' or 'ensembl'")
        return [next(column[row] for column in columns[key] if column[row]) for row in index]

    def nearest(self, name: str, most: int = 3) -> list[str]:
        """Known spellings nearest to a name, best first; about a tenth of a second a name.

        >>> GeneTable.load().nearest("GATA11")[0]
        'GATA1'
        """
        key, near = name.strip().upper(), list[str]()
        for kind in (0, 1):  # symbols, then aliases
            known = {**self._names[MOUSE][kind], **self._names[HUMAN][kind]}
            alike = [spelling for spelling in known if abs(len(spelling) - len(key)) <= 2 and spelling[:2] == key[:2]]
            near += [str(self.symbols[known[spelling]]) for spelling in difflib.get_close_matches(key, alike, n=most, cutoff=0.7)]
        return list(dict.fromkeys(near))[:most]

    def index_of_symbols(self, symbols: Sequence[str]) -> np.ndarray:
        """(n,) int32 rows of preferred symbols, spelled exactly; VocabularyError for any other name."""
        missing = [symbol for symbol in symbols if symbol not in self._exact]
        if missing:
            raise VocabularyError(f"genes {some(missing)} are no preferred symbols of the gene table; look names up with GeneTable.resolve")
        return np.array([self._exact[symbol] for symbol in symbols], dtype=np.int32)


def _plain(name: object) -> str:
    """A name as it is looked up: upper-cased, without quotes, blanks and the genome's prefix."""
    return GENOME_PREFIX.sub("", str(name).strip(" \t\n\r'\"").upper())


def _unknown(names: Sequence[str], index: np.ndarray) -> list[str]:
    return [str(name) for name, row in zip(names, index, strict=True) if row < 0]


def _merged(index: np.ndarray) -> int:
    known = index[index >= 0]
    return len(known) - len(np.unique(known))


def _respellings(name: str) -> Iterator[str]:
    """Symbols that R's make.names, a spreadsheet or a make-unique suffix could have turned into this upper-cased name."""
    date = DATE.match(name)
    if date is not None:
        yield MONTHS[(date["month"] or date["name"])[:3]] + (date["day"] or date["number"]).lstrip("0")
    if "." in name:
        yield name.replace(".", "-")
    if name[0:1] == "X" and name[1:2].isdigit():
        yield name[1:]
    stem = STEM.match(name)
    if stem is not None:
        yield stem[1]
        yield stem[1].replace(".", "-")


def _alias_rows(column: Sequence[str]) -> dict[str, int]:
    return {name: row for row, text in enumerate(column) if text for name in text.split("|") if name[0] != "#"}


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> GeneTable:
    return GeneTable(gzip.decompress(path.read_bytes()).decode())
