"""Counts are found, recovered exactly, or made as pseudo-counts, and the result says which."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scmulan.counts import PSEUDO_DEPTH, as_csr, log1p_cp10k, recover, to_counts
from scmulan.errors import CellDataError


def umis(n_cells: int = 60, n_genes: int = 400, seed: int = 0) -> np.ndarray:
    """(n_cells, n_genes) counts like those of 10x: mostly zero, mostly ones, a few large."""
    random = np.random.default_rng(seed)
    return random.negative_binomial(0.3, 0.3 / (0.3 + random.lognormal(-1, 1.5, n_genes)), (n_cells, n_genes))


def size_normalised(counts: np.ndarray, total: float = 1e4) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True) * total


SCALED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "size-normalised": size_normalised,
    "log1p": lambda counts: np.log1p(size_normalised(counts)),
    "log2(x + 1)": lambda counts: np.log2(size_normalised(counts, 2350.0) + 1),
    "log10(x + 1)": lambda counts: np.log10(size_normalised(counts, 1e6) + 1),
}


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64, np.uint8])
def test_whole_numbers_stay_what_they_are(make: Callable[[np.ndarray], object], dtype: type) -> None:
    counts = np.minimum(umis(), 200)
    values = to_counts(as_csr(make(counts.astype(dtype))))
    assert (values.kind, values.recovered) == ("counts", 1.0)
    assert (values.counts.toarray() == counts).all()
    assert values.counts.dtype == np.int32
    assert values.counts.has_sorted_indices
    assert (values.counts.data != 0).all()


@pytest.mark.parametrize("scale", SCALED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalised_counts_come_back_exactly(scale: str, dtype: type) -> None:
    counts = umis()
    values = to_counts(as_csr(SCALED[scale](counts).astype(dtype)))
    assert (values.kind, values.scale, values.recovered) == ("recovered", scale, 1.0)
    assert (values.counts.toarray() == counts).all()
    assert values.residual < 1e-2


def test_size_factors_that_differ_from_cell_to_cell_do_not_matter() -> None:
    counts = umis()
    factors = np.random.default_rng(1).lognormal(0, 0.5, (len(counts), 1))
    values = to_counts(as_csr(np.log2(counts / factors + 1).astype(np.float32)))
    assert (values.counts.toarray() == counts).all()


def test_large_counts_come_back_exactly() -> None:
    counts = umis()
    counts[:, 0] = np.random.default_rng(2).integers(1_000, 8_000, len(counts))
    assert (to_counts(as_csr(np.log1p(size_normalised(counts)).astype(np.float32))).counts.toarray() == counts).all()


def test_cells_without_a_count_of_one_come_back_when_their_counts_share_no_factor() -> None:
    counts = umis()
    counts[counts == 1] = 2
    counts[:, 0], counts[:, 1] = 3, 5
    assert (to_counts(as_csr(size_normalised(counts).astype(np.float32))).counts.toarray() == counts).all()


def test_logarithms_of_plain_counts_come_back_even_where_all_share_a_factor() -> None:
    values = to_counts(as_csr(np.log1p(umis() * 3).astype(np.float32)))
    assert (values.kind, values.scale) == ("recovered", "log1p")
    assert (values.counts.toarray() == umis() * 3).all()


def test_subset_of_genes_taken_after_normalising_comes_back() -> None:
    counts = umis()
    assert (to_counts(as_csr(np.log1p(size_normalised(counts))[:, 100:300])).counts.toarray() == counts[:, 100:300]).all()


def test_numbers_so_large_that_any_is_near_a_whole_one_prove_nothing() -> None:
    values = np.random.default_rng(0).lognormal(2, 0.4, (40, 50))  # as powers of ten, 1e3 to 1e20
    assert to_counts(as_csr(values)).kind == "pseudo-counts"
    few = np.maximum(1, umis(n_genes=6))
    found = to_counts(as_csr(np.log2(size_normalised(few, 1e6) + 1).astype(np.float32))).counts.toarray()
    divided = few // np.gcd.reduce(few, axis=1)[:, None]
    assert (found == divided).all()


def test_square_roots_are_not_taken_for_logarithms() -> None:
    counts = np.random.default_rng(0).poisson(1.0, (30, 50))
    counts[:, 0] = 1
    values = to_counts(as_csr(np.sqrt(size_normalised(counts)).astype(np.float32)))
    assert values.scale == "square root"
    assert (values.counts.toarray() == counts).all()


def test_rpkm_becomes_pseudo_counts_at_the_stated_depth() -> None:
    lengths = np.random.default_rng(3).lognormal(0, 1, 400)
    values = to_counts(as_csr(np.log1p(size_normalised(umis() / lengths))))
    assert (values.kind, values.scale, values.recovered) == ("pseudo-counts", "log1p", 0.0)
    assert np.allclose(values.counts.sum(axis=1), PSEUDO_DEPTH, rtol=0.02)


def test_a_cell_that_fails_among_others_becomes_pseudo_counts_and_is_counted() -> None:
    counts = umis()
    normalised = size_normalised(counts)
    normalised[7] *= np.random.default_rng(4).lognormal(0, 1, 400)
    values = to_counts(as_csr(np.log1p(normalised).astype(np.float32)))
    assert values.recovered == pytest.approx(1 - 1 / 60)
    others = np.arange(60) != 7
    assert (values.counts.toarray()[others] == counts[others]).all()
    assert values.counts[7].sum() == pytest.approx(PSEUDO_DEPTH, rel=0.02)


def test_estimated_counts_are_rounded() -> None:
    random = np.random.default_rng(5)
    counts = umis() + np.where(random.random((60, 400)) < 0.05, random.random((60, 400)), 0)
    values = to_counts(as_csr(counts))
    assert values.kind == "rounded"
    assert (values.counts.toarray() == np.rint(counts)).all()


@pytest.mark.parametrize(("bad", "words"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-0.5, "negative")])
def test_values_that_cannot_be_counts_are_errors_that_name_cells(bad: float, words: str) -> None:
    counts = umis().astype(float)
    counts[3, 5] = bad
    with pytest.raises(CellDataError, match=rf"1 value is {words}.* in cells at positions '3'"):
        as_csr(counts)


def test_text_is_an_error() -> None:
    with pytest.raises(CellDataError, match="numbers are needed"):
        as_csr(np.array([["a", "b"]]))


def test_index_out_of_bounds_is_an_error() -> None:
    broken = sp.csr_matrix(umis())
    broken.indices[0] = 10_000
    with pytest.raises(CellDataError, match="damaged sparse matrix"):
        as_csr(broken)


def test_count_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(CellDataError, match=r"more than 2,147,483,647"):
        to_counts(as_csr(np.array([[2.0**40, 1.0]])))


def test_empty_cells_and_empty_matrices_have_counts_of_zero() -> None:
    assert to_counts(as_csr(np.zeros((3, 4)))).counts.nnz == 0
    counts = umis()
    counts[5] = 0
    safe = np.divide(counts, counts.sum(axis=1, keepdims=True), out=np.zeros(counts.shape), where=counts.sum(axis=1, keepdims=True) > 0)
    values = to_counts(as_csr(np.log1p(safe * 1e4)))
    assert (values.counts.toarray() == counts).all()
    assert values.recovered == 1.0


def test_the_input_is_left_as_it_is() -> None:
    matrix = sp.csr_matrix(np.array([[0.0, 1.0], [2.0, 0.0]]))
    matrix.data[0] = 0
    before = matrix.copy()
    to_counts(as_csr(matrix))
    assert (matrix.data == before.data).all()
    assert matrix.nnz == before.nnz


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, (4, 12), elements=st.integers(0, 300)), st.floats(0.01, 1e6))
def test_multiples_of_any_unit_come_back_up_to_a_shared_factor(counts: np.ndarray, unit: float) -> None:
    csr = as_csr(counts * unit)
    whole, exact, _ = recover(csr.data, csr.indptr)
    for row, counted in enumerate(counts):
        found, true = whole[csr.indptr[row] : csr.indptr[row + 1]], counted[counted > 0]
        factor = np.gcd.reduce(true) if len(true) else 1
        if len(true) and true.min() // factor <= 8:
            assert exact[row]
            assert (found == true // factor).all()


def test_log1p_cp10k_of_counts_is_what_scanpy_gives() -> None:
    counts = umis()
    expected = np.log1p(size_normalised(counts))
    assert np.allclose(log1p_cp10k(sp.csr_matrix(counts)).toarray(), expected, atol=1e-6)
    assert log1p_cp10k(sp.csr_matrix((2, 3), dtype=np.int32)).nnz == 0
