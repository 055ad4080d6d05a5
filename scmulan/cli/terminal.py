"""What the commands share: their common options, a progress bar, and how results are printed and files read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from scmulan.errors import CellDataError, PromptError

if TYPE_CHECKING:
    import pandas as pd

    from scmulan.cells import AnnData
    from scmulan.pieces.carrying import Opening, Where
    from scmulan.tasks import Model

PICTURES = (".png", ".svg", ".pdf")
out, err = Console(soft_wrap=True), Console(stderr=True)

Input = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="File of cells.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
ModelName = Annotated[str, typer.Option("--model", help="Model folder, or 'demo' for the embedded one.")]
Adapter = Annotated[Path | None, typer.Option("--adapter", help="Folder of an adapter that was trained on the model.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
EngineName = Annotated[
    str, typer.Option("--engine", help="transformers; vllm; the URL of a vLLM server that has the same model; or ray, a cluster.")
]
Address = Annotated[str | None, typer.Option(help="Ray cluster: auto, or ray://host:10001; one is started here by default.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FieldMap = Annotated[list[str] | None, typer.Option("--field", help="Column of obs for a field, as organ=tissue; repeatable.")]
Organism = Annotated[str | None, typer.Option("--organism", help="Species, when the file does not say it or says it wrong.")]


@contextmanager
def progress(text: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """A progress bar on stderr; told how many cells there are, it gives what is told of cells done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task(text, total=None)

        def watch(total: int) -> Callable[[int], None]:
            progress.update(bar, total=total)
            return lambda n: progress.advance(bar, n)

        yield watch


@contextmanager
def cells_of(source: Path, adata: AnnData, text: str) -> Iterator[Callable[[int], None]]:
    """A progress bar over the cells of a file; what is wrong with the cells is said of the file."""
    try:
        with progress(text) as watch:
            yield watch(adata.n_obs)
    except CellDataError as error:
        raise CellDataError(re.sub("^AnnData: ", f"{source}: ", str(error))) from error


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """``["organ=tissue"]`` as a dict; PromptError when one has no ``=``."""
    pairs = {}
    for text in given or []:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            raise PromptError(f"{option} {text!r}: needed NAME=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def show(result: dict[str, Any], as_json: bool, title: str = "") -> None:
    if as_json:
        print(json.dumps(result, indent=1, ensure_ascii=False, default=str))
        return
    table = Table(title=title or None, show_header=False, box=None, pad_edge=False)
    for key, value in result.items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
    out.print(table)


def open_model(name: str, device: str, adapter: Path | None = None) -> Model:
    from scmulan.tasks import load

    return load(name, adapter=adapter, device=device)


def opening_of(name: str, device: str, adapter: Path | None, engine: str, address: str | None) -> tuple[Opening, Where]:
    """How workers open the model, and where they are."""
    from scmulan.engines.opening import check_engine
    from scmulan.pieces.carrying import Opening, Where

    check_engine(engine, "ray")
    if address is not None and engine != "ray":
        raise PromptError(f"--address {address}: is of a Ray cluster; needed --engine ray beside it")
    on = "transformers" if engine == "ray" else engine
    opening = Opening(model=name, adapter=None if adapter is None else str(adapter), engine=on, device=device)
    return opening, Where(is_ray=engine == "ray", address=address)


def read_cells(path: Path, fields: list[str] | None, organism: str | None) -> tuple[AnnData, dict[str, str]]:
    from scmulan.cells import read_h5ad

    adata = read_h5ad(path)
    if organism is not None:
        adata.obs["organism"] = organism
    return adata, pairs(fields, "--field")


def check_writable(output: Path | None) -> None:
    """Say before the work, not after it, that its result would have no place."""
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise PromptError(f"{output}: " + ("a folder; name a file" if output.is_dir() else f"no folder {output.parent}; make it first"))


def check_cells(output: Path | None) -> None:
    """As `check_writable`, of a file of cells, whose name is to say its format."""
    check_writable(output)
    if output is not None and output.suffix.lower() != ".h5ad":
        raise PromptError(
            f"{output}: cells are written as h5ad; needed a name that ends in .h5ad, for example {output.with_suffix('.h5ad')}"
        )


def check_picture(picture: Path | None) -> None:
    """As `check_writable`, of a picture, whose suffix says its format."""
    check_writable(picture)
    if picture is not None and picture.suffix.lower() not in PICTURES:
        found = f"a picture in the format {picture.suffix!r}" if picture.suffix else "a picture without a format"
        raise PromptError(f"{picture}: {found}; needed a name that ends in {', '.join(PICTURES)}")


def check_folder(output: Path) -> None:
    """As `check_writable`, of a folder."""
    if output.exists() and not output.is_dir():
        raise PromptError(f"{output}: a file; name a folder")


def write_cells(adata: AnnData, output: Path) -> None:
    from scmulan.cells_writing import write_h5ad

    write_h5ad(adata, output)


def shares(column: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in column.astype(str).value_counts().items() if count}
