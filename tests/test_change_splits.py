"""What is held out of a perturbation data set, and that nothing of it is left to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan.errors import CellDataError, PromptError
from scmulan.measures.change_splits import LEAST_CELLS, split_changes

TARGETS = np.repeat(["none", "a", "b", "c"], [40, 60, 60, 12])
GUIDES = np.concatenate([["n1"] * 40, np.tile(["a1", "a2", "a3"], 20), ["b1"] * 59, ["b2"], ["c1"] * 12])


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["cells", "guides", "targets"]), st.integers(0, 20), st.integers(0, 2))
def test_no_row_is_used_twice_and_truth_has_its_own_control(held_out, seed, fold):
    found = split_changes(TARGETS, "none", held_out=held_out, guides=GUIDES, seed=seed, fold=fold, n_folds=3)
    rows = np.concatenate([found.train, found.control_train, found.control_true, *found.held.values()])
    assert len(set(rows.tolist())) == len(rows)
    assert set(TARGETS[np.concatenate([found.control_train, found.control_true])]) == {"none"}
    assert "none" not in TARGETS[found.train]
    assert all(len(each) >= LEAST_CELLS and set(TARGETS[each]) == {name} for name, each in found.held.items())


def test_a_share_of_each_targets_cells_is_held_out():
    found = split_changes(TARGETS, "none", share=0.25)
    assert {name: len(rows) for name, rows in found.held.items()} == {"a": 15, "b": 15}
    assert found.left_out == {"c": "3 cells to hold out; needed 10"}
    assert (TARGETS[found.train] == "c").sum() == 12  # what can't be measured is still there to learn from


def test_a_held_out_guide_is_held_out_whole_and_another_is_left():
    found = split_changes(TARGETS, "none", held_out="guides", guides=GUIDES)
    guide = found.held_guides["a"]
    assert guide not in GUIDES[found.train]
    assert set(GUIDES[found.held["a"]]) == {guide}
    assert set(found.left_out) == {"b", "c"}


def test_each_target_is_held_out_in_one_fold_and_then_never_seen():
    folds = [split_changes(TARGETS, "none", held_out="targets", fold=fold, n_folds=3) for fold in range(3)]
    assert sorted(name for fold in folds for name in fold.held) == ["a", "b", "c"]
    for fold in folds:
        assert not set(TARGETS[fold.train]) & set(fold.held)


def test_the_same_seed_holds_out_the_same_and_another_does_not():
    one, same, other = (split_changes(TARGETS, "none", seed=seed).held["a"].tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_what_cannot_be_held_out_is_named():
    with pytest.raises(CellDataError, match=r"control cells: 0 are 'nine'.*nearest: 'none'"):
        split_changes(TARGETS, "nine")
    with pytest.raises(PromptError, match="needed one of cells, guides, targets; nearest: 'guides'"):
        split_changes(TARGETS, "none", held_out="guide")
    with pytest.raises(PromptError, match="needed the guide of each cell"):
        split_changes(TARGETS, "none", held_out="guides")
    with pytest.raises(CellDataError, match="nothing to hold out"):
        split_changes(TARGETS, "none", share=0.01)
