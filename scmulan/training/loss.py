"""Cross-entropy over the legal next ids only, without ever holding the logits whole.

Positions inside cells are sorted by the gene they stand at: legal genes have a later id, so each chunk needs only the tail of
the output matrix. With genes in rising order of detection most tokens stand near the end, and the tail is short. Gradients are
made in the forward pass, chunk by chunk (the loss is a weighted sum, so the incoming gradient is one number).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scmulan.automaton import LegalTargets
from scmulan.csentence import N_DEPTHS, Vocabulary

CHUNK = 256


@dataclass(frozen=True)
class Chunk:
    """Some positions, the columns of the output matrix they need, and which (row, column) pairs are illegal.

    ``spans`` are id ranges laid side by side; ``column`` and ``row`` of ``banned`` index into the chunk's logits.
    """

    at: torch.Tensor
    target: torch.Tensor
    spans: tuple[tuple[int, int], ...]
    after_level: torch.Tensor | None
    after_gene: torch.Tensor | None
    banned: tuple[torch.Tensor, torch.Tensor] | None
    words_only: torch.Tensor | None = None


def plan_chunks(legal: LegalTargets, vocabulary: Vocabulary, chunk: int = CHUNK) -> list[Chunk]:
    """Group the learnt positions so that each group needs few columns."""
    chunks = _depth_chunks(legal, vocabulary) + _word_chunks(legal, vocabulary)
    order = np.argsort(legal.after_gene, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    by_rank = np.argsort(rank[legal.named_of], kind="stable")
    named_rank, named = rank[legal.named_of][by_rank], legal.named[by_rank]
    edges = np.searchsorted(named_rank, np.arange(0, len(order) + chunk, chunk))
    for number, first in enumerate(range(0, len(order), chunk)):
        members = order[first : first + chunk]
        chunks.append(
            _cell_chunk(
                legal, members, named_rank[edges[number] : edges[number + 1]] - first, named[edges[number] : edges[number + 1]], vocabulary
            )
        )
    return chunks


def _cell_chunk(
    legal: LegalTargets, members: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], named: npt.NDArray[np.int64], v: Vocabulary
) -> Chunk:
    low = min(int(legal.after_gene[members].min()) + 1, v.n_genes)
    n_levels = v.end_of_cell + 1 - v.first_level
    target = legal.cell_target[members]
    local = np.where(target >= v.first_gene, target - v.first_gene - low + n_levels, target - v.first_level)
    return Chunk(
        at=torch.from_numpy(legal.cell_at[members]),
        target=torch.from_numpy(local),
        spans=((v.first_level, v.end_of_cell + 1), (v.first_gene + low, v.last_gene)),
        after_level=torch.from_numpy(legal.after_level[members] - v.first_level),
        after_gene=torch.from_numpy(legal.after_gene[members] - low),
        banned=(torch.from_numpy(rows), torch.from_numpy(named - low + n_levels)),
    )


def _depth_chunks(legal: LegalTargets, v: Vocabulary) -> list[Chunk]:
    if not len(legal.depth_at):
        return []
    target = torch.from_numpy(legal.depth_target - v.first_depth)
    return [Chunk(torch.from_numpy(legal.depth_at), target, ((v.first_depth, v.first_depth + N_DEPTHS),), None, None, None)]


def _word_chunks(legal: LegalTargets, v: Vocabulary) -> list[Chunk]:
    if not len(legal.word_at):
        return []
    spans = ((v.eos, v.first_depth), (v.first_gene, v.last_gene))
    target = np.where(
        legal.word_target >= v.first_gene, legal.word_target - v.first_gene + v.first_depth - v.eos, legal.word_target - v.eos
    )
    return [Chunk(torch.from_numpy(legal.word_at), torch.from_numpy(target), spans, None, None, None, torch.from_numpy(legal.word_only))]


def _mask(logits: torch.Tensor, chunk: Chunk, vocabulary: Vocabulary) -> None:
    """Put minus infinity on what is illegal, in place."""
    if chunk.after_gene is not None and chunk.after_level is not None and chunk.banned is not None:
        n_levels = vocabulary.end_of_cell + 1 - vocabulary.first_level
        device = logits.device
        levels = logits[:, :n_levels]
        levels.masked_fill_(torch.arange(n_levels, device=device) <= chunk.after_level.to(device)[:, None], -torch.inf)
        genes = logits[:, n_levels:]
        genes.masked_fill_(torch.arange(genes.shape[1], device=device) <= chunk.after_gene.to(device)[:, None], -torch.inf)
        logits[chunk.banned[0].to(device), chunk.banned[1].to(device)] = -torch.inf
        never_first = chunk.after_level.to(device) == -1  # right after a depth: </cell> only when empty, which is not learnt
        logits[never_first, n_levels - 1] = -torch.inf
    if chunk.words_only is not None:
        logits[chunk.words_only.to(logits.device), : vocabulary.text[0] - vocabulary.eos] = -torch.inf


class LegalCrossEntropy(torch.autograd.Function):
    """Weighted sum of -log p(next id | legal ids); see ``legal_cross_entropy``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        weights_T: torch.Tensor,
        chunks: list[Chunk],
        vocabulary: Vocabulary,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        nats_T = torch.zeros(len(hidden_TD), dtype=torch.float32, device=hidden_TD.device)
        hidden, weight = hidden_TD.detach().to(dtype), weight_VD.detach().to(dtype)
        grad_hidden = torch.zeros_like(hidden_TD, dtype=torch.float32) if needs_grad else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_grad else None
        for chunk in chunks:
            at, target = chunk.at.to(hidden.device), chunk.target.to(hidden.device)[:, None]
            rows_ND = hidden[at]
            logits = torch.cat([rows_ND @ weight[first:last].T for first, last in chunk.spans], dim=1).float()
            _mask(logits, chunk, vocabulary)
            total = torch.logsumexp(logits, dim=1, keepdim=True)
            nats_T[at] = (total - logits.gather(1, target)).squeeze(1)
            if grad_hidden is None or grad_weight is None:
                continue
            logits.sub_(total).exp_()
            logits.scatter_add_(1, target, torch.full_like(total, -1.0))
            logits.mul_(weights_T[at][:, None])
            slope, start = logits.to(dtype), 0
            for first, last in chunk.spans:
                part = slope[:, start : start + last - first]
                grad_hidden[at] += (part @ weight[first:last]).float()
                grad_weight[first:last] += (part.T @ rows_ND).float()
                start += last - first
        ctx.save_for_backward(*(grad for grad in (grad_hidden, grad_weight) if grad is not None))
        ctx.dtypes = (hidden_TD.dtype, weight_VD.dtype)
        ctx.mark_non_differentiable(nats_T)
        return (nats_T * weights_T).sum(), nats_T

    @staticmethod
    def backward(ctx: Any, grad_sum: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (grad_hidden * grad_sum).to(ctx.dtypes[0]), (grad_weight * grad_sum).to(ctx.dtypes[1]), None, None, None, None


def legal_cross_entropy(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    weights_T: torch.Tensor,
    chunks: list[Chunk],
    vocabulary: Vocabulary,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over legal ids.

    Parameters
    ----------
    hidden_TD : (T, D) last hidden states of one pack
    weight_VD : (V, D) output matrix
    weights_T : (T,) float
        Weight of the id predicted at each position.
    chunks : from ``plan_chunks``
    dtype : of the matrix products; softmax is always float32

    Returns
    -------
    loss : weighted sum, in nats
    nats_T : (T,) float32, nats of the id predicted at each position, 0 where none is; carries no gradient
    """
    loss, nats_T = LegalCrossEntropy.apply(hidden_TD, weight_VD, weights_T, chunks, vocabulary, dtype)  # type: ignore[no-untyped-call]
    return loss, nats_T
