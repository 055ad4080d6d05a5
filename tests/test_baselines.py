"""The baselines: that they fit, sample and score as their formulas say, and refuse what they can't do."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import nbinom

from scmulan.errors import CellDataError, VocabularyError
from scmulan.measures import baselines


def two_types(n: int = 60, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray]:
    """Cells of types A and B on 30 genes, the first ten higher in A."""
    rng = np.random.default_rng(seed)
    rate = np.full(30, 4.0)
    high = rate * np.r_[np.full(10, 3.0), np.ones(20)]
    return sp.csr_matrix(np.vstack([rng.poisson(high, (n, 30)), rng.poisson(rate, (n, 30))])), np.repeat(["A", "B"], n)


def test_logistic_regression_knows_types_that_differ_and_gives_probabilities():
    counts, types = two_types()
    said = baselines.fit_logistic_regression(counts, types).predict(two_types(seed=1)[0])
    assert (np.array(said.labels) == types).mean() > 0.95
    assert said.classes == ["A", "B"]
    assert np.allclose(said.probabilities.sum(1), 1)
    assert [said.classes[k] for k in said.probabilities.argmax(1)] == said.labels


def test_logistic_regression_knows_nothing_of_types_that_do_not_differ():
    counts, types = two_types()
    shuffled = np.random.default_rng(0).permutation(types)
    said = baselines.fit_logistic_regression(counts, shuffled).predict(two_types(seed=1)[0])
    assert abs((np.array(said.labels) == types).mean() - 0.5) < 0.25


def test_majority_class_says_the_commonest_label_with_its_share():
    said = baselines.fit_majority_class(["B", "A", "B", "B"]).predict(np.ones((2, 3), int))
    assert said.labels == ["B", "B"]
    assert said.probabilities.tolist() == [[0.25, 0.75]] * 2


def test_multinomial_cells_have_exactly_the_depth_asked_for():
    counts, _ = two_types()
    drawn = baselines.fit_multinomial(counts).sample([5, 0, 70], seed=0)
    assert np.asarray(drawn.sum(1)).ravel().tolist() == [5, 0, 70]
    assert drawn.dtype == np.int32


def test_multinomial_never_draws_a_gene_that_was_never_seen():
    drawn = baselines.fit_multinomial([[1, 0, 3]]).sample([500] * 20, seed=0)
    assert drawn[:, 1].nnz == 0


def test_negative_binomial_finds_the_dispersion_it_was_drawn_from():
    rng = np.random.default_rng(0)
    bursty, calm = rng.negative_binomial(0.5, 0.5 / 5.5, (4000, 1)), rng.poisson(5, (4000, 40))
    model = baselines.fit_negative_binomial(np.hstack([bursty, calm]))
    assert model.dispersion[0] == pytest.approx(0.5, rel=0.2)
    assert np.median(model.dispersion[1:]) > 50
    assert model.profile.sum() == pytest.approx(1)


def test_dispersion_is_never_below_the_floor():
    rng = np.random.default_rng(0)
    bursty = np.hstack([rng.negative_binomial(0.05, 0.01, (200, 1)), rng.poisson(5, (200, 20))])
    assert baselines.fit_negative_binomial(bursty, 0.01).dispersion.min() < 0.5
    assert baselines.fit_negative_binomial(bursty, 0.5).dispersion.min() == 0.5


def test_nats_are_the_negative_log_likelihood_given_the_depth():
    model = baselines.NegativeBinomial(profile=np.array([0.25, 0.75]), dispersion=np.array([2.0, 1.0]))
    expected = -nbinom.logpmf(3, 2, 2 / (2 + 1)) - nbinom.logpmf(1, 1, 1 / (1 + 3))
    assert model.nats([[3, 1]]) == pytest.approx([expected])


def test_a_type_scores_its_own_cells_better_than_those_of_another():
    counts, types = two_types()
    cells, labels = two_types(seed=1)
    right = baselines.negative_binomial_nats(counts, types, cells, labels)
    wrong = baselines.negative_binomial_nats(counts, types, cells, labels[::-1])
    assert right.mean() + 5 < wrong.mean()


def test_more_floors_to_choose_among_never_cost_nats():
    counts, types = two_types()
    cells, labels = two_types(seed=1)
    one, *_ = singles = [baselines.negative_binomial_nats(counts, types, cells, labels, floors=(floor,)).mean() for floor in (0.05, 2.0)]
    both = baselines.negative_binomial_nats(counts, types, cells, labels, floors=(0.05, 2.0)).mean()
    assert both <= min(singles) <= one


@pytest.mark.parametrize("kind", ["multinomial", "negative binomial"])
def test_simulated_cells_come_in_the_order_asked_for(kind):
    counts, types = two_types()
    asked = ["B", "A", "A", "B", "A"] * 20
    made = baselines.sample_by_type(counts, types, asked, kind, seed=0)
    ratio = np.asarray(made[:, :10].mean(1)).ravel() / np.asarray(made[:, 10:].mean(1)).ravel()
    assert made.shape == (100, 30)
    assert ((ratio > 1.8) == (np.array(asked) == "A")).mean() > 0.9


def test_the_same_seed_gives_the_same_cells_and_another_seed_others():
    counts, types = two_types()
    first, again, other = (baselines.sample_by_type(counts, types, types, seed=seed) for seed in (1, 1, 2))
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0


def test_a_type_without_training_cells_is_an_error_that_names_the_nearest():
    counts, types = two_types()
    with pytest.raises(VocabularyError, match=r"'b'.*nearest: 'B'"):
        baselines.sample_by_type(counts, types, ["b"])
    with pytest.raises(VocabularyError, match="'C'"):
        baselines.negative_binomial_nats(counts, types, counts[:1], ["C"])


@given(arrays(np.int32, (4, 12), elements=st.integers(0, 40)), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_thinning_keeps_within_the_limit_adds_nothing_and_leaves_shallow_cells_alone(counts, most):
    thinned = baselines.thin(counts, most, seed=0).toarray()
    detected = (counts > 0).sum(1)
    assert ((thinned > 0).sum(1) <= most).all()
    assert (thinned <= counts).all()
    assert (thinned[detected <= most] == counts[detected <= most]).all()


def test_thinning_is_the_draw_of_the_reference_cell_by_cell():
    counts = np.random.default_rng(1).poisson(0.8, (20, 400))
    rng = np.random.default_rng(0)
    expected = []
    for cell in counts:
        while (cell > 0).sum() > 150:
            cell = rng.binomial(cell, 150 / (cell > 0).sum() * 0.97)
        expected.append(cell)
    assert (baselines.thin(counts, 150, seed=0).toarray() == np.stack(expected)).all()


def test_thinning_leaves_its_input_as_it_was():
    counts, _ = two_types()
    before = counts.copy()
    baselines.thin(counts, 3)
    assert (counts != before).nnz == 0


def test_a_generator_goes_on_from_where_it_stands():
    counts, _ = two_types()
    model, rng = baselines.fit_multinomial(counts), np.random.default_rng(0)
    assert (model.sample([50], rng) != model.sample([50], rng)).nnz > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: baselines.fit_logistic_regression([[1], [2]], ["A", "A"]), "all training cells are 'A'"),
        (lambda: baselines.fit_logistic_regression([[1], [2]], ["A"]), "2 cells but 1 labels"),
        (lambda: baselines.fit_logistic_regression([[1], [2]], ["A", "B"]).predict([[1, 2]]), "cells of 2 genes; it was fitted on 1"),
        (lambda: baselines.fit_majority_class([]), "no training label"),
        (lambda: baselines.fit_negative_binomial([[0, 0], [1, 1]]), "1 training cells have no counts"),
        (lambda: baselines.fit_multinomial([[0, 0]]), "no counts"),
        (lambda: baselines.thin([[1]], 0), "needed 1 or more"),
    ],
)
def test_what_cannot_be_fitted_says_why(call, message):
    with pytest.raises(CellDataError, match=message):
        call()
