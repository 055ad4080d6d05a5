"""What a question asks for: tasks with their fields and arguments, as data that can be printed, corrected, and written as ids.

    requests = { <task:NAME> { <asked> <field> } { <field> words } { <argument> words } } <eos>

The words of a field or argument are copied from the question; only actions are words of their own. What may be asked for stands in
``prompts/requests.yaml``. Every id sequence gives requests or a SentenceError that names the position.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from scmulan import assets
from scmulan.errors import PromptError, RecipeError, SentenceError, nearest
from scmulan.prompts import GENES, SentenceWriter
from scmulan.requests_numbers import number_of

TASK, ASKED, ACTION, COUNT, FIELDS = "task", "asked", "action", "count", "fields"
NUMBERS = (COUNT, "number")
MOST_COUNTS = 1_000_000
MANY = (ASKED, "among", GENES)
"""Arguments that may stand several times in a request."""
Piece = tuple[str, str]
"""A token's name and its words, or no words: ``("organ", "lung")``, ``("task", "generate")``; after ``asked``, the field's name."""


@dataclass(frozen=True)
class RequestGrammar:
    """Which tasks may be asked for in English, and what each of them takes.

    Attributes
    ----------
    fields : of a c-sentence, in its order
    takes : arguments of each task; ``fields`` stands for all of them
    actions : what may be done to a gene
    """

    fields: tuple[str, ...]
    arguments: tuple[str, ...]
    takes: Mapping[str, tuple[str, ...]]
    actions: tuple[str, ...]

    @functools.cached_property
    def order(self) -> dict[str, int]:
        """Place of each part of a request, by name."""
        kept = [name for name in self.arguments if name not in (ASKED, ACTION, COUNT)]
        at = kept.index("number")
        return {name: place for place, name in enumerate([ASKED, *self.fields, *kept[:at], GENES, COUNT, *kept[at:]])}

    def allows(self, task: str, name: str) -> bool:
        """Whether a request for the task may hold a field or argument."""
        return name in self.takes[task] or (name in self.fields and FIELDS in self.takes[task])

    def followers(self, task: str, last: str) -> list[str]:
        """What may come next in a request whose last part is ``last`` (``task``: right after the task), without what ends it."""
        has_genes = GENES in self.takes[task]
        of_other = last == ACTION or (last == COUNT and has_genes)  # said of the gene or perturbation before it
        at = (GENES if has_genes else "perturbation") if of_other else last
        rank = -1 if at == TASK else self.order[at]
        found = [n for n, place in self.order.items() if self.allows(task, n) and (place > rank or (n == at and n in MANY))]
        if has_genes and last != GENES:
            found = [name for name in found if name != COUNT]
        if last in (GENES, "perturbation") and self.allows(task, ACTION):
            found.append(ACTION)
        return found

    def task(self, name: str) -> str:
        """The name, or PromptError with the nearest where no request is of that task."""
        if name not in self.takes:
            raise PromptError(f"task {name!r} can't be requested{nearest(name, list(self.takes))}; needed one of {', '.join(self.takes)}")
        return name


@functools.lru_cache(maxsize=2)
def read_material(path: Path | None = None) -> dict[str, Any]:
    """The material of questions as plain data; RecipeError when it can't be read."""
    path = path or assets.path("prompts", "requests.yaml")
    try:
        material: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not YAML that can be read ({error})") from None
    if not isinstance(material, dict) or not isinstance(material.get("tasks"), dict):
        raise RecipeError(f"{path}: needed `tasks:`, a mapping of names")
    return material


def load_grammar(field_names: Sequence[str]) -> RequestGrammar:
    """The grammar of requests over the fields of a c-sentence; RecipeError names a part that no task can take."""
    material = read_material()
    known = [FIELDS, GENES, *material["arguments"]]
    takes = {}
    for name, entry in material["tasks"].items():
        for part in entry["takes"]:
            if part not in known:
                raise RecipeError(f"prompts/requests.yaml: task {name}: takes {part!r}{nearest(part, known)}; known: {', '.join(known)}")
        takes[str(name)] = tuple(entry["takes"])
    return RequestGrammar(tuple(field_names), tuple(material["arguments"]), takes, tuple(material["actions"]))


def argument_tokens() -> list[str]:
    """Names of the control tokens that requests need beside those of fields and tasks."""
    return list(read_material()["arguments"])


def request_tasks() -> list[str]:
    """Names of the tasks that may be requested."""
    return list(read_material()["tasks"])


@dataclass(frozen=True, kw_only=True)
class GeneAsked:
    """A gene of a request, its counts or what is done to it where that was said."""

    name: str
    count: int | None = None
    action: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to be done.

    Attributes
    ----------
    task : one of ``prompts/requests.yaml``
    fields : values by field: of the cells to write, or of the cells at hand
    asked : fields that are asked for
    among : labels to choose from
    against, start, goal, cluster : a label to argue against, the states of a screen, a group of the cells
    genes : with their counts or actions
    count, number : counts of a cell; how many cells or genes
    """

    task: str
    fields: Mapping[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    against: str | None = None
    cluster: str | None = None
    start: str | None = None
    goal: str | None = None
    genes: tuple[GeneAsked, ...] = ()
    count: int | None = None
    number: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, flat, without what was not said; ``Request.from_dict`` reads it back.

        >>> Request(task="generate", fields={"organ": "lung"}, number=10).to_dict()
        {'task': 'generate', 'organ': 'lung', 'number': 10}
        """
        found: dict[str, Any] = {"task": self.task}
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            if entry.name == FIELDS:
                found.update(value)
            elif entry.name == GENES and value:
                found[GENES] = {gene.name: gene.action or gene.count for gene in value}
            elif value not in (None, ()):
                found[entry.name] = list(value) if isinstance(value, tuple) else value
        return found

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], grammar: RequestGrammar) -> Request:
        """From plain data, as ``{"task": "generate", "organ": "lung", "number": 10}``.

        Raises
        ------
        PromptError
            When a task, key or action is unknown; names the nearest.
        """
        task = grammar.task(_text(TASK, given.get(TASK)))
        values: dict[str, Any] = {FIELDS: {}}
        allowed = [name for name in grammar.order if grammar.allows(task, name)]
        for name, value in given.items():
            if name == TASK:
                continue
            if name not in allowed:
                takes = f"it takes {', '.join(allowed)}" if allowed else "it takes nothing"
                raise PromptError(f"request for {task}: {name!r} can't be given to it{nearest(name, allowed)}; {takes}")
            if name in grammar.fields:
                values[FIELDS][name] = _text(name, value)
            elif name == GENES:
                values[GENES] = _genes(value, grammar)
            elif name in NUMBERS:
                values[name] = _whole(task, name, value)
            else:
                values[name] = _texts(name, value) if name in MANY else _text(name, value)
        return cls(task=task, **values)

    def __str__(self) -> str:
        said = self.to_dict()
        return " ".join([said.pop(TASK), *(f"{name}={_spelled(value)}" for name, value in said.items())])


def _spelled(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={said}" if said is not None else str(name) for name, said in value.items())
    return ",".join(map(repr, value)) if isinstance(value, list) else repr(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise PromptError(f"request: {name} is a {type(value).__name__}; needed a text")
    return str(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, str | list | tuple):
        raise PromptError(f"request: {name} is a {type(value).__name__}; needed a text or a list of texts")
    return tuple(_text(name, one) for one in ([value] if isinstance(value, str) else value))


def _whole(task: str, name: str, value: Any) -> int:
    found = value if isinstance(value, int) else number_of(_text(name, value))
    if found is not None and found < 0:
        raise PromptError(f"request for {task}: {name} is {found:,}; needed a number of 1 or more")
    if found is None:
        raise PromptError(f"request for {task}: {name} is {value!r}; needed a whole number")
    return found


def _genes(value: Any, grammar: RequestGrammar) -> tuple[GeneAsked, ...]:
    """Genes from a list of names, or a mapping of names to counts, actions or nothing."""
    pairs = value.items() if isinstance(value, Mapping) else [(name, None) for name in _texts(GENES, value)]
    found = []
    for name, said in pairs:
        if isinstance(said, int) and not 0 <= said <= MOST_COUNTS:
            raise PromptError(f"gene {name}: a count of {said:,}; needed 0 to {MOST_COUNTS:,}")
        if said is not None and not isinstance(said, int) and not (isinstance(said, str) and said in grammar.actions):
            raise PromptError(f"gene {name}: {said!r} is neither a count nor an action; needed one of {', '.join(grammar.actions)}")
        count, action = (said, None) if isinstance(said, int) else (None, said)
        found.append(GeneAsked(name=str(name), count=count, action=action))
    return tuple(found)


def request_of(pieces: Sequence[Piece], grammar: RequestGrammar) -> Request:
    """A request from its pieces, in any order that the grammar allows; numbers that can't be read are left out."""
    values: dict[str, Any] = {FIELDS: {}, ASKED: [], "among": [], GENES: []}
    last = ""
    for name, words in pieces[1:]:
        if name == ACTION and last == "perturbation":
            how = read_material()["perturbed_by"][words]
            values[FIELDS][last] = f"{values[FIELDS][last]} {how}"
        elif name == ACTION or (name == COUNT and last == GENES):
            said = {ACTION: words} if name == ACTION else {COUNT: number_of(words)}
            values[GENES][-1] = GeneAsked(name=values[GENES][-1].name, **said)
        elif name == GENES:
            values[GENES].append(GeneAsked(name=words))
        elif name in (ASKED, "among"):
            values[name].append(words)
        elif name in grammar.fields:
            values[FIELDS][name] = words
        else:
            values[name] = number_of(words) if name in NUMBERS else words
        last = name
    whole: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Request(task=pieces[0][1], **whole)


def pieces_of_ids(ids: Sequence[int], writer: SentenceWriter, grammar: RequestGrammar) -> list[list[Piece]]:
    """The requests that ids spell, up to ``<eos>``; SentenceError names the position that does not belong there."""
    tokens = {writer.control_id(f"<task:{task}>"): (TASK, task) for task in grammar.takes}
    tokens |= {writer.control_id(f"<{name}>"): (name, "") for name in [*grammar.fields, GENES, *grammar.arguments]}
    found: list[list[Piece]] = []
    place = 0
    while place < len(ids) and ids[place] != writer.vocabulary.eos:
        name, words = tokens.get(int(ids[place]), ("", ""))
        if not name or (name != TASK and not found):
            said = writer.tokenizer.convert_ids_to_tokens(int(ids[place]))
            raise SentenceError(
                f"request, position {place}: found {said!r}, needed {'a task' if not found else 'a task, field or argument'}"
            )
        if name == TASK:
            found.append([(TASK, words)])
            place += 1
            continue
        task, last = found[-1][0][1], found[-1][-1][0]
        if name not in grammar.followers(task, last):
            raise SentenceError(f"request, position {place}: <{name}> can't stand after {last} in a request for {task}")
        end = place + 1
        if name == ASKED:
            end += 1
            words = tokens.get(int(ids[place + 1]), ("", ""))[0] if end <= len(ids) else ""
            if words not in grammar.fields:
                raise SentenceError(f"request, position {place + 1}: found no field after <asked>")
        else:
            while end < len(ids) and int(ids[end]) not in tokens and ids[end] != writer.vocabulary.eos:
                end += 1
            words = str(writer.tokenizer.decode(list(ids[place + 1 : end]))).strip()
            if not words or (name == ACTION and words not in grammar.actions):
                raise SentenceError(f"request, position {place + 1}: <{name}> is followed by {words!r}; needed words")
        found[-1].append((name, words))
        place = end
    if place >= len(ids) or not found:
        raise SentenceError(f"request, position {place}: it ends here; needed {'<eos>' if found else 'a task'}")
    return found
