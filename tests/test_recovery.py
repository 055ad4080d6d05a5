"""Recovered depth: each figure by hand or against a library, and the simple ways on cells whose rates are known."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from scmulan.csentence_thinning import thin
from scmulan.errors import CellDataError
from scmulan.measures.counts import log_cp10k
from scmulan.measures.recovery import MIXED, cluster_agreement, recovery
from scmulan.measures.recovery_baselines import expected_of_types, leave_alone, posterior_of_types, smooth_by_neighbours

N_GENES = 120


def two_types(n: int, seed: int, depth: float = 600) -> tuple[sp.csr_matrix, np.ndarray, list[str]]:
    """Counts, true shares and types of ``n`` cells of each of two types."""
    profiles = np.random.default_rng(5).gamma(0.6, 1, (2, N_GENES)) + 0.02
    shares = np.repeat(profiles / profiles.sum(1, keepdims=True), n, axis=0)
    counts = np.random.default_rng(seed).poisson(shares * depth)
    return sp.csr_matrix(counts), shares, ["x"] * n + ["y"] * n


@pytest.fixture(scope="module")
def cells():
    full, shares, types = two_types(60, 1)
    return full, thin(full, 0.1, seed=0), shares, types


@pytest.mark.parametrize("module", ["recovery", "recovery_baselines"])
def test_examples_in_docstrings_run(module):
    assert doctest.testmod(importlib.import_module(f"scmulan.measures.{module}")).failed == 0


def test_the_full_cell_agrees_with_itself_perfectly(cells):
    full, thinned, _, types = cells
    found = recovery(full, thinned, full, labels=types)
    assert (found.pearson_cell, found.spearman_cell, found.pearson_gene, found.spearman_gene) == pytest.approx((1, 1, 1, 1))
    assert (found.rmse, found.detection, found.ari) == (0, 1, 1)


def test_figures_are_those_of_the_libraries(cells):
    full, thinned, _, types = cells
    said = smooth_by_neighbours(thinned)
    found = recovery(full, thinned, said, labels=types)
    one, other = log_cp10k(full).toarray(), log_cp10k(said).toarray()
    assert found.pearson_cell == pytest.approx(np.median([pearsonr(a, b)[0] for a, b in zip(one, other, strict=True)]), abs=1e-5)
    assert found.spearman_cell == pytest.approx(np.median([spearmanr(a, b)[0] for a, b in zip(one, other, strict=True)]), abs=1e-5)
    genes = np.flatnonzero(np.asarray((full > 0).mean(0)).ravel() >= 0.05)
    by_gene = [spearmanr(one[:, g], other[:, g])[0] if np.ptp(other[:, g]) else 0.0 for g in genes]
    assert found.spearman_gene == pytest.approx(np.median(by_gene), abs=1e-5)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((one - other) ** 2)), rel=1e-4)
    areas = []
    for row in range(full.shape[0]):
        lacking = thinned[row].toarray().ravel() == 0
        areas.append(roc_auc_score(full[row].toarray().ravel()[lacking] > 0, said[row][lacking]))
    assert found.detection == pytest.approx(np.mean(areas))


def test_nats_of_removed_molecules_by_hand():
    full, thinned = sp.csr_matrix([[3, 1]]), sp.csr_matrix([[1, 0]])
    found = recovery(full, thinned, np.array([[3.0, 1.0]]), mean_profile=np.array([0.5, 0.5]))
    mixed = (1 - MIXED) * np.array([0.75, 0.25]) + MIXED * 0.5
    assert found.removed_nats == pytest.approx(-(2 * np.log(mixed[0]) + np.log(mixed[1])) / 3)


def test_nobody_foretells_the_removed_molecules_better_than_the_true_rates(cells):
    full, thinned, shares, _ = cells
    best = recovery(full, thinned, shares).removed_nats
    for said in (leave_alone(thinned), smooth_by_neighbours(thinned), full.toarray() * 0 + 1.0):
        assert best < recovery(full, thinned, said).removed_nats


def test_leaving_a_cell_alone_says_nothing_of_the_genes_it_lacks(cells):
    full, thinned, _, _ = cells
    assert recovery(full, thinned, leave_alone(thinned)).detection == 0.5


def test_the_simple_ways_beat_leaving_alone_where_cells_are_of_two_types(cells):
    full, thinned, _, types = cells
    train, _, train_types = two_types(80, 2)
    alone = recovery(full, thinned, leave_alone(thinned), labels=types)
    for said in (
        smooth_by_neighbours(thinned),
        smooth_by_neighbours(thinned, train),
        posterior_of_types(thinned, types, train, train_types),
    ):
        found = recovery(full, thinned, said, labels=types)
        assert found.rmse < alone.rmse
        assert found.removed_nats < alone.removed_nats
        assert found.detection > 0.6
        assert found.ari >= alone.ari


def test_the_posterior_lies_between_the_type_and_the_cell():
    train, _, types = two_types(80, 2)
    one = train[:1].tolil()
    one[0, 3] = 0
    rates = posterior_of_types(one.tocsr(), ["x"], train, types)
    assert 0 < rates[0, 3] < np.asarray(train[:80].sum(0)).ravel()[3] / train[:80].sum()
    assert np.allclose(
        posterior_of_types(one.tocsr(), ["rare"], train, types), posterior_of_types(one.tocsr(), ["all"], train, ["all"] * 160)
    )


def test_expected_cells_have_the_wanted_depth_and_all_that_was_seen(cells):
    full, thinned, _, types = cells
    depth = np.asarray(full.sum(1)).ravel()
    said = expected_of_types(thinned, depth, types, full, types)
    assert np.allclose(said.sum(1), depth)
    assert (said >= thinned.toarray() - 1e-9).all()
    error = {name: np.square(each - full.toarray()).mean() for name, each in (("it", said), ("alone", thinned.toarray() * 10.0))}
    assert error["it"] < error["alone"]
    with pytest.raises(CellDataError, match="no less than what was seen"):
        expected_of_types(thinned, depth * 0, types, full, types)


def test_clusters_that_are_the_labels_have_an_index_of_one():
    counts, _, types = two_types(30, 3)
    assert cluster_agreement(counts, types) == 1.0
    assert abs(cluster_agreement(counts, np.tile(["p", "q"], 30))) < 0.1


def test_what_cannot_be_compared_is_named(cells):
    full, thinned, _, _ = cells
    with pytest.raises(CellDataError, match="not part of its full cell"):
        recovery(thinned, full, full)
    with pytest.raises(CellDataError, match="1 values are negative"):
        recovery(sp.csr_matrix([[1, 1]]), sp.csr_matrix([[1, 0]]), np.array([[1.0, -1.0]]))
    with pytest.raises(CellDataError, match="recovered cells are 1 × 2"):
        recovery(full, thinned, np.ones((1, 2)))
    with pytest.raises(CellDataError, match="120 cells but 1 labels"):
        cluster_agreement(full, ["x"])
    with pytest.raises(CellDataError, match="types: 1 and 2"):
        posterior_of_types(thinned, ["x"], full, ["x", "y"])
