"""Sampling of one legal id a row; each row's draws depend on the seed and the row alone, not on its batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scmulan.errors import PromptError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How ids are drawn.

    Attributes
    ----------
    temperature : 1 draws from the model as it was trained; 0 takes the likeliest id
    top_p : share of the probability that is kept, likeliest first
    tail : share of the probability that is cut at the far end of id order (later genes, then levels and the end of the cell);
        0 cuts nothing. The next gene is a near one; what a model leaks to the thousands of far genes costs it next to no
        likelihood, but each such draw skips all genes between
    seed : with the row's number, decides all draws
    """

    temperature: float = 1.0
    top_p: float = 1.0
    tail: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise PromptError(f"temperature {self.temperature}: needed 0 or more")
        if not 0 < self.top_p <= 1:
            raise PromptError(f"top_p {self.top_p}: needed more than 0 and at most 1")
        if not 0 <= self.tail < 0.5:
            raise PromptError(f"tail {self.tail}: needed at least 0 and less than 0.5")


def uniform_draws(seed: int, rows: np.ndarray, steps: int) -> torch.Tensor:
    """Uniform numbers in [0, 1) for each row and step, a function of (seed, row, step); shape (rows, steps), float32."""
    draws = np.empty((len(rows), steps), dtype=np.float32)
    for place, row in enumerate(rows):
        key = np.array([seed & 0xFFFFFFFFFFFFFFFF, int(row)], dtype=np.uint64)
        draws[place] = np.random.Generator(np.random.Philox(key=key)).random(steps, dtype=np.float32)
    return torch.from_numpy(draws)


def cut_tail(weights_BV: torch.Tensor, first_gene: int, tail: float) -> None:
    """Set to 0, in place, what lies in the last ``tail`` of the probability: genes in id order, then all other ids."""
    genes_BG = weights_BV[:, first_gene:]
    before_BG = genes_BG.cumsum(1) - genes_BG
    is_cut_BG = before_BG >= 1 - tail
    genes_BG.masked_fill_(is_cut_BG, 0)
    is_all_genes_B = weights_BV[:, :first_gene].sum(1) <= tail
    weights_BV[:, :first_gene].masked_fill_(is_all_genes_B[:, None], 0)


def sample(
    logits_BV: torch.Tensor, legal_BV: torch.Tensor, uniform_B: torch.Tensor, sampling: Sampling, first_gene: int | None = None
) -> torch.Tensor:
    """One legal id a row by inverse transform; shape (B,), int64.

    Parameters
    ----------
    logits_BV : (B, V) float32; overwritten
    legal_BV : (B, V) bool, at least one legal id a row
    uniform_B : (B,) float32 in [0, 1)
    first_gene : id from which on all ids are genes; needed where ``sampling.tail`` is not 0
    """
    logits_BV.masked_fill_(~legal_BV, -torch.inf)
    if sampling.temperature == 0:
        return logits_BV.argmax(1)
    weights_BV = torch.softmax(logits_BV / sampling.temperature if sampling.temperature != 1 else logits_BV, dim=1)
    if sampling.tail > 0 and first_gene is not None:
        cut_tail(weights_BV, first_gene, sampling.tail)
    if sampling.top_p < 1:
        ordered, order = weights_BV.sort(dim=1, descending=True)
        ordered[(ordered.cumsum(1) - ordered) >= sampling.top_p] = 0
        weights_BV = torch.zeros_like(weights_BV).scatter_(1, order, ordered)
    cumulative_BV = weights_BV.cumsum(1)
    chosen_B = torch.searchsorted(cumulative_BV, uniform_B[:, None] * cumulative_BV[:, -1:], right=True).squeeze(1)
    chosen_B.clamp_(max=logits_BV.shape[1] - 1)
    is_legal = weights_BV.gather(1, chosen_B[:, None]).squeeze(1) > 0
    return torch.where(is_legal, chosen_B, weights_BV.argmax(1))
