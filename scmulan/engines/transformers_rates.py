"""What a transformers model expects cells to hold: of many cells the sums that rates are fitted from, and of each cell the counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from scmulan.automaton import legal_targets
from scmulan.csentence import LEVEL_COUNTS, N_LEVELS, Ids, Vocabulary
from scmulan.training.loss import plan_chunks, slope_sums

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

LEAST_EXPECTED = 1e-4
"""Of fewer counts none are told, so that what is told of many cells stays sparse."""
Sums = npt.NDArray[np.float64]


@torch.inference_mode()
def taken_and_expected(engine: TransformersEngine, prompts: Sequence[Ids], cells: Sequence[Ids]) -> tuple[Sums, Sums]:
    """How often these cells take each id, before their first level and after it, and how often the model expects them to; (2, ids) each.

    Parameters
    ----------
    prompts, cells : ids of each cell's prompt, and of the cell; at least one

    Expected is the sum of the id's chances wherever it could have been taken.
    """
    v = engine.vocabulary
    taken_2V, slopes_2V = np.zeros((2, v.size)), np.zeros((2, v.size))
    whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, cells, strict=True)]
    for rows in engine.buckets([len(ids) for ids in whole]):
        ids_BT, _ = engine.padded([whole[row] for row in rows])
        states_BTD = engine.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        ids = np.concatenate([whole[row] for row in rows])
        # the ids of cells, not <cell>
        learnt = np.concatenate([np.arange(len(whole[row])) > len(prompts[row]) for row in rows])
        after_T = np.concatenate([np.append(np.zeros(len(prompts[row]), dtype=np.int64), after_level(cells[row], v)) for row in rows])
        np.add.at(taken_2V, (after_T[:-1][learnt[1:]], ids[1:][learnt[1:]]), 1)
        states_TD = torch.cat([states_BTD[place, : len(whole[row])] for place, row in enumerate(rows)])
        after_T2 = torch.nn.functional.one_hot(torch.from_numpy(after_T), 2).float().to(engine.device)
        slopes = slope_sums(states_TD, engine.output_VD, after_T2, plan_chunks(legal_targets(ids, learnt, v), v), v)
        slopes_2V += slopes.double().cpu().numpy()
    return taken_2V, taken_2V + slopes_2V


@torch.inference_mode()
def counts_along(engine: TransformersEngine, prompts: Sequence[Ids], cells: Sequence[Ids]) -> sp.csr_matrix:
    """Counts that the model expects along written cells; (N, vocabulary genes), float32.

    Of each gene, the sum over a cell's levels of its chance of being taken there, times the level's count. A written cell takes a gene
    or does not; its chances say how nearly it did, so that few cells tell what many would.
    """
    v, found = engine.vocabulary, [sp.csr_matrix((1, 0))] * len(cells)
    genes = slice(v.first_gene, v.last_gene)
    whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, cells, strict=True)]
    engine.fits(max(map(len, whole), default=0), "a sentence")
    for rows in engine.buckets([len(ids) for ids in whole]):
        ids_BT, _ = engine.padded([whole[row] for row in rows])
        states_BTD = engine.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        states_TD = torch.cat([states_BTD[at, : len(whole[row])] for at, row in enumerate(rows)])
        ids = np.concatenate([whole[row] for row in rows])
        learnt = np.concatenate([np.arange(len(whole[row])) > len(prompts[row]) for row in rows])
        counts_TK = np.zeros((len(ids), len(rows)), dtype=np.float32)
        ends = np.cumsum([len(whole[row]) for row in rows])
        for at, row in enumerate(rows):
            counts_TK[ends[at] - len(cells[row]) : ends[at], at] = _count_at(cells[row], v)
        chunks = plan_chunks(legal_targets(ids, learnt, v), v)
        sums_KV = slope_sums(states_TD, engine.output_VD, torch.from_numpy(counts_TK).to(engine.device), chunks, v).cpu().numpy()
        np.add.at(sums_KV.T, ids[1:][learnt[1:]], counts_TK[:-1][learnt[1:]])  # the slope of what is taken is its chance, less one
        for at, row in enumerate(rows):
            kept = np.where(sums_KV[at, genes] > LEAST_EXPECTED, sums_KV[at, genes], 0)
            found[row] = sp.csr_matrix(kept[None])
    return sp.vstack(found, format="csr")


def _count_at(cell: Ids, v: Vocabulary) -> npt.NDArray[np.float32]:
    """The count of the level that each id of a cell stands at, 0 before the first; (T,)."""
    is_level = (cell >= v.first_level) & (cell < v.end_of_cell)
    last = np.maximum.accumulate(np.where(is_level, np.arange(len(cell)), -1))
    level = np.where(last >= 0, N_LEVELS - 1 - (cell[last] - v.first_level), 0)  # the highest level comes first
    return np.where(last >= 0, LEVEL_COUNTS[level], 0).astype(np.float32)


def after_level(ids: Ids, v: Vocabulary) -> Ids:
    """1 at the first level of a cell and at all that follows, 0 before; (T,)."""
    found: Ids = np.maximum.accumulate((ids >= v.first_level) & (ids < v.end_of_cell)).astype(np.int64)
    return found
