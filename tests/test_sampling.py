"""Sampling: legal ids only, in the proportions of the softmax, each row's draws its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scmulan.decoding.sampling import Sampling, sample, uniform_draws
from scmulan.errors import PromptError


def logits_of(n_rows: int, n_ids: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    legal = torch.rand(n_rows, n_ids, generator=generator) < 0.5
    legal[:, seed % n_ids] = True
    return 3 * torch.randn(n_rows, n_ids, generator=generator), legal


def logs_of(logits: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(~legal, -torch.inf).log_softmax(1)


@given(
    seed=st.integers(0, 10_000),
    n_ids=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_p=st.sampled_from([0.01, 0.5, 1.0]),
    draw=st.floats(0, 1, exclude_max=True, width=32),
)
def test_only_legal_ids_are_drawn_at_any_setting(seed, n_ids, temperature, top_p, draw):
    logits, legal = logits_of(6, n_ids, seed)
    chosen = sample(logs_of(logits, legal), torch.full((6,), draw), Sampling(temperature=temperature, top_p=top_p))
    assert legal.gather(1, chosen[:, None]).all()


@pytest.mark.parametrize("draw", [0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
def test_the_ends_of_the_unit_interval_stay_legal(draw):
    logits, legal = torch.zeros(1, 8), torch.tensor([[False, False, True, True, True, False, False, False]])
    assert sample(logs_of(logits, legal), torch.tensor([draw]), Sampling()).item() == (2 if draw == 0 else 4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_over_legal_ids(temperature):
    n = 20_000
    logits, legal = torch.tensor([[1.0, 0.0, 9.0, -1.0, 2.0]]), torch.tensor([[True, True, False, True, True]])
    wanted = torch.softmax((logits / temperature).masked_fill(~legal, -torch.inf), 1)[0]
    uniform = uniform_draws(3, np.arange(n), 1)[:, 0]
    chosen = sample(logs_of(logits, legal).repeat(n, 1), uniform, Sampling(temperature=temperature))
    found = torch.bincount(chosen, minlength=5) / n
    torch.testing.assert_close(found, wanted, atol=4 * 0.5 / n**0.5, rtol=0)


def test_temperature_zero_takes_the_likeliest_legal_id():
    logits, legal = logits_of(50, 12, 4)
    chosen = sample(logs_of(logits, legal), torch.rand(50), Sampling(temperature=0))
    assert chosen.tolist() == logits.masked_fill(~legal, -torch.inf).argmax(1).tolist()


@pytest.mark.parametrize("setting", [{"temperature": 1e-7}, {"temperature": 1e-300}, {"top_p": 1e-300}])
def test_what_is_too_small_for_float32_takes_the_likeliest_legal_id(setting):
    logits, legal = logits_of(50, 12, 4)
    chosen = sample(logs_of(logits, legal), torch.rand(50), Sampling(**setting))
    assert chosen.tolist() == logits.masked_fill(~legal, -torch.inf).argmax(1).tolist()


def test_top_p_keeps_the_fewest_likeliest_ids_that_hold_that_share():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniform = uniform_draws(0, np.arange(4000), 1)[:, 0]

    def drawn(top_p: float) -> set[int]:
        rows = logits.repeat(4000, 1)
        return set(sample(rows, uniform, Sampling(top_p=top_p)).tolist())

    assert (drawn(0.4), drawn(0.6), drawn(0.9), drawn(1.0)) == ({0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3})


def test_a_row_draws_the_same_whatever_rows_and_steps_stand_beside_it():
    together = uniform_draws(7, np.array([3, 0, 9]), 20)
    assert torch.equal(uniform_draws(7, np.array([9]), 50)[0, :20], together[2])
    assert torch.equal(uniform_draws(7, np.array([0, 3]), 20), together[[1, 0]])


def test_rows_and_seeds_draw_apart():
    draws = torch.cat([uniform_draws(seed, np.arange(4), 50) for seed in (0, 1, -1)])
    assert len({tuple(row.tolist()) for row in draws}) == 12
    assert 0 <= draws.min() < draws.max() < 1
    assert abs(float(np.corrcoef(draws.numpy())[np.triu_indices(12, 1)].mean())) < 0.1


@pytest.mark.parametrize(
    ("setting", "says"),
    [({"temperature": -0.1}, "temperature -0.1: needed 0 or more"), ({"top_p": 0}, "top_p 0: needed"), ({"top_p": 1.5}, "at most 1")],
)
def test_an_impossible_setting_is_an_error(setting, says):
    with pytest.raises(PromptError, match=says):
        Sampling(**setting)
