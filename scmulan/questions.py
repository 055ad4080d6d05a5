"""Questions in English with the requests that they ask for, drawn from the phrasings of ``prompts/requests.yaml``.

A question is drawn as pieces of text, of which some are what the request copies; then words are misspelt, questions joined, and politeness
added, while the pieces stay known. Everything drawn is a function of the seed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scmulan.errors import RecipeError
from scmulan.prompts import GENES
from scmulan.questions_fillers import Fillers, misspell_text
from scmulan.questions_text import plain_question
from scmulan.requests import ACTION, ASKED, COUNT, TASK, Piece, RequestGrammar, read_material

SLOT = re.compile(r"\{(\w+)(?:=(\w+))?\}")
CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
NO_PIECE = ("organ_named", "assay_named", "nonsense")
EXACT = ("gene", "target", "number", "one", "count", "copies", "cluster", "dose", "time", "nonsense")
"""Slots that are never misspelt: a gene would become another gene, a number another number."""
MANY_SLOTS = ("among", "gene", "target", "copies", ASKED)
QUESTION_WORDS = "what which who whose why how where when is are was were do does did will would can could"
NO_COMMANDS = frozenset(f"{QUESTION_WORDS} from at on in with a an the my I these they them it".split(" "))
PARTS = ("phrasings", "held_out", "far")
"""Those to train on; one in seven taken out at random; and those written to share few words with the others."""
REWORDED = 0.4
"""How often words of a piece of a phrasing are replaced by synonyms in training."""
KINDS = ("plain", "misspelt", "joined", "outside")


@dataclass(frozen=True)
class Text:
    """A piece of a question: what was typed, and the slot that it fills."""

    said: str
    slot: str = ""
    meant: str = ""
    action: str = ""


@dataclass(frozen=True)
class Question:
    """A question and what it asks for.

    Attributes
    ----------
    text : spelled as the model reads it
    requests : pieces of each request, values as they were meant
    spans : for each piece the characters of ``text`` that spell it, None where it has no words of the question
    kind : one of `KINDS`
    """

    text: str
    requests: tuple[tuple[Piece, ...], ...]
    spans: tuple[tuple[tuple[int, int] | None, ...], ...]
    kind: str = "plain"


@dataclass(frozen=True)
class Part:
    """A question of one or more requests as pieces of text, and what the requests hold."""

    texts: tuple[Text, ...]
    tasks: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]
    """Of each request its task, the fields asked for, and the places of its texts."""


@dataclass(frozen=True)
class Phrasing:
    """One line of the material."""

    task: str
    line: str
    asked: tuple[str, ...] = ()
    is_follow_up: bool = False


class Phrasings:
    """The phrasings of the material, those to train on or those of one held-out part.

    Parameters
    ----------
    genes : symbols that the model has tokens of
    part : one of `PARTS`
    """

    def __init__(self, grammar: RequestGrammar, genes: Sequence[str], *, part: str = "phrasings"):
        self.material, self.grammar, self.part = read_material(), grammar, part
        self.fillers = Fillers(self.material, genes)
        own = {name: _lines(self.material[name], part) for name in ("kinds", "these")}
        trained = {name: _lines(self.material[name], "phrasings") for name in own}
        self.nouns = {
            "kind": own["kinds"] + (trained["kinds"] * 2 if part != "phrasings" else []),
            "these": own["these"] + (trained["these"] * 2 if part != "phrasings" else []),
        }
        self.of_task = {name: list(_of_task(name, entry, part)) for name, entry in self.material["tasks"].items()}
        self.follow_ups = {name: [p for p in found if p.is_follow_up] for name, found in self.of_task.items()}
        self.joined = _lines(self.material["joined"], part)
        self.synonyms = _synonyms(str(self.material["synonyms"])) if part == "phrasings" else {}
        shares = np.array([float(entry.get("share", 1)) for entry in self.material["tasks"].values()])
        self.tasks, self.shares = list(self.of_task), shares / shares.sum()

    def draw(self, rng: np.random.Generator, kind: str | None = None) -> Question:
        """One question, of a kind, or of any in the shares of training."""
        kind = kind or str(rng.choice(KINDS, p=[0.5, 0.22, 0.25, 0.03]))
        while True:
            parts = self._joined(rng) if kind == "joined" else [self._part(rng, "outside" if kind == "outside" else None)]
            found = self._finish(parts, kind, rng)
            if found is not None:
                return found

    def of_task_only(self, task: str, rng: np.random.Generator) -> Question:
        """One plain question whose request is for the task."""
        while True:
            found = self._finish([self._part(rng, task)], "plain", rng)
            if found is not None:
                return found

    def _part(self, rng: np.random.Generator, task: str | None = None) -> Part:
        task = task or str(rng.choice(self.tasks, p=self.shares))
        lines = [phrasing for phrasing in self.of_task[task] if not phrasing.is_follow_up]
        return self._fill(lines[int(rng.integers(len(lines)))], rng)

    def _joined(self, rng: np.random.Generator) -> list[Part]:
        """Two or three questions, or one line of several requests."""
        if self.joined and rng.random() < 0.25:
            return [self._shared(self.joined[int(rng.integers(len(self.joined)))], rng)]
        parts = [self._part(rng)]
        first = parts[0].tasks[0][0]
        if first in ("annotate", "locate", "describe", "fate") and rng.random() < 0.45:
            lines = self.follow_ups["speaks_for"]
            return [*parts, self._fill(lines[int(rng.integers(len(lines)))], rng)]
        n = 2 if rng.random() < 0.8 else 3
        return [*parts, *(self._part(rng) for _ in range(n - 1))]

    def _shared(self, line: str, rng: np.random.Generator) -> Part:
        """A line that spells several requests: ``text => task slot slot | task slot``."""
        text, _, said = line.partition("=>")
        texts = self._fill(Phrasing("outside", text.strip()), rng).texts
        left = [(place, part.slot) for place, part in enumerate(texts) if part.slot]
        tasks = []
        for one in said.split("|"):
            task, *names = one.split()
            places = []
            for name in names:
                if ":" in name:
                    continue
                at = next((pair for pair in left if pair[1] == name), None)
                if at is None:
                    raise RecipeError(f"prompts/requests.yaml: joined: {line!r} has no slot {{{name}}} left for its request")
                left.remove(at)
                places.append(at[0])
            tasks.append((task, tuple(name.partition(":")[2] for name in names if ":" in name), tuple(sorted(places))))
        return Part(texts, tuple(tasks))

    def _fill(self, phrasing: Phrasing, rng: np.random.Generator) -> Part:
        """The phrasing with its choices made and its slots filled."""
        while True:
            line = self._with_nouns(_chosen(phrasing.line, rng), rng)
            slots = [found[1] for found in SLOT.finditer(line) if found[1] not in (*MANY_SLOTS, *NO_PIECE)]
            if len(slots) == len(set(slots)) or phrasing.task == "outside":
                break
        texts: list[Text] = []
        at, is_single = 0, False
        asked_words = list(rng.permutation(len(self.fillers.asked)))
        taken = set[str]()
        for found in SLOT.finditer(line):
            slot, action = found[1], found[2] or ""
            texts.append(Text(self._reworded(line[at : found.start()], rng)))
            if slot == ASKED:
                word, name = next(pair for pair in (self.fillers.asked[n] for n in asked_words) if pair[1] not in taken)
                taken.add(name)
                texts.append(Text(word, ASKED, name))
            else:
                said = self.fillers.draw(slot, rng, is_single=is_single)
                if slot in ("gene", "target", "among"):
                    while said in taken:
                        said = self.fillers.draw(slot, rng)
                    taken.add(said)
                texts.append(Text(said, "" if slot in NO_PIECE else slot, said, action))
            is_single = slot == "one"
            at = found.end()
        texts.append(Text(self._reworded(line[at:], rng)))
        return Part(tuple(texts), ((phrasing.task, phrasing.asked, tuple(place for place, part in enumerate(texts) if part.slot)),))

    def _reworded(self, text: str, rng: np.random.Generator) -> str:
        """The text with a word replaced by a synonym now and then."""
        if not self.synonyms or not text.strip() or rng.random() > REWORDED:
            return text
        words = text.split(" ")
        for place, word in enumerate(words):
            if word in self.synonyms and rng.random() < 0.5:
                words[place] = str(rng.choice(self.synonyms[word]))
        return " ".join(words)

    def _with_nouns(self, line: str, rng: np.random.Generator) -> str:
        for noun, lines in self.nouns.items():
            while f"{{{noun}}}" in line:
                line = line.replace(f"{{{noun}}}", _chosen(lines[int(rng.integers(len(lines)))], rng), 1)
        return line

    def _finish(self, parts: list[Part], kind: str, rng: np.random.Generator) -> Question | None:
        """The parts as one question; None where what is to be copied would not be found in it again."""
        texts: list[Text] = []
        tasks: list[tuple[str, tuple[str, ...], tuple[int, ...]]] = []
        for number, part in enumerate(parts):
            if number:
                texts.append(Text(str(rng.choice(self.material["between"]))))
            tasks += [(task, asked, tuple(place + len(texts) + (number == 0) for place in places)) for task, asked, places in part.tasks]
            texts += [Text(self._before(part, rng)), *part.texts] if number == 0 else part.texts
        texts.append(Text(self._after(texts, rng)))
        if kind == "misspelt" or (kind == "joined" and rng.random() < 0.15):
            texts = self._misspelt(texts, rng)
        return self._question(texts, tasks, "misspelt" if kind == "misspelt" else kind)

    def _before(self, part: Part, rng: np.random.Generator) -> str:
        draw, is_command = rng.random(), part.texts[0].said.split(" ")[0] in _verbs()
        if draw < 0.2 and is_command:
            return str(rng.choice(self.material["before_verbs"]))
        return str(rng.choice(self.material["before_any"])) if draw > 0.93 else ""

    def _after(self, texts: list[Text], rng: np.random.Generator) -> str:
        end = str(rng.choice(["", "", "", "?", "?", ".", " ?", "!", "??"]))
        return (str(rng.choice(self.material["after_any"])) + end) if rng.random() < 0.1 else end

    def _misspelt(self, texts: Sequence[Text], rng: np.random.Generator) -> list[Text]:
        """The pieces with slips and shorthand in them, genes and numbers left as they are."""
        chance = float(rng.choice([0.1, 0.2, 0.35]))
        short: Mapping[str, str] = {str(word): str(said) for word, said in self.material["shorthand"].items()}
        is_short = rng.random() < 0.25
        found = []
        for part in texts:
            said = part.said
            if part.slot not in EXACT:
                if is_short and not part.slot:
                    said = " ".join(short.get(word, word) if rng.random() < 0.7 else word for word in said.split(" "))
                said = misspell_text(said, rng, chance)
            found.append(replace(part, said=said))
        return found

    def _question(self, texts: Sequence[Text], tasks: Sequence[tuple[str, tuple[str, ...], tuple[int, ...]]], kind: str) -> Question | None:
        """Text and pieces laid out, the pieces of each request in the grammar's order."""
        raw, spans = "", []
        for part in texts:
            said = part.said.lstrip() if not raw or raw.endswith(" ") else part.said
            spans.append((len(raw), len(raw) + len(said)))
            raw += said
        text = plain_question(raw)
        if len(text) != len(raw.rstrip()) or "  " in raw.rstrip():
            return None
        requests, places = [], []
        for task, asked, members in tasks:
            pieces: list[tuple[Piece, tuple[int, int] | None]] = [((ASKED, name), None) for name in asked]
            pieces += self._pieces(task, [(texts[place], spans[place]) for place in members])
            order = self.grammar.order
            pieces = [((TASK, task), None), *_sorted(pieces, order)]
            requests.append(tuple(piece for piece, _ in pieces))
            places.append(tuple(span for _, span in pieces))
        return Question(text, tuple(requests), tuple(places), kind)

    def _pieces(self, task: str, members: Sequence[tuple[Text, tuple[int, int]]]) -> list[tuple[Piece, tuple[int, int] | None]]:
        if task == "outside":
            return []
        found: list[tuple[Piece, tuple[int, int] | None]] = []
        copies = [(part, span) for part, span in members if part.slot == "copies"]
        for part, span in members:
            if part.slot == ASKED:
                found.append(((ASKED, part.meant), None))
            elif part.slot == "gene":
                found.append(((GENES, part.meant), span))
                if part.action:
                    found.append(((ACTION, part.action), None))
                elif copies:
                    said, at = copies.pop(0)
                    found.append(((COUNT, said.meant), at))
            elif part.slot == "target":
                found += [(("perturbation", part.meant), span), ((ACTION, part.action), None)]
            elif part.slot != "copies":
                found.append((({"one": "number"}.get(part.slot, part.slot), part.meant), span))
        return found


def _sorted(pieces: list[tuple[Piece, tuple[int, int] | None]], order: Mapping[str, int]) -> list[tuple[Piece, tuple[int, int] | None]]:
    """Pieces in the grammar's order; an action, and a gene's counts, stay with what stands before them."""
    groups: list[list[tuple[Piece, tuple[int, int] | None]]] = []
    for pair in pieces:
        name = pair[0][0]
        if groups and (name == ACTION or (name == COUNT and groups[-1][0][0][0] == GENES)):
            groups[-1].append(pair)
        else:
            groups.append([pair])
    fields = list(order)
    # fields that are asked for stand in the order of a sentence's fields
    groups.sort(key=lambda group: (order[group[0][0][0]], fields.index(group[0][0][1]) if group[0][0][0] == ASKED else 0))
    return [pair for group in groups for pair in group]


def _chosen(line: str, rng: np.random.Generator) -> str:
    """The line with one of each ``(a|b|)`` taken."""
    while found := CHOICE.search(line):
        options = found[1].split("|")
        line = line[: found.start()] + options[int(rng.integers(len(options)))] + line[found.end() :]
    return re.sub(r" +([.,?!;:])", r"\1", " ".join(line.split()))


def _synonyms(text: str) -> dict[str, list[str]]:
    """Words that may take a word's place, by the word; of groups of words that hold phrases, the phrases are taken too."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        group = [word.strip() for word in line.split(",") if word.strip()]
        for word in group:
            found.setdefault(word, []).extend(other for other in group if other != word)
    return found


def _lines(entry: Mapping[str, Any], part: str, name: str = "phrasings") -> list[str]:
    key = name if part == "phrasings" else part if name == "phrasings" else f"{part}_{name}"
    return [line.strip() for line in str(entry.get(key) or "").splitlines() if line.strip()]


def _of_task(task: str, entry: Mapping[str, Any], part: str) -> Iterator[Phrasing]:
    """The phrasings of a task, those for single fields among them."""
    for line in _lines(entry, part):
        yield Phrasing(task, line)
    for name, below in (entry.get("of") or {}).items():
        for line in _lines(below, part):
            yield Phrasing(task, line, (str(name),))
    for line in _lines(entry, part, "follow_ups"):
        yield Phrasing(task, line, is_follow_up=True)


@functools.lru_cache(maxsize=1)
def _verbs() -> frozenset[str]:
    """Words that a command may begin with, after ``please``: the first words of phrasings but for those of questions."""
    firsts = set[str]()
    for entry in read_material()["tasks"].values():
        for line in [line for part in PARTS for line in _lines(entry, part)]:
            start = CHOICE.match(line)
            firsts |= {option.split(" ")[0] for option in start[1].split("|")} if start else {line.split(" ")[0]}
    return frozenset(word for word in firsts if word.isalpha() and word not in NO_COMMANDS and not word.isupper())


def material_hash() -> str:
    """What decides the questions, for what is made of them."""
    return hashlib.sha256(json.dumps(read_material(), sort_keys=True, default=str).encode()).hexdigest()
