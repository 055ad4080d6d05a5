"""Commands that write cells: generate and complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scmulan.cli.terminal import (
    Adapter,
    Address,
    AsJson,
    Device,
    EngineName,
    ModelName,
    Output,
    Seed,
    check_cells,
    opening_of,
    pairs,
    progress,
    show,
)
from scmulan.errors import PromptError

if TYPE_CHECKING:
    from scmulan.decoding.sampling import Sampling
    from scmulan.pieces.carrying import Opening, Where


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
    engine: EngineName = "transformers",
    address: Address = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate cells of a kind, any number of them; a run that was stopped goes on."""
    check_cells(output)
    fields = _fields(more, organ=organ, cell_type=cell_type, organism=organism)
    opening = opening_of(model, device, adapter, engine, address)
    sampling = _sampling(least_hazard, seed=seed, temperature=temperature, top_p=top_p, rates=rates)
    _write(opening, output, as_json, n=n, fields=fields, sampling=sampling, depth=depth, naming=naming)


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
    engine: EngineName = "transformers",
    address: Address = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate cells that hold some genes at given counts (gene prompting; not an intervention)."""
    check_cells(output)
    genes = _genes(gene)
    fields = _fields(more, organ=organ, cell_type=cell_type, organism=organism)
    opening = opening_of(model, device, adapter, engine, address)
    sampling = _sampling(least_hazard, seed=seed, temperature=temperature, top_p=top_p, rates=rates)
    _write(opening, output, as_json, n=n, fields=fields, genes=genes, sampling=sampling, depth=depth, naming=naming)


def _fields(more: list[str] | None, **given: str | None) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None} | pairs(more, "--set")


def _sampling(least_hazard: float | None, **given: Any) -> Sampling:
    from scmulan.decoding.sampling import Sampling

    return Sampling(**given) if least_hazard is None else Sampling(**given, least_hazard=least_hazard)


def _genes(given: list[str]) -> dict[str, int]:
    genes = {}
    for name, value in pairs(given, "--gene").items():
        if not value.isdigit():
            raise PromptError(f"--gene {name}={value}: needed a whole count, for example {name}=8")
        genes[name] = int(value)
    return genes


def _write(opening: tuple[Opening, Where], output: Path, as_json: bool, **asked: Any) -> None:
    """Write the cells and say how many they are and how large."""
    import numpy as np

    from scmulan.pieces.writing import Write, write_file

    work = Write(**asked)
    with progress(str(work.of()["task"])) as watch:
        written = write_file(opening[0], work, output, where=opening[1], tick=watch(work.n))
    said = {
        "cells": len(written.counts),
        "median counts": int(np.median(written.counts)),
        "median genes": int(np.median(written.genes)),
        "output": str(output),
    }
    show(said, as_json)
