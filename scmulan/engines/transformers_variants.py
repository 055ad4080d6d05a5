"""Variants of a prompt, such as a cell with one gene edited, answered upon the keys and values of what they share with it.

A causal model reads the ids before the first difference alike, so only those from there on are run, exactly as if each variant had been
read by itself. Variants that part from the prompt at like places go together. Limit: where a model's layers are not known to be those of
Qwen3, nothing is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from scmulan.csentence import Ids
from scmulan.decoding.trie import Trie
from scmulan.engines.base import Advance, Engine
from scmulan.engines.transformers import LIKE_QWEN3, KeysValues, TransformersEngine

VARIANT_TOKENS = 2048
"""Ids that are run at once, those of the answers among them: fewer than of whole prompts, for keys and values of the start come on top."""


def shares_starts(engine: Engine) -> bool:
    """Whether an engine can read variants upon what they share."""
    return isinstance(engine, TransformersEngine) and engine.lm.config.model_type in LIKE_QWEN3


def score_variants(
    engine: Engine, prompt: Ids, variants: Sequence[Ids], answers: Sequence[Ids], *, on_variant: Advance | None = None
) -> npt.NDArray[np.float64]:
    """As ``engine.score`` of the variants, without reading again what they share with the prompt; (variants, answers), nats."""
    if not isinstance(engine, TransformersEngine) or not shares_starts(engine):
        return engine.score(variants, answers, on_cell=on_variant)
    trie, found = Trie.of(answers), np.zeros((len(variants), len(answers)))
    engine.fits(max(map(len, variants), default=0) + int(trie.depth.max()) + 1, "a prompt with its answer")

    def answer(rows: Sequence[int], start: KeysValues | None) -> None:
        states_BSD = engine.read([variants[row] for row in rows], trie, start)
        found[rows] = trie.log_probabilities(engine.node_log_probabilities(states_BSD, trie)).cpu().numpy()

    _each_bunch(engine, prompt, variants, len(trie.inner), answer, on_variant)
    return found


def hidden_variants(
    engine: Engine, prompt: Ids, variants: Sequence[Ids], after: Sequence[int], *, on_variant: Advance | None = None
) -> npt.NDArray[np.float32]:
    """As ``engine.hidden`` at the ids ``after`` the variants, without reading again what they share; (variants, after, D)."""
    if not isinstance(engine, TransformersEngine) or not shares_starts(engine):
        return engine.hidden(variants, after=after, on_cell=on_variant)
    trie = Trie.of([np.array([number, engine.vocabulary.eos]) for number in after])
    found = np.zeros((len(variants), len(after), engine.lm.config.hidden_size), np.float32)
    engine.fits(max(map(len, variants), default=0) + 1, "a prompt")

    def answer(rows: Sequence[int], start: KeysValues | None) -> None:
        found[rows] = engine.read([variants[row] for row in rows], trie, start)[:, 1:].float().cpu().numpy()

    _each_bunch(engine, prompt, variants, len(after), answer, on_variant)
    return found


@torch.inference_mode()
def _each_bunch(
    engine: TransformersEngine,
    prompt: Ids,
    variants: Sequence[Ids],
    extra: int,
    answer: Callable[[Sequence[int], KeysValues | None], None],
    on_variant: Advance | None,
) -> None:
    """Have variants answered in bunches, each with the keys and values of what all of the bunch begin with."""
    shared = np.array([_shared(prompt, variant) for variant in variants], dtype=np.int64)
    longest = int(shared.max(initial=0))
    cache = DynamicCache(config=engine.lm.config)
    if longest:
        engine.fill(cache, torch.from_numpy(prompt[None, :longest]).to(engine.device))
    for rows, known in _bunches(shared, np.array([len(variant) for variant in variants]), extra):
        start = [(layer.keys[:, :, :known], layer.values[:, :, :known]) for layer in cache.layers] if known else None
        answer(rows, start)
        if on_variant:
            on_variant(len(rows))


def _shared(prompt: Ids, variant: Ids) -> int:
    """How many ids two prompts begin with alike; not the variant's last, at which something is asked."""
    most = min(len(prompt), len(variant) - 1)
    differs = prompt[:most] != variant[:most]
    return int(differs.argmax()) if differs.any() else most


def _bunches(shared: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], extra: int) -> Iterator[tuple[list[int], int]]:
    """Rows that part from the prompt at like places, with how many ids all of them share with it."""
    rows: list[int] = []
    longest = 0
    for row in np.lexsort((lengths, -shared)).tolist():
        longest = max(longest, int(lengths[row]))
        if rows and (len(rows) + 1) * (longest - int(shared[row]) + extra) > VARIANT_TOKENS:
            yield rows, int(shared[rows[-1]])
            rows, longest = [], int(lengths[row])
        rows.append(row)
    if rows:
        yield rows, int(shared[rows[-1]])
