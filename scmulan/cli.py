"""The command line: results on stdout, progress on stderr, ``--json`` for machines, one clear line for an error.

Each command reads its arguments, calls one function of the library, and prints. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from scmulan import __version__
from scmulan.errors import PromptError, RecipeError, ScmulanError

if TYPE_CHECKING:
    import pandas as pd

    from scmulan.cells import AnnData
    from scmulan.tasks import Model

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="scmulan: a generative language model system for single cells.",
)
tokenizer_app = typer.Typer(no_args_is_help=True, help="Build tokenizers.")
corpus_app = typer.Typer(no_args_is_help=True, help="Build and inspect corpora.")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(corpus_app, name="corpus")

out, err = Console(soft_wrap=True), Console(stderr=True)

Input = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="File of cells.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
ModelName = Annotated[str, typer.Option("--model", help="Model folder, or 'demo' for the embedded one.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FieldMap = Annotated[list[str] | None, typer.Option("--field", help="Column of obs for a field, as organ=tissue; repeatable.")]
Organism = Annotated[str | None, typer.Option("--organism", help="Species, when the file does not say it or says it wrong.")]


@contextmanager
def _progress(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr that is told of cells done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task(text, total=total)
        yield lambda n: progress.advance(bar, n)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """``["organ=tissue"]`` as a dict; PromptError when one has no ``=``."""
    pairs = {}
    for text in given or []:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            raise PromptError(f"{option} {text!r}: needed NAME=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def _print(result: dict[str, Any], as_json: bool, title: str = "") -> None:
    if as_json:
        print(json.dumps(result, indent=1, ensure_ascii=False, default=str))
        return
    table = Table(title=title or None, show_header=False, box=None, pad_edge=False)
    for key, value in result.items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
    out.print(table)


def _load(name: str, device: str) -> Model:
    from scmulan.tasks import load

    return load(name, device=device)


def _read(path: Path, fields: list[str] | None, organism: str | None) -> tuple[AnnData, dict[str, str]]:
    from scmulan.cells import read_h5ad

    adata = read_h5ad(path)
    if organism is not None:
        adata.obs["organism"] = organism
    return adata, _pairs(fields, "--field")


def _writable(output: Path | None) -> None:
    """Say before the work, not after it, that its result would have no place."""
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise PromptError(f"{output}: " + ("a folder; name a file" if output.is_dir() else f"no folder {output.parent}; make it first"))


def _written(adata: AnnData, output: Path) -> None:
    from scmulan.cells import write_h5ad

    write_h5ad(adata, output)


def _shares(column: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in column.astype(str).value_counts().items() if count}


@app.command()
def check(source: Input, field: FieldMap = None, organism: Organism = None, as_json: AsJson = False) -> None:
    """Say what is in a file, what would be done with it, and how to mend what is wrong."""
    from scmulan.cells import check as check_cells

    report = check_cells(source, fields=_pairs(field, "--field"), organism=organism)
    if as_json:
        print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False, default=str))
    else:
        print(report.to_text())
    if report.verdict == "problem":
        raise typer.Exit(1)


@app.command()
def annotate(
    source: Input,
    output: Output,
    labels: Annotated[str | None, typer.Option(help="Labels to choose from: separated by ';', or a file with one a line.")] = None,
    threshold: Annotated[float, typer.Option(help="Below this probability a cell stays unassigned.")] = 0.0,
    cluster: Annotated[str | None, typer.Option(help="Column of obs; each cluster also gets its majority label.")] = None,
    by: Annotated[str, typer.Option(help="answer; or both, which weighs in the likelihood of the cell and takes longer.")] = "answer",
    field: FieldMap = None,
    organism: Organism = None,
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write cell types with probabilities into a copy of the file."""
    _writable(output)
    adata, fields = _read(source, field, organism)
    opened = _load(model, device)
    with _progress("annotate", adata.n_obs) as done:
        opened.annotate(adata, labels=_labels(labels), threshold=threshold, cluster=cluster, by=by, fields=fields, on_cell=done)
    _written(adata, output)
    kinds = _shares(adata.obs["scmulan_cell_type"])
    mean = round(float(adata.obs["scmulan_cell_type_probability"].mean()), 4)
    if as_json:
        print(json.dumps({"cells": adata.n_obs, "mean_probability": mean, "cell_types": kinds, "output": str(output)}, ensure_ascii=False))
    else:
        _print({**kinds, "": "", "cells": adata.n_obs, "mean probability": mean, "written to": str(output)}, False)


def _labels(given: str | None) -> list[str] | None:
    if given is None:
        return None
    is_file = ";" not in given and len(given) < 256 and Path(given).is_file()
    text = Path(given).read_text() if is_file else given.replace(";", "\n")
    return [line.strip() for line in text.splitlines() if line.strip()]


@app.command()
def embed(
    source: Input,
    output: Output,
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Write the embedding of each cell into a copy of the file: obsm["X_scmulan"]."""
    _writable(output)
    adata, _ = _read(source, None, organism)
    opened = _load(model, device)
    with _progress("embed", adata.n_obs) as done:
        states = opened.embed(adata, on_cell=done)
    _written(adata, output)
    _print({"cells": states.shape[0], "dimensions": states.shape[1], "output": str(output)}, as_json)


@app.command()
def locate(
    source: Input,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write, with the answers in obs.")] = None,
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Tell the organ of each cell from the cell alone."""
    _writable(output)
    adata, _ = _read(source, None, organism)
    opened = _load(model, device)
    with _progress("locate", adata.n_obs) as done:
        opened.locate(adata, on_cell=done)
    if output:
        _written(adata, output)
    organs = _shares(adata.obs["scmulan_organ"])
    _print({"organs": organs, "cells": adata.n_obs, "output": str(output)} if as_json else organs, as_json, "organ: cells")


@app.command()
def describe(
    source: Input,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write, with the answers in obs.")] = None,
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    organism: Organism = None,
    as_json: AsJson = False,
) -> None:
    """Tell every field of each cell from the cell alone."""
    _writable(output)
    adata, _ = _read(source, None, organism)
    opened = _load(model, device)
    with _progress("describe", adata.n_obs) as done:
        tables = opened.describe(adata, on_cell=done)
    if output:
        _written(adata, output)
    said = {name: _shares(adata.obs[f"scmulan_{name}"]) for name in tables}
    _print(
        said if as_json else {name: ", ".join(f"{k} {v}" for k, v in list(counts.items())[:4]) for name, counts in said.items()}, as_json
    )


def _cell_fields(**given: str | None) -> dict[str, str | None]:
    return {name: value for name, value in given.items() if value is not None}


Organ = Annotated[str | None, typer.Option(help="Organ, for example blood.")]
CellType = Annotated[str | None, typer.Option("--cell-type", help="Cell type, any usual spelling.")]
Number = Annotated[int, typer.Option("-n", help="Number of cells.")]
Depth = Annotated[int | None, typer.Option(help="Counts per cell to aim at.")]
Temperature = Annotated[float, typer.Option(help="1 draws from the model as trained; 0 takes the likeliest.")]
LeastHazard = Annotated[float, typer.Option(help="Pass by genes less likely than this; 0 draws from the model as it is.")]
TopP = Annotated[float, typer.Option("--top-p", help="Share of probability that is kept at each step.")]
More = Annotated[list[str] | None, typer.Option("--set", help="Any other field, as disease=normal; repeatable.")]
Naming = Annotated[str, typer.Option(help="Names of genes in the result: symbol or ensembl.")]


@app.command()
def generate(
    output: Output,
    organ: Organ = None,
    cell_type: CellType = None,
    organism: Annotated[str | None, typer.Option(help="Species, for example human.")] = None,
    more: More = None,
    n: Number = 10,
    depth: Depth = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    least_hazard: LeastHazard = 1e-4,
    naming: Naming = "symbol",
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate cells of a kind."""
    _writable(output)
    opened = _load(model, device)
    fields = _cell_fields(organ=organ, cell_type=cell_type, organism=organism) | _pairs(more, "--set")
    with _progress("generate", n) as done:
        cells = opened.generate(
            n=n,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            least_hazard=least_hazard,
            depth=depth,
            naming=naming,
            on_cell=done,
            **fields,
        )
    _written(cells, output)
    _print(_summary(cells, output), as_json)


@app.command()
def complete(
    output: Output,
    gene: Annotated[list[str], typer.Option("--gene", help="Gene and its count, as GATA1=8; repeatable.")],
    organ: Organ = None,
    cell_type: CellType = None,
    organism: Annotated[str | None, typer.Option(help="Species, for example human.")] = None,
    more: More = None,
    n: Number = 10,
    depth: Depth = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    least_hazard: LeastHazard = 1e-4,
    naming: Naming = "symbol",
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate cells that hold some genes at given counts (gene prompting; not an intervention)."""
    _writable(output)
    genes: dict[str, int] = {}
    for name, value in _pairs(gene, "--gene").items():
        if not value.isdigit():
            raise PromptError(f"--gene {name}={value}: needed a whole count, for example {name}=8")
        genes[name] = int(value)
    opened = _load(model, device)
    fields = _cell_fields(organ=organ, cell_type=cell_type, organism=organism) | _pairs(more, "--set")
    with _progress("complete", n) as done:
        cells = opened.complete(
            genes,
            n=n,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            least_hazard=least_hazard,
            depth=depth,
            naming=naming,
            on_cell=done,
            **fields,
        )
    _written(cells, output)
    _print(_summary(cells, output), as_json)


def _summary(cells: AnnData, output: Path) -> dict[str, Any]:
    import numpy as np

    counts = cells.layers["counts"]
    return {
        "cells": int(cells.n_obs),
        "median counts": int(np.median(np.asarray(counts.sum(1)))),
        "median genes": int(np.median(np.diff(counts.indptr))),
        "output": str(output),
    }


@app.command()
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
    _print({"model": str(folder)}, as_json)


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


@tokenizer_app.command("build")
def tokenizer_build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Corpus plan.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Make a tokenizer of the genes and labels of a plan's training cells."""
    from scmulan.corpus.build import build_plan_tokenizer, read_plan
    from scmulan.tokenizer import load_vocabulary

    build_plan_tokenizer(read_plan(plan), output)
    vocabulary = load_vocabulary(output)
    _print({"ids": vocabulary.size, "genes": vocabulary.n_genes, "output": str(output)}, as_json)


@corpus_app.command("build")
def corpus_build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Corpus plan.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer or model folder; made from the plan when not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write data sets as sentences into Parquet shards with a manifest."""
    from scmulan.corpus.build import build_corpus, build_plan_tokenizer, read_plan

    opened = read_plan(plan)
    if tokenizer is None:
        tokenizer = output.with_name(output.name + "-tokenizer")
        build_plan_tokenizer(opened, tokenizer)
    manifest = build_corpus(opened, tokenizer, output)
    _print({"cells": manifest["cells"], "tokens": manifest["tokens"], "shards": len(manifest["shards"]), "output": str(output)}, as_json)


@corpus_app.command("inspect")
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


@app.command()
def evaluate(
    held_out: Annotated[list[Path], typer.Argument(metavar="TEST.h5ad...", help="Held-out cells with their true labels.")],
    train: Annotated[
        list[Path], typer.Option("--train", help="Training cells, for the baselines; may be the same file when obs has a split.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for evaluation.html and evaluation.json.")],
    section: Annotated[
        list[str] | None, typer.Option("--section", help="annotation, generation or likelihood; repeatable; all when not given.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Generate this often, with seed, seed + 1 ...")] = 1,
    most_cells: Annotated[int | None, typer.Option(help="Measure on at most so many held-out cells, drawn evenly over types.")] = None,
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on held-out cells, each figure beside its baselines."""
    from scmulan import evaluate as evaluation

    with evaluation.bars() as shown:
        result = evaluation.evaluate_files(
            _load(model, device), held_out, train, seed=seed, sections=section, seeds=seeds, most_cells=most_cells, on_progress=shown
        )
    paths = evaluation.write(result, output)
    if as_json:
        print(Path(paths["json"]).read_text())
    else:
        out.print(evaluation.to_text(result))
        out.print(f"written to {paths['html']}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show what scmulan does, on the embedded model and cells: annotated and generated cells, pictures, one report."""
    from scmulan.demo import run

    summary = run(output, model=model, device=device, seed=seed, say=err.print)
    if as_json:
        print(json.dumps(summary, indent=1, ensure_ascii=False, default=str))


@app.command()
def bench(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="speed, roundtrip, sampling, invariance, sentence or kill.")],
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
    data: Annotated[Path | None, typer.Option(help="Folder of h5ad files to measure on; the embedded cells when not given.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Size of the measurement; see docs/benchmarks.md.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="sentence: the trials to run, by name; repeatable. All when not given.")] = None,
) -> None:
    """Measure speed, memory and exactness; every figure of docs/benchmarks.md comes from here."""
    from scmulan.bench import run

    result = run(what, model=model, device=device, seed=seed, data=data, n=n, only=only or (), say=err.print)
    _print(result, as_json, what)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: an error made on purpose, or of the disk, is one line on stderr and exit code 2."""
    try:
        app(standalone_mode=True)
    except ScmulanError as error:
        print(f"scmulan: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"scmulan: {error.filename or 'the disk'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
