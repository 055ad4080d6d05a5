"""Tasks and fields as data: reads ``prompts/tasks.yaml`` and puts whole sentences together from parts.

    sentence = <bos> { given part } <task:NAME> { predicted part } <eos>

A part is a field with its text, some genes at their levels, or a cell. A task may be about two cells: a first one, and the one that it
is about; fields that stand after the first cell are of the second. Every id of a sentence has a part code, so that the loss can weigh
parts and report them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import yaml

from scmulan import assets
from scmulan.csentence import Ids, Vocabulary
from scmulan.errors import PromptError, RecipeError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CELL, GENES, ANY = "cell", "genes", "any"
QUESTION, REQUEST = "question", "request"
CELL_PARTS = ("depth", "level", "gene")
FRAME = "frame"
GIVEN_GENES_MOST = 8
FIRST_CELLS = ("control", "earlier", "shallower")
"""What the first cell of two may be: one that was not perturbed, an ancestor, or the same cell measured less deeply."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A kind of metadata and the words a person may use for it."""

    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question that can be put to the model.

    Attributes
    ----------
    drop : how often a given field is left out of a training sentence: ``each`` for any field, a field's own name, and ``all`` for all
        of them at once; fields that stand after a cell are never left out
    first_cell : of a task about two cells, what the first is to the second, one of `FIRST_CELLS`
    """

    name: str
    given: tuple[str, ...]
    predict: tuple[str, ...]
    drop: Mapping[str, float] = field(default_factory=dict)
    weight: float = 0.0
    phrasings: tuple[str, ...] = ()
    planned: bool = False
    first_cell: str | None = None

    @property
    def token(self) -> str:
        return f"<task:{self.name}>"

    @property
    def is_of_question(self) -> bool:
        """Whether it reads a question in English, and is about no cell itself."""
        return QUESTION in self.given

    @property
    def after(self) -> tuple[str, ...]:
        """Fields of the second cell, which stand after the first."""
        if self.first_cell is None:
            return ()
        return tuple(part for part in self.given[self.given.index(CELL) :] if part != CELL)

    @property
    def is_second_given(self) -> bool:
        """Whether the second cell is given too, rather than predicted."""
        return self.first_cell is not None and self.given.count(CELL) == 2


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """All fields, in sentence order, and all tasks, by name."""

    fields: Mapping[str, Field]
    tasks: Mapping[str, Task]

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Names of the part codes: 0 is what is given, then the cell's parts, the frame, the fields, and the requests of a question."""
        return ("given", *CELL_PARTS, FRAME, *self.fields, REQUEST)

    def task(self, name: str) -> Task:
        """The task of that name; PromptError names the nearest when there is none or when it is only planned."""
        if name not in self.tasks:
            raise PromptError(f"task {name!r} is not in prompts/tasks.yaml{nearest(name, list(self.tasks))}")
        if self.tasks[name].planned:
            raise PromptError(f"task {name!r} is planned and not built yet; built: {', '.join(self.built)}")
        if self.tasks[name].is_of_question:
            raise PromptError(f"task {name!r} reads questions and is about no cell; needed one of {', '.join(self.built)}")
        return self.tasks[name]

    @property
    def built(self) -> list[str]:
        """The tasks about cells that can be asked for."""
        return [name for name, task in self.tasks.items() if not task.planned and not task.is_of_question]

    def texts(self) -> list[str]:
        """Every phrasing and field word, to train the text part of a tokenizer on."""
        words = [word for entry in self.fields.values() for word in (entry.name.replace("_", " "), *entry.words)]
        return [phrase for task in self.tasks.values() for phrase in task.phrasings] + words


def load_prompts(path: str | Path | None = None) -> Prompts:
    """Read the tasks file (the shipped one by default); RecipeError names the key that is wrong."""
    path = Path(path) if path else assets.path("prompts", "tasks.yaml")
    try:
        material: Any = yaml.safe_load(path.read_text())
        if not isinstance(material, dict) or not all(isinstance(material.get(key), dict) for key in ("fields", "tasks")):
            raise RecipeError(f"{path}: needed `fields:` and `tasks:`, each a mapping of names")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not YAML that can be read ({error})") from None
    fields = {name: Field(name=name, words=tuple((entry or {}).get("words", ()))) for name, entry in material["fields"].items()}
    tasks = {name: _read_task(path, name, entry, fields) for name, entry in material["tasks"].items()}
    return Prompts(fields=fields, tasks=tasks)


def _read_task(path: Path, name: str, entry: dict[str, Any], fields: Mapping[str, Field]) -> Task:
    known = ("given", "predict", "drop", "weight", "phrasings", "planned", "first_cell")
    for key in entry:
        if key not in known:
            raise RecipeError(f"{path}: task {name}: unknown key {key!r}{nearest(key, known)}; known: {', '.join(known)}")
    for key in ("given", "predict"):
        if not isinstance(entry.get(key), list):
            raise RecipeError(f"{path}: task {name}: {key} is {entry.get(key)!r}; needed a list of parts")
    planned = bool(entry.get("planned", False))
    parts = [*fields, CELL, GENES, ANY, QUESTION, REQUEST]
    for part in [*entry["given"], *entry["predict"]]:
        if part not in parts and not planned:
            raise RecipeError(f"{path}: task {name}: unknown part {part!r}{nearest(part, parts)}")
    for key, share in (entry.get("drop") or {}).items():
        if key not in (*fields, "each", "all"):
            raise RecipeError(f"{path}: task {name}: drop: unknown field {key!r}{nearest(str(key), [*fields, 'each', 'all'])}")
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise RecipeError(f"{path}: task {name}: drop: {key} is {share!r}; needed a share from 0 to 1")
    first = entry.get("first_cell")
    if first is not None and first not in FIRST_CELLS:
        raise RecipeError(
            f"{path}: task {name}: first_cell {first!r}: needed one of {', '.join(FIRST_CELLS)}{nearest(str(first), FIRST_CELLS)}"
        )
    is_of_two = [*entry["given"], *entry["predict"]].count(CELL) > 1 or (CELL in entry["given"] and entry["given"][-1] != CELL)
    if not planned and (first is not None) != is_of_two:
        raise RecipeError(f"{path}: task {name}: a task about two cells, and no other, says what the first is as `first_cell:`")
    return Task(
        name=name,
        given=tuple(entry["given"]),
        predict=tuple(entry["predict"]),
        drop=dict(entry.get("drop") or {}),
        weight=float(entry.get("weight", 0)),
        phrasings=tuple(entry.get("phrasings") or ()),
        planned=planned,
        first_cell=first,
    )


@dataclass(frozen=True)
class Sentence:
    """Ids of a sentence and the part code of each; both (T,)."""

    ids: Ids
    parts: npt.NDArray[np.uint8]


class SentenceWriter:
    """Puts parts together into sentences under one tokenizer.

    Parameters
    ----------
    tokenizer, vocabulary : of one tokenizer folder
    prompts : fields and tasks
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, prompts: Prompts):
        self.tokenizer, self.vocabulary, self.prompts = tokenizer, vocabulary, prompts
        self.part_code = {name: code for code, name in enumerate(prompts.parts)}
        self._field_ids: dict[tuple[str, str], Ids] = {}

    def control_id(self, token: str) -> int:
        """Id of a control token such as ``<organ>``; PromptError when this tokenizer was built without it."""
        number = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(number, int) or self.tokenizer.convert_ids_to_tokens(number) != token:
            raise PromptError(f"{token} is not a token of this model's tokenizer; it was built before this field or task was added")
        return number

    def field_ids(self, name: str, value: str) -> Ids:
        """``<organ> blood`` as ids; (T,)."""
        key = (name, value)
        if key not in self._field_ids:
            if name not in self.prompts.fields:
                raise PromptError(f"field {name!r} is not in prompts/tasks.yaml{nearest(name, list(self.prompts.fields))}")
            # split_special_tokens: a label that spells a control token is still text, and can't end the cell or open another field
            text = self.tokenizer(f" {value}", add_special_tokens=False, split_special_tokens=True)["input_ids"]
            self._field_ids[key] = np.array([self.control_id(f"<{name}>"), *text], dtype=np.int64)
        return self._field_ids[key]

    def fields_ids(self, fields: Mapping[str, str | None]) -> Ids:
        """Several fields in sentence order, unknown ones left out; (T,)."""
        known = [self.field_ids(name, str(fields[name])) for name in self.prompts.fields if fields.get(name)]
        return np.concatenate(known) if known else np.zeros(0, dtype=np.int64)

    def genes_ids(self, columns: npt.ArrayLike, levels: npt.ArrayLike) -> Ids:
        """Some genes at their levels, written as in a cell, after ``<genes>``; (T,)."""
        columns, levels = np.asarray(columns, dtype=np.int64), np.asarray(levels, dtype=np.int64)
        ids: list[int] = [self.control_id("<genes>")]
        for level in sorted(set(levels.tolist()), reverse=True):
            ids.append(int(self.vocabulary.level_id(level)))
            ids.extend((self.vocabulary.first_gene + np.sort(columns[levels == level])).tolist())
        return np.array(ids, dtype=np.int64)

    def cell_parts(self, cell: Ids) -> npt.NDArray[np.uint8]:
        """Part codes of a cell's ids: ``<cell>`` belongs to the frame, ``</cell>`` to the levels."""
        codes = np.where(cell >= self.vocabulary.first_gene, self.part_code["gene"], self.part_code["level"]).astype(np.uint8)
        codes[0], codes[1] = self.part_code[FRAME], self.part_code["depth"]
        return codes

    def prompt(
        self,
        task: str,
        fields: Mapping[str, str | None],
        *,
        cell: Ids | None = None,
        genes: Ids | None = None,
        after: Mapping[str, str | None] | None = None,
        second: Ids | None = None,
    ) -> Ids:
        """What stands before the answer, the task's token included, as at inference; (T,).

        Parameters
        ----------
        cell : the cell, or the first of two
        after : of a task about two cells, fields of the second
        second : the second cell, where it is given
        """
        parts = [np.array([self.vocabulary.bos]), self.fields_ids(fields)]
        parts += [part for part in (genes, cell) if part is not None]
        if after is not None:
            parts.append(self.fields_ids(after))
        if second is not None:
            parts.append(second)
        return np.concatenate([*parts, [self.control_id(self.prompts.task(task).token)]]).astype(np.int64)

    def answer(self, fields: Mapping[str, str | None], names: Sequence[str]) -> Ids:
        """Predicted fields and the end of the sentence; (T,)."""
        return np.concatenate([self.fields_ids({name: fields.get(name) for name in names}), [self.vocabulary.eos]]).astype(np.int64)

    def training_sentence(
        self,
        task: Task,
        fields: Mapping[str, str | None],
        cell: Ids,
        rng: np.random.Generator,
        *,
        is_depth_true: bool = True,
        first: tuple[Ids, Mapping[str, str | None]] | None = None,
    ) -> Sentence:
        """One sentence of a task about a cell, some given fields dropped at random.

        A given cell is learnt too (its ids carry cell codes): it is the same cell, under fewer fields. The depth of a cell that
        was thinned for training (``is_depth_true=False``) is not learnt, for no real cell was measured at it. Of a task about two
        cells, ``first`` are the ids and fields of the first; what is given is then not learnt, for a first cell stands before many.
        """
        if (first is None) != (task.first_cell is None):
            raise PromptError(f"task {task.name}: is about {'one cell' if task.first_cell is None else 'two cells'}")
        cell_codes = self.cell_parts(cell)
        if not is_depth_true:
            cell_codes[1] = 0
        given = [np.array([self.vocabulary.bos]), self.fields_ids(self._keep_fields(task, fields if first is None else first[1], rng))]
        parts: list[tuple[Ids, npt.NDArray[np.uint8] | int]] = [(ids, 0) for ids in given]
        if GENES in task.given:
            parts.append((self._some_genes(cell, rng), 0))
        if first is not None:
            parts += [(first[0], 0), (self.fields_ids({name: fields.get(name) for name in task.after}), 0)]
            parts += [(cell, 0)] if task.is_second_given else []
        elif CELL in task.given:
            parts.append((cell, cell_codes))
        parts.append((np.array([self.control_id(task.token)]), 0))
        if CELL in task.predict:
            parts.append((cell, cell_codes))
        for name in self.prompts.fields:
            if name in task.predict and fields.get(name):
                parts.append((self.field_ids(name, str(fields[name])), self.part_code[name]))
        last = parts[-1][1] if CELL not in task.predict else self.part_code[FRAME]
        parts.append((np.array([self.vocabulary.eos]), last))
        codes = [np.full(len(ids), code, np.uint8) if isinstance(code, int) else code for ids, code in parts]
        return Sentence(np.concatenate([ids for ids, _ in parts]).astype(np.int64), np.concatenate(codes))

    def _keep_fields(self, task: Task, fields: Mapping[str, str | None], rng: np.random.Generator) -> dict[str, str | None]:
        """The given fields that are known and not dropped; the draws do not depend on which fields are known."""
        draws = rng.random(len(self.prompts.fields) + 1)
        if draws[-1] < task.drop.get("all", 0):
            return {}
        named = set(task.given) - set(task.after)
        allowed = [name for name in self.prompts.fields if (ANY in named or name in named) and name not in task.predict]
        rate = {name: task.drop.get(name, task.drop.get("each", 0)) for name in allowed}
        order = {name: number for number, name in enumerate(self.prompts.fields)}
        return {name: fields.get(name) for name in allowed if draws[order[name]] >= rate[name]}

    def _some_genes(self, cell: Ids, rng: np.random.Generator) -> Ids:
        """One to eight of the cell's genes at their levels."""
        body = cell[2:-1]
        is_gene = body >= self.vocabulary.first_gene
        if not is_gene.any():
            return np.zeros(0, dtype=np.int64)
        place = np.maximum.accumulate(np.where(is_gene, -1, np.arange(len(body))))
        level = (self.vocabulary.end_of_cell - 1 - body[place])[is_gene]
        chosen = rng.choice(int(is_gene.sum()), size=min(int(rng.integers(1, GIVEN_GENES_MOST + 1)), int(is_gene.sum())), replace=False)
        return self.genes_ids((body[is_gene] - self.vocabulary.first_gene)[chosen], level[chosen])
