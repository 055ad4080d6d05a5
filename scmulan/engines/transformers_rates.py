"""What a transformers model expects cells to hold: of many cells the sums that rates are fitted from, and of each cell the counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    Expected is the sum of the id's chances wherever it could have been taken.

    Parameters
    ----------
    prompts, cells : ids of each cell's prompt, and of the cell; at least one
    """
    v = engine.vocabulary
    taken_2V, slopes_2V = np.zeros((2, v.size)), np.zeros((2, v.size))
    for batch in _batches(engine, prompts, cells):
        after_T = np.zeros(len(batch.ids), dtype=np.int64)
        for row, place in batch.places.items():
            after_T[place] = after_level(cells[row], v)
        np.add.at(taken_2V, (after_T[:-1][batch.learnt[1:]], batch.ids[1:][batch.learnt[1:]]), 1)
        slopes_2V += batch.slopes(engine, np.eye(2, dtype=np.float32)[after_T])
    return taken_2V, taken_2V + slopes_2V


@torch.inference_mode()
def counts_along(engine: TransformersEngine, prompts: Sequence[Ids], cells: Sequence[Ids]) -> sp.csr_matrix:
    """Counts that the model expects along written cells; (N, vocabulary genes), float32.

    Of each gene, the sum over a cell's levels of its chance of being taken there, times the level's count. A written cell takes a gene
    or does not; its chances say how nearly it did, so that few cells tell what many would.
    """
    v, found = engine.vocabulary, [sp.csr_matrix((1, 0))] * len(cells)
    genes = slice(v.first_gene, v.last_gene)
    for batch in _batches(engine, prompts, cells):
        counts_TK = np.zeros((len(batch.ids), len(batch.places)), dtype=np.float32)
        for at, (row, place) in enumerate(batch.places.items()):
            counts_TK[place, at] = _count_at(cells[row], v)
        sums_KV = batch.slopes(engine, counts_TK)
        # the slope of what is taken is its chance, less one
        np.add.at(sums_KV.T, batch.ids[1:][batch.learnt[1:]], counts_TK[:-1][batch.learnt[1:]])
        for row, sums_V in zip(batch.places, sums_KV, strict=True):
            found[row] = sp.csr_matrix(np.where(sums_V[genes] > LEAST_EXPECTED, sums_V[genes], 0)[None])
    return sp.vstack(found, format="csr", dtype=np.float32)


@dataclass(frozen=True)
class _Batch:
    """Some sentences of a prompt and a cell, one behind another.

    Attributes
    ----------
    places : of each row, in the order of the batch, where its cell stands among the ids
    ids : (T,)
    learnt : (T,) bool, the ids of cells after ``<cell>``
    states_TD : hidden states
    """

    places: dict[int, slice]
    ids: Ids
    learnt: npt.NDArray[np.bool_]
    states_TD: torch.Tensor

    def slopes(self, engine: TransformersEngine, weights_TK: npt.NDArray[np.float32]) -> Sums:
        """Of each id the sum over places of its chance, less one where it is taken, by weights of the places; (K, ids)."""
        chunks = plan_chunks(legal_targets(self.ids, self.learnt, engine.vocabulary), engine.vocabulary)
        weights = torch.from_numpy(weights_TK).to(engine.device)
        found: Sums = slope_sums(self.states_TD, engine.output_VD, weights, chunks, engine.vocabulary).double().cpu().numpy()
        return found


def _batches(engine: TransformersEngine, prompts: Sequence[Ids], cells: Sequence[Ids]) -> Iterator[_Batch]:
    """Every sentence, read in batches."""
    whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, cells, strict=True)]
    engine.fits(max(map(len, whole), default=0), "a sentence")
    for rows in engine.buckets([len(ids) for ids in whole]):
        ids_BT, _ = engine.padded([whole[row] for row in rows])
        states_BTD = engine.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        ends = np.cumsum([len(whole[row]) for row in rows]).tolist()
        yield _Batch(
            places={row: slice(end - len(cells[row]), end) for row, end in zip(rows, ends, strict=True)},
            ids=np.concatenate([whole[row] for row in rows]),
            learnt=np.concatenate([np.arange(len(whole[row])) > len(prompts[row]) for row in rows]),
            states_TD=torch.cat([states_BTD[at, : len(whole[row])] for at, row in enumerate(rows)]),
        )


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
