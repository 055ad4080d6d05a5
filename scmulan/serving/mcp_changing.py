"""Tools that tell what cells become: perturb, next_state, explain_shift, fate and enhance.

Each returns its result and the sentences beside it; the docstrings are what assistants are told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from scmulan.cells import AnnData
from scmulan.errors import PromptError
from scmulan.serving.mcp_answering import labelled
from scmulan.serving.mcp_arguments import (
    Cells,
    CellsFile,
    CellsOrTable,
    Choice,
    Gene,
    Label,
    NumberOfCells,
    Only,
    Organism,
    Overwrite,
    Seed,
    Time,
)
from scmulan.serving.mcp_results import (
    MOST_ROWS,
    Changed,
    Enhanced,
    Explained,
    GeneRow,
    Labelled,
    ShiftRow,
    fields_of,
    number,
    said_of_labels,
    sizes_of,
)
from scmulan.serving.mcp_work import Task
from scmulan.serving.mcp_writing import said_of_cells
from scmulan.tasks_changed import most_changed
from scmulan.tasks_saying import LISTED, Saying

CHANGED = 0.05
"""False discovery rate below which a gene is said to change."""


def perturb(
    task: Task,
    file: CellsFile,
    genes: Annotated[
        dict[Gene, Literal["knockout", "knockdown", "overexpression"]] | None,
        Field(min_length=1, max_length=20, description="What is done to which genes, as {'STAT1': 'knockout'}."),
    ] = None,
    agent: Annotated[Label | None, Field(description="Instead of genes: a perturbation by its label, as 'interferon beta'.")] = None,
    dose: Annotated[Label | None, Field(description="Dose, as the training cells had it.")] = None,
    time: Annotated[Label | None, Field(description="Time after the perturbation, as the training cells had it.")] = None,
    only: Only = None,
    n: NumberOfCells = None,
    organism: Organism = None,
    seed: Seed = 0,
    output: CellsOrTable = None,
    overwrite: Overwrite = False,
) -> tuple[Changed, str]:
    """Predict control cells after a perturbation, as it was learnt from cells that were perturbed beside cells that were not.

    The cells of the file are taken for controls: choose them with `only` where it holds others too. Returns the genes that change most,
    with intervals and false discovery rates over cells (of ten cells or more). With `output` an .h5ad gets the predicted cells, a .csv the
    change of every gene. A perturbation that was never learnt is answered by analogy, with a warning: don't rely on it.
    """
    if (genes is None) == (agent is None):
        raise PromptError("needed what is done: either genes={'STAT1': 'knockout'}, or agent='interferon beta'")
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, organism=organism, only=only)
    asked = genes if genes is not None else agent or ""
    cells = task.model.perturb(
        adata, dict(asked) if not isinstance(asked, str) else asked, dose=dose, time=time, n=task.to_write(n or adata.n_obs) if n else None,
        seed=seed, on_cell=task.tick,
    )  # fmt: skip
    what = " ".join(filter(None, ("after", str(cells.obs["perturbation"].iloc[0]), dose, time)))
    return _changed(task, cells, path, overwrite, what)


def next_state(
    task: Task,
    file: CellsFile,
    time: Time,
    only: Only = None,
    n: NumberOfCells = None,
    organism: Organism = None,
    seed: Seed = 0,
    output: Cells = None,
    overwrite: Overwrite = False,
) -> tuple[Changed, str]:
    """Predict the cells that the cells of a file become by a later time; they are written with `output`."""
    path = task.files.writable(output, overwrite, (".h5ad",))
    adata = task.cells(file, organism=organism, only=only)
    cells = task.model.next_state(adata, time, n=task.to_write(n) if n else None, seed=seed, on_cell=task.tick)
    return _changed(task, cells, path, overwrite, f"at {cells.obs['time'].iloc[0]}")


def _changed(task: Task, cells: AnnData, path: Path | None, overwrite: bool, what: str) -> tuple[Changed, str]:
    result = Changed(**sizes_of(cells), fields=fields_of(cells, list(task.model.prompts.fields)))
    saying = Saying()
    if "scmulan_change" in cells.var:
        table = most_changed(cells.var)
        result.changed_genes = int((table["scmulan_q_value"] < CHANGED).sum())
        result.changes = [
            GeneRow(
                gene=str(gene), value=number(row["scmulan_change"]) or 0.0, low=number(row["scmulan_low"]),
                high=number(row["scmulan_high"]), q=number(row["scmulan_q_value"]),
            )
            for gene, row in table.head(MOST_ROWS).iterrows()
        ]  # fmt: skip
        entries = [{"gene": row.gene, "log2": row.value} for row in result.changes[:LISTED]]
        saying.add_list("change", entries, n=cells.n_obs, what=what)
        saying.sentences.append(f"{result.changed_genes:,} genes change at a false discovery rate below {CHANGED}.")
    else:
        saying.add("unchanged", n=cells.n_obs, what=what)
    if path:
        result.output = task.files.write(path, overwrite, cells=cells, table=cells.var)
    return result, " ".join(saying.sentences)


def explain_shift(
    task: Task,
    control: Annotated[CellsFile, Field(description="Path of an .h5ad file of control cells.")],
    perturbed: Annotated[
        CellsFile, Field(description="Path of an .h5ad file of the cells that something was done to; it may be the same.")
    ],
    control_only: Only = None,
    perturbed_only: Only = None,
    perturbations: Annotated[Choice, Field(description="To choose from; all that the model has learnt when not given.")] = None,
    organism: Organism = None,
    seed: Seed = 0,
    output: CellsOrTable = None,
    overwrite: Overwrite = False,
) -> tuple[Explained, str]:
    """Tell which perturbation turned control cells into others, among those that the model has learnt, likeliest first."""
    path = task.files.writable(output, overwrite)
    before = task.cells(control, organism=organism, only=control_only)
    after = task.cells(perturbed, organism=organism, only=perturbed_only)
    table = task.model.explain_shift(before, after, perturbations=perturbations, seed=seed, on_cell=task.tick)
    rows = [
        ShiftRow(
            perturbation=str(name), probability=number(row["probability"]) or 0.0, mean_probability=number(row["mean_probability"]) or 0.0,
            cells=int(row["cells"]),
        )
        for name, row in table.head(MOST_ROWS).iterrows()
    ]  # fmt: skip
    result = Explained(cells=after.n_obs, rows=rows, left_out=max(0, len(table) - MOST_ROWS))
    if path:
        result.output = task.files.write(path, overwrite, cells=after, table=table)
    saying = Saying()
    saying.add_list("shift", [{"label": row.perturbation, "p": row.probability} for row in rows[:LISTED]], n=len(table))
    return result, " ".join(saying.sentences)


def fate(
    task: Task,
    file: CellsFile,
    time: Time,
    labels: Annotated[Choice, Field(description="Types to choose from; those that the model saw at that time when not given.")] = None,
    only: Only = None,
    organism: Organism = None,
    output: CellsOrTable = None,
    overwrite: Overwrite = False,
) -> tuple[Labelled, str]:
    """Tell the type that each cell of a file takes by a later time, with probabilities."""
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, organism=organism, only=only)
    table = task.model.fate(adata, time, labels=labels, on_cell=task.tick)
    result = labelled(adata, table, "scmulan_fate")
    means = table.mean().sort_values(ascending=False).head(MOST_ROWS)
    result.fates = {str(name): number(share) or 0.0 for name, share in means.items()}
    if path:
        result.output = task.files.write(path, overwrite, cells=adata, table=table)
    return result, said_of_labels("fate", result.labels, result.cells, result.mean_probability, time=time)


def enhance(
    task: Task,
    file: CellsFile,
    depth: Annotated[int, Field(ge=1, le=10_000_000, description="Counts a cell to aim at.")],
    draws: Annotated[
        int, Field(ge=1, le=16, description="Whole cells drawn for each; more make a smoother estimate, and take longer.")
    ] = 4,
    only: Only = None,
    organism: Organism = None,
    seed: Seed = 0,
    output: Cells = None,
    overwrite: Overwrite = False,
) -> tuple[Enhanced, str]:
    """Predict the cells of a file as if they had been sequenced deeper; they are written with `output`.

    Its layers['counts'] are one draw a cell, its layers['expected'] what is expected along all draws.
    """
    path = task.files.writable(output, overwrite, (".h5ad",))
    adata = task.cells(file, organism=organism, only=only)
    before = float(np.median(np.asarray(task.model.read(adata).whole.sum(1))))
    cells = task.model.enhance(adata, depth, draws=draws, seed=seed, on_cell=task.tick)
    result = Enhanced(**sizes_of(cells), median_counts_before=before, fields=fields_of(cells, list(task.model.prompts.fields)))
    if path:
        result.output = task.files.write(path, overwrite, cells=cells)
    return result, said_of_cells("enhanced", None, result, before=before)
