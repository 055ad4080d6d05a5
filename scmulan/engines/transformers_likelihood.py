"""How likely a cell is after several prompts, with the rates (`scmulan.rates`) by which it would be written after each of them.

Prompts that begin alike, as those of one control cell and many perturbations, have their start read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from scmulan.automaton import legal_targets
from scmulan.csentence import Ids, Vocabulary
from scmulan.engines.transformers_rates import Sums, after_level
from scmulan.rates import RatesOfKind
from scmulan.training.loss import legal_cross_entropy, plan_chunks

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

IDS_AT_ONCE = 8192


@torch.inference_mode()
def rated_nats(
    engine: TransformersEngine,
    prompts: Sequence[Ids],
    cell: Ids,
    rates: Sequence[RatesOfKind | None],
    *,
    panel: npt.NDArray[np.bool_] | None = None,
) -> Sums:
    """Nats of a cell after each prompt when the prompt's rates are added to the logits, as they are when a cell is written; (prompts,).

    Parameters
    ----------
    panel : as in ``engine.nats``
    """
    engine.fits(max(map(len, prompts), default=0) + len(cell), "a sentence")
    known = _shared(prompts)
    start = _read(engine, prompts[0][:known])
    n_at_once = max(1, IDS_AT_ONCE // (max(map(len, prompts)) - known + len(cell)))
    rows = [slice(first, first + n_at_once) for first in range(0, len(prompts), n_at_once)]
    return np.concatenate([_nats(engine, start, known, prompts[some], cell, rates[some], panel) for some in rows])


def _shared(prompts: Sequence[Ids]) -> int:
    """How many ids all prompts begin with, short of the whole of any."""
    least = min(map(len, prompts)) - 1
    same = np.stack([prompt[:least] for prompt in prompts]) == prompts[0][:least]
    return int(np.append(same.all(0), False).argmin())


def _read(engine: TransformersEngine, ids: Ids) -> DynamicCache:
    cache = DynamicCache(config=engine.lm.config)
    if len(ids):
        engine.fill(cache, torch.from_numpy(np.asarray(ids, dtype=np.int64)[None]).to(engine.device))
    return cache


def _nats(
    engine: TransformersEngine,
    start: DynamicCache,
    known: int,
    prompts: Sequence[Ids],
    cell: Ids,
    rates: Sequence[RatesOfKind | None],
    panel: npt.NDArray[np.bool_] | None,
) -> Sums:
    v, whole = engine.vocabulary, [np.concatenate([prompt, cell]) for prompt in prompts]
    states_BTD = _states_after(engine, start, known, [ids[known:] for ids in whole])
    unread_KD = states_BTD.new_zeros(known, states_BTD.shape[2])  # nothing is asked at the start
    states_TD = torch.cat([torch.cat([unread_KD, states_BTD[row, : len(ids) - known]]) for row, ids in enumerate(whole)]).float()
    learnt = np.concatenate([np.arange(len(ids)) > len(prompt) for ids, prompt in zip(whole, prompts, strict=True)])
    chunks = plan_chunks(legal_targets(np.concatenate(whole), learnt, v), v)
    ones_T, added = torch.ones(len(states_TD), device=engine.device), _added(engine, prompts, cell, rates)
    panel_G = None if panel is None else torch.from_numpy(np.asarray(panel)).to(engine.device)
    _, nats_T = legal_cross_entropy(states_TD, engine.output_VD.float(), ones_T, chunks, v, panel_G=panel_G, added=added)
    of_row = np.repeat(np.arange(len(whole)), [len(ids) for ids in whole])
    total: Sums = np.bincount(of_row, nats_T.double().cpu().numpy(), minlength=len(whole)).astype(np.float64)
    return total


def _states_after(engine: TransformersEngine, start: DynamicCache, known: int, rests: Sequence[Ids]) -> torch.Tensor:
    """Last hidden states of what follows the start; (rows, longest, D)."""
    ids_BT, _ = engine.padded(rests)
    n_rows, length = ids_BT.shape
    cache = DynamicCache(config=engine.lm.config)
    for number, layer in enumerate(start.layers if known else ()):
        cache.update(layer.keys.expand(n_rows, -1, -1, -1), layer.values.expand(n_rows, -1, -1, -1), number)
    place_T = torch.arange(known, known + length, device=engine.device)
    seen = torch.arange(known + length, device=engine.device) <= place_T[:, None]
    states: torch.Tensor = engine.body(
        input_ids=ids_BT, position_ids=place_T[None], attention_mask=seen[None, None], past_key_values=cache, use_cache=True
    ).last_hidden_state
    return states


def _added(
    engine: TransformersEngine, prompts: Sequence[Ids], cell: Ids, rates: Sequence[RatesOfKind | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tables of what is added to logits, and which of them stands at each place of the prompts with the cell."""
    kinds = list({id(each): each for each in rates if each is not None}.values())
    number = {id(each): place for place, each in enumerate(kinds)}
    after = after_level(cell, engine.vocabulary)
    places = []
    for prompt, each in zip(prompts, rates, strict=True):
        of_cell = np.zeros(len(cell), dtype=np.int64) if each is None else 1 + 2 * number[id(each)] + after
        places.append(np.concatenate([np.zeros(len(prompt), dtype=np.int64), of_cell]))
    tables_KV = torch.from_numpy(_tables(kinds, engine.vocabulary)).to(engine.device)
    return tables_KV, torch.from_numpy(np.concatenate(places)).to(engine.device)


def _tables(kinds: Sequence[RatesOfKind], v: Vocabulary) -> npt.NDArray[np.float32]:
    """A row of zeros, then of each kind what is added before the first level and after it; (1 + 2 K, ids)."""
    found = np.zeros((1 + 2 * len(kinds), v.size), dtype=np.float32)
    for number, kind in enumerate(kinds):
        both = slice(1 + 2 * number, 3 + 2 * number)
        found[both, v.first_gene : v.last_gene] = kind.genes
        found[both, v.first_depth : v.end_of_cell + 1] = kind.frame
    return found
