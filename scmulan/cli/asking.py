"""The command that answers questions in English."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from scmulan.cli.terminal import (
    Adapter,
    AsJson,
    Device,
    ModelName,
    Organism,
    Seed,
    check_cells,
    err,
    open_model,
    out,
    read_cells,
    write_cells,
)
from scmulan.errors import PromptError

if TYPE_CHECKING:
    from scmulan.tasks_asking import Answer


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="One or several questions in English; '' with --request.")],
    source: Annotated[Path | None, typer.Argument(metavar="[CELLS.h5ad]", help="File of cells that the question is about.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File for the cells that were written, or labelled.")] = None,
    request: Annotated[str | None, typer.Option(help='What to do instead of a question, as YAML: "{task: generate, organ: lung}".')] = None,
    only_read: Annotated[bool, typer.Option("--only-read", help="Show how the question is read, and do nothing.")] = False,
    index: Annotated[Path | None, typer.Option(help="Index of reference cells, for questions after similar ones.")] = None,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Answer a question in English about cells, or write the cells that it asks for."""
    check_cells(output)
    given = _request(request)
    adata = read_cells(source, None, organism)[0] if source is not None else None
    opened = open_model(model, device, adapter)
    if only_read:
        reading = opened.read_questions([question])[0]
        said = {"request": [one.to_dict() for one in reading.requests], "probability": reading.probability, "notes": list(reading.notes)}
        print(json.dumps(said, indent=1, ensure_ascii=False)) if as_json else out.print("\n".join(map(str, reading.requests)), markup=False)
        return
    answer = opened.ask(adata, question if given is None else None, request=given, index=index, seed=seed)
    if output is not None:
        _write(answer, adata, output)
    if as_json:
        print(json.dumps({**answer.to_dict(), "output": str(output) if output else None}, indent=1, ensure_ascii=False, default=str))
        return
    err.print("; ".join(map(str, answer.request)), style="dim", markup=False)
    out.print(answer.text, markup=False)


def _request(text: str | None) -> Any:
    """Requests from YAML; PromptError where it is none."""
    if text is None:
        return None
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PromptError(f"--request: not YAML ({error})") from None
    several = given if isinstance(given, list) else [given]
    if not several or not all(isinstance(one, dict) for one in several):
        raise PromptError(f"--request {text!r}: needed a mapping, or a list of them, as '{{task: generate, organ: lung}}'")
    return given


def _write(answer: Answer, adata: Any, output: Path) -> None:
    """The cells that were written last, else those that were asked about with what was said of them."""
    written = [result.value for result in answer.results if result.is_done and hasattr(result.value, "obs")]
    cells = written[-1] if written else adata
    if cells is None:
        raise PromptError(f"{output}: no cells to write; the answer has none and none were given")
    write_cells(cells, output)
