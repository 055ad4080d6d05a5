"""Cross-entropy over the legal next ids only, without ever holding the logits whole.

Inside a cell the chance of the next gene is that of taking it and of passing by all legal genes before it (``scmulan.hazard``): a
position needs only the columns from the gene it stands at to the gene that comes. Positions are grouped by where and how wide that
run is. Gradients are made in the forward pass, group by group (the loss is a weighted sum, so the incoming gradient is one number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from scmulan.automaton import LegalTargets
from scmulan.csentence import N_DEPTHS, Ids, Vocabulary
from scmulan.hazard import OFFSET


@dataclass(frozen=True)
class ChunkSize:
    """How positions are grouped: rows a chunk at most, and its fixed cost in logits that could be made in its time."""

    rows: int
    cost: int


CPU_CHUNKS = ChunkSize(256, 20_000)
GPU_CHUNKS = ChunkSize(4096, 4_000_000)
"""Of a GPU: from the time of a few dozen kernel starts, not measured."""
WORD_ROWS = 512
"""Positions whose next id is a word, at a time: they need almost every column."""


@dataclass(frozen=True)
class SoftmaxChunk:
    """Positions whose next id is a word, a depth, or a level or end (given that no gene comes).

    ``spans`` are the id ranges laid side by side; ``target`` and ``illegal_until`` (ids before it are illegal) index into them.
    """

    at: torch.Tensor
    target: torch.Tensor
    spans: tuple[tuple[int, int], ...]
    illegal_until: torch.Tensor | None = None
    never_last: torch.Tensor | None = None


@dataclass(frozen=True)
class HazardChunk:
    """Positions inside a cell with the run of gene columns that they pass by, from ``first`` to ``last``.

    ``after`` and ``until`` bound each row's legal genes (both excluded), ``target`` is the gene that comes, or the last column + 1
    when none does; ``banned`` are (row, column) pairs named before. Rows that ``must_take`` stand right after a level, where a gene has
    to follow. All columns count from ``first``.
    """

    at: torch.Tensor
    first: int
    last: int
    after: torch.Tensor
    target: torch.Tensor
    banned_row: torch.Tensor
    banned: torch.Tensor
    must_take: bool


Chunk = SoftmaxChunk | HazardChunk
Added = tuple[torch.Tensor, torch.Tensor]


def _moved(chunk: Chunk, device: torch.device) -> Chunk:
    """The chunk with its tensors on a device."""
    if device.type == "cpu":
        return chunk
    moved: dict[str, Any] = {name: value.to(device) for name, value in vars(chunk).items() if isinstance(value, torch.Tensor)}
    return replace(chunk, **moved)


def plan_chunks(legal: LegalTargets, vocabulary: Vocabulary, size: ChunkSize = CPU_CHUNKS) -> list[Chunk]:
    """Group the learnt positions so that each group needs few columns."""
    v = vocabulary
    chunks: list[Chunk] = [*_depth_chunks(legal, v), *_word_chunks(legal, v), *_level_chunks(legal, v)]
    was_level = legal.after_gene == -1
    may_be_gene = legal.after_gene < v.n_genes
    target = np.where(legal.cell_target >= v.first_gene, legal.cell_target - v.first_gene, v.n_genes)
    until = np.where(was_level, v.n_genes, np.minimum(target + 1, v.n_genes))
    by_owner = np.argsort(legal.named_of, kind="stable")
    owner, named = legal.named_of[by_owner], legal.named[by_owner]
    for must_take in (True, False):
        rows = np.flatnonzero(may_be_gene & (was_level == must_take) & (until > legal.after_gene + 1))
        low, high = legal.after_gene[rows] + 1, until[rows]
        order = np.lexsort((low, np.log2(high - low).astype(int)))
        rows, low, high = rows[order], low[order], high[order]
        for first, last in pairwise(_chunk_edges(low.tolist(), high.tolist(), size)):
            members = rows[first:last]
            span = int(low[first:last].min()), int(high[first:last].max())
            chunks.append(_hazard_chunk(legal, members, *span, target, owner, named, must_take))
    return chunks


def _chunk_edges(low: Sequence[int], high: Sequence[int], size: ChunkSize) -> list[int]:
    """Where to cut rows that need columns low to high: a chunk is as wide as all its rows, and a new one has a fixed cost."""
    edges, needed = [0], 0
    least, largest = (low[0], high[0]) if low else (0, 0)
    for row in range(len(low)):
        n = row - edges[-1] + 1
        least, largest, needed = min(least, low[row]), max(largest, high[row]), needed + high[row] - low[row]
        if n > size.rows or n * (largest - least) - needed > size.cost:
            edges.append(row)
            least, largest, needed = low[row], high[row], high[row] - low[row]
    return [*edges, len(low)] if low else [0]


def _hazard_chunk(
    legal: LegalTargets, members: Ids, first: int, last: int, target: Ids, owner: Ids, named: Ids, must_take: bool
) -> HazardChunk:
    starts, ends = np.searchsorted(owner, members), np.searchsorted(owner, members, side="right")
    row = np.repeat(np.arange(len(members)), ends - starts)
    pairs = np.arange(len(row)) + np.repeat(starts - np.concatenate([[0], np.cumsum(ends - starts)[:-1]]), ends - starts)
    column = named[pairs]
    inside = column < last
    return HazardChunk(
        at=torch.from_numpy(legal.cell_at[members]),
        first=first,
        last=last,
        after=torch.from_numpy(legal.after_gene[members] - first),
        target=torch.from_numpy(np.minimum(target[members], last) - first),
        banned_row=torch.from_numpy(row[inside]),
        banned=torch.from_numpy(column[inside] - first),
        must_take=must_take,
    )


def _depth_chunks(legal: LegalTargets, v: Vocabulary) -> list[Chunk]:
    if not len(legal.depth_at):
        return []
    target = torch.from_numpy(legal.depth_target - v.first_depth)
    return [SoftmaxChunk(torch.from_numpy(legal.depth_at), target, ((v.first_depth, v.first_depth + N_DEPTHS),))]


def _word_chunks(legal: LegalTargets, v: Vocabulary) -> list[Chunk]:
    spans = ((v.eos, v.first_depth), (v.first_gene, v.last_gene))
    target = np.where(
        legal.word_target >= v.first_gene, legal.word_target - v.first_gene + v.first_depth - v.eos, legal.word_target - v.eos
    )
    illegal_until = np.where(legal.word_only, v.text[0] - v.eos, 0)
    chunks: list[Chunk] = []
    for first in range(0, len(legal.word_at), WORD_ROWS):
        part = slice(first, first + WORD_ROWS)
        at, wanted, until = (torch.from_numpy(values[part]) for values in (legal.word_at, target, illegal_until))
        chunks.append(SoftmaxChunk(at, wanted, spans, until))
    return chunks


def _level_chunks(legal: LegalTargets, v: Vocabulary) -> list[Chunk]:
    rows = np.flatnonzero(legal.cell_target < v.first_gene)
    if not len(rows):
        return []
    return [
        SoftmaxChunk(
            at=torch.from_numpy(legal.cell_at[rows]),
            target=torch.from_numpy(legal.cell_target[rows] - v.first_level),
            spans=((v.first_level, v.end_of_cell + 1),),
            illegal_until=torch.from_numpy(legal.after_level[rows] + 1 - v.first_level),
            # right after a depth: </cell> only when empty, which is not learnt
            never_last=torch.from_numpy(legal.after_level[rows] == v.first_level - 1),
        )
    ]


def _softmax_nats(logits: torch.Tensor, chunk: SoftmaxChunk) -> torch.Tensor:
    """Nats of each row's target; the logits become the slopes of them."""
    if chunk.illegal_until is not None:
        widest = int(chunk.illegal_until.max())
        logits[:, :widest].masked_fill_(torch.arange(widest, device=logits.device) < chunk.illegal_until[:, None], -torch.inf)
    if chunk.never_last is not None:
        logits[chunk.never_last, -1] = -torch.inf
    target = chunk.target[:, None]
    total = torch.logsumexp(logits, dim=1, keepdim=True)
    nats = (total - logits.gather(1, target)).squeeze(1)
    logits.sub_(total).exp_()
    logits.scatter_add_(1, target, torch.full_like(total, -1.0))
    return nats


def _hazard_nats(logits: torch.Tensor, chunk: HazardChunk, panel_G: torch.Tensor | None) -> torch.Tensor:
    """Nats of each row's gene, or of passing by all; the logits become the slopes of them."""
    logits.sub_(OFFSET)
    column = torch.arange(logits.shape[1], device=logits.device)
    illegal = column <= chunk.after[:, None]
    if panel_G is not None:
        illegal |= ~panel_G[chunk.first : chunk.last]
    illegal[chunk.banned_row, chunk.banned] = True
    logits.masked_fill_(illegal, -torch.inf)
    passed = torch.nn.functional.softplus(logits)
    taken = (chunk.target < logits.shape[1]).nonzero().squeeze(1)
    target = chunk.target[taken]
    late = column > chunk.target[:, None]
    nats = passed.masked_fill(late, 0).sum(1)
    nats[taken] -= logits[taken, target]
    logits.sigmoid_()
    if chunk.must_take:
        whole = passed.sum(1).clamp(min=1e-30)
        nats += torch.log(-torch.expm1(-whole))
        again = (1 / torch.expm1(whole))[:, None]
        logits.mul_(torch.where(late, again, 1 + again))
    else:
        logits.masked_fill_(late, 0)
    logits[taken, target] -= 1
    return nats


class LegalCrossEntropy(torch.autograd.Function):
    """Weighted sum of -log p(next id | legal ids); see ``legal_cross_entropy``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        weights_T: torch.Tensor,
        chunks: list[Chunk],
        first_gene: int,
        dtype: torch.dtype,
        panel_G: torch.Tensor | None,
        added: Added | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        nats_T = torch.zeros(len(hidden_TD), dtype=torch.float32, device=hidden_TD.device)
        hidden, weight = hidden_TD.detach().to(dtype), weight_VD.detach().to(dtype)
        grad_hidden = torch.zeros_like(hidden_TD, dtype=torch.float32) if needs_grad else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None  # None below an adapter
        for chunk in chunks:
            chunk = _moved(chunk, hidden.device)
            spans = ((first_gene + chunk.first, first_gene + chunk.last),) if isinstance(chunk, HazardChunk) else chunk.spans
            rows_ND = hidden[chunk.at]
            logits = torch.cat([rows_ND @ weight[first:last].T for first, last in spans], dim=1).float()
            if added is not None:
                tables_KV, table_T = added
                logits += torch.cat([tables_KV[:, first:last] for first, last in spans], dim=1)[table_T[chunk.at]]
            nats_T[chunk.at] += _hazard_nats(logits, chunk, panel_G) if isinstance(chunk, HazardChunk) else _softmax_nats(logits, chunk)
            if grad_hidden is None:
                continue
            logits.mul_(weights_T[chunk.at][:, None])
            slope, start = logits.to(dtype), 0
            for first, last in spans:
                part = slope[:, start : start + last - first]
                grad_hidden[chunk.at] += (part @ weight[first:last]).float()
                if grad_weight is not None:
                    grad_weight[first:last] += (part.T @ rows_ND).float()
                start += last - first
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = (hidden_TD.dtype, weight_VD.dtype)
        ctx.mark_non_differentiable(nats_T)
        return (nats_T * weights_T).sum(), nats_T

    @staticmethod
    def backward(ctx: Any, grad_sum: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        of_weight = None if grad_weight is None else (grad_weight * grad_sum).to(ctx.dtypes[1])
        return (grad_hidden * grad_sum).to(ctx.dtypes[0]), of_weight, None, None, None, None, None, None


def legal_cross_entropy(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    weights_T: torch.Tensor,
    chunks: list[Chunk],
    vocabulary: Vocabulary,
    dtype: torch.dtype = torch.float32,
    panel_G: torch.Tensor | None = None,
    added: Added | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over legal ids.

    Parameters
    ----------
    hidden_TD : (T, D) last hidden states of one pack
    weight_VD : (V, D) output matrix
    weights_T : (T,) float
        Weight of the id predicted at each position.
    chunks : from ``plan_chunks``
    dtype : of the matrix products; all else is float32
    panel_G : (n_genes,) bool, optional
        Genes that may stand in a cell; all when not given. No gene of the cells may be outside it.
    added : (K, V) float32 and (T,) int64, optional
        What is added to the logits of each position: tables, and which of them is whose.

    Returns
    -------
    loss : weighted sum, in nats
    nats_T : (T,) float32, nats of the id predicted at each position, 0 where none is; carries no gradient
    """
    loss, nats_T = LegalCrossEntropy.apply(hidden_TD, weight_VD, weights_T, chunks, vocabulary.first_gene, dtype, panel_G, added)  # type: ignore[no-untyped-call]
    return loss, nats_T


@torch.no_grad()
def slope_sums(
    hidden_TD: torch.Tensor, weight_VD: torch.Tensor, groups_TK: torch.Tensor, chunks: list[Chunk], vocabulary: Vocabulary
) -> torch.Tensor:
    """Sums over positions of the slopes of the nats along each id's logit, which is the id's chance, less one where it is taken; (K, V).

    Parameters
    ----------
    hidden_TD, weight_VD, chunks : as in ``legal_cross_entropy``
    groups_TK : (T, K) float32, how much each position counts in each sum
    """
    sums_VK = torch.zeros(len(weight_VD), groups_TK.shape[1], device=hidden_TD.device)
    for chunk in chunks:
        chunk = _moved(chunk, hidden_TD.device)
        first_gene = vocabulary.first_gene
        spans = ((first_gene + chunk.first, first_gene + chunk.last),) if isinstance(chunk, HazardChunk) else chunk.spans
        rows_ND, groups_NK = hidden_TD[chunk.at], groups_TK[chunk.at]
        slope = torch.cat([rows_ND @ weight_VD[first:last].T for first, last in spans], dim=1).float()
        _hazard_nats(slope, chunk, None) if isinstance(chunk, HazardChunk) else _softmax_nats(slope, chunk)
        start = 0
        for first, last in spans:
            sums_VK[first:last] += slope[:, start : start + last - first].T @ groups_NK
            start += last - first
    return sums_VK.T
