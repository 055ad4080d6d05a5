"""Next-id probabilities inside a cell: genes are taken or passed by in id order, what passes all goes to levels and end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grammar import vocabulary_of
from hypothesis import given
from hypothesis import strategies as st

from scmulan.decoding.sampling import Sampling, sample
from scmulan.hazard import OFFSET, draw_coupled, draw_next, likely, next_log_probabilities

V = vocabulary_of(9)


def by_hand(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """The same, gene by gene."""
    chance, passed = np.zeros(V.size), 1.0
    for column in range(V.n_genes):
        token = V.first_gene + column
        if legal[token]:
            taken = 1 / (1 + np.exp(OFFSET - logits[token]))
            chance[token] = passed * taken
            passed *= 1 - taken
    others = np.flatnonzero(legal[: V.first_gene])
    if len(others):
        share = np.exp(logits[others] - logits[others].max())
        chance[others] = passed * share / share.sum()
    return chance / chance.sum()


@given(st.integers(0, 10_000))
def test_probabilities_are_those_of_going_through_the_genes_one_by_one(seed):
    rng = np.random.default_rng(seed)
    logits, legal = rng.normal(3, 3, (4, V.size)), rng.random((4, V.size)) < rng.choice([0.1, 0.5, 0.9])
    legal[:, V.last_gene :] = False
    legal[0, : V.first_gene] = False
    legal[1, V.first_gene :] = False
    legal[:, V.first_gene + seed % V.n_genes] |= ~legal.any(1)
    found = next_log_probabilities(torch.from_numpy(logits), torch.from_numpy(legal), V).exp().numpy()
    for row in range(4):
        np.testing.assert_allclose(found[row], by_hand(logits[row], legal[row]), rtol=1e-4, atol=1e-6)
    assert (found[~legal] == 0).all()


def test_far_genes_get_no_more_than_the_near_ones_leave():
    """However many genes follow, a gene that is sure to be taken leaves them nothing."""
    logits = torch.zeros(1, V.size)
    legal = torch.zeros(1, V.size, dtype=torch.bool)
    legal[:, V.first_gene : V.last_gene] = True
    logits[0, V.first_gene + 2] = OFFSET + 12
    found = next_log_probabilities(logits, legal, V).exp()[0]
    assert found[V.first_gene + 2] > 0.99
    assert found[V.first_gene + 3 :].sum() < 1e-4


@given(st.integers(0, 10_000))
def test_a_direct_draw_is_the_one_made_from_the_probabilities(seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(3, 3, (400, V.size)).astype(np.float32))
    legal = torch.from_numpy(rng.random((400, V.size)) < rng.choice([0.1, 0.5, 0.9]))
    legal[:, : V.first_depth] = legal[:, V.end_of_cell + 1 : V.first_gene] = legal[:, V.last_gene :] = False
    legal[:100, : V.first_gene] = False
    legal[100:200, V.first_gene :] = False
    legal[:, V.first_gene + seed % V.n_genes] |= ~legal.any(1)
    uniform = torch.from_numpy(rng.random(400, dtype=np.float32))
    uniform[0], uniform[1] = 0, float(np.nextafter(np.float32(1), np.float32(0)))
    drawn = draw_next(logits, legal, uniform, V)
    assert legal.gather(1, drawn[:, None]).all()
    assert (drawn == sample(next_log_probabilities(logits, legal, V), uniform, Sampling())).float().mean() > 0.99
    for least in (1e-4, 0.2, 0.999):
        assert draw_next(logits, legal, uniform, V, least).equal(draw_next(logits, likely(logits, legal, least, V), uniform, V))


def test_genes_of_less_than_the_least_hazard_are_left_out_unless_nothing_else_is_legal():
    logits = torch.full((2, V.size), OFFSET + np.log(0.01 / 0.99))
    logits[:, V.first_gene] = OFFSET + np.log(1e-6)
    legal = torch.zeros(2, V.size, dtype=torch.bool)
    legal[0, V.first_gene : V.first_gene + 3] = True
    legal[1, V.first_gene] = True
    assert likely(logits, legal, 1e-4, V).nonzero().tolist() == [[0, V.first_gene + 1], [0, V.first_gene + 2], [1, V.first_gene]]
    assert likely(logits, legal, 0.5, V).equal(legal)
    assert legal.sum() == 4, "the mask that was given is left as it was"


@pytest.mark.parametrize("must_take", [False, True])
def test_coupled_draws_have_the_probabilities_of_the_model(must_take):
    rng, n = np.random.default_rng(4), 40_000
    logits = torch.from_numpy(rng.normal(OFFSET - 1.5, 1, (1, V.size))).expand(n, -1)
    legal = torch.zeros(n, V.size, dtype=torch.bool)
    legal[:, V.first_gene + 2 : V.last_gene] = True
    legal[:, V.first_level : V.first_level + 3] = not must_take
    numbers = torch.from_numpy(rng.random((n, V.n_genes), dtype=np.float32))
    uniform, others = (torch.from_numpy(rng.random(n, dtype=np.float32)) for _ in range(2))
    drawn = draw_coupled(logits, legal, uniform, V, numbers, others)
    chance = next_log_probabilities(logits[:1], legal[:1], V).exp()[0].numpy()
    share = np.bincount(drawn.numpy(), minlength=V.size) / n
    np.testing.assert_allclose(share, chance, atol=5 * np.sqrt(0.25 / n))
    last = int(drawn.max()) - V.first_gene
    after = numbers[drawn == V.first_gene + 3][:, 4:] if last > 4 else numbers
    assert abs(float(after.mean()) - 0.5) < 0.02, "the numbers of genes that were not come to are uniform still"
