"""Models from presets, and model folders: what is saved loads as it was, and what is damaged is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GENES
from grammar import vocabulary_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scmulan.errors import CheckpointError, RecipeError
from scmulan.model import (
    CARD,
    PRESETS,
    Preset,
    load_checkpoint,
    model_folder,
    n_parameters,
    new_model,
    save_checkpoint,
    start_genes_by_detection,
)
from scmulan.tokenizer import LAYOUT_FILE, build_tokenizer, load_vocabulary, tokenizer_folder

IDS = torch.tensor([[1, 3, 40, 200, 7]])


@pytest.fixture(scope="module")
def model(language):
    return new_model("tiny", language.vocabulary, context=96, seed=3).eval()


@pytest.fixture(scope="module")
def saved(language, model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_checkpoint(folder, model, language.folder, {"labels": ["B cell é"], "steps": 7}, dtype=torch.float32)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_saved_model_loads_as_it_was(language, model, saved):
    checkpoint = load_checkpoint(saved)
    assert checkpoint.context == 96
    assert checkpoint.vocabulary == language.vocabulary
    assert not checkpoint.model.training
    assert (checkpoint.card["labels"], checkpoint.card["steps"]) == (["B cell é"], 7)
    for name, tensor in model.state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[name], tensor), name
    with torch.no_grad():
        assert torch.equal(checkpoint.model(IDS).logits, model(IDS).logits)
    assert checkpoint.tokenizer(" G1 G10")["input_ids"] == language.tokenizer(" G1 G10")["input_ids"]


def test_it_is_a_plain_hugging_face_folder(saved, model):
    plain = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    assert type(plain).__name__ == "Qwen3ForCausalLM"
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, model(IDS).logits)
    assert len(AutoTokenizer.from_pretrained(saved)) > len(GENES)


def test_weights_are_stored_in_bfloat16_and_come_back_within_its_rounding(language, model, tmp_path):
    save_checkpoint(tmp_path, model, language.folder, {})
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    loaded = load_checkpoint(tmp_path).model
    assert loaded.dtype == torch.float32
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16().float()), name
    assert model.dtype == torch.float32, "the model that was saved is left as it was"


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_matrix_is_stored_once_and_an_untied_one_in_its_own_right(language, tmp_path, tied):
    preset = Preset(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, head_dim=16, tied=tied)
    model = new_model(preset, language.vocabulary, context=64)
    save_checkpoint(tmp_path, model, language.folder, {}, dtype=torch.float32)
    stored = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not tied)
    assert sum(tensor.numel() for tensor in stored.values()) == n_parameters(model)
    loaded = load_checkpoint(tmp_path).model
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert (loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()) == tied


def test_a_folder_may_be_saved_into_again_with_its_own_tokenizer(copied, model):
    save_checkpoint(copied, model, copied, {"steps": 8}, dtype=torch.float32)
    assert load_checkpoint(copied).card["steps"] == 8


def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    v = vocabulary_of(30)
    first, again, other = (new_model("tiny", v, context=32, seed=seed).lm_head.weight for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "millions"), [("30m", 30), ("100m", 100), ("368m", 368), ("1b", 1000)])
def test_a_preset_has_the_size_it_is_named_for_under_the_default_tokenizer(name, millions):
    with torch.device("meta"):
        model = new_model(name, load_vocabulary(tokenizer_folder("default")), context=1024)
    assert n_parameters(model) == pytest.approx(millions * 1e6, rel=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_the_matrices_of_a_preset_can_be_quantised_in_four_bits(name):
    """bitsandbytes wants output widths that divide by 32; GPUs want whole tiles."""
    with torch.device("meta"):
        model = new_model(name, vocabulary_of(300), context=1024)
    layers = {key: tensor for key, tensor in model.named_parameters() if "layers." in key and tensor.ndim == 2}
    assert layers
    assert all(size % (32 if name in ("tiny", "small", "demo") else 64) == 0 for tensor in layers.values() for size in tensor.shape)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_model_larger_than_the_one_before(name):
    sizes = []
    for each in list(PRESETS)[: list(PRESETS).index(name) + 1]:
        with torch.device("meta"):
            sizes.append(n_parameters(new_model(each, vocabulary_of(40_000), context=1024)))
    assert sizes == sorted(sizes)


def test_an_unknown_preset_is_an_error_that_names_the_nearest():
    with pytest.raises(RecipeError, match=r"model\.preset 'tinny': needed one of tiny, small, demo.*nearest: 'tiny'"):
        new_model("tinny", vocabulary_of(5), context=32)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such model folder"):
        model_folder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json; needed a model folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", CARD, "tokenizer.json", LAYOUT_FILE])
def test_a_missing_file_is_an_error_that_names_it(copied, name):
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}"):
        load_checkpoint(copied)


@pytest.mark.parametrize("name", ["config.json", CARD, "tokenizer.json", LAYOUT_FILE])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[]"])
def test_a_file_that_is_not_what_it_should_be_is_an_error(copied, name, content):
    (copied / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=str(copied)):
        load_checkpoint(copied)


@pytest.mark.parametrize("place", [20, -20])
def test_a_flipped_bit_in_the_weights_is_found(copied, place):
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[place] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its sha256 is not the one in scmulan\.json"):
        load_checkpoint(copied)


def test_cut_weights_are_an_error_even_when_hashes_are_not_compared(copied):
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="the weights can't be loaded"):
        load_checkpoint(copied, check_hash=False)


def test_layers_that_the_weights_lack_are_not_filled_with_random_numbers(copied):
    config = json.loads((copied / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json and model\.safetensors do not agree on 'model\.layers\.2"):
        load_checkpoint(copied)


def test_another_tokenizer_is_refused(language, copied, tmp_path):
    other = tmp_path / "other"
    build_tokenizer(other, genes=[*GENES[1:], GENES[0]], texts=["blood"], fields=["organ"], tasks=["annotate"])
    for name in ("tokenizer.json", LAYOUT_FILE):
        shutil.copyfile(other / name, copied / name)
    with pytest.raises(CheckpointError, match="the tokenizer is not the one this model was trained with"):
        load_checkpoint(copied)


def test_genes_that_are_near_in_cumulative_detection_begin_alike_and_far_ones_do_not(language):
    model = new_model("tiny", language.vocabulary, context=128)
    start_genes_by_detection(model, language.vocabulary, np.full(len(GENES), 0.5))
    weight = model.get_input_embeddings().weight.detach()[language.vocabulary.first_gene : language.vocabulary.last_gene]
    likeness = torch.nn.functional.normalize(weight, dim=1) @ torch.nn.functional.normalize(weight, dim=1).T
    next_gene, far = likeness.diagonal(1).mean(), likeness.diagonal(len(GENES) // 2).mean()
    assert next_gene > far + 0.2
