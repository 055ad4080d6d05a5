"""The tool that answers questions in English: read into requests, each done within the server's limits, told in sentences."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from pydantic import Field

from scmulan.cells import AnnData
from scmulan.errors import PromptError
from scmulan.serving.mcp_arguments import Cells, CellsFile, Label, Organism, Overwrite, Seed
from scmulan.serving.mcp_editing import screened
from scmulan.serving.mcp_results import Answered, plain
from scmulan.serving.mcp_work import Task
from scmulan.tasks_asking import Answer, answer, requests_given
from scmulan.tasks_carrying import Circumstances
from scmulan.tasks_screen import MOST_CELLS

MOST_ASKED = 2000
"""Characters of a question."""


class Watched:
    """A model whose methods tell how far they are, and refuse what is beyond the limits; a refusal is part of the answer."""

    def __init__(self, task: Task):
        self._task = task

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._task.model, name)
        takes = inspect.signature(found).parameters if inspect.ismethod(found) else {}
        told = next((key for key in ("on_cell", "on_variant") if key in takes), None)
        if told is None:
            return found

        def call(*given: Any, **how: Any) -> Any:
            self._task.tick()
            if name in ("generate", "complete"):
                self._task.to_write(how["n"])
            if name == "screen":
                screened(self._task, min(MOST_CELLS, given[0].n_obs), given[0].n_vars)
            return found(*given, **how, **{told: self._task.tick})

        return call


def ask(
    task: Task,
    question: Annotated[
        str | None, Field(max_length=MOST_ASKED, description="One or several questions in English; leave it out with `request`.")
    ] = None,
    file: CellsFile | None = None,
    request: Annotated[
        dict[str, Any] | list[dict[str, Any]] | None,
        Field(
            description="What to do instead of a question, as an earlier answer's request corrected: {'task': 'annotate', 'cluster': '3'}."
        ),
    ] = None,
    only_read: Annotated[bool, Field(description="Tell how the question is read, and do nothing.")] = False,
    index: Annotated[Label | None, Field(description="Name of an index of reference cells, for questions after similar ones.")] = None,
    organism: Organism = None,
    seed: Seed = 0,
    output: Cells = None,
    overwrite: Overwrite = False,
) -> tuple[Answered, str]:
    """Answer a question in English about the cells of a file, or write the cells that it asks for; scmulan's own small model reads it.

    It is sure of short, plain questions ('which organ are these from, and why?', '50 B cells from blood', 'knock out STAT1'). Look at the
    `request` and its probability: where the reading is wrong, call again with `request` corrected, or use the tool of the task, which
    needs no reading. The resource scmulan://tasks lists what can be asked.
    """
    if (question is None) == (request is None):
        raise PromptError("needed either a question, or a request such as {'task': 'annotate'}")
    path, folder = task.files.writable(output, overwrite, (".h5ad",)), task.index(index)
    adata = task.cells(file, organism=organism) if file is not None else None
    model = task.model
    reading = requests_given(request, list(model.prompts.fields)) if request is not None else model.read_questions([question or ""])[0]
    shown = "; ".join(map(str, reading.requests))
    read = f"Read as: {shown} (probability {100 * reading.probability:.0f} %)."
    result = Answered(
        request=plain([one.to_dict() for one in reading.requests]),
        probability=round(reading.probability, 4),
        notes=list(reading.notes),
        answer="",
    )
    if only_read:
        return result, read
    task.tick()
    found = answer(reading, Circumstances(model=Watched(task), adata=adata, index=folder, seed=seed))
    result.answer, result.results = found.text, plain(found.to_dict()["results"])
    if path:
        result.output = task.files.write(path, overwrite, cells=_cells(found, adata, str(output)))
    return result, f"{read} {found.text}"


def _cells(found: Answer, adata: AnnData | None, output: str) -> AnnData:
    """The cells that were written last, else those that were asked about with what was said of them."""
    written = [result.value for result in found.results if result.is_done and isinstance(result.value, AnnData)]
    cells = written[-1] if written else adata
    if cells is None:
        raise PromptError(f"{output}: no cells to write; the answer has none and no file was given. {found.text}")
    return cells
