"""An engine by the name that a user gives: ``transformers``, ``vllm``, or the URL of a vLLM server that has the same model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scmulan.engines.base import Engine
from scmulan.errors import PromptError, nearest
from scmulan.model import Checkpoint

ENGINES = ("transformers", "vllm")


def is_url(engine: str) -> bool:
    """Whether an engine is named by where it listens."""
    return engine.startswith(("http://", "https://"))


def check_engine(engine: str, *others: str) -> None:
    """PromptError where there is no engine of a name; ``others`` are names that may stand there too."""
    known = [*ENGINES, *others]
    if not is_url(engine) and engine not in known:
        raise PromptError(f"engine {engine!r}: needed {', '.join(known)} or the URL of a vLLM server{nearest(engine, known)}")


def open_engine(checkpoint: Checkpoint, engine: str = "transformers", *, device: str = "cpu", adapters: Sequence[Path] = ()) -> Engine:
    """An engine that runs a checkpoint.

    Parameters
    ----------
    engine : ``transformers``; ``vllm``, in this process; or the URL of a vLLM server
    adapters : folders of the adapters that it will be given; vLLM makes room for them when it starts

    Raises
    ------
    PromptError
        When there is no engine of that name.
    EngineError
        When it is not installed, can't be reached, or can't use the device.
    """
    check_engine(engine)
    if is_url(engine):
        from scmulan.engines.remote import RemoteEngine

        return RemoteEngine(checkpoint, engine, device=device)
    if engine == "vllm":
        from scmulan.engines.served import highest_rank
        from scmulan.engines.vllm import VllmEngine

        if not adapters:
            return VllmEngine(checkpoint, device=device)
        return VllmEngine(checkpoint, device=device, adapters=len(adapters), rank=highest_rank(adapters))
    from scmulan.engines.transformers import TransformersEngine

    return TransformersEngine(checkpoint, device=device)
