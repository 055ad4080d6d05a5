"""Who is held out: shares, that neighbours and order change nothing, and errors that say what a split lacks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from scmulan.corpus.plan import Split
from scmulan.corpus.splits import split_as_said, split_by_hash, split_by_type
from scmulan.errors import CellDataError

NAMES = [f"cell{number}" for number in range(200)]
DONORS = [f"donor{number % 7}" for number in range(200)]
TYPES = [("B cell", "natural killer cell", "classical monocyte")[number % 3] for number in range(200)]


def by_hash(split, names=NAMES, donors=DONORS):
    return split_by_hash(split, cell_ids=names, donors=donors, datasets=["set"] * len(names), where="here")


@pytest.mark.parametrize("by", ["cell", "donor", "stratified"])
def test_a_split_holds_out_about_the_shares_asked_for(by):
    split = Split(by=by, valid=0.2, test=0.3)
    said = split_by_type(TYPES, split, "here") if by == "stratified" else by_hash(split)
    assert len(said) == 200
    assert set(said) <= {"train", "valid", "test"}
    if by != "donor":
        assert said.count("test") == pytest.approx(60, abs=0 if by == "stratified" else 20)
        assert said.count("valid") == pytest.approx(40, abs=1 if by == "stratified" else 18)


def test_a_split_by_cell_does_not_depend_on_the_other_cells_or_their_order():
    split, order = Split(by="cell", valid=0.1, test=0.2), np.random.default_rng(0).permutation(200)[:120]
    whole = by_hash(split)
    assert by_hash(split, [NAMES[row] for row in order], [DONORS[row] for row in order]) == [whole[row] for row in order]


def test_a_split_by_donor_parts_no_donor():
    said = by_hash(Split(by="donor", valid=0.3, test=0.3))
    splits = {donor: {said[row] for row in range(200) if DONORS[row] == donor} for donor in set(DONORS)}
    assert len(splits) == 7
    assert all(len(each) == 1 for each in splits.values())
    assert len(set(said)) > 1


def test_another_seed_is_another_split():
    assert by_hash(Split(seed=1)) != by_hash(Split(seed=0))


@pytest.mark.parametrize("seed", [0, 3])
def test_the_stratified_split_is_that_of_scikit_learn(seed):
    _, test = train_test_split(np.arange(200), test_size=0.2, stratify=TYPES, random_state=seed)
    said = split_by_type(TYPES, Split(by="stratified", test=0.2, seed=seed), "here")
    assert [row for row in range(200) if said[row] == "test"] == sorted(test)


def test_types_too_rare_to_stratify_are_an_error():
    with pytest.raises(CellDataError, match=r"here: can't split by type .*; split by cell"):
        split_by_type([TYPES[row] for row in (0, 3, 6, 1)], Split(by="stratified", test=0.3), "here")


def test_a_column_gives_the_split_as_it_stands():
    column = ["train", "test", "valid", "train"] * 50
    assert split_as_said(column, Split(by="column"), "here") == column


@pytest.mark.parametrize("odd", ["holdout", None])
def test_a_column_that_says_something_else_is_an_error(odd):
    with pytest.raises(CellDataError, match=f"here: obs\\['split'\\] says '{odd}'; needed train, valid, test"):
        split_as_said(["train", odd] * 100, Split(by="column"), "here")


def test_a_split_by_donor_where_cells_have_none_is_an_error():
    with pytest.raises(CellDataError, match="split by donor, but 9 cells have none; split by cell or stratified"):
        by_hash(Split(by="donor"), NAMES[:9], [None] * 9)
