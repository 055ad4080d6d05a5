"""How many of some cells a model expects to take each gene, by the transformers engine."""

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


def expected_genes(engine: TransformersEngine, prompts: Sequence[Ids], cells: Sequence[Ids]) -> npt.NDArray[np.float64]:
    """How many of these cells the model expects to take each gene: the sum of its chances wherever it could have been taken; (n_genes,).

    Parameters
    ----------
    prompts, cells : ids of each cell's prompt, and of the cell; at least one

    The slope of the nats along a gene's logit is its chance less one where it is taken: a column of ones beside the hidden states, and one
    of zeros beside the output matrix, make the sum of slopes the gradient of that column.
    """
    v = engine.vocabulary
    taken = np.bincount(np.concatenate(cells), minlength=v.size)[v.first_gene : v.last_gene]
    weight = torch.nn.functional.pad(engine.output_VD.float(), (0, 1)).requires_grad_()  # its gradient adds up over the cells
    whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, cells, strict=True)]
    for rows in engine.buckets([len(ids) for ids in whole]):
        ids_BT, _ = engine.padded([whole[row] for row in rows])
        with torch.no_grad():
            states_BTD = engine.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        for place, row in enumerate(rows):
            learnt = np.zeros(len(whole[row]), dtype=bool)
            learnt[len(prompts[row]) + 2 :] = True  # not <cell> and its depth
            chunks = plan_chunks(legal_targets(whole[row], learnt, v), v)
            states = states_BTD[place, : len(whole[row])].float()
            ones = torch.ones(len(states), device=engine.device)
            nats, _ = legal_cross_entropy(torch.cat([states, ones[:, None]], 1), weight, ones, chunks, v)
            nats.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    slopes: npt.NDArray[np.float64] = weight.grad[v.first_gene : v.last_gene, -1].double().cpu().numpy()
    return slopes + taken
