"""The bench of depth: a further way is one more row, and no way is given what it is measured on."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from scmulan import bench_enhance
from scmulan.bench_enhance import enhance, task_of
from scmulan.errors import CellDataError, PromptError
from scmulan.genes import GeneTable
from scmulan.measures.recovery_ways import QUICK

N_GENES = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.6, 6, (2, N_GENES)) + 0.3
    counts = rng.poisson(np.repeat(profiles, 60, axis=0)).astype(np.float32)
    obs = pd.DataFrame(
        {"cell_type": np.repeat(["B cell", "monocyte"], 60), "split": np.tile(["train", "train", "test"], 40)},
        index=[f"c{k}" for k in range(120)],
    )
    symbols = [str(symbol) for symbol in GeneTable.load().symbols[:N_GENES]]
    path = tmp_path_factory.mktemp("blood")
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=symbols)).write_h5ad(path / "zheng_pbmc_facs.h5ad")
    return path


def test_the_held_out_cells_are_those_of_the_split_thinned(folder):
    task, full, types = task_of(folder, 0.25)
    assert (task.thinned.shape[0], task.train.shape[0], len(types)) == (40, 80, 40)
    assert (full - task.thinned).min() >= 0
    assert task.thinned.sum() / full.sum() == pytest.approx(0.25, abs=0.03)
    assert task.depth.tolist() == np.asarray(full.sum(1)).ravel().tolist()
    assert (np.array(task.said_types) == np.array(types)).mean() > 0.8
    assert task_of(folder, 0.25, n=7)[0].thinned.shape[0] == 7


def test_a_further_way_is_a_row_beside_the_simple_ones(folder, monkeypatch):
    monkeypatch.setattr(bench_enhance, "SHARES", (0.25,))
    full = task_of(folder, 0.25)[1]
    found = enhance(data=folder, n=None, only=(), seed=0, say=lambda _: None, enhancers={"knows": lambda task: full})["25% of the depth"]
    assert {*QUICK, "knows"} < set(found)
    assert found["knows"]["rmse"] == 0
    assert found["posterior of the type"]["removed_nats"] < found["left alone"]["removed_nats"]
    assert found["seen, and the type's posterior"]["pearson_cell"] > found["left alone"]["pearson_cell"]
    json.dumps(found)


def test_only_what_is_named_is_run(folder, monkeypatch):
    monkeypatch.setattr(bench_enhance, "SHARES", (0.5,))
    found = enhance(data=folder, n=None, only=["left alone"], seed=0, say=lambda _: None)["50% of the depth"]
    assert set(found) & set(QUICK) == {"left alone"}
    with pytest.raises(PromptError, match=r"--only 'magik'.*nearest: 'MAGIC'"):
        enhance(data=folder, n=None, only=["magik"], seed=0, say=print)


@pytest.mark.parametrize(("module", "way"), [("magic", "MAGIC"), ("scvi", "scVI")])
def test_a_library_that_is_not_there_is_named_with_its_install_line(folder, monkeypatch, module, way):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(PromptError, match="pip install"):
        bench_enhance.LIBRARIES[way](task_of(folder, 0.25)[0])


def test_cells_without_types_are_an_error(tmp_path):
    anndata.AnnData(np.ones((3, 2)), var=pd.DataFrame(index=["GATA1", "CD19"])).write_h5ad(tmp_path / "zheng_pbmc_facs.h5ad")
    with pytest.raises(CellDataError, match="no column 'cell_type'"):
        task_of(tmp_path, 0.5)
