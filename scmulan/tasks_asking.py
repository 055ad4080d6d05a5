"""Questions in English answered: read into requests, carried out one after the other, and told in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scmulan.errors import PromptError
from scmulan.requests import Request, load_grammar
from scmulan.requests_names import with_names
from scmulan.tasks_carrying import Circumstances, carry_out
from scmulan.tasks_reading import Reading
from scmulan.tasks_saying import Result, sentence

Asked = Request | Mapping[str, Any] | Sequence[Request | Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes
    ----------
    question : as it was asked; empty where requests were given
    request : what was done; correct it and give it back to ``Model.ask`` as ``request=``
    results : one a request, each with its object, its facts and its sentences
    text : the answer in sentences; every number is a fact of a result
    probability : of this reading of the question, 1 where requests were given
    notes : names that were mended, or that no table knows
    """

    question: str
    request: tuple[Request, ...]
    results: tuple[Result, ...]
    text: str
    probability: float = 1.0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain data: question, requests, sentences and the facts behind them."""
        results = [
            {"request": one.request.to_dict(), "done": one.is_done, "text": one.text, "facts": [dict(f) for f in one.facts]}
            for one in self.results
        ]
        return {
            "question": self.question,
            "request": [request.to_dict() for request in self.request],
            "probability": round(self.probability, 4),
            "notes": list(self.notes),
            "text": self.text,
            "results": results,
        }


def requests_given(asked: Asked, fields: Sequence[str]) -> Reading:
    """Requests that were given instead of a question, names looked up.

    Raises
    ------
    PromptError
        When one is no request; names what is wrong.
    """
    grammar = load_grammar(fields)
    several = [asked] if isinstance(asked, Request | Mapping) else list(asked)
    if not several:
        raise PromptError("no request given; needed one, for example {'task': 'annotate'}")
    said = [one if isinstance(one, Request) else Request.from_dict(one, grammar) for one in several]
    named = [with_names(request) for request in said]
    notes = tuple(dict.fromkeys(note for _, of_one in named for note in of_one))
    return Reading("", tuple(one for one, _ in named), tuple(said), 1.0, notes)


def answer(reading: Reading, given: Circumstances) -> Answer:
    """Every request carried out, in order; a later one sees the results of those before."""
    results: list[Result] = []
    for request in reading.requests:
        results.append(carry_out(request, replace(given, before=tuple(results))))
    said = [sentence("noted", {"note": note}) for note in reading.notes]
    if reading.is_unsure:
        said.insert(0, sentence("unsure", {"p": reading.probability}))
    text = " ".join([*said, *(result.text for result in results)])
    return Answer(reading.question, reading.requests, tuple(results), text, reading.probability, reading.notes)
