"""Commands that edit genes in silico and ask about genes: edit, screen, and genes like, programs, regulators and probe.

What they print are readings of the model in edited cells, not interventions that were learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scmulan.cli.tables import MaybeTable, check_table, finish_table, write_table
from scmulan.cli.terminal import (
    Adapter,
    AsJson,
    Device,
    Input,
    ModelName,
    Organism,
    Seed,
    cells_of,
    check_cells,
    err,
    open_model,
    out,
    pairs,
    progress,
    read_cells,
    show,
    write_cells,
)
from scmulan.errors import PromptError

if TYPE_CHECKING:
    from scmulan.tasks_edits import Action

MaybeCells = Annotated[Path | None, typer.Option("-o", "--output", help="File of cells to write, with the shifts in obs.")]
MostCells = Annotated[int, typer.Option(min=1, help="Edit at most so many cells, drawn evenly.")]
ActionOption = Annotated[str, typer.Option(help="raise, delete, lower or a whole count.")]
Genes = Annotated[list[str] | None, typer.Option("--gene", help="Gene, any naming; repeatable. All that the cells have when not given.")]


def edit(
    source: Input,
    gene: Annotated[list[str], typer.Option("--gene", help="Gene and what to do, as GATA1=delete, lower, raise or a count; repeatable.")],
    output: MaybeCells = None,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Edit genes in cells in silico: how far the embedding, the likelihood and the labels shift (not a learnt intervention)."""
    check_cells(output)
    genes: dict[str, Action] = dict(pairs(gene, "--gene"))
    adata, _ = read_cells(source, None, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "edit") as done:
        found = opened.edit(adata, genes, on_cell=done)
    if output:
        write_cells(adata, output)
    said = {**found.summary(), "output": str(output) if output else None}
    if as_json:
        show(said, True)
        return
    shifts = said.pop("probability_shift") or {}
    lacking = said.pop("cells_without_the_gene")
    flat = {"edited": ", ".join(f"{name} {action}" for name, action in said.pop("genes").items()), **said}
    flat |= {f"cells without {name}": n for name, n in lacking.items()}
    show(flat | {f"p({name})": f"{shift:+.4f}" for name, shift in list(shifts.items())[:8]}, False, "mean shifts of the cells changed")


def screen(
    source: Input,
    goal: Annotated[str, typer.Option(help='Where to, as "cell_type=monocyte" or "lineage=T cell".')],
    start: Annotated[str | None, typer.Option(help="Where from, as the goal: its cells are edited; all cells when not given.")] = None,
    gene: Genes = None,
    action: ActionOption = "raise",
    pair: Annotated[bool, typer.Option("--pairs", help="All pairs of the genes given.")] = False,
    by: Annotated[str, typer.Option(help="odds, embedding, or gradient: quick, a first guess at odds.")] = "odds",
    most_cells: MostCells = 50,
    output: MaybeTable = None,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Rank genes by how far editing them takes cells toward a goal, beside genes detected as often (not a learnt intervention)."""
    check_table(output)
    adata, _ = read_cells(source, None, organism)
    toward, away = pairs([goal], "--goal"), pairs([start], "--start") if start else None
    opened = open_model(model, device, adapter)
    n_sets = adata.n_vars if gene is None else len(gene) + len(gene) * (len(gene) - 1) // 2 * pair
    with progress("screen") as watch:
        done = watch(min(most_cells, adata.n_obs) * n_sets)
        table = opened.screen(
            adata, toward, start=away, genes=gene, action=_action(action), pairs=pair, by=by, most_cells=most_cells, seed=seed,
            on_variant=done,
        )  # fmt: skip
    finish_table(table, output, as_json)


def like(
    gene: Annotated[str, typer.Argument(metavar="GENE", help="Gene, any naming.")],
    cells: Annotated[Path | None, typer.Option("--cells", help="File of cells in which the genes are looked at.")] = None,
    group: Annotated[str | None, typer.Option(help="Look only at cells of this type.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many genes.")] = 10,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Genes most like one: by its row of the embedding matrix or, with --cells, by its contextual embedding."""
    if group is not None and cells is None:
        raise PromptError(f"--group {group!r} needs --cells, a file with cells of that type")
    adata = read_cells(cells, None, None)[0] if cells else None
    found = open_model(model, device, adapter).genes.like(gene, adata, group=group, n=n)
    show({str(name): round(float(cosine), 4) for name, cosine in found.items()}, as_json, f"like {gene}: cosine")


def programs(
    source: Input,
    n: Annotated[int, typer.Option("-n", min=2, help="How many programs.")] = 20,
    output: MaybeTable = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Programs of genes that are alike in these cells, beside shuffled embeddings and random genes."""
    check_table(output)
    adata, _ = read_cells(source, None, None)
    found = open_model(model, device, adapter).genes.programs(adata, n=n, seed=seed)
    err.print(f"silhouette {found.silhouette:.3f}, shuffled {found.silhouette_shuffled:.3f}, p {found.p:.3f}")
    table = found.table.rename_axis("program").assign(members=[" ".join(genes) for genes in found.genes])
    finish_table(table if output or as_json else table.assign(members=[" ".join(genes[:8]) for genes in found.genes]), output, as_json)


def regulators(
    source: Input,
    gene: Annotated[list[str] | None, typer.Option("--gene", help="Regulator; repeatable. Known ones of blood when not given.")] = None,
    action: ActionOption = "raise",
    most_cells: MostCells = 50,
    output: MaybeTable = None,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """What editing each regulator does to the chance of every other gene (not a learnt intervention); the whole table with -o."""
    check_table(output)
    adata, _ = read_cells(source, None, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "regulators") as done:
        table = opened.genes.regulators(adata, gene, action=_action(action), most_cells=most_cells, seed=seed, on_cell=done)
    if output:
        write_table(table, output)
    strongest = {str(name): table.loc[name].dropna().sort_values(key=abs, ascending=False).head(8) for name in table.index}
    said = {name: {str(gene): round(float(shift), 3) for gene, shift in each.items()} for name, each in strongest.items()}
    lines = {
        name: ", ".join(f"{gene} {shift:+.2f}" for gene, shift in each.items()) or "no cell was changed" for name, each in said.items()
    }
    show({**said, "output": str(output)} if as_json else lines, as_json, "strongest shifts of a gene's log hazard")


def probe(
    source: Input,
    labels: Annotated[Path, typer.Option(help="Genes with their classes: two columns, separated by a tab or comma.")],
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 5,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Whether gene embeddings tell classes of genes apart, beside mean expression alone."""
    from scmulan.tasks_probe import labelled_genes

    if not labels.is_file():
        raise PromptError(f"--labels {labels}: no such file; needed lines of a gene and its class")
    try:
        classes = labelled_genes(labels.read_text(), str(labels))
    except UnicodeDecodeError:
        raise PromptError(f"--labels {labels}: not a text file; needed lines of a gene and its class") from None
    adata, _ = read_cells(source, None, None)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "probe") as done:
        found = opened.genes.probe(adata, classes, folds=folds, seed=seed, on_cell=done)
    if as_json:
        show(found.to_dict(), True)
    else:
        out.print(found.table.round(3).to_string(), markup=False)
        show({**{f"genes of {name}": n for name, n in found.genes.items()}, "left out": len(found.left_out)}, False)


def _action(text: str) -> Action:
    """An action, or a count where it is a number."""
    return int(text) if text.isdigit() else text
