"""Measurements of training: the losses compared are what they are called, minibatches lose nothing, and every way takes steps."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from scmulan import bench
from scmulan.automaton import legal_targets
from scmulan.bench_losses import LOSSES, chunked_softmax, legal_mask, peak_bytes, whole_softmax
from scmulan.bench_packing import fill_of
from scmulan.bench_sentences import Material, minibatches
from scmulan.bench_training import PARTS, measure_ways, take_turns, told
from scmulan.bench_ways import PackedWay, PlainWay, Switches, Timing, operations_needed
from scmulan.corpus.pack import Packing
from scmulan.corpus.shards import Corpus
from scmulan.errors import EngineError, PromptError
from scmulan.training.loss import HazardChunk
from scmulan.training.packed import PackInputs
from scmulan.training.sizing import preset_size
from scmulan.trials import legal_rows

PACKING = Packing(context=192, pack_tokens=512)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def material(trained) -> Material:
    return Material.of(Corpus(trained.corpus), PACKING)


@pytest.fixture(scope="module")
def inputs(material) -> PackInputs:
    return PackInputs.of(material.packs, 0, material.weights, material.writer.vocabulary)


@pytest.fixture(scope="module")
def tensors(inputs, material):
    """Hidden states and an output matrix, both with gradients to come."""
    torch.manual_seed(0)
    hidden = torch.randn(len(inputs.ids), 16)
    return hidden, torch.randn(material.writer.vocabulary.size, 16) * 0.3


def sentences_of(material) -> Counter[tuple[int, ...]]:
    packs = material.packs
    spans = [(place, *span) for place, b in enumerate(packs.bounds) for span in pairwise(b)]
    return Counter(tuple(packs.ids[place, first:last].tolist()) for place, first, last in spans)


@pytest.mark.parametrize("bucketed", [True, False])
def test_minibatches_hold_each_sentence_of_the_packs_once(material, bucketed):
    found = minibatches(material.packs, 512, pad=material.writer.vocabulary.pad, bucketed=bucketed)
    rows = [tuple(row[:length].tolist()) for each in found for row, length in zip(each.ids, each.lengths, strict=True)]
    assert Counter(rows) == sentences_of(material)
    assert all(each.ids.size <= 512 for each in found)
    padding = [row[length:] for each in found for row, length in zip(each.ids, each.lengths, strict=True)]
    assert (np.concatenate(padding) == material.writer.vocabulary.pad).all()


def test_buckets_waste_less_than_minibatches_as_drawn(material):
    def waste(bucketed: bool) -> int:
        return sum(each.ids.size - int(each.lengths.sum()) for each in minibatches(material.packs, 512, pad=0, bucketed=bucketed))

    assert waste(bucketed=True) < waste(bucketed=False)


def test_a_minibatch_as_a_pack_keeps_rows_apart_and_learns_no_padding(material):
    each = minibatches(material.packs, 512, pad=material.writer.vocabulary.pad, bucketed=False)[0]
    pack = each.as_pack()
    assert pack.bounds[0].tolist() == [row * each.ids.shape[1] for row in range(len(each.lengths) + 1)]
    assert not (pack.parts[0] > 0)[pack.ids[0] == material.writer.vocabulary.pad].any()


def test_the_mask_of_legal_ids_is_that_of_the_grammar(material, inputs):
    vocabulary = material.writer.vocabulary
    legal = legal_targets(inputs.ids, inputs.is_learnt, vocabulary)
    at = np.concatenate([legal.depth_at, legal.cell_at, legal.word_at])
    wanted, _ = legal_rows(inputs.ids, at, "levels", vocabulary)
    assert np.array_equal(legal_mask(legal, vocabulary, CPU).numpy(), wanted)


def test_the_softmax_over_legal_ids_costs_fewer_nats_than_that_over_all(material, inputs, tensors):
    legal, whole = (whole_softmax(*tensors, inputs, material.writer.vocabulary, legal=only)[0] for only in (True, False))
    assert 0 < legal < whole < torch.inf


def test_chunks_change_neither_the_softmax_nor_its_gradients(material, inputs, tensors, monkeypatch):
    monkeypatch.setattr("scmulan.bench_losses.ROWS", 37)
    found = []
    for loss_of in (chunked_softmax, partial(whole_softmax, legal=False)):
        hidden, output = (part.clone().requires_grad_() for part in tensors)
        loss, _ = loss_of(hidden, output, inputs, material.writer.vocabulary)
        loss.backward()
        found.append((loss.detach(), hidden.grad, output.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_peak_bytes_are_those_held_at_a_time():
    def call() -> None:
        first = torch.ones(1000, 1000)
        del first
        second = torch.ones(1000, 500)
        torch.ones(1000, 500).add_(second)

    assert 4_000_000 <= peak_bytes(call, CPU) < 4_100_000


def test_operations_are_six_for_each_parameter_and_id_where_attention_and_loss_are_none(material, inputs):
    size = preset_size("tiny", material.writer.vocabulary)
    matrices = 2 * (3 * 64 * 160 + 4 * 64 * 64)
    alone = PackInputs(inputs.ids, inputs.positions, list(range(len(inputs.ids) + 1)), *([None] * 3), chunks=[])  # type: ignore[misc]
    attention = 12 * 2 * 64 * len(inputs.ids)
    assert operations_needed(size, alone) == 6 * matrices * len(inputs.ids) + attention
    logits = sum(len(c.at) * ((c.last - c.first) if isinstance(c, HazardChunk) else sum(b - a for a, b in c.spans)) for c in inputs.chunks)
    with_loss = PackInputs(inputs.ids, inputs.positions, alone.bounds, *([None] * 3), chunks=inputs.chunks)  # type: ignore[misc]
    assert operations_needed(size, with_loss) - operations_needed(size, alone) == 6 * 64 * logits


SWITCHES = {
    "as shipped": Switches(compiled=False),
    "padded": Switches(compiled=False, sentences="drawn"),
    "together": Switches(compiled=False, isolated=False),
    "masked": Switches(compiled=False, attention="sdpa"),
    "whole": Switches(compiled=False, loss_of=partial(whole_softmax, legal=True)),
    "AdamW": Switches(compiled=False, matrix_lr=0.0),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_way_with_a_part_switched_off_still_learns_all_its_ids(material, name):
    way = PackedWay(material, "tiny", SWITCHES[name])
    before = way.packed.lm.get_output_embeddings().weight.detach().clone()
    timing = way.step() + way.step()
    assert timing.updates == 2
    assert 400 < timing.tokens <= 1024
    assert min(timing.prepare, timing.gradients, timing.update) > 0
    assert (way.packed.lm.get_output_embeddings().weight != before).any()


def test_sdpa_under_a_mask_is_the_packed_attention(material, inputs):
    """So what is compared is the time of one computation."""
    losses = []
    for switches in (Switches(compiled=False), Switches(compiled=False, attention="sdpa")):
        module = PackedWay(material, "tiny", switches).packed.eval()
        with torch.no_grad():
            losses.append(float(module(inputs)[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_plain_loop_learns_and_counts_no_padding(material):
    way = PlainWay(material, "tiny", compiled=False)
    tokens = [way.step().tokens for _ in range(4)]
    drawn = minibatches(material.packs, 512, pad=material.writer.vocabulary.pad, bucketed=True)
    assert tokens == [int(each.lengths.sum()) for each in drawn[:4]]


class Steady:
    """A way that takes known times."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def step(self) -> Timing:
        return Timing(100, 0.0, self.seconds, self.seconds, operations=1e9)


def test_speeds_are_told_as_ratios_within_a_turn():
    timings = take_turns({"first": Steady(0.5), "second": Steady(0.25)}, repetitions=3, steps=2, say=lambda line: None)
    found = told(timings["second"], timings["first"], peak_tflops=0.1)
    assert found["tokens_per_second"] == 200
    assert (found["ratio_to_first"], found["ratio_range"]) == (2, [2, 2])
    assert found["share_update"] == 0.5
    large = 1 / (0.25 / 100 + 0.25 / 65_536)
    assert found["tokens_per_second_large_step"] == pytest.approx(large, rel=1e-3)
    assert found["mfu_large_step"] == pytest.approx(1e7 * large / 1e11, rel=1e-2)


def test_the_fill_of_packs_is_told_beside_the_best_there_could_be():
    found = fill_of(np.array([60, 36, 22, 18]), 100)
    assert (found["packs"], found["fill"], found["fill_at_best"]) == (2, 0.68, 0.68)
    assert fill_of(np.array([60, 60, 60]), 100)["fill_at_best"] == 0.6


def test_an_unknown_way_or_preset_names_the_nearest():
    for options in ({"only": ["not compild"], "presets": ["tiny"]}, {"presets": ["dem"]}):
        with pytest.raises(PromptError, match=r"nearest: '(not compiled|demo)'"):
            measure_ways("parts", tokenizer=None, device="cpu", data=None, repetitions=1, **{"only": (), **options})


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_a_device_that_training_would_not_run_on_is_an_error():
    with pytest.raises(EngineError, match="--device cuda: training would run on cpu"):
        measure_ways("training", presets=["tiny"], tokenizer=None, device="cuda", data=None, repetitions=1)


@pytest.mark.slow
def test_the_commands_of_training_run_from_cells_to_figures():
    found = bench.run("parts", presets=["tiny"], n=1, only=["not compiled", "sdpa under a mask of the pack"], say=lambda line: None)
    assert set(found["tiny"]["ways"]) == {"not compiled", "sdpa under a mask of the pack"} < set(PARTS)
    losses = bench.run("losses", presets=["tiny"], n=1, say=lambda line: None)["tiny"]["of"]
    shipped, whole = (losses[name]["peak_mb"] for name in (next(iter(LOSSES)), "over all ids, logits whole"))
    assert 0 < shipped < whole
    trial = "AdamW, 0.004"
    found = bench.run("optimizers", n=2, only=[trial], say=lambda line: None)
    assert len(found["trials"][trial]["held_out_loss"]) == 1
