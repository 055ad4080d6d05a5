"""A model of cells that begins as any Hugging Face causal LM, for example a Qwen or a Llama.

Its tokenizer is extended first (`scmulan.tokenizer_extend`). Then the model is the same with its ids in other places: each text piece
keeps its row, so text is read as before. Every other row (gene, depth, level, field, task) begins as the mean of the rows of the pieces
that spell it in the other tokenizer: `` GATA1``, `` cell type``, `` count 3``. Rows that would be equal get a little noise, and what
all genes' logits share is taken from them. Only safetensors are read, and only model code that transformers itself has is run. The loss
and the engine multiply hidden states with the output matrix themselves; a model that does more to its logits is refused at the start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from scmulan import __version__
from scmulan.csentence import Vocabulary
from scmulan.errors import CheckpointError, EngineError, some
from scmulan.model import load_weights, n_parameters, save_checkpoint
from scmulan.tokenizer import load_tokenizer, load_vocabulary
from scmulan.tokenizer_extend import ForeignTokenizer, extension_of, read_foreign_tokenizer

NOISE = 0.1
"""Of rows that would be equal to another: noise, as a share of the standard deviation of the other model's rows."""
NEEDED = "needed a causal LM like Qwen2, Qwen3 or Llama"


def is_foreign(folder: str | Path) -> bool:
    """Whether a folder is a Hugging Face model that scmulan has not written."""
    return (Path(folder) / "config.json").is_file() and not (Path(folder) / "scmulan.json").is_file()


def start_from_hf(hf_folder: str | Path, tokenizer_folder: str | Path, *, context: int, seed: int = 0) -> PreTrainedModel:
    """A Hugging Face causal LM whose ids are those of a tokenizer that extends its own; float32, in training mode.

    Parameters
    ----------
    hf_folder : config.json, safetensors, tokenizer.json
    tokenizer_folder : written by ``scmulan tokenizer extend``
    context : longest sentence in tokens, which ``max_position_embeddings`` becomes
    seed : of the noise

    Raises
    ------
    CheckpointError
        When the folder is damaged, or the tokenizer is no extension of its.
    EngineError
        When the model is of a kind that can't be trained on cells.
    """
    folder = Path(hf_folder)
    foreign = read_foreign_tokenizer(folder)
    check_extends(tokenizer_folder, foreign)
    model_type = _check_kind(folder)
    model = load_weights(folder, torch.float32)
    _check_architecture(model, f"{folder}: {type(model).__name__} ({model_type})")
    vocabulary = load_vocabulary(tokenizer_folder)
    pieces = foreign_ids(foreign, vocabulary, tokenizer_folder, _bounds_of(model.config, foreign))
    largest, rows = max(chain.from_iterable(pieces)), len(model.get_input_embeddings().weight)
    if largest >= rows:
        raise CheckpointError(f"{folder}: the tokenizer has an id {largest:,}, the model {rows:,} rows; copy both from one model")
    _permute_rows(model, pieces, vocabulary, seed)
    _level_genes(model, vocabulary, seed)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = vocabulary.bos, vocabulary.eos, vocabulary.pad
    model.generation_config = GenerationConfig.from_model_config(model.config)
    # the longest sentence of cells is what it will have learnt, and what an engine makes room for, not the longest text
    model.config.max_position_embeddings = context
    model.config._name_or_path = ""
    return model.train()


def write_start(hf_folder: str | Path, tokenizer_folder: str | Path, output: str | Path, *, context: int, seed: int = 0) -> dict[str, Any]:
    """Write what ``start_from_hf`` gives as a model folder of scmulan's that has seen no cell: a base to pretrain or to adapt.

    Returns
    -------
    dict
        The folder's card.
    """
    model = start_from_hf(hf_folder, tokenizer_folder, context=context, seed=seed)
    card = {
        "format": 1,
        "scmulan": __version__,
        "parameters": n_parameters(model),
        "context": context,
        "steps": 0,
        "tokens": 0,
        "sources": [],
        "labels": [],
        "held_out_nats": {},
        "recipe": {"start": Path(hf_folder).name, "seed": seed},
    }
    save_checkpoint(Path(output), model, Path(tokenizer_folder), card)
    return card


def check_extends(tokenizer_folder: str | Path, foreign: ForeignTokenizer) -> None:
    """CheckpointError, with the command to run, unless a tokenizer folder extends exactly this tokenizer."""
    extends = extension_of(tokenizer_folder)
    if extends is not None and extends["tokenizer_sha256"] == foreign.sha256:
        return
    found = "extends no other tokenizer" if extends is None else "extends another tokenizer"
    raise CheckpointError(
        f"{tokenizer_folder}: its tokenizer {found}; needed an extension of that of {foreign.folder}: run "
        f"`scmulan tokenizer extend {foreign.folder} -o FOLDER` and build the corpus with `tokenizer: FOLDER` in its plan"
    )


def _check_kind(folder: Path) -> str:
    """The model type of a config; EngineError when transformers has no causal LM of it, so that code of the folder is never asked for."""
    try:
        config = json.loads((folder / "config.json").read_text())
        model_type = str(config["model_type"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: can't be read ({error!r}); needed a Hugging Face model folder") from None
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise EngineError(f"{folder}: model type {model_type!r}, of which transformers has no causal LM of its own; {NEEDED}")
    return model_type


@torch.no_grad()
def _check_architecture(model: PreTrainedModel, what: str) -> None:
    """EngineError unless the model has what training, dropout and the engine reach into, and adds nothing to it."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None:
        raise EngineError(f"{what} has no model.layers; {NEEDED}")
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        lacking = [number for number, layer in enumerate(layers) if not _has(layer, name)]
        if lacking:
            raise EngineError(f"{what} has no {name} in layers {some(lacking)}; {NEEDED}")
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(model.config, "sliding_window", None):
        raise EngineError(f"{what} has layers that do not see the whole sentence ({', '.join(sorted(kinds))}); {NEEDED}")
    output = model.get_output_embeddings()
    if output is None:
        raise EngineError(f"{what} has no output embeddings; {NEEDED}")
    ids_BT = torch.arange(4)[None]
    model.eval()
    wanted = model.model(ids_BT).last_hidden_state @ output.weight.T
    if not torch.allclose(model(ids_BT).logits, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
        raise EngineError(f"{what} makes more of its logits than hidden states times output matrix (a scale, cap or bias); {NEEDED}")


def _has(module: torch.nn.Module, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True


def _bounds_of(config: Any, foreign: ForeignTokenizer) -> dict[str, list[int]]:
    """The other model's ids of begin, end and padding; the next best where it has none, at last a full stop."""
    found: dict[str, list[int]] = {}
    for name in ("bos", "eos", "pad"):
        number = getattr(config, f"{name}_token_id", None)
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int):
            found[name] = [number]
    least = next(iter(found.values()), foreign.encode(["."])[0])
    eos = found.get("eos", least)
    return {"<bos>": found.get("bos", eos), "<eos>": eos, "<pad>": found.get("pad", eos)}


def foreign_ids(
    foreign: ForeignTokenizer, vocabulary: Vocabulary, tokenizer_folder: str | Path, bounds: dict[str, list[int]]
) -> list[list[int]]:
    """The other model's ids whose rows' mean each row begins as; one list a row, spare rows included, none empty."""
    tokens = load_tokenizer(tokenizer_folder).convert_ids_to_tokens(list(range(vocabulary.last_gene)))
    known = {token: [foreign.pieces[token]] for token in tokens[slice(*vocabulary.text)]} | bounds
    wordings = [_wording(token) for token in tokens[: vocabulary.first_gene]] + [f" {gene}" for gene in vocabulary.genes]
    alphabet = [foreign.pieces[byte] for byte in sorted(pre_tokenizers.ByteLevel.alphabet())]
    found = [known.get(token) or ids or alphabet for token, ids in zip(tokens, foreign.encode(wordings), strict=True)]
    return found + [alphabet] * (vocabulary.size - vocabulary.last_gene)


def _wording(token: str) -> str:
    """How a control token would be said in plain words; nothing for the reserve."""
    if token.startswith("<reserved:"):
        return ""
    number = re.fullmatch(r"<(depth|n):(\d+)>", token)
    if number:
        return f" {'count' if number[1] == 'n' else 'depth'} {number[2]}"
    if token.startswith("</"):
        return f" end of {token[2:-1]}"
    return " " + token[1:-1].removeprefix("task:").replace("_", " ")


def _permute_rows(model: PreTrainedModel, pieces: Sequence[Sequence[int]], vocabulary: Vocabulary, seed: int) -> None:
    """Give every row of the input and output embeddings the mean of the other model's rows of its pieces."""
    flat = torch.tensor(list(chain.from_iterable(pieces)))
    starts = torch.tensor([0, *(len(ids) for ids in pieces[:-1])]).cumsum(0)
    twice = torch.tensor(_repeats(pieces, vocabulary))
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    modules = [model.get_input_embeddings()] + ([] if is_tied else [model.get_output_embeddings()])
    rows = [_means(module.weight.detach(), flat, starts, twice, seed + number) for number, module in enumerate(modules)]
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    model.get_input_embeddings().padding_idx = vocabulary.pad
    modules = [model.get_input_embeddings(), model.get_output_embeddings()][: len(rows)]
    for module, rows_VD in zip(modules, rows, strict=True):
        module.weight.data.copy_(rows_VD)


@torch.no_grad()
def _level_genes(model: PreTrainedModel, vocabulary: Vocabulary, seed: int) -> None:
    """Move all genes' rows of the output matrix by one vector, so that in cells their logits have mean 0.

    A softmax does not see what all logits share, and language models leave it anywhere. A gene's chance is a sigmoid of its own logit
    (`scmulan.hazard`), so there it would say that nearly every gene is taken, or none.
    """
    ids_BT = _made_up_cells(vocabulary, seed)
    genes_GD = model.get_output_embeddings().weight.data[vocabulary.first_gene : vocabulary.last_gene]
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for _ in range(4 if is_tied else 1):  # where the rows are read, too, what is read changes with them
        middle_D = model.model(ids_BT).last_hidden_state.mean((0, 1))
        genes_GD -= (genes_GD.mean(0) @ middle_D) / (middle_D @ middle_D).clamp(min=1e-6) * middle_D


def _made_up_cells(v: Vocabulary, seed: int, n_cells: int = 8, most_genes: int = 96) -> torch.Tensor:
    """(C, T) ids of cells of any genes at three levels, as they may stand in a sentence."""
    drawn = torch.Generator().manual_seed(seed)
    n_genes = min(most_genes, v.n_genes)
    cells = []
    for _ in range(n_cells):
        genes = (v.first_gene + torch.randperm(v.n_genes, generator=drawn)[:n_genes]).tolist()
        parts = [sorted(genes[: n_genes // 8]), sorted(genes[n_genes // 8 : n_genes // 3]), sorted(genes[n_genes // 3 :])]
        cells.append([v.bos, v.cell, v.first_depth + 20])
        for level, part in zip((4, 1, 0), parts, strict=True):
            cells[-1] += [int(v.level_id(level)), *part]
    return torch.tensor(cells)


def _means(weight_OD: torch.Tensor, flat: torch.Tensor, starts: torch.Tensor, twice_V: torch.Tensor, seed: int) -> torch.Tensor:
    """(V, D) mean of rows ``flat[starts[v]:starts[v + 1]]``, with noise where ``twice_V``."""
    rows_VD = torch.nn.functional.embedding_bag(flat, weight_OD, starts, mode="mean")
    noise = torch.randn(int(twice_V.sum()), weight_OD.shape[1], generator=torch.Generator().manual_seed(seed))
    rows_VD[twice_V] += noise * NOISE * weight_OD.std()
    return rows_VD


def _repeats(pieces: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[bool]:
    """Which rows have the pieces of a row before them, in any order; text comes first, then genes, then the end."""
    first, last = vocabulary.text
    rest = (number for number in chain(range(first), range(last, vocabulary.first_gene)) if number != vocabulary.eos)
    order = chain(range(first, last), range(vocabulary.first_gene, len(pieces)), [vocabulary.eos], rest)
    seen, twice = set[tuple[int, ...]](), [False] * len(pieces)
    for number in order:
        key = tuple(sorted(pieces[number]))
        twice[number] = key in seen
        seen.add(key)
    return twice
