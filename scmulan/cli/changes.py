"""Commands about cells that change: perturb, explain-shift, next-state, fate and enhance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scmulan.cli.terminal import (
    Adapter,
    AsJson,
    Device,
    Input,
    ModelName,
    Organism,
    Output,
    Seed,
    cells_of,
    check_cells,
    check_picture,
    err,
    open_model,
    pairs,
    read_cells,
    shares,
    show,
    write_cells,
)
from scmulan.errors import CellDataError, PromptError, nearest, some

if TYPE_CHECKING:
    from scmulan.cells import AnnData

Only = Annotated[
    list[str] | None, typer.Option("--only", help="Use the cells of this value of a column of obs alone, as cell_type=THP-1; repeatable.")
]
Number = Annotated[int | None, typer.Option("-n", help="Cells to predict, from cells drawn evenly; one for each cell when not given.")]
Time = Annotated[str, typer.Option("--time", help="The later time, as 'day 6'; one that the model has learnt.")]
MOST_SHOWN = 10


def perturb(
    source: Input,
    output: Output,
    gene: Annotated[list[str] | None, typer.Option("--gene", help="Gene and what is done to it, as STAT1=knockout; repeatable.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="A perturbation by its label, as 'interferon beta'.")] = None,
    dose: Annotated[str | None, typer.Option(help="Dose, as the training cells had it.")] = None,
    time: Annotated[str | None, typer.Option(help="Time after the perturbation, as the training cells had it.")] = None,
    only: Only = None,
    n: Number = None,
    picture: Annotated[Path | None, typer.Option(help="A volcano plot of what changes: .png, .svg or .pdf.")] = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Predict control cells after a perturbation, as it was learnt from cells that were perturbed."""
    from scmulan.tasks_changed import most_changed

    check_cells(output)
    check_picture(picture)
    if (gene is None) == (agent is None):
        raise PromptError("needed what is done: either --gene STAT1=knockout, or --agent 'interferon beta'")
    adata = _chosen(source, only, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "perturb") as done:
        cells = opened.perturb(adata, agent or pairs(gene, "--gene"), dose=dose, time=time, n=n, seed=seed, on_cell=done)
    write_cells(cells, output)
    if picture is not None:
        from scmulan.plots import volcano

        volcano(cells.var, title=str(cells.obs["perturbation"].iloc[0])).savefig(picture, dpi=150, bbox_inches="tight")
    table = most_changed(cells.var[cells.var["scmulan_q_value"] < 0.05])
    most = {name: f"{change:+.2f}" for name, change in table["scmulan_change"].head(MOST_SHOWN).items()}
    said = {"perturbation": str(cells.obs["perturbation"].iloc[0]), "cells": cells.n_obs, "genes that change (q < 0.05)": len(table)}
    said |= {
        "log2 change": most if as_json else ", ".join(f"{name} {change}" for name, change in most.items()) or "none",
        "output": str(output),
    }
    show(said, as_json)


def explain_shift(
    control: Annotated[Path, typer.Argument(metavar="CONTROL.h5ad", help="File of control cells.")],
    perturbed: Annotated[Path, typer.Argument(metavar="PERTURBED.h5ad", help="File of the cells that something was done to.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write, with each cell's answer in obs.")] = None,
    perturbation: Annotated[
        list[str] | None, typer.Option(help="One to choose from; repeatable; all that were learnt when not given.")
    ] = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Tell which perturbation turned control cells into others."""
    check_cells(output)
    before, after = (_chosen(path, None, organism) for path in (control, perturbed))
    opened = open_model(model, device, adapter)
    with cells_of(perturbed, after, "explain") as done:
        table = opened.explain_shift(before, after, perturbations=perturbation, seed=seed, on_cell=done)
    if output:
        write_cells(after, output)
    rows = {str(name): {key: float(value) for key, value in row.items()} for name, row in table.iterrows()}
    plain = {name: f"{row['probability']:.3f}; the likeliest of {row['cells']:.0f} cells" for name, row in list(rows.items())[:MOST_SHOWN]}
    show(rows if as_json else plain, as_json, "perturbation: probability over all cells")


def next_state(
    source: Input,
    output: Output,
    time: Time,
    only: Only = None,
    n: Number = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Predict what cells become by a later time."""
    check_cells(output)
    adata = _chosen(source, only, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "next state") as done:
        cells = opened.next_state(adata, time, n=n, seed=seed, on_cell=done)
    write_cells(cells, output)
    show({"cells": cells.n_obs, "time": str(cells.obs["time"].iloc[0]), "output": str(output)}, as_json)


def fate(
    source: Input,
    time: Time,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write, with the answers in obs.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A type to choose from; repeatable; those of the time when not given.")] = None,
    only: Only = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Tell the type that each cell takes by a later time."""
    check_cells(output)
    adata = _chosen(source, only, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "fate") as done:
        table = opened.fate(adata, time, labels=label, on_cell=done)
    if output:
        write_cells(adata, output)
    likeliest = shares(adata.obs["scmulan_fate"])
    mean = {str(name): round(float(share), 4) for name, share in table.mean().sort_values(ascending=False).items()}
    show({"cells": likeliest, "mean_probability": mean, "output": str(output)} if as_json else likeliest, as_json, "fate: cells")


def enhance(
    source: Input,
    output: Output,
    depth: Annotated[int, typer.Option(help="Counts a cell to aim at.")],
    draws: Annotated[int, typer.Option(help="Whole cells drawn for each; more make a smoother estimate.")] = 4,
    only: Only = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Predict the same cells as if they had been sequenced deeper."""
    check_cells(output)
    adata = _chosen(source, only, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "enhance") as done:
        cells = opened.enhance(adata, depth, draws=draws, seed=seed, on_cell=done)
    write_cells(cells, output)
    show({"cells": cells.n_obs, "counts a cell": round(float(cells.layers["expected"].sum(1).mean())), "output": str(output)}, as_json)


def _chosen(source: Path, only: list[str] | None, organism: str | None) -> AnnData:
    """The cells of a file, or those of some values of its columns."""
    adata, _ = read_cells(source, None, organism)
    for column, value in pairs(only, "--only").items():
        if column not in adata.obs:
            raise PromptError(f"--only {column}={value}: no column {column!r} in obs{nearest(column, list(adata.obs))}")
        values = adata.obs[column].astype(str)
        if not (values == value).any():
            raise CellDataError(f"{source}: no cell has {column} {value!r}; found {some(sorted(set(values)), most=6)}")
        adata = adata[(values == value).to_numpy()].copy()
    if only:
        err.print(f"{adata.n_obs:,} cells")
    return adata
