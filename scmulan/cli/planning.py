"""What ``scmulan pretrain`` says before anything starts: the presets, and the cost of a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from scmulan.cli.terminal import out

if TYPE_CHECKING:
    from scmulan.corpus.sentences import Sentences
    from scmulan.csentence import Vocabulary
    from scmulan.training.planning import RunPlan
    from scmulan.training.recipe import Recipe

GB = 1e9


def show_presets(as_json: bool) -> None:
    """Every preset with its parameters under the default tokenizer."""
    from scmulan.tokenizer import load_vocabulary, tokenizer_folder
    from scmulan.training.sizing import preset_sizes

    vocabulary = load_vocabulary(tokenizer_folder("default"))
    sizes = preset_sizes(vocabulary)
    if as_json:
        print(json.dumps({name: dataclasses.asdict(size) for name, size in sizes.items()}, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("preset", "parameters", "in layers", "layers", "width", "heads", "of keys", "inner"):
        table.add_column(column, justify="left" if column == "preset" else "right", no_wrap=True)
    for name, size in sizes.items():
        shape = (size.layers, size.hidden, size.heads, size.kv_heads, size.intermediate)
        table.add_row(name, f"{size.total:,}", f"{size.total - size.embeddings:,}", *(f"{number:,}" for number in shape))
    out.print(table)
    out.print(f"with the default tokenizer of {vocabulary.size:,} ids; a smaller one takes parameters from the embeddings alone")


def show_plan(recipe: Recipe, name: str, *, gpu: str, gpus: int, mfu: float, as_json: bool) -> None:
    """What a recipe's run would cost."""
    from scmulan.training.hardware import device_of
    from scmulan.training.planning import plan_run

    device = device_of(gpu)
    sentences, vocabulary = _sentences(recipe, on_gpu=device.name != "cpu")
    plan = plan_run(recipe, sentences, vocabulary, device=device, devices=gpus, mfu=mfu)
    if as_json:
        print(json.dumps(plan.to_dict(), indent=1))
        return
    _print(plan, name, is_built=not sentences.how.startswith("estimated"))


def _sentences(recipe: Recipe, *, on_gpu: bool) -> tuple[Sentences, Vocabulary]:
    """Sentences of the recipe's corpus where it is built, else an estimate from its plan's sources."""
    from scmulan.corpus.shards import MANIFEST, Corpus
    from scmulan.training.planning import measure_sentences, writer_of

    folder = Path(recipe.corpus) if recipe.corpus else Path(recipe.output) / "corpus"
    if recipe.corpus or (folder / MANIFEST).is_file():
        corpus = Corpus(folder)
        writer = writer_of(folder)
        return measure_sentences(corpus, recipe, writer, on_gpu=on_gpu), writer.vocabulary
    from scmulan.corpus.estimate import estimate_sentences
    from scmulan.corpus.plan import read_plan

    return estimate_sentences(read_plan(recipe.plan or {}, Path(recipe.folder)), recipe.packing, on_gpu=on_gpu)


def _print(plan: RunPlan, name: str, *, is_built: bool) -> None:
    model, corpus, run, of_token, time = plan.model, plan.corpus, plan.run, plan.operations["per_token"], plan.time
    row = _row
    row("model", f"{model['name']}: {model['total']:,} parameters, of which embeddings {model['embeddings']:,}; {model['layers']} layers")
    if model["adapter"]:
        held = f", the layers below held in {model['bits']} bits" if model["bits"] < 32 else ""
        row("", f"an adapter of {model['adapter']:,} parameters is trained{held}")
    row("corpus", f"{corpus['cells']:,} training cells, {_short(corpus['tokens'])} tokens an epoch, {corpus['length']:,.0f} a sentence")
    row("", f"packs {corpus['fill']:.1%} full; {corpus['how']}" + ("" if is_built else f"; scmulan corpus pack {name} builds it"))
    row("run", f"{run['steps']:,} steps of {run['tokens_per_step']:,} tokens: {_short(run['tokens'])} tokens, {run['epochs']:,.2f} epochs")
    worth = f"worth {_short(run['worth_new_tokens'])} new tokens (Muennighoff et al. 2023)"
    row("", f"{run['tokens_per_parameter']:,.3g} tokens a parameter; {worth}")
    per_matrix = "4 N + 6 A" if model["adapter"] else "6 N"
    row("operations", f"{plan.operations['run']:.3g} = tokens x ({per_matrix} + 12 L H Q K + 6 D C) = tokens x {of_token['needed']:,.0f}")
    of_adapter = "; A, the adapter" if model["adapter"] else ""
    row("", f"{per_matrix} {of_token['matrices']:,.0f}: N, the layers' matrices (Kaplan et al. 2020){of_adapter}")
    row("", f"12 L H Q K {of_token['attention']:,.0f}: a token sees K = {corpus['keys']:,.0f} ids (Chowdhery et al. 2022, B; causal)")
    whole = f"all ids would be {of_token['whole_vocabulary']:,.0f}"
    row("", f"6 D C {of_token['loss']:,.0f}: the loss over C = {corpus['columns']:,.0f} rows of the output matrix; {whole}")
    if of_token["recomputed"]:
        row("", f"and {of_token['recomputed']:,.0f} made again for the backward pass, in the hours but not in the MFU")
    reached = f"{time['mfu']:.0%} of {time['peak_tflops']:,g} TFLOP/s (bfloat16, dense; {time['peak_from']})"
    row(
        "time",
        f"{_duration(time['hours'])} on {time['devices']} x {time['device']} at {reached}; {time['tokens_per_second']:,.0f} tokens/s",
    )
    disk = plan.disk
    row(
        "disk",
        f"{disk['checkpoints_and_model'] / GB:,.2f} GB: checkpoints, one being written, the model ({disk['of_which_model'] / GB:,.2f} GB)",
    )
    for epochs, best in plan.optimal.items():
        worth = f"{_short(best['worth_new_tokens'])} new tokens' worth, {_short(best['parameters'])} parameters"
        row("corpus feeds" if epochs == "1" else "", f"{_epochs(epochs)}: {worth}; nearest preset {best['nearest_preset']}")
    row("", "20 tokens a parameter (Hoffmann et al. 2022, of text), repeats by Muennighoff et al. 2023")
    out.print(_memory_table(plan.memory))
    out.print("activations after Korthikanti et al. 2022, of one pack at a time, without torch.compile, which keeps fewer")
    for note in plan.notes:
        out.print(f"[bold]note[/bold]  {note}")


def _row(label: str, text: str) -> None:
    out.print(f"[bold]{label:<14}[/bold]{text}", highlight=False)


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 2 else f"{hours * 60:,.1f} minutes"


def _memory_table(memory: dict[str, dict[str, int]]) -> Table:
    names = list(memory)
    table = Table("GB on each", *names, box=None, pad_edge=False)
    for part in next(iter(memory.values())):
        table.add_row(part, *(f"{memory[name][part] / GB:,.2f}" for name in names), style="bold" if part == "total" else None)
    return table


def _short(number: float) -> str:
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.2f}{letter}"
    return f"{number:,.0f}"


def _epochs(number: Any) -> str:
    return "1 epoch" if number == "1" else f"{number} epochs"
