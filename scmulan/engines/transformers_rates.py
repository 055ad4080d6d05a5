"""How often some cells take each gene, level and depth, and how often a model expects them to, by the transformers engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from scmulan.automaton import legal_targets
from scmulan.csentence import Ids
from scmulan.training.loss import legal_cross_entropy, plan_chunks

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

Sums = npt.NDArray[np.float64]


def taken_and_expected(engine: TransformersEngine, prompts: Sequence[Ids], cells: Sequence[Ids]) -> tuple[Sums, Sums]:
    """How often these cells take each id, before their first level and after it, and how often the model expects them to; (2, ids) each.

    Parameters
    ----------
    prompts, cells : ids of each cell's prompt, and of the cell; at least one

    Expected is the sum of the id's chances wherever it could have been taken. The slope of the nats along an id's logit is its chance,
    less one where it is taken: with two columns beside the hidden states, one at the places before the first level or after it, and zeros
    beside the output matrix, the gradient of those zeros is the sum of slopes.
    """
    v = engine.vocabulary
    weight = torch.nn.functional.pad(engine.output_VD.float(), (0, 2)).requires_grad_()  # its gradient adds up over the cells
    taken_2V = np.zeros((2, v.size))
    whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, cells, strict=True)]
    for rows in engine.buckets([len(ids) for ids in whole]):
        ids_BT, _ = engine.padded([whole[row] for row in rows])
        with torch.no_grad():
            states_BTD = engine.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        for number, row in enumerate(rows):
            ids = whole[row]
            learnt = np.zeros(len(ids), dtype=bool)
            learnt[len(prompts[row]) + 1 :] = True  # not <cell>
            after_T = np.maximum.accumulate((ids >= v.first_level) & (ids < v.end_of_cell)).astype(np.int64)
            np.add.at(taken_2V, (after_T[:-1][learnt[1:]], ids[1:][learnt[1:]]), 1)
            after_T2 = torch.nn.functional.one_hot(torch.from_numpy(after_T), 2).to(engine.device)
            states = torch.cat([states_BTD[number, : len(ids)].float(), after_T2], 1)
            chunks = plan_chunks(legal_targets(ids, learnt, v), v)
            nats, _ = legal_cross_entropy(states, weight, torch.ones(len(ids), device=engine.device), chunks, v)
            nats.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    slopes_2V: Sums = weight.grad[: v.size, -2:].T.double().cpu().numpy()
    return taken_2V, taken_2V + slopes_2V
