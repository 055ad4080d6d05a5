"""Builds ``tokenizer/ontologies/`` from the ontologies that CELLxGENE uses: a command for maintainers, never run by users.

    python -m scmulan.ontology_build [-o tokenizer/ontologies]

Needs the extra ``ontology``. Kept of each term: id, label, the terms right above it, exact synonyms as loose keys (`scmulan.spelling`),
and the ids that it replaced (``#`` before the number). Of EFO only assays are kept. Right above are the ancestors (by is-a and part-of)
that are no other ancestor's ancestor. A spelling goes to the term that has it as label, else to the synonym's; where several terms
share it, to the one that all the others stand below, else to none (of two labels that are one key, EFO's nuc-seq, the later id has it).
The same releases give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scmulan.errors import EngineError, VocabularyError, some
from scmulan.ontology import COLUMNS, NAMES
from scmulan.spelling import loose, plain

ROOTS = {"EFO": ("EFO:0002772", "EFO:0010183")}  # assay by molecule, single cell library construction: what CELLxGENE takes as assay
KEEPS_OBSOLETE = ("HsapDv", "MmusDv")  # here a term went without a successor but its label still says what it is: adult stage
NUMBER = re.compile(r"\d{7}")

Terms = Mapping[str, Mapping[str, Any]]


def read_terms(name: str) -> tuple[Terms, str]:
    """Every term of an ontology as CELLxGENE's guide has it, and where from: release, guide, schema."""
    try:
        from cellxgene_ontology_guide.supported_versions import CXGSchema
    except ImportError:
        raise EngineError("building ontologies needs cellxgene-ontology-guide; run: pip install 'scmulan[ontology]'") from None
    schema = CXGSchema()
    release = schema.supported_ontologies[name]["version"]
    guide = importlib.metadata.version("cellxgene-ontology-guide")
    return schema.ontology(name), f"{release} (cellxgene-ontology-guide {guide}, schema {schema.version})"


def kept_terms(name: str, terms: Terms) -> dict[str, Mapping[str, Any]]:
    """The terms of the table, by id in order: all that are in use (of EFO, under its roots), and old stages."""
    roots = set(ROOTS.get(name, ()))
    live = {
        term_id: term
        for term_id, term in sorted(terms.items())
        if term_id.startswith(f"{name}:") and (not term["deprecated"] or (name in KEEPS_OBSOLETE and not term.get("replaced_by")))
    }
    kept = {key: term for key, term in live.items() if term["label"] and (not roots or key in roots or roots & term["ancestors"].keys())}
    today = {key_of(term["label"]) for term in kept.values() if not term["deprecated"]}
    kept = {key: term for key, term in kept.items() if not term["deprecated"] or key_of(term["label"]) not in today}
    odd = [term_id for term_id in kept if not NUMBER.fullmatch(term_id.partition(":")[2])]
    if odd:
        raise VocabularyError(f"{name}: ids {some(odd)}; needed seven digits after the colon")
    return kept


def parents_of(terms: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Ancestors of each term that are no other ancestor's ancestor."""
    above = {term_id: {other for other in term["ancestors"] if other in terms and other != term_id} for term_id, term in terms.items()}
    circular = sorted(term_id for term_id, others in above.items() if any(term_id in above[other] for other in others))
    if circular:
        raise VocabularyError(f"terms {some(circular)} stand above themselves; needed an order without circles")
    return {term_id: sorted(others.difference(*(above[other] for other in others))) for term_id, others in above.items()}


def spellings_of(terms: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, list[str]], int]:
    """Keys of each term's spellings beside its label, and how many keys are nobody's because several terms share them."""
    labels: dict[str, set[str]] = defaultdict(set)
    synonyms: dict[str, set[str]] = defaultdict(set)
    for term_id, term in terms.items():
        labels[key_of(term["label"])].add(term_id)
        for synonym in term.get("synonyms", ()):
            synonyms[key_of(synonym)].add(term_id)
    found: dict[str, list[str]] = {term_id: [] for term_id in terms}
    shared = 0
    for key, claimants in sorted({**synonyms, **labels}.items()):
        top = [each for each in claimants if all(each == other or each in terms[other]["ancestors"] for other in claimants)]
        shared += not top
        if top and key and not set("|#") & set(key) and key != loose(terms[top[0]]["label"].lower()):
            found[top[0]].append(key)
    return found, shared


def key_of(spelling: str) -> str:
    """The key under which a spelling is looked up in the tables."""
    return loose(plain(spelling))


def former_numbers(name: str, terms: Terms, kept: Mapping[str, Any]) -> dict[str, list[str]]:
    """Numbers of the obsolete terms that each kept term replaced, at once or by way of others, or whose label it has now."""
    found: dict[str, list[str]] = {term_id: [] for term_id in kept}
    of_label = {key_of(term["label"]): term_id for term_id, term in kept.items()}
    for term_id, term in sorted(terms.items()):
        now, seen = term_id, set()
        while now in terms and now not in kept and now not in seen:
            seen.add(now)
            now = str(terms[now].get("replaced_by") or of_label.get(key_of(terms[now]["label"]), ""))
        if term["deprecated"] and now in kept and now != term_id:
            found[now].append(term_id.partition(":")[2])
    return found


def write_table(name: str, terms: Terms, source: str, path: Path) -> str:
    """Write one gzipped table; returns what is in it, in a line."""
    kept = kept_terms(name, terms)
    parents, former = parents_of(kept), former_numbers(name, terms, kept)
    spellings, shared = spellings_of(kept)
    lines = [f"# {name} {source}", "\t".join(COLUMNS)]
    for term_id, term in kept.items():
        above = " ".join(parent.partition(":")[2] for parent in parents[term_id])
        known_as = "|".join([*spellings[term_id], *(f"#{number}" for number in former[term_id])])
        lines.append("\t".join((term_id.partition(":")[2], " ".join(term["label"].split()), above, known_as)))
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        file.write(("\n".join(lines) + "\n").encode())
    counts = [sum(map(len, each.values())) for each in (spellings, former)]
    return (
        f"{path}: {name} {source}: {len(kept):,} terms, {counts[0]:,} further spellings ({shared:,} left out, shared by several terms), "
        f"{counts[1]:,} former ids, {path.stat().st_size / 1e3:.0f} kB"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scmulan.ontology_build", description="Build the ontologies of the tokenizer folder.")
    parser.add_argument("-o", "--output", type=Path, default=Path("tokenizer/ontologies"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        print(write_table(name, *read_terms(name), options.output / f"{name}.tsv.gz"))


if __name__ == "__main__":
    main()
