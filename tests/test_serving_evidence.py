"""Genes that speak for and against the commonest cell type, told in a chat without being asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import kind_cells

from scmulan.serving.chat import Asked, Chat
from scmulan.tasks_carrying import FEW

ANNOTATE = {"task": "annotate"}


@pytest.fixture
def cells():
    cells = kind_cells(("B cell", "natural killer cell", "B cell"), 30, seed=8)
    cells.obs["leiden"] = np.where(cells.obs["cell_type"] == "B cell", "0", "1")
    return cells


def answered(model, cells, *requests):
    return Chat().answer(model, Asked(questions=[""], requests=requests, cells=cells))


def test_an_annotation_is_answered_with_the_genes_for_and_against_it(model, cells):
    answer = answered(model, cells, ANNOTATE)
    annotated, found = answer.answer.results
    label = annotated.value.idxmax(axis=1).value_counts().index[0]
    assert (found.request.task, found.request.fields, found.is_done) == ("speaks_for", {"cell_type": label}, True)
    assert found.request.against != label
    assert f"What tells {label} from {found.request.against}" in answer.text
    assert f"mean over {FEW} cells" in answer.text
    assert answer.answer.request == answer.answer.request[:1]  # what was asked stays what was asked
    told = [fact["nats"] for fact in found.facts if "gene" in fact]
    assert max(told) > 0
    assert {fact["gene"] for fact in found.facts if fact.get("nats", 0) > 0} & set(found.value.head(5).index)


def test_it_is_plain_data_with_a_plot_and_its_request_can_be_given_back(model, cells, tmp_path):
    answer = answered(model, cells, ANNOTATE)
    answer.write(tmp_path)
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept == json.loads(json.dumps(answer.to_dict()))
    plot = next(plot for plot in kept["plots"] if plot["of"] == "speaks_for")
    assert (plot["by"], plot["value"]) == ("gene", "nats")
    again = answered(model, cells, kept["results"][1]["request"])
    best = plot["labels"][0]
    assert best in again.text
    assert len(again.answer.results) == 1


def test_a_group_is_told_by_its_own_cells(model, cells):
    answer = answered(model, cells, {**ANNOTATE, "cluster": "1"})
    annotated, found = answer.answer.results
    assert found.request.cluster == "1"
    assert list(found.request.fields.values()) == [annotated.value.idxmax(axis=1).value_counts().index[0]]


@pytest.mark.parametrize(
    "requests",
    [
        [{"task": "locate"}],
        [{**ANNOTATE, "asked": ["lineage"]}],
        [{**ANNOTATE, "among": ["B cell"]}],
        [ANNOTATE, {"task": "speaks_for", "cell_type": "B cell", "against": "natural killer cell"}],
    ],
)
def test_nothing_is_added_where_no_types_were_asked_for_or_their_genes_were(model, cells, requests):
    assert len(answered(model, cells, *requests).answer.results) == len(requests)
