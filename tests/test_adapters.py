"""Adapters: attached they change nothing, saved they come back, merged they answer the same, on another base they are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scmulan.adapters import AdapterRecipe, attach, linear_layers, output_matrix, trainable_state
from scmulan.adapters_folder import CONFIG, WEIGHTS, adapters_in, base_of, joined_labels, merge, open_adapter, save_adapter
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import CheckpointError, PromptError, RecipeError
from scmulan.model import CARD, load_checkpoint, save_checkpoint
from scmulan.tasks import Model
from scmulan.training.packed import PackedLM
from scmulan.training.recipe import Recipe, fill

LABELS = [{"organism": "Homo sapiens", "organ": "kidney", "cell_type": "podocyte", "cells": 20}]
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_adapter(base: Path, folder: Path, *, seed: int = 0, **recipe: object) -> Path:
    """An adapter whose matrices were drawn, not trained, so that it says something."""
    opened = load_checkpoint(base)
    adapted = attach(opened.model, AdapterRecipe(rank=4, **recipe))
    draw = torch.Generator().manual_seed(seed)
    for parameter in (p for p in opened.model.parameters() if p.requires_grad):
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
    return save_adapter(folder, adapted, base_of(opened.card, base), {"labels": LABELS, "sources": [], "steps": 3, "tokens": 30})


@pytest.fixture(scope="module")
def adapter(trained, tmp_path_factory) -> Path:
    return write_adapter(trained.folder, tmp_path_factory.mktemp("adapters") / "kidney.1")


@pytest.fixture(scope="module")
def other(trained, tmp_path_factory) -> Path:
    return write_adapter(trained.folder, tmp_path_factory.mktemp("adapters") / "skin", seed=1, targets=["q_proj", "v_proj"])


@pytest.fixture
def fresh(trained) -> Model:
    """The tiny model, opened for one test, in float32."""
    checkpoint = load_checkpoint(trained.folder)
    return Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))


def logits(lm: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return lm.eval()(torch.arange(5, 45)[None]).logits


def said(model: Model, cells) -> np.ndarray:
    return model.embed(cells.copy())


def test_a_new_adapter_changes_no_logit_and_is_all_that_is_trained(trained):
    lm = load_checkpoint(trained.folder).model
    before = logits(lm)
    attach(lm, AdapterRecipe())
    assert torch.equal(logits(lm), before)
    state = trainable_state(lm)
    assert state
    assert all("lora_" in name for name in state)


def test_all_linear_layers_and_the_output_matrix_have_an_adapter_and_the_embeddings_have_none(trained, adapter):
    assert sorted(json.loads((adapter / CONFIG).read_text())["target_modules"]) == sorted([*SEVEN, "lm_head"])
    names = list(load_file(adapter / WEIGHTS))
    assert len(names) == 2 * (len(linear_layers(load_checkpoint(trained.folder).model)) + 1)
    assert not [name for name in names if "embed" in name]


def test_training_and_engine_use_the_output_matrix_that_the_adapter_makes(trained, adapter, fresh):
    plain = fresh.engine.output_VD.clone()
    fresh.add_adapter(adapter, "kidney")
    states = torch.randn(5, plain.shape[1], generator=torch.Generator().manual_seed(0))
    whole = fresh.engine.lm.lm_head(states)  # as PEFT itself multiplies
    torch.testing.assert_close(states @ fresh.engine.output_VD.T, whole, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(whole, states @ plain.T, atol=1e-2)
    assert fresh.engine.output_from(3).shape[0] == len(plain) - 3
    torch.testing.assert_close(fresh.engine.output_from(3)[-1], fresh.engine.output_VD[-1])
    fresh.use(None)
    assert torch.equal(fresh.engine.output_VD, plain)


def test_what_is_trained_beside_the_output_matrix_has_a_gradient(trained):
    lm = load_checkpoint(trained.folder).model
    attach(lm, AdapterRecipe(dropout=0.0))
    output_matrix(lm).square().sum().backward()
    assert lm.lm_head.lora_B["default"].weight.grad.abs().sum() > 0
    assert lm.model.embed_tokens.weight.grad is None


def test_a_merged_model_has_its_own_output_matrix_and_the_embeddings_of_the_base(trained, adapter, tmp_path):
    base = load_checkpoint(trained.folder).model
    merged = load_checkpoint(merge(trained.folder, adapter, tmp_path / "merged")).model
    torch.testing.assert_close(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert not torch.allclose(merged.get_output_embeddings().weight, base.get_output_embeddings().weight, atol=1e-2)


def test_the_folder_is_one_that_peft_itself_opens(trained, adapter, fresh):
    from peft import PeftModel

    fresh.add_adapter(adapter, "kidney")
    ours = logits(fresh.engine.lm)
    theirs = logits(PeftModel.from_pretrained(load_checkpoint(trained.folder).model, str(adapter)).base_model.model)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_the_card_says_the_base_and_no_folder_of_this_machine(trained, adapter):
    opened = open_adapter(adapter)
    assert opened.base["weights_sha256"] == load_checkpoint(trained.folder).card["weights_sha256"]
    assert opened.labels("cell_type") == ["podocyte"]
    for name in (CARD, CONFIG):
        assert str(trained.folder.parent) not in (adapter / name).read_text()


def test_a_merged_model_answers_as_the_adapter_does(trained, adapter, fresh, tmp_path):
    merged = merge(trained.folder, adapter, tmp_path / "merged")
    fresh.add_adapter(adapter)
    torch.testing.assert_close(logits(load_checkpoint(merged).model), logits(fresh.engine.lm), atol=1e-3, rtol=0)
    card = load_checkpoint(merged).card
    assert LABELS[0] in card["labels"]
    assert card["merged_adapter"]["weights_sha256"] == open_adapter(adapter).sha256
    with pytest.raises(CheckpointError, match="there already"):
        merge(trained.folder, adapter, merged)


def test_several_adapters_in_one_process_do_not_mix(adapter, other, trained, new_cells):
    alone = {}
    for name, folder in (("kidney", adapter), ("skin", other)):
        checkpoint = load_checkpoint(trained.folder)
        one = Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))
        alone[None] = said(one, new_cells)
        one.add_adapter(folder, name)
        alone[name] = said(one, new_cells)
    checkpoint = load_checkpoint(trained.folder)
    both = Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))
    both.add_adapter(adapter, "kidney")
    both.add_adapter(other, "skin")
    for name in ("skin", None, "kidney", "skin", "kidney", None):
        assert both.use(name).adapter == name
        np.testing.assert_array_equal(said(both, new_cells), alone[name])
    assert not np.allclose(alone["kidney"], alone["skin"], atol=1e-3)
    assert not np.allclose(alone["kidney"], alone[None], atol=1e-3)


def test_a_cell_generated_with_an_adapter_is_legal_and_another_one(fresh, adapter):
    before = fresh.generate(n=4, seed=3).layers["counts"].toarray()
    fresh.add_adapter(adapter)
    after = fresh.generate(n=4, seed=3).layers["counts"].toarray()
    assert before.shape != after.shape or (before != after).any()


def test_scores_through_the_cache_are_those_of_whole_sentences_with_an_adapter_too(fresh, adapter, new_cells):
    fresh.add_adapter(adapter)
    cells = fresh.read(new_cells, reserve=64).ids
    prompts = [fresh.writer.prompt("annotate", {}, cell=cells[row]) for row in range(3)]
    answers = [fresh.writer.answer({"cell_type": name}, ["cell_type"]) for name in ("B cell", "natural killer cell")]
    hidden = fresh.engine.hidden(prompts)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            plain = fresh.engine.body(input_ids=torch.from_numpy(prompt)[None], use_cache=False).last_hidden_state[0, -1]
        np.testing.assert_allclose(hidden[row], plain.numpy(), atol=1e-4)
    assert np.isfinite(fresh.engine.score(prompts, answers)).all()


def test_labels_of_the_adapter_are_seen_while_it_is_in_use_alone(fresh, adapter):
    fresh.add_adapter(adapter)
    assert fresh.adapter == "kidney.1"
    assert "podocyte" in fresh.seen.values("cell_type")
    assert "B cell" in fresh.seen.values("cell_type")
    fresh.use(None)
    assert "podocyte" not in fresh.seen.values("cell_type")


def test_a_result_says_which_adapter_made_it(fresh, adapter, new_cells):
    fresh.add_adapter(adapter, "kidney")
    fresh.embed(new_cells)
    assert new_cells.uns["scmulan"]["adapter"] == "kidney"
    assert new_cells.uns["scmulan"]["adapter_sha256"] == open_adapter(adapter).sha256
    fresh.use(None).embed(new_cells)
    assert new_cells.uns["scmulan"]["adapter"] == "none"


def test_an_adapter_is_refused_on_another_base(adapter, trained, tmp_path):
    checkpoint = load_checkpoint(trained.folder)
    with torch.no_grad():
        next(checkpoint.model.parameters()).mul_(1.01)
    save_checkpoint(tmp_path / "changed", checkpoint.model, trained.folder, checkpoint.card)
    opened = load_checkpoint(tmp_path / "changed")
    with pytest.raises(CheckpointError, match=r"trained on another model: on model of weights .* and changed has weights"):
        Model(opened, TransformersEngine(opened)).add_adapter(adapter)
    with pytest.raises(CheckpointError, match="trained on another model"):
        merge(tmp_path / "changed", adapter, tmp_path / "merged")


def test_an_adapter_of_another_tokenizer_is_refused_and_says_so(fresh, adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    change_card(copy, base={**open_adapter(adapter).base, "tokenizer_sha256": "0" * 64})
    with pytest.raises(CheckpointError, match="of tokenizer 000000000000"):
        fresh.add_adapter(copy)


def change_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD).read_text()) | changes
    (folder / CARD).write_text(json.dumps(card))


def test_a_name_is_given_once(fresh, adapter, other):
    fresh.add_adapter(adapter, "one")
    with pytest.raises(CheckpointError, match="there is an adapter 'one' already"):
        fresh.add_adapter(other, "one")
    assert fresh.adapter == "one"
    with pytest.raises(PromptError, match=r"adapter 'on': loaded: one; nearest: 'one'"):
        fresh.use("on")


def damage_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4] + b"gone")


def name_another_layer(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "target_modules": ["c_attn"]}))


def add_an_embedding(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "modules_to_save": ["embed_tokens"]}))


def ask_for_fewer_layers(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "target_modules": ["q_proj"]}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_weights, "its sha256 is not the one in scmulan.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "no adapter_model.safetensors; needed an adapter folder"),
        (lambda folder: (folder / CARD).write_text("{"), "not JSON"),
        (lambda folder: (folder / CARD).write_text("{}"), "says nothing of 'base', 'labels', 'weights_sha256'"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "found list, needed a mapping"),
        (name_another_layer, "the model has no linear layer 'c_attn'; it has q_proj"),
        (add_an_embedding, "without modules_to_save"),
        (ask_for_fewer_layers, "do not agree on"),
        (shutil.rmtree, "no such adapter folder"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(fresh, adapter, tmp_path, damage, words):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    damage(copy)
    with pytest.raises(CheckpointError, match=words):
        fresh.add_adapter(copy)


def test_a_whole_model_is_no_adapter(fresh, trained):
    with pytest.raises(CheckpointError, match="a whole model, no adapter"):
        fresh.add_adapter(trained.folder)


def test_adapters_in_a_folder_are_found_by_name(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "b")
    shutil.copytree(adapter, tmp_path / "a" / "adapter")
    assert [found.folder for found in adapters_in(tmp_path)] == [tmp_path / "a" / "adapter", tmp_path / "b"]
    assert [found.folder for found in adapters_in(adapter)] == [adapter]


def test_cells_of_equal_fields_are_added_up():
    one, two = {"organ": "skin", "cells": 2}, {"organ": "skin", "cells": 3}
    assert joined_labels([one], [two, {"cells": 1}]) == [{"organ": "skin", "cells": 5}, {"cells": 1}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "adapter.rank is 0"),
        ({"alpha": 0.0}, "adapter.alpha is 0"),
        ({"dropout": 1.0}, "adapter.dropout 1"),
        ({"bits": 3}, "adapter.bits 3: needed 4, 8 or nothing"),
        ({"targets": "q_proj"}, "adapter.targets is 'q_proj'"),
        ({"targets": []}, "adapter.targets is "),
        ({"rnak": 8}, "unknown key 'rnak'; nearest: 'rank'"),
    ],
)
def test_an_impossible_recipe_is_refused(change, words):
    given = {"corpus": "c", "model": {"start": "demo"}, "adapter": change}
    with pytest.raises(RecipeError, match=words):
        fill(Recipe, given, "test")


def test_a_recipe_of_an_adapter_needs_a_model_to_stand_on():
    with pytest.raises(RecipeError, match=r"adapter: needed a model that it stands on; give its folder as model\.start"):
        fill(Recipe, {"corpus": "c", "adapter": {}}, "test")
    assert fill(Recipe, {"corpus": "c", "adapter": None}, "test").adapter is None


def test_an_unknown_target_names_the_layers_there_are(trained):
    with pytest.raises(RecipeError, match=r"no linear layer 'qproj'; nearest: 'q_proj'.*it has q_proj, k_proj"):
        attach(load_checkpoint(trained.folder).model, AdapterRecipe(targets=["qproj"]))


# -- QLoRA ----------------------------------------------------------------------------------------------------------------


def first_pack(trained, language_of):
    """One pack of the training corpus, as the loop would make it."""
    from scmulan.corpus.pack import Packing, epoch_packs
    from scmulan.corpus.shards import Corpus
    from scmulan.training.held_out import Data

    data = Data.open(Corpus(trained.corpus), "train", language_of)
    return epoch_packs(data.rows, data.counts, language_of, Packing(context=192, pack_tokens=1024), seed=0, epoch=0)


def tensors_without_gradient(trained, bits: int | None, *, evaluate: bool) -> list[str]:
    """LoRA tensors that a step leaves without a gradient, after an evaluation step or without one."""
    from scmulan.prompts import SentenceWriter, load_prompts
    from scmulan.training import attention

    checkpoint = load_checkpoint(trained.folder)
    lm = checkpoint.model
    attach(lm, AdapterRecipe(bits=bits, dropout=0.0))
    for name, parameter in lm.named_parameters():  # B starts at 0, which leaves A without a gradient in the first step
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    attention.register()
    lm.set_attn_implementation(attention.PACKED)
    writer = SentenceWriter(checkpoint.tokenizer, checkpoint.vocabulary, load_prompts())
    packed = PackedLM(lm, checkpoint.vocabulary)
    inputs = packed.prepare(first_pack(trained, writer), 0, np.ones(len(writer.prompts.parts), np.float32))
    with torch.autocast("cpu", torch.bfloat16):
        if evaluate:
            packed.eval()
            with torch.no_grad():
                packed(inputs)
        packed.train()
        packed(inputs)[0].backward()
    lora = {name: p.grad for name, p in lm.named_parameters() if "lora_" in name}
    assert len(lora) == 2 * (len(SEVEN) * lm.config.num_hidden_layers + 1)
    return [name for name, grad in lora.items() if grad is None or not bool(grad.abs().sum() > 0)]


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_every_lora_tensor_has_a_gradient_after_an_evaluation_step(trained, bits):
    """bitsandbytes repacks 4-bit weights in the first forward of eval mode, on processors with AVX512-BF16: gradients stop, unsaid."""
    assert tensors_without_gradient(trained, bits, evaluate=False) == []
    assert tensors_without_gradient(trained, bits, evaluate=True) == []


@pytest.mark.parametrize(("bits", "most"), [(4, 0.6), (8, 0.06)])
def test_layers_held_in_few_bits_take_less_room_and_say_nearly_the_same(trained, bits, most):
    lm = load_checkpoint(trained.folder).model
    before, room = logits(lm), sum(layer.weight.nbytes for layer in linear_layers(lm).values())
    attach(lm, AdapterRecipe(bits=bits))
    held = [module.base_layer.weight for name, module in lm.named_modules() if hasattr(module, "base_layer") and "model." in name]
    assert sum(weight.nbytes for weight in held) <= room * bits / 32 + 1
    assert float((logits(lm) - before).norm() / before.norm()) < most


def test_repacking_for_inference_is_off_on_every_4_bit_layer(trained):
    lm = load_checkpoint(trained.folder).model
    attach(lm, AdapterRecipe(bits=4))
    four = [module for module in lm.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    assert len(four) == len(SEVEN) * lm.config.num_hidden_layers
    assert not any(module.support_avx512bf16_for_cpu for module in four)


def test_a_width_that_bitsandbytes_can_not_take_is_refused(trained):
    lm = load_checkpoint(trained.folder).model
    layer = lm.model.layers[0].mlp
    layer.up_proj = torch.nn.Linear(64, 40, bias=False)
    with pytest.raises(RecipeError, match=r"adapter\.bits 4: model\.layers\.0\.mlp\.up_proj is 40 wide; needed a multiple of 32"):
        attach(lm, AdapterRecipe(bits=4))
