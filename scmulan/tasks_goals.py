"""Two sets of labels that a cell may go between: the log-odds of a goal against a start, exact over the labels asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from scmulan.csentence import Ids
from scmulan.errors import PromptError, nearest, some
from scmulan.labels import as_answer
from scmulan.levels import OTHER, coarser
from scmulan.metadata import canonical
from scmulan.tasks_answers import Answers

FIELDS = ("cell_type", "lineage")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Labels to go toward and away from.

    Attributes
    ----------
    toward, away : labels of the goal, and of the start or, where none is given, all others; no label is of both
    """

    toward: tuple[str, ...]
    away: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All that are asked about."""
        return (*self.toward, *self.away)

    def answers(self, answers: Answers) -> list[Ids]:
        """What the model would answer for each label."""
        return answers.type_answers(self.labels)

    def log_odds(self, scores_NL: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Log-odds of the goal against the start from scores of `labels`; (N,) nats."""
        n = len(self.toward)
        found: npt.NDArray[np.float64] = logsumexp(scores_NL[:, :n], axis=1) - logsumexp(scores_NL[:, n:], axis=1)
        return found


def goal_of(possible: Sequence[str], goal: Mapping[str, str], start: Mapping[str, str] | None) -> Goal:
    """The labels that a goal and a start mean among those possible; PromptError where one means none, or both mean the same.

    >>> goal_of(["monocyte", "neutrophil", "mast cell"], {"cell_type": "neutrophils"}, {"cell_type": "monocyte"}).labels
    ('neutrophil', 'monocyte')
    """
    toward = labels_of(possible, goal, "goal")
    away = labels_of(possible, start, "start") if start else [label for label in possible if label not in toward]
    both = [label for label in toward if label in away]
    if both or not away:
        found = f"{some(both)} would be both goal and start" if both else "every label is of the goal"
        raise PromptError(f"goal {_spell(goal)}: {found}; needed two sets of labels that exclude each other")
    return Goal(toward=tuple(toward), away=tuple(away))


def labels_of(possible: Sequence[str], asked: Mapping[str, str], what: str) -> list[str]:
    """Labels that one field means: the one of that name, else all below the term; of a lineage, all that are of it."""
    if len(asked) != 1 or next(iter(asked)) not in FIELDS:
        raise PromptError(f"{what} {_spell(asked) or 'is empty'}: needed one field, {' or '.join(FIELDS)}, for example cell_type=monocyte")
    field, value = next(iter(asked.items()))
    preferred = canonical(field, value).value
    if field == "lineage":
        found = [label for label in possible if as_answer(label)["lineage"] == preferred]
        known = sorted({str(as_answer(label)["lineage"]) for label in possible})
    else:
        by_case = {label.lower(): label for label in possible}
        same = by_case.get(preferred.lower()) or by_case.get(value.lower())
        found, known = [same] if same else _below(possible, preferred), list(possible)
    if not found:
        raise PromptError(
            f"{what} {field} {value!r}: none of the labels that the model would choose among here{nearest(preferred, known)}; "
            f"they are {some(known, most=8)}"
        )
    return found


def _below(possible: Sequence[str], term: str) -> list[str]:
    """Labels that are of a wider term of the Cell Ontology."""
    try:
        above = coarser(possible, [term])
    except PromptError:
        return []
    return [label for label in possible if above[label] not in (OTHER, label)]


def _spell(asked: Mapping[str, str]) -> str:
    return ", ".join(f"{field}={value}" for field, value in asked.items())
