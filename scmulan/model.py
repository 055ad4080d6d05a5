"""The language model: stock Qwen3 causal LMs from presets, and checkpoint folders.

A checkpoint folder is a plain Hugging Face model folder (config, safetensors, tokenizer) plus ``scmulan.json``: what the model
has seen, its labels, and the sha256 of its weights and of its tokenizer; ``README.md`` says the same for people.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from scmulan import assets
from scmulan.csentence import Vocabulary
from scmulan.errors import CheckpointError, RecipeError, nearest, some
from scmulan.model_card import write_card
from scmulan.tokenizer import LAYOUT_FILE, load_tokenizer, load_vocabulary, tokenizer_hash

CARD = "scmulan.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", LAYOUT_FILE)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Width, depth and heads of a stock Qwen3; ``tied``: input and output embeddings are one matrix."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    head_dim: int = 64
    tied: bool = True


# 30m to 1b are named for all their parameters under the default tokenizer (29.5, 99.7, 370.3 and 1,030.0 million): tests hold it.
PRESETS: dict[str, Preset] = {
    "tiny": Preset(hidden=64, layers=2, heads=2, kv_heads=2, intermediate=160, head_dim=32),
    "small": Preset(hidden=128, layers=4, heads=4, kv_heads=2, intermediate=384, head_dim=32),
    "demo": Preset(hidden=256, layers=4, heads=4, kv_heads=2, intermediate=768),
    "30m": Preset(hidden=320, layers=8, heads=5, kv_heads=5, intermediate=896),
    "100m": Preset(hidden=640, layers=12, heads=10, kv_heads=10, intermediate=1792),
    "368m": Preset(hidden=1024, layers=24, heads=16, kv_heads=16, intermediate=2816),
    "1b": Preset(hidden=2048, layers=18, heads=16, kv_heads=8, intermediate=6144, head_dim=128),
}


def new_model(preset: str | Preset, vocabulary: Vocabulary, *, context: int, seed: int = 0) -> PreTrainedModel:
    """An untrained model of a preset for a vocabulary; RecipeError names the nearest preset when there is none."""
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise RecipeError(f"model.preset {preset!r}: needed one of {', '.join(PRESETS)}{nearest(preset, list(PRESETS))}")
        preset = PRESETS[preset]
    config = Qwen3Config(
        vocab_size=vocabulary.size,
        hidden_size=preset.hidden,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.kv_heads,
        head_dim=preset.head_dim,
        intermediate_size=preset.intermediate,
        max_position_embeddings=context,
        tie_word_embeddings=preset.tied,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def start_genes_by_detection(
    model: PreTrainedModel, vocabulary: Vocabulary, detection_G: npt.NDArray[np.floating[Any]], *, std: float = 0.03
) -> None:
    """Start gene embeddings as Fourier features of cumulative detection, and of rarity, so that neighbours in id order begin alike.

    The log-odds of taking a gene follow how often it is detected, and where a reader of a level stands is the sum of the detection
    rates H before it. Features cos(2 pi H / s), sin(2 pi H / s) at scales s from 2 genes to twice the whole say both from the first
    step, where a random start has to learn them gene by gene.

    Parameters
    ----------
    detection_G : (n_genes,) share of training cells that detect each gene, in vocabulary order
    std : size of the features; the rest of the row keeps its random start
    """
    matrices = [model.get_input_embeddings().weight.data]
    if not model.config.tie_word_embeddings:
        matrices.append(model.get_output_embeddings().weight.data)
    n_scales = model.config.hidden_size // 4
    reach = np.cumsum(detection_G)
    angle_GK = 2 * np.pi * reach[:, None] / np.geomspace(2.0, 2 * max(reach[-1], 2.0), n_scales)[None, :]
    features = torch.from_numpy(np.concatenate([np.cos(angle_GK), np.sin(angle_GK)], axis=1)) * std * 2**0.5
    rarity = torch.from_numpy(np.log(detection_G + 1e-4))
    for weight_VD in matrices:
        rows = weight_VD[vocabulary.first_gene : vocabulary.last_gene]
        rows[:, : 2 * n_scales] = features.to(rows.dtype)
        rows[:, 2 * n_scales] = (std * (rarity - rarity.mean()) / rarity.std().clamp(min=1e-6)).to(rows.dtype)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder, opened: the model in eval mode, its tokenizer and vocabulary, and its card."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    card: dict[str, Any]

    @property
    def context(self) -> int:
        """Longest sentence, in tokens."""
        return int(self.model.config.max_position_embeddings)


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer_folder: Path,
    card: dict[str, Any],
    *,
    dtype: torch.dtype = torch.bfloat16,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a model folder, whole or not at all: weights in ``dtype``, the tokenizer, and the card with the hashes of both and its page.

    ``state`` are the weights where the model itself does not hold them whole.
    """
    whole, folder = folder, folder.with_name(folder.name + ".partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()  # a tied matrix is written once
    weights = {
        name: tensor.detach().to(dtype).cpu().contiguous() for name, tensor in (state or model.state_dict()).items() if name not in tied
    }
    was = model.config.dtype
    model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=weights)
    model.config.dtype = was
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).is_file():
            shutil.copyfile(tokenizer_folder / name, folder / name)
    hashes = {"weights_sha256": file_hash(folder / "model.safetensors"), "tokenizer_sha256": tokenizer_hash(folder)}
    (folder / CARD).write_text(json.dumps({**card, **hashes}, indent=1, ensure_ascii=False) + "\n")
    write_card(folder, {**card, **hashes})
    if whole.exists():
        shutil.rmtree(whole)
    folder.rename(whole)


def model_folder(name: str | Path) -> Path:
    """The folder of a model by path, or of the embedded one by the name ``demo``."""
    if str(name) == "demo":
        return assets.path("embedded", "model")
    folder = Path(name)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such model folder; give a folder written by `scmulan pretrain`, or the name 'demo'")
    return folder


def load_checkpoint(name: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, check_hash: bool = True) -> Checkpoint:
    """Open a model folder.

    Raises
    ------
    CheckpointError
        When a file is missing or damaged, or the tokenizer is not the one the model was trained with.
    """
    folder = model_folder(name)
    for needed in ("config.json", "model.safetensors", CARD):
        if not (folder / needed).is_file():
            raise CheckpointError(f"{folder}: no {needed}; needed a model folder written by `scmulan pretrain`")
    card = load_card(folder)
    if check_hash and file_hash(folder / "model.safetensors") != card.get("weights_sha256"):
        raise CheckpointError(
            f"{folder / 'model.safetensors'}: its sha256 is not the one in {CARD}; the file is damaged or another; copy the model again"
        )
    tokenizer = load_tokenizer(folder)
    if tokenizer_hash(folder) != card.get("tokenizer_sha256"):
        raise CheckpointError(
            f"{folder}: the tokenizer is not the one this model was trained with; restore its tokenizer.json and {LAYOUT_FILE}"
        )
    model = load_weights(folder, dtype)
    vocabulary = load_vocabulary(folder)
    if model.config.vocab_size != vocabulary.size:
        raise CheckpointError(f"{folder}: the model has {model.config.vocab_size:,} rows, its tokenizer {vocabulary.size:,} ids")
    return Checkpoint(folder, model.to(device).eval(), tokenizer, vocabulary, card)


def load_card(folder: Path) -> dict[str, Any]:
    """The card of a model or adapter folder; CheckpointError when it is missing or no mapping."""
    try:
        card = json.loads((folder / CARD).read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {CARD}; needed a model folder written by `scmulan pretrain`") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / CARD}: not JSON ({error}); copy the model again") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"{folder / CARD}: found {type(card).__name__}, needed a mapping; copy the model again")
    return card


def load_weights(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a folder; transformers would fill weights that config.json asks for and the file lacks with random numbers."""
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the weights can't be loaded ({error}); copy the model again") from error
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise CheckpointError(f"{folder}: config.json and model.safetensors do not agree on {some(wrong)}; copy the model again")
    return model


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def n_parameters(model: PreTrainedModel) -> int:
    """Parameters, a tied matrix counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
