"""What a client asks of a job: one model a task, checked before the job is taken; they are the OpenAPI document's schemas too."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from scmulan.serving.uploads import FILE_ID


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("needed a number")
    return value


IS_NUMBER = BeforeValidator(_number)
"""A text or a truth value is none, though pydantic would make one of it. It stands after the limits, or the schema loses them."""
FileId = Annotated[str, Field(pattern=f"^{FILE_ID}$", description="Id of an uploaded file, from POST /v1/files.")]
JobId = Annotated[str, Field(pattern="^job-[0-9a-f]{24}$", description="Id of a job.")]
MOST_ROWS = 100_000
Rows = Annotated[
    list[Annotated[int, Field(ge=0)]],
    Field(min_length=1, max_length=MOST_ROWS, description="Only these cells of the file, by number from 0, in this order."),
]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Labels = Annotated[list[Label], Field(max_length=500)]
Temperature = Annotated[float, Field(ge=0, le=5), IS_NUMBER]
TopP = Annotated[float, Field(gt=0, le=1), IS_NUMBER]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="With the cell's number, decides all draws."), IS_NUMBER]
Depth = Annotated[int, Field(ge=1, le=10_000_000), IS_NUMBER]
Number = Annotated[int, Field(ge=1, le=1_000_000, description="Cells to write."), IS_NUMBER]
Genes = Annotated[dict[Label, Annotated[int, Field(ge=1, le=1_000_000), IS_NUMBER]], Field(min_length=1, max_length=2000)]
Action = Literal["delete", "lower", "raise"] | Annotated[int, Field(ge=0, le=1_000_000), IS_NUMBER]


class JobAsked(BaseModel):
    """What every job may be asked."""

    model_config = ConfigDict(extra="forbid")
    TASK: ClassVar[str]
    ON_FILE: ClassVar[bool] = True
    IN_PIECES: ClassVar[int] = 128
    """Cells of a piece; 0 where all cells are needed at once."""


class Asked(JobAsked):
    """What is asked of a model."""

    model: Annotated[str | None, Field(max_length=200, description="Model or adapter, as in GET /v1/models.")] = None


class OnFile(Asked):
    """A job on cells of a file."""

    file_id: FileId
    rows: Rows | None = None


class Annotate(OnFile):
    """Cell types with exact probabilities over a closed set of labels."""

    TASK = "annotate"
    labels: Annotated[Labels | None, Field(description="To choose from; those that the model saw for the organ when not given.")] = None
    threshold: Annotated[float, Field(ge=0, le=1, description="Below it a cell is `unassigned`."), IS_NUMBER] = 0.0
    by: Literal["answer", "both"] = "answer"


class Locate(OnFile):
    """The organ of each cell, from the cell alone."""

    TASK = "locate"


class Describe(OnFile):
    """Every field of each cell, from the cell alone."""

    TASK = "describe"


class Embed(OnFile):
    """An embedding of each cell, told no label."""

    TASK = "embed"


class Generate(Asked):
    """Cells of a kind."""

    TASK, ON_FILE, IN_PIECES = "generate", False, 32
    fields: Annotated[dict[Label, Label], Field(max_length=20, description="As organ, cell_type; what is left open is drawn.")] = {}
    n: Number = 10
    seed: Seed = 0
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    depth: Depth | None = None


class Complete(Generate):
    """Cells that hold some genes at given counts; not an intervention."""

    TASK = "complete"
    genes: Genes


class Perturb(OnFile):
    """Control cells after a perturbation, as it was learnt."""

    TASK, IN_PIECES = "perturb", 0
    perturbation: Annotated[dict[Label, Label] | Label, Field(description='{"STAT1": "knockout"}, or a label as "interferon beta".')]
    dose: Label | None = None
    time: Label | None = None
    n: Number | None = None
    seed: Seed = 0


class ExplainShift(OnFile):
    """Which perturbation turned control cells (file_id) into others (perturbed_file_id)."""

    TASK, IN_PIECES = "explain_shift", 0
    perturbed_file_id: FileId
    perturbations: Labels | None = None
    seed: Seed = 0


class NextState(OnFile):
    """What cells become by a later time."""

    TASK, IN_PIECES = "next_state", 64
    time: Label
    seed: Seed = 0


class Fate(OnFile):
    """Types that cells take by a later time."""

    TASK = "fate"
    time: Label
    labels: Labels | None = None


class Enhance(OnFile):
    """The same cells as if they had been sequenced deeper."""

    TASK, IN_PIECES = "enhance", 32
    depth: Depth
    draws: Annotated[int, Field(ge=1, le=32), IS_NUMBER] = 4
    seed: Seed = 0


class Edit(OnFile):
    """What the model makes of cells whose genes are edited; not an intervention that was learnt."""

    TASK, IN_PIECES = "edit", 64
    genes: Annotated[dict[Label, Action], Field(min_length=1, max_length=50)]
    labels: Labels | None = None


class Screen(OnFile):
    """Genes by how far editing them takes cells toward a goal; not an intervention that was learnt."""

    TASK, IN_PIECES = "screen", 0
    goal: Annotated[dict[Label, Label], Field(min_length=1, max_length=1)]
    start: Annotated[dict[Label, Label] | None, Field(min_length=1, max_length=1)] = None
    genes: Annotated[list[Label] | None, Field(min_length=1, max_length=5000)] = None
    action: Action = "raise"
    by: Literal["odds", "embedding", "gradient"] = "odds"
    most_cells: Annotated[int, Field(ge=1, le=200), IS_NUMBER] = 24
    seed: Seed = 0


TASKS: dict[str, type[Asked]] = {
    one.TASK: one
    for one in (Annotate, Locate, Describe, Embed, Generate, Complete, Perturb, ExplainShift, NextState, Fate, Enhance, Edit, Screen)
}


def options(asked: Asked) -> dict[str, Any]:
    """What of a job goes to the model's method, by its names."""
    return asked.model_dump(exclude={"model", "file_id", "perturbed_file_id", "rows"}, exclude_none=True)
