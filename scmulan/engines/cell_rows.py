"""Cells that are being written, one a slot: what each may take next, its draws and its rates, whatever engine makes the logits.

An engine puts a cell into a slot, gives the logits of the slots that it runs, and is given the next id of each. Which id that is depends
on the cell's prompt, seed and row, and not on the slot or on what stands beside it. No Python works slot by slot while cells are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from scmulan.automaton import CellAutomaton
from scmulan.csentence import Ids, Vocabulary
from scmulan.decoding.coupled import CoupledDraws
from scmulan.decoding.sampling import Sampling, draw, uniform_draws
from scmulan.engines.base import CellRequest
from scmulan.engines.row_rates import RowRates

COLUMN_CUTS = (0.0, 0.75, 0.9375)
"""Where the gene columns are cut: a row that has passed a cut needs no logit of a gene before it. Detection rises with the id, so most
steps of a cell stand near the end."""
LogitsOf = Callable[[torch.Tensor, int], torch.Tensor]
"""Logits of some of the rows asked about, without the genes before a column: (rows, column) to (rows, V - column)."""


class CellRows:
    """Slots for cells that are being written.

    Parameters
    ----------
    n_slots : how many cells may be written at once
    context : longest sentence, in ids

    Attributes
    ----------
    step : (slots,) ids that each cell has taken after ``<cell>``
    room : (slots,) how many it may take
    """

    def __init__(self, vocabulary: Vocabulary, n_slots: int, context: int, device: torch.device | str = "cpu"):
        self.vocabulary, self.context, self.device = vocabulary, context, torch.device(device)
        self.automaton = CellAutomaton(vocabulary, device)
        self.automaton.begin(n_slots)
        # of each slot in one tensor, so that one operation takes those of some slots; its depth is -1 where it is to be drawn
        self._of_slots = torch.zeros(n_slots, 4, dtype=torch.long, device=device)
        self.step, self.room, self._depth, self._sampling = self._of_slots.unbind(1)
        self._depth[:] = -1
        self._uniform = torch.zeros(n_slots, context + 1, device=device)
        self._rates = RowRates(vocabulary, n_slots, self.device)
        self._coupled: CoupledDraws | None = None
        self._held: list[Sampling | None] = [None] * n_slots
        self._samplings: list[Sampling] = []
        firsts = sorted({int(cut * vocabulary.n_genes) for cut in COLUMN_CUTS})
        self._cuts = torch.tensor(firsts, device=device)
        self._columns = [(first, vocabulary.without_genes_before(first)) for first in firsts]

    def put(self, slots: Sequence[int], requests: Sequence[CellRequest], sampling: Sampling) -> None:
        """Begin cells in slots, whatever stood there before; each has just read its prompt and ``<cell>``."""
        v, device = self.vocabulary, self.device
        every = np.ones(v.n_genes, dtype=bool)
        panel_BG = np.stack([every if request.panel is None else request.panel for request in requests])
        places = torch.tensor(slots, device=device)
        begun = CellAutomaton(v, device)
        begun.begin(len(slots), panel=torch.from_numpy(panel_BG), forced=[request.forced for request in requests])
        self.automaton.put(places, begun)
        room = [self.context - len(request.prompt) - 1 for request in requests]
        rows = np.array([request.row for request in requests])
        self.step[places] = 0
        self.room[places] = torch.tensor(room, device=device)
        self._depth[places] = torch.tensor([-1 if request.depth is None else request.depth for request in requests], device=device)
        self._uniform[places, : max(room) + 1] = uniform_draws(sampling.seed, rows, max(room) + 1).to(device)
        self._rates.put(slots, [request.rates for request in requests])
        self._hold(slots, replace(sampling, seed=0))
        if sampling.coupled:
            self._coupled = self._coupled or CoupledDraws(len(self.step), v, device)
            self._coupled.put(slots, sampling.seed, rows)

    def _hold(self, slots: Sequence[int], sampling: Sampling) -> None:
        """How the cells in some slots are drawn; ways that no slot has any more are let go."""
        for slot in slots:
            self._held[slot] = sampling
        self._samplings = list(dict.fromkeys(each for each in self._held if each is not None))
        number = {each: place for place, each in enumerate(self._samplings)}
        self._sampling[:] = torch.tensor([-1 if each is None else number[each] for each in self._held], device=self.device)

    def choose(self, slots_B: torch.Tensor, logits_of: LogitsOf) -> torch.Tensor:
        """The next id of each cell in some slots, ``pad`` where it is done; (B,). Asked again at the same step it is the same."""
        automaton, n_ways = self.automaton, max(1, len(self._samplings))
        step_B, room_B, depth_B, sampling_B = self._of_slots[slots_B].unbind(1)
        phase_B, last_gene_B = automaton.state_BF[slots_B, :2].unbind(1)
        is_given_B = (step_B == 0) & (depth_B >= 0)
        chosen_B = torch.where(is_given_B, depth_B, self.vocabulary.pad)
        left_B = room_B - step_B
        is_short = bool((left_B <= 2).any())
        uniform_B = self._uniform[slots_B, step_B.clamp(max=self.context)]
        way_B = (torch.bucketize(last_gene_B + 1, self._cuts, right=True) - 1) * n_ways + sampling_B
        way_B = way_B.masked_fill_(is_given_B | (phase_B == automaton.DONE), -1)
        ways = sorted(set(way_B.tolist()))
        for way in ways:
            if way < 0:
                continue
            (first, vocabulary), sampling = self._columns[way // n_ways], self._samplings[way % n_ways]
            at = (way_B == way).nonzero().squeeze(1) if len(ways) > 1 else torch.arange(len(slots_B), device=self.device)
            rows = slots_B[at]
            legal_BV = automaton.part(rows, first, vocabulary).legal(left=left_B[at] if is_short else None)
            logits_BV = self._rates.added(logits_of(at, first), rows, automaton, vocabulary, first)
            coupled = self._coupled.at(rows, automaton.level[rows], first) if sampling.coupled and self._coupled else None
            ids = draw(logits_BV, legal_BV, uniform_B[at], sampling, vocabulary, coupled)
            if coupled and self._coupled:
                self._coupled.genes_BG[rows, first:] = coupled[0]
            chosen_B[at] = torch.where(ids >= vocabulary.first_gene, ids + first, ids) if first else ids
        return chosen_B

    def advance(self, slots_B: torch.Tensor, ids_B: torch.Tensor) -> None:
        """Read the id that each cell in some slots has taken."""
        self.automaton.advance(ids_B, slots_B)
        self.step[slots_B] += 1

    def replay(self, slot: int, ids: Ids) -> None:
        """Read all that a cell took before it was set aside."""
        slots = torch.tensor([slot], device=self.device)
        for number in ids.tolist():
            self.advance(slots, torch.tensor([number], device=self.device))
