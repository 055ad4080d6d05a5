"""The parts of the demonstration about cells that change, with a tiny model that has learnt a made-up screen, and their words."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import screen

from scmulan.demo import asking, changes, depths, edits, mapping, screens, states
from scmulan.demo.asking import Asked, Asking
from scmulan.demo.changes import Changes, Foretold
from scmulan.demo.depths import Depths
from scmulan.demo.edits import Edits
from scmulan.demo.mapping import Mapped
from scmulan.demo.stage import Sizes, Skipped, Stage, open_datasets
from scmulan.demo.states import States
from scmulan.report import Report

pytest.importorskip("matplotlib")
SMALL = Sizes(perturbed=12, groups=2, group_cells=5, followed=6, asked=6, taught=300, enhanced=6, enhance_draws=1)


@pytest.fixture(scope="module")
def stage(changed, tmp_path_factory):
    """A screen of which a fifth is held out, with two fates that go by clone."""
    folder = tmp_path_factory.mktemp("screen")
    cells = screen(600, 5)
    clone = np.arange(600) // 6
    cells.obs["split"] = np.where(clone % 5 == 4, "test", "train")
    cells.obs["guide"] = [f"{label}_{row % 2}" for row, label in enumerate(cells.obs["perturbation"])]
    late = (cells.obs["time"] == "D4").to_numpy()
    cells.obs.loc[late, "cell_type"] = np.where(clone[late] % 2, "plasma cell", "memory B cell")
    cells.write_h5ad(folder / "screen.h5ad")
    said: list[str] = []
    datasets = open_datasets([folder / "screen.h5ad"], SMALL, 0, said.append)
    return Stage(
        model=changed, datasets=datasets, output=folder, report=Report("demo"), seed=0, sizes=SMALL, say=said.append
    )  # fmt: skip


@pytest.fixture(scope="module")
def perturbed(stage):
    return changes.run(stage)


@pytest.fixture(scope="module")
def later(stage):
    return states.run(stage)


def test_the_held_out_cells_are_foretold_beside_the_means_of_training_cells(stage, perturbed):
    assert {each.perturbation for each in perturbed.foretold} == {"interferon beta", "CD19 knockout"}
    assert perturbed.foretold[0].significant >= perturbed.foretold[1].significant
    for each in perturbed.foretold:
        assert set(each.pearson) == {"scmulan", "mean of its training cells", "mean shift of the others", "no change"}
        assert each.pearson["mean of its training cells"] > 0.6
        assert each.pearson["no change"] is None
        assert each.n_held == 40
    assert (stage.output / "volcano_2.png").is_file()
    json.dumps(dataclasses.asdict(perturbed), allow_nan=False)


def test_a_perturbation_is_told_from_groups_of_held_out_cells_beside_look_up_and_chance(perturbed):
    told = perturbed.told
    assert (told.n_groups, told.n_candidates) == (2, 2)
    assert told.first["correlation look-up"] == 1
    assert told.first["chance"] == 0.5
    assert set(told.answers) == {"CD19 knockout", "interferon beta"}


def test_no_control_cell_of_the_truth_is_written_from(stage):
    found = screens.open_screen(stage, screens.find(stage.datasets))
    assert not set(found.control_train) & set(found.control_true)
    assert not found.whole.is_held[found.control_train].any()
    assert all(found.whole.is_held[rows].all() for rows in found.held.values())


def test_the_answer_does_not_stand_in_the_question(stage):
    whole = stage.whole(stage.datasets[0])
    asked = whole.take(np.arange(5), without=screens.HIDDEN)
    assert not {"perturbation", "guide"} & set(asked.obs)
    about = asking.cells_about(stage, "controls")
    assert about.n_obs == 6
    assert not {"perturbation", "guide"} & set(about.obs)
    assert "cell_type" not in asking.cells_about(stage, "clones").obs


def test_fates_of_held_out_clones_stand_beside_regression_and_shares(stage, later):
    assert (later.earlier, later.later) == ("day 2", "day 4")
    assert later.classes == ["memory B cell", "plasma cell"]
    assert set(later.fates) == {"scmulan", "logistic regression", "training shares"}
    assert later.fates["training shares"]["AUROC"] == 0.5
    assert set(later.states) == {"scmulan", "no change", "later cells at random", "nearest cell's relative"}
    assert later.n_states == 6
    assert (stage.output / "fates.png").is_file()
    json.dumps(dataclasses.asdict(later), allow_nan=False)


def test_no_clone_is_both_learnt_from_and_asked_about(stage):
    found = states.find(stage)[1]
    train, held = ({found.clones[row] for row in pairs.earlier} for pairs in (found.train, found.held))
    assert train
    assert held
    assert not train & held


def test_shallow_cells_are_brought_back_beside_simple_ways(stage):
    found = depths.run(stage)
    assert set(found.ways) == {"scmulan", "left alone", "nearest full cells", "seen, and the type's posterior"}
    assert found.ways["left alone"]["genes taken away"] == 0.5
    assert found.counts["thinned"] < 0.35 * found.counts["full"]
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_parts_without_their_cells_are_left_out(stage, model):
    bare = dataclasses.replace(stage.datasets[0], held=dataclasses.replace(stage.datasets[0].held, fields={}))
    assert screens.find([bare]) is None
    assert states.find(dataclasses.replace(stage, datasets=[bare])) is None
    other = dataclasses.replace(stage, model=SimpleNamespace(seen=SimpleNamespace(values=lambda name: ["IRF1 knockout"])))
    assert screens.open_screen(other, stage.datasets[0]) is None
    alone = dataclasses.replace(stage, report=Report("other"), model=model)
    assert isinstance(edits.run(alone), Skipped)
    assert isinstance(asking.run(alone), Skipped)


WORSE, BETTER = 0.1, 0.9


def _changes(ours: float, theirs: float) -> Changes:
    mean = {"scmulan": ours, "mean of its training cells": theirs, "mean shift of the others": theirs, "no change": None}
    one = Foretold(
        perturbation="IRF1 knockout", n_train=9, n_held=9, significant=1, pearson=mean, pearson_top=mean, rmse={}, changed={}, true={}
    )
    return Changes(dataset="d", n_written=1, n_control=1, foretold=[one], mean=mean, told=None)


def _states(ours: float, theirs: float) -> States:
    fates = {
        who: {"log loss": 1 - value, "accuracy": value, "AUROC": value}
        for who, value in (("scmulan", ours), ("logistic regression", theirs), ("training shares", theirs))
    }
    of = {who: {"energy": 1 - value, "error": 1.0, "rank": value} for who, value in (("scmulan", ours), ("no change", theirs))}
    of["later cells at random"] = of["no change"]
    return States(dataset="d", earlier="day 2", later="day 4", n_clones=1, n_fates=1, n_train=1, classes=["a", "b"], fates=fates,
                  n_states=1, states=of)  # fmt: skip


def _depths(ours: float, theirs: float) -> Depths:
    others = (depths.ALONE, depths.NEAREST, depths.POSTERIOR)
    ways = {
        who: {"correlation": value, "rank correlation": value, "genes taken away": value, "nats a removed molecule": 1 - value}
        for who, value in (("scmulan", ours), *((other, theirs) for other in others))
    }
    return Depths(dataset="d", n=1, share=0.25, draws=1, counts={"full": 4, "thinned": 1}, depth=4, ways=ways)


def _edits(ours: float, theirs: float) -> Edits:
    row = {"gene": "GATA1", "rank": 1, "shift": 1.0, "z": 1.0, "p": 0.5, "q": 0.5}
    beaten = {"scmulan": ours, "log fold change": theirs}
    return Edits(dataset="d", start="a", fate="b", n_cells=1, n_genes=9, drivers=[row], top=[row], share_beaten=beaten)


def _mapped(ours: float, theirs: float) -> Mapped:
    both = {"scmulan": ours, "PCA": theirs}
    return Mapped(dataset="d", n_reference=1, n=1, accuracy=both, macro_f1=both, unassigned=1, example_type="a", example=[])


def _asking(ours: float, theirs: float) -> Asking:
    right = {"scmulan": ours > theirs, "nearest phrasing": theirs > ours}
    one = Asked(question="?", about="", request=[], probability=0.5, text="No.", is_done=False, right=right)
    return Asking(asked=[one], left_out=[])


@pytest.mark.parametrize(
    ("part", "found"),
    [(changes, _changes), (states, _states), (depths, _depths), (edits, _edits), (mapping, _mapped), (asking, _asking)],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_model_behind_its_baseline_is_said_to_be(part, found):
    assert "worse than" in part.words(found(WORSE, BETTER))
    assert "better than" not in part.words(found(WORSE, BETTER))
    assert "better than" in part.words(found(BETTER, WORSE))
    assert "worse than" not in part.words(found(BETTER, WORSE))
