"""Whether a model has learnt a task, by its tokenizer and by what its card says it was trained on.

A figure of a task that was never learnt would be no measurement: such a section is left out, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scmulan.corpus.pairs import is_control
from scmulan.errors import PromptError
from scmulan.tasks import Model

OF_TIME = ("next_state", "fate")


def why_not_learnt(model: Model, task: str) -> str | None:
    """Why a model can't be asked for a task; None where it can."""
    try:
        model.writer.control_id(f"<task:{task}>")
    except PromptError as error:
        return str(error)
    cards = cards_of(model)
    if not any(_trains(card, task) for card in cards):
        return f"the model was not trained on the task {task}"
    if task == "request" and not any(_questions(card) for card in cards):
        return "the model was trained without questions (packing.questions of its recipe is 0)"
    if task in OF_TIME and not any(source.get("states") for card in cards for source in card.get("sources", [])):
        return "the model was trained on no data set whose cells are paired along time (`states:` of a corpus plan)"
    return None


def cards_of(model: Model) -> list[Mapping[str, Any]]:
    """The cards of the model and of the adapter in use."""
    adapter = model.adapter
    return [model.checkpoint.card, *([model.adapters[adapter].card] if adapter is not None else [])]


def perturbations_seen(model: Model) -> list[str]:
    """The perturbations of training cells, without those that stand for none."""
    return [label for label in model.seen.values("perturbation") if not is_control(label)]


def _trains(card: Mapping[str, Any], task: str) -> bool:
    """Whether a recipe has the task: all that are built where it names none."""
    tasks = card.get("recipe", {}).get("tasks")
    return not tasks or float(tasks.get(task, 0)) > 0


def _questions(card: Mapping[str, Any]) -> bool:
    return int((card.get("recipe", {}).get("packing") or {}).get("questions", 0)) > 0
