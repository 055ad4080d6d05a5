"""Screens of genes toward a goal."""

from __future__ import annotations

import numpy as np
import pytest

from scmulan import tasks_screen
from scmulan.errors import PromptError

GOAL, START = {"cell_type": "natural killer cell"}, {"cell_type": "B cell"}


@pytest.fixture
def blood(new_cells):
    """B cells and natural killer cells, which are of one organ."""
    return new_cells[new_cells.obs["cell_type"] != "classical monocyte"].copy()


@pytest.mark.parametrize("action", ["raise", "delete", 7])
def test_a_screen_is_the_same_as_editing_one_by_one(model, blood, action):
    table = model.screen(blood, GOAL, start=START, genes=["NKG7", "CD79A", "ACTB"], action=action, controls=0)
    cells = blood[blood.obs["cell_type"] == "B cell"].copy()
    for gene in table.index:
        found = model.edit(cells, {gene: action})
        odds = [np.log(said["natural killer cell"]) - np.log(said["B cell"]) for said in (found.before, found.after)]
        shift = (odds[1] - odds[0])[found.cells["changed"].to_numpy()]
        np.testing.assert_allclose(table.loc[gene, "shift"], shift.mean(), atol=1e-4)
        assert table.loc[gene, "cells"] == len(shift)


def test_embedding_shifts_are_those_of_edited_cells_along_the_line_of_both_middles(model, blood):
    table = model.screen(blood, GOAL, start=START, genes=["NKG7", "CD79A"], by="embedding", controls=0)
    states = model.embed(blood.copy())
    types = blood.obs["cell_type"].astype(str).to_numpy()
    line = states[types == GOAL["cell_type"]].mean(0) - states[types == START["cell_type"]].mean(0)
    cells = blood[types == START["cell_type"]].copy()
    for gene in table.index:
        moved = model.edit(cells, {gene: "raise"}).embeddings - states[types == START["cell_type"]]
        np.testing.assert_allclose(table.loc[gene, "shift"], (moved @ line / np.linalg.norm(line)).mean(), rtol=1e-3, atol=1e-3)


def test_the_middles_are_those_of_cells_that_are_measured_and_not_of_edits(model, blood):
    with pytest.raises(PromptError, match="by='embedding': no cell is of the goal"):
        model.screen(blood[blood.obs["cell_type"] == "B cell"].copy(), GOAL, start=START, by="embedding")


def test_a_pair_is_both_genes_and_what_goes_beyond_them_is_said(model, blood):
    table = model.screen(blood, GOAL, start=START, genes=["NKG7", "GNLY", "CD79A"], pairs=True, controls=0)
    alone = model.screen(blood, GOAL, start=START, genes=["NKG7", "GNLY", "CD79A"], controls=0)["shift"]
    assert sorted(table.index) == sorted(["NKG7 + GNLY", "NKG7 + CD79A", "GNLY + CD79A"])
    pair = table.loc["NKG7 + GNLY"]
    np.testing.assert_allclose(pair["beyond_sum"], pair["shift"] - alone["NKG7"] - alone["GNLY"], atol=1e-4)
    cells = blood[blood.obs["cell_type"] == "B cell"].copy()
    found = model.edit(cells, {"NKG7": "raise", "GNLY": "raise"})
    odds = [np.log(said["natural killer cell"] / said["B cell"]) for said in (found.before, found.after)]
    np.testing.assert_allclose(pair["shift"], (odds[1] - odds[0]).mean(), atol=1e-4)


def test_every_gene_of_the_cells_is_screened_and_ranked_with_a_null(model, blood):
    told: list[int] = []
    table = model.screen(blood, GOAL, start=START, on_variant=told.append)
    ready = model.read(blood)
    assert len(table) == int((np.asarray(ready.counts.sum(0)).ravel() > 0).sum())
    assert (np.diff(table["shift"].dropna()) <= 0).all()
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table[["z", "p", "q"]].notna().all(axis=None)
    assert table["p"].between(0, 1).all()
    assert sum(told) == len(table) * table.attrs["cells"]
    assert "not an intervention" in table.attrs["means"]


def test_controls_are_other_genes_and_are_not_in_the_table(model, blood):
    asked = tasks_screen.ask(model.answers, blood, GOAL, START, ["NKG7", "CD79A"], False, 50, 20, 0)
    assert len(asked.sets) == 22
    assert len(set(asked.sets)) == 22
    table = model.screen(blood, GOAL, start=START, genes=["NKG7", "CD79A"], controls=20)
    assert set(table.index) == {"NKG7", "CD79A"}
    assert table["z"].notna().all()


def test_controls_are_detected_about_as_often(model, blood):
    asked = tasks_screen.ask(model.answers, blood, GOAL, START, ["GATA1"], False, 50, 10, 0)
    wanted, *others = (asked.detection[columns[0]] for columns in asked.sets)
    rest = asked.detection[asked.detection > 0]
    assert np.abs(np.array(others) - wanted).mean() <= np.abs(rest - wanted).mean()


def test_the_slope_is_of_all_genes_at_once_and_is_only_of_those_put_in(model, blood):
    table = model.screen(blood, GOAL, start=START, by="gradient")
    assert table["shift"].notna().all()
    assert len(table) > 40
    with pytest.raises(PromptError, match="gradient' says nothing of genes to delete"):
        model.screen(blood, GOAL, start=START, by="gradient", action="delete")


def test_the_same_seed_screens_the_same_cells(model, blood):
    one, other = (model.screen(blood, GOAL, genes=["NKG7"], most_cells=3, controls=5, seed=4) for _ in range(2))
    assert one.equals(other)
    assert one.attrs["cells"] == 3


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"goal": {"cell_type": "podocyte"}}, "goal cell_type 'podocyte': none of the labels"),
        ({"start": {"cell_type": "natural killer cell"}}, "both goal and start"),
        ({"by": "oddds"}, "by 'oddds': needed one of odds, embedding, gradient; nearest: 'odds'"),
        ({"action": "rise"}, "action 'rise': needed delete, lower, raise or a whole count; nearest: 'raise'"),
        ({"pairs": True}, "pairs: needed genes, from 2 to"),
        ({"genes": []}, "no gene given"),
        ({"genes": ["KRT5"]}, "'KRT5' was not measured"),
    ],
)
def test_screens_that_can_not_be_are_refused(model, blood, how, said):
    with pytest.raises(PromptError, match=said):
        model.screen(blood, **{"goal": GOAL, "start": START, **how})


def test_cells_of_several_organs_are_refused_and_a_start_that_no_cell_has(model, new_cells, blood):
    with pytest.raises(PromptError, match="several organisms or organs"):
        model.screen(new_cells, GOAL)
    with pytest.raises(PromptError, match="start 'B cell': no cell has such a cell_type; the cells are 'natural killer cell'"):
        model.screen(blood[blood.obs["cell_type"] != "B cell"].copy(), GOAL, start=START)
