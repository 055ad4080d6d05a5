"""Results as sentences: templates of ``prompts/answers.yaml`` filled with facts, and with nothing else.

A number can come into an answer only as a fact of a result, so that no sentence says what was not computed.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from scmulan import assets
from scmulan.errors import RecipeError
from scmulan.requests import Request

Facts = Mapping[str, Any]
LISTED = 5


@dataclass(frozen=True)
class Result:
    """What one request gave.

    Attributes
    ----------
    request : as it was carried out
    value : the object that the task returned: AnnData, DataFrame, array; None where it was refused
    facts : numbers and names that the sentences were made of, one mapping a sentence
    text : the sentences
    is_done : whether the request was carried out
    """

    request: Request
    value: Any = None
    facts: tuple[Facts, ...] = ()
    text: str = ""
    is_done: bool = True


@dataclass
class Saying:
    """Sentences that are being put together, with the facts of each."""

    facts: list[Facts] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def add(self, template: str, **facts: Any) -> None:
        """One more sentence."""
        self.facts.append(facts)
        self.sentences.append(sentence(template, facts))

    def add_list(self, template: str, entries: Sequence[Facts], entry: str | None = None, **facts: Any) -> None:
        """One more sentence, with a list in it of which each entry is filled by its own facts."""
        listed = ", ".join(sentence(entry or f"{template}_entry", one) for one in entries)
        self.facts.extend(entries)
        self.add(template, listed=listed, **facts)

    def result(self, request: Request, value: Any) -> Result:
        return Result(request, value, tuple(self.facts), " ".join(self.sentences))


def sentence(template: str, facts: Facts) -> str:
    """A template of ``prompts/answers.yaml`` filled."""
    templates = _templates()
    if template not in templates:
        raise RecipeError(f"prompts/answers.yaml: no sentence {template!r}; there are {', '.join(templates)}")
    return _Filler().vformat(templates[template], (), facts)


class _Filler(string.Formatter):
    """Formats counts as 1,234, shares as 87 %, signed numbers as +1.23."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "count":
            return f"{int(value):,}"
        if format_spec == "share":
            return f"{100 * float(value):.0f} %"
        if format_spec == "signed":
            return f"{float(value):+.2f}"
        return str(super().format_field(value, format_spec))


@functools.lru_cache(maxsize=1)
def _templates() -> dict[str, str]:
    path = assets.path("prompts", "answers.yaml")
    found: dict[str, str] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
