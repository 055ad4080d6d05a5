"""Coarser levels: probabilities add up exactly, each label goes to one term, and what is of none is said."""

from __future__ import annotations

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmulan import levels
from scmulan.errors import PromptError
from scmulan.levels import OTHER, UNASSIGNED, as_obs, coarsen, coarser
from scmulan.metadata import canonical, known_labels

TYPES = ["naive B cell", "plasma cell", "CD8-positive, alpha-beta T cell", "natural killer cell", "CD14-positive monocyte"]
SHARES = [0.1, 0.2, 0.3, 0.15, 0.25]
TABLE = pd.DataFrame([SHARES, SHARES[::-1]], columns=TYPES)


def test_examples_of_the_documentation_hold():
    assert doctest.testmod(levels).failed == 0


def test_cell_types_are_left_as_they_are():
    assert coarsen(TABLE, "cell_type") is TABLE


def test_lineages_get_the_sum_of_their_types():
    found = coarsen(TABLE, "lineage").iloc[0].to_dict()
    assert found == pytest.approx({"B cell": 0.3, "T cell": 0.3, "mononuclear phagocyte": 0.25, "natural killer cell": 0.15})


def test_terms_get_the_sum_of_what_is_of_them_and_the_rest_is_other():
    found = coarsen(TABLE, ["T cells", "CL:0000236"])
    assert list(found.columns) == ["T cell", "B cell", OTHER]
    assert found.iloc[0].tolist() == pytest.approx([0.3, 0.3, 0.4])


def test_a_label_goes_to_the_most_specific_term_in_any_order_of_the_terms():
    for terms in (["leukocyte", "B cell", "lymphocyte"], ["lymphocyte", "B cell", "leukocyte"]):
        assert coarser(TYPES, terms) == dict(zip(TYPES, ["B cell", "B cell", "lymphocyte", "lymphocyte", "leukocyte"], strict=True))


def test_labels_without_an_id_go_by_their_lineage():
    assert coarser(["A549 cell", "naive B cell"], ["malignant cell", "B cell"]) == {"A549 cell": "malignant cell", "naive B cell": "B cell"}


def test_a_type_unknown_to_the_table_goes_by_the_ontology():
    assert coarser(["IgG plasma cell", "zork"], "lineage") == {"IgG plasma cell": "B cell", "zork": "zork"}
    assert coarser(["Purkinje cell", "zork"], ["neuron"]) == {"Purkinje cell": "neuron", "zork": OTHER}


@given(st.lists(st.sampled_from(known_labels("cell_type")), min_size=1, max_size=8, unique=True),
       st.lists(st.sampled_from(known_labels("cell_type")), min_size=1, max_size=4, unique=True), st.integers(0, 99))  # fmt: skip
def test_probabilities_still_add_up_to_one(labels, terms, seed):
    table = pd.DataFrame(np.random.default_rng(seed).dirichlet(np.ones(len(labels)), size=3), columns=labels)
    for level in ("lineage", [*terms, labels[0]] if labels[0] not in terms else terms):
        np.testing.assert_allclose(coarsen(table, level).sum(axis=1), 1)


def test_terms_that_no_label_is_of_are_an_error():
    with pytest.raises(PromptError, match=r"none of 'naive B cell'.* is one of 'hepatocyte'"):
        coarsen(TABLE, ["hepatocyte"])


def test_a_level_that_is_no_cell_type_is_an_error_that_names_the_nearest():
    with pytest.raises(PromptError, match=r"level 'linage': not a known cell type.*nearest: 'lineage'"):
        coarsen(TABLE, "linage")


def test_one_term_given_twice_is_an_error():
    with pytest.raises(PromptError, match="are all 'T cell'"):
        coarsen(TABLE, ["T cell", "T cells"])


def test_answers_come_with_id_and_lineage_unless_there_is_none():
    obs = as_obs(coarsen(TABLE, ["T cell", "B cell"]), "said", 0.45)
    assert obs["said"] == [UNASSIGNED, UNASSIGNED]
    obs = as_obs(coarsen(TABLE, ["mature B cell", "mononuclear phagocyte"]), "said", 0)
    assert (obs["said"], obs["said_ontology_id"], obs["said_lineage"]) == ([OTHER, OTHER], ["", ""], ["", ""])
    obs = as_obs(coarsen(TABLE, "lineage"), "said", 0)
    assert obs["said_ontology_id"][1] == canonical("cell_type", obs["said"][1]).ontology_id != ""
