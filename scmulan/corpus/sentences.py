"""How long a corpus's training sentences are, as far as the cost of training depends on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The training sentences of an epoch.

    Attributes
    ----------
    cells : training cells
    tokens : ids of an epoch's sentences, fields and all
    length : mean ids of a sentence
    keys : mean ids that a token attends to, itself among them; sentences in a pack do not see each other
    fill : share of a pack's places that hold an id
    columns : mean rows of the output matrix that the loss multiplies for a token, those it takes along for its neighbours too
    chunk : logits that the loss makes at a time, at most
    how : what these figures are taken from
    """

    cells: int
    tokens: int
    length: float
    keys: float
    fill: float
    columns: float
    chunk: int
    how: str


def mean_keys(lengths: npt.NDArray[np.int64]) -> float:
    """Mean number of ids that a token sees, itself among them: a sentence of n ids has n (n + 1) / 2 pairs; lengths (S,)."""
    return float((lengths * (lengths + 1) / 2).sum() / max(lengths.sum(), 1))
