"""Rates (``scmulan.rates``) of the slots in which cells are written, added to their logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scmulan.automaton import CellAutomaton
from scmulan.csentence import Vocabulary
from scmulan.rates import RatesOfKind


class RowRates:
    """A table for each kind of cell, the first of zeros, and which slot's is which.

    Attributes
    ----------
    genes : (K, n_genes)
    frame : (K, 2, frame ids)
    kind_B : (slots,)
    """

    def __init__(self, vocabulary: Vocabulary, n_slots: int, device: torch.device):
        n_frame = vocabulary.end_of_cell + 1 - vocabulary.first_depth
        self.genes = torch.zeros(1, vocabulary.n_genes, device=device)
        self.frame = torch.zeros(1, 2, n_frame, device=device)
        self.kind_B = torch.zeros(n_slots, dtype=torch.long, device=device)
        self._known: list[RatesOfKind] = []

    def put(self, slots: Sequence[int], rates: Sequence[RatesOfKind | None]) -> None:
        """Rates of some slots from now on, or none; tables that no slot has any more are let go."""
        device = self.kind_B.device
        held = [None if kind == 0 else self._known[kind - 1] for kind in self.kind_B.tolist()]
        for slot, each in zip(slots, rates, strict=True):
            held[slot] = each
        known = list({id(each): each for each in held if each is not None}.values())
        if [id(each) for each in known] != [id(each) for each in self._known]:
            self._known = known
            self.genes = torch.cat([torch.zeros_like(self.genes[:1]), *(torch.from_numpy(each.genes)[None].to(device) for each in known)])
            self.frame = torch.cat([torch.zeros_like(self.frame[:1]), *(torch.from_numpy(each.frame)[None].to(device) for each in known)])
        number = {id(each): 1 + place for place, each in enumerate(known)}
        self.kind_B = torch.tensor([0 if each is None else number[id(each)] for each in held], device=device)

    def added(
        self, logits_BV: torch.Tensor, slots_B: torch.Tensor, automaton: CellAutomaton, vocabulary: Vocabulary, first: int = 0
    ) -> torch.Tensor:
        """Logits of some slots with their rates, by where each one's cell is.

        Parameters
        ----------
        logits_BV : (slots, vocabulary.size)
        automaton : of all slots
        vocabulary : of the logits, which may lack the gene columns before ``first``
        """
        if not self._known:
            return logits_BV
        kind, is_after = self.kind_B[slots_B], automaton.level[slots_B] >= vocabulary.first_level
        if not bool(kind.any()):
            return logits_BV
        logits_BV = logits_BV.float()
        logits_BV[:, vocabulary.first_gene : vocabulary.last_gene] += self.genes[kind, first:]
        logits_BV[:, vocabulary.first_depth : vocabulary.end_of_cell + 1] += self.frame[kind, is_after.long()]
        return logits_BV
