"""Ways to bring shallow cells back to depth: what each is given, and the simple ones that all are held against.

A way is an `Enhancer`: it is given an `EnhanceTask` and returns rates or counts ``[C, G]`` of the thinned cells. Their types are not given:
ways by type are told them by logistic regression, learnt on training cells that were thinned alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import Cells
from scmulan.csentence_thinning import thin
from scmulan.measures.baselines import fit_logistic_regression
from scmulan.measures.recovery_baselines import expected_of_types, leave_alone, posterior_of_types, smooth_by_neighbours

THINNED_TRAINING_SEED = 11


@dataclass(frozen=True, kw_only=True)
class EnhanceTask:
    """What a way is given.

    Attributes
    ----------
    thinned
        ``[C, G]`` int32 CSR of the measured genes, whose symbols are ``genes``.
    depth
        ``[C]``: counts of each full cell, the wanted depth.
    share
        Of its counts that each cell kept.
    cells
        The held-out cells as they were read, not thinned: for their fields alone, never their counts.
    train, train_types
        ``[R, G]`` other cells at full depth, and their types.
    """

    thinned: sp.csr_matrix
    depth: npt.NDArray[np.int64]
    share: float
    genes: list[str]
    cells: Cells
    train: sp.csr_matrix
    train_types: list[str]
    seed: int

    @cached_property
    def said_types(self) -> list[str]:
        """Types of the thinned cells by logistic regression, learnt on training cells thinned alike: the true ones are not given."""
        thinned = thin(self.train, self.share, self.seed + THINNED_TRAINING_SEED)
        return fit_logistic_regression(thinned, self.train_types).predict(self.thinned).labels


class Enhancer(Protocol):
    """A way to bring cells back to depth: rates or counts ``[C, G]``, from zero up, on any scale for each cell."""

    def __call__(self, task: EnhanceTask) -> Any: ...


def _by_type(task: EnhanceTask) -> Any:
    return posterior_of_types(task.thinned, task.said_types, task.train, task.train_types)


def _of_all(task: EnhanceTask) -> Any:
    return posterior_of_types(task.thinned, ["all"] * task.thinned.shape[0], task.train, ["all"] * task.train.shape[0])


def _seen_and_expected(task: EnhanceTask) -> Any:
    return expected_of_types(task.thinned, task.depth, task.said_types, task.train, task.train_types)


QUICK: dict[str, Enhancer] = {
    "left alone": lambda task: leave_alone(task.thinned),
    "nearest cells": lambda task: smooth_by_neighbours(task.thinned, seed=task.seed),
    "nearest full cells": lambda task: smooth_by_neighbours(task.thinned, task.train, seed=task.seed),
    "posterior, all cells": _of_all,
    "posterior of the type": _by_type,
    "seen, and the type's posterior": _seen_and_expected,
}
BY_TYPE = ("posterior of the type", "seen, and the type's posterior")
"""The ways that need training cells of two types or more."""
