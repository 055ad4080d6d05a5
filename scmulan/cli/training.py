"""Commands that make tokenizers, corpora and models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from scmulan.cli import planning
from scmulan.cli.terminal import AsJson, check_picture, err, out, show
from scmulan.errors import PromptError, RecipeError

if TYPE_CHECKING:
    from scmulan.corpus.plan import Plan
    from scmulan.training.recipe import Recipe


def pretrain(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="Recipe in YAML, for example training/demo.yaml.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change a line of the recipe, as steps=100 or model.preset=tiny; repeatable.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the run would cost and start nothing.")] = False,
    presets: Annotated[bool, typer.Option("--presets", help="List the model presets with their parameters.")] = False,
    gpu: Annotated[
        str, typer.Option(help="--plan: h100, a100, h200, l40s, rtx4090 ..., cpu for this machine, or a peak in TFLOP/s.")
    ] = "h100",
    gpus: Annotated[int, typer.Option(help="--plan: how many of them.")] = 1,
    mfu: Annotated[float, typer.Option(help="--plan: share of their peak that is reached.")] = 0.4,
    as_json: AsJson = False,
) -> None:
    """Train a model, or go on from the newest whole checkpoint."""
    from scmulan.training.recipe import read_recipe

    if presets:
        planning.show_presets(as_json)
        return
    if recipe is None:
        raise RecipeError("pretrain: no recipe; needed the path of one, for example training/demo.yaml, or --presets")
    opened = read_recipe(recipe, change or [])
    if plan:
        planning.show_plan(opened, str(recipe), gpu=gpu, gpus=gpus, mfu=mfu, as_json=as_json)
        return
    from scmulan.training.loop import pretrain as train

    corpus = Path(opened.corpus) if opened.corpus else _prepare_corpus(opened.plan or {}, Path(opened.folder), Path(opened.output))
    folder = train(opened, corpus, say=err.print)
    if opened.rates and int(os.environ.get("RANK", "0")) == 0:
        _add_rates(folder, opened, corpus)
    show({"model": str(folder)}, as_json)


def _add_rates(folder: Path, recipe: Recipe, corpus: Path) -> None:
    """Fit the rates that a recipe asks for on all training cells."""
    from scmulan.corpus.shards import Corpus
    from scmulan.finetune_rates import add_rates
    from scmulan.model import model_folder

    opened = Corpus(corpus)
    base = model_folder(recipe.model.start) if recipe.model.start is not None else folder
    add_rates(folder, base, opened, len(opened.manifest["sources"]), tasks=recipe.rates, seed=recipe.seed, say=err.print)


def _prepare_corpus(plan: dict[str, Any], folder: Path, output: Path) -> Path:
    """The corpus of a recipe's plan, built where it is not there yet; RecipeError when the one there is of another plan."""
    from scmulan.corpus.build import build_corpus
    from scmulan.corpus.plan import read_plan
    from scmulan.corpus.shards import MANIFEST, write_json

    record = output / "plan.json"
    if not record.is_file() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"{output / 'corpus'} is not built yet, and the processes of a run don't share that work; "
            "build it first, with `scmulan corpus pack RECIPE` on one"
        )
    if not (output / "corpus" / MANIFEST).is_file() or not record.is_file():
        opened = read_plan(plan, folder)
        build_corpus(opened, _tokenizer_of(opened, output / "tokenizer"), output / "corpus", say=err.print)
        write_json(record, plan)
    elif json.loads(record.read_text()) != json.loads(json.dumps(plan)):
        raise RecipeError(f"{output / 'corpus'} was built from another plan ({record}); give another output folder, or delete this one")
    return output / "corpus"


def _tokenizer_of(plan: Plan, folder: Path, *, skip_broken: bool = False) -> Path:
    """The tokenizer that a plan names, or one made for it in ``folder``."""
    from scmulan.corpus.own_tokenizer import build_plan_tokenizer
    from scmulan.tokenizer import tokenizer_folder

    if plan.tokenizer.folder is not None:
        return tokenizer_folder(plan.tokenizer.folder)
    build_plan_tokenizer(plan, folder, skip_broken=skip_broken)
    return folder


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
        from scmulan.corpus.own_tokenizer import build_plan_tokenizer
        from scmulan.corpus.plan import read_plan

        if output is None:
            raise PromptError("tokenizer build: needed -o, the folder to write")
        build_plan_tokenizer(read_plan(plan), output)
    vocabulary = load_vocabulary(output)
    show({"ids": vocabulary.size, "genes": vocabulary.n_genes, "output": str(output)}, as_json)


def corpus_build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Corpus plan.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer or model folder, or 'default', or 'demo'; what the plan says if not given.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one for few cells, else one for each core.")] = None,
    engine: Annotated[str, typer.Option(help="Where the work runs: processes, or ray.")] = "processes",
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto, or ray://host:10001; one is started here by default.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out sources that can't be read.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write data sets as sentences into Parquet shards with a manifest; run again, it goes on where it stopped."""
    from scmulan.corpus.build import build_corpus
    from scmulan.corpus.plan import read_plan
    from scmulan.corpus.workers import Workers
    from scmulan.tokenizer import tokenizer_folder

    where = None if workers is None and engine == "processes" else Workers(engine=engine, count=workers or 1, address=address)
    opened = read_plan(plan)
    own = output.with_name(output.name + "-tokenizer")
    folder = tokenizer_folder(tokenizer) if tokenizer else _tokenizer_of(opened, own, skip_broken=skip_broken)
    manifest = build_corpus(opened, folder, output, workers=where, skip_broken=skip_broken, say=err.print)
    found = {key: manifest[key] for key in ("cells", "tokens", "doubles")}
    show({**found, "shards": len(manifest["shards"]), "left out": len(manifest["left_out"]), "output": str(output)}, as_json)


def corpus_pack(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe whose corpus is packed.")],
    epochs: Annotated[int, typer.Option(min=1, help="How many epochs, from the first.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    engine: Annotated[str, typer.Option(help="Where the work runs: processes, or ray.")] = "processes",
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto, or ray://host:10001; one is started here by default.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a line of the recipe; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the packs that a recipe trains on into files of 16-bit ids, ahead of training; run again, it goes on."""
    from scmulan.corpus.workers import Workers
    from scmulan.training.ahead import pack_ahead
    from scmulan.training.recipe import read_recipe

    where = Workers(engine=engine, count=workers, address=address)
    opened = read_recipe(recipe, change or [])
    corpus = Path(opened.corpus) if opened.corpus else _prepare_corpus(opened.plan or {}, Path(opened.folder), Path(opened.output))
    show(pack_ahead(opened, corpus, epochs=epochs, workers=where), as_json)


def corpus_verify(
    folder: Annotated[Path, typer.Argument(metavar="CORPUS", help="Corpus folder.")],
    as_json: AsJson = False,
) -> None:
    """Compare every shard and every packed file of a corpus with its hash."""
    from scmulan.corpus.shards import Corpus
    from scmulan.corpus.windows import verify_packed

    corpus = Corpus(folder)
    corpus.verify()
    found = {"shards": len(corpus.manifest["shards"]), "cells": corpus.manifest["cells"], "packed windows": verify_packed(corpus)}
    show({**found, "verdict": "every file as its hash says"}, as_json)


def corpus_inspect(
    folder: Annotated[Path, typer.Argument(metavar="CORPUS", help="Corpus folder.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every shard with its hash.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Write a picture of organs, types, depths and lengths: .png, .svg or .pdf.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a corpus: sources, organs, types, depths, lengths."""
    from scmulan.corpus.contents import contents_of
    from scmulan.corpus.shards import Corpus

    check_picture(picture)
    corpus = Corpus(folder)
    if verify:
        corpus.verify()
    contents = contents_of(corpus.manifest)
    if picture is not None:
        from scmulan.plots_corpus import draw_corpus

        draw_corpus(contents, picture)
    if as_json:
        print(json.dumps(contents, indent=1, ensure_ascii=False))
        return
    _show_sources(corpus.manifest)
    for name, labels in contents["labels"].items():
        shown = [f"{label} {cells:,}" for label, cells in list(labels.items())[:6]]
        more = f" and {len(labels) - 6:,} more" if len(labels) > 6 else ""
        out.print(f"[bold]{name}[/bold]  {', '.join(shown)}{more}")
    for name, unit in (("depths", "counts"), ("lengths", "ids")):
        low, middle, high = contents[name]["quartiles"]
        out.print(f"[bold]{name}[/bold]  a quarter below {low:,} {unit} a cell, half below {middle:,}, three quarters below {high:,}")
    checked = ", every shard as its hash says" if verify else ""
    out.print(f"{contents['cells']:,} cells, {contents['tokens']:,} tokens{checked}")


def _show_sources(manifest: dict[str, Any]) -> None:
    table = Table("source", "cells", "splits", "median ids", "cell types", "counts outside vocabulary", box=None)
    for source in manifest["sources"]:
        splits = ", ".join(f"{name} {count:,}" for name, count in source["splits"].items())
        outside = f"{source['share_of_counts_outside_vocabulary']:.2%}"
        types = str(len(source["labels"].get("cell_type", [])))
        table.add_row(source["file"], f"{source['cells']:,}", splits, f"{source['median_tokens']:,}", types, outside)
    out.print(table)
