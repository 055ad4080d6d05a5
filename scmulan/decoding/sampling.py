"""Sampling of one legal id a row; each row's draws depend on the seed and the row alone, not on its batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scmulan.csentence import Vocabulary
from scmulan.errors import PromptError
from scmulan.hazard import draw_coupled, draw_next, likely, next_log_probabilities

COLDEST = 1e-6
"""Below it the likeliest id is taken: divided by less, log probabilities leave float32."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How ids are drawn.

    Attributes
    ----------
    temperature : 1 draws from the model as it was trained; 0 takes the likeliest id
    top_p : share of the probability that is kept, likeliest first
    least_hazard : genes less likely than this to be taken where the list is read are passed by; 0 draws from the model as it is. A
        small model leaves each of thousands of rare genes some hundred-thousandth at high counts, where they are never seen
    seed : with the row's number, decides all draws
    coupled : whether a row takes the same genes for another prompt wherever their chances are alike (``scmulan.decoding.coupled``); cells
        are then drawn from the model as it is otherwise, and what two prompts change is seen in fewer of them
    rates : whether cells are written with the rates (``scmulan.rates``) of the model or the adapter in use, where it has them
    """

    temperature: float = 1.0
    top_p: float = 1.0
    least_hazard: float = 1e-4
    seed: int = 0
    coupled: bool = False
    rates: bool = True

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise PromptError(f"temperature {self.temperature}: needed 0 or more")
        if not 0 < self.top_p <= 1:
            raise PromptError(f"top_p {self.top_p}: needed more than 0 and at most 1")
        if not 0 <= self.least_hazard < 1:
            raise PromptError(f"least_hazard {self.least_hazard}: needed 0 or more and less than 1")
        if self.coupled and not (self.temperature == 1 and self.top_p == 1):
            raise PromptError("coupled draws are those of the model as it was trained; needed temperature 1 and top_p 1")


def uniform_draws(seed: int, rows: np.ndarray, steps: int) -> torch.Tensor:
    """Uniform numbers in [0, 1) for each row and step, a function of (seed, row, step); shape (rows, steps), float32."""
    draws = np.empty((len(rows), steps), dtype=np.float32)
    for place, row in enumerate(rows):
        key = np.array([seed & 0xFFFFFFFFFFFFFFFF, int(row)], dtype=np.uint64)
        draws[place] = np.random.Generator(np.random.Philox(key=key)).random(steps, dtype=np.float32)
    return torch.from_numpy(draws)


def sample(log_probabilities_BV: torch.Tensor, uniform_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One id a row by inverse transform; shape (B,), int64.

    Parameters
    ----------
    log_probabilities_BV : (B, V) float32, minus infinity where an id is illegal, at least one legal id a row
    uniform_B : (B,) float32 in [0, 1)
    """
    if sampling.temperature < COLDEST:
        return log_probabilities_BV.argmax(1)
    if sampling.temperature == 1:
        weights_BV = log_probabilities_BV.exp()
    else:
        weights_BV = torch.softmax(log_probabilities_BV / sampling.temperature, dim=1)
    if sampling.top_p < 1:
        ordered, order = weights_BV.sort(dim=1, descending=True)
        is_beyond = (ordered.cumsum(1) - ordered) >= sampling.top_p
        is_beyond[:, 0] = False  # a share too small for float32 still keeps the likeliest
        ordered[is_beyond] = 0
        weights_BV = torch.zeros_like(weights_BV).scatter_(1, order, ordered)
    cumulative_BV = weights_BV.cumsum(1)
    chosen_B = torch.searchsorted(cumulative_BV, uniform_B[:, None] * cumulative_BV[:, -1:], right=True).squeeze(1)
    chosen_B.clamp_(max=weights_BV.shape[1] - 1)
    is_legal = weights_BV.gather(1, chosen_B[:, None]).squeeze(1) > 0
    return torch.where(is_legal, chosen_B, weights_BV.argmax(1))


def draw(
    logits_BV: torch.Tensor,
    legal_BV: torch.Tensor,
    uniform_B: torch.Tensor,
    sampling: Sampling,
    vocabulary: Vocabulary,
    coupled: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The next id of each cell from the language model's logits; shape (B,), int64.

    ``coupled``: the numbers of the genes and of what else may come, of ``CoupledDraws``, where draws are coupled.
    """
    if coupled is None and sampling.temperature == 1 and sampling.top_p == 1:
        return draw_next(logits_BV, legal_BV, uniform_B, vocabulary, sampling.least_hazard)
    if sampling.least_hazard > 0:
        legal_BV = likely(logits_BV, legal_BV, sampling.least_hazard, vocabulary)
    if coupled is not None:
        return draw_coupled(logits_BV, legal_BV, uniform_B, vocabulary, *coupled)
    return sample(next_log_probabilities(logits_BV, legal_BV, vocabulary), uniform_B, sampling)
