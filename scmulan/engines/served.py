"""What the engines have in common that run on vLLM, in this process or by URL: cells and labels as sentences that it goes on with.

Hidden states, nats of cells, edits and words led by a grammar are the transformers engine's, which holds the same weights in this process:
vLLM gives hidden states only to a second engine of its own (pooling), no likelihood under the legal ids, and no beam under a grammar.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from scmulan.adapters_folder import CONFIG
from scmulan.csentence import BOUNDS, Ids
from scmulan.decoding.sampling import Sampling
from scmulan.decoding.trie import Trie
from scmulan.engines.asked import write_cell, write_words
from scmulan.engines.base import Advance, CellRequest
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import EngineError
from scmulan.model import Checkpoint

MOST_WEIGHED = 128
"""Ids that vLLM tells log-probabilities of at one place."""
RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
ENVIRONMENT = {RUNNER: "0", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
"""Set for vLLM where the user has not: its model runner V1, GiB for keys and values on a CPU (it would take half of the memory), silence.
On a GPU vLLM itself would choose its runner V2 and refuse a processor for V1."""

SPARE_ADAPTERS = 1
"""Slots for adapters that stay empty: on a CPU vLLM 0.32 adds the last slot to what the base writes beside an adapter (its PR 48421)."""
INSTEAD = "make a model of both with `scmulan adapter merge`, or fine-tune one of the layers alone (`adapter: {targets: [...]}`)"
"""What to do with an adapter that vLLM can't run: its classes of some models, as Qwen2's (0.32), take none beside the output matrix."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def logits_class() -> str:
    """scmulan's logits processor for the model runner that vLLM will use, as vLLM takes it."""
    is_v2 = os.environ.get(RUNNER, ENVIRONMENT[RUNNER]) == "1"
    return "scmulan.engines.vllm_logits:CellLogits" + ("V2" if is_v2 else "")


def highest_rank(adapters: Sequence[Path]) -> int:
    """The rank that vLLM makes room for, one of those that it knows, so that each of some folders' adapters fits."""
    ranks = [int(json.loads((folder / CONFIG).read_text())["r"]) for folder in adapters]
    return next(one for one in RANKS if one >= max(ranks))


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence to go on with.

    Attributes
    ----------
    ids : what stands already
    asked : the text for scmulan's logits processor (``scmulan.engines.asked``)
    most : how many ids may be added
    stop : the id that ends it
    weighed : ids whose log-probability is wanted at the next place
    adapter : the one that goes on with it, whatever the others beside it have; the one in use where not given
    """

    ids: Ids
    asked: str
    most: int
    stop: int | None = None
    weighed: Sequence[int] = ()
    adapter: str | None = None


@dataclass(frozen=True)
class Continued:
    """Ids that were added, and log-probabilities, nats, of those that were weighed."""

    ids: Ids
    weighed: Mapping[int, float]


class ServedEngine(TransformersEngine):
    """An engine whose sentences are continued by vLLM.

    Attributes
    ----------
    scores_here : whether labels are weighed by the transformers engine too, in this process, and not by vLLM
    aside : entered while a vLLM elsewhere is waited for and nothing of the engine is used, so that others may go on with it meanwhile
    """

    scores_here = False

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", dtype: torch.dtype | None = None):
        super().__init__(checkpoint, device=device, dtype=dtype)
        self.aside: Callable[[], AbstractContextManager[None]] = nullcontext

    @abstractmethod
    def run(self, sentences: Sequence[Sentence], on_sentence: Advance | None = None) -> Iterator[Continued]:
        """Each sentence's continuation, in their order."""
        ...

    def sentence(self, request: CellRequest, sampling: Sampling, adapter: str | None = None) -> Sentence:
        """A cell to be written, as a sentence to go on with."""
        v = self.vocabulary
        self.fits(len(request.prompt) + 9, "a prompt")
        asked, most = write_cell(request, sampling, v.n_genes), self.context - len(request.prompt) - 1
        return Sentence(ids=np.append(request.prompt, v.cell), asked=asked, most=most, stop=v.end_of_cell, adapter=adapter)

    def generate(self, requests: Sequence[CellRequest], sampling: Sampling, *, on_cell: Advance | None = None) -> list[Ids]:
        """One cell a request, from ``<cell>`` to ``</cell>``, as the transformers engine draws it, but for the rounding of logits."""
        v = self.vocabulary
        sentences = [self.sentence(request, sampling) for request in requests]
        found = [np.concatenate([[v.cell], each.ids]) for each in self.run(sentences, on_cell)]
        open_ended = sum(int(cell[-1] != v.end_of_cell) for cell in found)
        if open_ended:
            raise EngineError(f"vLLM left {open_ended:,} of {len(found):,} cells open; needed one that runs scmulan's logits processor")
        return found

    def score(self, prompts: Sequence[Ids], answers: Sequence[Ids], *, on_cell: Advance | None = None) -> npt.NDArray[np.float64]:
        """Log-probability of each answer after each prompt; shape (prompts, answers), nats.

        By vLLM the inner nodes of the answers' trie are asked one by one, behind a prompt that it reads once: some hundred sentences a
        prompt, which on a CPU take far longer than the transformers engine's one (docs/benchmarks.md, "Serving").
        """
        if self.scores_here:
            return super().score(prompts, answers, on_cell=on_cell)
        trie, v = Trie.of(answers), self.vocabulary
        self.fits(max((len(prompt) for prompt in prompts), default=0) + int(trie.depth.max()) + 1, "a prompt with its answer")
        asked = [(path, part) for path, below in _places(trie) for part in np.split(below, range(MOST_WEIGHED, len(below), MOST_WEIGHED))]
        sentences = [
            Sentence(
                ids=np.concatenate([prompt, path]),
                asked=write_words(bool(len(path)) and len(BOUNDS) <= int(path[-1]) < v.text[0]),
                most=1,
                weighed=trie.token[nodes].tolist(),
            )
            for prompt in prompts
            for path, nodes in asked
        ]
        told, nodes_BN = self.run(sentences), np.zeros((len(prompts), len(trie.token)))
        for row in range(len(prompts)):
            for _, nodes in asked:
                weighed = next(told).weighed
                nodes_BN[row, nodes] = [weighed[number] for number in trie.token[nodes].tolist()]
            if on_cell:
                on_cell(1)
        found: npt.NDArray[np.float64] = trie.log_probabilities(torch.from_numpy(nodes_BN)).numpy()
        return found


def _places(trie: Trie) -> list[tuple[Ids, Ids]]:
    """The ids that lead to each place where a trie branches, and the nodes below it."""
    paths = [np.zeros(0, dtype=np.int64), *(_path(trie, int(node)) for node in trie.inner)]
    return [(path, np.flatnonzero(trie.slot == slot)) for slot, path in enumerate(paths)]


def _path(trie: Trie, node: int) -> Ids:
    found = list[int]()
    while node >= 0:
        found.append(int(trie.token[node]))
        node = int(trie.parent[node])
    return np.array(found[::-1], dtype=np.int64)
