"""Cells paired along time: by clone, by transport, and what the record says of it."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
import scipy.sparse as sp

from scmulan import pairing
from scmulan.errors import CellDataError
from scmulan.pairing import pair_by_clone, pair_by_transport, pair_cells

TIMES = ["2", "2", "2", "4", "4", "4"]
CLONES = [1, 2, None, 1, 1, 9]


def two_lineages(n: int, seed: int) -> sp.csr_matrix:
    """``n`` cells of one kind and ``n`` of another."""
    rng = np.random.default_rng(seed)
    rates = np.repeat([[20.0] * 10 + [1.0] * 10, [1.0] * 10 + [20.0] * 10], n, axis=0)
    return sp.csr_matrix(rng.poisson(rates))


def test_examples_in_docstrings_run():
    assert doctest.testmod(pairing).failed == 0


def test_cells_of_one_clone_are_paired_and_the_rest_is_counted():
    found = pair_by_clone(TIMES, CLONES, earlier=2, later=4)
    assert (found.earlier.tolist(), found.later.tolist(), found.weight.tolist()) == ([0, 0], [3, 4], [0.5, 0.5])
    record = found.record
    assert (record["method"], record["clones"], record["pairs"]) == ("clones", 1, 2)
    assert (record["earlier_cells_without_a_pair"], record["later_cells_without_a_pair"]) == (2, 1)


def test_cells_of_unknown_clone_are_never_paired_with_each_other():
    with pytest.raises(CellDataError, match="pair by transport"):
        pair_by_clone(["2", "4"], [None, float("nan")], earlier="2", later="4")


def test_transport_keeps_to_the_lineage_and_says_how():
    counts = sp.vstack([two_lineages(15, 1), two_lineages(20, 2)]).tocsr()
    found = pair_by_transport(counts, ["a"] * 30 + ["b"] * 40, earlier="a", later="b", most=3)
    assert len(found) == 90
    assert np.array_equal((found.earlier < 15), (found.later < 30 + 20))
    assert np.allclose(np.bincount(found.earlier, found.weight), 1)
    assert found.record["method"] == "optimal transport"
    assert {"entropy", "n_components", "cost", "library", "seed", "share_of_the_plan_kept"} <= set(found.record)
    assert json.loads(json.dumps(found.record)) == found.record


def test_transport_repeats_and_does_not_depend_on_other_times():
    counts = sp.vstack([two_lineages(10, 1), two_lineages(10, 2)]).tocsr()
    times = ["a"] * 20 + ["b"] * 20
    one = pair_by_transport(counts, times, earlier="a", later="b")
    more = pair_by_transport(sp.vstack([counts, two_lineages(5, 3)]).tocsr(), [*times, *["c"] * 10], earlier="a", later="b")
    assert np.array_equal(one.later, more.later)
    assert np.array_equal(one.weight, more.weight)


def test_clones_are_used_where_they_speak_and_transport_elsewhere():
    counts = two_lineages(3, 1)
    assert pair_cells(counts, TIMES, earlier="2", later="4", clones=CLONES).record["method"] == "clones"
    assert pair_cells(counts, TIMES, earlier="2", later="4", clones=[None] * 6).record["method"] == "optimal transport"
    assert pair_cells(counts, TIMES, earlier="2", later="4").record["method"] == "optimal transport"


def test_a_time_without_cells_is_named():
    with pytest.raises(CellDataError, match="time '6': no cell has it; found '2', '4'"):
        pair_by_clone(TIMES, CLONES, earlier="2", later="6")


def test_without_the_library_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ot", None)
    with pytest.raises(CellDataError, match=r"scmulan\[transport\]"):
        pair_by_transport(two_lineages(3, 1), TIMES, earlier="2", later="4")
