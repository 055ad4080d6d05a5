"""Distances of clouds of cells: by hand where a hand can, and on clouds that are equal, moved, or narrower."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_change import N_GENES, SHIFTS, cells

from scmulan.errors import CellDataError
from scmulan.measures.change import change_between
from scmulan.measures.populations import cell_space, population_distance


def cloud(n: int, seed: int, at: float = 0.0, width: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(at, width, (n, 5))


def test_distances_of_four_points_by_hand():
    found = population_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]), bandwidth=1.0)
    assert found.energy == pytest.approx(2 * (1 + 5 + 1 + 3) / 4 - 2 - 4)
    assert found.mmd == pytest.approx(np.exp(-2) + np.exp(-8) - 2 * np.mean(np.exp([-0.5, -12.5, -0.5, -4.5])))
    assert found.wasserstein == 2.0


def test_equal_clouds_are_at_zero_on_average():
    found = [population_distance(cloud(100, 2 * seed), cloud(100, 2 * seed + 1), bandwidth=2.0) for seed in range(30)]
    assert abs(np.mean([each.energy for each in found])) < 0.01
    assert abs(np.mean([each.mmd for each in found])) < 0.005


def test_moved_and_collapsed_clouds_are_farther_than_equal_ones():
    true = cloud(200, 1)
    equal, moved, narrow = (population_distance(true, cloud(200, 2, **how), bandwidth=2.0) for how in ({}, {"at": 0.7}, {"width": 0.2}))
    for name in ("energy", "mmd", "wasserstein"):
        assert getattr(equal, name) < min(getattr(moved, name), getattr(narrow, name)), name


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 99))
def test_distance_does_not_depend_on_the_order_of_sides(n, m, seed):
    one, other = cloud(n, seed), cloud(m, seed + 100, at=1.0)
    there, back = (population_distance(*sides, bandwidth=1.5) for sides in ((one, other), (other, one)))
    assert there.energy == pytest.approx(back.energy)
    assert there.mmd == pytest.approx(back.mmd)


def test_large_clouds_are_drawn_from_by_seed():
    found = population_distance(cloud(300, 1), cloud(200, 2), most=50, seed=3)
    assert (found.n_true, found.n_predicted) == (50, 50)
    assert found == population_distance(cloud(300, 1), cloud(200, 2), most=50, seed=3)


def test_cells_moved_by_a_change_have_its_mean():
    control, perturbed = cells(150, 1), cells(150, 2, SHIFTS["a"])
    space = cell_space(control, n_genes=N_GENES)
    there = space.moved(space.place(control), change_between(control, perturbed).mean)
    assert np.allclose(there.mean(0), space.place(perturbed).mean(0), atol=1e-4)
    true = space.place(cells(150, 3, SHIFTS["a"]))
    assert population_distance(true, there).energy < population_distance(true, space.place(control)).energy


def test_one_cell_is_no_population():
    with pytest.raises(CellDataError, match="at least 2 of each"):
        population_distance(cloud(1, 0), cloud(5, 1))
