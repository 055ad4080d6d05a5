"""What the gene names of a data set are: how each was found, what the unknown ones look like, of which species they speak.

The share of counts that map is given twice: of all counts, and of the counts of protein-coding genes. A name that is not known has no
group, so every one that is no spike-in is taken for a protein-coding gene: that share is a lower bound, never a flattering figure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan.doctor import CellReport, Verdict
from scmulan.errors import some
from scmulan.genes import DATE, GENOME_PREFIX, HUMAN, MOUSE, GeneMatch, GeneTable, species_of

FAMILIAR = 0.9  # share of counts on known genes below which something is wrong with the names
LEAST_KNOWN = 0.01  # share of the names that are known below which the matrix is not one of genes as far as can be told
TWO_SPECIES = 0.1  # share of the names that speak for a species, above which a second one is in the matrix; 0.4 % is the most of 13 files
FEWEST_NAMES = 20  # of the second species
BOTH = 0.1  # share of a cell's counts from either species above which it is a doublet of both
CODING = "protein-coding gene"
SPIKE_IN = re.compile(r"ERCC-\d")
LOOKS: dict[str, re.Pattern[str]] = {  # what an unknown name looks like, the first that fits
    "spike-in": SPIKE_IN,
    "Ensembl gene id of human or mouse": re.compile(r"ENS(MUS)?G\d{11}"),
    "Ensembl transcript id": re.compile(r"ENS(MUS)?T\d{11}"),
    "Ensembl id of another species": re.compile(r"ENS[A-Z]{3,}[GTP]\d{11}"),
    "number": re.compile(r"\d+$"),
    "genomic interval": re.compile(r"(CHR)?[\dXYM]{1,2}[:_-]\d+[-_]\d+$"),
    "clone or contig": re.compile(r"(RP\d+|CT[A-D]|CH\d+|LL\d+NC\d+|KB|LA\d+|XX\w*|GS\d)-|(A[CDFLPJ]|BX|CR|CU|FO|FP|Z|U|CAAA)\d{5,}\b"),
    "LOC number": re.compile(r"LOC\d+$"),
    "predicted mouse gene": re.compile(r"GM\d+$|.*RIK$|(AI|AU|AW|BB|BC|AK|AY|D)\d{4,}$"),
    "other": re.compile(""),
}
WORDS = {
    "symbol": "symbols of today", "older name": "older names", "symbol of the other species": "symbols of the other species",
    "older name of the other species": "older names of the other species", "respelled": "respelled by R, a spreadsheet or to be unique",
    "Ensembl id": "Ensembl ids", "Ensembl id with version": "Ensembl ids with version", "another column": "known by another column of var",
}  # fmt: skip
FIXES = {
    "Ensembl transcript id": "sum transcripts to genes first (tximport, or your quantifier's gene table)",
    "Ensembl id of another species": "only human and mouse are known: map the ids to human orthologues first",
    "number": "these are Entrez ids or row numbers: put symbols or Ensembl ids in adata.var_names, or in var['gene_symbol']",
    "genomic interval": "these are peaks, not genes: give the matrix of gene expression",
}


def report_genes(
    report: CellReport, match: GeneMatch, names: Sequence[str], counts: np.ndarray | None, left_out: Sequence[str], organism: str
) -> None:
    """How genes are named, how many of them and of their counts are known, what became of the others.

    Parameters
    ----------
    names
        (n,) names of the genes, those of ``match``.
    counts
        (n,) counts of each name, None where there are none.
    left_out
        Names of features that are no genes.
    organism
        Species whose names go first.
    """
    looks = Counter(look_of(name) for name in match.unknown)
    mapped, spikes = float((match.index >= 0).mean()), looks["spike-in"]
    share, coding = shares(match, names, counts)
    found = f"{len(names):,} names, {mapped:.1%} known"
    found += "" if math.isnan(share) else f", with {share:.2%} of counts"
    found += "" if math.isnan(coding) else f", and at least {floored(coding)} of those of protein-coding genes"
    found += f"; {match.merged:,} summed with another name of the same gene" if match.merged else ""
    found += f"; {spikes:,} spike-ins left out" if spikes else ""
    found += f"; features that are no genes left out: {some(left_out)}" if left_out else ""
    is_familiar = (mapped if math.isnan(share) else share) >= FAMILIAR
    trouble: Verdict = "warning" if mapped >= LEAST_KNOWN else "problem"
    report.add("genes", "ok" if is_familiar else trouble, found, "" if is_familiar else fix_of(match),
               naming=match.naming, names=len(match.index), genes_mapped=mapped, counts_mapped=share, coding_counts_mapped=coding,
               merged=match.merged, unknown=len(match.unknown), spike_ins=spikes, left_out=len(left_out))  # fmt: skip
    _report_names(report, match, names, organism, looks)


def _report_names(report: CellReport, match: GeneMatch, names: Sequence[str], organism: str, looks: Counter[str]) -> None:
    """How each name was found, and what those look like that were not."""
    found_by = GeneTable.load().ways(names, organism)
    ways = Counter(
        "another column" if way == "unknown" and row >= 0 else way for way, row in zip(found_by, match.index.tolist(), strict=True)
    )
    repeated = len(names) - len(set(names))
    dates = sum("-" in name and DATE.match(name.upper()) is not None for name in names)
    found = _listed({WORDS.get(way, way): count for way, count in ways.most_common() if way != "unknown"})
    found += f"; {dates:,} turned into dates by a spreadsheet, and back" if dates else ""
    found += f"; {repeated:,} repeated" if repeated else ""
    found += f"; unknown: {some(match.unknown)}" if match.unknown else ""
    found += f" ({_listed(dict(looks.most_common()))})" if len(match.unknown) > 3 else ""
    report.add("gene names", "ok", found, naming=match.naming, found_by=dict(ways.most_common()), unknown_by_look=dict(looks.most_common()),
               repeated=repeated, dates=dates)  # fmt: skip


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in numbers.items())


def floored(share: float) -> str:
    """A share in percent with two digits, never rounded up."""
    return f"{math.floor(share * 1e4) / 100:.2f}%"


def shares(match: GeneMatch, names: Sequence[str], counts: np.ndarray | None) -> tuple[float, float]:
    """Share of counts on known genes: of all counts, and of protein-coding genes at least; NaN without counts.

    >>> table = GeneTable.load()
    >>> names = ["GATA1", "MALAT1", "no gene", "ERCC-00074"]
    >>> shares(table.resolve(names), names, np.array([9, 5, 1, 5]))
    (0.7, 0.9)
    """
    if counts is None or not counts.sum():
        return math.nan, math.nan
    known = match.index >= 0
    coding = known & (GeneTable.load().locus_groups[np.maximum(match.index, 0)] == CODING)
    spike_in = np.array([SPIKE_IN.match(name.upper()) is not None for name in names])
    of_coding, of_unknown = float(counts[coding].sum()), float(counts[~known & ~spike_in].sum())
    bound = of_coding / (of_coding + of_unknown) if of_coding + of_unknown else math.nan
    return float(counts[known].sum() / counts.sum()), bound


def look_of(name: str) -> str:
    """What kind of name an unknown name looks like: a key of `LOOKS`."""
    plain = GENOME_PREFIX.sub("", name.strip().upper())
    return next(look for look, pattern in LOOKS.items() if pattern.match(plain))


def fix_of(match: GeneMatch) -> str:
    """What to do about names most of which are unknown."""
    looks = Counter(look_of(name) for name in match.unknown)
    fix = next((FIXES[look] for look, count in looks.most_common() if look in FIXES and 2 * count >= len(match.unknown)), None)
    if fix is not None:
        return fix
    guesses = "; ".join(f"{name!r} may be {some(near)}" for name, near in match.guesses().items() if near)
    return f"rename them or check the species{f': {guesses}' if guesses else ''}"


def speaks_for_two(names: Sequence[str], species: np.ndarray) -> bool:
    """Whether names (n,) of both species are in one matrix (a barnyard or a xenograft), by `GeneTable.species` of each."""
    human, mouse = int((species > 0).sum()), int((species < 0).sum())
    fewest = min(human, mouse)
    genomes = {match[1] is not None for name in names if (match := GENOME_PREFIX.match(name.strip().upper()))}
    return len(genomes) == 2 or (fewest >= FEWEST_NAMES and fewest >= TWO_SPECIES * (human + mouse))


def report_two_species(report: CellReport, species: np.ndarray, counts: sp.csr_matrix | None, organism: str | None) -> None:
    """A matrix of human and mouse genes: how many names and cells of each; a problem unless the caller said which species to read.

    Parameters
    ----------
    species
        (n,) of each name, as `GeneTable.species` gives it.
    counts
        (n_cells, n) counts under those names.
    """
    human, mouse = int((species > 0).sum()), int((species < 0).sum())
    found, numbers = (
        f"{human:,} names of human genes and {mouse:,} of mouse genes in one matrix",
        {"human_names": human, "mouse_names": mouse},
    )
    if counts is not None:
        of_human, of_mouse = (np.asarray(counts[:, species == sign].sum(axis=1)).ravel() for sign in (1, -1))
        share = np.divide(of_mouse, of_human + of_mouse, out=np.zeros(len(of_human)), where=of_human + of_mouse > 0)
        both = int(((share > BOTH) & (share < 1 - BOTH)).sum())
        numbers |= {"mouse_cells": int((share >= 1 - BOTH).sum()), "cells_of_both": both}
        found += f"; {numbers['mouse_cells']:,} of {len(share):,} cells are of mouse, {both:,} hold both (doublets)"
    fix = (
        "split it: keep the cells of one species, then read them with organism='human' or organism='mouse', which leaves the other's genes"
    )
    if organism is None:
        report.add("two species", "problem", found, fix, **numbers)
    else:
        kept = species_of(organism)
        other = MOUSE if kept == HUMAN else HUMAN
        found += f"; genes of {other} left out, as asked"
        report.add("two species", "warning", found, f"drop the cells of {other} too", **numbers)


def report_organism(report: CellReport, match: GeneMatch, said: str | None, others: int, is_sure: bool) -> None:
    """Which species the cells are of, and whether the gene names agree; ``is_sure`` when the caller insists."""
    numbers: dict[str, Any] = {"named": match.organism, "said": said}
    if said is None:
        report.add("organism", "ok", f"{match.organism}, told from the gene names", **numbers)
    elif species_of(said) is None:
        found = f"{said}; its genes were looked up among those of human and mouse"
        report.add("organism", "warning", found, "orthologues by symbol only: look at the share of genes", **numbers)
    elif species_of(said) != match.organism and (match.index >= 0).mean() >= LEAST_KNOWN:
        fix = f"give organism={match.organism!r}, or insist with organism={species_of(said)!r}"
        found = f"{said} is said, but the gene names are those of {match.organism}"
        report.add("organism", "warning" if is_sure else "problem", found, "" if is_sure else fix, **numbers)
    elif others:
        report.add("organism", "warning", f"{said} first, and {others:,} cells of another species over the same genes", **numbers)
    else:
        report.add("organism", "ok", said, **numbers)
