"""Tasks and fields as data: reads ``prompts/tasks.yaml`` and puts whole sentences together from parts.

    sentence = <bos> { given part } <task:NAME> { predicted part } <eos>

A part is a field with its text, some genes at their levels, or a cell. Every id of a sentence has a part code, so that the
loss can weigh parts and report them one by one.
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
CELL_PARTS = ("depth", "level", "gene")
FRAME = "frame"
GIVEN_GENES_MOST = 8


@dataclass(frozen=True, kw_only=True)
class Field:
    """A kind of metadata and the words a person may use for it."""

    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question that can be put to the model.

    ``drop`` says how often a given field is left out of a training sentence: ``each`` for any field, a field's own name, and
    ``all`` for all of them at once.
    """

    name: str
    given: tuple[str, ...]
    predict: tuple[str, ...]
    drop: Mapping[str, float] = field(default_factory=dict)
    weight: float = 0.0
    phrasings: tuple[str, ...] = ()
    planned: bool = False

    @property
    def token(self) -> str:
        return f"<task:{self.name}>"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """All fields, in sentence order, and all tasks, by name."""

    fields: Mapping[str, Field]
    tasks: Mapping[str, Task]

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Names of the part codes: 0 is what is given, then the cell's parts, the frame, and the fields."""
        return ("given", *CELL_PARTS, FRAME, *self.fields)

    def task(self, name: str) -> Task:
        """The task of that name; PromptError names the nearest when there is none or when it is only planned."""
        if name not in self.tasks:
            raise PromptError(f"task {name!r} is not in prompts/tasks.yaml{nearest(name, list(self.tasks))}")
        if self.tasks[name].planned:
            raise PromptError(f"task {name!r} is planned and not built yet; built: {', '.join(self.built)}")
        return self.tasks[name]

    @property
    def built(self) -> list[str]:
        return [name for name, task in self.tasks.items() if not task.planned]

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
    known = ("given", "predict", "drop", "weight", "phrasings", "planned")
    for key in entry:
        if key not in known:
            raise RecipeError(f"{path}: task {name}: unknown key {key!r}{nearest(key, known)}; known: {', '.join(known)}")
    for key in ("given", "predict"):
        if not isinstance(entry.get(key), list):
            raise RecipeError(f"{path}: task {name}: {key} is {entry.get(key)!r}; needed a list of parts")
    planned = bool(entry.get("planned", False))
    parts = [*fields, CELL, GENES, ANY]
    for part in [*entry["given"], *entry["predict"]]:
        if part not in parts and not planned:
            raise RecipeError(f"{path}: task {name}: unknown part {part!r}{nearest(part, parts)}")
    for key, share in (entry.get("drop") or {}).items():
        if key not in (*fields, "each", "all"):
            raise RecipeError(f"{path}: task {name}: drop: unknown field {key!r}{nearest(str(key), [*fields, 'each', 'all'])}")
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise RecipeError(f"{path}: task {name}: drop: {key} is {share!r}; needed a share from 0 to 1")
    return Task(
        name=name,
        given=tuple(entry["given"]),
        predict=tuple(entry["predict"]),
        drop=dict(entry.get("drop") or {}),
        weight=float(entry.get("weight", 0)),
        phrasings=tuple(entry.get("phrasings") or ()),
        planned=planned,
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

    def prompt(self, task: str, fields: Mapping[str, str | None], *, cell: Ids | None = None, genes: Ids | None = None) -> Ids:
        """What stands before the answer, the task's token included, as at inference; (T,)."""
        parts = [np.array([self.vocabulary.bos]), self.fields_ids(fields)]
        parts += [part for part in (genes, cell) if part is not None]
        return np.concatenate([*parts, [self.control_id(self.prompts.task(task).token)]]).astype(np.int64)

    def answer(self, fields: Mapping[str, str | None], names: Sequence[str]) -> Ids:
        """Predicted fields and the end of the sentence; (T,)."""
        return np.concatenate([self.fields_ids({name: fields.get(name) for name in names}), [self.vocabulary.eos]]).astype(np.int64)

    def training_sentence(
        self, task: Task, fields: Mapping[str, str | None], cell: Ids, rng: np.random.Generator, *, is_depth_true: bool = True
    ) -> Sentence:
        """One sentence of a task about a cell, some given fields dropped at random.

        A given cell is learnt too (its ids carry cell codes): it is the same cell, under fewer fields. The depth of a cell that
        was thinned for training (``is_depth_true=False``) is not learnt, for no real cell was measured at it.
        """
        given = self._keep_fields(task, fields, rng)
        cell_codes = self.cell_parts(cell)
        if not is_depth_true:
            cell_codes[1] = 0
        ids, codes = [np.array([self.vocabulary.bos]), self.fields_ids(given)], []
        codes = [np.zeros(1 + len(ids[1]), np.uint8)]
        if GENES in task.given:
            ids.append(self._some_genes(cell, rng))
            codes.append(np.zeros(len(ids[-1]), np.uint8))
        if CELL in task.given:
            ids.append(cell)
            codes.append(cell_codes)
        ids.append(np.array([self.control_id(task.token)]))
        codes.append(np.zeros(1, np.uint8))
        if CELL in task.predict:
            ids.append(cell)
            codes.append(cell_codes)
        for name in self.prompts.fields:
            if name in task.predict and fields.get(name):
                ids.append(self.field_ids(name, str(fields[name])))
                codes.append(np.full(len(ids[-1]), self.part_code[name], np.uint8))
        ids.append(np.array([self.vocabulary.eos]))
        last = codes[-1][-1] if CELL not in task.predict else self.part_code[FRAME]
        codes.append(np.full(1, last, np.uint8))
        return Sentence(np.concatenate(ids).astype(np.int64), np.concatenate(codes))

    def _keep_fields(self, task: Task, fields: Mapping[str, str | None], rng: np.random.Generator) -> dict[str, str | None]:
        """The given fields that are known and not dropped; the draws do not depend on which fields are known."""
        draws = rng.random(len(self.prompts.fields) + 1)
        if draws[-1] < task.drop.get("all", 0):
            return {}
        allowed = [name for name in self.prompts.fields if (ANY in task.given or name in task.given) and name not in task.predict]
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
