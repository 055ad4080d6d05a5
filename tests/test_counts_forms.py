"""Values in a form that counts are no longer in are undone where that gives the counts back, and named where it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from test_counts import size_normalised, umis

from scmulan.counts_forms import floor_of, form_of, holds_whole_numbers, is_unit_variance, norm_of, read_values
from scmulan.errors import CellDataError

LOGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"ln": np.log, "log2": np.log2, "log10": np.log10}


def z_scores() -> np.ndarray:
    logged = np.log1p(size_normalised(umis()))
    return (logged - logged.mean(axis=0)) / np.maximum(1e-12, logged.std(axis=0, ddof=1))


@pytest.mark.parametrize("base", LOGS)
@pytest.mark.parametrize("added", [1e-3, 0.1, 0.5, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_with_any_number_added_come_back_exactly(base: str, added: float, dtype: type) -> None:
    values = read_values(LOGS[base](size_normalised(umis()) + added).astype(dtype))
    assert (values.kind, values.scale, values.recovered) == ("recovered", f"{base}(x + c)", 1.0)
    assert (values.counts.toarray() == umis()).all()
    assert norm_of(values) == "CP10k: 10,000 a cell"


def test_edgers_log_cpm_with_a_prior_scaled_to_each_library_comes_back_exactly() -> None:
    counts = umis()
    library = counts.sum(axis=1, keepdims=True)
    prior = 2 * library / library.mean()
    assert (read_values(np.log2((counts + prior) / (library + 2 * prior) * 1e6)).counts.toarray() == counts).all()


@pytest.mark.parametrize("total", [1, 1e4])
def test_square_roots_come_back_exactly(total: float) -> None:
    stored = np.sqrt(umis() if total == 1 else size_normalised(umis(), total)).astype(np.float32)
    values = read_values(sp.csr_matrix(stored))
    assert (values.kind, values.scale) == ("recovered", "square root")
    assert (values.counts.toarray() == umis()).all()


def test_no_number_is_taken_off_where_zero_is_zero_or_all_are_whole() -> None:
    assert floor_of(size_normalised(umis())) is None
    assert floor_of(umis() + 3.0) is None
    assert floor_of(sp.csr_matrix(umis() * 0.5)) is None
    assert read_values(umis() + 3.0).kind == "counts"


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (z_scores(), "z-scores, mean 0 and standard deviation 1 in each gene; counts can't be recovered"),
        (np.clip(z_scores(), -10, 10), "z-scores"),
        (z_scores() * np.linspace(0.1, 5, 400), "residuals, or centred: mean 0 in each gene"),
        (np.log1p(umis()) - np.log1p(umis()).mean(axis=1, keepdims=True), "mean 0 in each cell: centred log-ratios"),
    ],
)
def test_forms_that_lost_the_counts_are_named_with_the_first_place(values: np.ndarray, form: str) -> None:
    with pytest.raises(CellDataError, match=r"values are negative .*, first in row 0, column \d+ \(" + form + ".*; counts are needed"):
        read_values(values)


def test_values_of_no_known_form_are_named_by_their_first_place_alone() -> None:
    values = size_normalised(umis())
    values[7, 5], values[9, 2] = -0.5, -1
    names = ([f"cell{row}" for row in range(60)], [f"gene{column}" for column in range(400)])
    with pytest.raises(CellDataError, match=r"2 values are negative .*, first in cell 'cell7', gene 'gene5'; counts"):
        read_values(values, names=names)
    assert form_of(values) == ""


def test_genes_divided_by_their_standard_deviation_are_told() -> None:
    logged = np.log1p(size_normalised(umis()))
    assert is_unit_variance(logged / np.maximum(1e-9, logged.std(axis=0, ddof=1)))
    assert not is_unit_variance(logged)
    assert not is_unit_variance(umis())


def test_only_the_columns_asked_for_are_read() -> None:
    counts = umis().astype(float)
    counts[:, 3] = -1
    kept = np.array([column for column in range(400) if column != 3])
    assert (read_values(sp.csc_matrix(counts), kept).counts.toarray() == umis()[:, kept]).all()


def test_a_damaged_matrix_is_refused_before_columns_are_taken_from_it() -> None:
    broken = sp.csr_matrix(umis())
    broken.indices[5] = 2**30
    with pytest.raises(CellDataError, match="damaged sparse matrix"):
        read_values(broken, np.arange(10))


@pytest.mark.parametrize("total", [(1e4, "CP10k: 10,000 a cell"), (1e6, "CPM: 1,000,000 a cell"), (1234, "1,234 a cell")])
def test_the_size_of_cells_is_told(total: tuple[float, str]) -> None:
    assert norm_of(read_values(size_normalised(umis(), total[0]))) == total[1]


def test_the_median_depth_no_size_factor_and_differing_ones_are_told() -> None:
    counts = umis()
    assert norm_of(read_values(size_normalised(counts, float(np.median(counts.sum(axis=1)))))).endswith("the median depth")
    assert norm_of(read_values(np.log1p(counts))) == "never divided by a size factor"
    factors = np.random.default_rng(1).lognormal(0, 0.5, (len(counts), 1))
    assert "size factors that differ" in norm_of(read_values(counts / factors))


@pytest.mark.parametrize(
    ("matrix", "does"),
    [
        (umis(), True), (sp.csr_matrix(umis()), True), (umis() * 0.3, False), (umis() - 1, False), (umis() > 0, False),
        (np.array([["a"]]), False), (np.full((3, 3), np.nan), False),
    ],
)  # fmt: skip
def test_whole_numbers_are_told_by_a_look(matrix: object, does: bool) -> None:
    assert holds_whole_numbers(matrix) is does
