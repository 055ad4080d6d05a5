"""Packed attention: sentences in one pack are as if each were alone, in value and in gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grammar import vocabulary_of
from torch.nn.functional import scaled_dot_product_attention

from scmulan.model import Preset, new_model
from scmulan.training import attention
from scmulan.training.attention import packed_attention

LENGTHS = (5, 1, 17, 8)
BOUNDS = torch.tensor([0, *np.cumsum(LENGTHS)])


def made(n_heads: int, n_kv_heads: int, n_tokens: int = sum(LENGTHS), dim: int = 8):
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, n_heads, n_tokens, dim), (1, n_kv_heads, n_tokens, dim), (1, n_kv_heads, n_tokens, dim))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def one_by_one(query, key, value, scale=None):
    """Each sentence alone, by the plain function."""
    outputs = []
    for first, last in zip(BOUNDS[:-1].tolist(), BOUNDS[1:].tolist(), strict=True):
        parts = (part[:, :, first:last] for part in (query, key, value))
        outputs.append(scaled_dot_product_attention(*parts, is_causal=True, scale=scale, enable_gqa=True))
    return torch.cat(outputs, dim=2).transpose(1, 2)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("scale", [None, 0.2])
def test_packed_sentences_equal_sentences_one_by_one_forward_and_gradient(n_heads, n_kv_heads, scale):
    packed, alone = made(n_heads, n_kv_heads), made(n_heads, n_kv_heads)
    found, nothing = packed_attention(torch.nn.Identity(), *packed, None, scaling=scale, bounds=BOUNDS)
    expected = one_by_one(*alone, scale=scale)
    assert nothing is None
    assert found.shape == (1, sum(LENGTHS), n_heads, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((found * direction).sum(), packed), torch.autograd.grad((expected * direction).sum(), alone)
    for of_packed, of_alone in zip(*gradients, strict=True):
        torch.testing.assert_close(of_packed, of_alone, rtol=1e-5, atol=1e-5)


def test_a_sentence_does_not_see_its_neighbours_nor_what_comes_later():
    query, key, value = made(2, 2)
    output, _ = packed_attention(torch.nn.Identity(), query, key, value, None, bounds=BOUNDS)
    reaches = torch.zeros(sum(LENGTHS), sum(LENGTHS), dtype=torch.bool)
    for token in range(sum(LENGTHS)):
        (slope,) = torch.autograd.grad(output[0, token].sum(), value, retain_graph=True)
        reaches[token] = (slope[0] != 0).any(0).any(-1)
    allowed = torch.block_diag(*(torch.ones(length, length) for length in LENGTHS)).tril().bool()
    assert (reaches == allowed).all()


def test_what_stands_after_the_last_bound_is_left_at_zero():
    query, key, value = made(2, 2, sum(LENGTHS) + 6)
    output, _ = packed_attention(torch.nn.Identity(), query, key, value, None, bounds=BOUNDS)
    assert (output[:, sum(LENGTHS) :] == 0).all()
    assert (output[:, : sum(LENGTHS)] != 0).all()


def test_the_operator_keeps_the_contract_of_torch():
    """Fake shapes, autograd registration and the absence of hidden mutation, as torch.compile relies on."""
    query, key, value = made(2, 2)
    torch.library.opcheck(torch.ops.scmulan.packed_attention, (query, key, value, BOUNDS, 0.3))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_model_gives_a_pack_the_states_that_it_gives_its_sentences_alone(kv_heads):
    v = vocabulary_of(40)
    preset = Preset(hidden=32, layers=2, heads=4, kv_heads=kv_heads, intermediate=48, head_dim=8)
    model = new_model(preset, v, context=64).eval()
    ids = torch.randint(0, v.size, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        alone = torch.cat([model.model(input_ids=piece).last_hidden_state for piece in ids.split(LENGTHS, dim=1)], dim=1)
        attention.register()
        attention.register()
        model.set_attn_implementation(attention.PACKED)
        positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
        packed = model.model(input_ids=ids, position_ids=positions, bounds=BOUNDS, use_cache=False).last_hidden_state
        joined = model.model(
            input_ids=ids, position_ids=positions, bounds=torch.tensor([0, sum(LENGTHS)]), use_cache=False
        ).last_hidden_state
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(joined, alone, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_packed_sentences_equal_sentences_one_by_one():
    packed, alone = ([part.detach().cuda().bfloat16().requires_grad_() for part in made(4, 4, dim=32)] for _ in range(2))
    found, _ = packed_attention(torch.nn.Identity(), *packed, None, bounds=BOUNDS)
    expected = one_by_one(*alone)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    gradients = torch.autograd.grad(found.sum(), packed), torch.autograd.grad(expected.sum(), alone)
    for of_packed, of_alone in zip(*gradients, strict=True):
        torch.testing.assert_close(of_packed, of_alone, rtol=5e-2, atol=5e-2)
