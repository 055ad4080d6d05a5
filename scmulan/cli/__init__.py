"""The command line: results on stdout, progress on stderr, ``--json`` for machines, one clear line for an error.

Each command reads its arguments, calls one function of the library, and prints. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, TextIO

import typer

from scmulan import __version__
from scmulan.cli import asking, cells, changes, editing, mapping, measuring, serving, serving_mcp, starting, training, tuning, writing
from scmulan.errors import ScmulanError, ScmulanWarning

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="scmulan: a generative language model system for single cells.",
)
tokenizer_app = typer.Typer(no_args_is_help=True, help="Build tokenizers.")
adapter_app = typer.Typer(no_args_is_help=True, help="List and merge adapters.")
genes_app = typer.Typer(no_args_is_help=True, help="Ask the model about genes.")
index_app = typer.Typer(no_args_is_help=True, help="Build and inspect indexes of reference cells.")
corpus_app = typer.Typer(no_args_is_help=True, help="Build and inspect corpora.")

ABOUT_CELLS = (cells.check, cells.compare, cells.annotate, cells.embed, cells.locate, cells.describe)
EDITING = (editing.edit, editing.screen)
MAPPING = (mapping.search, mapping.transfer)
CHANGES = (changes.perturb, changes.explain_shift, changes.next_state, changes.fate, changes.enhance)
WRITING, MEASURING = (writing.generate, writing.complete, asking.ask), (measuring.evaluate, measuring.demo, measuring.bench)
TRAINING = (training.pretrain, starting.start, tuning.finetune)
SERVING = (serving.serve, serving.key, serving_mcp.mcp)

for command in (*ABOUT_CELLS, *WRITING, *CHANGES, *EDITING, *MAPPING, *TRAINING, *MEASURING, *SERVING):
    app.command()(command)
tokenizer_app.command("build")(training.tokenizer_build)
tokenizer_app.command("extend")(starting.tokenizer_extend)
tokenizer_app.command("renew")(starting.tokenizer_renew)
genes_app.command("like")(editing.like)
genes_app.command("programs")(editing.programs)
genes_app.command("regulators")(editing.regulators)
genes_app.command("probe")(editing.probe)
corpus_app.command("build")(training.corpus_build)
corpus_app.command("inspect")(training.corpus_inspect)
corpus_app.command("pack")(training.corpus_pack)
corpus_app.command("verify")(training.corpus_verify)
adapter_app.command("list")(tuning.adapter_list)
adapter_app.command("merge")(tuning.adapter_merge)
app.add_typer(tokenizer_app, name="tokenizer")
index_app.command("build")(mapping.index_build)
index_app.command("info")(mapping.index_info)
app.add_typer(index_app, name="index")
app.add_typer(genes_app, name="genes")
app.add_typer(corpus_app, name="corpus")
app.add_typer(adapter_app, name="adapter")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def say_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """A warning of scmulan's as one line on stderr, without the code that gave it; others as Python shows them."""
    if issubclass(category, ScmulanWarning):
        print(f"scmulan: warning: {message}", file=sys.stderr)
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def main() -> None:
    """Entry point: an error made on purpose, or of the disk, is one line on stderr and exit code 2."""
    warnings.showwarning = say_warning
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one for each model that it opens
    try:
        app(standalone_mode=True)
    except ScmulanError as error:
        print(f"scmulan: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"scmulan: {error.filename or 'the disk'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
