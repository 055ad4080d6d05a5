"""Gene rates: how much oftener labelled cells of a kind take each gene than the model expects on those very cells.

From few cells a model learns the genes of a new organ sooner than which of them make a kind of cell, and what it leaves over is plain to
see: per kind and gene, the number of cells that took the gene beside the sum of the chances that the model gave it wherever it could have
been taken (the compensator of a counting process, Aalen 1978). The logarithm of their ratio, shrunk, is added to the gene's logit when a
cell of that kind is written: one step of iterative scaling. Likelihoods and answers are those of the model alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from scmulan.adapters_folder import RATES
from scmulan.errors import CheckpointError

KEYS = ("organism", "organ", "cell_type")
"""The fields that make a kind of cell."""
SHRINK = 3.0
"""Cells, taking a gene as often as those of all kinds together do, that each kind is given on top of its own."""

Kind = tuple[str | None, ...]


def kind_of(row: Mapping[str, str | None]) -> Kind:
    """The kind of a cell by its fields."""
    return tuple(row.get(name) or None for name in KEYS)


@dataclass(frozen=True)
class GeneRates:
    """What is added to the logits of genes.

    Attributes
    ----------
    kinds : (K,) values of ``KEYS``
    logs : (K, vocabulary genes) float32
    """

    kinds: tuple[Kind, ...]
    logs: npt.NDArray[np.float32]

    def of_row(self, row: Mapping[str, str | None]) -> npt.NDArray[np.float32] | None:
        """(vocabulary genes,) for a cell of these fields; None for a kind that was not among the labelled cells."""
        kind = kind_of(row)
        return self.logs[self.kinds.index(kind)] if kind in self.kinds else None

    def save(self, folder: Path) -> Path:
        """Write them into an adapter's or a model's folder."""
        path = folder / RATES
        save_file({"logs": self.logs.astype(np.float16)}, path, {"kinds": json.dumps(self.kinds)})
        return path

    @classmethod
    def of(cls, folder: Path) -> GeneRates | None:
        """Those of a folder; None where there are none, CheckpointError where they can't be read."""
        path = folder / RATES
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                logs = file.get_tensor("logs").astype(np.float32)
                kinds = tuple(tuple(kind) for kind in json.loads(file.metadata()["kinds"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be read ({error}); copy the folder again") from error
        if logs.ndim != 2 or len(logs) != len(kinds):
            raise CheckpointError(f"{path}: {len(kinds)} kinds of cells, and numbers of shape {logs.shape}; copy the folder again")
        return cls(kinds, logs)


def fit_rates(taken_KG: npt.NDArray[np.float64], expected_KG: npt.NDArray[np.float64], kinds: Sequence[Kind]) -> GeneRates:
    """Rates from how many cells of each kind took each gene, and how many the model expected to; (K, vocabulary genes) each."""
    overall_G = (taken_KG.sum(0) + SHRINK) / (expected_KG.sum(0) + SHRINK)
    factor_KG = (taken_KG + SHRINK) / (expected_KG + SHRINK / overall_G)
    return GeneRates(tuple(kinds), np.log(factor_KG).astype(np.float32))
