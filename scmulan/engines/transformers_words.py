"""How the transformers engine writes words: the likeliest legal id, step by step, for several prompts at once.

What is legal is the caller's, one automaton a prompt; the log-probability is among all words, as training takes it, so that a reader who
was led by the grammar to an answer that the model thinks unlikely is told so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache

from scmulan.csentence import Ids
from scmulan.engines.base import WordAutomaton, Written

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine


def write_words(engine: TransformersEngine, prompts: Sequence[Ids], automata: Sequence[WordAutomaton]) -> list[Written]:
    """Greedy continuations of prompts, padded on the left, until every automaton is done or the context is full."""
    v, device = engine.vocabulary, engine.device
    longest = max(len(prompt) for prompt in prompts)
    ids_BT = torch.full((len(prompts), longest), v.pad, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
    ids_BT = ids_BT.to(device)
    padding_B1 = torch.tensor([[longest - len(prompt)] for prompt in prompts], device=device)
    cache = DynamicCache(config=engine.lm.config)
    written: list[list[int]] = [[] for _ in prompts]
    nats = np.zeros(len(prompts))
    length = longest
    while length <= engine.context and not all(automaton.is_done for automaton in automata):
        places = torch.arange(length - ids_BT.shape[1], length, device=device)
        slots = torch.arange(length, device=device)
        seen = (slots[None, None, None] <= places[None, None, :, None]) & (slots >= padding_B1)[:, None, None]
        seen = seen | (slots[None, None, None] == places[None, None, :, None])
        position = (places[None] - padding_B1).clamp(min=0)
        states: torch.Tensor = engine.body(
            input_ids=ids_BT, position_ids=position, attention_mask=seen, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_BV = (states[:, -1] @ engine.output_VD.T).float()
        logits_BV[:, v.first_depth : v.first_gene] = -torch.inf  # depths, levels, the end of a cell
        logits_BV[:, [v.pad, v.bos]] = -torch.inf
        logits_BV[:, v.last_gene :] = -torch.inf
        last_B = ids_BT[:, -1].tolist()
        chosen = []
        for row, automaton in enumerate(automata):
            if automaton.is_done:
                chosen.append(v.pad)
                continue
            number, cost = _choose(logits_BV[row], automaton.legal(), last_B[row], v.text[0])
            written[row].append(number)
            nats[row] += cost
            automaton.advance(number)
            chosen.append(number)
        ids_BT, length = torch.tensor(chosen, device=device)[:, None], length + 1
    return [Written(np.array(ids, dtype=np.int64), -float(cost)) for ids, cost in zip(written, nats, strict=True)]


def _choose(logits_V: torch.Tensor, legal: Ids, last: int, first_word: int) -> tuple[int, float]:
    """The likeliest legal id, and its nats among all words; right after a field's token training knew only words."""
    options = torch.from_numpy(np.asarray(legal, dtype=np.int64)).to(logits_V.device)
    among = logits_V[first_word:] if last < first_word and int(options.min()) >= first_word else logits_V
    best = int(options[logits_V[options].argmax()])
    return best, float(torch.logsumexp(among, 0) - logits_V[best])
