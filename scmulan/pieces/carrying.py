"""Pieces carried out by a model, in this process or by actors on a Ray cluster; whoever does it, a piece is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scmulan import errors
from scmulan.adapters_folder import open_adapter
from scmulan.corpus.workers import import_ray
from scmulan.engines.base import Advance
from scmulan.engines.opening import is_url
from scmulan.errors import EngineError, ScmulanError
from scmulan.model import load_card, model_folder
from scmulan.pieces.kept import Kept, Piece
from scmulan.tasks import Model, load

if TYPE_CHECKING:
    import numpy as np

Answer = Callable[[int, int, Advance], Piece]
"""What comes of the cells from a first to before a last one; told of cells as they are done."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How each worker opens the model.

    Attributes
    ----------
    model : folder, or ``demo``
    adapter : folder of an adapter that is used
    engine : ``transformers``, ``vllm``, or the URL of a vLLM server
    """

    model: str = "demo"
    adapter: str | None = None
    engine: str = "transformers"
    device: str = "cpu"

    def open(self) -> Model:
        """The model, ready to answer."""
        return load(self.model, adapter=self.adapter, device=self.device, engine=self.engine)

    def anywhere(self) -> Opening:
        """The same with folders named in full."""
        folders = {name: str(Path(folder).absolute()) for name, folder in vars(self).items() if name in ("model", "adapter") and folder}
        return replace(self, **{name: folder for name, folder in folders.items() if getattr(self, name) != "demo"})

    def here(self, where: Where) -> Opening:
        """How the process that asks opens the model: as the workers do, but for those of a cluster, whose device it may not have."""
        return replace(self, device="cpu") if where.is_ray else self

    def of(self) -> dict[str, str]:
        """What an answer depends on of it: weights, tokenizer, adapter, and which library computes."""
        card = load_card(model_folder(self.model))
        return {
            "weights": str(card.get("weights_sha256")),
            "tokenizer": str(card.get("tokenizer_sha256")),
            "adapter": "none" if self.adapter is None else open_adapter(self.adapter).sha256,
            "engine": "vllm" if self.engine == "vllm" or is_url(self.engine) else "transformers",
        }


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where pieces are carried out.

    Attributes
    ----------
    is_ray : by actors on a Ray cluster rather than in this process
    address : of the cluster (``auto``, ``ray://host:10001``); one is started on this machine when not given
    """

    is_ray: bool = False
    address: str | None = None


class Work(Protocol):
    """What is done with each piece."""

    def begin(self, model: Model, scratch: Path, stack: ExitStack) -> Answer:
        """Open what is read; what is to be closed goes onto the stack."""
        ...


class Carrier:
    """A worker: it opens the model at its first piece and holds it. Called by Ray with the numbers of pieces."""

    def __init__(self, work: Work, open_model: Callable[[], Model], kept: Kept):
        self.work, self.open_model, self.kept, self.stack = work, open_model, kept, ExitStack()
        self._answer: Answer | None = None

    def carry(self, number: int, tick: Advance) -> None:
        """Do one piece and keep it."""
        if self._answer is None:
            self._answer = self.work.begin(self.open_model(), self.kept.folder, self.stack)
        self.kept.write(number, self._answer(*self.kept.span(number), tick))

    def __call__(self, asked: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        failed, said = "", ""
        for number in asked["number"].tolist():
            try:
                self.carry(number, lambda n: None)
            except ScmulanError as error:
                failed, said = type(error).__name__, str(error)
                break
        return {"number": asked["number"].tolist(), "failed": [failed] * len(asked["number"]), "said": [said] * len(asked["number"])}


def carry(work: Work, opening: Opening, open_model: Callable[[], Model], kept: Kept, where: Where, tick: Advance) -> None:
    """Do the pieces that are not there yet.

    Raises
    ------
    ScmulanError
        At the first piece that can't be done; those that are done are kept.
    """
    missing = kept.missing()
    tick(kept.n_cells - sum(last - first for first, last in map(kept.span, missing)))
    if missing and where.is_ray:
        for number in _on_ray(work, opening, kept, missing, where.address):
            first, last = kept.span(number)
            tick(last - first)
    elif missing:
        carrier = Carrier(work, open_model, kept)
        with carrier.stack:
            for number in missing:
                carrier.carry(number, tick)


def _on_ray(work: Work, opening: Opening, kept: Kept, numbers: Sequence[int], address: str | None) -> Iterator[int]:
    ray, data = import_ray(), import_module("ray.data")
    began_here = not ray.is_initialized()
    if began_here:
        ray.init(address=address, log_to_driver=False)
    context = data.DataContext.get_current()
    was = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        has_gpu = not opening.device.startswith("cpu")
        most = max(int(ray.cluster_resources().get("GPU" if has_gpu else "CPU", 1)), 1)
        asked = data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        done = asked.map_batches(
            Carrier, batch_size=1, num_cpus=1, num_gpus=1 if has_gpu else None,
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(most, len(numbers))),
            fn_constructor_kwargs={"work": work, "open_model": opening.anywhere().open, "kept": kept},
        )  # fmt: skip
        for row in done.iter_rows():
            if row["failed"]:
                raise getattr(errors, row["failed"], EngineError)(row["said"])
            yield int(row["number"])
    except ray.exceptions.RayError as error:
        raise EngineError(f"on Ray: {error}; the pieces that are finished are kept: run the same command again") from None
    finally:
        context.enable_progress_bars = was
        if began_here:
            ray.shutdown()
