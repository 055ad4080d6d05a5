"""What a run costs by arithmetic is what is counted and measured when a small one is made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_counts
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from scmulan import csentence
from scmulan.corpus.pack import Packing, counts_of, epoch_packs
from scmulan.corpus.sentences import mean_keys
from scmulan.corpus.shards import CellRows
from scmulan.errors import RecipeError
from scmulan.model import PRESETS, n_parameters, new_model
from scmulan.tokenizer import load_vocabulary, tokenizer_folder
from scmulan.training import attention, sizing
from scmulan.training.hardware import DEVICES, device_of
from scmulan.training.optimizers import make_optimizers
from scmulan.training.packed import PackedLM, shipped_loss
from scmulan.training.planning import _logits
from scmulan.training.recipe import OptimizerRecipe, Recipe

CONTEXT, PACK = 256, 1024


@pytest.fixture(scope="module")
def packs(language):
    n_cells = 40
    rows = CellRows(
        ids=csentence.encode(random_counts(n_cells, seed=2, mean_genes=90), language.vocabulary),
        fields={"organ": ["blood"] * n_cells}, cell_ids=[str(row) for row in range(n_cells)], datasets=["a"] * n_cells,
        donors=[None] * n_cells, splits=["train"] * n_cells, weights=np.ones(n_cells, np.float32),
        fingerprints=np.zeros(n_cells, np.uint64),
    )  # fmt: skip
    packing = Packing(context=CONTEXT, pack_tokens=PACK)
    return epoch_packs(rows, counts_of(rows.ids, language.writer), language.writer, packing, seed=0, epoch=0)


def packed(language, preset, *, is_checkpointed=False) -> PackedLM:
    attention.register()
    lm = new_model(preset, language.vocabulary, context=CONTEXT)
    lm.set_attn_implementation(attention.PACKED)
    if is_checkpointed:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return PackedLM(lm.train(), language.vocabulary)


# -- parameters ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_model_never_made_has_the_parameters_of_one_that_is(language, name):
    size, made = sizing.preset_size(name, language.vocabulary), new_model(name, language.vocabulary, context=64)
    assert size.total == n_parameters(made)
    assert size.embeddings == made.get_input_embeddings().weight.numel()
    assert sizing.config_size(made.config) == size


def test_two_embedding_matrices_are_counted_twice(language):
    size = sizing.preset_size(replace(PRESETS["tiny"], tied=False), language.vocabulary)
    assert size.embeddings == 2 * size.vocabulary * size.hidden


def test_the_billion_is_sized_without_its_memory():
    assert sizing.preset_sizes(load_vocabulary(tokenizer_folder("default")))["1b"].total == 1_030_044_160


# -- operations ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_the_operations_of_the_layers_are_those_that_torch_counts(language, preset):
    n_tokens = 48
    lm = new_model(preset, language.vocabulary, context=64)
    lm.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        lm.model(input_ids=torch.arange(10, 10 + n_tokens)[None], use_cache=False).last_hidden_state.sum().backward()
    # eager attention multiplies the masked half too, so that each token has n_tokens keys
    needed = sizing.operations(sizing.size_of(lm), keys=n_tokens, columns=0)
    assert counter.get_total_flops() == pytest.approx(needed.needed * n_tokens, rel=0.002)


def test_the_operations_of_the_loss_are_those_that_torch_counts(language, packs):
    module = packed(language, "tiny")
    inputs = module.prepare(packs, 0, np.ones(len(language.prompts.parts), np.float32))
    output = module.lm.get_output_embeddings().weight
    hidden = torch.randn(PACK, output.shape[1], requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        shipped_loss(hidden, output, inputs, language.vocabulary)
    columns = sum(_logits(chunk) for chunk in inputs.chunks) / PACK
    assert counter.get_total_flops() == pytest.approx(sizing.operations(sizing.size_of(module.lm), keys=1, columns=columns).loss * PACK)
    assert columns < language.vocabulary.size


def test_a_token_sees_the_ids_of_its_own_sentence_before_it():
    assert mean_keys(np.array([4])) == 2.5
    assert mean_keys(np.array([4, 4, 4])) == 2.5
    assert mean_keys(np.array([1, 3])) == (1 + 6) / 4


def test_hours_fall_with_devices_and_with_the_share_of_the_peak():
    one = sizing.hours(3.6e18, peak_tflops=1000, mfu=0.5)
    assert one == pytest.approx(2.0)
    assert sizing.hours(3.6e18, peak_tflops=1000, mfu=0.25, devices=8) == pytest.approx(one / 4)


# -- memory --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("preset", ["small", replace(PRESETS["100m"], layers=3)], ids=["grouped heads", "whole heads"])
def test_activations_are_those_that_autograd_keeps(language, packs, preset, precision, is_checkpointed):
    module = packed(language, preset, is_checkpointed=is_checkpointed)
    kept, held = {}, []
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    inputs = module.prepare(packs, 0, np.ones(len(language.prompts.parts), np.float32))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", enabled=precision == "bf16"):
        module.lm.model(
            input_ids=torch.from_numpy(inputs.ids)[None], position_ids=torch.from_numpy(inputs.positions)[None],
            bounds=torch.tensor(inputs.bounds, dtype=torch.int32), use_cache=False,
        )  # fmt: skip
    size = sizing.size_of(module.lm)
    expected = sizing.activation_bytes(size, PACK, precision=precision, is_checkpointed=is_checkpointed)
    if is_checkpointed:  # the layer that is made again comes later
        one = sizing.activation_bytes(replace(size, layers=1), PACK, precision=precision)
        expected -= one - sizing.activation_bytes(replace(size, layers=0), PACK, precision=precision)
        expected -= 8 * size.head_dim * PACK  # cosines and sines are held for the layers, but not by autograd
    elif precision == "bf16":
        expected += 2 * size.matrices
    assert sum(kept.values()) == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "matrix_lr"), [("no", 0.0), ("bf16", 0.01)])
def test_the_height_of_a_step_is_that_of_the_profiler(language, packs, precision, matrix_lr):
    module, weights = packed(language, "small"), np.ones(len(language.prompts.parts), np.float32)
    optimizers = make_optimizers(module, Recipe(corpus="x", optimizer=OptimizerRecipe(matrix_lr=matrix_lr)))

    def step() -> None:
        for place in (0, 1):
            with torch.autocast("cpu", enabled=precision == "bf16"):
                loss, _ = module(module.prepare(packs, place, weights))
            loss.backward()
            del loss
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    grown = max(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]))
    states = [tensor for optimizer in optimizers for state in optimizer.state.values() for tensor in state.values()]
    before = sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *states])
    chunk = max(_logits(one) for place in (0, 1) for one in module.prepare(packs, place, weights).chunks)
    expected = sizing.memory(sizing.size_of(module.lm), PACK, chunk=chunk, precision=precision, has_muon=matrix_lr > 0)
    assert before + grown == pytest.approx(expected.total, rel=0.1)


def test_fsdp2_shares_what_ddp_has_whole_on_each(language):
    size = sizing.preset_size("100m", language.vocabulary)
    settings = {"chunk": 1000, "precision": "bf16", "has_muon": False, "on_gpu": True}
    one, ddp = sizing.memory(size, 4096, **settings), sizing.memory(size, 4096, **settings, devices=8)
    fsdp = sizing.memory(size, 4096, **settings, devices=8, shards=True)
    assert (ddp.weights, ddp.optimizer) == (one.weights, one.optimizer)
    assert ddp.gradients == 2 * one.gradients
    assert (fsdp.weights, fsdp.gradients, fsdp.optimizer) == tuple(part // 8 for part in (one.weights, one.gradients, one.optimizer))
    assert fsdp.activations == one.activations
    whole = sizing.memory(size, 4096, **settings, devices=8, shards=True, accumulates=True)
    assert whole.gradients == fsdp.gradients + 4 * size.total


def test_muon_keeps_one_moment_of_a_matrix_and_adamw_two(language):
    size = sizing.preset_size("30m", language.vocabulary)
    assert sizing.optimizer_bytes(size, has_muon=False) == 8 * size.total
    assert sizing.optimizer_bytes(size, has_muon=True) == 8 * size.total - 4 * size.matrices


def test_a_checkpoint_on_disk_is_as_large_as_was_said(trained, language):
    run = trained.folder.parent
    found = sum(path.stat().st_size for path in run.rglob("*.pt")) + (trained.folder / "model.safetensors").stat().st_size
    n_checkpoints = len(list((run / "checkpoints").glob("step-*")))
    size = sizing.preset_size("tiny", load_vocabulary(trained.tokenizer))
    assert found == pytest.approx(sizing.checkpoint_bytes(size, has_muon=True, keep=n_checkpoints - 1), rel=0.1)


# -- what a corpus can feed -------------------------------------------------------------------------------------------------------------


def test_repeats_are_worth_less_and_less():
    assert sizing.effective_tokens(100, 0.5) == 50
    assert sizing.effective_tokens(100, 1) == 100
    assert sizing.effective_tokens(100, 4) == pytest.approx(372.6, abs=0.1)
    assert sizing.effective_tokens(100, 1e6) == pytest.approx(100 * (1 + sizing.REPEATS_DECAY))


def test_the_preset_nearest_by_ratio_is_named(language):
    sizes = sizing.preset_sizes(load_vocabulary(tokenizer_folder("default")))
    assert sizing.optimal_parameters(2e9) == 1e8
    assert [sizing.nearest_preset(number, sizes) for number in (0, 1e8, 2e8, 1e12)] == ["tiny", "100m", "368m", "1b"]


# -- devices -----------------------------------------------------------------------------------------------------------------------------


def test_a_device_is_known_by_name_by_its_peak_or_as_this_machine():
    assert device_of("H100") == DEVICES["h100"]
    assert device_of("151.5").peak_tflops == 151.5
    assert device_of("cpu").peak_tflops > 0
    assert all(device.source for device in DEVICES.values())


@pytest.mark.parametrize("name", ["h10", "-3", "nan", "inf", ""])
def test_an_unknown_device_is_an_error_that_says_what_is_known(name):
    with pytest.raises(RecipeError, match=r"--gpu .*needed"):
        device_of(name)
