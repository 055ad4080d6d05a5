"""How far a data set is in the form of CELLxGENE's schema 7.0.0, which scmulan reads but does not need.

    https://github.com/chanzuckerberg/single-cell-curation/blob/main/schema/7.0.0/schema.md

Names of ``obs``, ``var`` and ``uns``, the shape of ontology ids, and names that older schemas had (the organism stood in ``obs`` to 5.3).
Limit: whether a term exists, or fits its cell, is not looked up; `cellxgene-schema validate` does that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scmulan.doctor import CellReport
from scmulan.errors import some
from scmulan.fields import values_of

VERSION = "7.0.0"
_STAGES = r"HsapDv:\d{7}|MmusDv:\d{7}|UBERON:\d{7}|WBls:\d{7}|ZFS:\d{7}|FBdv:\d{8}"
_CELLS = r"CL:\d{7}|WBbt:\d{7}|ZFA:\d{7}|FBbt:\d{8}"
OBS: dict[str, str] = {  # column: what each value is, where several are joined each of them
    "assay_ontology_term_id": r"EFO:\d{7}",
    "cell_type_ontology_term_id": rf"{_CELLS}|unknown",
    "development_stage_ontology_term_id": rf"{_STAGES}|unknown",
    "disease_ontology_term_id": r"MONDO:\d{7}|PATO:0000461",
    "donor_id": r".+",
    "is_primary_data": r"True|False",
    "self_reported_ethnicity_ontology_term_id": r"HANCESTRO:\d{4,7}|unknown|na",
    "sex_ontology_term_id": r"PATO:0000383|PATO:0000384|PATO:0001340|unknown",
    "suspension_type": r"cell|nucleus|na",
    "tissue_ontology_term_id": rf"UBERON:\d{{7}}|{_CELLS}|unknown",
    "tissue_type": r"tissue|organoid|cell culture",
}
JOINED = ("disease_ontology_term_id", "self_reported_ethnicity_ontology_term_id")
UNS = ("organism_ontology_term_id", "title")
VAR = ("feature_is_filtered",)
DEPRECATED = {
    "obs": ("organism", "organism_ontology_term_id", "ethnicity", "ethnicity_ontology_term_id"),
    "uns": ("X_normalization", "default_field", "layer_descriptions", "tags", "version", "contributors", "preprint_doi",
            "project_description", "project_links", "project_name", "publication_doi"),
}  # fmt: skip
IDS = tuple(name for name in OBS if name.endswith("_ontology_term_id"))
GENE = re.compile(r"ENS[A-Z]*G\d{11}|ERCC-\d+|WBGene\d{8}|FBgn\d{7}")
ORGANISM = re.compile(r"NCBITaxon:\d+")


def report_schema(
    report: CellReport,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    uns: Mapping[str, Any],
    raw_var: pd.DataFrame | None = None,
    obsm: Sequence[str] = (),
) -> None:
    """One finding: what is there of the schema, what is missing, of an older one, or does not fit; never a problem.

    A data set that makes no claim to the schema, by its version or by a column of ontology ids, is ``ok``: there is nothing to mend.
    """
    columns = [str(name) for name in obs.columns]
    there = [name for name in OBS if name in columns]
    claims = any(name in columns for name in IDS) or any(key in uns for key in ("schema_version", "schema_reference", UNS[0]))
    missing = missing_names(columns, var, uns, obsm)
    older = [f"{place}[{name!r}]" for place, names in DEPRECATED.items() for name in names if name in (columns if place == "obs" else uns)]
    wrong = wrong_values(obs, there) | wrong_elsewhere(var, uns, raw_var)
    numbers: dict[str, Any] = {
        "version": VERSION, "said": _text(uns.get("schema_version")), "obs_names": len(there), "missing": missing, "deprecated": older,
        "wrong": wrong,
    }  # fmt: skip
    found = f"schema {VERSION}: {len(there)} of {len(OBS)} names of obs"
    if not claims:
        report.add("cellxgene", "ok", f"{found}; not in its form, which scmulan does not need", **numbers)
        return
    found += f"; made for {numbers['said']}" if numbers["said"] not in (None, VERSION) else ""
    found += f"; missing: {some(missing)}" if missing else ""
    found += f"; of an older schema: {', '.join(older)}" if older else ""
    found += f"; values that don't fit: {'; '.join(f'{name}: {some(values)}' for name, values in wrong.items())}" if wrong else ""
    is_whole = not (missing or older or wrong)
    report.add("cellxgene", "ok" if is_whole else "warning", found, "" if is_whole else _fix(older), **numbers)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _fix(older: Sequence[str]) -> str:
    """What to do, the organism first; scmulan needs none of it."""
    moved = "move the organism: adata.uns['organism_ontology_term_id'] = 'NCBITaxon:...', and drop it from obs; "
    is_in_obs = any(name.startswith("obs['organism") for name in older)
    return (moved if is_in_obs else "") + "only needed to publish there; `cellxgene-schema validate` says the rest"


def missing_names(columns: Sequence[str], var: pd.DataFrame, uns: Mapping[str, Any], obsm: Sequence[str]) -> list[str]:
    """What the schema demands of whoever submits, and is not there."""
    missing = [f"obs[{name!r}]" for name in OBS if name not in columns]
    missing += [f"uns[{name!r}]" for name in UNS if name not in uns]
    missing += [f"var[{name!r}]" for name in VAR if name not in var]
    return missing + ([] if any(str(name).startswith("X_") or name == "spatial" for name in obsm) else ["an embedding, obsm['X_...']"])


def wrong_values(obs: pd.DataFrame, names: Sequence[str]) -> dict[str, list[str]]:
    """Values of ``obs`` that are no value of their column, by column."""
    wrong = {}
    for name in names:
        column = values_of(obs, name)
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.cat.remove_unused_categories().cat.categories.to_series()
        values = list(dict.fromkeys(str(value) for value in column.tolist()))
        bad = [value for value in values if not _fits(name, value)]
        if bad:
            wrong[f"obs[{name!r}]"] = bad[:10]
    return wrong


def _fits(name: str, value: str) -> bool:
    """Whether a value is one of its column; several are joined by " || ", each once and in order."""
    parts = value.split(" || ") if name in JOINED else [value]
    alone = any(part in ("PATO:0000461", "unknown", "na") for part in parts)
    return all(re.fullmatch(OBS[name], part) for part in parts) and parts == sorted(set(parts)) and (len(parts) == 1 or not alone)


def wrong_elsewhere(var: pd.DataFrame, uns: Mapping[str, Any], raw_var: pd.DataFrame | None) -> dict[str, list[str]]:
    """Values of ``var`` and ``uns`` that don't fit, by place."""
    wrong: dict[str, list[str]] = {}
    organism = uns.get("organism_ontology_term_id")
    if organism is not None and not (isinstance(organism, str) and ORGANISM.fullmatch(organism)):
        wrong["uns['organism_ontology_term_id']"] = [str(organism)[:40]]
    bad = [name for name in map(str, var.index) if not GENE.fullmatch(name)]
    if bad:
        wrong["var.index"] = bad[:10]
    if raw_var is not None and "feature_is_filtered" in raw_var:
        wrong["raw.var"] = ["feature_is_filtered"]
    return wrong
