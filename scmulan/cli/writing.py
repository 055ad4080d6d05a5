"""Commands that write cells: generate and complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scmulan.cli.terminal import (
    Adapter,
    AsJson,
    Device,
    ModelName,
    Output,
    Seed,
    check_cells,
    open_model,
    pairs,
    progress,
    show,
    write_cells,
)
from scmulan.errors import PromptError

if TYPE_CHECKING:
    from scmulan.cells import AnnData


Organism = Annotated[str | None, typer.Option(help="Species, for example human.")]
Organ = Annotated[str | None, typer.Option(help="Organ, for example blood.")]
CellType = Annotated[str | None, typer.Option("--cell-type", help="Cell type, any usual spelling.")]
Number = Annotated[int, typer.Option("-n", help="Number of cells.")]
Depth = Annotated[int | None, typer.Option(help="Counts per cell to aim at.")]
Temperature = Annotated[float, typer.Option(help="1 draws from the model as trained; 0 takes the likeliest.")]
LeastHazard = Annotated[
    float | None, typer.Option(help="Pass by genes less likely than this; 0 draws from the model as it is, 0.0001 when not given.")
]
TopP = Annotated[float, typer.Option("--top-p", help="Share of probability that is kept at each step.")]
Rates = Annotated[bool, typer.Option(help="Write by the adapter's rates, where it has them for the kind of cell.")]
More = Annotated[list[str] | None, typer.Option("--set", help="Any other field, as disease=normal; repeatable.")]
Naming = Annotated[str, typer.Option(help="Names of genes in the result: symbol or ensembl.")]


def generate(
    output: Output,
    organ: Organ = None,
    cell_type: CellType = None,
    organism: Organism = None,
    more: More = None,
    n: Number = 10,
    depth: Depth = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    least_hazard: LeastHazard = None,
    rates: Rates = True,
    naming: Naming = "symbol",
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate cells of a kind."""
    check_cells(output)
    fields = _fields(more, organ=organ, cell_type=cell_type, organism=organism)
    how = _how(least_hazard, n=n, seed=seed, temperature=temperature, top_p=top_p, rates=rates, depth=depth, naming=naming)
    opened = open_model(model, device, adapter)
    with progress("generate", n) as done:
        cells = opened.generate(on_cell=done, **how, **fields)
    _finish(cells, output, as_json)


def complete(
    output: Output,
    gene: Annotated[list[str], typer.Option("--gene", help="Gene and its count, as GATA1=8; repeatable.")],
    organ: Organ = None,
    cell_type: CellType = None,
    organism: Organism = None,
    more: More = None,
    n: Number = 10,
    depth: Depth = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    least_hazard: LeastHazard = None,
    rates: Rates = True,
    naming: Naming = "symbol",
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate cells that hold some genes at given counts (gene prompting; not an intervention)."""
    check_cells(output)
    genes = _genes(gene)
    fields = _fields(more, organ=organ, cell_type=cell_type, organism=organism)
    how = _how(least_hazard, n=n, seed=seed, temperature=temperature, top_p=top_p, rates=rates, depth=depth, naming=naming)
    opened = open_model(model, device, adapter)
    with progress("complete", n) as done:
        cells = opened.complete(genes, on_cell=done, **how, **fields)
    _finish(cells, output, as_json)


def _fields(more: list[str] | None, **given: str | None) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None} | pairs(more, "--set")


def _how(least_hazard: float | None, **given: Any) -> dict[str, Any]:
    return given if least_hazard is None else {**given, "least_hazard": least_hazard}


def _genes(given: list[str]) -> dict[str, int]:
    genes = {}
    for name, value in pairs(given, "--gene").items():
        if not value.isdigit():
            raise PromptError(f"--gene {name}={value}: needed a whole count, for example {name}=8")
        genes[name] = int(value)
    return genes


def _finish(cells: AnnData, output: Path, as_json: bool) -> None:
    """Write the cells and say how many they are and how large."""
    import numpy as np

    write_cells(cells, output)
    counts = cells.layers["counts"]
    said = {
        "cells": int(cells.n_obs),
        "median counts": int(np.median(np.asarray(counts.sum(1)))),
        "median genes": int(np.median(np.diff(counts.indptr))),
        "output": str(output),
    }
    show(said, as_json)
