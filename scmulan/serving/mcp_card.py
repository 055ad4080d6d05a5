"""What an assistant is told of the model and of what can be asked: the tool model_info, and the texts of two resources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field

from scmulan.adapters_folder import joined_labels
from scmulan.errors import PromptError, nearest
from scmulan.labels import SeenLabels
from scmulan.model_card import card_text
from scmulan.requests import load_grammar
from scmulan.serving.mcp_arguments import Label
from scmulan.serving.mcp_results import LabelRow, Labels, Result
from scmulan.serving.mcp_work import Task
from scmulan.tasks import Model

MOST_OF_FIELD, MOST_OF_EACH, MOST_FILES = 200, 12, 30
"""Labels that are listed of a field that was asked for, and of each where none was; files."""


class Source(BaseModel):
    """A data set that the model learnt from."""

    file: str
    cells: int


class ModelInfo(Result):
    """A model, what it has learnt, and what this server allows."""

    model: str
    parameters: int | None = None
    context: int = Field(description="Ids of a sentence; a cell with more genes is thinned.")
    genes: int = Field(description="Genes that it knows.")
    adapters: list[str] = Field(description="Names that tools take as `adapter`.")
    indexes: list[str] = Field(description="Names that tools take as `index`.")
    reads_questions: bool = Field(description="Whether `ask` takes questions, not only requests.")
    training_cells: int
    sources: list[Source]
    sources_left_out: int = 0
    fields: dict[str, Labels] = Field(description="Labels that were learnt, by field, with training cells, most first.")
    files: list[str] = Field(description="Files of cells in the server's folder.")
    most_cells: int = Field(description="Of a file.")
    most_written: int = Field(description="Cells written by one call.")


def model_info(
    task: Task,
    field: Annotated[Label | None, Field(description="List more labels of this field, as cell_type or perturbation.")] = None,
    containing: Annotated[Label | None, Field(description="Only labels with this text in them.")] = None,
    adapter: Annotated[Label | None, Field(description="What the model has learnt with this adapter.")] = None,
) -> tuple[ModelInfo, str]:
    """Tell what the model has learnt (labels by field with counts of training cells, adapters, indexes, sources), and the server's files.

    Call it first: other tools take only labels that the model knows. For all labels of one field ask with `field`.
    """
    model, card, limits = task.model, task.model.checkpoint.card, task.files.limits
    seen = SeenLabels.of_card({"labels": labels_learnt(model, adapter)})
    if field is not None and not seen.values(field):
        known = [name for name in model.prompts.fields if seen.values(name)]
        raise PromptError(f"field {field!r}: this model has learnt no label of it{nearest(field, known)}; it has of {', '.join(known)}")
    names = [field] if field is not None else list(model.prompts.fields)
    most = MOST_OF_FIELD if field is not None else MOST_OF_EACH
    fields = {name: _labels(seen, name, containing, most) for name in names if seen.values(name)}
    sources = [
        Source(file=str(each.get("file", "?")), cells=int(each.get("cells", 0)))
        for each in card.get("sources", [])
        if isinstance(each, dict)
    ]
    info = ModelInfo(
        model=model.checkpoint.folder.name, parameters=card.get("parameters"), context=model.checkpoint.context,
        genes=len(model.vocabulary.genes),
        adapters=list(model.adapters), indexes=list(task.indexes),
        reads_questions=card.get("recipe", {}).get("packing", {}).get("questions", 0) > 0, training_cells=sum(seen.cells),
        sources=sources[:MOST_OF_EACH], sources_left_out=max(0, len(sources) - MOST_OF_EACH), fields=fields,
        files=task.files.names()[:MOST_FILES], most_cells=limits.cells, most_written=limits.written,
    )  # fmt: skip
    listed = "; ".join(f"{name}: {_listed(labels)}" for name, labels in fields.items())
    text = f"{info.model}: {info.training_cells:,} training cells, {info.genes:,} genes. Learnt labels, with training cells: {listed}."
    files = f" Files: {', '.join(info.files)}." if info.files else " The folder holds no .h5ad file."
    adapters = f" Adapters: {', '.join(info.adapters)}." if info.adapters else ""
    return info, text + adapters + files


def labels_learnt(model: Model, adapter: str | None) -> list[dict[str, object]]:
    """Combinations of labels of the training cells; PromptError for an adapter that there is none of."""
    labels: list[dict[str, object]] = model.checkpoint.card["labels"]
    if adapter is None:
        return labels
    if adapter not in model.adapters:
        known = f"loaded: {', '.join(model.adapters)}" if model.adapters else "none is loaded"
        raise PromptError(f"adapter {adapter!r}: {known}{nearest(adapter, list(model.adapters))}")
    return joined_labels(labels, model.adapters[adapter].card["labels"])


def _labels(seen: SeenLabels, name: str, containing: str | None, most: int) -> Labels:
    values = [value for value in seen.values(name) if (containing or "").lower() in value.lower()]
    cells = dict.fromkeys(values, 0)
    for combination, n in zip(seen.combinations, seen.cells, strict=True):
        if combination.get(name) in cells:
            cells[combination[name]] += n
    rows = [LabelRow(label=value, cells=cells[value]) for value in values[:most]]
    return Labels(rows=rows, left_out=max(0, len(values) - most))


def _listed(labels: Labels) -> str:
    more = f", and {labels.left_out:,} more" if labels.left_out else ""
    return ", ".join(f"{row.label} {row.cells:,}" for row in labels.rows) + more


def text_of_card(model: Model) -> str:
    """The model card, in Markdown."""
    return card_text(model.checkpoint.card)


def text_of_tasks(model: Model, tools: Iterable[tuple[str, str]]) -> str:
    """The tools, the fields, and what may be asked for in English or as a request, in Markdown."""
    grammar = load_grammar(list(model.prompts.fields))
    words = {name: f" ({', '.join(entry.words)})" if entry.words else "" for name, entry in model.prompts.fields.items()}
    requests = [f"- {task}: {', '.join(takes) or 'nothing'}" for task, takes in grammar.takes.items()]
    lines = [
        "# Tools", "", *(f"- {name}: {what.strip().splitlines()[0]}" for name, what in tools), "",
        "# Fields of a cell", "", *(f"- {name}{said}" for name, said in words.items()), "",
        "# Requests of `ask`, and what each takes", "",
        "As {'task': NAME, ...}; `fields` stands for each field by its own name: {'task': 'generate', 'organ': 'lung', 'number': 10}.",
        "", *requests, "",
    ]  # fmt: skip
    return "\n".join(lines)
