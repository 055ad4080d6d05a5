"""Causal attention over packed sentences that do not see each other.

Registered with transformers under the name ``scmulan_packed``, so any of its causal LMs can be trained on packs: give the
model ``bounds`` (the starts of the sentences and the end of the last) and position ids that begin again at each sentence.
One opaque operator, so that torch.compile does not compile again for every pack's bounds. On a CPU it goes through the sentences one
by one; on a GPU it is FlashAttention over sentences of different lengths (``torch.nn.attention.varlen``).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PACKED = "scmulan_packed"

Tensors = tuple[torch.Tensor, torch.Tensor]


def _spans(bounds: torch.Tensor) -> list[tuple[int, int]]:
    return list(pairwise(bounds.tolist()))


@torch.library.custom_op("scmulan::packed_attention", mutates_args=())
def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scale: float) -> Tensors:
    """Attention within each span; query, key, value (1, H, T, D). Returns the output and the logsumexp (1, H, T)."""
    output = torch.zeros_like(query, memory_format=torch.contiguous_format)
    logsumexp = torch.zeros(query.shape[:3], dtype=torch.float32, device=query.device)
    for first, last in _spans(bounds):
        parts = (part[:, :, first:last] for part in (query, key, value))
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*parts, 0.0, True, scale=scale)[:2]
        output[:, :, first:last], logsumexp[:, :, first:last] = out, total[:, :, : last - first]
    return output, logsumexp


@_attend.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scale: float) -> Tensors:
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    return output, torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)


@torch.library.custom_op("scmulan::packed_attention_backward", mutates_args=())
def _attend_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    logsumexp: torch.Tensor,
    bounds: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grads = tuple(torch.zeros_like(part, memory_format=torch.contiguous_format) for part in (query, key, value))
    for first, last in _spans(bounds):
        span = slice(first, last)
        inputs = [part[:, :, span] for part in (query, key, value)]
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad[:, :, span], *inputs, output[:, :, span], logsumexp[:, :, span], 0.0, True, scale=scale
        )
        for into, part in zip(grads, found, strict=True):
            into[:, :, span] = part
    return grads[0], grads[1], grads[2]


@_attend_backward.register_fake
def _(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    logsumexp: torch.Tensor,
    bounds: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    query, key, value = (torch.empty_like(part, memory_format=torch.contiguous_format) for part in (query, key, value))
    return query, key, value


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    query, key, value, bounds, scale = inputs
    ctx.save_for_backward(query, key, value, *output, bounds)
    ctx.scale = scale


def _backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    query, key, value, output, logsumexp, bounds = ctx.saved_tensors
    return (*_attend_backward(grad, query, key, value, output, logsumexp, bounds, ctx.scale), None, None)


_attend.register_autograd(_backward, setup_context=_setup)


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    bounds: torch.Tensor,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each span of ``bounds`` ((S + 1,) int32, on the query's device); B is 1. Returns (1, T, H, D)."""
    scale = scaling if scaling is not None else query_BHTD.shape[-1] ** -0.5
    if query_BHTD.device.type == "cuda":
        longest = int(getattr(module.config, "max_position_embeddings"))  # noqa: B009  (mypy takes the attribute for a module)
        return _varlen(query_BHTD, key_BHTD, value_BHTD, bounds, scale, longest), None
    groups = query_BHTD.shape[1] // key_BHTD.shape[1]
    if groups > 1:
        key_BHTD, value_BHTD = (part.repeat_interleave(groups, dim=1) for part in (key_BHTD, value_BHTD))
    output, _ = _attend(query_BHTD, key_BHTD.to(query_BHTD.dtype), value_BHTD.to(query_BHTD.dtype), bounds, scale)
    return output.transpose(1, 2).contiguous(), None


def _varlen(
    query_BHTD: torch.Tensor, key_BHTD: torch.Tensor, value_BHTD: torch.Tensor, bounds: torch.Tensor, scale: float, longest: int
) -> torch.Tensor:
    """The same on a GPU, in bf16; no span is longer than ``longest``. Returns (1, T, H, D)."""
    query, key, value = (part[0].transpose(0, 1).to(torch.bfloat16) for part in (query_BHTD, key_BHTD, value_BHTD))
    out: torch.Tensor = varlen_attn(  # type: ignore[assignment]
        query, key, value, bounds, bounds, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1]
    )
    return out[None].to(query_BHTD.dtype)


def register() -> None:
    """Make ``attn_implementation="scmulan_packed"`` known to transformers; doing it twice does no harm."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
