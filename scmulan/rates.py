"""Rates: how much oftener labelled cells of a kind take each gene, level and depth than the model expects on those very cells.

From few cells a model learns the genes of a new organ sooner than which of them make a kind of cell, and hardly how high its counts go:
a cell has a thousand genes and a dozen levels, and the loss weighs each alike. What it leaves over is plain to see: per kind of cell, the
number of cells that took a gene or level beside the sum of the chances that the model gave it wherever it could have been taken (the
compensator of a counting process, Aalen 1978). The logarithm of their ratio, shrunk, is added to the logit when a cell of that kind is
written: one step of iterative scaling. Likelihoods and answers are those of the model alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.linalg import block_diag, toeplitz

from scmulan.adapters_folder import RATES
from scmulan.csentence import Vocabulary
from scmulan.errors import CheckpointError

KEYS = ("organism", "organ", "cell_type", "perturbation")
"""The fields that make a kind of cell; behind them stands the task that it is written by."""
WRITES = "generate"
"""The task of kinds whose file does not name one."""
SHRINK = 3.0
"""How often, on top of its own, each kind is taken to have taken an id at the rate of all kinds together."""
NEAR = (1.0, 2 / 3, 1 / 3)
"""Weights by which a depth or level takes in itself, those beside it and the next: few cells have any one of them."""

NAME_BEFORE = "rates.safetensors"
"""What the file was called before."""

Kind = tuple[str | None, ...]


def kind_of(row: Mapping[str, str | None], task: str = WRITES) -> Kind:
    """The kind of a cell by its fields, and by the task that writes it."""
    return (*(row.get(name) or None for name in KEYS), task)


def _kind(stored: Sequence[str | None]) -> Kind:
    """A kind as a file has it; files of before there were perturbations or tasks among them have shorter ones."""
    return tuple(stored) if len(stored) > len(KEYS) else (*stored, *(None,) * (len(KEYS) - len(stored)), WRITES)


class RatesOfKind(NamedTuple):
    """What is added to logits when cells of one kind are written.

    Attributes
    ----------
    genes : (vocabulary genes,) float32
    frame : (2, ids from the first depth to the end of a cell) float32, before the first level and after it
    """

    genes: npt.NDArray[np.float32]
    frame: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rates:
    """Those of several kinds of cells."""

    of_kind: dict[Kind, RatesOfKind]

    def of_row(self, row: Mapping[str, str | None], task: str = WRITES) -> RatesOfKind | None:
        """Those of a cell of these fields that a task writes; None for a kind that was not among the labelled cells."""
        return self.of_kind.get(kind_of(row, task))

    def __or__(self, other: Rates) -> Rates:
        """Both together; of a kind that both have, the other's."""
        return Rates(self.of_kind | other.of_kind)

    def save(self, folder: Path) -> Path:
        """Write them into an adapter's or a model's folder."""
        path = folder / RATES
        parts = {
            name: np.stack([getattr(rates, name) for rates in self.of_kind.values()]).astype(np.float16) for name in RatesOfKind._fields
        }
        save_file(parts, path, {"kinds": json.dumps(list(self.of_kind))})
        return path

    @classmethod
    def of(cls, folder: Path) -> Rates | None:
        """Those of a folder; None where there are none, CheckpointError where they can't be read."""
        path = folder / RATES
        if not path.is_file():
            if (folder / NAME_BEFORE).is_file():
                raise CheckpointError(f"{folder / NAME_BEFORE}: rates are read from {RATES} now; rename the file")
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                genes, frame = (file.get_tensor(name).astype(np.float32) for name in RatesOfKind._fields)
                kinds = [_kind(kind) for kind in json.loads(file.metadata()["kinds"])]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be read ({error}); copy the folder again") from error
        if not len(kinds) == len(genes) == len(frame):
            raise CheckpointError(f"{path}: {len(kinds)} kinds of cells, and rates of {len(genes)}; copy the folder again")
        return cls({kind: RatesOfKind(genes[k], frame[k]) for k, kind in enumerate(kinds)})


def fit_rates(
    taken_K2V: npt.NDArray[np.float64], expected_K2V: npt.NDArray[np.float64], kinds: Sequence[Kind], vocabulary: Vocabulary
) -> Rates:
    """Rates from how often cells of each kind took each id, before the first level and after it, and how often the model expected them to.

    A kind leans on all kinds together.
    """
    v, near_FF = vocabulary, _near(vocabulary)
    genes_KG = _ratios(*(sums[:, 1, v.first_gene : v.last_gene] for sums in (taken_K2V, expected_K2V)))
    frame_K2F = _ratios(*(sums[:, :, v.first_depth : v.end_of_cell + 1] @ near_FF for sums in (taken_K2V, expected_K2V)))
    logs = [RatesOfKind(*(np.log(part).astype(np.float32) for part in parts)) for parts in zip(genes_KG, frame_K2F, strict=True)]
    return Rates(dict(zip(kinds, logs, strict=True)))


def _ratios(taken: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ratios of kinds, the first axis, that lean on the ratio of all together."""
    overall: npt.NDArray[np.float64] = (taken.sum(0) + SHRINK) / (expected.sum(0) + SHRINK)
    return (taken + SHRINK) / (expected + SHRINK / overall)


def _near(v: Vocabulary) -> npt.NDArray[np.float64]:
    """How much each id of the frame takes in of each other; (F, F)."""
    n_depths, n_levels = v.first_level - v.first_depth, v.end_of_cell - v.first_level
    parts = [toeplitz(np.pad(NEAR, (0, n - len(NEAR)))) for n in (n_depths, n_levels)]
    near: npt.NDArray[np.float64] = block_diag(*parts, 1)
    return near
