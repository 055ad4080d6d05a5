"""The trials of how to write a cell: layouts that lose nothing, grammars that hold them, and one loss with the shipped one."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from conftest import random_counts

from scmulan import csentence
from scmulan.automaton import legal_targets
from scmulan.errors import PromptError
from scmulan.training.loss import plan_chunks
from scmulan.training.packed import PackInputs, shipped_loss
from scmulan.trials import LAYOUTS, TRIALS, TrialWriter, lay_out, legal_rows, loss_over_rows, orders_within_levels, run_trials

WIDTH = 16


@pytest.fixture(scope="module")
def cells(language):
    return csentence.encode(random_counts(6, seed=2), language.vocabulary)


def packed(language, cells, layout):
    """Sentences of both tasks laid end to end; ids and what is learnt."""
    writer = TrialWriter(language.tokenizer, language.vocabulary, language.prompts, layout=layout)
    fields = {"organ": "blood", "lineage": "lymphoid", "cell_type": "B cell"}
    rng, tasks = np.random.default_rng(0), list(writer.prompts.tasks.values())
    written = [writer.training_sentence(tasks[row % 2], fields, cells[row], rng) for row in range(len(cells))]
    ids = np.concatenate([sentence.ids for sentence in written] + [np.zeros(9, np.int64)])
    return ids, np.concatenate([sentence.parts for sentence in written] + [np.zeros(9, np.uint8)]) > 0


def pairs_of(ids, v):
    """The (gene, level) pairs of a laid-out cell, whichever of the two comes first."""
    body, level, found = ids[2:-1].tolist(), None, set()
    in_pairs = bool(body) and body[0] >= v.first_gene
    for place, number in enumerate(body):
        if number >= v.first_gene:
            found.add((number, body[place + 1] if in_pairs else level))
        else:
            level = number
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_keeps_every_gene_and_its_level(language, cells, layout):
    for row in range(len(cells)):
        laid = lay_out(cells[row], layout, language.vocabulary, np.random.default_rng(row))
        assert pairs_of(laid, language.vocabulary) == pairs_of(cells[row], language.vocabulary)


def test_the_layout_of_levels_is_the_c_sentence(language, cells):
    for row in range(len(cells)):
        assert np.array_equal(lay_out(cells[row], "levels", language.vocabulary, np.random.default_rng(0)), cells[row])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_layout_writes_is_legal_in_it(language, cells, layout):
    ids, is_learnt = packed(language, cells, layout)
    at = np.flatnonzero(is_learnt[1:])
    legal, in_cell = legal_rows(ids, at, layout, language.vocabulary)
    assert legal[np.arange(len(at)), ids[at + 1]].all()
    assert 0 < in_cell.sum() < len(in_cell)


@pytest.mark.parametrize("layout", ["levels", "shuffled"])
def test_a_gene_named_before_is_illegal(language, cells, layout):
    ids, _ = packed(language, cells, layout)
    v = language.vocabulary
    first = int(np.flatnonzero(ids == v.cell)[0])
    last = int(np.flatnonzero(ids == v.end_of_cell)[0]) - 1
    legal, _ = legal_rows(ids, np.array([last]), layout, v)
    named = ids[first + 2 : last + 1]
    assert not legal[0, named[named >= v.first_gene]].any()


def inputs_of(ids, is_learnt, weights, vocabulary) -> PackInputs:
    chunks = plan_chunks(legal_targets(ids, is_learnt, vocabulary), vocabulary)
    return PackInputs(ids, np.arange(len(ids)), [0, len(ids)], np.append(is_learnt[1:], 0).astype(int), weights, is_learnt, chunks)


def test_hazards_over_whole_rows_are_the_shipped_loss(language, cells):
    ids, is_learnt = packed(language, cells, "levels")
    torch.manual_seed(0)
    hidden = torch.randn(len(ids), WIDTH)
    output = torch.randn(language.vocabulary.size, WIDTH) * 0.5
    inputs = inputs_of(ids, is_learnt, torch.rand(len(ids)).numpy(), language.vocabulary)
    shipped = shipped_loss(hidden, output, inputs, language.vocabulary)
    plain = loss_over_rows(hidden, output, inputs, language.vocabulary, layout="levels", loss="hazards")
    torch.testing.assert_close(shipped[0], plain[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(shipped[1], plain[1], rtol=1e-4, atol=1e-4)


def test_fewer_ids_to_choose_from_cost_fewer_nats(language, cells):
    ids, is_learnt = packed(language, cells, "levels")
    hidden, output = torch.zeros(len(ids), WIDTH), torch.zeros(language.vocabulary.size, WIDTH)
    inputs = inputs_of(ids, is_learnt, np.ones(len(ids), np.float32), language.vocabulary)
    cost = partial(loss_over_rows, hidden, output, inputs, language.vocabulary, layout="levels")
    assert cost(loss="legal")[0] < cost(loss="all")[0]


def test_orders_within_levels_counts_the_orders(language):
    counts = random_counts(1, 4, seed=0)
    counts.data[:] = 1
    ids = csentence.encode(counts, _four_genes(language))
    assert orders_within_levels(ids[0], language.vocabulary) == pytest.approx(np.log(np.prod(np.arange(1, counts.nnz + 1))))


def _four_genes(language):
    from dataclasses import replace

    return replace(language.vocabulary, genes=language.vocabulary.genes[:4])


def test_an_unknown_trial_names_the_nearest():
    with pytest.raises(PromptError, match="gene-value pairs, hazards"):
        run_trials(["gene value pairs, hazards"])


@pytest.mark.slow
def test_a_trial_runs_from_corpus_to_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("scmulan.trials.PLAN", {"path": "embedded:pollen_cortex.h5ad", "split": {"by": "column"}})
    name = "gene-value pairs, hazards"
    found = run_trials([name], steps=2, preset="tiny", folder=tmp_path, say=lambda line: None)[name]
    assert found["nats_per_cell"] > 0
    assert 0 <= found["accuracy"] <= 1
    assert TRIALS[name].layout == "pairs"
