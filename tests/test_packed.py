"""A pack and its loss as one module: what precision the loss is computed in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scmulan.corpus.pack import Packing, epoch_packs
from scmulan.corpus.shards import Corpus
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary
from scmulan.training.held_out import Data
from scmulan.training.packed import PackInputs, shipped_loss


@pytest.fixture(scope="module")
def opened(trained) -> tuple[PackInputs, SentenceWriter]:
    """One pack of training cells, every part of weight 1."""
    writer = SentenceWriter(load_tokenizer(trained.tokenizer), load_vocabulary(trained.tokenizer), load_prompts())
    data = Data.open(Corpus(trained.corpus), "train", writer)
    packs = epoch_packs(data.rows, data.counts, writer, Packing(context=192, pack_tokens=512), seed=0, epoch=0)
    weights = np.ones(len(writer.prompts.parts), dtype=np.float32)
    return PackInputs.of(packs, 0, weights, writer.vocabulary), writer


def test_the_loss_is_in_float32_on_a_processor_whatever_the_layers_are_in(opened):
    inputs, writer = opened
    torch.manual_seed(0)
    hidden, output = torch.randn(len(inputs.ids), 16), torch.randn(writer.vocabulary.size, 16)
    found = []
    for is_bf16 in (True, False):
        hidden_TD, output_VD = hidden.clone().requires_grad_(), output.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss, nats_T = shipped_loss(hidden_TD, output_VD, inputs, writer.vocabulary)
        loss.backward()
        found.append((loss.detach(), nats_T, hidden_TD.grad, output_VD.grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
