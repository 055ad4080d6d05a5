"""Tables that commands print and write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scmulan.cli.terminal import check_writable, out, show
from scmulan.errors import PromptError

if TYPE_CHECKING:
    import pandas as pd

MaybeTable = Annotated[Path | None, typer.Option("-o", "--output", help="Table to write, .tsv or .csv.")]
SHOWN = 20


def check_table(output: Path | None) -> None:
    """As `check_writable`, of a table, whose name is to say its format."""
    check_writable(output)
    if output is not None and output.suffix.lower() not in (".tsv", ".csv"):
        raise PromptError(f"{output}: tables are written as .tsv or .csv; needed such a name, for example {output.with_suffix('.tsv')}")


def write_table(table: pd.DataFrame, output: Path) -> None:
    table.to_csv(output, sep="\t" if output.suffix.lower() == ".tsv" else ",", float_format="%.6g")


def finish_table(table: pd.DataFrame, output: Path | None, as_json: bool) -> None:
    """Write a ranking where a file is named; print all of it as JSON, or its first rows."""
    if output:
        write_table(table, output)
    about: dict[str, Any] = {str(name): value for name, value in table.attrs.items()}
    if as_json:
        rows: list[dict[str, Any]] = json.loads(table.reset_index().to_json(orient="records", double_precision=6))
        show({"rows": rows, **about, "output": str(output) if output else None}, True)
        return
    out.print(table.head(SHOWN).to_string(float_format="{:.4g}".format), markup=False)
    if len(table) > SHOWN:
        out.print(f"... {len(table) - SHOWN:,} more; -o FILE.tsv has all", markup=False)
