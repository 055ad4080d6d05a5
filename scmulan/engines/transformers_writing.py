"""How the transformers engine writes cells: a batch under its automaton, on a static cache of keys and values, to the ends of its cells.

Rows that end early are taken out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import StaticCache

from scmulan.csentence import Ids
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance, CellRequest
from scmulan.engines.cell_rows import CellRows

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

SHRINK_BELOW = 0.75


class CellWriter:
    """Writes one batch of cells, their depths given, to their ends."""

    def __init__(self, engine: TransformersEngine, requests: Sequence[CellRequest], sampling: Sampling):
        self.engine, self.requests = engine, requests
        v, device = engine.vocabulary, engine.device
        longest = max(len(request.prompt) for request in requests) + 1
        self.room = max(engine.context - len(request.prompt) - 1 for request in requests)
        self.start = longest
        ids_BT = torch.full((len(requests), longest), v.pad, dtype=torch.long)
        self.padding = torch.zeros(len(requests), dtype=torch.long)
        for row, request in enumerate(requests):
            ids_BT[row, longest - 1 - len(request.prompt) : -1] = torch.from_numpy(np.asarray(request.prompt, dtype=np.int64))
            ids_BT[row, -1] = v.cell
            self.padding[row] = longest - 1 - len(request.prompt)
        self.prompt_BT, self.padding = ids_BT.to(device), self.padding.to(device)
        self.rows = CellRows(v, len(requests), engine.context, device)
        self.rows.put(range(len(requests)), requests, sampling)

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
            chosen_B = self.rows.choose(alive, functools.partial(self._logits, states[:, -1]))
            step += 1
            self.rows.advance(alive, chosen_B)
            written[alive, step] = chosen_B
            is_done = self.rows.automaton.is_done[alive]
            ended = int(is_done.sum())
            if on_cell and ended > done:
                on_cell(ended - done)
            done = ended
            ids_BT, length = chosen_B[:, None], length + 1
            if ended == len(alive) or len(alive) - ended < SHRINK_BELOW * len(alive):
                kept = (~is_done).nonzero().squeeze(1)
                alive, ids_BT, done = alive[kept], ids_BT[kept], 0
                self.padding = self.padding[kept]
                _keep_rows(cache, kept)
        cells = written.cpu().numpy()
        ends = (cells == v.end_of_cell).argmax(1)
        return [cell[: end + 1] for cell, end in zip(cells, ends, strict=True)]

    def _logits(self, states_BD: torch.Tensor, rows: torch.Tensor, first: int) -> torch.Tensor:
        return states_BD[rows] @ self.engine.output_from(first).T

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
