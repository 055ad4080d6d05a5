"""Thinning: a function of the cell and the seed, at the rate asked for, and no further than a sentence must."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_counts
from grammar import N_GENES, cells, matrix_of
from hypothesis import given
from hypothesis import strategies as st

from scmulan.csentence import sentence_lengths
from scmulan.csentence_thinning import thin, thin_to_fit
from scmulan.errors import SentenceError


@given(st.lists(cells, min_size=1, max_size=5), st.floats(0.05, 0.95), st.integers(0, 2**40))
def test_thinning_is_a_function_of_the_cell(rows, keep, seed):
    """Alone, among others, in another row, or stored with zeros and in another order: the same cell thins alike."""
    together = thin(matrix_of(*rows), keep, seed).toarray()
    turned = thin(matrix_of(*rows[::-1]), keep, seed).toarray()
    assert (together == turned[::-1]).all()
    for number, cell in enumerate(rows):
        columns = [*cell, *(column for column in range(N_GENES) if column not in cell)][::-1]
        values = [cell.get(column, 0) for column in columns]
        alone = sp.csr_matrix((np.array(values, np.int64), np.array(columns), np.array([0, N_GENES])), shape=(1, N_GENES))
        assert (thin(alone, keep, seed).toarray()[0] == together[number]).all()


def test_thinning_keeps_the_share_asked_for_and_depends_on_the_seed():
    counts = random_counts(200, mean_genes=100)
    half = thin(counts, 0.5, seed=1)
    assert half.sum() == pytest.approx(counts.sum() / 2, rel=0.02)
    assert (half != thin(counts, 0.5, seed=2)).nnz > 1000
    assert (half > counts).nnz == 0
    rates = thin(counts, np.where(np.arange(200) < 100, 1.0, 0.1), seed=1)
    assert (rates[:100] != counts[:100]).nnz == 0
    assert rates[100:].sum() == pytest.approx(counts[100:].sum() / 10, rel=0.1)
    assert counts.sum() == random_counts(200, mean_genes=100).sum(), "the caller's matrix is left as it was"


@given(st.lists(cells, min_size=1, max_size=5), st.integers(8, 30), st.integers(0, 99))
def test_thinned_cells_fit_and_those_that_fitted_are_untouched(rows, most, seed):
    counts = matrix_of(*rows)
    lengths = sentence_lengths(counts)
    fitted, thinned = thin_to_fit(counts, most, seed)
    assert thinned.tolist() == (lengths > most).tolist()
    assert (sentence_lengths(fitted) <= most).all()
    assert (fitted > counts).nnz == 0
    assert (fitted[~thinned] != counts[~thinned]).nnz == 0


def test_a_cell_is_thinned_no_further_than_it_must():
    counts = random_counts(300, 2000, mean_genes=600)
    fitted, thinned = thin_to_fit(counts, 300)
    lengths = sentence_lengths(fitted)[thinned]
    assert thinned.sum() > 250
    assert lengths.max() <= 300
    assert np.median(lengths) > 0.95 * 300
    assert lengths.min() > 0.85 * 300


def test_each_cell_has_a_limit_of_its_own_and_fitting_does_not_look_at_neighbours():
    counts = random_counts(30)
    limits = np.linspace(20, 90, 30).astype(int)
    fitted, thinned = thin_to_fit(counts, limits, seed=3)
    assert thinned.any()
    assert not thinned.all()
    assert (sentence_lengths(fitted) <= limits).all()
    alone = sp.vstack([thin_to_fit(counts[row], limits[row], seed=3)[0] for row in range(30)])
    assert (alone != fitted).nnz == 0


def test_a_context_that_leaves_no_room_for_a_cell_is_an_error():
    with pytest.raises(SentenceError, match="3 tokens are left for a cell"):
        thin_to_fit(random_counts(2), [50, 3])
