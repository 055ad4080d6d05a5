"""A type's answer foretold from other types': nothing of the held-out type's answer is known."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest

from scmulan import assets
from scmulan.bench_change_types import KINDS, change_types, tasks_of
from scmulan.cells import read_h5ad
from scmulan.errors import PromptError
from scmulan.measures.change_ways import Foretold


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Embedded blood cells, half of them with thirty genes raised, as the file of interferon is named."""
    blood = read_h5ad(assets.path("embedded", "cells", "zheng_pbmc_facs.h5ad"))
    rng = np.random.default_rng(0)
    genes = np.argsort(-np.asarray(blood.X.sum(0)).ravel())[:1500]
    cells = blood[np.sort(rng.choice(blood.n_obs, 1400, replace=False))]
    counts = cells.X.toarray()
    is_stimulated = rng.random(len(counts)) < 0.5
    counts[np.ix_(is_stimulated, genes[100:130])] = rng.poisson(6, (is_stimulated.sum(), 30))
    small = anndata.AnnData(counts[:, genes].astype(np.float32), var=cells.var.iloc[genes][[]])
    small.obs["condition"] = np.where(is_stimulated, "IFN-beta", "control")
    path = tmp_path_factory.mktemp("kang")
    small.write_h5ad(path / "kang_pbmc_ifnb.h5ad")
    return path


@pytest.mark.slow
def test_the_answer_of_the_held_out_type_is_in_no_training_row(folder):
    tasks = tasks_of(folder)
    assert tuple(tasks) == KINDS
    for kind, task in tasks.items():
        known = np.concatenate([task.split.train, task.split.control_train])
        assert not set(task.split.held[kind]) & set(known)
        assert not set(task.split.control_true) & set(known)
        assert kind not in task.training.targets
        assert {task.targets[row] for row in task.split.train} == set(KINDS) - {kind}


@pytest.mark.slow
def test_other_types_foretell_an_answer_that_all_share(folder):
    def knows(task):
        return {kind: Foretold(cells=task.counts[rows]) for kind, rows in task.split.held.items()}

    found = change_types(data=folder, n=3, only=["B cell"], seed=0, say=lambda _: None, predictors={"knows": knows})
    ways = found["B cell"]["ways"]
    assert set(ways) == {"no change", "mean shift", "linear", "nearest perturbation", "knows"}
    assert ways["mean shift"]["pearson"] > 0.5
    assert ways["knows"]["rmse"] < ways["mean shift"]["rmse"] < ways["no change"]["rmse"]
    json.dumps(found)


def test_a_kind_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"--only 'B-cell'.*nearest: 'B cell'"):
        change_types(data=tmp_path, n=3, only=["B-cell"], seed=0, say=print)
