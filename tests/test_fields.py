"""Fields of cells are found in obs by name, spelled as preferred, and what a label implies is filled in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmulan.errors import CellDataError
from scmulan.fields import implied, read_fields, unique_names
from scmulan.metadata import FIELDS


def read(
    chosen: dict[str, str] | None = None, uns: dict[str, object] | None = None, **columns: list[object]
) -> dict[str, list[str | None]]:
    return read_fields(pd.DataFrame(columns), chosen or {}, uns or {}).fields


def test_cellxgene_columns_are_found() -> None:
    found = read(
        tissue=["blood"], organism=["Homo sapiens"], assay=["10x 3' v3"], disease=["normal"], sex=["male"],
        development_stage=["25-year-old stage"], cell_type=["B cell"],
    )  # fmt: skip
    assert found == {
        "organism": ["Homo sapiens"], "assay": ["10x 3' v3"], "organ": ["blood"], "disease": ["normal"], "stage": ["25-year-old stage"],
        "sex": ["male"], "lineage": ["B cell"], "cell_type": ["B cell"],
    }  # fmt: skip


def test_fields_come_in_canonical_order() -> None:
    assert list(read(cell_type=["B cell"], sex=["F"], Species=["mouse"])) == [
        name for name in FIELDS if name in ("organism", "sex", "lineage", "cell_type")
    ]


@pytest.mark.parametrize("column", ["CellType", "celltype", "cell_types", "CELL_TYPE", "cell_ontology_class"])
def test_common_column_names_are_found_in_any_case(column: str) -> None:
    assert read(**{column: ["T cells"]})["cell_type"] == ["T cell"]


def test_exact_column_goes_before_one_in_another_case() -> None:
    assert read(Tissue=["tumor"], tissue=["lung"])["organ"] == ["lung"]


def test_column_without_any_value_is_passed_over() -> None:
    assert read(cell_type=["unknown", None], celltype=["B", "T"])["cell_type"] == ["B cell", "T cell"]


def test_chosen_column_goes_before_the_usual_one() -> None:
    assert read({"organ": "site"}, tissue=["blood"], site=["lung"])["organ"] == ["lung"]


def test_chosen_column_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(CellDataError, match=r"field organ: obs has no column 'tisue'; found 'tissue'; nearest: 'tissue'"):
        read({"organ": "tisue"}, tissue=["blood"])


def test_chosen_field_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(CellDataError, match=r"field 'celltype' is unknown.*nearest: 'cell_type'"):
        read({"celltype": "x"}, x=["B cell"])


@pytest.mark.parametrize("absent", [None, np.nan, "unknown", "", "NA"])
def test_absent_values_are_none(absent: object) -> None:
    assert read(sex=["female", absent])["sex"] == ["female", None]


def test_original_spelling_is_kept_beside_the_label() -> None:
    found = read_fields(pd.DataFrame({"cell_type": pd.Categorical(["CD19+ B", "b cells"])}), {}, {})
    assert found.fields["cell_type"] == ["B cell", "B cell"]
    assert found.originals["cell_type"] == ["CD19+ B", "b cells"]
    assert found.originals["lineage"] == [None, None]
    assert found.columns == {"cell_type": "obs['cell_type']", "lineage": "implied by other fields"}


def test_unknown_text_is_replaced_by_its_ontology_id_where_that_is_known() -> None:
    found = read(cell_type=["my B", "my T"], cell_type_ontology_term_id=["CL:0000236", "CL:9999999"])
    assert found["cell_type"] == ["B cell", "my T"]


def test_ids_alone_are_enough() -> None:
    assert read(cell_type_ontology_term_id=["CL:0000084"], tissue_ontology_term_id=["UBERON:0002048"])["cell_type"] == ["T cell"]


def test_several_diseases_stay_joined() -> None:
    assert read(disease=["COPD || influenza"])["disease"] == ["chronic obstructive pulmonary disease || influenza"]


def test_species_may_stand_in_uns() -> None:
    assert read(uns={"organism_ontology_term_id": "NCBITaxon:10090"}, sex=["F"])["organism"] == ["Mus musculus"]


def test_condition_is_a_perturbation_unless_it_holds_diseases() -> None:
    assert read(condition=["IFN-beta", "ctrl"])["perturbation"] == ["interferon beta", "control"]
    assert "perturbation" not in read(condition=["COVID-19", "control"])


def test_numbers_are_read_as_text() -> None:
    assert read(time=[2, 6], dose=[0.5, 1.0])["time"] == ["day 2", "day 6"]


def test_cell_lines_say_their_organ_and_disease_but_never_against_the_data() -> None:
    mixed = read(tissue=["cerebral cortex / cell lines"] * 3, cell_type=["HL60", "Kera", "GW16"])
    assert mixed["organ"] == ["blood", "skin", "brain"]
    assert mixed["region"] == [None, None, "cerebral cortex"]
    assert mixed["disease"] == ["acute promyelocytic leukemia", None, None]
    assert read(tissue=["kidney"], cell_type=["A549"], disease=["normal"])["organ"] == ["kidney"]


def test_stem_cells_of_a_culture_have_no_organ_but_the_culture() -> None:
    found = read(tissue=["iPSC-derived cardiomyocyte"] * 2, cell_type=["iPSC", "iPSC-CM differentiation D30"])
    assert found["organ"] == ["cell culture", "heart"]


def test_types_are_read_in_the_light_of_the_organ() -> None:
    assert read(tissue=["skin", "lung"], cell_type=["Basal", "Basal"])["cell_type"] == ["basal cell of epidermis", "basal cell"]


def test_given_lineage_is_kept() -> None:
    assert read(lineage=["leukocyte"], cell_type=["B cell"])["lineage"] == ["leukocyte"]


def test_donors_and_data_sets_are_found() -> None:
    found = read_fields(pd.DataFrame({"donor_id": ["d1", None], "dataset": ["a", "b"]}), {}, {})
    assert (found.donors, found.datasets) == (["d1", None], ["a", "b"])
    assert read_fields(pd.DataFrame(index=range(2)), {}, {}).donors == [None, None]


def test_region_given_as_organ_is_taken_apart() -> None:
    assert implied("hippocampal formation", None, None, None, None)[:2] == ("brain", "hippocampal formation")


@given(st.lists(st.sampled_from(["a", "b", "a-1", "a-2", "b-1-1", ""]), max_size=12))
def test_unique_names_are_unique_and_change_only_repeats(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(set(unique)) == len(names)
    first = {name: position for position, name in reversed(list(enumerate(names)))}
    assert all(unique[position] == name for name, position in first.items())


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=8), st.integers(-5, 5), st.floats(), st.booleans(), st.sampled_from(["B cell", "nan"])),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_columns_of_mixed_types_give_text_or_none(values: list[object]) -> None:
    found = read(cell_type=values, tissue=values)
    for labels in found.values():
        assert len(labels) == len(values)
        assert all(label is None or (isinstance(label, str) and label) for label in labels)
