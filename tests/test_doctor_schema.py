"""How far a data set is in the form of CELLxGENE's schema is one finding, never a problem."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scmulan.cells import check, read_cells
from scmulan.doctor_schema import OBS

GENES = {"ENSG00000102145": "GATA1", "ENSG00000177455": "CD19", "ENSG00000156738": "MS4A1", "ERCC-00074": "ERCC-00074"}


def cellxgene(**obs: str) -> AnnData:
    """Cells as CELLxGENE hands them out."""
    columns = {
        "assay_ontology_term_id": "EFO:0009922", "cell_type_ontology_term_id": "CL:0000236", "disease_ontology_term_id": "PATO:0000461",
        "development_stage_ontology_term_id": "HsapDv:0000087", "donor_id": "D1", "self_reported_ethnicity_ontology_term_id": "unknown",
        "sex_ontology_term_id": "PATO:0000383", "suspension_type": "cell", "tissue_ontology_term_id": "UBERON:0000178",
        "tissue_type": "tissue", "cell_type": "B cell", "tissue": "blood", "disease": "normal", **obs,
    }  # fmt: skip
    index = [f"c{row}" for row in range(30)]
    frame = pd.DataFrame({name: pd.Categorical([value] * 30) for name, value in columns.items()}, index=index)
    frame["is_primary_data"] = True
    var = pd.DataFrame({"feature_is_filtered": False, "feature_name": list(GENES.values()), "feature_biotype": "gene"}, index=list(GENES))
    var["feature_type"] = ["protein_coding", "protein_coding", "protein_coding", "synthetic"]
    counts = np.random.default_rng(0).poisson(3.0, (30, len(GENES))).astype(np.float32)
    uns = {"organism_ontology_term_id": "NCBITaxon:9606", "title": "Cells", "schema_version": "7.0.0"}
    return AnnData(counts, obs=frame, var=var, uns=uns, obsm={"X_umap": np.ones((30, 2))})


def test_a_data_set_of_schema_7_conforms_and_is_read_by_its_names() -> None:
    cells = read_cells(cellxgene())
    finding = cells.report["cellxgene"]
    assert (finding.verdict, finding.found) == ("ok", "schema 7.0.0: 11 of 11 names of obs")
    assert cells.report["organism"].found == "Homo sapiens"
    assert cells.report["genes"].numbers["spike_ins"] == 1
    assert cells.donors[0] == "D1"


def test_several_diseases_joined_keep_both_ids() -> None:
    adata = cellxgene(disease="COPD || influenza", disease_ontology_term_id="MONDO:0005002 || MONDO:0005812")
    report = check(adata)
    assert report["cellxgene"].verdict == "ok"
    assert report["field disease"].numbers["ontology_ids"] == {
        "chronic obstructive pulmonary disease || influenza": "MONDO:0005002 || MONDO:0005812"
    }
    assert report["field disease"].verdict == "ok"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("disease_ontology_term_id", "MONDO:0005812 || MONDO:0005002"), ("disease_ontology_term_id", "MONDO:0005002, MONDO:0005812"),
        ("disease_ontology_term_id", "MONDO:0005002 || PATO:0000461"), ("disease_ontology_term_id", "MONDO:0005002 || MONDO:0005002"),
        ("sex_ontology_term_id", "female"), ("tissue_type", "primary cell culture"), ("cell_type_ontology_term_id", "CL_0000236"),
        ("suspension_type", "cells"), ("assay_ontology_term_id", "10x 3' v3"),
    ],
)  # fmt: skip
def test_a_value_that_is_none_of_its_column_is_a_warning_that_names_it(column: str, value: str) -> None:
    finding = check(cellxgene(**{column: value}))["cellxgene"]
    assert finding.verdict == "warning"
    assert finding.numbers["wrong"] == {f"obs[{column!r}]": [value]}


def test_the_organism_in_obs_is_of_an_older_schema_and_the_fix_moves_it() -> None:
    adata = cellxgene(organism="Homo sapiens", organism_ontology_term_id="NCBITaxon:9606")
    del adata.uns["organism_ontology_term_id"]
    finding = check(adata)["cellxgene"]
    assert finding.numbers["deprecated"] == ["obs['organism']", "obs['organism_ontology_term_id']"]
    assert finding.numbers["missing"] == ["uns['organism_ontology_term_id']"]
    assert finding.fix.startswith("move the organism: adata.uns['organism_ontology_term_id']")


def test_what_is_missing_is_named() -> None:
    adata = cellxgene()
    del adata.obs["donor_id"], adata.uns["title"], adata.var["feature_is_filtered"], adata.obsm["X_umap"]
    assert check(adata)["cellxgene"].numbers["missing"] == [
        "obs['donor_id']", "uns['title']", "var['feature_is_filtered']", "an embedding, obsm['X_...']"
    ]  # fmt: skip


def test_ids_with_versions_and_a_filter_column_in_raw_do_not_fit() -> None:
    adata = cellxgene()
    adata.raw = adata.copy()
    adata.var_names = [f"{name}.1" for name in adata.var_names]
    wrong = check(adata)["cellxgene"].numbers["wrong"]
    assert wrong["var.index"][0] == "ENSG00000102145.1"
    assert wrong["raw.var"] == ["feature_is_filtered"]


def test_a_data_set_that_makes_no_claim_to_the_schema_is_ok() -> None:
    adata = cellxgene()
    adata.obs = adata.obs[["cell_type", "tissue"]]
    adata.uns.clear()
    finding = check(adata)["cellxgene"]
    assert (finding.verdict, finding.fix) == ("ok", "")
    assert f"0 of {len(OBS)} names" in finding.found


def test_odd_values_anywhere_are_no_error() -> None:
    adata = cellxgene()
    adata.uns.update(organism_ontology_term_id=np.array([1, 2]), schema_version=7)
    finding = check(adata)["cellxgene"]
    assert finding.verdict == "warning"
    assert "uns['organism_ontology_term_id']" in finding.numbers["wrong"]
