"""Measures of predicted changes: against values worked out by hand, and on cells where each must fail."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan.errors import CellDataError
from scmulan.measures import change
from scmulan.measures.change import (
    Change,
    TrueChange,
    change_between,
    compare_changes,
    discrimination,
    disjoint_halves,
    score_change,
    spread,
    true_change,
)

N_GENES = 80


def cells(n: int, seed: int, shift: dict[int, float] | None = None, depth: float = 2000) -> sp.csr_matrix:
    """Poisson cells of one profile, some genes multiplied."""
    profile = np.random.default_rng(9).gamma(0.7, 1, N_GENES) + 0.05
    for gene, factor in (shift or {}).items():
        profile[gene] *= factor
    totals = np.random.default_rng([seed, 1]).lognormal(np.log(depth), 0.3, n)
    return sp.csr_matrix(np.random.default_rng(seed).poisson(totals[:, None] * profile / profile.sum()))


SHIFTS = {name: dict.fromkeys(range(5 * k, 5 * k + 5), 4.0) for k, name in enumerate("abcd")}


@pytest.fixture(scope="module")
def truths() -> dict[str, TrueChange]:
    control = cells(300, 1)
    return {name: true_change(control, cells(200, 10 + k, shift)) for k, (name, shift) in enumerate(SHIFTS.items())}


def predicted_by_cells() -> dict[str, Change]:
    control = cells(300, 2)
    return {name: change_between(control, cells(200, 20 + k, shift)) for k, (name, shift) in enumerate(SHIFTS.items())}


def flat(value: float = 0.0) -> Change:
    return Change(mean=np.full(N_GENES, value), fold=np.full(N_GENES, value))


@pytest.mark.parametrize("module", ["change", "change_noise", "change_baselines", "populations"])
def test_examples_in_docstrings_run(module):
    assert doctest.testmod(importlib.import_module(f"scmulan.measures.{module}")).failed == 0


def test_a_change_is_the_difference_of_means_on_both_scales():
    found = change_between([[1, 1], [3, 1]], [[0, 4]])
    log = np.log1p([[5000, 5000], [7500, 2500]]).mean(0)
    assert np.allclose(found.mean, np.array([0, np.log1p(10000)]) - log, atol=1e-5)
    assert np.allclose(found.fold, np.log2([1, 10001]) - np.log2([6251, 3751]), atol=1e-3)


def test_the_truth_predicts_itself_perfectly(truths):
    found = compare_changes(truths, {name: truth.change for name, truth in truths.items()})
    means = found.means
    assert (means.pearson, means.pearson_top, means.pearson_specific, means.direction) == (1, 1, 1, 1)
    assert (means.rmse, means.rmse_top, means.mae) == (0, 0, 0)
    assert means.fold_slope == pytest.approx(1)
    assert found.spread.ratio == pytest.approx(1)
    assert (found.discrimination.rank, found.discrimination.first) == (1, 1)


def test_other_cells_of_the_same_perturbation_predict_it_well(truths):
    found = compare_changes(truths, predicted_by_cells())
    assert found.means.pearson > 0.9
    assert found.discrimination.first == 1
    assert 0.8 < found.means.fold_slope < 1.2


def test_no_change_has_no_correlation_half_the_directions_and_no_spread(truths):
    found = compare_changes(truths, dict.fromkeys(truths, flat()))
    assert found.means.pearson is None
    assert (found.means.direction, found.means.fold_slope, found.spread.ratio) == (0.5, 0.0, 0.0)
    assert (found.discrimination.rank, found.discrimination.first) == (0.5, 0.25)
    assert found.means.marker_recall == pytest.approx(change.TOP / N_GENES)


def test_one_answer_to_every_perturbation_shows_as_a_collapse(truths):
    mean = np.mean([truth.change.mean for truth in truths.values()], axis=0)
    found = compare_changes(truths, dict.fromkeys(truths, Change(mean=mean, fold=mean)))
    assert found.means.pearson > 0.2
    assert found.means.pearson_specific is None
    assert found.spread.ratio == pytest.approx(0, abs=1e-6)
    assert found.discrimination.rank == 0.5


def test_perturbations_mixed_up_are_told_from_the_right_ones(truths):
    said = predicted_by_cells()
    wrong = compare_changes(truths, dict(zip(said, [*list(said.values())[1:], said["a"]], strict=True)))
    assert wrong.spread.ratio == pytest.approx(compare_changes(truths, said).spread.ratio)
    assert wrong.discrimination.first == 0
    assert wrong.means.pearson_specific < 0


def test_a_shared_control_correlates_what_was_never_predicted_and_halves_do_not():
    """The pitfall that disjoint control cells are for: both sides are unperturbed cells, so that there is nothing to predict."""
    pool = [cells(60, seed) for seed in range(100, 140, 2)]
    shared = [
        score_change(true_change(cells(60, 5), one), change_between(cells(60, 5), other)).pearson
        for one, other in zip(pool[::2], pool[1::2], strict=True)
    ]
    apart = [
        score_change(true_change(cells(60, 5 + k), one), change_between(cells(60, 900 + k), other)).pearson
        for k, (one, other) in enumerate(zip(pool[::2], pool[1::2], strict=True))
    ]
    assert np.mean(shared) > 0.3
    assert abs(np.mean(apart)) < 0.1


def test_most_changed_genes_are_those_that_were_changed(truths):
    top = np.argsort(-truths["a"].score)[:5]  # upwards: what is not changed falls as a share
    assert set(top.tolist()) == set(SHIFTS["a"])
    assert truths["a"].is_significant[:5].all()


def test_unchanged_cells_have_no_significant_gene_and_no_direction():
    truth = true_change(cells(200, 1), cells(200, 2))
    assert truth.is_significant.sum() <= 2
    assert score_change(dataclasses.replace(truth, is_significant=np.zeros(N_GENES, dtype=bool)), flat(1.0)).direction is None


def test_spread_is_the_root_mean_square_distance_of_pairs():
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert spread(rows, rows * 2).predicted == pytest.approx(np.sqrt((25 + 25 + 0) / 3))
    assert spread(rows, rows * 2).ratio == pytest.approx(0.5)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_discrimination_does_not_depend_on_order_scale_or_offset(n, seed):
    rng = np.random.default_rng(seed)
    said, true, order = rng.normal(size=(n, 12)), rng.normal(size=(n, 12)), rng.permutation(n)
    found = discrimination(said, true)
    assert 0 <= found.rank <= 1
    assert discrimination(said[order] * 3 + 1, true[order]) == found


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 50), st.integers(0, 9))
def test_halves_are_disjoint_and_together_all(n, seed):
    one, other = disjoint_halves(n, seed)
    assert sorted([*one, *other]) == list(range(n))
    assert 0 <= len(one) - len(other) <= 1


def test_a_comparison_is_plain_data(truths):
    assert json.loads(json.dumps(dataclasses.asdict(compare_changes(truths, predicted_by_cells()))))["n"] == 4


def test_one_perturbation_has_neither_spread_nor_discrimination(truths):
    found = compare_changes({"a": truths["a"]}, predicted_by_cells())
    assert (found.spread, found.discrimination, found.means.pearson_specific) == (None, None, None)


def test_what_is_missing_is_named(truths):
    with pytest.raises(CellDataError, match="none for 'b', 'c', 'd'"):
        compare_changes(truths, {"a": flat()})
    with pytest.raises(CellDataError, match="no perturbation"):
        compare_changes({}, {})
    with pytest.raises(CellDataError, match="at least 2 of each"):
        true_change(cells(1, 0), cells(5, 1))
    with pytest.raises(CellDataError, match="same genes"):
        change_between(cells(3, 0), cells(3, 0)[:, :9])
    with pytest.raises(CellDataError, match="predicted change of 3 genes"):
        score_change(truths["a"], Change(mean=np.zeros(3), fold=np.zeros(3)))
