"""The bench of next states: held-out clones are never learnt from, and a way that knows more scores better."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from scmulan.bench_next_state import measure, next_state, tasks_of
from scmulan.errors import CellDataError, PromptError
from scmulan.genes import GeneTable
from scmulan.measures.next_state import Followed
from scmulan.measures.state_ways import FATES, STATES, fates_of

N_GENES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clones of two fates, which show at day 4 and more at day 6."""
    rng, counts, rows = np.random.default_rng(0), [], []
    base = rng.gamma(1, 3, N_GENES) + 1
    for clone in range(40):
        fate = "Monocyte" if clone % 2 else "Neutrophil"
        for day, strength in (("4", 1.7), ("4", 1.7), ("6", 4.0), ("6", 4.0), ("6", 4.0)):
            rate = base.copy()
            rate[slice(0, 10) if clone % 2 else slice(10, 20)] *= strength
            counts.append(rng.poisson(rate))
            rows.append({"time": day, "clone": clone, "cell_type": "undiff" if day == "4" else fate})
    symbols = [str(symbol) for symbol in GeneTable.load().symbols[:N_GENES]]
    obs = pd.DataFrame(rows, index=[f"c{row}" for row in range(len(rows))])
    path = tmp_path_factory.mktemp("larry")
    anndata.AnnData(np.array(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=symbols)).write_h5ad(
        path / "larry_haematopoiesis.h5ad"
    )
    return path


@pytest.fixture(scope="module")
def tasks(folder):
    return tasks_of(folder, "4", "6")


def test_no_clone_is_both_learnt_from_and_foretold(tasks):
    held = [clone for task in tasks for clone in {task.clones[row] for row in task.held}]
    assert sorted(map(int, held)) == list(range(40))
    for task in tasks:
        known = {task.clones[row] for row in (*task.train, *task.pairs.earlier, *task.pairs.later)}
        assert not known & {task.clones[row] for row in task.held}


def test_further_ways_are_rows_beside_the_simple_ones(tasks):
    found = measure(
        tasks,
        {"unmoved counts": lambda task: task.counts[task.held]},
        {
            "knows": lambda task, classes: np.array(
                [[float((int(task.clones[r]) % 2 == 1) == (c == "Monocyte")) for c in classes] for r in task.held]
            )
        },
    )
    assert set(found["states"]) == {*STATES, "unmoved counts"}
    assert found["states"]["unmoved counts"] == found["states"]["no change"]
    assert found["states"]["population mean"]["rank"] < found["states"]["nearest neighbour's relative"]["rank"]
    assert found["states"]["later cells at random"]["energy"] < found["states"]["no change"]["energy"]
    assert set(found["fates"]) == {*FATES, "knows"}
    assert found["fates"]["knows"]["auroc"] == 1.0
    for way in ("logistic regression", "nearest cells"):
        assert found["fates"]["knows"]["log_loss"] < found["fates"][way]["log_loss"] < found["fates"]["shares"]["log_loss"]
    assert found["fates"]["shares"]["auroc"] == 0.5
    assert found["ceiling"]["relative_rank"] > 0.6
    json.dumps(found)


def test_undecided_and_rare_fates_are_counted_not_scored(tasks):
    task = tasks[0]
    later = [row for row, time in enumerate(task.times) if time == "6"][:12]
    undecided = [row for row, time in enumerate(task.times) if time == "4"][:2]
    followed = Followed(earlier=np.arange(14), later=np.array(later + undecided), weight=np.ones(14))
    fates, classes, left_out = fates_of(task, followed)
    assert classes == ["Monocyte", "Neutrophil"]
    assert (len(fates.label), left_out) == (12, 2)


def test_steps_and_columns_that_are_not_there_are_named(folder, tmp_path, tasks):
    with pytest.raises(PromptError, match="--only '4-8'"):
        next_state(data=folder, only=["4-8"], seed=0, say=print)
    anndata.AnnData(np.ones((3, 2)), var=pd.DataFrame(index=["GATA1", "CD19"])).write_h5ad(tmp_path / "larry_haematopoiesis.h5ad")
    with pytest.raises(CellDataError, match="no column 'time'"):
        tasks_of(tmp_path, "4", "6")
    with pytest.raises(CellDataError, match="foretold states of shape"):
        measure(tasks, {"short": lambda task: np.zeros((1, 1))}, {})
