"""Rates (``scmulan.rates``) of a batch of rows, added to their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from scmulan.automaton import CellAutomaton
from scmulan.csentence import Vocabulary
from scmulan.engines.base import CellRequest


@dataclass(frozen=True)
class RowRates:
    """The tables of each kind of cell, a last one of zeros, and whose row is which.

    Attributes
    ----------
    genes : (K, n_genes)
    frame : (K, 2, frame ids)
    kind_B : (B,)
    """

    genes: torch.Tensor
    frame: torch.Tensor
    kind_B: torch.Tensor

    @classmethod
    def of(cls, requests: Sequence[CellRequest], device: torch.device) -> RowRates | None:
        """Those of the requests; None where none has any."""
        kinds = {id(request.rates): request.rates for request in requests if request.rates is not None}
        if not kinds:
            return None
        places = {key: number for number, key in enumerate(kinds)}
        kind_B = torch.tensor([places.get(id(request.rates), len(places)) for request in requests], device=device)
        genes, frame = (
            torch.from_numpy(np.stack([*tables, np.zeros_like(tables[0])])).to(device) for tables in zip(*kinds.values(), strict=True)
        )
        return cls(genes, frame, kind_B)

    def keep(self, rows: torch.Tensor) -> RowRates:
        """Go on with some rows only."""
        return replace(self, kind_B=self.kind_B[rows])

    def added(
        self, logits_BV: torch.Tensor, rows: torch.Tensor, automaton: CellAutomaton, vocabulary: Vocabulary, first: int = 0
    ) -> torch.Tensor:
        """Logits of some rows with their rates, by where each row's cell is.

        Parameters
        ----------
        logits_BV : (rows, vocabulary.size)
        automaton : of all rows
        vocabulary : of the logits, which may lack the gene columns before ``first``
        """
        kind, is_after = self.kind_B[rows], automaton.level[rows] >= vocabulary.first_level
        logits_BV = logits_BV.float()
        logits_BV[:, vocabulary.first_gene : vocabulary.last_gene] += self.genes[kind, first:]
        logits_BV[:, vocabulary.first_depth : vocabulary.end_of_cell + 1] += self.frame[kind, is_after.long()]
        return logits_BV
