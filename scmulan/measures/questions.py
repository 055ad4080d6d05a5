"""How well questions are read, and a plain way to read them: the nearest training phrasing, its slots filled from the table of labels.

The plain way knows what the model was taught from: names that the tables find in a question are masked by their kind, and the training
question whose masked text is most alike (TF-IDF of 2 to 5 letters, cosine) lends its task and the roles of its slots, in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from scmulan.genes import GeneTable
from scmulan.metadata import labels_by_spelling
from scmulan.questions import Phrasings, Question
from scmulan.questions_text import plain_question
from scmulan.requests import ACTION, ASKED, COUNT, TASK, Piece, Request, RequestGrammar, read_material, request_of
from scmulan.requests_names import with_names
from scmulan.requests_numbers import TENS, UNITS
from scmulan.spelling import keys, plain

NAMED = ("cell_type", "organ", "region", "disease", "organism", "assay", "sex", "stage", "perturbation")
CELL_TYPES, NUMBERS = ("among", "against", "start", "goal"), (COUNT, "cluster")
KIND_OF = {**dict.fromkeys(CELL_TYPES, "cell_type"), **dict.fromkeys(NUMBERS, "number"), "genes": "gene"}
WORDS = "|".join([*TENS, *sorted(UNITS, key=len, reverse=True), "hundred", "thousand", "dozen"])
NUMBER = rf"\d[\d,.]*k?|(?:a )?(?:{WORDS})(?:[ -](?:and )?(?:{WORDS}))*"
UNITS_OF_TIME = "days?|d|hours?|hrs?|h|weeks?|min|minutes"
PATTERNS = (
    ("dose", re.compile(r"\b\d[\d.]* ?(?:[npuµm]m|[nump]g/ml|[ui]+/ml|nmol/l|ng|gy)\b", re.IGNORECASE)),
    ("time", re.compile(rf"\b(?:(?:day|week|hour|d) ?(?:{NUMBER})|(?:{NUMBER}) ?(?:{UNITS_OF_TIME}))\b", re.IGNORECASE)),
    ("number", re.compile(rf"(?<![\w-])(?:{NUMBER})\b", re.IGNORECASE)),
)
SPLIT = re.compile(r"(?:[.?!;]+ (?:also,? )?|,? and (?:then|also) |, (?:then|also) | plus | & )")
MOST_WORDS = 6
TAUGHT = 20_000
"""Training questions that the plain way knows."""
Right: TypeAlias = tuple[Request, ...]
Reads: TypeAlias = Callable[[Sequence[str]], Sequence[Right]]


@dataclass(frozen=True)
class Slot:
    """A name in a question: its kind and its characters."""

    kind: str
    first: int
    last: int


class NearestPhrasing:
    """Reads a question as the training question that is most like it.

    Parameters
    ----------
    questions : training questions, each of one request
    """

    def __init__(self, questions: Iterable[Question], grammar: RequestGrammar):
        self.grammar = grammar
        known = [question for question in questions if len(question.requests) == 1]
        self.templates = [_template(question) for question in known]
        self.letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32)
        self.known = self.letters.fit_transform([masked for masked, _ in self.templates])
        table = GeneTable.load()
        self.genes = {str(symbol) for symbol in table.symbols if len(symbol) > 2}
        own: Mapping[str, Sequence[str]] = read_material()["names"]
        self.labels = {name: {**labels_by_spelling(name), **{plain(str(said)): str(said) for said in own.get(name, ())}} for name in NAMED}

    def read(self, texts: Sequence[str]) -> list[tuple[Request, ...]]:
        """The requests of each question, names looked up."""
        parts = [[part for part in SPLIT.split(plain_question(text)) if any(sign.isalpha() for sign in part)] or [text] for text in texts]
        slots = [[self._slots(part) for part in of_one] for of_one in parts]
        masked = [
            _masked(part, found)
            for of_one, of_slots in zip(parts, slots, strict=True)
            for part, found in zip(of_one, of_slots, strict=True)
        ]
        likeness = self.letters.transform(masked) @ self.known.T
        best = iter(np.asarray(likeness.argmax(axis=1)).ravel().tolist())
        return [
            tuple(self._filled(self.templates[next(best)][1], part, found) for part, found in zip(of_one, of_slots, strict=True))
            for of_one, of_slots in zip(parts, slots, strict=True)
        ]

    def _filled(self, pieces: Sequence[tuple[Piece, int]], text: str, slots: Sequence[Slot]) -> Request:
        """The lent pieces with this question's names in them, kind by kind in the order of the text."""
        waiting = {kind: [text[slot.first : slot.last] for slot in slots if slot.kind == kind] for kind in {slot.kind for slot in slots}}
        said: dict[int, str] = {}
        for place, ((name, _), at) in sorted(enumerate(pieces), key=lambda pair: pair[1][1]):
            kind = "gene" if name == "perturbation" and "perturbation" not in waiting else KIND_OF.get(name, name)
            if at >= 0 and waiting.get(kind):
                said[place] = waiting[kind].pop(0)
        kept: list[Piece] = []
        for place, ((name, words), at) in enumerate(pieces):
            if at < 0 and not (name == ACTION and kept[-1][0] not in ("genes", "perturbation")):
                kept.append((name, words))
            elif place in said:
                kept.append((name, said[place]))
        return with_names(request_of(kept, self.grammar))[0]

    def _slots(self, text: str) -> list[Slot]:
        """Names in a text that the tables know, the longest first, and numbers, times and doses."""
        words = [(found.start(), found.end()) for found in re.finditer(r"[\w'/.+-]*\w[+]?", text)]
        taken = np.zeros(len(text) + 1, dtype=bool)
        found: list[Slot] = []

        def take(kind: str, first: int, last: int) -> None:
            if not taken[first:last].any():
                taken[first:last] = True
                found.append(Slot(kind, first, last))

        for kind, pattern in PATTERNS[:2]:
            for match in pattern.finditer(text):
                take(kind, *match.span())
        for n in range(MOST_WORDS, 0, -1):
            for start in range(len(words) - n + 1):
                first, last = words[start][0], words[start + n - 1][1]
                if named := self._kind(text[first:last]):
                    take(named, first, last)
        for match in PATTERNS[2][1].finditer(text):
            take("number", *match.span())
        return sorted(found, key=lambda slot: slot.first)

    def _kind(self, said: str) -> str | None:
        if said in self.genes:
            return next((name for name in ("cell_type", "perturbation") if plain(said) in self.labels[name]), "gene")
        for name in NAMED:
            if any(key in self.labels[name] for key in keys(name, said)) and said not in ("a", "i", "as", "am", "f", "m"):
                return name
        return None


def _template(question: Question) -> tuple[str, list[tuple[Piece, int]]]:
    """A training question with its names masked by their kinds, and the pieces of its request with where each stands (-1: nowhere)."""
    pieces = list(zip(question.requests[0], question.spans[0], strict=True))
    slots = []
    for number, ((name, _), span) in enumerate(pieces):
        if span is not None:
            is_gene = name == "perturbation" and number + 1 < len(pieces) and pieces[number + 1][0][0] == ACTION
            slots.append(Slot("gene" if is_gene else KIND_OF.get(name, name), *span))
    return _masked(question.text, slots), [(piece, span[0] if span is not None else -1) for piece, span in pieces]


def _masked(text: str, slots: Sequence[Slot]) -> str:
    for slot in sorted(slots, key=lambda slot: -slot.first):
        text = f"{text[: slot.first]}_{slot.kind.upper()}_{text[slot.last :]}"
    return text.rstrip(" ?.!")


def teach_nearest(grammar: RequestGrammar, genes: Sequence[str], *, n: int = TAUGHT, seed: int = 0) -> NearestPhrasing:
    """The plain way, taught by ``n`` training questions about ``genes``."""
    trained, rng = Phrasings(grammar, genes), np.random.default_rng([seed, 5])
    return NearestPhrasing((trained.draw(rng, "plain") for _ in range(n)), grammar)


def draw_questions(
    phrasings: Phrasings, kind: str, n: int, grammar: RequestGrammar, *, seed: int = 0
) -> tuple[list[Question], list[Right]]:
    """``n`` questions of a kind and what they ask for, names in the spelling of the tables."""
    questions = [phrasings.draw(np.random.default_rng([seed, number, 6]), kind) for number in range(n)]
    right = [tuple(with_names(request_of(pieces, grammar))[0] for pieces in question.requests) for question in questions]
    return questions, right


@dataclass(frozen=True, kw_only=True)
class ShareRead:
    """Shares of questions read exactly right, and with the right tasks; and of those in scope, refused (None where none is in scope)."""

    exact: float
    tasks: float
    refused_wrongly: float | None


def share_read(said: Sequence[Right], right: Sequence[Right]) -> ShareRead:
    """Readings against what was asked."""
    inside = [number for number, requests in enumerate(right) if "outside" not in tasks_of(requests)]
    return ShareRead(
        exact=float(np.mean([same_requests(a, b) for a, b in zip(said, right, strict=True)])),
        tasks=float(np.mean([tasks_of(a) == tasks_of(b) for a, b in zip(said, right, strict=True)])),
        refused_wrongly=float(np.mean(["outside" in tasks_of(said[number]) for number in inside])) if inside else None,
    )


def same_requests(one: Sequence[Request], other: Sequence[Request]) -> bool:
    """Whether two readings are the same, task for task and value for value, but for letter case and the order of a list."""
    return [_plain(request) for request in one] == [_plain(request) for request in other]


def _plain(request: Request) -> list[tuple[str, str]]:
    said = request.to_dict()
    unordered = {name: sorted(map(str, value)) if isinstance(value, list) else value for name, value in said.items()}
    if isinstance(genes := said.get("genes"), dict):
        unordered["genes"] = sorted(map(str, genes.items()))
    return sorted((name, str(value).lower()) for name, value in unordered.items())


def tasks_of(requests: Sequence[Request]) -> list[str]:
    """The task of each request."""
    return [request.task for request in requests]


def first_asked(question: Question) -> str:
    """What a question is counted under: its first task, and the field asked for where it is one."""
    pieces = question.requests[0]
    asked = [words for name, words in pieces if name == ASKED]
    task = next(words for name, words in pieces if name == TASK)
    return f"{task} {asked[0]}" if len(asked) == 1 else task
