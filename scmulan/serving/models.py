"""The models that a server answers with: a base and its adapters, one in use at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scmulan.engines.base import Engine
from scmulan.errors import PromptError, nearest
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

    def use(self, name: str | None) -> Model:
        """The model, with the adapter of a name in use, or as it is."""
        self.check(name)
        wanted = None if name in (None, self.name) else name
        if self.model.adapter != wanted:
            self.model.use(wanted)
        return self.model
