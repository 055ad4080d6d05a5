"""Perturbations told from cells: shares by hand, and the simple ways on cells where the answer is known."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_change import SHIFTS, cells

from scmulan.errors import CellDataError
from scmulan.measures import shift
from scmulan.measures.change import moments
from scmulan.measures.change_baselines import target_mean, training_changes
from scmulan.measures.shift import (
    classifier_scores,
    correlation_lookup,
    draw_populations,
    fit_classifier,
    identification,
    population_changes,
)

NAMES = list(SHIFTS)


def perturbed(n: int, seed: int) -> tuple[sp.csr_matrix, list[str]]:
    weak = [dict.fromkeys(shift, 2.0) for shift in SHIFTS.values()]
    return sp.vstack([cells(n, seed + k, each, depth=500) for k, each in enumerate(weak)]).tocsr(), np.repeat(NAMES, n).tolist()


def test_examples_in_docstrings_run():
    assert doctest.testmod(shift).failed == 0


def test_shares_are_those_counted_by_hand():
    found = identification(["a", "a", "b"], [[3, 2, 1], [1, 3, 2], [1, 2, 3]], ["a", "b", "c"])
    assert (found.first, found.five, found.rank) == (pytest.approx(1 / 3), 1.0, pytest.approx((1 + 0 + 0.5) / 3))
    assert (found.chance_first, found.chance_five) == (1 / 3, 1.0)
    assert found.confusion == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert found.by_target == {"a": 0.5, "b": 0.0}


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(1, 20))
def test_one_answer_to_all_is_exactly_chance(n_candidates, n):
    names = [str(k) for k in range(n_candidates)]
    true = [names[k % n_candidates] for k in range(n)]
    found = identification(true, np.zeros((n, n_candidates)), names)
    assert (found.first, found.five, found.rank) == pytest.approx((found.chance_first, found.chance_five, 0.5))


def test_populations_are_of_one_target_without_repeats_and_small_targets_are_left_out():
    labels = ["a"] * 30 + ["b"] * 5
    found = draw_populations(labels, 10, per_target=4)
    assert {each.target for each in found} == {"a"}
    assert all(len(set(each.rows.tolist())) == 10 and each.rows.max() < 30 for each in found)
    assert [len(each.rows) for each in draw_populations(labels, None)] == [30, 5]
    assert all(np.array_equal(x.rows, y.rows) for x, y in zip(found, draw_populations(labels, 10, per_target=4), strict=True))


def test_more_cells_are_easier_to_tell_and_both_ways_beat_chance():
    train, train_targets = perturbed(120, 1)
    test, targets = perturbed(60, 50)
    control, other = cells(200, 90, depth=500), cells(200, 91, depth=500)
    profiles = np.stack([target_mean(training_changes(control, train, train_targets), name).mean for name in NAMES])
    fitted = fit_classifier(train, train_targets)
    right = {}
    for size in (1, 20):
        populations = draw_populations(targets, size, per_target=30)
        true = [each.target for each in populations]
        changes = population_changes(test, populations, moments(other).mean)
        ways = {
            "correlation": correlation_lookup(profiles, changes),
            "centred": correlation_lookup(profiles, changes, is_centred=True),
            "classifier": classifier_scores(fitted, test, populations, NAMES),
        }
        right[size] = {way: identification(true, scores, NAMES).first for way, scores in ways.items()}
    for way in right[1]:
        assert 0.25 < right[1][way] < right[20][way], right
    assert right[20]["classifier"] > 0.95


def test_correlation_is_that_of_numpy():
    rng = np.random.default_rng(0)
    profiles, queries = rng.normal(size=(3, 9)), rng.normal(size=(2, 9))
    assert correlation_lookup(profiles, queries)[1, 2] == pytest.approx(np.corrcoef(queries[1], profiles[2])[0, 1])


def test_what_cannot_be_answered_is_named():
    with pytest.raises(CellDataError, match="target 'z' is no candidate"):
        identification(["z"], [[1, 2]], ["a", "b"])
    with pytest.raises(CellDataError, match="needed 1 queries × 2 candidates"):
        identification(["a"], [[1]], ["a", "b"])
    with pytest.raises(CellDataError, match="1 queries have one that is not a number"):
        identification(["a"], [[1, np.nan]], ["a", "b"])
    counts, targets = perturbed(10, 1)
    with pytest.raises(CellDataError, match="no training cell of it"):
        classifier_scores(fit_classifier(counts, targets), counts, draw_populations(targets, 2), ["a", "zork"])
