"""Commands that make tokenizers, corpora and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from scmulan.cli.terminal import AsJson, err, out, show
from scmulan.errors import PromptError, RecipeError


def pretrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe in YAML, for example training/demo.yaml.")],
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change a line of the recipe, as steps=100 or model.preset=tiny; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model, or go on from the newest whole checkpoint."""
    from scmulan.training.loop import pretrain as train
    from scmulan.training.recipe import read_recipe

    opened = read_recipe(recipe, change or [])
    corpus = Path(opened.corpus) if opened.corpus else _prepare_corpus(opened.plan or {}, Path(opened.folder), Path(opened.output))
    folder = train(opened, corpus, say=err.print)
    show({"model": str(folder)}, as_json)


def _prepare_corpus(plan: dict[str, Any], folder: Path, output: Path) -> Path:
    """The corpus of a recipe's plan, built where it is not there yet; RecipeError when the one there is of another plan."""
    from scmulan.corpus.build import build_corpus, build_plan_tokenizer, read_plan
    from scmulan.corpus.shards import MANIFEST, write_json

    record = output / "plan.json"
    if not (output / "corpus" / MANIFEST).is_file() or not record.is_file():
        opened = read_plan(plan, folder)
        build_plan_tokenizer(opened, output / "tokenizer")
        build_corpus(opened, output / "tokenizer", output / "corpus")
        write_json(record, plan)
    elif json.loads(record.read_text()) != json.loads(json.dumps(plan)):
        raise RecipeError(f"{output / 'corpus'} was built from another plan ({record}); give another output folder, or delete this one")
    return output / "corpus"


def tokenizer_build(
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN.yaml", help="Corpus plan; not with --default.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write; tokenizer/default with --default.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Make the default tokenizer, which needs no plan, anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a tokenizer of the genes and labels of a plan's training cells, or the default one."""
    from scmulan.tokenizer import load_vocabulary

    if default == (plan is not None):
        raise PromptError("tokenizer build: needed a plan or --default, and not both")
    if plan is None:
        from scmulan.tokenizer_build import build_default

        output = output or Path("tokenizer", "default")
        build_default(output)
    else:
        from scmulan.corpus.build import build_plan_tokenizer, read_plan

        if output is None:
            raise PromptError("tokenizer build: needed -o, the folder to write")
        build_plan_tokenizer(read_plan(plan), output)
    vocabulary = load_vocabulary(output)
    show({"ids": vocabulary.size, "genes": vocabulary.n_genes, "output": str(output)}, as_json)


def corpus_build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Corpus plan.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer or model folder, or 'default'; made from the plan if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write data sets as sentences into Parquet shards with a manifest."""
    from scmulan.corpus.build import build_corpus, build_plan_tokenizer, read_plan
    from scmulan.tokenizer import tokenizer_folder

    opened = read_plan(plan)
    if tokenizer is None:
        tokenizer = output.with_name(output.name + "-tokenizer")
        build_plan_tokenizer(opened, tokenizer)
    manifest = build_corpus(opened, tokenizer_folder(tokenizer), output)
    show({"cells": manifest["cells"], "tokens": manifest["tokens"], "shards": len(manifest["shards"]), "output": str(output)}, as_json)


def corpus_inspect(
    folder: Annotated[Path, typer.Argument(metavar="CORPUS", help="Corpus folder.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every shard with its hash.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is in a corpus."""
    from scmulan.corpus.shards import Corpus

    corpus = Corpus(folder)
    if verify:
        corpus.verify()
    if as_json:
        print(json.dumps({key: value for key, value in corpus.manifest.items() if key != "shards"}, indent=1, ensure_ascii=False))
        return
    table = Table("source", "cells", "splits", "median tokens", "cell types", box=None)
    for source in corpus.manifest["sources"]:
        splits = ", ".join(f"{name} {count:,}" for name, count in source["splits"].items())
        table.add_row(
            source["file"], f"{source['cells']:,}", splits, f"{source['median_tokens']:,}", str(len(source["labels"].get("cell_type", [])))
        )
    out.print(table)
    out.print(
        f"{corpus.manifest['cells']:,} cells, {corpus.manifest['tokens']:,} tokens" + (", every shard as its hash says" if verify else "")
    )
