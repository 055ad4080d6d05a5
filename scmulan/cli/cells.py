"""Commands that answer about the cells of a file: check, compare, annotate, embed, locate and describe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from scmulan.cli.tables import MaybeTable, check_table, finish_table
from scmulan.cli.terminal import (
    Adapter,
    Address,
    AsJson,
    Device,
    EngineName,
    FieldMap,
    Input,
    ModelName,
    Organism,
    Output,
    Seed,
    cells_of,
    check_cells,
    err,
    open_model,
    opening_of,
    out,
    pairs,
    progress,
    read_cells,
    shares,
    show,
    write_cells,
)
from scmulan.errors import PromptError, some

DIFFER = 0.05
LISTS = (".txt", ".tsv", ".csv")
MaybeOutput = Annotated[Path | None, typer.Option("-o", "--output", help="File to write, with the answers in obs.")]


def check(
    source: Input,
    field: FieldMap = None,
    organism: Organism = None,
    layer: Annotated[str | None, typer.Option(help="Where the counts are: a layer, raw or X; looked for when not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a file, what would be done with it, and how to mend what is wrong; exit code 1 when it can't be used."""
    from scmulan.cells_apart import check_apart

    report = check_apart(source, fields=pairs(field, "--field"), organism=organism, layer=layer)
    if as_json:
        print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False, default=str))
    else:
        print(report.to_text(out.width if out.is_terminal else None))
    if report.verdict == "problem":
        raise typer.Exit(1)


def compare(
    source: Annotated[Path, typer.Argument(metavar="A.h5ad", help="The first set of cells.")],
    other: Annotated[Path, typer.Argument(metavar="B.h5ad", help="The second, of any gene naming.")],
    output: MaybeTable = None,
    as_json: AsJson = False,
) -> None:
    """Rank the genes that differ between two sets of cells: log2 of B over A, Welch's t test with false discovery rates; asks no model."""
    from scmulan.comparing import compare as compare_cells

    check_table(output)
    table = compare_cells(source, other)
    differ = int((table["q"] < DIFFER).sum())
    table.attrs[f"differ at q < {DIFFER}"] = differ
    finish_table(table, output, as_json)
    if not as_json:
        out.print(f"{differ:,} of {len(table):,} genes differ at q < {DIFFER}", markup=False)


def annotate(
    source: Input,
    output: Output,
    labels: Annotated[str | None, typer.Option(help="Labels to choose from: separated by ';', or a file with one a line.")] = None,
    threshold: Annotated[float, typer.Option(help="Below this probability a cell stays unassigned.")] = 0.0,
    cluster: Annotated[str | None, typer.Option(help="Column of obs; each cluster also gets its majority label.")] = None,
    by: Annotated[str, typer.Option(help="answer; or both, which weighs in the likelihood of the cell and takes longer.")] = "answer",
    readout: Annotated[bool, typer.Option(help="Weigh in the adapter's readout of counts, where it has one.")] = True,
    level: Annotated[str, typer.Option(help="cell_type, lineage, or coarser types to sum up to, separated by ';'.")] = "cell_type",
    field: FieldMap = None,
    organism: Organism = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    engine: EngineName = "transformers",
    address: Address = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write cell types with probabilities into a copy of the file, of any size; a run that was stopped goes on."""
    from scmulan.levels import LEVELS
    from scmulan.pieces.answering import annotate_file

    check_cells(output)
    if not 0 <= threshold <= 1:
        raise PromptError(f"--threshold {threshold}: needed a probability, from 0 to 1")
    asked, at = _labels(labels), level.strip() if ";" not in level else _labels(level) or level
    if isinstance(at, str) and at.lower() in LEVELS:
        at = at.lower()
    opening, where = opening_of(model, device, adapter, engine, address)
    with progress("annotate") as watch:
        done = annotate_file(
            opening, source, output, labels=asked, threshold=threshold, cluster=cluster, by=by, readout=readout, level=at,
            fields=pairs(field, "--field"), organism=organism, where=where, watch=watch,
        )  # fmt: skip
    if done.never_seen:
        err.print(f"never seen in training, told by their words alone: {some(done.never_seen)}", markup=False)
    kinds = shares(done.obs["scmulan_cell_type"])
    mean, n_cells = round(float(done.obs["scmulan_cell_type_probability"].mean()), 4), len(done.obs)
    if as_json:
        print(json.dumps({"cells": n_cells, "mean_probability": mean, "cell_types": kinds, "output": str(output)}, ensure_ascii=False))
    else:
        show({**kinds, "": "", "cells": n_cells, "mean probability": mean, "written to": str(output)}, False)


def _labels(given: str | None) -> list[str] | None:
    if given is None:
        return None
    is_file = ";" not in given and len(given) < 256 and Path(given).is_file()
    if not is_file and given.lower().endswith(LISTS):
        raise PromptError(f"{given}: no such file; needed labels separated by ';', or a file with one a line")
    try:
        text = Path(given).read_text() if is_file else given.replace(";", "\n")
    except UnicodeDecodeError:
        raise PromptError(f"{given}: not a text file; needed one label a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def embed(
    source: Input,
    output: Output,
    model: ModelName = "demo",
    adapter: Adapter = None,
    engine: EngineName = "transformers",
    address: Address = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Write the embedding of each cell into a copy of the file, of any size: obsm["X_scmulan"]; a run that was stopped goes on."""
    from scmulan.pieces.answering import embed_file

    check_cells(output)
    opening, where = opening_of(model, device, adapter, engine, address)
    if opening.engine != "transformers":
        err.print("embeddings are those of the transformers engine, which vLLM does not give; it is used")
        opening = replace(opening, engine="transformers")
    with progress("embed") as watch:
        n_cells, width = embed_file(opening, source, output, organism=organism, where=where, watch=watch)
    show({"cells": n_cells, "dimensions": width, "output": str(output)}, as_json)


def locate(
    source: Input,
    output: MaybeOutput = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Tell the organ of each cell from the cell alone."""
    check_cells(output)
    adata, _ = read_cells(source, None, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "locate") as done:
        opened.locate(adata, on_cell=done)
    if output:
        write_cells(adata, output)
    organs = shares(adata.obs["scmulan_organ"])
    show({"organs": organs, "cells": adata.n_obs, "output": str(output)} if as_json else organs, as_json, "organ: cells")


def describe(
    source: Input,
    output: MaybeOutput = None,
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Tell every field of each cell from the cell alone."""
    check_cells(output)
    adata, _ = read_cells(source, None, organism)
    opened = open_model(model, device, adapter)
    with cells_of(source, adata, "describe") as done:
        tables = opened.describe(adata, on_cell=done)
    if output:
        write_cells(adata, output)
    said = {name: shares(adata.obs[f"scmulan_{name}"]) for name in tables}
    show(said if as_json else {name: ", ".join(f"{k} {v}" for k, v in list(counts.items())[:4]) for name, counts in said.items()}, as_json)
