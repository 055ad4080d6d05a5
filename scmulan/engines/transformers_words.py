"""How the transformers engine writes words: the likeliest legal continuation that a beam finds, for several prompts at once.

What is legal is the caller's, one automaton a prompt; the log-probability is among all words, as training takes it, so that a reader who
was led by the grammar to an answer that the model thinks unlikely is told so. Taken greedily, a first word that was a little likelier led
to whole requests that were a thousand times less likely (`docs/decisions.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache

from scmulan.csentence import Ids
from scmulan.engines.base import WordAutomaton, Written

if TYPE_CHECKING:
    from scmulan.engines.transformers import TransformersEngine

BEAMS = 4
"""Continuations of a prompt that are gone on with at once."""


@dataclass(frozen=True)
class Begun:
    """A continuation that has not ended: of which prompt, what may come next, its ids, and its log-probability."""

    prompt: int
    automaton: WordAutomaton
    ids: tuple[int, ...] = ()
    log_probability: float = 0.0


@dataclass(frozen=True)
class Step:
    """One id more: the row of the continuation that it belongs to, the id, and the log-probability with it."""

    row: int
    number: int
    log_probability: float


def write_words(engine: TransformersEngine, prompts: Sequence[Ids], automata: Sequence[WordAutomaton]) -> list[Written]:
    """The likeliest continuations of prompts, padded on the left, until every automaton is done or the context is full."""
    device, longest = engine.device, max(len(prompt) for prompt in prompts)
    ids_BT = torch.full((len(prompts), longest), engine.vocabulary.pad, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
    ids_BT = ids_BT.to(device)
    padding_B1 = torch.tensor([[longest - len(prompt)] for prompt in prompts], device=device)
    cache, length = DynamicCache(config=engine.lm.config), longest
    begun = [Begun(number, automaton) for number, automaton in enumerate(automata)]
    ended: dict[int, Written] = {}
    while begun and length <= engine.context:
        logits_RV = _logits(engine, ids_BT, cache, padding_B1, length)
        steps = _best_steps(begun, logits_RV, ids_BT[:, -1].tolist(), engine.vocabulary.text[0])
        begun, rows = _gone_on(begun, steps, ended)
        if begun:
            parents = torch.tensor(rows, device=device)
            cache.batch_select_indices(parents)
            ids_BT, padding_B1 = torch.tensor([each.ids[-1:] for each in begun], device=device), padding_B1[parents]
        length += 1
    for each in sorted(begun, key=lambda one: -one.log_probability):  # the context is full
        ended.setdefault(each.prompt, _written(each.ids, each.log_probability))
    return [ended[number] for number in range(len(prompts))]


def _written(ids: Sequence[int], log_probability: float) -> Written:
    return Written(np.array(ids, dtype=np.int64), log_probability)


def _logits(engine: TransformersEngine, ids_BT: torch.Tensor, cache: DynamicCache, padding_B1: torch.Tensor, length: int) -> torch.Tensor:
    """Logits of words after each row; (rows, V), minus infinity at what is no word."""
    v, device = engine.vocabulary, engine.device
    places = torch.arange(length - ids_BT.shape[1], length, device=device)
    slots = torch.arange(length, device=device)
    seen = (slots[None, None, None] <= places[None, None, :, None]) & (slots >= padding_B1)[:, None, None]
    seen = seen | (slots[None, None, None] == places[None, None, :, None])
    states: torch.Tensor = engine.body(
        input_ids=ids_BT,
        position_ids=(places[None] - padding_B1).clamp(min=0),
        attention_mask=seen,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    logits_RV = (states[:, -1] @ engine.output_VD.T).float()
    logits_RV[:, v.first_depth : v.first_gene] = -torch.inf  # depths, levels, the end of a cell
    logits_RV[:, [v.pad, v.bos]] = -torch.inf
    logits_RV[:, v.last_gene :] = -torch.inf
    return logits_RV


def _best_steps(begun: Sequence[Begun], logits_RV: torch.Tensor, last_R: Sequence[int], first_word: int) -> list[list[Step]]:
    """The likeliest steps of each prompt that has continuations, at most `BEAMS`, likeliest first."""
    whole_R, words_R = torch.logsumexp(logits_RV, 1), torch.logsumexp(logits_RV[:, first_word:], 1)
    of_prompt: dict[int, list[Step]] = {}
    for row, each in enumerate(begun):
        legal = torch.from_numpy(np.asarray(each.automaton.legal(), dtype=np.int64)).to(logits_RV.device)
        # right after a field's token training knew only words
        among = words_R[row] if last_R[row] < first_word and int(legal.min()) >= first_word else whole_R[row]
        best = torch.topk(logits_RV[row, legal] - among, min(BEAMS, len(legal)))
        for place, value in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            of_prompt.setdefault(each.prompt, []).append(Step(row, int(legal[place]), each.log_probability + value))
    return [sorted(steps, key=lambda step: -step.log_probability)[:BEAMS] for steps in of_prompt.values()]


def _gone_on(begun: Sequence[Begun], steps: Sequence[Sequence[Step]], ended: dict[int, Written]) -> tuple[list[Begun], list[int]]:
    """The continuations with their steps taken and the rows that they came from; those that end go to ``ended``.

    What is less likely than one that has ended can only become less likely still, and is given up.
    """
    found: list[Begun] = []
    rows: list[int] = []
    for of_prompt in steps:
        for step in of_prompt:
            before = begun[step.row]
            best = ended.get(before.prompt)
            if best is not None and best.log_probability >= step.log_probability:
                continue
            automaton, ids = before.automaton.copy(), (*before.ids, step.number)
            automaton.advance(step.number)
            if automaton.is_done:
                ended[before.prompt] = _written(ids, step.log_probability)
            else:
                found.append(Begun(before.prompt, automaton, ids, step.log_probability))
                rows.append(step.row)
    best_of = {number: written.log_probability for number, written in ended.items()}
    live = [place for place, each in enumerate(found) if each.log_probability > best_of.get(each.prompt, -np.inf)]
    return [found[place] for place in live], [rows[place] for place in live]
