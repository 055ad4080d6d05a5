"""How the transformers engine writes cells: a batch under its automaton, on a static cache of keys and values, to the ends of its cells.

Rows that end early are taken out; a row that has passed a cut of the gene columns needs no logit of a gene before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import StaticCache

from scmulan.automaton import CellAutomaton
from scmulan.csentence import Ids
from scmulan.decoding.coupled import CoupledDraws
from scmulan.decoding.sampling import Sampling, draw, uniform_draws
from scmulan.engines.base import Advance, CellRequest
from scmulan.engines.row_rates import RowRates

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

SHRINK_BELOW = 0.75
COLUMN_CUTS = (0.0, 0.75, 0.9375)
"""Where the gene columns are cut: a row that has passed a cut needs no logit of a gene before it. Detection rises with the id, so most
steps of a cell stand near the end."""


class CellWriter:
    """Writes one batch of cells, their depths given, to their ends."""

    def __init__(self, engine: TransformersEngine, requests: Sequence[CellRequest], sampling: Sampling):
        self.engine, self.requests, self.sampling = engine, requests, sampling
        v, device = engine.vocabulary, engine.device
        longest = max(len(request.prompt) for request in requests) + 1
        room = [engine.context - len(request.prompt) - 1 for request in requests]  # a row's own, whatever stands beside it
        self.least_room, self.room = min(room), max(room)
        self.room_B = torch.tensor(room, device=device)
        self.start = longest
        ids_BT = torch.full((len(requests), longest), v.pad, dtype=torch.long)
        self.padding = torch.zeros(len(requests), dtype=torch.long)
        for row, request in enumerate(requests):
            ids_BT[row, longest - 1 - len(request.prompt) : -1] = torch.from_numpy(np.asarray(request.prompt, dtype=np.int64))
            ids_BT[row, -1] = v.cell
            self.padding[row] = longest - 1 - len(request.prompt)
        self.prompt_BT, self.padding = ids_BT.to(device), self.padding.to(device)
        self.automaton = CellAutomaton(v, device)
        every = np.ones(v.n_genes, dtype=bool)
        panel_BG = np.stack([every if request.panel is None else request.panel for request in requests])
        self.automaton.begin(len(requests), panel=torch.from_numpy(panel_BG), forced=[request.forced for request in requests])
        rows = np.array([request.row for request in requests])
        self.draws = uniform_draws(sampling.seed, rows, self.room + 1).to(device)
        self.coupled = CoupledDraws(sampling.seed, rows, v, device) if sampling.coupled else None
        self.depths = torch.tensor([request.depth for request in requests], device=device)
        self.rates = RowRates.of(requests, device)
        firsts = sorted({int(cut * v.n_genes) for cut in COLUMN_CUTS})
        self.cuts = torch.tensor(firsts, device=device)
        self.columns = [(first, v.without_genes_before(first), engine.output_from(first)) for first in firsts]

    def write(self, on_cell: Advance | None) -> list[Ids]:
        """Ids of each row's cell."""
        engine, v = self.engine, self.engine.vocabulary
        n_rows = len(self.requests)
        cache = StaticCache(config=engine.lm.config, max_cache_len=self.start + self.room)
        written = torch.full((n_rows, self.room + 1), v.pad, dtype=torch.long, device=engine.device)
        written[:, 0] = v.cell
        alive = torch.arange(n_rows, device=engine.device)
        ids_BT, step, length = self.prompt_BT, 0, self.start
        done = 0
        while len(alive) and step < self.room:
            states = self._forward(ids_BT, cache, length)
            if step == 0:
                chosen_B = self.depths
            else:
                chosen_B = self._draw(states[:, -1], self.draws[alive, step], self.room_B - step if self.least_room - step <= 2 else None)
            step += 1
            self.automaton.advance(chosen_B)
            written[alive, step] = chosen_B
            is_done = self.automaton.is_done
            ended = int(is_done.sum())
            if on_cell and ended > done:
                on_cell(ended - done)
            done = ended
            ids_BT, length = chosen_B[:, None], length + 1
            if ended == len(alive) or len(alive) - ended < SHRINK_BELOW * len(alive):
                kept = (~is_done).nonzero().squeeze(1)
                alive, ids_BT, done = alive[kept], ids_BT[kept], 0
                self.padding, self.room_B = self.padding[kept], self.room_B[kept]
                self.rates = None if self.rates is None else self.rates.keep(kept)
                if self.coupled is not None:
                    self.coupled.keep(kept)
                self.automaton.keep(kept)
                _keep_rows(cache, kept)
        cells = written.cpu().numpy()
        ends = (cells == v.end_of_cell).argmax(1)
        return [cell[: end + 1] for cell, end in zip(cells, ends, strict=True)]

    def _draw(self, states_BD: torch.Tensor, uniform_B: torch.Tensor, left_B: torch.Tensor | None) -> torch.Tensor:
        """The next id of each row, with no more gene columns than it still needs; shape (B,)."""
        first_gene = self.engine.vocabulary.first_gene
        chosen_B = torch.empty(len(states_BD), dtype=torch.long, device=states_BD.device)
        if self.coupled is not None:
            self.coupled.turn_to(self.automaton.level)
        passed = torch.bucketize(self.automaton.last_gene + 1, self.cuts, right=True) - 1
        for number, (first, vocabulary, output_VD) in enumerate(self.columns):
            rows = (passed == number).nonzero().squeeze(1)
            if not len(rows):
                continue
            legal_BV = self.automaton.part(rows, first, vocabulary).legal(left=None if left_B is None else left_B[rows])
            logits_BV = states_BD[rows] @ output_VD.T
            if self.rates is not None:
                logits_BV = self.rates.added(logits_BV, rows, self.automaton, vocabulary, first)
            coupled = None if self.coupled is None else (self.coupled.genes_BG[rows, first:], self.coupled.others_B[rows])
            ids = draw(logits_BV, legal_BV, uniform_B[rows], self.sampling, vocabulary, coupled)
            if self.coupled is not None and coupled is not None:
                self.coupled.genes_BG[rows, first:] = coupled[0]
            chosen_B[rows] = torch.where(ids >= first_gene, ids + first, ids)
        return chosen_B

    def _forward(self, ids_BT: torch.Tensor, cache: StaticCache, length: int) -> torch.Tensor:
        engine = self.engine
        n_new = ids_BT.shape[1]
        places = torch.arange(length - n_new, length, device=engine.device)
        position = (places[None] - self.padding[:, None]).clamp(min=0)
        slots = torch.arange(length, device=engine.device)
        seen = (slots[None, None, None] <= places[None, None, :, None]) & (slots >= self.padding[:, None])[:, None, None]
        if n_new > 1:
            seen = seen | (slots[None, None, None] == places[None, None, :, None])
        states: torch.Tensor = engine.body(
            input_ids=ids_BT, position_ids=position, attention_mask=seen, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return states


def _keep_rows(cache: StaticCache, rows: torch.Tensor) -> None:
    """Take rows out of a static cache."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows].contiguous(), layer.values[rows].contiguous()
        layer.max_batch_size = len(rows)
