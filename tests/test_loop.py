"""The training loop: it learns, it repeats itself exactly, it goes on where it stood, and it stops where it must."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_recipe

from scmulan.corpus.shards import MANIFEST
from scmulan.errors import CheckpointError, CorpusError, EngineError
from scmulan.model import load_checkpoint
from scmulan.tokenizer import tokenizer_hash
from scmulan.training import loop
from scmulan.training.checkpoints import STATE
from scmulan.training.curve import curve_lines
from scmulan.training.loop import pretrain
from scmulan.training.optimizers import MuonFloat32, learning_rate_share, make_optimizers
from scmulan.training.packed import PackedLM
from scmulan.training.recipe import Recipe, fill
from scmulan.training.seen import seen_labels

GOLDEN = Path(__file__).parent / "golden" / "loss_curve.json"


def train(output: Path, corpus: Path, said: list[str] | None = None, stop_after: int | None = None, **changes: object) -> Path:
    recipe = fill(Recipe, tiny_recipe(output, **changes), "test")
    return pretrain(recipe, corpus, say=(said if said is not None else []).append, log_with=None, stop_after=stop_after)


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in curve_lines(output / "curve.jsonl")]


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory) -> Path:
    """An uninterrupted run of twelve steps."""
    output = tmp_path_factory.mktemp("whole")
    train(output, trained.corpus)
    return output


@pytest.fixture
def half(trained, tmp_path) -> Path:
    """A run stopped after seven of twelve steps, its last checkpoints those of steps 5 and 7."""
    train(tmp_path / "half", trained.corpus, stop_after=7)
    return tmp_path / "half"


def test_the_loss_falls(whole):
    found = losses(whole)
    assert len(found) == 12
    assert np.mean(found[-3:]) < 0.75 * np.mean(found[1:4])


def test_the_curve_is_the_golden_one(whole):
    """A change of the model, the loss, the packing or the optimizer shows here. To make it again, delete the file and run this."""
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps([round(loss, 4) for loss in losses(whole)[:10]]) + "\n")
        pytest.fail(f"{GOLDEN.name} was not there; it is now: look at it and commit it")
    np.testing.assert_allclose(losses(whole)[:10], json.loads(GOLDEN.read_text()), rtol=0.02)


def test_a_stopped_run_goes_on_to_exactly_the_same_curve_and_weights(half, whole, trained):
    said: list[str] = []
    model = train(half, trained.corpus, said)
    assert "goes on from step 7" in said
    assert losses(half) == losses(whole)
    wanted = load_checkpoint(whole / "model").model.state_dict()
    for name, tensor in load_checkpoint(model).model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_run_with_dropout_goes_on_to_exactly_the_same_curve(whole, trained, tmp_path):
    changes = {"model": {**tiny_recipe(tmp_path)["model"], "dropout": 0.2}, "steps": 5}
    train(tmp_path / "whole", trained.corpus, **changes)
    train(tmp_path / "half", trained.corpus, stop_after=3, **changes)
    train(tmp_path / "half", trained.corpus, **changes)
    assert losses(tmp_path / "half") == losses(tmp_path / "whole")
    assert losses(tmp_path / "whole") != losses(whole)[:5]


def test_steps_done_after_the_last_checkpoint_are_done_again_not_counted_twice(half, whole, trained):
    shutil.rmtree(half / "checkpoints" / "step-0000007")
    with open(half / "curve.jsonl", "a") as file:
        file.write('{"step": 8, "lo')  # a kill in the middle of a line
    train(half, trained.corpus)
    assert [line["step"] for line in curve_lines(half / "curve.jsonl")] == list(range(1, 13))
    assert losses(half) == losses(whole)


def test_a_damaged_newest_checkpoint_is_passed_over_and_said(half, whole, trained):
    (half / "checkpoints" / "step-0000007" / STATE).write_bytes(b"damaged")
    said: list[str] = []
    train(half, trained.corpus, said)
    assert any("left aside a broken checkpoint" in line and "step-0000007" in line for line in said)
    assert "goes on from step 5" in said
    assert losses(half) == losses(whole)


def test_no_whole_checkpoint_is_an_error_not_a_new_beginning(half, trained):
    for path in (half / "checkpoints").glob("step-*"):
        (path / STATE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole.*delete them to begin again"):
        train(half, trained.corpus)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"steps": 13}, {"loss": {"fields": 2.0}}, {"packing": {"context": 160, "pack_tokens": 640}}]
)
def test_another_recipe_in_the_same_folder_is_refused(half, trained, change):
    with pytest.raises(EngineError, match="its checkpoints are of another recipe or corpus; give another output folder"):
        train(half, trained.corpus, **change)


def test_another_corpus_in_the_same_folder_is_refused(half, trained, tmp_path):
    other = shutil.copytree(trained.corpus, tmp_path / "other")
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["shards"] = manifest["shards"][:1]
    (other / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="another recipe or corpus"):
        train(half, other)


@pytest.mark.parametrize("change", [{"checkpoint_every": 6}, {"keep": 5}, {"evaluate_every": 500}])
def test_how_often_it_is_saved_or_measured_may_change(half, whole, trained, change):
    train(half, trained.corpus, **change)
    assert losses(half) == losses(whole)


def test_a_run_that_is_done_is_not_trained_further(whole, trained):
    before = (whole / "curve.jsonl").read_text()
    train(whole, trained.corpus)
    assert (whole / "curve.jsonl").read_text() == before


def test_a_seed_decides_the_curve(whole, trained, tmp_path):
    train(tmp_path / "again", trained.corpus, stop_after=3)
    assert losses(tmp_path / "again") == losses(whole)[:3]
    train(tmp_path / "other", trained.corpus, stop_after=3, seed=1)
    assert losses(tmp_path / "other") != losses(whole)[:3]


def test_data_order_is_a_function_of_the_seed_alone(trained):
    """The packs of any epoch are the same however the stream reached them."""

    def run(seed: int) -> loop.Run:
        recipe = fill(Recipe, tiny_recipe(trained.folder.parent.parent / f"order{seed}", seed=seed), "test")
        return loop.Run(recipe, trained.corpus, say=lambda _: None, log_with=None)

    first, again, other = run(4), run(4), run(5)
    taken = [packs.ids[place] for packs, place in first.stream.take(3 * len(first.stream.packs))]
    again.stream.cursor.place = len(again.stream.packs)  # straight to the second epoch
    jumped = [packs.ids[place] for packs, place in again.stream.take(1)]
    n = len(first.stream._make(0, 0))
    assert np.array_equal(taken[n], jumped[0])
    assert not np.array_equal(taken[0], next(packs.ids[place] for packs, place in other.stream.take(1)))
    for each in (first, again, other):
        each.stream.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_request_to_end_beside_the_sum_that_tells_all_processes_is_heard_at_the_next_one(trained, tmp_path, monkeypatch, when):
    """Else a process ended after a step that the others went on from, which waited for it for ever, or the request was lost."""
    recipe, said = fill(Recipe, tiny_recipe(tmp_path / "run"), "test"), []
    run = loop.Run(recipe, trained.corpus, say=said.append, log_with=None)
    usual = run.parallel.sum

    def summed(*values: float) -> list[float]:
        found = usual(*values)
        if run.step == 2 and when == "before":
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    def stepped(*what) -> None:
        taken(*what)
        if run.step == 2 and when == "after":
            os.kill(os.getpid(), signal.SIGTERM)

    taken = run._take_step
    monkeypatch.setattr(run.parallel, "sum", summed)
    monkeypatch.setattr(run, "_take_step", stepped)
    with pytest.raises(SystemExit) as ended:
        run.train()
    assert ended.value.code == 0
    assert any("asked to end: saved at step 4;" in line for line in said)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_checkpoint(half, trained, monkeypatch):
    usual = PackedLM.forward

    def broken(*args):
        loss, nats = usual(*args)
        return loss * float("nan"), nats

    monkeypatch.setattr(PackedLM, "forward", broken)
    with pytest.raises(EngineError, match=r"step 10: loss nan.*4 steps in a row.*lower the learning rates; the last checkpoint is whole"):
        train(half, trained.corpus)
    monkeypatch.undo()
    said: list[str] = []
    train(half, trained.corpus, said)
    assert "goes on from step 7" in said


def test_held_out_nats_are_measured_and_stand_in_the_curve_and_the_card(trained, tmp_path):
    said: list[str] = []
    model = train(tmp_path / "run", trained.corpus, said, steps=4, evaluate_every=2)
    lines = curve_lines(tmp_path / "run" / "curve.jsonl")
    assert ["held_out_per_sentence" in line for line in lines] == [False, True, False, True]
    held = lines[-1]["held_out_per_sentence"]
    assert {"generate/cell", "annotate/cell_type"} <= set(held)
    assert all(np.isfinite(value) and value > 0 for value in held.values())
    assert load_checkpoint(model).card["held_out_nats"] == held
    assert any("held out:" in line for line in said)


def test_the_card_says_what_the_model_has_seen_and_how_it_was_made(whole, trained):
    card = load_checkpoint(whole / "model").card
    assert (card["steps"], card["context"]) == (12, 192)
    assert card["recipe"]["packing"]["pack_tokens"] == 1024
    assert sum(entry["cells"] for entry in card["labels"]) == 128
    assert {entry["cell_type"] for entry in card["labels"]} == {
        "B cell", "natural killer cell", "classical monocyte", "keratinocyte"
    }  # fmt: skip
    assert [source["file"] for source in card["sources"]] == ["human.h5ad", "mouse.h5ad"]
    assert str(whole) not in json.dumps(card), "no path of the machine it was made on"


def test_labels_seen_are_those_of_training_cells_alone(trained):
    from scmulan.corpus.shards import Corpus

    corpus = Corpus(trained.corpus)
    assert sum(entry["cells"] for entry in seen_labels(corpus)) == len(corpus.read("train")) < corpus.manifest["cells"]


def test_bfloat16_trains_too_in_the_process_that_trained_without(trained, tmp_path):
    train(tmp_path / "run", trained.corpus, precision="bf16", stop_after=3)
    assert len(losses(tmp_path / "run")) == 3
    assert all(np.isfinite(losses(tmp_path / "run")))


def test_several_packs_a_step_are_one_step(trained, tmp_path):
    train(tmp_path / "run", trained.corpus, packs_per_step=3, stop_after=2)
    lines = curve_lines(tmp_path / "run" / "curve.jsonl")
    assert len(lines) == 2
    assert lines[0]["tokens"] > 2 * 1024 * 0.7


def test_a_corpus_without_training_cells_is_an_error(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "training_size", lambda corpus, context: (0, 0.0))
    with pytest.raises(CorpusError, match="no cell in the train split; change the plan's split"):
        train(tmp_path / "run", trained.corpus)


def test_a_damaged_shard_is_an_error_that_names_it(trained, tmp_path):
    corpus = shutil.copytree(trained.corpus, tmp_path / "corpus")
    (corpus / "shard-00001-000000000.parquet").write_bytes(b"not parquet")
    with pytest.raises(CorpusError, match=r"shard-00001-000000000\.parquet.*build the corpus again"):
        train(tmp_path / "run", corpus)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = fill(Recipe, tiny_recipe(Path("x"), steps=100, optimizer={"warmup": 10, "stable": 0.5, "last": 0.1}), "test")
    shares = [learning_rate_share(step, recipe) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:51] == pytest.approx([1.0] * 42)
    assert all(before >= after for before, after in pairwise(shares[50:]))
    assert shares[-1] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("matrix_lr", [0.0, 0.02])
def test_every_parameter_has_one_optimizer(language, matrix_lr):
    from scmulan.model import new_model

    model = new_model("tiny", language.vocabulary, context=64)
    recipe = fill(Recipe, tiny_recipe(Path("x"), optimizer={"matrix_lr": matrix_lr}), "test")
    optimizers = make_optimizers(model, recipe)
    owned = [id(parameter) for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    assert len(optimizers) == (1 if matrix_lr == 0 else 2)


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (32, 32)])
def test_muon_in_float32_takes_torchs_steps_and_goes_on_from_its_state(shape):
    settings = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    gradients = torch.randn(6, *shape, generator=torch.Generator().manual_seed(1))
    pairs = [(torch.nn.Parameter(start.clone()), kind) for kind in (torch.optim.Muon, MuonFloat32)]
    (theirs, muon), (ours, in_float32) = [(parameter, kind([parameter], **settings)) for parameter, kind in pairs]
    for number, gradient in enumerate(gradients):
        if number == 3:
            in_float32.load_state_dict(copy.deepcopy(muon.state_dict()))
        for parameter, optimizer in ((theirs, muon), (ours, in_float32)):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved  # bfloat16 rounds to 1 part in 256


def test_a_run_goes_on_from_a_model(tmp_path, trained):
    first = json.loads((trained.folder / "scmulan.json").read_text())
    folder = train(
        tmp_path / "further", trained.corpus, model={"start": str(trained.folder)}, steps=2, optimizer={"lr": 0.0, "matrix_lr": 0.0}
    )
    went_on, was = load_checkpoint(folder), load_checkpoint(trained.folder)
    for name, tensor in was.model.state_dict().items():
        assert torch.equal(went_on.model.state_dict()[name], tensor), name
    assert went_on.card["steps"] == first["steps"] + 2


def test_going_on_can_lengthen_the_context(tmp_path, trained):
    folder = train(
        tmp_path / "longer", trained.corpus, model={"start": str(trained.folder)}, steps=1, packing={"context": 256, "pack_tokens": 1024}
    )
    assert load_checkpoint(folder).context == 256


def test_a_model_of_another_tokenizer_can_not_be_gone_on_from(tmp_path, trained):
    other = tmp_path / "other"
    shutil.copytree(trained.corpus, other)
    file = other / "tokenizer" / "tokenizer.json"
    whole = json.loads(file.read_text())
    vocabulary = whole["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(whole))
    manifest = json.loads((other / MANIFEST).read_text()) | {"tokenizer_sha256": tokenizer_hash(other / "tokenizer")}
    (other / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="its tokenizer is not that of"):
        train(tmp_path / "elsewhere", other, model={"start": str(trained.folder)})
