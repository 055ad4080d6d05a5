"""Measures of integration: by hand on small cases, at their ends, and against scib-metrics where it is installed."""

from __future__ import annotations

import dataclasses
import doctest
import json

import numpy as np
import pytest

from scmulan.errors import CellDataError
from scmulan.measures import integration as measures
from scmulan.measures.integration import graph_connectivity, integration, median_lisi, perplexity_weights, silhouette_batch
from scmulan.measures.neighbours import nearest


def blobs(*, batch_shift: float, label_shift: float, n: int = 300, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels, batches = rng.integers(3, size=n), rng.integers(2, size=n)
    points = rng.normal(size=(n, 8)) + label_shift * np.eye(8)[labels] + batch_shift * np.eye(8)[4 + batches]
    return points, labels, batches


def test_examples_in_docstrings_run():
    assert doctest.testmod(measures).failed == 0


def test_types_apart_and_batches_together_is_the_best():
    good = integration(*blobs(batch_shift=0, label_shift=30))
    assert (good.nmi, good.ari, good.clisi, good.connectivity) == pytest.approx((1, 1, 1, 1))
    assert good.silhouette_label > 0.9
    assert good.silhouette_batch > 0.95
    assert good.ilisi > 0.85
    assert good.overall == pytest.approx(0.6 * good.biology + 0.4 * good.mixing)


def test_batches_apart_cost_mixing_and_types_together_cost_biology():
    good, apart = integration(*blobs(batch_shift=0, label_shift=30)), integration(*blobs(batch_shift=30, label_shift=30))
    assert apart.ilisi == pytest.approx(0, abs=1e-6)
    assert apart.mixing < good.mixing - 0.3
    none = integration(*blobs(batch_shift=0, label_shift=0))
    assert none.ari < 0.1
    assert none.biology < 0.5


def test_silhouettes_by_hand():
    # two labels of two cells at 0, 1 and 10, 11: a = 1; b of the cell at 0 is 10.5, of that at 1 it is 9.5
    points, labels = [[0.0], [1.0], [10.0], [11.0]], np.array([0, 0, 1, 1])
    found = integration(points, labels, [0, 1, 0, 1])
    assert found.silhouette_label == pytest.approx(((1 - 1 / 10.5) + (1 - 1 / 9.5)) / 4 + 0.5)
    # by batch within label 0: two cells, each alone in its batch, have silhouette 0; one batch a cell is not counted
    assert found.silhouette_batch is None
    six = [[0.0], [1.0], [0.0], [1.0], [5.0], [5.0]]  # both batches have cells at 0 and 1: a = 1, b = 0.5, silhouette -0.5
    assert silhouette_batch(six, np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0, 0])) == pytest.approx(0.5)


def test_connectivity_is_the_mean_share_of_the_largest_part():
    index = np.array([[1], [0], [3], [2], [5], [4]])  # three pairs
    assert graph_connectivity(np.zeros(6, int), index) == pytest.approx(2 / 6)
    assert graph_connectivity(np.array([0, 0, 1, 1, 2, 2]), index) == 1
    assert graph_connectivity(np.array([0, 0, 0, 1, 2, 2]), index) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_lisi_counts_the_names_that_neighbours_share_evenly():
    index, distance = np.array([[0, 1, 2, 3]]), np.ones((1, 4))
    assert median_lisi(np.array([0, 0, 1, 1]), index, distance) == pytest.approx(2)
    assert median_lisi(np.array([0, 0, 0, 0]), index, distance) == pytest.approx(1)
    assert median_lisi(np.array([0, 0, 0, 1]), index, distance) == pytest.approx(1 / (0.75**2 + 0.25**2))


def test_weights_have_the_perplexity_asked_for():
    distance = np.sort(np.random.default_rng(0).random((20, 30)), 1)
    weight = perplexity_weights(distance, 10)
    np.testing.assert_allclose(np.exp(-(weight * np.log(weight)).sum(1)), 10, rtol=1e-6)
    assert (np.diff(weight, axis=1) <= 0).all()


def test_scale_and_order_of_cells_change_nothing():
    points, labels, batches = blobs(batch_shift=1, label_shift=4)
    order = np.random.default_rng(1).permutation(len(points))
    one, other = integration(points, labels, batches), integration(100 * points[order], labels[order], batches[order])
    for name, value in dataclasses.asdict(one).items():
        assert getattr(other, name) == pytest.approx(value, abs=0.02), name


def test_what_is_undefined_is_none_and_the_result_is_json():
    points, labels, batches = blobs(batch_shift=0, label_shift=5)
    one_batch = integration(points, labels, np.zeros(len(labels)))
    assert (one_batch.silhouette_batch, one_batch.ilisi, one_batch.mixing, one_batch.overall) == (None,) * 4
    one_label = integration(points, np.zeros(len(labels)), batches)
    assert (one_label.nmi, one_label.silhouette_label, one_label.clisi, one_label.biology) == (None,) * 4
    assert json.loads(json.dumps(dataclasses.asdict(one_batch)))["n_batches"] == 1


def test_lengths_that_differ_are_refused():
    with pytest.raises(CellDataError, match="labels: 2 for 3 cells"):
        integration(np.zeros((3, 1)), [0, 1], [0, 0, 1])


def test_the_figures_are_those_of_scib_metrics():
    scib = pytest.importorskip("scib_metrics")
    from scib_metrics.nearest_neighbors import NeighborsResults

    points, labels, batches = blobs(batch_shift=1, label_shift=3)
    found = integration(points, labels, batches)
    assert found.silhouette_label == pytest.approx(float(scib.silhouette_label(points, labels)), abs=1e-4)
    assert found.silhouette_batch == pytest.approx(float(scib.silhouette_batch(points, labels, batches)), abs=1e-4)
    index, distance = nearest(points, k=90)
    near = NeighborsResults(
        indices=np.c_[np.arange(len(points)), index], distances=np.c_[np.zeros(len(points)), distance].astype(np.float32)
    )
    assert found.clisi == pytest.approx(float(scib.clisi_knn(near, labels)), abs=0.01)
    assert found.ilisi == pytest.approx(float(scib.ilisi_knn(near, batches)), abs=0.02)
