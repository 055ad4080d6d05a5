"""Commands for a start from another language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scmulan.cli.terminal import AsJson, Seed, err, show


def tokenizer_renew(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Tokenizer or model folder, or 'demo'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Give a tokenizer the tokens of fields and tasks that came after it; a model of it can then go on learning with those."""
    from scmulan.corpus.own_tokenizer import control_names
    from scmulan.tokenizer import tokenizer_folder
    from scmulan.tokenizer_renew import renew_tokenizer

    fields, tasks = control_names()
    new = renew_tokenizer(tokenizer_folder(folder), output, fields=fields, tasks=tasks)
    show({"new tokens": new if as_json else ", ".join(new) or "none", "output": str(output)}, as_json)


def tokenizer_extend(
    hf_folder: Annotated[
        Path, typer.Argument(metavar="HF_FOLDER", help="Folder of a Hugging Face causal LM, for example a Qwen or a Llama.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    genes_of: Annotated[str, typer.Option(help="Whose genes: 'default', 'demo', or a tokenizer or model folder.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Make a tokenizer of another model's text and of cells, so that training can start from that model."""
    from scmulan.model import model_folder
    from scmulan.tokenizer import load_vocabulary, tokenizer_folder
    from scmulan.tokenizer_extend import extend_tokenizer, read_foreign_tokenizer

    source = model_folder("demo") if genes_of == "demo" else tokenizer_folder(genes_of)
    extends = extend_tokenizer(read_foreign_tokenizer(hf_folder), output, genes_of=source)
    pruned = extends["merges"] - extends["merges_kept"]
    if pruned:
        err.print(
            f"{extends['merges_kept']:,} of {extends['merges']:,} merges are kept, those of highest priority, for text and genes share "
            "65,536 ids; any text can still be written, in more tokens; fewer genes (--genes-of) leave room for more"
        )
    vocabulary = load_vocabulary(output)
    show(
        {
            "ids": vocabulary.size,
            "genes": vocabulary.n_genes,
            "text pieces": extends["pieces_kept"],
            "pruned merges": pruned,
            "output": str(output),
        },
        as_json,
    )


def start(
    hf_folder: Annotated[Path, typer.Argument(metavar="HF_FOLDER", help="Folder of a Hugging Face causal LM.")],
    tokenizer: Annotated[Path, typer.Option(help="Tokenizer folder that `scmulan tokenizer extend` wrote for that model.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder to write.")],
    context: Annotated[int, typer.Option(min=64, help="Longest sentence, in tokens.")] = 2048,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Make another language model one of cells that has seen none yet: a base to pretrain or to fine-tune."""
    from scmulan.model_start import write_start

    card = write_start(hf_folder, tokenizer, output, context=context, seed=seed)
    show({"parameters": card["parameters"], "context": context, "model": str(output)}, as_json)
