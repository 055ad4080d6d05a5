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
    """Sum of the chances of each gene wherever it could have been taken in these cells, and of taking it where it was; (n_genes,).

    The slope of the nats along a gene's logit is its chance less one where it is taken: a column of ones beside the hidden states, and one
    of zeros beside the output matrix, make the sum of slopes the gradient of that column.
    """
    v = engine.vocabulary
    found = np.zeros(v.n_genes)
    output_VD = engine.output_VD.float()
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
            weight = torch.nn.functional.pad(output_VD, (0, 1)).requires_grad_()
            nats, _ = legal_cross_entropy(torch.cat([states, ones[:, None]], 1), weight, ones, chunks, v)
            nats.backward()  # type: ignore[no-untyped-call]
            assert weight.grad is not None
            found += weight.grad[v.first_gene : v.last_gene, -1].double().cpu().numpy()
            cell = cells[row]
            found[cell[(cell >= v.first_gene) & (cell < v.last_gene)] - v.first_gene] += 1
    return found
