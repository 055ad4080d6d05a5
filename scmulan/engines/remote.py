"""A vLLM server by URL, which runs scmulan's logits processor (``scmulan serve`` starts such a one, see `scmulan.serving.vllm`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from scmulan.adapters_folder import Adapter
from scmulan.engines.asked import KEY
from scmulan.engines.base import Advance
from scmulan.engines.served import Continued, Sentence, ServedEngine
from scmulan.errors import EngineError
from scmulan.model import Checkpoint

PATIENCE = 600.0
"""Seconds that one sentence may take."""
TRIES = 4
"""How often a sentence is asked for while the server starts again."""
WAIT = 5.0
"""Seconds before it is asked for again, once more as long each time."""


class RemoteEngine(ServedEngine):
    """Runs a checkpoint on a server that has the same one.

    Parameters
    ----------
    url : of the server, as ``http://127.0.0.1:8001``
    model : the server's name of the base; that of its first model when not given
    key : sent as a bearer's token
    at_once : how many sentences are asked for at the same time
    tries : how often a sentence is asked for while the server can't be reached
    scores_here : weigh labels in this process, as where the server has no more than the same cores
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        url: str,
        *,
        model: str | None = None,
        key: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        at_once: int = 64,
        tries: int = TRIES,
        scores_here: bool = False,
    ):
        super().__init__(checkpoint, device=device, dtype=dtype)
        self.scores_here = scores_here
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        self.url, self.tries, self.at_once = url.rstrip("/"), tries, at_once
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, limits=limits)
        self._base = model or self._first_model()
        self._used = self._base

    def _first_model(self) -> str:
        names = [each["id"] for each in self._ask("GET", "/v1/models", tries=1)["data"]]
        return str(names[0])

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under a name, here and on the server, and use it."""
        super().add_adapter(name, adapter)
        known = [each["id"] for each in self._ask("GET", "/v1/models")["data"]]
        if name not in known:
            self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.folder.resolve())})
        self._used = name

    def use_adapter(self, name: str | None) -> None:
        """Answer with one of the adapters from now on, or with none."""
        super().use_adapter(name)
        self._used = name or self._base

    def run(self, sentences: Sequence[Sentence], on_sentence: Advance | None = None) -> Iterator[Continued]:
        """Each sentence's continuation, in their order; all of them are there before the first is given."""
        used, found = self._used, list[Continued]()  # while this is aside others use theirs
        with self.aside(), ThreadPoolExecutor(self.at_once) as pool:
            asked = [pool.submit(self._continue, used, each) for each in sentences]
            try:
                for each in asked:
                    found.append(each.result())
                    if on_sentence:
                        on_sentence(1)
            finally:  # where one is not to be had, or none are wanted any more
                pool.shutdown(wait=False, cancel_futures=True)
        yield from found

    def _continue(self, model: str, sentence: Sentence) -> Continued:
        body: dict[str, Any] = {
            "model": sentence.adapter or model,
            "prompt": sentence.ids.tolist(),
            "max_tokens": sentence.most,
            "temperature": 0.0,
            "ignore_eos": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "vllm_xargs": {KEY: sentence.asked},
        }
        if sentence.stop is not None:
            body["stop_token_ids"] = [sentence.stop]
        if sentence.weighed:
            body |= {"logprob_token_ids": list(sentence.weighed), "logprobs": len(sentence.weighed)}
        choice = self._ask("POST", "/v1/completions", body)["choices"][0]
        told = choice["logprobs"]["top_logprobs"][0] if sentence.weighed else {}
        weighed = {number: float(told[f"token_id:{number}"]) for number in sentence.weighed}
        return Continued(np.array(choice["token_ids"], dtype=np.int64), weighed)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, tries: int | None = None) -> Any:
        """The server's answer, asked for again while it can't be reached."""
        import httpx

        tries = tries or self.tries
        for number in range(tries):
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                if number + 1 == tries:
                    raise EngineError(f"{self.url}: can't be reached ({error}); is vLLM running there?") from None
                time.sleep(WAIT * (number + 1))
                continue
            if answer.status_code == 503 and number + 1 < tries:
                time.sleep(WAIT * (number + 1))
                continue
            if answer.status_code != 200:
                raise EngineError(f"{self.url}{path}: answered {answer.status_code}: {answer.text[:300]}")
            return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
        raise EngineError(f"{self.url}: can't be reached; is vLLM running there?")
