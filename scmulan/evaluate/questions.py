"""How well a model reads questions in English: held-out phrasings, drawn with fresh names, beside the nearest training phrasing.

A reading is right when every request is exactly right: task, fields, names, numbers, genes and what is done to them. It is about no cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scmulan.evaluate.cells import MODEL, Skipped
from scmulan.evaluate.given import Given, Prepared
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.measures.questions import TAUGHT, Right, ShareRead, draw_questions, share_read, teach_nearest
from scmulan.questions import KINDS, Phrasings
from scmulan.requests import load_grammar

NEAREST = "nearest phrasing"
HELD_OUT = "held_out"
AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Of ``n`` questions of each kind, the share read right, by kind and way; the plain way knows ``taught`` training questions."""

    n: int
    taught: int
    kinds: dict[str, dict[str, ShareRead]]


def prepare(given: Given) -> Prepared[Questions]:
    """The section, or why it can't be measured."""
    reason = why_not_learnt(given.model, "request")
    return Skipped(reason) if reason is not None else lambda: _measured(given)


def _measured(given: Given) -> Questions:
    model, n = given.model, given.sizes.questions
    grammar = load_grammar(list(model.prompts.fields))
    held = Phrasings(grammar, model.vocabulary.genes, part=HELD_OUT)
    given.say("teach the nearest phrasing", 0, 1)
    nearest = teach_nearest(grammar, model.vocabulary.genes, seed=given.seed)
    given.say("teach the nearest phrasing", 1, 1)
    kinds = {}
    for kind in KINDS:
        questions, right = draw_questions(held, kind, n, grammar, seed=given.seed)
        texts = [question.text for question in questions]
        kinds[kind] = {
            MODEL: share_read(_by_model(given, texts, kind), right),
            NEAREST: share_read(nearest.read(texts), right),
        }
    return Questions(n=n, taught=TAUGHT, kinds=kinds)


def _by_model(given: Given, texts: Sequence[str], kind: str) -> list[Right]:
    found: list[Right] = []
    for at in range(0, len(texts), AT_ONCE):
        given.say(f"read questions, {kind}", at, len(texts))
        found += [reading.requests for reading in given.model.read_questions(texts[at : at + AT_ONCE])]
    given.say(f"read questions, {kind}", len(texts), len(texts))
    return found
