"""Tools that write cells of a kind, or around genes: generate and complete; and what is said of cells that were written.

Each returns its result and the sentences beside it; the docstrings are what assistants are told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from scmulan.cells import AnnData
from scmulan.errors import PromptError
from scmulan.serving.mcp_arguments import Cells, Depth, Fields, Gene, Number, Overwrite, Seed, Temperature
from scmulan.serving.mcp_results import Written, fields_of, sizes_of
from scmulan.serving.mcp_work import Task
from scmulan.tasks_saying import LISTED, Saying


def generate(
    task: Task,
    fields: Fields = None,
    n: Number = 10,
    depth: Depth = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    output: Cells = None,
    overwrite: Overwrite = False,
) -> tuple[Written, str]:
    """Write new cells of a kind, drawn from the model: counts of every gene, with the fields they were written for.

    Returns a summary; the cells themselves are written with `output`.
    """
    path = task.files.writable(output, overwrite, (".h5ad",))
    cells = task.model.generate(
        n=task.to_write(n), depth=depth, temperature=temperature, seed=seed, on_cell=task.tick, **_fields(task, fields)
    )
    return _written(task, cells, path, overwrite, "generate", kind=", ".join((fields or {}).values()) or "of any kind")


def complete(
    task: Task,
    genes: Annotated[
        dict[Gene, Annotated[int, Field(ge=1, le=1_000_000)]],
        Field(min_length=1, max_length=500, description="Counts by gene, any naming, as {'GATA1': 8}."),
    ],
    fields: Fields = None,
    n: Number = 10,
    depth: Depth = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    output: Cells = None,
    overwrite: Overwrite = False,
) -> tuple[Written, str]:
    """Write new cells that hold some genes at given counts: which cells have them. Not an intervention; for that, perturb.

    Returns a summary; the cells themselves are written with `output`.
    """
    path = task.files.writable(output, overwrite, (".h5ad",))
    cells = task.model.complete(
        genes, n=task.to_write(n), depth=depth, temperature=temperature, seed=seed, on_cell=task.tick, **_fields(task, fields)
    )
    entries = [{"gene": gene, "count": count} for gene, count in list(genes.items())[:LISTED]]
    return _written(task, cells, path, overwrite, "complete", entries)


def _fields(task: Task, fields: dict[str, str] | None) -> dict[str, Any]:
    """Fields as the model's methods take them, by name; PromptError for what is none, before it is taken for another argument."""
    known = list(task.model.prompts.fields)
    for name in fields or {}:
        if name not in known:
            raise PromptError(f"{name!r} is not a field; fields: {', '.join(known)}")
    return dict(fields or {})


def _written(
    task: Task, cells: AnnData, path: Path | None, overwrite: bool, template: str, entries: list[dict[str, Any]] | None = None, **facts: Any
) -> tuple[Written, str]:
    result = Written(**sizes_of(cells), fields=fields_of(cells, list(task.model.prompts.fields)))
    if path:
        result.output = task.files.write(path, overwrite, cells=cells)
    return result, said_of_cells(template, entries, result, **facts)


def said_of_cells(template: str, entries: list[dict[str, Any]] | None, result: Written, **facts: Any) -> str:
    """The sentence that `ask` would say of cells that were written."""
    saying = Saying()
    facts = {"n": result.cells, "counts": result.median_counts, "genes": result.median_genes, **facts}
    if entries is None:
        saying.add(template, **facts)
    else:
        saying.add_list(template, entries, **facts)
    return " ".join(saying.sentences)
