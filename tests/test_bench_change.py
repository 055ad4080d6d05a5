"""The bench of changes: a further way is one more row, measured as the simple ones are, on cells that no way learnt from."""

from __future__ import annotations

import json
from collections.abc import Mapping

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmulan import bench_change
from scmulan.bench_change import change, explain, measure, task_of
from scmulan.errors import CellDataError, PromptError
from scmulan.genes import GeneTable
from scmulan.measures.change_baselines import RULES
from scmulan.measures.change_ways import ChangeTask, Foretold

N = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A screen of four targets, three of which raise five genes each, as the files are named."""
    symbols = [str(symbol) for symbol in GeneTable.load().symbols[:N]]
    rng, blocks, targets, guides = np.random.default_rng(3), [], [], []
    rate = np.random.default_rng(4).gamma(1, 4, N) + 1
    for k, name in enumerate(["non-targeting", "A", "B", "C", "D"]):
        for g in (1, 2):
            mean = rate.copy()
            mean[5 * k : 5 * k + 5] *= 3 if name in "ABC" else 1
            blocks.append(rng.poisson(mean, (70, N)))
            targets += [name] * 70
            guides += [f"{name}{g}"] * 70
    adata = anndata.AnnData(
        sp.csr_matrix(np.vstack(blocks)).astype(np.float32),
        obs=pd.DataFrame({"perturbation": targets, "guide": guides}, index=[f"c{row}" for row in range(len(targets))]),
        var=pd.DataFrame(index=symbols),
    )
    path = tmp_path_factory.mktemp("screens")
    adata.write_h5ad(path / "papalexi_eccite_thp1.h5ad")
    return path


def oracle(task: ChangeTask) -> Mapping[str, Foretold]:
    """Held-out cells themselves: a way that cheats."""
    return {target: Foretold(cells=task.counts[rows]) for target, rows in task.split.held.items()}


def unperturbed(task: ChangeTask) -> Mapping[str, Foretold]:
    """Control cells, said to be perturbed."""
    some = task.counts[task.split.control_train[:30]]
    return {target: Foretold(cells=some, control=some) for target in task.split.held}


def test_a_further_way_is_a_row_beside_the_simple_ones(folder):
    found = measure([task_of("papalexi", "cells", folder)], {"oracle": oracle, "unperturbed": unperturbed}, draws=5)
    ways = found["ways"]
    assert set(ways) == {*RULES, "training cells of the target", "oracle", "unperturbed"}
    assert ways["oracle"]["rmse"] < min(row["rmse"] for name, row in ways.items() if name != "oracle")
    assert ways["oracle"]["rank"] == 1.0
    assert (ways["unperturbed"]["pearson"], ways["unperturbed"]["spread"]) == (None, 0.0)
    assert ways["unperturbed"]["energy"] > ways["training cells of the target"]["energy"]
    assert found["ceiling"]["pearson"] > 0.5
    json.dumps(found)


def test_targets_without_an_effect_are_measured_but_told_apart(folder, monkeypatch):
    monkeypatch.setattr(bench_change, "EFFECT", 5)
    found = measure([task_of("papalexi", "cells", folder)], {}, draws=3)
    assert found["targets_with_an_effect"] == ["A", "B", "C"]
    assert set(found["targets"]) == {"A", "B", "C", "D"}
    assert found["ways"]["target mean"]["with_an_effect"]["pearson"] > found["ways"]["target mean"]["pearson"]


def test_unseen_targets_have_no_row_that_would_need_their_cells(folder, monkeypatch):
    monkeypatch.setattr(bench_change, "N_FOLDS", 2)
    found = change(data=folder, n=3, only=["papalexi, targets"], seed=0, say=lambda _: None)["papalexi, targets held out"]
    assert set(found["ways"]) == {"no change", "mean shift", "linear", "nearest perturbation"}
    assert sorted(found["targets"]) == ["A", "B", "C", "D"]


def test_perturbations_are_told_by_every_way_at_every_size(folder, monkeypatch):
    monkeypatch.setattr(bench_change, "LEAST_MEASURED", 20)
    task = task_of("papalexi", "cells", folder)

    def knows(task, populations, candidates):
        return np.array([[float(candidate == task.targets[each.rows[0]]) for candidate in candidates] for each in populations])

    found = explain(task, {"knows": knows})
    assert list(found) == ["1 cells", "10 cells", "all cells"]  # no target has 50 cells held out
    assert found["10 cells"]["knows"]["first"] == 1.0
    assert found["10 cells"]["chance"] == [0.25, 1.0]
    assert found["10 cells"]["logistic regression"]["first"] > 0.6


def test_columns_and_settings_that_are_not_there_are_named(folder, tmp_path):
    with pytest.raises(PromptError, match="--only 'papalexy'"):
        change(data=folder, n=3, only=["papalexy"], seed=0, say=print)
    anndata.AnnData(np.ones((3, 2)), var=pd.DataFrame(index=["GATA1", "CD19"])).write_h5ad(tmp_path / "kang_pbmc_ifnb.h5ad")
    with pytest.raises(CellDataError, match="no column 'condition' in obs"):
        task_of("kang", "cells", tmp_path)
