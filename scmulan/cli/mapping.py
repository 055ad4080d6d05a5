"""Commands that map cells onto reference cells: index build, index info, search and transfer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from scmulan.cli.terminal import (
    Adapter,
    AsJson,
    Device,
    FieldMap,
    Input,
    ModelName,
    Organism,
    Output,
    cells_of,
    check_cells,
    check_folder,
    check_writable,
    err,
    open_model,
    pairs,
    read_cells,
    shares,
    show,
    write_cells,
)
from scmulan.errors import PromptError

TABLES = (".tsv", ".csv", ".parquet")
Index = Annotated[Path, typer.Option("--index", help="Folder of an index that `scmulan index build` wrote.")]


def index_build(
    sources: Annotated[list[Path], typer.Argument(metavar="CELLS...", help="Reference cells: .h5ad files and zarr stores.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write; a build that was stopped goes on in it.")],
    field: FieldMap = None,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Embed reference cells and write an index of them, to search and to carry labels from."""
    from scmulan.search_build import index_cells
    from scmulan.search_folder import import_faiss, read_index_card

    check_folder(output)
    import_faiss()  # says before the work, not after it, that there is none
    opened = open_model(model, device, adapter)
    said = pairs(field, "--field")
    index_cells(opened, list(sources), output, fields=said, organism=organism, say=lambda line: err.print(line, markup=False))
    show({"cells": read_index_card(output)["n_cells"], "output": str(output)}, as_json)


def index_info(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of an index.")], as_json: AsJson = False) -> None:
    """Say what is in an index: its cells, their sources and labels, and the model that made it; files are compared with their hashes."""
    from scmulan.search_folder import check_files, read_index_card

    card = read_index_card(folder)
    check_files(folder, card)
    megabytes = round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1)
    names = {"cells": card["n_cells"], "dimensions": card["dimensions"], "megabytes": megabytes, "search": card["search"]}
    made = {"model": f"{card['model']['name']} {card['model']['weights_sha256'][:8]}", "adapter": card["adapter"]["name"]}
    if as_json:
        print(json.dumps({**names, **made, "sources": card["sources"], "labels": card["labels"]}, indent=1, ensure_ascii=False))
        return
    sources = {f"source {each['name']}": each["cells"] for each in card["sources"]}
    labels = {name: ", ".join(f"{label} {n}" for label, n in list(values.items())[:4]) for name, values in card["labels"].items() if values}
    show({**names, **made, **sources, **labels}, False)


def search(
    source: Input,
    index: Index,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write: .tsv, .csv or .parquet; a row for each pair of cells.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each cell.")] = 10,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Find the nearest reference cells of each cell of a file."""
    check_writable(output)
    if output.suffix.lower() not in TABLES:
        raise PromptError(f"{output}: a table; needed a name that ends in {', '.join(TABLES)}")
    adata, _ = read_cells(source, None, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "search") as done:
        found = opened.search(adata, index, k=k, on_cell=done)
    if output.suffix.lower() == ".parquet":
        found.to_parquet(output, index=False)
    else:
        found.to_csv(output, index=False, sep="\t" if output.suffix.lower() == ".tsv" else ",")
    mean = round(float(found["distance"].mean()), 4)
    show({"cells": adata.n_obs, "neighbours": len(found), "mean distance": mean, "output": str(output)}, as_json)


def transfer(
    source: Input,
    index: Index,
    output: Output,
    of: Annotated[str, typer.Option("--of", help="Field whose labels are carried over: cell_type, lineage, organ ...")] = "cell_type",
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 15,
    beyond: Annotated[
        float | None,
        typer.Option(
            help="A cell stays unassigned when more than this share of reference cells lie nearer to theirs; 1 for never. "
            "When not given, 0.99 where types of the index are in several batches, else never."
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Below this share of the votes a cell stays unassigned.")] = 0.0,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Write labels by votes of the nearest reference cells into a copy of the file."""
    check_cells(output)
    adata, _ = read_cells(source, None, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "transfer") as done:
        opened.transfer(adata, index, field=of, k=k, beyond=beyond, threshold=threshold, on_cell=done)
    write_cells(adata, output)
    kinds = shares(adata.obs[f"scmulan_transferred_{of}"])
    if as_json:
        print(json.dumps({"cells": adata.n_obs, of: kinds, "output": str(output)}, ensure_ascii=False))
    else:
        show({**kinds, "": "", "cells": adata.n_obs, "written to": str(output)}, False)
