"""Small Hugging Face model folders of other families, as tests need them: random weights, a byte-level BPE with special tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Olmo2Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SENTENCES = [
    "The natural killer cell of the blood is a lymphocyte; a B cell makes antibodies, a T cell does not.",
    "Bone marrow holds the stem cells of all blood. What type of cell is this, and which organ is it from?",
    "Every depth counts: 1, 2, 3 and 10 reads, for the gene GATA1 as for HLA-DRA and MT-CO1.",
    "Generate a cell; annotate the cell type, the stage, the sex and the disease of the organism. Naïve café.",
] * 3
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SHAPE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 4096}
FAMILIES = {
    "qwen2": lambda **given: Qwen2Config(**SHAPE, num_key_value_heads=4, **{"tie_word_embeddings": False, **given}),
    "qwen3": lambda **given: Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16, **{"tie_word_embeddings": True, **given}),
    "llama": lambda **given: LlamaConfig(**SHAPE, num_key_value_heads=2, **{"tie_word_embeddings": False, **given}),
    "olmo2": lambda **given: Olmo2Config(**SHAPE, num_key_value_heads=2, **{"tie_word_embeddings": False, **given}),
}


def made_up_words(n: int) -> list[str]:
    """Words that a BPE needs many merges for."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rng = random.Random(0)
    return [" " + "".join(rng.choices(letters, k=8)) for _ in range(n)]


def write_tokenizer(folder: Path, pieces: int = 420, more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE as GPT-2 and Qwen have it, its special tokens after the pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=pieces, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES, *more], trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    fast.save_pretrained(folder)
    return fast


def write_model(folder: Path, family: str, **given: object) -> PreTrainedModel:
    """A model folder of a family; its embeddings have more rows than the tokenizer has ids, as those of Qwen do."""
    tokenizer = write_tokenizer(folder)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = FAMILIES[family](vocab_size=len(tokenizer) + 25, **{**ids, **given})
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():  # the usual start is so small that the layers would hardly be seen in the logits
        parameter.data.mul_(4) if parameter.ndim == 2 else parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


def change_json(path: Path, **changes: object) -> None:
    """Put other values into a JSON file; dots reach inside."""
    whole = json.loads(path.read_text())
    for key, value in changes.items():
        place = whole
        *outer, last = key.split("__")
        for name in outer:
            place = place[name]
        place[last] = value
    path.write_text(json.dumps(whole))
