"""What every engine offers to the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from scmulan.adapters_folder import Adapter
from scmulan.csentence import Ids
from scmulan.decoding.sampling import Sampling
from scmulan.rates import RatesOfKind

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class CellRequest:
    """One cell to write.

    Attributes
    ----------
    prompt : ids up to the task's token
    row : the cell's number, which with the seed decides its draws
    depth : depth id to begin with, or None to draw it
    panel : (n_genes,) genes that may appear; all when None
    forced : (gene column, level id) of the genes that the cell holds
    rates : what is added to logits, by where in the cell; nothing when None
    """

    prompt: Ids
    row: int
    depth: int | None = None
    panel: npt.NDArray[np.bool_] | None = None
    forced: tuple[tuple[int, int], ...] = ()
    rates: RatesOfKind | None = None


class WordAutomaton(Protocol):
    """What may come next while words are written after one prompt."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be written."""
        ...

    def legal(self) -> Ids:
        """Ids that may come next; (N,), never empty before it is done."""
        ...

    def advance(self, number: int) -> None:
        """Read the id that was chosen."""
        ...

    def copy(self) -> WordAutomaton:
        """Another that stands where this one stands."""
        ...


@dataclass(frozen=True)
class Written:
    """Words after a prompt, and their log-probability among all words, nats."""

    ids: Ids
    log_probability: float


class Engine(Protocol):
    """Ids in, ids out."""

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under a name, beside those there are, and use it."""
        ...

    def use_adapter(self, name: str | None) -> None:
        """Answer with one of the adapters from now on, or with none."""
        ...

    def generate(self, requests: Sequence[CellRequest], sampling: Sampling, *, on_cell: Advance | None = None) -> list[Ids]:
        """One cell a request, from ``<cell>`` to ``</cell>``."""
        ...

    def score(self, prompts: Sequence[Ids], answers: Sequence[Ids], *, on_cell: Advance | None = None) -> npt.NDArray[np.float64]:
        """Log-probability of each answer after each prompt, nats; shape (prompts, answers)."""
        ...

    def hidden(self, prompts: Sequence[Ids], *, after: Sequence[int] = (), on_cell: Advance | None = None) -> npt.NDArray[np.float32]:
        """Last hidden state at the last id of each prompt, (prompts, D); or at each of the ids ``after`` it, none of which sees another,
        (prompts, after, D)."""
        ...

    def write_words(self, prompts: Sequence[Ids], automata: Sequence[WordAutomaton]) -> list[Written]:
        """The likeliest legal continuation of each prompt, id by id, until its automaton is done."""
        ...

    def nats(
        self,
        prompts: Sequence[Ids],
        continuations: Sequence[Ids],
        *,
        panel: npt.NDArray[np.bool_] | None = None,
        on_cell: Advance | None = None,
    ) -> list[npt.NDArray[np.float64]]:
        """Nats of each id of a cell that continues a prompt, over legal ids; first is ``<cell>``, always 0.

        ``panel`` (n_genes,) says which genes were measured, so that not to see another is no news; all when not given.
        """
        ...
