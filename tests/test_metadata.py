"""Labels in any spelling become one preferred label; the label table is sound and its ids are the ontologies' own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmulan import assets, metadata
from scmulan.errors import CellDataError, VocabularyError
from scmulan.metadata import FIELDS, canonical, known_labels, lineage_of, obs_columns
from scmulan.ontology import Ontology

ROWS = [line.split("\t") for line in assets.path("tokenizer", "labels.tsv").read_text(encoding="utf-8").splitlines()]
ZHENG = {
    "CD19+ B": "B cell",
    "CD34+": "hematopoietic precursor cell",
    "CD56+ NK": "natural killer cell",
    "CD8+ Cytotoxic T": "CD8-positive, alpha-beta cytotoxic T cell",
    "CD4+ T Helper2": "CD4-positive helper T cell",
    "CD4+/CD45RO+ Memory": "CD4-positive, alpha-beta memory T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "naive thymus-derived CD8-positive, alpha-beta T cell",
    "CD4+/CD25 T Reg": "CD4-positive, CD25-positive, alpha-beta regulatory T cell",
    "CD4+/CD45RA+/CD25- Naive T": "naive thymus-derived CD4-positive, alpha-beta T cell",
    "CD14+ Monocyte": "CD14-positive monocyte",
}
SHIPPED = {
    "larry": "undiff Monocyte Baso Neutrophil Mast Meg Erythroid Lymphoid pDC Ccr7_DC Eos Neu_Mon",
    "mixology": "H1975 H2228 HCC827 A549 H838",
    "pollen": "HL60 K562 Kera BJ GW16 iPS 2338 2339 GW21+3 NPC GW21",
    "joost": "Basal IFE-DI IFE-DII IFE-KI IFE-KII",
    "papalexi": "THP-1",
}


def test_fields_are_in_canonical_order() -> None:
    assert " ".join(FIELDS) == "organism assay organ region disease stage sex time perturbation dose lineage cell_type"


@pytest.mark.parametrize(("original", "label"), ZHENG.items())
def test_facs_labels_have_cell_ontology_names(original: str, label: str) -> None:
    found = canonical("cell_type", original)
    assert (found.value, found.known, found.original) == (label, True, original)
    assert found.ontology_id.startswith("CL:")


def test_ten_facs_labels_stay_ten() -> None:
    assert len(set(ZHENG.values())) == len({canonical("cell_type", original).value for original in ZHENG}) == 10


@pytest.mark.parametrize("dataset", SHIPPED)
def test_types_of_a_shipped_data_set_are_known_and_stay_distinct(dataset: str) -> None:
    originals = SHIPPED[dataset].split()
    organ = {"larry": "bone marrow", "joost": "skin"}.get(dataset)
    labels = [canonical("cell_type", original, organ) for original in originals]
    assert all(label.known and label.lineage for label in labels)
    assert len({label.value for label in labels}) == len(originals)


@pytest.mark.parametrize(
    ("field", "spelling", "label"),
    [
        ("cell_type", "B cells", "B cell"),
        ("cell_type", "b_cell", "B cell"),
        ("cell_type", "B-cells", "B cell"),
        ("cell_type", "CL:0000236", "B cell"),
        ("cell_type", "  Natural  Killer Cells ", "natural killer cell"),
        ("cell_type", "Neutrophils", "neutrophil"),
        ("cell_type", "T helper 2 cells", "T-helper 2 cell"),
        ("cell_type", "haematopoietic stem cells", "hematopoietic stem cell"),
        ("cell_type", "Cardiomyocytes", "cardiac muscle cell"),
        ("cell_type", "iPSC-CM differentiation D30", "cardiac muscle cell"),
        ("cell_type", "iPSC-CM differentiation D6", "cardiac muscle myoblast"),
        ("organ", "Blood", "blood"),
        ("organ", "PBMCs", "blood"),
        ("organ", "Lungs", "lung"),
        ("organ", "oesophagus", "esophagus"),
        ("organ", "skin of body", "skin"),
        ("organ", "bone marrow (in vitro)", "bone marrow"),
        ("organ", "lung (adenocarcinoma cell lines)", "lung"),
        ("organ", "iPSC-derived cardiomyocyte", "heart"),
        ("organ", "blood (cell line)", "blood"),
        ("organ", "kidney (biopsy of 2019)", "kidney"),
        ("region", "cerebral cortex", "cerebral cortex"),
        ("organism", "Mouse", "Mus musculus"),
        ("organism", "NCBITaxon:9606", "Homo sapiens"),
        ("assay", "10X 3’ v3", "10x 3' v3"),
        ("assay", "Smart-Seq2", "Smart-seq2"),
        ("assay", "dropseq", "Drop-seq"),
        ("assay", "inDrop (size-normalised to 1e4)", "inDrop"),
        ("assay", "full-length (C1/Smart-seq)", "Smart-seq"),
        ("assay", "Microwell-seq cluster mean (NOT cells)", "Microwell-seq cluster mean"),
        ("disease", "acute myeloid leukaemia", "acute myeloid leukemia"),
        ("disease", "Healthy", "normal"),
        ("sex", "F", "female"),
        ("perturbation", "IFN-beta", "interferon beta"),
        ("perturbation", "non-targeting", "non-targeting control"),
        ("lineage", "T cells", "T cell"),
        ("time", "D6", "day 6"),
        ("time", "6.0", "day 6"),
        ("time", "24h", "hour 24"),
        ("time", "2 weeks", "week 2"),
    ],
)
def test_spellings_become_the_preferred_label(field: str, spelling: str, label: str) -> None:
    found = canonical(field, spelling)
    assert (found.value, found.known) == (label, True)


@pytest.mark.parametrize(
    ("field", "spelling", "label", "ontology_id"),
    [
        ("cell_type", "CL_0000236", "B cell", "CL:0000236"),
        ("cell_type", "http://purl.obolibrary.org/obo/CL_0000236", "B cell", "CL:0000236"),
        ("cell_type", "B lymphocytes", "B cell", "CL:0000236"),
        ("cell_type", "CD8 positive alpha beta T cell", "CD8-positive, alpha-beta T cell", "CL:0000625"),
        ("cell_type", "Purkinje cells", "Purkinje cell", "CL:0000121"),
        ("organ", "pituitary", "pituitary gland", "UBERON:0000007"),
        ("region", "UBERON:0001885", "dentate gyrus of hippocampal formation", "UBERON:0001885"),
        ("disease", "Hodgkin's disease", "Hodgkins lymphoma", "MONDO:0004952"),
        ("disease", "MONDO:0005249", "pneumonia", "MONDO:0005249"),
        ("disease", "PATO_0000461", "normal", "PATO:0000461"),
        ("assay", "EFO_0030027", "snmC-Seq2", "EFO:0030027"),
        ("stage", "HsapDv:0000087", "adult stage", ""),
        ("stage", "25-year-old human stage", "25-year-old stage", "HsapDv:0000119"),
        ("stage", "Theiler stage 17", "Theiler stage 17", "MmusDv:0000024"),
        ("stage", "UBERON:0000113", "post-juvenile adult stage", "UBERON:0000113"),
    ],
)
def test_what_the_table_lacks_is_a_term_of_the_ontologies(field: str, spelling: str, label: str, ontology_id: str) -> None:
    found = canonical(field, spelling)
    assert (found.value, found.ontology_id, found.known) == (label, ontology_id, True)


def test_the_table_goes_before_the_ontologies() -> None:
    for field, label, ontology_id, lineage, _, synonyms in ROWS[1:]:
        found = canonical(field, label)
        assert (found.value, found.ontology_id, found.lineage, found.in_table) == (label, ontology_id, lineage, True)
        for spelling in filter(None, synonyms.split("|")):
            assert "[" in spelling or canonical(field, spelling).in_table, spelling


@pytest.mark.parametrize(
    ("cell_type", "lineage"),
    [
        ("IgG plasma cell", "B cell"),  # the table has plasma cells there, the ontology has them beside B cells
        ("kidney resident macrophage", "mononuclear phagocyte"),
        ("meningeal macrophage", "mononuclear phagocyte"),  # a neural cell too, by part of
        ("cholinergic neuron", "neuron"),  # a secretory cell too, which the table has as epithelial
        ("type D cell of stomach", "epithelial cell"),
        ("pancreatic stellate cell", "fibroblast"),
        ("cell", ""),
    ],
)
def test_a_type_outside_the_table_gets_the_lineage_of_the_nearest_that_is_in_it(cell_type: str, lineage: str) -> None:
    found = canonical("cell_type", cell_type)
    assert (found.known, found.in_table, found.lineage) == (True, False, lineage)


def test_a_place_outside_the_table_says_which_organ_it_is_in() -> None:
    assert canonical("organ", "CA1 field of hippocampus").implies == {"organ": "brain"}
    assert canonical("region", "left lung lobe").implies == {"organ": "lung"}
    assert canonical("organ", "neck").implies == {}


def test_a_place_is_no_stage_and_a_stage_no_place() -> None:
    assert canonical("stage", "Carnegie stage 10").known
    assert not canonical("stage", "pituitary gland").known
    assert not canonical("organ", "larval stage").known


def test_a_stage_that_two_species_have_has_no_id_without_its_species() -> None:
    assert canonical("stage", "2-month-old stage").ontology_id == ""
    assert canonical("stage", "MmusDv:0000062").ontology_id == "MmusDv:0000062"


def test_every_cell_type_and_assay_keeps_its_label_and_a_known_lineage() -> None:
    lineages = {row[3] for row in ROWS[1:]} | {""}
    for field, name in (("cell_type", "CL"), ("assay", "EFO")):
        for label in Ontology.load(name).labels():
            found = canonical(field, label)
            assert found.known, label
            assert canonical(field, found.value).value == found.value
            assert found.lineage in lineages, label


def test_a_spelling_may_mean_another_type_in_another_organ() -> None:
    assert canonical("cell_type", "Basal", "skin").value == "basal cell of epidermis"
    assert canonical("cell_type", "Basal", "lung").value == canonical("cell_type", "Basal").value == "basal cell"
    assert canonical("region", "cortex", "kidney").value == "cortex of kidney"


def test_bracketed_remark_on_a_cell_type_is_not_thrown_away() -> None:
    assert not canonical("cell_type", "B cell (activated)").known


def test_unknown_label_passes_through_as_cleaned_text() -> None:
    found = canonical("cell_type", " Mystery__cell  7 ")
    assert (found.value, found.known, found.ontology_id, found.original) == ("Mystery cell 7", False, "", " Mystery__cell  7 ")


@given(st.sampled_from(FIELDS), st.text(min_size=1, max_size=40))
def test_canonical_of_a_preferred_label_is_itself(field: str, text: str) -> None:
    once = canonical(field, text)
    assert canonical(field, once.value).value == once.value


@pytest.mark.parametrize("value", [None, "", " ", "unknown", "NA", "n/a", "NaN", float("nan"), "None", "<NA>"])
def test_values_that_stand_for_nothing_are_absent(value: object) -> None:
    assert metadata.is_absent(value)


@pytest.mark.parametrize("value", ["normal", "0", 0, False, "B cell"])
def test_values_that_say_something_are_present(value: object) -> None:
    assert not metadata.is_absent(value)


def test_lineage_is_the_coarse_type() -> None:
    assert lineage_of("CD8+/CD45RA+ Naive Cytotoxic") == "T cell"
    assert lineage_of("CD14+ Mono") == "mononuclear phagocyte"
    assert lineage_of("no such type") is None


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(VocabularyError, match=r"field 'celltype' is unknown.*nearest: 'cell_type'"):
        obs_columns("celltype")


def test_cellxgene_names_come_first() -> None:
    assert obs_columns("cell_type")[0] == "cell_type"
    assert obs_columns("donor")[0] == "donor_id"
    assert "tissue" in obs_columns("organ")
    assert obs_columns("stage")[0] == "development_stage"


def test_every_row_has_its_columns_and_a_field() -> None:
    assert ROWS[0] == ["field", "label", "ontology_id", "lineage", "implies", "synonyms"]
    assert all(len(row) == 6 and row[0] in FIELDS and row[1] for row in ROWS[1:])
    assert sum(row[0] == "cell_type" for row in ROWS) >= 150


def test_no_spelling_means_two_labels_of_a_field() -> None:
    seen: dict[tuple[str, str], str] = {}
    for field, label, _, _, _, synonyms in ROWS[1:]:
        for spelling in {label.lower(), *filter(None, synonyms.lower().split("|"))}:
            assert seen.setdefault((field, spelling), label) == label


def test_lineages_and_implied_labels_are_preferred_labels_themselves() -> None:
    for field, label, _, lineage, implies, _ in ROWS[1:]:
        assert field != "cell_type" or canonical("cell_type", lineage).value == lineage, label
        for pair in filter(None, implies.split("|")):
            other, value = pair.split("=")
            assert value in known_labels(other), label


def test_ids_and_names_are_those_of_the_ontologies() -> None:
    guide = pytest.importorskip("cellxgene_ontology_guide.ontology_parser", reason="the extra 'ontology' is not installed")
    parser = guide.OntologyParser()
    for field, label, ontology_id, _, _, _ in ROWS[1:]:
        if ontology_id.split(":")[0] in ("CL", "UBERON", "EFO", "MONDO"):
            name = parser.get_term_label(ontology_id)
            spelled = {name.lower(), *(synonym.lower() for synonym in parser.get_term_synonyms(ontology_id))}
            is_narrower = ", state" in label or "gestational week" in label or (field, label) == ("organ", "skin")
            assert is_narrower or label.lower() in spelled, (label, ontology_id, name)


def test_damaged_label_table_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("field\tlabel\n" + "cell_type\tB cell\t\t\t\t\n" + "celltype\tT cell\n")
    with pytest.raises(CellDataError, match=r"labels.tsv, line 3: found \['celltype', 'T cell'\]"):
        metadata.read_labels(path)
