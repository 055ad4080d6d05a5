"""Fates and next states: by hand, and on clones whose end is known."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import scipy.sparse as sp

from scmulan.errors import CellDataError
from scmulan.measures import fate
from scmulan.measures.fate import (
    FLOOR,
    Fates,
    clone_folds,
    fate_score,
    foretell_by_neighbours,
    foretell_by_regression,
    foretell_shares,
)
from scmulan.measures.next_state import Followed, as_neighbour, next_state_score


def fates(pairs: list[tuple[int, str, float]]) -> Fates:
    cell, label, weight = zip(*pairs, strict=True)
    return Fates(cell=np.array(cell), label=list(label), weight=np.array(weight))


TWO = fates([(0, "x", 1.0), (1, "x", 0.5), (1, "y", 0.5)])


def lineages(n: int, seed: int) -> tuple[sp.csr_matrix, Fates]:
    """Cells that become x where the first genes are high, y where the last are."""
    rng = np.random.default_rng(seed)
    is_x = np.arange(n) % 2 == 0
    rates = np.where(is_x[:, None], [8.0] * 5 + [4.0] * 5, [4.0] * 5 + [8.0] * 5)
    return sp.csr_matrix(rng.poisson(rates)), fates([(row, "x" if x else "y", 1.0) for row, x in enumerate(is_x)])


def test_examples_in_docstrings_run():
    assert doctest.testmod(fate).failed == 0


def test_log_loss_and_accuracy_by_hand():
    found = fate_score(TWO, ["x", "y"], [[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])  # the third cell has no fate
    assert found.n_cells == 2
    assert found.log_loss == pytest.approx(-(np.log(0.9) + np.log(0.5)) / 2)
    assert found.accuracy == pytest.approx((1 + 0.5) / 2)
    assert found.auroc is None  # too few cells


def test_certainty_of_the_wrong_fate_costs_no_more_than_the_floor():
    found = fate_score(fates([(0, "x", 1.0)]), ["x", "y"], [[0.0, 1.0]])
    assert found.log_loss == pytest.approx(-np.log(FLOOR / (1 + FLOOR)))


def test_auroc_counts_a_cell_for_as_much_as_it_becomes_the_fate():
    _, known = lineages(40, 1)
    right = np.where(np.arange(40)[:, None] % 2 == 0, [0.9, 0.1], [0.2, 0.8])
    assert fate_score(known, ["x", "y"], right).auroc == 1.0
    assert fate_score(known, ["x", "y"], right[:, ::-1]).auroc == 0.0
    assert fate_score(known, ["x", "y"], np.full((40, 2), 0.5)).auroc == 0.5


def test_cells_are_compared_within_their_fold_only():
    """Of two folds with different shares of a fate, the shares of the other fold would rank the folds the wrong way round."""
    true = fates([(row, "x" if row < 15 or row >= 35 else "y", 1.0) for row in range(40)])
    shares = np.where(np.arange(40)[:, None] < 20, [0.25, 0.75], [0.75, 0.25])
    assert fate_score(true, ["x", "y"], shares).auroc < 0.3
    assert fate_score(true, ["x", "y"], shares, groups=[row // 20 for row in range(40)]).auroc == 0.5


def test_both_simple_ways_beat_the_shares_on_new_cells():
    train, known = lineages(100, 1)
    test, true = lineages(60, 2)
    classes = ["x", "y"]
    shares = fate_score(true, classes, foretell_shares(known, classes, 60))
    ways = {
        "regression": foretell_by_regression(train, known, test, classes),
        "neighbours": foretell_by_neighbours(train.toarray().astype(float), known, test.toarray().astype(float), classes),
    }
    for way, said in ways.items():
        found = fate_score(true, classes, said)
        assert found.log_loss < shares.log_loss, way
        assert found.auroc > 0.8, way
    assert (shares.auroc, shares.accuracy) == (0.5, 0.5)


def test_a_fate_that_training_never_saw_has_a_share_all_the_same():
    train, known = lineages(20, 1)
    for said in (
        foretell_shares(known, ["x", "y", "z"], 3),
        foretell_by_neighbours(train.toarray(), known, train.toarray(), ["x", "y", "z"]),
    ):
        assert (said[:, 2] > 0).all()
        assert np.allclose(said.sum(1), 1)
    assert foretell_by_regression(train, known, train, ["x", "y", "z"])[:, 2].max() == 0


def test_cells_of_a_clone_share_a_fold_and_folds_are_even():
    clones = [k // 3 for k in range(60)]
    folds = clone_folds(clones, 4, seed=1)
    assert all(len(set(folds[np.array(clones) == clone])) == 1 for clone in set(clones))
    assert np.bincount(folds).tolist() == [15, 15, 15, 15]


def test_what_cannot_be_scored_is_named():
    with pytest.raises(CellDataError, match="fate 'y' is no class"):
        fate_score(TWO, ["x"], [[1.0], [1.0]])
    with pytest.raises(CellDataError, match="summing to one"):
        fate_score(TWO, ["x", "y"], [[0.5, 0.1], [0.5, 0.5]])
    with pytest.raises(CellDataError, match="no pair"):
        fate_score(Fates(cell=np.array([], dtype=int), label=[], weight=np.array([])), ["x"], [[1.0]])


EARLIER = np.array([[0.0, 0.0], [10.0, 0.0], [0.1, 0.0], [10.1, 0.0]])
LATER = np.array([[0.0, 5.0], [0.0, 7.0], [10.0, 5.0], [10.0, 7.0]])
PAIRS = Followed(earlier=np.array([0, 0, 1, 1]), later=np.array([0, 1, 2, 3]), weight=np.full(4, 0.5))


def test_next_states_by_hand():
    found = next_state_score(np.array([[0.0, 6.0], [10.0, 9.0]]), LATER, PAIRS, clones=["a", "b"])
    assert (found.n_cells, found.error, found.rank) == (2, 1.5, 1.0)
    swapped = next_state_score(np.array([[10.0, 6.0], [0.0, 6.0]]), LATER, PAIRS, clones=["a", "b"])
    assert (swapped.error, swapped.rank) == (10.0, 0.0)


def test_one_answer_to_all_cells_tells_no_clones_apart():
    found = next_state_score(np.tile(LATER.mean(0), (2, 1)), LATER, PAIRS, clones=["a", "b"])
    assert found.rank == 0.5
    assert next_state_score(LATER[:2], LATER, PAIRS).rank is None
    assert next_state_score(LATER[:2], LATER, PAIRS, clones=["a", "a"]).rank is None


def test_the_neighbours_relative_is_a_real_later_cell_of_the_nearest_cell():
    found = as_neighbour(EARLIER, LATER, PAIRS, EARLIER[2:])
    assert found[0].tolist() in LATER[:2].tolist()
    assert found[1].tolist() in LATER[2:].tolist()


def test_too_few_followed_cells_are_an_error():
    with pytest.raises(CellDataError, match="1 earlier cells have a later relative"):
        next_state_score(EARLIER, LATER, Followed(earlier=np.array([0]), later=np.array([0]), weight=np.array([1.0])))
