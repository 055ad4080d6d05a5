"""Commands that tune a model: finetune, and what is done with adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scmulan.cli.terminal import AsJson, err, open_model, out, show
from scmulan.errors import CheckpointError, RecipeError


def finetune(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe in YAML, for example training/finetune.yaml.")],
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change a line of the recipe, as cells=skin.h5ad or adapter.rank=8; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on labelled cells, or go on from the newest whole checkpoint."""
    from scmulan.finetune import run_finetune
    from scmulan.finetune_recipe import read_finetune

    opened = read_finetune(recipe, change or [])
    writes = opened.mix is not None and opened.mix.generated is not None
    generate = open_model(opened.base, "cpu").generate if writes else None
    folder = run_finetune(opened, generate=generate, say=lambda line: err.print(line, markup=False))
    show({"adapter" if opened.adapter is not None else "model": str(folder)}, as_json)


def adapter_list(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An adapter's folder, or one with adapters in it.")],
    as_json: AsJson = False,
) -> None:
    """Say which adapters are in a folder: what they stand on, and which labels they have learnt."""
    from scmulan.adapters_folder import WEIGHTS, adapters_in

    found = {str(adapter.folder): adapter for adapter in adapters_in(folder)}
    if not found:
        raise CheckpointError(f"{folder}: no adapter in it; `scmulan finetune` writes them")
    if as_json:
        entries = {
            name: {
                "base": adapter.base["name"], "base_sha256": adapter.base["weights_sha256"], "sha256": adapter.sha256,
                "organs": adapter.labels("organ"), "cell_types": adapter.labels("cell_type"), "rank": adapter.config.get("r"),
            }
            for name, adapter in found.items()
        }  # fmt: skip
        show(entries, True)
        return
    table = Table("adapter", "base", "rank", "MB", "organs", "cell types", box=None)
    for name, adapter in found.items():
        size = (adapter.folder / WEIGHTS).stat().st_size / 1e6
        base = f"{adapter.base['name']} {adapter.base['weights_sha256'][:8]}"
        organs, types = adapter.labels("organ"), adapter.labels("cell_type")
        table.add_row(name, base, str(adapter.config.get("r")), f"{size:.1f}", ", ".join(organs), ", ".join(types))
    out.print(table)


def adapter_merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Model folder, or 'demo'.")],
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of an adapter that was trained on it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder to write.")],
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 for half the size and a coarser adapter.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Write a whole model that answers as the base with the adapter does."""
    import torch

    from scmulan.adapters_folder import merge

    if dtype not in ("float32", "bfloat16"):
        raise RecipeError(f"--dtype {dtype!r}: needed float32 or bfloat16")
    show({"model": str(merge(base, adapter, output, dtype=getattr(torch, dtype)))}, as_json)
