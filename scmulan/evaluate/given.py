"""What every section of an evaluation is given, and how large the sections are.

A section looks at it, and returns either what measures it or why it can't be measured (`Skipped`), so that nothing is computed before it
is known what can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, TypeVar

from scmulan.evaluate.cells import Ground, Judge, OnProgress, Side, Skipped, fit_judge
from scmulan.tasks import Model

T = TypeVar("T")
Prepared: TypeAlias = Callable[[], T] | Skipped


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured. As shipped, each section takes a minute or two on two cores with the embedded model and cells.

    Attributes
    ----------
    cells_per_perturbation : cells that the model writes of each perturbation
    explained_cells : held-out cells of each perturbation of which the model says which it was
    state_draws : later cells drawn of each earlier one, whose mean is measured beside the first
    depth_cells, depth_draws : held-out cells that are thinned, and cells drawn of each to bring it back to depth
    mapped_cells, reference_cells : held-out cells that get labels, and training cells that lend theirs; drawn evenly over types
    questions : held-out questions of each kind
    """

    cells_per_perturbation: int = 100
    explained_cells: int = 50
    state_draws: int = 4
    depth_cells: int = 80
    depth_draws: int = 4
    mapped_cells: int = 400
    reference_cells: int = 1200
    questions: int = 40


@dataclass(frozen=True, kw_only=True)
class Given:
    """Both sides as they were read, and the ground: those of their cells whose types can be measured on, or why there are none.

    Attributes
    ----------
    guide, clone : columns of ``obs``
    cells_per_type, seeds, as_read : as in ``scmulan.evaluate.evaluate``
    """

    model: Model
    held: Side
    train: Side
    ground: Ground | Skipped
    sizes: Sizes
    seed: int
    guide: str
    clone: str
    cells_per_type: int | None
    seeds: int
    as_read: bool
    say: OnProgress
    partly: dict[str, str] = field(default_factory=dict)
    """What of a section could not be measured, where the rest of it could: filled by the sections, and told among what was skipped."""

    def those_posed(self, section: str, found: Sequence[T | Skipped]) -> list[T] | Skipped:
        """The data sets or steps that can be measured, the others told; or, where none can, why."""
        posed = [each for each in found if not isinstance(each, Skipped)]
        skipped = [each for each in found if isinstance(each, Skipped)]
        if not posed:
            return Skipped("; ".join(f"{each.what}: {each.reason}" for each in skipped) or "there is nothing to measure on")
        self.partly.update({f"{section}, {each.what}": each.reason for each in skipped})
        return posed

    @cached_property
    def regression(self) -> Judge:
        """Logistic regression on the training cells of the ground, fitted once."""
        assert isinstance(self.ground, Ground)
        self.say("fit logistic regression", 0, 1)
        fitted = fit_judge(self.ground.counts(self.ground.train), self.ground.train_types)
        self.say("fit logistic regression", 1, 1)
        return fitted
