"""What a model has seen: values by name in any spelling, combinations that are possible, draws in their proportions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmulan.errors import PromptError
from scmulan.labels import SeenLabels, agrees, as_answer, choose

CARD = {
    "labels": [
        {"organism": "Homo sapiens", "organ": "blood", "cell_type": "B cell", "cells": 50},
        {"organism": "Homo sapiens", "organ": "blood", "cell_type": "natural killer cell", "cells": 30},
        {"organism": "Homo sapiens", "organ": "bone marrow", "cell_type": "B cell", "cells": 10},
        {"organism": "Mus musculus", "organ": "skin", "cell_type": "keratinocyte", "cells": 10},
    ]
}
SEEN = SeenLabels.of_card(CARD)


def test_values_come_with_most_cells_first():
    assert SEEN.values("cell_type") == ["B cell", "natural killer cell", "keratinocyte"]
    assert SEEN.values("disease") == []


def test_values_are_those_seen_together_with_what_is_given():
    assert SEEN.values("cell_type", {"organ": "blood"}) == ["B cell", "natural killer cell"]
    assert SEEN.values("organ", {"cell_type": "B cell"}) == ["blood", "bone marrow"]


@pytest.mark.parametrize("spelled", ["B cell", "b CELL", "B_cells", "CD19+ B", "CL:0000236", "b-cell"])
def test_a_value_is_known_in_any_case_and_by_any_synonym(spelled):
    assert SEEN.known("cell_type", spelled) == "B cell"


@pytest.mark.parametrize("spelled", ["human", "HUMAN", "homo sapiens", "NCBITaxon:9606"])
def test_a_species_is_known_by_its_common_name(spelled):
    assert SEEN.known("organism", spelled) == "Homo sapiens"


def test_a_label_that_no_table_knows_is_known_in_any_case_when_it_was_seen():
    seen = SeenLabels.of_card({"labels": [{"cell_type": "Zork-12 Blast", "cells": 1}]})
    assert seen.known("cell_type", "zork-12 blast") == "Zork-12 Blast"


def test_an_unseen_value_is_an_error_that_names_the_nearest_and_what_was_seen():
    with pytest.raises(PromptError, match=r"cell_type 'keratinocite' was not among.*nearest: 'keratinocyte'.*has seen 'B cell'"):
        SEEN.known("cell_type", "keratinocite")


def test_a_field_without_any_value_is_an_error_that_says_so():
    with pytest.raises(PromptError, match="has seen no disease at all"):
        SEEN.known("disease", "normal")


def test_an_impossible_combination_is_an_error_that_says_what_is_possible():
    with pytest.raises(PromptError, match=r"organ 'skin' and cell_type 'B cell' together; with cell_type 'B cell', organ can be 'blood'"):
        SEEN.matching({"organ": "skin", "cell_type": "B cell"})


def test_matching_keeps_the_combinations_that_agree():
    kept = SEEN.matching({"cell_type": "B cell"})
    assert [combination["organ"] for combination in kept.combinations] == ["blood", "bone marrow"]
    assert kept.cells == (50, 10)
    assert SEEN.matching({}) == SEEN


@given(n=st.integers(1, 400), seed=st.integers(0, 1000))
def test_draws_are_n_rows_within_one_of_their_exact_share(n, seed):
    rows = SEEN.draw(n, np.random.default_rng(seed))
    assert len(rows) == n
    drawn = Counter(tuple(row.values()) for row in rows)
    for combination, cells in zip(SEEN.combinations, SEEN.cells, strict=True):
        assert abs(drawn[tuple(combination.values())] - n * cells / 100) < len(SEEN.cells)


def test_draws_of_exact_shares_are_exact_and_of_a_seed_the_same():
    assert Counter(row["organ"] for row in SEEN.draw(10, np.random.default_rng(0))) == {"blood": 8, "bone marrow": 1, "skin": 1}
    assert SEEN.draw(7, np.random.default_rng(3)) == SEEN.draw(7, np.random.default_rng(3))


def test_a_drawn_row_may_be_changed_without_changing_what_was_seen():
    SEEN.draw(1, np.random.default_rng(0))[0]["organ"] = "liver"
    assert SEEN.values("organ") == ["blood", "bone marrow", "skin"]


def test_a_field_that_is_not_given_agrees_with_anything():
    assert agrees({"organ": "blood"}, {"organ": None, "cell_type": None})
    assert not agrees({"organ": "blood"}, {"cell_type": "B cell"})


def test_the_users_labels_become_preferred_ones_in_their_order():
    assert choose(["NK cells", "CD19+ B", "Zork"], "labels") == ["natural killer cell", "B cell", "Zork"]


def test_two_spellings_of_one_label_are_refused_by_name():
    with pytest.raises(PromptError, match=r"labels: 'CD19\+ B', 'b cell' are all 'B cell'; give each label once"):
        choose(["CD19+ B", "keratinocyte", "b cell"], "labels")


def test_no_label_is_refused():
    with pytest.raises(PromptError, match="no label given"):
        choose([], "labels")


def test_an_answer_names_the_lineage_where_the_table_has_one():
    assert as_answer("naive T cell")["lineage"] == "T cell"
    assert as_answer("Zork") == {"lineage": None, "cell_type": "Zork"}
