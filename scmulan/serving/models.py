"""The models that a server answers with: a base and its adapters, one in use at a time.

While a piece of work waits for vLLM, others may go on with the model, with other adapters; the piece then finds its own in use again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scmulan.engines.base import Engine
from scmulan.engines.served import ServedEngine
from scmulan.errors import PromptError, nearest
from scmulan.serving.line import Line
from scmulan.tasks import Model, load


class Models:
    """A base and its adapters by name.

    Parameters
    ----------
    name : of the base, as clients call it
    """

    def __init__(
        self, folder: str, name: str, adapters: Mapping[str, str | Path], engine: Engine | str = "transformers", device: str = "cpu"
    ):
        self.name = name
        self.model = load(folder, adapters=dict(adapters), engine=engine, device=device)
        self.adapters = list(adapters)

    def __iter__(self) -> Iterator[str]:
        return iter([self.name, *self.adapters])

    def check(self, name: str | None) -> None:
        """PromptError where there is no model of a name."""
        if name is not None and name != self.name and name not in self.adapters:
            raise PromptError(f"model {name!r}: there is {', '.join(self)}{nearest(name, list(self))}")

    def check_fields(self, fields: Iterable[str]) -> None:
        """PromptError where a name is no field of a cell."""
        known = list(self.model.prompts.fields)
        for name in fields:
            if name not in known:
                raise PromptError(f"{name!r} is not a field{nearest(name, known)}; fields: {', '.join(known)}")

    def share(self, line: Line) -> None:
        """Let others of a line go on while one waits for vLLM."""
        engine = self.model.engine
        if isinstance(engine, ServedEngine):
            engine.aside = functools.partial(self._aside, line)

    @contextlib.contextmanager
    def _aside(self, line: Line) -> Iterator[None]:
        used = self.model.adapter
        try:
            with line.aside():
                yield
        finally:
            if self.model.adapter != used:
                self.model.use(used)

    def use(self, name: str | None) -> Model:
        """The model, with the adapter of a name in use, or as it is."""
        self.check(name)
        wanted = None if name in (None, self.name) else name
        if self.model.adapter != wanted:
            self.model.use(wanted)
        return self.model
