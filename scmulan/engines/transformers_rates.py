"""How often some cells take each gene, level and depth, and how often a model expects them to, by the transformers engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from scmulan.automaton import legal_targets
from scmulan.csentence import Ids, Vocabulary
from scmulan.training.loss import plan_chunks, slope_sums

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

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
        after_T = np.concatenate([np.append(np.zeros(len(prompts[row]), dtype=np.int64), _after_level(cells[row], v)) for row in rows])
        np.add.at(taken_2V, (after_T[:-1][learnt[1:]], ids[1:][learnt[1:]]), 1)
        states_TD = torch.cat([states_BTD[place, : len(whole[row])] for place, row in enumerate(rows)])
        after_T2 = torch.nn.functional.one_hot(torch.from_numpy(after_T), 2).float().to(engine.device)
        slopes = slope_sums(states_TD, engine.output_VD, after_T2, plan_chunks(legal_targets(ids, learnt, v), v), v)
        slopes_2V += slopes.double().cpu().numpy()
    return taken_2V, taken_2V + slopes_2V


def _after_level(ids: Ids, v: Vocabulary) -> Ids:
    """1 at the first level of a cell and at all that follows, 0 before; (T,)."""
    found: Ids = np.maximum.accumulate((ids >= v.first_level) & (ids < v.end_of_cell)).astype(np.int64)
    return found
