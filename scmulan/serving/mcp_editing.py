"""Tools that edit genes in cells and tell what the model makes of them: edit and screen. Readings, not interventions that were learnt.

Each returns its result and the sentences beside it; the docstrings are what assistants are told.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from scmulan.errors import PromptError
from scmulan.serving.mcp_arguments import CellsFile, CellsOrTable, Choice, Gene, Label, Only, Organism, Overwrite, Seed, Table
from scmulan.serving.mcp_results import MOST_ROWS, Edited, Screened, ScreenRow, number, plain
from scmulan.serving.mcp_work import Task
from scmulan.tasks_saying import LISTED, Saying
from scmulan.tasks_screen import CONTROLS


def edit(
    task: Task,
    file: CellsFile,
    genes: Annotated[
        dict[Gene, Literal["delete", "lower", "raise"] | Annotated[int, Field(ge=0, le=1_000_000)]],
        Field(
            min_length=1,
            max_length=50,
            description="By gene: delete; lower (a quarter of its counts); raise (four times); or a count, as {'GATA1': 'delete'}.",
        ),
    ],
    labels: Annotated[Choice, Field(description="Labels to choose from; those that the model saw for the organ when not given.")] = None,
    only: Only = None,
    organism: Organism = None,
    output: CellsOrTable = None,
    overwrite: Overwrite = False,
) -> tuple[Edited, str]:
    """Edit genes in the cells of a file and tell what the model then makes of them: how labels, embedding and likelihood shift.

    A reading of what goes together in cells, not an intervention that was learnt; for that, perturb. Each cell's shifts are written with
    `output`.
    """
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, organism=organism, only=only)
    found = task.model.edit(adata, dict(genes), labels=labels, on_cell=task.tick)
    said = found.summary()
    shifts = {name: number(shift) or 0.0 for name, shift in list((said["probability_shift"] or {}).items())[:MOST_ROWS]}
    result = Edited(
        genes=plain(said["genes"]), cells=said["cells"], cells_changed=said["cells_changed"],
        cells_without_the_gene=said["cells_without_the_gene"],
        cosine=plain(said["cosine"]), log_likelihood=plain(said["log_likelihood"]), probability_shift=shifts,
    )  # fmt: skip
    if path:
        result.output = task.files.write(
            path, overwrite, cells=adata, table=pd.concat([found.cells, found.shift.add_prefix("p: ")], axis=1)
        )
    saying = Saying()
    moved = Saying()
    for label, shift in list(shifts.items())[:LISTED]:
        moved.add("moved_entry", label=label, shift=shift)
    entries = [{"gene": gene, "action": action} for gene, action in result.genes.items()]
    saying.add_list("edited", entries, n=result.cells, changed=result.cells_changed, moved=", ".join(moved.sentences) or "none")
    return result, " ".join(saying.sentences)


def screen(
    task: Task,
    file: CellsFile,
    goal: Annotated[
        dict[Label, Label],
        Field(min_length=1, max_length=1, description="Where to, one field: {'cell_type': 'monocyte'} or {'lineage': 'T cell'}."),
    ],
    start: Annotated[
        dict[Label, Label] | None,
        Field(min_length=1, max_length=1, description="Where from, one field: cells with that label are edited; all when not given."),
    ] = None,
    genes: Annotated[
        list[Gene] | None, Field(min_length=1, max_length=500, description="Genes to edit; all that the cells have when not given.")
    ] = None,
    action: Annotated[
        Literal["raise", "delete", "lower"] | Annotated[int, Field(ge=1, le=1_000_000)],
        Field(description="What is done to each; or a count."),
    ] = "raise",
    pairs: Annotated[bool, Field(description="All pairs of the genes given.")] = False,
    by: Annotated[
        Literal["odds", "embedding", "gradient"],
        Field(
            description="odds: the log-odds of the goal, exact, one question a gene and cell; embedding: the way it goes; gradient: a "
            "quick first guess at odds for all genes at once, of genes that are raised."
        ),
    ] = "gradient",
    most_cells: Annotated[int, Field(ge=1, le=200, description="Edit at most so many cells, drawn evenly.")] = 24,
    only: Only = None,
    organism: Organism = None,
    seed: Seed = 0,
    output: Table = None,
    overwrite: Overwrite = False,
) -> tuple[Screened, str]:
    """Rank genes by how far editing them takes the cells of a file toward a goal, beside genes that are detected as often.

    A reading of what speaks for the goal, not an intervention that was learnt. Begin with by='gradient' over all genes, then ask by='odds'
    of the best. Cells are to be of one organism and organ. The whole ranking is written with `output`.
    """
    path = task.files.writable(output, overwrite, (".csv",))
    adata = task.cells(file, organism=organism, only=only)
    if by != "gradient":
        sets = len(genes) + len(genes) * (len(genes) - 1) // 2 * pairs + CONTROLS * (1 + pairs) if genes else adata.n_vars
        screened(task, min(most_cells, adata.n_obs), sets)
    table = task.model.screen(
        adata, goal, start=start, genes=genes, action=action, pairs=pairs, by=by, most_cells=most_cells, seed=seed, on_variant=task.tick
    )
    about = table.attrs
    rows = [
        ScreenRow(
            rank=int(row["rank"]), gene=str(name), shift=number(row["shift"]), share_toward=number(row["share_toward"]),
            cells=int(row["cells"]), z=number(row["z"]), p=number(row["p"]), q=number(row["q"]),
        )
        for name, row in table.head(MOST_ROWS).iterrows()
    ]  # fmt: skip
    result = Screened(
        genes=len(table), cells=about["cells"], toward=about["toward"][:MOST_ROWS], away=about["away"][:MOST_ROWS], by=by, rows=rows
    )
    if path:
        result.output = task.files.write(path, overwrite, table=table)
    saying = Saying()
    entries = [{"gene": row.gene, "shift": row.shift} for row in rows[:LISTED] if row.shift is not None]
    saying.add_list("screened", entries, n=len(table), goal=next(iter(goal.values())))
    return result, " ".join(saying.sentences)


def screened(task: Task, n_cells: int, n_sets: int) -> None:
    """The task is told of so many edited cells; PromptError where they are more than may be asked about."""
    most = task.files.limits.variants
    if n_cells * n_sets > most:
        raise PromptError(
            f"a screen of {n_sets:,} genes in {n_cells:,} cells asks about {n_cells * n_sets:,} edited cells; needed at most {most:,}: "
            "the tool screen with by='gradient', with fewer genes, or with a smaller most_cells"
        )
    task.tick.total = n_cells * n_sets
