"""Builds ``tokenizer/genes.tsv.gz`` from public gene tables: a command for maintainers, never run by users.

    python -m scmulan.genes_build TABLES -o tokenizer/genes.tsv.gz [--human FILE ...] [--mouse FILE ...]

TABLES is a folder with ``hgnc_symbols``, ``aliases_to_ensembl``, ``gencode44_id_to_symbol`` and ``human_mouse_symbols`` (``.tsv.gz``).
The further files hold ``Ensembl id, symbol[, version, length, biotype]`` without a header, newest release first: the first gives the
symbols and kinds of today, the others older names. Ids that share a symbol are one gene (the 758 copies of Y_RNA), a mouse gene is
folded onto a human one only where the pair is one-to-one (`fold_pairs`), and an older name of several genes goes to the newest claim.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scmulan.errors import VocabularyError, some
from scmulan.genes import COLUMNS, ENSEMBL_ID, HUMAN, LOCUS_GROUPS, MOUSE, PREFIXES

NICKNAME = -1  # rank of `NICKNAMES`
CURATED = 0  # rank of an alias that the alias table names; a release's names have the rank of the release, newest first
NAMING = 3  # ranks that give symbols: the newest release, GENCODE 44, the approved ones; older names are aliases only
# Names that several genes have had and that people mean one gene by.
NICKNAMES = {
    "OCT4": "POU5F1", "OCT3": "POU5F1", "OCT3/4": "POU5F1", "CD3": "CD3E", "CD16": "FCGR3A", "CD16A": "FCGR3A", "CD20": "MS4A1",
    "CD25": "IL2RA", "CD105": "ENG", "PD1": "PDCD1", "PD-1": "PDCD1", "RORGT": "RORC", "CMYC": "MYC", "C-MYC": "MYC", "CKIT": "KIT",
    "P21": "CDKN1A", "KI67": "MKI67", "KI-67": "MKI67", "TUJ1": "TUBB3", "SMA": "ACTA2", "ASMA": "ACTA2", "VIMENTIN": "VIM",
    "E-CADHERIN": "CDH1", "N-CADHERIN": "CDH2", "HLA-DR": "HLA-DRA", "IFN-G": "IFNG",
}  # fmt: skip
MOUSE_NICKNAMES = {"SCA1": "Ly6a", "SCA-1": "Ly6a", "MAC1": "Itgam", "GR1": "Ly6g", "F4/80": "Adgre1"}
# Predicted mouse genes, clones and pseudogenes: copies that do not make an orthologue pair ambiguous.
UNNAMED_MOUSE = re.compile(r"(?i)^(gm\d+|.*rik|[a-z]{1,2}\d{5,}(\.\d+)?|.*-ps\d*)$")

Release = list[tuple[str, str, str]]  # Ensembl id, name or "", locus group or ""


@dataclass(kw_only=True)
class Species:
    """Genes of one species while the table is built."""

    symbol: dict[str, str] = field(default_factory=dict)  # id: symbol of today
    group: dict[str, str] = field(default_factory=dict)
    names: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))  # id: {name: rank}
    older: set[str] = field(default_factory=set)

    def add(self, release: Release, rank: int, successor: Mapping[str, str] | None = None) -> None:
        """Take one release; what a newer one said stands, a further name is an alias, a retired id speaks for its successor."""
        taken = set(self.symbol.values())
        for retired, name, group in release:
            gene_id = (successor or {}).get(retired, retired) if retired not in self.symbol else retired
            if rank > 1:
                self.older.add(gene_id)
            if name:
                self.names[gene_id].setdefault(name, rank)
                if rank <= NAMING and not self.symbol.get(gene_id) and name not in taken:
                    self.symbol[gene_id] = name
            self.symbol.setdefault(gene_id, "")
            if group:
                self.group.setdefault(gene_id, group)


@dataclass(kw_only=True)
class Gene:
    """One row of the table; aliases with their ranks."""

    symbol: str = ""
    gene_id: str = ""
    mouse_symbol: str = ""
    mouse_gene_id: str = ""
    group: str = ""
    is_human: bool = True
    is_recent: bool = False
    aliases: dict[str, int] = field(default_factory=dict)
    mouse_aliases: dict[str, int] = field(default_factory=dict)


def group_of(biotype: str) -> str:
    """Locus group of a GENCODE biotype."""
    if biotype.endswith("pseudogene") or biotype == "artifact":
        return "pseudogene"
    if re.match(r"(IG|TR)_", biotype):
        return "immune receptor gene"
    if biotype == "protein_coding":
        return "protein-coding gene"
    return "non-coding RNA" if biotype.endswith("RNA") or biotype == "ribozyme" else "other"


def read_rows(path: Path) -> Iterator[list[str]]:
    """Rows of a tab- or comma-separated file, gzipped or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t" if "\t" in line else ",")


def read_release(path: Path, species: str) -> Release:
    """One annotation release; transcripts, other species and names that are ids are left out."""
    release: Release = []
    for row in read_rows(path):
        gene_id = row[0].split(".")[0]
        if ENSEMBL_ID.fullmatch(gene_id) and gene_id.startswith(PREFIXES[species]):
            name = "" if ENSEMBL_ID.match(row[1]) else row[1]
            release.append((gene_id, name, group_of(row[4]) if len(row) > 4 else ""))
    return release


def merge_same_symbol(species: Species, approved: set[str]) -> dict[str, Gene]:
    """Gene of each id; ids that share a symbol share a gene, whose id is the approved one, else a coding one, else the lowest."""
    by_symbol: dict[str, list[str]] = defaultdict(list)
    for gene_id, symbol in species.symbol.items():
        by_symbol[symbol or gene_id].append(gene_id)
    genes: dict[str, Gene] = {}
    for symbol, ids in by_symbol.items():
        ids.sort(key=lambda i: (i not in approved, LOCUS_GROUPS.index(species.group.get(i, "other")), i))
        is_recent = bool(species.older) and not species.older.intersection(ids)
        gene = Gene(symbol=symbol, gene_id=ids[0], group=species.group.get(ids[0], "other"), is_recent=is_recent)
        for gene_id in ids:
            claim(gene.aliases, {gene_id: CURATED, **species.names[gene_id]})
            genes[gene_id] = gene
    return genes


def claim(aliases: dict[str, int], names: Mapping[str, int]) -> None:
    """Add names to a gene's aliases, upper-cased, each with its best rank."""
    for name, rank in names.items():
        if name and "|" not in name and not name.startswith("-"):
            key = name.upper()
            aliases[key] = min(rank, aliases.get(key, rank))


def build(tables: Path, human_releases: Sequence[Path], mouse_releases: Sequence[Path]) -> list[Gene]:
    """Every row of the table, in order of the human symbol, mouse-only genes after them."""
    aliases = [(row[0], row[1]) for row in read_rows(tables / "aliases_to_ensembl.tsv.gz")][1:]
    humans = human_genes(tables, [read_release(path, HUMAN) for path in human_releases], dict(aliases))
    add_aliases(humans, aliases)
    mouse = Species()
    for rank, path in enumerate(mouse_releases, start=1):
        mouse.add(read_release(path, MOUSE), rank)
    mice = merge_same_symbol(mouse, set())
    for genes, nicknames in ((humans, NICKNAMES), (mice, MOUSE_NICKNAMES)):
        rows = {gene.symbol: gene for gene in genes.values()}
        for nickname, symbol in nicknames.items():
            if symbol in rows:
                claim(rows[symbol].aliases, {nickname: NICKNAME})
    pairs = [(row[0], row[1]) for row in read_rows(tables / "human_mouse_symbols.tsv.gz")][1:]
    return join_species(humans, mice, pairs)


def human_genes(tables: Path, releases: Sequence[Release], successor: Mapping[str, str]) -> dict[str, Gene]:
    """Human genes by Ensembl id; an approved gene without an id has its symbol after a dash in place of it."""
    hgnc = [row[:3] for row in read_rows(tables / "hgnc_symbols.tsv.gz")][1:]
    gencode44 = read_release(tables / "gencode44_id_to_symbol.tsv.gz", HUMAN)
    named = {name for release in (*releases[:1], gencode44) for _, name, _ in release}
    approved = [(gene_id or f"-{symbol}", symbol, group) for symbol, group, gene_id in hgnc if gene_id or symbol not in named]
    species = Species()
    today: list[Release] = [releases[0] if releases else [], gencode44, approved]
    for rank, release in enumerate([*today, *releases[1:]], start=1):
        species.add(release, rank, successor if rank > NAMING else None)
    genes = merge_same_symbol(species, {gene_id for _, _, gene_id in hgnc})
    receptors = {gene_id for release in releases for gene_id, _, group in release if group == "immune receptor gene"}
    for gene in genes.values():
        gene.group = "immune receptor gene" if gene.gene_id in receptors else gene.group
    return genes


def add_aliases(humans: dict[str, Gene], aliases: Iterable[tuple[str, str]]) -> None:
    """Give each gene the aliases of its ids; a gene without an id gets the one that its symbol has here."""
    without = {gene.symbol.upper(): gene for gene_id, gene in humans.items() if gene_id.startswith("-")}
    for alias, gene_id in aliases:
        if gene_id not in humans and alias in without and without[alias].gene_id.startswith("-"):
            without[alias].gene_id = gene_id
            humans[gene_id] = without[alias]
        if gene_id in humans:
            claim(humans[gene_id].aliases, {alias: CURATED})


def join_species(humans: dict[str, Gene], mice: dict[str, Gene], pairs: list[tuple[str, str]]) -> list[Gene]:
    """Fold mouse genes onto human ones; the symbols of pairs are first brought up to date through older names."""
    human_now, mouse_now = current_symbols(humans), current_symbols(mice)
    current = [(human_now.get(human.upper(), human), mouse_now.get(mouse.upper(), mouse)) for human, mouse in pairs]
    human_rows, mouse_rows = ({gene.symbol: gene for gene in genes.values()} for genes in (humans, mice))
    weak = {now for now, (_, old) in zip(current, pairs, strict=True) if is_weak(now[0], (now[1], old), human_rows)}
    older: dict[str, dict[str, int]] = defaultdict(dict)
    for (_, old), (_, now) in zip(pairs, current, strict=True):
        older[now][old] = CURATED
    for mouse_symbol, human_symbol in fold_pairs(current, weak, human_rows, mouse_rows).items():
        row, twin = human_rows[human_symbol], mouse_rows.pop(mouse_symbol, Gene())
        row.mouse_symbol, row.mouse_gene_id = mouse_symbol, twin.gene_id
        claim(row.mouse_aliases, {**older[mouse_symbol], **twin.aliases})
    genes = [human_rows[symbol] for symbol in sorted(human_rows)]
    for symbol, twin in sorted(mouse_rows.items()):
        only = Gene(symbol=symbol, mouse_symbol=symbol, mouse_gene_id=twin.gene_id, group=twin.group, is_human=False)
        only.is_recent = twin.is_recent
        claim(only.mouse_aliases, {**older[symbol], **twin.aliases})
        genes.append(only)
    return genes


def current_symbols(genes: Mapping[str, Gene]) -> dict[str, str]:
    """Upper-cased symbol or older name to the symbol of today; an older name that two genes had is nobody's."""
    rows = list({gene.symbol: gene for gene in genes.values()}.values())
    often = Counter(alias for gene in rows for alias in gene.aliases)
    now = {alias: gene.symbol for gene in rows for alias in gene.aliases if often[alias] == 1}
    return now | {gene.symbol.upper(): gene.symbol for gene in rows}


def is_weak(human_symbol: str, mouse_names: Iterable[str], human: Mapping[str, Gene]) -> bool:
    """Whether a pair joins a copy: an unnamed mouse gene, or a human pseudogene or read-through of two genes (FMC1-LUC7L2)."""
    parts = human_symbol.split("-")
    is_read_through = len(parts) > 1 and any(part in human for part in parts)
    is_pseudogene = human_symbol in human and human[human_symbol].group == "pseudogene"
    return is_read_through or is_pseudogene or any(UNNAMED_MOUSE.match(name) for name in mouse_names)


def fold_pairs(
    pairs: Iterable[tuple[str, str]], weak: set[tuple[str, str]], human: Mapping[str, Gene], mouse: Mapping[str, Gene]
) -> dict[str, str]:
    """Mouse symbol to the human symbol it folds onto: one-to-one pairs, and equal names of which neither has a pair.

    A weak pair (`is_weak`) doesn't count beside a strong one of the same gene.
    """
    kept = {(h, m) for h, m in pairs if h in human}
    strong_human, strong_mouse = ({pair[side] for pair in kept - weak} for side in (0, 1))
    counted = {(h, m) for h, m in kept if (h, m) not in weak or (h not in strong_human and m not in strong_mouse)}
    often_human, often_mouse = (Counter(pair[side] for pair in counted) for side in (0, 1))
    folded = {m: h for h, m in sorted(counted) if often_human[h] == often_mouse[m] == 1}
    paired_human, paired_mouse = ({pair[side] for pair in kept} for side in (0, 1))
    upper = {symbol.upper(): symbol for symbol in human}
    for symbol in sorted(mouse.keys() - paired_mouse):
        same = upper.get(symbol.upper())
        if same and same not in paired_human and "pseudogene" not in (human[same].group, mouse[symbol].group):
            folded[symbol] = same
    return folded


def write_table(genes: Sequence[Gene], path: Path) -> None:
    """Write the gzipped table: ids as bare numbers, a name that repeats its id or neighbour left out, each alias once."""
    repeated = [symbol for symbol, often in Counter(gene.symbol for gene in genes).items() if often > 1]
    if repeated:
        raise VocabularyError(f"symbols {some(repeated)} name two rows; needed one row a symbol")
    human_symbols = {gene.symbol.upper() for gene in genes if gene.is_human}
    mouse_symbols = {gene.mouse_symbol.upper() for gene in genes if gene.mouse_symbol}
    aliases = owned([gene.aliases for gene in genes], human_symbols | {gene.gene_id for gene in genes}, PREFIXES[HUMAN])
    mouse_aliases = owned([gene.mouse_aliases for gene in genes], mouse_symbols | {gene.mouse_gene_id for gene in genes}, PREFIXES[MOUSE])
    lines = ["\t".join(COLUMNS)]
    for gene, human_names, mouse_names in zip(genes, aliases, mouse_aliases, strict=True):
        gene_id = "-" if gene.gene_id.startswith("-") else short(gene.gene_id, PREFIXES[HUMAN])
        mouse_id = short(gene.mouse_gene_id, PREFIXES[MOUSE])
        symbol = "" if gene.symbol in (gene.gene_id, gene.mouse_gene_id) else gene.symbol
        written = {gene.mouse_gene_id: "", symbol.capitalize(): "~", symbol: "="}
        group = f"{LOCUS_GROUPS.index(gene.group)}{'+' if gene.is_recent else ''}"
        mouse_symbol = written.get(gene.mouse_symbol, gene.mouse_symbol) if gene.mouse_symbol else ""
        lines.append("\t".join((symbol, gene_id, mouse_symbol, mouse_id, group, human_names, mouse_names)))
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        file.write(("\n".join(lines) + "\n").encode())


def short(gene_id: str, prefix: str) -> str:
    """An Ensembl id as its bare number."""
    return gene_id.removeprefix(prefix).lstrip("0")


def owned(claims: Sequence[Mapping[str, int]], taken: set[str], prefix: str) -> list[str]:
    """The aliases of each gene, joined by ``|``: those it has the best claim to and no gene has as symbol; retired ids as ``#number``."""
    best: dict[str, tuple[int, int]] = {}
    for row, names in enumerate(claims):
        for name, rank in names.items():
            if name not in taken:
                best[name] = min(best.get(name, (rank, row)), (rank, row))
    kept: list[list[str]] = [[] for _ in claims]
    for name in sorted(best):
        is_id = name.startswith(prefix) and name[len(prefix) :].isdigit()
        kept[best[name][1]].append(f"#{short(name, prefix)}" if is_id else name)
    return ["|".join(names) for names in kept]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scmulan.genes_build", description="Build the gene table of the tokenizer folder.")
    parser.add_argument("tables", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--human", type=Path, nargs="*", default=[], help="annotation releases of human genes, newest first")
    parser.add_argument("--mouse", type=Path, nargs="*", default=[], help="annotation releases of mouse genes, newest first")
    options = parser.parse_args(arguments)
    genes = build(options.tables, options.human, options.mouse)
    write_table(genes, options.output)
    human, folded = sum(gene.is_human for gene in genes), sum(gene.is_human and bool(gene.mouse_symbol) for gene in genes)
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {human:,} human genes, {folded:,} with a mouse orthologue, {len(genes) - human:,} mouse-only, {size:.2f} MB")


if __name__ == "__main__":
    main()
