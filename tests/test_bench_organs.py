"""Cells of a new organ: drawn by type, never both learnt from and asked about."""

from __future__ import annotations

import numpy as np
import pytest

from scmulan import bench_organs
from scmulan.bench_organs import ORGANS, SIZES, divided, drawn, labelled_cells, organs
from scmulan.errors import PromptError


@pytest.mark.parametrize("name", ["skin", "heart"])
def test_cells_that_are_learnt_from_are_not_asked_about(name):
    pool, held = divided(labelled_cells(ORGANS[name], None), 0)
    for size in SIZES:
        chosen = drawn(pool, size, 0)
        assert not set(chosen.tolist()) & set(held.tolist())
        assert len(chosen) <= max(size, 2 * len(pool))
        assert all(set(chosen.tolist()) & set(rows.tolist()) for rows in pool.values()), "every type is among them"


def test_a_seed_decides_the_cells():
    adata = labelled_cells(ORGANS["skin"], None)
    first, again, other = (divided(adata, seed) for seed in (0, 0, 1))
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_an_organ_that_is_none_is_an_error_that_names_the_nearest():
    with pytest.raises(PromptError, match=r"--only 'skni': needed one of skin, heart, lung, adapter, all weights, .*; nearest: 'skin'"):
        organs(model="demo", data=None, n=20, only=["skni"], seed=0, say=print)


def test_lung_needs_a_folder():
    with pytest.raises(PromptError, match=r"zilionis_mouse_lung\.h5ad is not embedded; give its folder, --data FOLDER"):
        organs(model="demo", data=None, n=20, only=["lung"], seed=0, say=print)


@pytest.mark.slow
def test_every_way_is_measured_on_the_same_cells(monkeypatch):
    monkeypatch.setattr(bench_organs, "SETTINGS", {**bench_organs.SETTINGS, "steps": 2, "evaluate_every": 2})
    monkeypatch.setattr(bench_organs, "HELD_OUT", 20)
    monkeypatch.setattr(bench_organs, "BLOOD", 10)
    found = organs(model="demo", data=None, n=20, only=["heart"], seed=0, say=print)["organs"]["heart, 20 cells"]
    assert set(found) == {"logistic regression", "base untouched", "adapter", "all weights"}
    assert all(0 <= figures["accuracy"] <= 1 for figures in found.values())
    assert found["adapter"]["adapter_mb"] > 0
