"""What was found in a data set and what was done with it: one finding a question, each with a verdict and, where needed, the fix.

`scmulan.cells` fills a `CellReport` while it reads; ``scmulan check`` prints it. A ``problem`` is what `read_cells` raises;
a ``warning`` is something that was done with the data, or is odd in it, that the user should know of.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from scmulan import metadata
from scmulan.counts import PSEUDO_DEPTH, Values
from scmulan.counts_forms import norm_of
from scmulan.errors import CellDataError, some
from scmulan.fields import FieldSet

Verdict = Literal["ok", "warning", "problem"]
MARKS: dict[Verdict, str] = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
FORMAT = 1  # of `CellReport.to_dict`; raised when a key changes its meaning or goes
FREE_FIELDS = ("time", "perturbation", "dose", "stage")  # no closed set of labels: an unknown one is nothing to warn of
FEWEST_CELLS = 10  # to judge by whether all have one depth
ROUNDED = 0.005  # spread of depths below which whole numbers are rounded shares
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
            finding.update({key: None for key, value in finding.items() if isinstance(value, float) and not math.isfinite(value)})
        return {"format": FORMAT, "source": self.source, "verdict": self.verdict, "findings": findings}

    def to_text(self, width: int | None = None) -> str:
        """A line a finding, the fix below it, and what that means for the whole; lines broken at ``width`` where given."""
        indent = 11 + max((len(finding.question) for finding in self.findings), default=0)
        lines = [f"{self.source}: {self.verdict}"]
        for finding in self.findings:
            head = f"  {MARKS[finding.verdict]:<7}  {finding.question}"
            lines += _broken(f"{head:<{indent}}  {finding.found}", indent + 2, width)
            if finding.fix:
                lines += _broken(f"{'':{indent}}  → {finding.fix}", indent + 4, width)
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        """What the findings come to."""
        often = Counter(finding.verdict for finding in self.findings)
        if often["problem"]:
            return f"Not usable until {'the problem is' if often['problem'] == 1 else 'the problems are'} mended; → says how."
        number = often["warning"]
        return f"Usable; {f'{number} warnings to read' if number > 1 else '1 warning to read' if number else 'nothing to mend'}."


def _broken(line: str, indent: int, width: int | None) -> list[str]:
    if width is None or width < indent + 30:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def report_values(
    report: CellReport,
    where: str,
    values: Values,
    *,
    form: str = "",
    passed_by: Mapping[str, str] | None = None,
    elsewhere: Sequence[str] = (),
) -> None:
    """What kind of values there are, at what size factor, and how they became counts.

    Parameters
    ----------
    where
        Place the values were read from.
    form
        What else was done to them, in words.
    passed_by
        Places that go first but could not be read, with what is wrong there.
    elsewhere
        Places that were not looked for and hold whole numbers.
    """
    depth = np.asarray(values.counts.sum(axis=1)).ravel()
    norm = "" if values.kind in ("counts", "rounded") else norm_of(values)
    numbers: dict[str, Any] = {
        "where": where, "kind": values.kind, "scale": values.scale, "recovered": values.recovered, "residual": values.residual,
        "size_factor": values.size_factor, "size_spread": values.spread, "norm": norm, "median_depth": float(np.median(depth)),
        "passed_by": dict(passed_by or {}), "whole_numbers_elsewhere": list(elsewhere),
    }  # fmt: skip
    verdict, found, fix = _values_in_words(where, values, depth, norm, form)
    found += "".join(f"; {place} can't be used: {fault}" for place, fault in (passed_by or {}).items())
    if verdict == "warning" and elsewhere:
        fix = f"{fix}; whole numbers lie in {', '.join(elsewhere)}: if they are the counts, adata.layers['counts'] = adata.{elsewhere[0]}"
    report.add("values", verdict, found, fix, **numbers)


def _values_in_words(where: str, values: Values, depth: np.ndarray, norm: str, form: str) -> tuple[Verdict, str, str]:
    """Verdict, what was found, and the fix."""
    if values.kind == "counts":
        return _counts_in_words(where, values, depth)
    if values.kind == "rounded":
        found = f"{where} holds estimated counts (part of them fractions); rounded to whole ones"
        return "warning", found, "give the layer with raw counts, if there is one"
    was = f"{where} holds {values.scale} values, {norm}"
    if values.kind == "recovered":
        exact = f"{was}; counts recovered exactly in {values.recovered:.1%} of cells, at most {values.residual:.1g} from a whole number"
        if values.recovered == 1:
            return "ok", exact, ""
        rest = f"; the other cells became pseudo-counts, {PSEUDO_DEPTH:,} a cell"
        return "warning", exact + rest, "put raw counts in layers['counts'] if you have them"
    why = form or "multiples of no count (TPM, RPKM, imputed?)"
    found = f"{was}; {why}; not recoverable, so made pseudo-counts, {PSEUDO_DEPTH:,} a cell"
    return "warning", found, "put raw counts in layers['counts'] if you have them"


def _counts_in_words(where: str, values: Values, depth: np.ndarray) -> tuple[Verdict, str, str]:
    """The same of whole numbers, which may be something else than counts of molecules."""
    if len(values.counts.data) > 100 and values.counts.data.max() == 1:
        return "warning", f"{where} holds only 0 and 1", "counts are needed, not whether a gene was seen"
    filled = depth[depth > 0]
    if len(filled) >= FEWEST_CELLS and values.spread < ROUNDED and len(np.unique(filled)) > 1:
        total = float(f"{np.median(filled):.3g}")
        found = f"{where} holds whole numbers, but every cell sums to about {total:,.0f}: rounded TPM or CPM rather than counts"
        return "warning", found, "give the counts from before they were normalised, in layers['counts']"
    deep = "; deep, so reads rather than molecules" if np.median(depth) >= READS else ""
    even = (
        f"; every cell has exactly {filled[0]:,.0f}, so they were downsampled" if len(filled) >= FEWEST_CELLS and not np.ptp(filled) else ""
    )
    return "ok", f"raw counts in {where}{deep}{even}", ""


def report_fields(report: CellReport, found: FieldSet) -> None:
    """Where each field was found, its labels with their ontology ids, and those the label table does not know."""
    for name, values in found.fields.items():
        labels = list(dict.fromkeys(value for value in values if value is not None))
        ids = {value: joined for value in labels if (joined := _ids_of(name, value))}
        unknown = [value for value in labels if not all(metadata.canonical(name, part).known for part in value.split(" || "))]
        missing = sum(value is None for value in values)
        kinds = found.kinds.get(name, {})
        odd, mixed = bool(unknown) and name not in FREE_FIELDS, len(kinds) > 1
        text = f"{found.columns[name]}: {some([f'{value} ({ids[value]})' if value in ids else value for value in labels])}"
        text += f"; {missing:,} cells without" if missing else ""
        text += f"; not in the label table, kept as written: {some(unknown)}" if odd else ""
        text += f"; of mixed kinds, read as text: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}" if mixed else ""
        bare = name == "time" and any(value and value.replace(".", "").isdigit() for value in set(found.originals[name]) if value)
        text += "; numbers without a unit read as days" if bare else ""
        fixes = [_fix_of_labels(unknown)] if odd else []
        fixes += [f"make the values of one kind, for example adata.{found.columns[name]}.astype(str)"] if mixed else []
        report.add(f"field {name}", "warning" if odd or mixed else "ok", text, "; ".join(fixes), column=found.columns[name], labels=labels,
                   ontology_ids=ids, unknown=unknown, missing=missing, kinds=kinds)  # fmt: skip
    if not set(found.fields) - {"organism"}:
        report.add("fields", "warning", "obs has no column of a known name", "name the columns: --field cell_type=COLUMN")


def _ids_of(name: str, value: str) -> str:
    """Ontology ids of a label, of each part where several are joined by " || "; an empty string where one has none."""
    ids = [metadata.canonical(name, part).ontology_id for part in value.split(" || ")]
    return " || ".join(ids) if all(ids) else ""


def _fix_of_labels(unknown: Sequence[str]) -> str:
    if all(value.replace(".", "").isdigit() for value in unknown):
        return "these look like numbers of clusters: give their names in a column of their own"
    return "add them to tokenizer/labels.tsv, or leave them as free text"
