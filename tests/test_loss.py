"""The loss over legal ids: what the sampler's probabilities give, in value and in gradient, however it is chunked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_counts

from scmulan import csentence
from scmulan.automaton import CellAutomaton, legal_targets
from scmulan.csentence import N_DEPTHS, Vocabulary
from scmulan.hazard import OFFSET, next_log_probabilities
from scmulan.training.loss import CPU_CHUNKS, GPU_CHUNKS, ChunkSize, HazardChunk, legal_cross_entropy, plan_chunks

WIDTH = 16


@pytest.fixture(scope="module")
def sentences(language):
    """Some sentences of every task laid end to end, padding after them; ids and what is learnt."""
    cells = csentence.encode(random_counts(12, seed=4), language.vocabulary)
    fields = {"organ": "blood", "lineage": "lymphoid", "cell_type": "B cell", "organism": "Homo sapiens"}
    rng = np.random.default_rng(0)
    tasks = [task for task in map(language.prompts.task, language.prompts.built) if task.weight]
    asked = [tasks[row % len(tasks)] for row in range(len(cells))]
    written = [
        language.writer.training_sentence(task, fields, cells[row], rng, first=(cells[row - 1], fields) if task.first_cell else None)
        for row, task in enumerate(asked)
    ]
    ids = np.concatenate([sentence.ids for sentence in written] + [np.zeros(20, dtype=np.int64)])
    return ids, np.concatenate([sentence.parts for sentence in written] + [np.zeros(20, dtype=np.uint8)]) > 0


def plain_mask(ids: np.ndarray, is_learnt: np.ndarray, v: Vocabulary) -> torch.Tensor:
    """(T, V) bool: legal next ids of each learnt position, by the step automaton in cells and by the words of the grammar outside."""
    mask = torch.zeros(len(ids), v.size, dtype=torch.bool)
    automaton = None
    for at in range(len(ids) - 1):
        here, following = int(ids[at]), int(ids[at + 1])
        if here == v.cell:
            automaton = CellAutomaton(v)
            automaton.begin(1)
        elif automaton is not None:
            automaton.advance(torch.tensor([here]))
            automaton = None if bool(automaton.is_done[0]) else automaton
        if not is_learnt[at + 1]:
            continue
        if automaton is not None:
            mask[at] = automaton.legal()[0]
            continue
        mask[at, v.eos : v.first_depth] = True
        mask[at, v.first_gene : v.last_gene] = True
        is_word = v.text[0] <= following < v.text[1] or following >= v.first_gene
        if v.cell < here < v.text[0] and is_word:  # right after a field's token
            mask[at, : v.text[0]] = False
    return mask


def plain_loss(hidden_TD, weight_VD, weights_T, ids, mask_TV, v):
    """The same loss from whole rows of probabilities: the sampler's inside cells, a softmax outside."""
    learnt = mask_TV.any(1).nonzero().squeeze(1)
    logits, mask = (hidden_TD @ weight_VD.T)[learnt], mask_TV[learnt]
    inside = np.cumsum((ids == v.cell).astype(int) - np.r_[0, (ids == v.end_of_cell)[:-1]].astype(int))
    in_cell = torch.from_numpy((inside == 1) & (ids != v.end_of_cell))[learnt][:, None]
    logs = torch.where(in_cell, next_log_probabilities(logits, mask, v), logits.masked_fill(~mask, -torch.inf).log_softmax(1))
    nats_T = torch.zeros(len(ids)).index_put((learnt,), -logs[torch.arange(len(learnt)), torch.from_numpy(ids)[learnt + 1]])
    return (nats_T * weights_T).sum(), nats_T.detach()


def tensors(n_tokens: int, v: Vocabulary, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    hidden = (0.2 * torch.randn(n_tokens, WIDTH, generator=generator)).requires_grad_()
    weight = torch.randn(v.size, WIDTH, generator=generator, requires_grad=True)
    return hidden, weight, torch.rand(n_tokens, generator=generator)


def test_value_and_gradient_are_those_of_whole_rows_of_probabilities(language, sentences):
    v, (ids, is_learnt) = language.vocabulary, sentences
    hidden, weight, weights = tensors(len(ids), v)
    expected, expected_nats = plain_loss(hidden, weight, weights, ids, plain_mask(ids, is_learnt, v), v)
    expected_gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    loss, nats = legal_cross_entropy(hidden, weight, weights, plan_chunks(legal_targets(ids, is_learnt, v), v), v)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nats, expected_nats, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(torch.autograd.grad(3 * loss, (hidden, weight)), expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 100, 100_000])
def test_chunks_of_any_size_agree(language, sentences, chunk):
    v, (ids, is_learnt) = language.vocabulary, sentences
    hidden, weight, weights = tensors(len(ids), v, seed=1)
    legal = legal_targets(ids, is_learnt, v)
    results = []
    for size in (CPU_CHUNKS, GPU_CHUNKS, ChunkSize(chunk, CPU_CHUNKS.cost)):
        loss, nats = legal_cross_entropy(hidden, weight, weights, plan_chunks(legal, v, size), v)
        results.append((loss, nats, *torch.autograd.grad(loss, (hidden, weight))))
    for found, middle, wanted in zip(*results, strict=True):
        torch.testing.assert_close(middle, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_each_learnt_id_has_its_nats_and_no_other_position_any(language, sentences):
    v, (ids, is_learnt) = language.vocabulary, sentences
    hidden, weight, weights = tensors(len(ids), v)
    _, nats = legal_cross_entropy(hidden, weight, weights, plan_chunks(legal_targets(ids, is_learnt, v), v), v)
    assert torch.isfinite(nats).all()
    is_open = plain_mask(ids, is_learnt, v).sum(1) > 1  # after the last gene of the vocabulary at level 1 only </cell> may come: no nats
    assert (nats > 0).tolist() == is_open.tolist()
    assert is_open.sum() > 0.98 * is_learnt.sum()


def test_a_model_that_knows_nothing_takes_each_gene_with_the_same_small_chance(language):
    v = language.vocabulary
    ids = np.array([v.bos, v.cell, v.first_depth + 7, v.end_of_cell - 2, v.first_gene + 4, v.first_gene + 9, v.end_of_cell, v.eos])
    is_learnt = np.ones(len(ids), dtype=bool)
    _, nats = legal_cross_entropy(
        torch.zeros(len(ids), WIDTH), torch.zeros(v.size, WIDTH), torch.ones(len(ids)), plan_chunks(legal_targets(ids, is_learnt, v), v), v
    )
    taken = 1 / (1 + np.exp(OFFSET))
    some = 1 - (1 - taken) ** v.n_genes
    assert nats[3].item() == pytest.approx(-np.log(taken * (1 - taken) ** 4 / some), rel=1e-4)
    assert nats[4].item() == pytest.approx(-np.log(taken * (1 - taken) ** 4), rel=1e-4)
    assert nats[5].item() == pytest.approx(-np.log((1 - taken) ** (v.n_genes - 10) / 2), rel=1e-4)
    assert nats[1].item() == pytest.approx(np.log(N_DEPTHS), rel=1e-4)


def test_illegal_ids_get_no_gradient(language):
    """Raising the logit of a gene that may not come changes nothing: it is passed by for certain."""
    v = language.vocabulary
    ids = csentence.encode(random_counts(1, seed=9), v).values
    is_learnt = np.zeros(len(ids), dtype=bool)
    is_learnt[-1] = True  # only </cell>, after the last gene of the last level
    hidden, weight, weights = tensors(len(ids), v)
    loss, _ = legal_cross_entropy(hidden, weight, weights, plan_chunks(legal_targets(ids, is_learnt, v), v), v)
    loss.backward()
    legal = plain_mask(ids, is_learnt, v)[len(ids) - 2]
    assert (weight.grad[~legal] == 0).all()
    assert (weight.grad[v.first_gene : v.last_gene][legal[v.first_gene : v.last_gene]] != 0).any(1).all()
    assert (hidden.grad[:-2] == 0).all()


def test_a_weight_of_zero_takes_a_part_out_of_the_gradient_but_not_out_of_the_report(language, sentences):
    v, (ids, is_learnt) = language.vocabulary, sentences
    hidden, weight, _ = tensors(len(ids), v)
    chunks = plan_chunks(legal_targets(ids, is_learnt, v), v)
    loss, nats = legal_cross_entropy(hidden, weight, torch.zeros(len(ids)), chunks, v)
    loss.backward()
    assert loss.item() == 0
    assert (hidden.grad == 0).all()
    assert (weight.grad == 0).all()
    assert nats.sum() > 0


def test_an_empty_cell_is_learnt_without_an_infinite_loss(language):
    v = language.vocabulary
    task = language.prompts.task("generate")
    empty = csentence.encode(random_counts(1) * 0, v)[0]
    sentence = language.writer.training_sentence(task, {"organ": "blood"}, empty, np.random.default_rng(0))
    hidden, weight, weights = tensors(len(sentence.ids), v)
    loss, _ = legal_cross_entropy(hidden, weight, weights, plan_chunks(legal_targets(sentence.ids, sentence.parts > 0, v), v), v)
    assert torch.isfinite(loss)


def test_nothing_to_learn_is_a_loss_of_zero(language, sentences):
    v, (ids, _) = language.vocabulary, sentences
    hidden, weight, weights = tensors(len(ids), v)
    loss, nats = legal_cross_entropy(hidden, weight, weights, plan_chunks(legal_targets(ids, np.zeros(len(ids), dtype=bool), v), v), v)
    assert loss.item() == nats.sum().item() == 0


def test_products_in_bfloat16_stay_near_and_softmax_in_float32(language, sentences):
    v, (ids, is_learnt) = language.vocabulary, sentences
    hidden, weight, weights = tensors(len(ids), v)
    chunks = plan_chunks(legal_targets(ids, is_learnt, v), v)
    exact, _ = legal_cross_entropy(hidden, weight, weights, chunks, v)
    near, nats = legal_cross_entropy(hidden, weight, weights, chunks, v, torch.bfloat16)
    assert nats.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=5e-3)
    for found, wanted in zip(torch.autograd.grad(near, (hidden, weight)), torch.autograd.grad(exact, (hidden, weight)), strict=True):
        assert found.dtype == torch.float32
        assert float((found - wanted).norm() / wanted.norm()) < 0.03


def test_the_loss_needs_only_the_genes_that_are_passed_by(language, sentences):
    v, (ids, is_learnt) = language.vocabulary, sentences
    chunks = plan_chunks(legal_targets(ids, is_learnt, v), v, ChunkSize(4, CPU_CHUNKS.cost))
    needed = sum(len(chunk.at) * (chunk.last - chunk.first) for chunk in chunks if isinstance(chunk, HazardChunk))
    assert needed < 0.4 * v.n_genes * is_learnt.sum()
