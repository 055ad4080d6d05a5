"""The sections about cells that change: each way on the same held-out cells, and a reason for whatever was not measured."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from conftest import screen

from scmulan.cells import read_cells
from scmulan.errors import CellDataError, PromptError
from scmulan.evaluate import Sizes, evaluate, evaluate_files, to_text, write
from scmulan.evaluate.cells import MODEL, gather, of_dataset
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.perturbation import FROM_REAL
from scmulan.evaluate.questions import NEAREST, Questions
from scmulan.measures.change_baselines import RULES
from scmulan.measures.questions import ShareRead
from scmulan.measures.recovery_ways import BY_TYPE, QUICK
from scmulan.measures.state_ways import STATES, TRANSPORT
from scmulan.questions import KINDS

pytestmark = pytest.mark.slow
FEW = Sizes(cells_per_perturbation=12, explained_cells=12, state_draws=2, depth_cells=12, depth_draws=2, mapped_cells=20, questions=4)
LABELS = ["CD19 knockout", "interferon beta"]


@pytest.fixture(scope="module")
def sides():
    return screen(120, 1), screen(150, 0)


@pytest.fixture(scope="module")
def found(changed, sides):
    return evaluate(changed, *sides, sections=["perturbation"], sizes=FEW)


def test_the_model_stands_beside_every_rule_on_the_same_perturbations(found):
    (screened,) = found.perturbation
    assert list(screened.ways) == [MODEL, FROM_REAL, *RULES, "training cells of the target"]
    assert list(screened.cells) == LABELS
    assert all(list(way.by_perturbation) == LABELS for way in screened.ways.values())
    assert screened.ways["training cells of the target"].energy < screened.ways["no change"].energy
    assert screened.ways["target mean"].pearson > screened.ways["mean shift"].pearson
    assert (screened.controls, screened.n_control, screened.n_control_train) == ("held-out cells", 40, 50)


def test_which_perturbation_it_was_is_asked_of_every_way_beside_chance(found):
    which = found.perturbation[0].which
    assert list(which) == ["1 cell", "10 cells", "all asked about, up to 12 cells"]
    for each in which.values():
        assert list(each.ways) == [MODEL, "correlation", "correlation, mean taken off", "logistic regression"]
        assert (each.n_candidates, each.chance_first, each.chance_five) == (2, 0.5, 1.0)
    assert which["10 cells"].ways["logistic regression"].first == 1.0


def test_the_figures_are_json_lines_and_a_section_of_the_page(found, tmp_path):
    pytest.importorskip("matplotlib")
    assert json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))["perturbation"][0]["cells"] == found.perturbation[0].cells
    text = to_text(found)
    assert all(name in text for name in (*RULES, "logistic regression", "chance"))
    page = write(found, tmp_path)["html"].read_text()
    assert "What a perturbation does" in page
    assert "What was not measured" not in page


def test_perturbations_that_can_not_be_measured_are_left_out_with_the_reason(changed, sides):
    held, train = sides[0].copy(), sides[1].copy()
    labels = held.obs["perturbation"].to_numpy().astype(object)
    labels[np.flatnonzero(labels == "IFN-beta")[:12]] = "GATA1 knockout"
    labels[np.flatnonzero(labels == "IFN-beta")[5:]] = "control"
    held.obs["perturbation"] = labels
    screened = evaluate(changed, held, train, sections=["perturbation"], sizes=FEW).perturbation[0]
    assert list(screened.cells) == ["CD19 knockout"]
    assert screened.left_out["GATA1 knockout"] == "not among the perturbations that the model has seen"
    assert screened.left_out["interferon beta"] == "5 held-out cells; needed 10"
    assert screened.ways[MODEL].rank is None  # one perturbation alone ranks nothing


def test_a_data_set_that_can_not_be_measured_is_told_beside_one_that_can(changed, sides):
    held, train = (side.copy() for side in sides)
    held.obs["dataset"] = np.where(np.arange(120) < 90, "large", "small")
    train.obs["dataset"] = np.where(np.arange(150) < 140, "large", "small")
    found = evaluate(changed, held, train, sections=["perturbation"], sizes=FEW)
    assert [each.dataset for each in found.perturbation] == ["large"]
    assert found.skipped == {"perturbation, small": "3 training and 10 held-out control cells; needed 10 of each"}


def test_where_no_control_is_held_out_truth_and_prediction_halve_those_of_training(changed, sides):
    held = sides[0][(sides[0].obs["perturbation"] != "control").to_numpy()].copy()
    screened = evaluate(changed, held, sides[1], sections=["perturbation"], sizes=FEW).perturbation[0]
    assert (screened.n_control, screened.n_control_train) == (25, 25)
    assert "half" in screened.controls


def test_what_these_cells_do_not_allow_is_skipped_and_says_why(model, trained):
    human = trained.plan.parent / "human.h5ad"
    found = evaluate_files(model, [human], [human], sections=["annotation"])
    assert found.skipped == {}
    with pytest.raises(PromptError, match="section perturbation can't be measured: no held-out cell is said to be perturbed"):
        evaluate_files(model, [human], [human], sections=["annotation", "perturbation"])


def test_a_model_that_has_not_learnt_a_task_is_not_measured_on_it(model, changed, sides):
    assert why_not_learnt(changed, "perturb") is None
    assert why_not_learnt(changed, "next_state") is None
    assert "paired along time" in why_not_learnt(model, "next_state")
    assert "without questions" in why_not_learnt(changed, "request")
    with pytest.raises(PromptError, match="has seen no perturbed cell"):
        evaluate(model, *sides, sections=["perturbation"])


def test_cells_of_which_nothing_can_be_measured_are_an_error(model, sides):
    held, train = (side.copy() for side in sides)
    for side in (held, train):
        side.obs = side.obs[["organism"]]
    with pytest.raises(CellDataError, match=r"none of 120 held-out cells can be measured on.*; .*share no gene"):
        evaluate(model, held[:, :30].copy(), train[:, 30:].copy())


def test_cells_of_a_data_set_stand_together_on_the_genes_that_they_have(sides):
    held, train = (gather(side, ("clone",)) for side in sides)
    both, n_train = of_dataset(train, held, "unnamed")
    assert (n_train, len(both.cells)) == (150, 270)
    assert both.column("clone") == [str(clone) for side in (sides[1], sides[0]) for clone in side.obs["clone"]]
    assert (np.asarray(both.cells.counts[:, both.cells.measured].sum(0)) > 0).all()


def test_training_cells_of_another_name_are_taken_for_those_of_the_data_set(sides):
    held, train = (gather(side) for side in sides)
    of_file = dataclasses.replace(train, cells=dataclasses.replace(train.cells, dataset=["train"] * 150))
    assert of_dataset(of_file, held, "unnamed")[1] == 150
    mixed = dataclasses.replace(train, cells=dataclasses.replace(train.cells, dataset=["unnamed"] * 50 + ["other"] * 100))
    assert of_dataset(mixed, held, "unnamed")[1] == 50


def test_columns_of_obs_are_read_from_files_and_none_where_a_source_has_none(sides, tmp_path):
    sides[0].write_h5ad(tmp_path / "held.h5ad")
    side = gather([tmp_path / "held.h5ad", read_cells(sides[1])], ("clone", "guide"))
    assert side.column("clone") == [*sides[0].obs["clone"], *[None] * 150]
    assert side.column("guide") == [None] * 270


@pytest.fixture(scope="module")
def steps(changed, sides):
    held, train = (side.copy() for side in sides)
    held.obs["clone"] = "held " + held.obs["clone"].astype(str)
    # relatives become plasma cells or stay B cells, clone by clone
    for side in (held, train):
        stays = side.obs["clone"].astype(str).str[-1].isin(list("02468")) & (side.obs["time"] == "D4")
        side.obs["cell_type"] = np.where(stays, "B cell", side.obs["cell_type"].astype(str))
    return evaluate(changed, held, train, sections=["states"], sizes=FEW)


def test_later_states_and_fates_stand_beside_the_simple_ways(steps):
    (step,) = steps.states
    assert (step.earlier, step.later, step.n_cells, step.n_clones, step.shared_clones) == ("day 2", "day 4", 60, 20, 0)
    simple = [name for name in STATES if name != TRANSPORT]
    assert list(step.states) == [MODEL, "scmulan, mean of 2 draws", *simple]
    assert step.fates == ["B cell", "plasma cell"]
    assert list(step.fate_ways) == [MODEL, "shares", "logistic regression", "nearest cells"]
    assert step.states["population mean"].rank == 0.5
    assert step.states["population mean"].error < step.states["later cells at random"].error
    assert "next state, population mean" in to_text(steps)


def test_clones_that_were_trained_on_are_counted(changed, sides):
    step = evaluate(changed, *sides, sections=["states"], sizes=FEW).states[0]
    assert step.shared_clones == step.n_clones
    assert step.left_out == {"fates": "the relatives of the held-out cells have 1 decided type of five cells or more; needed two"}
    assert step.fate_ways == {}


def test_states_need_clones_and_times_and_say_which_column_was_looked_for(changed, sides):
    with pytest.raises(PromptError, match="section states can't be measured: the held-out cells have no clones: no column 'barcode'"):
        evaluate(changed, *sides, sections=["states"], clone="barcode")
    held = sides[0].copy()
    held.obs["clone"] = [f"alone{row}" for row in range(held.n_obs)]
    with pytest.raises(PromptError, match="no clone is seen at both"):
        evaluate(changed, held, sides[1], sections=["states"])


@pytest.fixture(scope="module")
def deep(changed, sides):
    return evaluate(changed, *sides, sections=["depth", "mapping"], sizes=FEW)


def test_thinned_cells_are_brought_back_by_every_way(deep):
    found = deep.depth
    assert list(found.ways) == [MODEL, *QUICK]
    assert (found.share, found.draws) == (0.25, 2)
    assert found.n_cells == 12
    assert found.counts[1] / found.counts[0] == pytest.approx(0.25, abs=0.05)
    assert found.ways["left alone"].detection == pytest.approx(0.5)
    assert found.ways[MODEL].detection != 0.5
    assert "detection AUROC" in to_text(deep)


def test_cells_without_types_are_brought_back_by_the_ways_that_need_none(changed, sides):
    held, train = (side.copy() for side in sides)
    for side in (held, train):
        del side.obs["cell_type"]
    found = evaluate(changed, held, train, sections=["depth"], sizes=FEW)
    assert list(found.depth.ways) == [MODEL, *(name for name in QUICK if name not in BY_TYPE)]
    assert found.cells.types == {}


def test_labels_are_carried_over_in_the_embedding_and_in_components(deep):
    assert list(deep.mapping.ways) == [MODEL, "principal components"]
    assert {way.n for way in deep.mapping.ways.values()} == {deep.mapping.n}
    assert deep.mapping.n_reference == 150
    assert "mapping, " in to_text(deep)


def test_every_section_has_its_place_on_the_page(found, steps, deep, tmp_path):
    pytest.importorskip("matplotlib")
    kinds = {kind: {who: ShareRead(exact=0.5, tasks=0.6, refused_wrongly=None) for who in (MODEL, NEAREST)} for kind in KINDS}
    whole = dataclasses.replace(
        found, states=steps.states, depth=deep.depth, mapping=deep.mapping, questions=Questions(n=4, taught=9, kinds=kinds),
        skipped={"generation": "there was a reason"},
    )  # fmt: skip
    page = write(whole, tmp_path)["html"].read_text()
    titles = ("What cells become", "Shallow cells brought back", "Nearest cells lend", "How it reads questions", "What was not measured")
    assert all(title in page for title in (*titles, "there was a reason"))
    assert "generation was not measured: there was a reason" in to_text(whole)
    assert "questions, joined, read right: scmulan 0.500" in to_text(whole)
