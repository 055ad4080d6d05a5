"""Dropout put into stock models: in training alone, and without a trace in the weights."""

from __future__ import annotations

import pytest
import torch

from scmulan.model import new_model
from scmulan.training.dropout import add_dropout


@pytest.fixture
def lm(language):
    return new_model("tiny", language.vocabulary, context=64)


@torch.no_grad()
def test_it_works_in_training_mode_alone(lm):
    ids = torch.arange(1, 9)[None]
    before, names = lm.eval()(ids).logits, list(lm.state_dict())
    add_dropout(lm, 0.3)
    assert torch.equal(lm.eval()(ids).logits, before)
    assert list(lm.state_dict()) == names
    lm.train()
    first, second = lm(ids).logits, lm(ids).logits
    assert not torch.allclose(first, before)
    assert not torch.allclose(first, second)


@torch.no_grad()
def test_nothing_dropped_is_nothing_changed(lm):
    ids = torch.arange(1, 9)[None]
    before = lm.train()(ids).logits
    add_dropout(lm, 0.0)
    assert torch.equal(lm(ids).logits, before)


@torch.no_grad()
def test_the_share_is_dropped_and_the_rest_made_larger(lm):
    add_dropout(lm, 0.25)
    embedding = lm.train().get_input_embeddings()
    ids = torch.full((2000,), 5)
    ratio = embedding(ids) / embedding.weight[5]
    assert float((ratio == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(ratio[ratio != 0], torch.full_like(ratio[ratio != 0], 1 / 0.75))
