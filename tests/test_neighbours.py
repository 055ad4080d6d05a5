"""Nearest cells and their votes: exact, weighed as said, and honest about what the reference lacks."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from scmulan.errors import CellDataError
from scmulan.measures import neighbours
from scmulan.measures.neighbours import nearest, transfer, vote


def test_examples_in_docstrings_run():
    assert doctest.testmod(neighbours).failed == 0


@settings(max_examples=40)
@given(n=st.integers(2, 60), k=st.integers(1, 20), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_neighbours_are_those_of_scikit_learn(n, k, d, seed):
    points = np.random.default_rng(seed).normal(size=(n, d))
    index, distance = nearest(points, k=k)
    k = min(k, n - 1)
    expected, _ = NearestNeighbors(n_neighbors=k).fit(points.astype(np.float32)).kneighbors()
    np.testing.assert_allclose(distance, expected, atol=1e-4)
    assert index.shape == (n, k)
    assert not (index == np.arange(n)[:, None]).any()


def test_a_block_at_a_time_finds_the_same(monkeypatch):
    points = np.random.default_rng(0).normal(size=(50, 3))
    whole = nearest(points, k=5)
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", 120)
    for one, other in zip(whole, nearest(points, k=5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_neighbours_of_another_group_alone():
    index, distance = nearest([[0.0], [1.0], [2.0], [10.0]], k=2, apart=["a", "a", "b", "b"])
    assert index.tolist() == [[2, 3], [2, 3], [1, 0], [1, 0]]
    assert distance[0].tolist() == [2.0, 10.0]


def test_a_nearer_neighbour_has_the_louder_voice():
    names, share = vote(["B", "NK"], np.array([[0, 1]]), np.array([[1.0, 3.0]]))
    near, far = np.exp(-((1 / 2) ** 2)), np.exp(-((3 / 2) ** 2))  # the mean distance is 2
    assert names == ["B", "NK"]
    np.testing.assert_allclose(share, [[near / (near + far), far / (near + far)]])


def test_votes_do_not_depend_on_the_unit_of_distance():
    rng = np.random.default_rng(0)
    index, distance = rng.integers(30, size=(20, 5)), np.sort(rng.random((20, 5)), 1)
    labels = [str(number % 4) for number in range(30)]
    np.testing.assert_allclose(vote(labels, index, distance)[1], vote(labels, index, 1000 * distance)[1])


def test_neighbours_without_a_label_have_no_voice():
    names, share = vote(["B", None], np.array([[0, 1], [1, 1], [1, -1]]), np.array([[1.0, 0.5], [1.0, 1.0], [1.0, np.inf]]))
    assert names == ["B"]
    assert share.tolist() == [[1.0], [0.0], [0.0]]


def test_copies_of_a_reference_cell_take_its_label():
    points = [[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]]
    found = transfer(points, ["B", "B", "NK"], points, ["B", "B", "NK"], k=2)
    assert (found.n, found.n_reference, found.accuracy, found.novelty_auc) == (3, 3, 1.0, None)


def test_labels_that_the_reference_lacks_are_counted_apart_and_their_distance_measured():
    reference, labels = [[0.0], [0.1], [1.0], [1.1], [0.5]], ["B", "B", "NK", "NK", "T"]
    found = transfer(reference, labels, [[0.0], [1.05], [9.0], [8.0]], ["B", "NK", "mast", "mast"], k=1)
    assert (found.known, found.accuracy, found.novelty_auc) == (0.5, 1.0, 1.0)
    none = transfer(reference, labels, [[9.0]], ["mast"])
    assert (none.known, none.accuracy, none.macro_f1, none.novelty_auc) == (0.0, None, None, None)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nearest([[0.0]], k=1), "needed two or more"),
        (lambda: nearest([[0.0]], [[0.0, 1.0]]), "needed the same embedding"),
        (lambda: nearest([[np.nan], [0.0]]), "1 of 2 cells have values that are not finite"),
        (lambda: nearest([0.0, 1.0]), "needed cells × dimensions"),
        (lambda: transfer([[0.0]], ["B", "NK"], [[0.0]], ["B"]), "needed one a cell"),
    ],
)
def test_what_is_no_embedding_is_refused(call, said):
    with pytest.raises(CellDataError, match=said):
        call()
