"""What was found in a data set and what was done with it: one finding a question, each with a verdict and, where needed, the fix.

`scmulan.cells` fills a `CellReport` while it reads; ``scmulan check`` prints it. A ``problem`` is what `read_cells` raises;
a ``warning`` is something that was done with the data, or is odd in it, that the user should know of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from scmulan import metadata
from scmulan.counts import PSEUDO_DEPTH, Values
from scmulan.errors import CellDataError, some
from scmulan.fields import FieldSet
from scmulan.genes import GeneMatch, GeneTable, species_of

Verdict = Literal["ok", "warning", "problem"]
MARKS: dict[Verdict, str] = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
FREE_FIELDS = ("time", "perturbation", "dose", "stage")  # no closed set of labels: an unknown one is nothing to warn of
FAMILIAR = 0.9  # share of counts on known genes below which something is wrong with the names
DYING = 0.2  # median mitochondrial share of counts above which the cells look damaged
READS = 100_000  # median depth from which counts are reads of a full-length protocol rather than molecules


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer to one question about a data set; ``numbers`` holds what ``found`` says in words."""

    question: str
    verdict: Verdict
    found: str
    fix: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class CellReport:
    """Findings about one data set, in the order of reading; ``report["values"]`` is the finding of a question."""

    source: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, question: str, verdict: Verdict, found: str, fix: str = "", **numbers: Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(question=question, verdict=verdict, found=found, fix=fix, numbers=numbers))

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all findings."""
        verdicts = {finding.verdict for finding in self.findings}
        return "problem" if "problem" in verdicts else "warning" if "warning" in verdicts else "ok"

    def __getitem__(self, question: str) -> Finding:
        return next(finding for finding in self.findings if finding.question == question)

    def __contains__(self, question: str) -> bool:
        return any(finding.question == question for finding in self.findings)

    def raise_problem(self) -> None:
        """Raise CellDataError with all problems found, if any."""
        problems = [f"{f.found}; {f.fix}" if f.fix else f.found for f in self.findings if f.verdict == "problem"]
        if problems:
            raise CellDataError(f"{self.source}: " + "\n  and: ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; a number that is not known is None."""
        findings = [{"question": f.question, "verdict": f.verdict, "found": f.found, "fix": f.fix, **f.numbers} for f in self.findings]
        for finding in findings:
            finding.update({key: None for key, value in finding.items() if isinstance(value, float) and math.isnan(value)})
        return {"source": self.source, "verdict": self.verdict, "findings": findings}

    def to_text(self) -> str:
        """A line a finding, the fix below it."""
        width = max((len(finding.question) for finding in self.findings), default=0)
        lines = [f"{self.source}: {self.verdict}"]
        for finding in self.findings:
            lines.append(f"  {MARKS[finding.verdict]:<7}  {finding.question:<{width}}  {finding.found}")
            if finding.fix:
                lines.append(f"  {'':7}  {'':{width}}  → {finding.fix}")
        return "\n".join(lines)


def report_values(report: CellReport, where: str, values: Values) -> None:
    """What kind of values there are, at what size factor, and how they became counts."""
    depth = np.asarray(values.counts.sum(axis=1)).ravel()
    numbers: dict[str, Any] = {
        "where": where, "kind": values.kind, "scale": values.scale, "recovered": values.recovered, "residual": values.residual,
        "size_factor": values.size_factor, "median_depth": float(np.median(depth)),
    }  # fmt: skip
    was = f"{where} holds {values.scale} values, {values.size_factor:,.0f} a cell"
    if values.kind == "counts":
        if len(values.counts.data) > 100 and values.counts.data.max() == 1:
            report.add("values", "warning", f"{where} holds only 0 and 1", "counts are needed, not whether a gene was seen", **numbers)
            return
        deep = "; deep, so reads rather than molecules" if np.median(depth) >= READS else ""
        report.add("values", "ok", f"raw counts in {where}{deep}", **numbers)
    elif values.kind == "recovered":
        exact = f"{was}; counts recovered exactly in {values.recovered:.1%} of cells, at most {values.residual:.1g} from a whole number"
        rest = "" if values.recovered == 1 else f"; the other cells became pseudo-counts, {PSEUDO_DEPTH:,} a cell"
        report.add("values", "ok" if values.recovered == 1 else "warning", exact + rest, **numbers)
    elif values.kind == "rounded":
        found = f"{where} holds estimated counts; rounded to whole ones"
        report.add("values", "warning", found, "give the layer with raw counts, if there is one", **numbers)
    else:
        found = f"{was}, that are no multiples of a count (TPM, RPKM, imputed?); made pseudo-counts, {PSEUDO_DEPTH:,} a cell"
        report.add("values", "warning", found, "put raw counts in layers['counts'] if you have them", **numbers)


def report_genes(report: CellReport, match: GeneMatch, share: float, left_out: Sequence[str]) -> None:
    """How genes are named, how many of them and of their counts (``share``, NaN without counts) are known, what became of the others."""
    mapped = float((match.index >= 0).mean())
    spikes = sum(name.upper().startswith("ERCC-") for name in match.unknown)
    found = f"{len(match.index):,} names ({match.naming}), {mapped:.1%} known"
    found += "" if math.isnan(share) else f", with {share:.2%} of counts"
    found += f"; {match.merged:,} summed with another name of the same gene" if match.merged else ""
    found += f"; {spikes:,} spike-ins left out" if spikes else ""
    found += f"; unknown: {some(match.unknown)}" if match.unknown else ""
    found += f"; features that are no genes left out: {some(left_out)}" if left_out else ""
    numbers: dict[str, Any] = {
        "naming": match.naming, "names": len(match.index), "genes_mapped": mapped, "counts_mapped": share, "merged": match.merged,
        "unknown": len(match.unknown), "spike_ins": spikes, "left_out": len(left_out),
    }  # fmt: skip
    if (mapped if math.isnan(share) else share) >= FAMILIAR:
        report.add("genes", "ok", found, **numbers)
        return
    guesses = "; ".join(f"{name!r} may be {some(near)}" for name, near in match.guesses().items() if near)
    report.add("genes", "warning", found, f"rename them or check the species{f': {guesses}' if guesses else ''}", **numbers)


def report_organism(report: CellReport, match: GeneMatch, said: str | None, others: int, is_sure: bool) -> None:
    """Which species the cells are of, and whether the gene names agree; ``is_sure`` when the caller insists."""
    numbers: dict[str, Any] = {"named": match.organism, "said": said}
    if said is None:
        report.add("organism", "ok", f"{match.organism}, told from the gene names", **numbers)
    elif species_of(said) is None:
        found = f"{said}; its genes were looked up among those of human and mouse"
        report.add("organism", "warning", found, "orthologues by symbol only: look at the share of genes", **numbers)
    elif species_of(said) != match.organism:
        fix = f"give organism={match.organism!r}, or insist with organism={species_of(said)!r}"
        found = f"{said} is said, but the gene names are those of {match.organism}"
        report.add("organism", "warning" if is_sure else "problem", found, "" if is_sure else fix, **numbers)
    elif others:
        report.add("organism", "warning", f"{said} first, and {others:,} cells of another species over the same genes", **numbers)
    else:
        report.add("organism", "ok", said, **numbers)


def report_fields(report: CellReport, found: FieldSet) -> None:
    """Where each field was found, its labels with their ontology ids, and those the label table does not know."""
    for name, values in found.fields.items():
        labels = {value: metadata.canonical(name, value) for value in dict.fromkeys(values) if value is not None}
        unknown = [value for value, label in labels.items() if not label.known and " || " not in value]
        ids = {value: label.ontology_id for value, label in labels.items() if label.ontology_id}
        text = f"{found.columns[name]}: {some([f'{value} ({ids[value]})' if value in ids else value for value in labels])}"
        missing = sum(value is None for value in values)
        text += f"; {missing:,} cells without" if missing else ""
        odd = bool(unknown) and name not in FREE_FIELDS
        text += f"; not in the label table, kept as written: {some(unknown)}" if odd else ""
        bare = name == "time" and any(value and value.replace(".", "").isdigit() for value in set(found.originals[name]) if value)
        text += "; numbers without a unit read as days" if bare else ""
        fix = "add them to tokenizer/labels.tsv, or leave them as free text" if odd else ""
        report.add(f"field {name}", "warning" if odd else "ok", text, fix, column=found.columns[name], labels=list(labels),
                   ontology_ids=ids, unknown=unknown, missing=missing)  # fmt: skip
    if not set(found.fields) - {"organism"}:
        report.add("fields", "warning", "obs has no column of a known name", "name the columns: --field cell_type=COLUMN")


def report_cells(report: CellReport, counts: sp.csr_matrix, cell_ids: Sequence[str], repeated: int) -> None:
    """Depth, genes, mitochondrial share; empty, doubled and namesake cells."""
    depth, genes = np.asarray(counts.sum(axis=1)).ravel(), np.diff(counts.indptr)
    is_mitochondrial = np.array([symbol.startswith("MT-") for symbol in GeneTable.load().symbols])
    of_mitochondria = counts @ is_mitochondrial.astype(np.int64)
    share = float(np.median(of_mitochondria / np.maximum(1, depth)))
    middle_depth, middle_genes = float(np.median(depth)), float(np.median(genes))
    found = f"{len(depth):,}; median {middle_depth:,.0f} counts, {middle_genes:,.0f} genes, {share:.1%} mitochondrial"
    fix = "" if share <= DYING else "many may be dying: filter by mitochondrial share"
    numbers: dict[str, Any] = {"cells": len(depth), "median_depth": middle_depth, "median_genes": middle_genes, "mitochondrial": share}
    report.add("cells", "warning" if fix else "ok", found, fix, **numbers)
    empty = np.flatnonzero(depth == 0)
    if len(empty):
        names = some(cell_ids[int(i)] for i in empty)
        if len(empty) == len(depth):
            report.add("empty cells", "problem", f"no cell has any count: {names}", "give the layer with raw counts", empty=len(empty))
        else:
            found = f"{len(empty):,} cells without counts, kept: {names}"
            report.add("empty cells", "warning", found, "drop them: sc.pp.filter_cells(adata, min_counts=1)", empty=len(empty))
    filled = depth > 0
    doubled = int(filled.sum()) - len(np.unique(fingerprints(counts)[filled]))
    if doubled:
        found = f"{doubled:,} cells have exactly the counts of another cell"
        report.add("doubled cells", "warning", found, "drop them before training or evaluation", doubled=doubled)
    if repeated:
        found = f"{repeated:,} cell names occur more than once; a number was added"
        report.add("cell names", "warning", found, "adata.obs_names_make_unique()", repeated=repeated)


def fingerprints(counts: sp.csr_matrix) -> np.ndarray:
    """(n_cells,) uint64, equal for cells of equal counts and, but for a chance of 2^-64 a pair, only for those."""
    weights = np.random.default_rng(0).integers(1, 2**63, size=counts.shape[1], dtype=np.uint64)
    terms = weights[counts.indices] * counts.data.astype(np.uint64)
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)])
    found: np.ndarray = total[counts.indptr[1:]] - total[counts.indptr[:-1]]
    return found
