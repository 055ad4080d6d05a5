"""A run planned is the run that follows: its tokens and epochs, whether the corpus is built or only its sources are there."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml
from conftest import tiny_recipe
from typer.testing import CliRunner

from scmulan.adapters import AdapterRecipe, attach
from scmulan.cli import app
from scmulan.corpus.estimate import estimate_sentences
from scmulan.corpus.plan import read_plan
from scmulan.corpus.shards import Corpus
from scmulan.errors import RecipeError
from scmulan.model import load_checkpoint, n_parameters
from scmulan.training import sizing
from scmulan.training.curve import curve_lines
from scmulan.training.hardware import DEVICES, device_of
from scmulan.training.planning import measure_sentences, model_size, plan_run, writer_of
from scmulan.training.recipe import Recipe, fill


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    return fill(Recipe, tiny_recipe(tmp_path_factory.mktemp("planned"), steps=100), "test")


@pytest.fixture(scope="module")
def sentences(trained, recipe):
    return measure_sentences(Corpus(trained.corpus), recipe, writer_of(trained.corpus), on_gpu=False)


def planned(recipe, sentences, trained, **changes):
    vocabulary = writer_of(trained.corpus).vocabulary
    return plan_run(recipe, sentences, vocabulary, **{"device": DEVICES["h100"], **changes})


def test_the_tokens_of_a_run_are_those_that_it_reads(trained, recipe, sentences):
    plan = planned(recipe, sentences, trained)
    read = curve_lines(trained.folder.parent / "curve.jsonl")[-1]["tokens"]
    # of this corpus's nine packs an epoch the last may be all but empty
    assert plan.run["tokens"] == pytest.approx(read, rel=0.08)
    assert plan.run["epochs"] == pytest.approx(plan.run["tokens"] / sentences.tokens, rel=1e-3)


def test_an_estimate_before_the_corpus_is_built_is_near_what_is_measured_after(trained, recipe, sentences):
    estimate, vocabulary = estimate_sentences(read_plan(trained.plan), recipe.packing, on_gpu=False)
    assert estimate.cells == sentences.cells
    assert estimate.tokens == pytest.approx(sentences.tokens, rel=0.15)
    assert estimate.keys == pytest.approx(sentences.keys, rel=0.15)
    assert vocabulary.size == pytest.approx(writer_of(trained.corpus).vocabulary.size, rel=0.3)
    assert "not built yet" in estimate.how


def test_memory_is_told_for_each_way_to_share_it(trained, recipe, sentences):
    assert list(planned(recipe, sentences, trained).memory) == ["one process", "one process, checkpointed"]
    shared = planned(recipe, sentences, trained, devices=4).memory
    assert list(shared) == ["DDP", "DDP, checkpointed", "FSDP2", "FSDP2, checkpointed"]
    assert shared["DDP, checkpointed"]["total"] < shared["DDP"]["total"]


def test_what_would_go_wrong_is_said_before_it_does(trained, recipe, sentences):
    large = fill(
        Recipe, tiny_recipe(trained.folder, steps=6000, model={"preset": "1b"}, packing={"context": 2048, "pack_tokens": 65_536}), "t"
    )
    notes = " ".join(planned(large, sentences, trained, devices=3, device=DEVICES["l4"]).notes)
    for said in (
        "times as large as 4 epochs of this corpus feed",
        "repeated data add next to nothing",
        "multiple of 3",
        "more than the 24 GB of l4",
    ):
        assert said in notes


def test_layers_made_again_cost_hours_but_no_needed_operations(trained, recipe, sentences):
    again = fill(Recipe, tiny_recipe(trained.folder, steps=100, checkpoint_activations=True), "test")
    plain, checkpointed = planned(recipe, sentences, trained), planned(again, sentences, trained)
    assert checkpointed.operations["run"] == plain.operations["run"]
    assert 1 < checkpointed.time["hours"] / plain.time["hours"] < 4 / 3


@pytest.mark.parametrize(("change", "says"), [({"mfu": 0.0}, "--mfu 0: needed"), ({"mfu": 40}, "--mfu 40"), ({"devices": 0}, "--gpus 0")])
def test_an_impossible_machine_is_an_error(trained, recipe, sentences, change, says):
    with pytest.raises(RecipeError, match=says):
        planned(recipe, sentences, trained, **{"device": device_of("cpu"), **change})


# -- the command ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe_file(trained, tmp_path):
    given = tiny_recipe(tmp_path / "run", corpus=str(trained.corpus))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given))
    return tmp_path / "recipe.yaml"


def test_the_command_plans_and_starts_nothing(recipe_file):
    found = CliRunner().invoke(app, ["pretrain", str(recipe_file), "--plan", "--gpus", "2", "--json"])
    assert found.exit_code == 0, found.output
    plan = json.loads(found.stdout)
    assert plan["run"]["steps"] == 12
    assert plan["time"]["devices"] == 2
    assert not (recipe_file.parent / "run").exists()


def test_the_command_says_it_for_people_too(recipe_file):
    found = CliRunner().invoke(app, ["pretrain", str(recipe_file), "--plan", "--gpu", "cpu"])
    assert found.exit_code == 0, found.output
    for said in ("training cells", "6 N + 12 L H Q K + 6 D C", "minutes on 1 x cpu at 40%", "corpus feeds", "activations"):
        assert said in found.stdout, said


def test_a_recipe_with_a_plan_is_estimated_without_building_it(trained, tmp_path):
    text = trained.plan.read_text().replace("path: ", f"path: {trained.plan.parent}/").replace("\n", "\n  ")
    (tmp_path / "recipe.yaml").write_text(f"output: {tmp_path}/run\nmodel: {{preset: tiny}}\nplan:\n  {text}\n")
    found = CliRunner().invoke(app, ["pretrain", str(tmp_path / "recipe.yaml"), "--plan"])
    assert found.exit_code == 0, found.output + str(found.exception)
    assert "not built yet; scmulan corpus pack" in found.stdout
    assert not (tmp_path / "run").exists()


def test_the_presets_are_listed_with_their_parameters():
    found = CliRunner().invoke(app, ["pretrain", "--presets", "--json"])
    assert json.loads(found.stdout)["368m"]["total"] == 370_331_648
    assert "370,331,648" in CliRunner().invoke(app, ["pretrain", "--presets"]).stdout


def test_neither_a_recipe_nor_presets_is_an_error():
    found = CliRunner().invoke(app, ["pretrain"])
    assert isinstance(found.exception, RecipeError)
    assert "no recipe; needed the path of one" in str(found.exception)


def test_of_an_adapter_only_its_own_parameters_are_trained(trained, tmp_path):
    recipe = fill(
        Recipe, tiny_recipe(tmp_path, model={"start": str(trained.folder)}, adapter={"rank": 4}, optimizer={"matrix_lr": 0}), "test"
    )
    writer = writer_of(trained.corpus)
    size = model_size(recipe, writer.vocabulary)
    lm = load_checkpoint(trained.folder).model
    whole = n_parameters(lm)
    attach(lm, AdapterRecipe(rank=4))
    assert size.total == whole
    assert size.adapter == sum(p.numel() for p in lm.parameters() if p.requires_grad)
    shape = {"chunk": 1000, "precision": "no", "has_muon": False}
    found = sizing.memory(size, 1024, **shape)
    assert found.gradients == 4 * size.adapter
    assert found.optimizer == 8 * size.adapter
    assert found.weights == 4 * (size.total + size.adapter)
    in_4_bits = dataclasses.replace(size, bits=4)
    assert sizing.memory(in_4_bits, 1024, **shape).weights == found.weights - size.matrices * 7 // 2
    of_layers = sizing.operations(size, keys=100, columns=500).matrices
    assert of_layers == 4 * size.matrices + 6 * size.adapter
    recipe_file = tmp_path / "adapter.yaml"
    recipe_file.write_text(yaml.safe_dump({**recipe.to_dict(), "corpus": str(trained.corpus)}))
    said = CliRunner().invoke(app, ["pretrain", str(recipe_file), "--plan"])
    assert f"an adapter of {size.adapter:,} parameters is trained" in said.output
    assert "4 N + 6 A" in said.output
