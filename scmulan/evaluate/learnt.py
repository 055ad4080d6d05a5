"""Whether a model has learnt a task, by its tokenizer and by what its card says it was trained on.

A figure of a task that was never learnt would be no measurement: such a section is left out, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scmulan.corpus.pairs import is_control
from scmulan.errors import PromptError
from scmulan.perturbations import control_label
from scmulan.tasks import Model

OF_TIME = ("next_state", "fate")
OF_A_PERTURBATION = ("perturb", "explain_shift")
OF_TWO_CELLS = (*OF_A_PERTURBATION, *OF_TIME, "enhance")


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
    if task in OF_A_PERTURBATION and (not perturbations_seen(model) or control_label(model.seen) is None):
        return "the model has seen no perturbed cell beside control cells"
    if task in OF_TWO_CELLS and not any(_may_know_two_cells(card) for card in cards):
        return "none of the tasks about two cells is among the held-out nats of the model's card"
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


def _may_know_two_cells(card: Mapping[str, Any]) -> bool:
    """Whether its held-out nats, where it has any, are of one of them: a tokenizer may have tokens of tasks that were never trained on."""
    nats = card.get("held_out_nats") or {}
    return not nats or any(name.split("/")[0] in OF_TWO_CELLS for name in nats)


def _questions(card: Mapping[str, Any]) -> bool:
    return int((card.get("recipe", {}).get("packing") or {}).get("questions", 0)) > 0
