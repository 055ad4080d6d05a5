"""What a model has seen: the combinations of fields among its training cells, from its card.

Fields that a question leaves open are filled from these combinations; closed questions are answered among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scmulan.errors import PromptError, nearest, some
from scmulan.metadata import canonical, lineage_of

Combination = Mapping[str, str]


@dataclass(frozen=True)
class SeenLabels:
    """Combinations of fields among the training cells, and how many cells each has."""

    combinations: tuple[Combination, ...]
    cells: tuple[int, ...]

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> SeenLabels:
        """From the card of a checkpoint."""
        entries = card["labels"]
        return cls(tuple({k: v for k, v in entry.items() if k != "cells"} for entry in entries), tuple(entry["cells"] for entry in entries))

    def values(self, name: str, within: Combination | None = None) -> list[str]:
        """Values of a field, most cells first, among the combinations that agree with ``within``."""
        total: dict[str, int] = {}
        for combination, cells in zip(self.combinations, self.cells, strict=True):
            if name in combination and agrees(combination, within or {}):
                total[combination[name]] = total.get(combination[name], 0) + cells
        return sorted(total, key=lambda value: (-total[value], value))

    def known(self, name: str, value: str) -> str:
        """The preferred spelling of a value that the model has seen; PromptError names the nearest when it has not."""
        preferred = canonical(name, value).value
        seen = self.values(name)
        if not seen:
            raise PromptError(f"{name} {value!r}: this model has seen no {name} at all; leave it out")
        by_case = {candidate.lower(): candidate for candidate in seen}
        for spelled in (preferred, value):
            if spelled.lower() in by_case:
                return by_case[spelled.lower()]
        raise PromptError(
            f"{name} {value!r} was not among this model's training cells{nearest(preferred, seen)}; it has seen {some(seen, most=6)}"
        )

    def matching(self, given: Combination) -> SeenLabels:
        """The combinations that agree with what is given; PromptError when there is none."""
        kept = [number for number, combination in enumerate(self.combinations) if agrees(combination, given)]
        if not kept:
            raise PromptError(f"no training cell had {spell(given)} together{self._near(given)}")
        return SeenLabels(tuple(self.combinations[number] for number in kept), tuple(self.cells[number] for number in kept))

    def _near(self, given: Combination) -> str:
        """What would be possible with one of the given fields left out."""
        hints = []
        for name in given:
            rest = {key: value for key, value in given.items() if key != name}
            values = self.values(name, rest)
            if values:
                hints.append(f"with {spell(rest) or 'nothing else'}, {name} can be {some(values)}")
        return f"; {hints[0]}" if hints else ""

    def draw(self, n: int, rng: np.random.Generator) -> list[dict[str, str]]:
        """Combinations in proportion to their cells, in a random order of rows that differs least from exact shares; n rows."""
        share = np.array(self.cells, dtype=float) / sum(self.cells)
        whole = np.floor(share * n).astype(int)
        rest = share * n - whole
        if whole.sum() < n:
            extra = rng.choice(len(share), size=n - int(whole.sum()), replace=True, p=rest / rest.sum())
            whole += np.bincount(extra, minlength=len(share))
        rows = np.repeat(np.arange(len(share)), whole)
        drawn = [dict(combination) for combination in self.combinations]  # shared by their rows, for a million rows are no rarity
        return [drawn[row] for row in rows]


def agrees(combination: Combination, given: Mapping[str, str | None]) -> bool:
    """Whether every given field has that value in the combination."""
    return all(value is None or combination.get(name) == value for name, value in given.items())


def spell(fields: Combination) -> str:
    """``organ 'blood' and cell_type 'B cell'``."""
    return " and ".join(f"{name} {value!r}" for name, value in fields.items())


def as_answer(cell_type: str) -> dict[str, str | None]:
    """A cell type with its lineage, as the annotate task predicts them."""
    return {"lineage": lineage_of(cell_type), "cell_type": cell_type}


def choose(values: Sequence[str], where: str) -> list[str]:
    """The user's own labels in preferred spelling, each once; PromptError when two are one."""
    preferred = [canonical("cell_type", value).value for value in values]
    if not preferred:
        raise PromptError(f"{where}: no label given; needed at least one")
    twice = sorted({value for value in preferred if preferred.count(value) > 1})
    if twice:
        names = [value for value, label in zip(values, preferred, strict=True) if label == twice[0]]
        raise PromptError(f"{where}: {some(names)} are all {twice[0]!r}; give each label once")
    return preferred
