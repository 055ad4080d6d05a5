"""Commands that measure and show: evaluate, demo and bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from scmulan.cli.terminal import Adapter, AsJson, Device, ModelName, Seed, check_folder, err, open_model, out, show


def evaluate(
    held_out: Annotated[list[Path], typer.Argument(metavar="TEST.h5ad...", help="Held-out cells with their true labels.")],
    train: Annotated[
        list[Path], typer.Option("--train", help="Training cells, for the baselines; may be the same file when obs has a split.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for evaluation.html and evaluation.json.")],
    section: Annotated[
        list[str] | None,
        typer.Option(
            "--section",
            help="annotation, generation, likelihood, perturbation, states, depth, mapping or questions; repeatable. All that can be "
            "measured when not given; one that is named and can't be is an error.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Generate this often, with seed, seed + 1 ...")] = 1,
    most_cells: Annotated[
        int | None,
        typer.Option(min=1, help="Measure on at most so many held-out cells with types, drawn evenly over types."),
    ] = None,
    cells_per_perturbation: Annotated[
        int | None, typer.Option(min=2, help="perturbation: cells that the model writes of each (100).")
    ] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="questions: how many of each kind (40).")] = None,
    guide: Annotated[str, typer.Option(metavar="COLUMN", help="perturbation: column of obs that says each cell's guide.")] = "guide",
    clone: Annotated[str, typer.Option(metavar="COLUMN", help="states: column of obs that says each cell's clone.")] = "clone",
    model: ModelName = "demo",
    adapter: Adapter = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on held-out cells, each figure beside its baselines."""
    from scmulan import evaluate as evaluation

    check_folder(output)
    opened = open_model(model, device, adapter)
    wanted = {"cells_per_perturbation": cells_per_perturbation, "questions": questions}
    sizes = evaluation.Sizes(**{name: n for name, n in wanted.items() if n is not None})
    with evaluation.bars() as shown:
        result = evaluation.evaluate_files(
            opened,
            held_out,
            train,
            seed=seed,
            sections=section,
            seeds=seeds,
            most_cells=most_cells,
            guide=guide,
            clone=clone,
            sizes=sizes,
            on_progress=shown,
        )
    paths = evaluation.write(result, output)
    if as_json:
        print(Path(paths["json"]).read_text())
    else:
        out.print(evaluation.to_text(result))
        out.print(f"written to {paths['html']}")


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show what scmulan does, on the embedded model and cells: cells annotated, written, perturbed, followed, asked about; one report."""
    from scmulan.demo import run

    check_folder(output)
    summary = run(output, model=model, device=device, seed=seed, say=err.print)
    if as_json:
        print(json.dumps(summary, indent=1, ensure_ascii=False, default=str))


def bench(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="speed, roundtrip, sampling, invariance, sentence, training, parts, losses, packing, optimizers, organs, readout, corpus, "
            "ask, kill, screen, regulators, check, fuzz-reader, change, perturb, change-types, enhance, next-state, integration, search, "
            "serving or load.",
        ),
    ],
    model: ModelName = "demo",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
    data: Annotated[Path | None, typer.Option(help="Folder of h5ad files to measure on; the embedded cells when not given.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Size of the measurement; see docs/benchmarks.md.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="sentence, training, parts, optimizers, organs, readout, change, enhance, next-state, integration, serving: what to run, "
            "by name; all, or the usual, when not given; kill: single, ddp or fsdp2; load, sampling: the engine. Repeatable."
        ),
    ] = None,
    presets: Annotated[str, typer.Option(help="training, parts, losses: sizes of model, as demo,100m.")] = "demo",
    tokenizer: Annotated[
        str | None, typer.Option(help="training, parts, losses, packing: demo or default; by the model's size when not given.")
    ] = None,
    peak_tflops: Annotated[
        float | None, typer.Option(help="training, parts: the device's peak in bfloat16; then MFU is told, too.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="perturb: steps of fine-tuning (900).")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="perturb: folder that keeps the tuned models; a stopped training goes on there.")
    ] = None,
) -> None:
    """Measure speed, memory and exactness; every figure of docs/benchmarks.md comes from here."""
    from scmulan.bench import run

    names = [name.strip() for name in presets.split(",")]
    result = run(
        what, model=model, device=device, seed=seed, data=data, n=n, only=only or (), presets=names, tokenizer=tokenizer,
        peak_tflops=peak_tflops, steps=steps, keep=keep, say=err.print,
    )  # fmt: skip
    show(result, as_json, what)
