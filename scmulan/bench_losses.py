"""What the loss over legal ids costs, beside losses that make the logits of every id: time, and memory as torch allocates it.

All are given the same hidden states and give the gradients of them and of the output matrix. ``whole_softmax`` holds the logits of a
whole pack, as a stock causal LM does; ``chunked_softmax`` those of some rows at a time, its gradients made in the forward pass.
Those two make their products in bfloat16 under autocast; the shipped loss on a GPU alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from scmulan.automaton import LegalTargets, legal_targets
from scmulan.csentence import N_DEPTHS, Vocabulary
from scmulan.training.packed import Loss, PackInputs, shipped_loss

ROWS = 1024
"""Rows that the chunked softmax over all ids makes at a time."""


def legal_mask(legal: LegalTargets, vocabulary: Vocabulary, device: torch.device) -> torch.Tensor:
    """Legal next ids of the depth, cell and word positions, in that order; (N, V) bool."""
    v = vocabulary
    n_depth, n_cell, n_word = len(legal.depth_at), len(legal.cell_at), len(legal.word_at)
    mask = torch.zeros(n_depth + n_cell + n_word, v.size, dtype=torch.bool, device=device)
    after_gene, after_level, word_only, named_of, named = (
        torch.from_numpy(np.asarray(part)).to(device)
        for part in (legal.after_gene, legal.after_level, legal.word_only, legal.named_of, legal.named)
    )
    cell, word = slice(n_depth, n_depth + n_cell), slice(n_depth + n_cell, None)
    mask[:n_depth, v.first_depth : v.first_depth + N_DEPTHS] = True
    mask[cell, v.first_gene : v.last_gene] = torch.arange(v.n_genes, device=device) > after_gene[:, None]
    mask[n_depth + named_of, v.first_gene + named] = False
    mask[cell, v.first_level : v.end_of_cell + 1] = torch.arange(v.first_level, v.end_of_cell + 1, device=device) > after_level[:, None]
    mask[cell, v.end_of_cell] &= after_level >= v.first_level  # right after a depth a level has to come
    mask[word, v.eos : v.text[0]] = ~word_only[:, None]
    mask[word, v.text[0] : v.first_depth] = True
    mask[word, v.first_gene : v.last_gene] = True
    return mask


def whole_softmax(
    hidden_TD: torch.Tensor, output_VD: torch.Tensor, inputs: PackInputs, vocabulary: Vocabulary, *, legal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """One softmax over all ids or the legal ones, the logits of the pack made at once; as ``scmulan.training.packed.Loss`` says."""
    targets = legal_targets(inputs.ids, inputs.is_learnt, vocabulary)
    at, target, weights = _learnt(targets, inputs, hidden_TD.device)
    logits = (hidden_TD[at] @ output_VD.T).float()
    if legal:
        logits = logits.masked_fill(~legal_mask(targets, vocabulary, hidden_TD.device), -torch.inf)
    nats = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (nats * weights).sum(), torch.zeros(len(hidden_TD), device=nats.device).index_copy(0, at, nats.detach())


def _learnt(legal: LegalTargets, inputs: PackInputs, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions whose next id is learnt, that id, and its weight."""
    at = np.concatenate([legal.depth_at, legal.cell_at, legal.word_at])
    target, weights = inputs.ids[at + 1], inputs.weights[at]
    return torch.from_numpy(at).to(device), torch.from_numpy(target).to(device), torch.from_numpy(weights).to(device)


class _ChunkedSoftmax(torch.autograd.Function):
    """Weighted sum of -log p(next id) over all ids, ``ROWS`` rows at a time."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: torch.Tensor, output_VD: torch.Tensor, at: torch.Tensor, target: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        grad_hidden = torch.zeros_like(hidden_TD, dtype=torch.float32)
        grad_output = torch.zeros_like(output_VD, dtype=torch.float32)
        is_bf16 = torch.is_autocast_enabled(hidden_TD.device.type)
        hidden, output = (part.detach().to(torch.bfloat16 if is_bf16 else torch.float32) for part in (hidden_TD, output_VD))
        total = torch.zeros((), device=hidden.device)
        for first in range(0, len(at), ROWS):
            rows = slice(first, first + ROWS)
            logits = (hidden[at[rows]] @ output.T).float().requires_grad_()
            with torch.enable_grad():
                loss = (torch.nn.functional.cross_entropy(logits, target[rows], reduction="none") * weights[rows]).sum()
            slope = torch.autograd.grad(loss, logits)[0].to(hidden.dtype)
            total += loss.detach()
            grad_hidden[at[rows]] += (slope @ output).float()
            grad_output += (slope.T @ hidden[at[rows]]).float()
        ctx.save_for_backward(grad_hidden, grad_output)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_output = ctx.saved_tensors
        return grad_hidden * grad, grad_output * grad, None, None, None


def chunked_softmax(
    hidden_TD: torch.Tensor, output_VD: torch.Tensor, inputs: PackInputs, vocabulary: Vocabulary
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain cross-entropy over all ids, in chunks of rows; the nats of single positions are not told."""
    at, target, weights = _learnt(legal_targets(inputs.ids, inputs.is_learnt, vocabulary), inputs, hidden_TD.device)
    loss = _ChunkedSoftmax.apply(hidden_TD, output_VD, at, target, weights)  # type: ignore[no-untyped-call]
    return loss, torch.zeros(len(hidden_TD), device=hidden_TD.device)


LOSSES: dict[str, Loss] = {
    "over legal ids, in chunks (shipped)": shipped_loss,
    "over all ids, in chunks": chunked_softmax,
    "over all ids, logits whole": partial(whole_softmax, legal=False),
    "over legal ids, logits whole": partial(whole_softmax, legal=True),
}


def cost(
    loss_of: Loss, hidden_TD: torch.Tensor, output_VD: torch.Tensor, inputs: PackInputs, vocabulary: Vocabulary, *, is_bf16: bool
) -> Callable[[], float]:
    """What computes a loss and its gradients once, and says the seconds that took."""
    hidden, output = hidden_TD.detach().requires_grad_(), output_VD.detach().requires_grad_()

    def once() -> float:
        began = clock(hidden.device)
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=is_bf16):
            loss, _ = loss_of(hidden, output, inputs, vocabulary)
        loss.backward()  # type: ignore[no-untyped-call]
        hidden.grad = output.grad = None
        return clock(hidden.device) - began

    return once


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was asked to; those that this process worked, where all its work is in one thread.

    So what else runs on the machine takes no time of what is measured.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors that a call holds at a time beside those that were there before, as torch's allocator says."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: int(event.start_ns()))])
    return int(held.max(initial=0))
