"""What a transformers model holds at the places inside cells: hidden states, and the logit that each gene has wherever it may be taken.

A level is a list of genes in id order (`scmulan.hazard`): a gene is read once in each level, at the last id before it, until it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from scmulan.csentence import Ids
from scmulan.engines.base import Advance, Engine
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import EngineError
from scmulan.hazard import OFFSET


@dataclass(frozen=True)
class Readings:
    """How some genes stand in one cell.

    Attributes
    ----------
    log_odds : (levels of the cell, genes) float32, log-odds of taking the gene where the level comes to it
    may_be_taken : (levels, genes) bool, the gene did not stand at a higher level already
    is_taken : (levels, genes) bool
    """

    log_odds: npt.NDArray[np.float32]
    may_be_taken: npt.NDArray[np.bool_]
    is_taken: npt.NDArray[np.bool_]

    @property
    def hazard(self) -> npt.NDArray[np.float64]:
        """Each gene's cumulative hazard over the levels that came to it; (genes,). The chance to be taken is 1 - exp(-hazard)."""
        passed: npt.NDArray[np.float64] = np.where(self.may_be_taken, np.logaddexp(0, self.log_odds.astype(np.float64)), 0).sum(0)
        return passed

    @property
    def nats(self) -> npt.NDArray[np.float64]:
        """What each gene itself adds to the nats of the cell: being passed by, and being taken; (genes,)."""
        found: npt.NDArray[np.float64] = self.hazard - np.where(self.is_taken, self.log_odds, 0).sum(0)
        return found


def of_transformers(engine: Engine) -> TransformersEngine:
    """The engine, if it is one that shows its hidden states; EngineError otherwise."""
    if not isinstance(engine, TransformersEngine):
        raise EngineError(f"{type(engine).__name__} shows no hidden states inside of cells; open the model with the transformers engine")
    return engine


@torch.inference_mode()
def states_of_cells(
    engine: Engine, prompts: Sequence[Ids], cells: Sequence[Ids], *, layer: int = -1, on_cell: Advance | None = None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Row and hidden states of each cell's ids after its prompt, in whatever order; (ids of the cell, D) float32.

    Parameters
    ----------
    layer : after which layer, 0 being the embeddings; -1 is the last, through the final norm
    """
    engine = of_transformers(engine)
    depth = engine.lm.config.num_hidden_layers
    if not -1 <= layer <= depth:
        raise EngineError(f"layer {layer}: the model has {depth}; needed 0 (the embeddings) to {depth}, or -1 for the last")
    whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, cells, strict=True)]
    engine.fits(max(map(len, whole), default=0), "a sentence")
    for rows in engine.buckets([len(ids) for ids in whole]):
        ids_BT, _ = engine.padded([whole[row] for row in rows])
        out = engine.body(input_ids=ids_BT, use_cache=False, output_hidden_states=layer >= 0)
        states_BTD = out.last_hidden_state if layer < 0 else out.hidden_states[layer]
        for place, row in enumerate(rows):
            yield row, states_BTD[place, len(prompts[row]) : len(whole[row])].float()
        if on_cell:
            on_cell(len(rows))


def readings(
    engine: Engine, prompts: Sequence[Ids], cells: Sequence[Ids], columns: npt.ArrayLike, *, on_cell: Advance | None = None
) -> Iterator[tuple[int, Readings]]:
    """Row of each cell, in whatever order, and how genes of some vocabulary columns stand in it."""
    wanted, engine = np.asarray(columns, dtype=np.int64), of_transformers(engine)
    output_KD = engine.output_VD[torch.from_numpy(engine.vocabulary.first_gene + wanted).to(engine.device)].float()
    for row, states_TD in states_of_cells(engine, prompts, cells, on_cell=on_cell):
        yield row, _of_cell(engine, cells[row], states_TD, wanted, output_KD)


@torch.inference_mode()
def _of_cell(
    engine: TransformersEngine, cell: Ids, states_TD: torch.Tensor, wanted: npt.NDArray[np.int64], output_KD: torch.Tensor
) -> Readings:
    """Levels one after another: a gene is read at the last place of the level that stands before it."""
    v = engine.vocabulary
    starts = np.flatnonzero((cell >= v.first_level) & (cell < v.end_of_cell))
    ends = np.append(starts[1:], len(cell) - 1)
    log_odds = np.zeros((len(starts), len(wanted)), np.float32)
    may_be, taken = np.ones(log_odds.shape, bool), np.zeros(log_odds.shape, bool)
    open_K = np.ones(len(wanted), bool)
    for level, (start, end) in enumerate(zip(starts, ends, strict=True)):
        genes = cell[start + 1 : end] - v.first_gene
        at = torch.from_numpy(start + np.searchsorted(genes, wanted)).to(states_TD.device)
        log_odds[level] = ((states_TD[at] * output_KD).sum(1) - OFFSET).cpu().numpy()
        may_be[level], taken[level] = open_K, np.isin(wanted, genes)
        open_K = open_K & ~taken[level]
    return Readings(log_odds, may_be, taken)
