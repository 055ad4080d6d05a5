"""Recipes: a YAML file fills dataclasses; what is unknown, missing or of the wrong kind is an error that names it."""

from __future__ import annotations

import dataclasses
import re

import pytest
import yaml

from scmulan import assets
from scmulan.corpus.pack import Packing
from scmulan.errors import RecipeError
from scmulan.model import PRESETS
from scmulan.prompts import load_prompts
from scmulan.training.recipe import STAGES, LossRecipe, ModelRecipe, OptimizerRecipe, Recipe, read_recipe


@pytest.fixture
def path(tmp_path):
    (tmp_path / "small.yaml").write_text(
        "corpus: there\nsteps: 50\nmodel: {preset: tiny}\npacking: {context: 128, pack_tokens: 256}\noptimizer: {lr: 1e-3}\n"
    )
    return tmp_path / "small.yaml"


def test_what_the_file_says_is_taken_and_the_rest_has_its_default(path):
    recipe = read_recipe(path)
    assert (recipe.steps, recipe.model.preset, recipe.packing.context, recipe.corpus) == (50, "tiny", 128, "there")
    assert recipe.optimizer == OptimizerRecipe(lr=0.001)
    assert recipe.folder == str(path.parent)
    assert (recipe.keep, recipe.loss) == (Recipe(corpus="x").keep, LossRecipe())


def test_yaml_that_reads_an_exponent_as_text_still_gives_a_number(path):
    assert isinstance(yaml.safe_load("1e-3"), str)
    assert read_recipe(path).optimizer.lr == 0.001


def test_overrides_reach_inside_and_win(path):
    recipe = read_recipe(path, ["steps=7", "packing.thin_share=0.5", "loss.of_field.organ=2.5", "compile=true", "precision=bf16"])
    assert (recipe.steps, recipe.packing.thin_share, recipe.packing.context, recipe.compile) == (7, 0.5, 128, True)
    assert recipe.loss.weight_of("organ") == 2.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("stepz=3", "unknown key 'stepz'; nearest: 'steps'.*known: output, seed"),
        ("packing.contxt=3", "packing: unknown key 'contxt'; nearest: 'context'"),
        ("steps=many", "steps is 'many': needed a number"),
        ("steps=", "steps is None: needed a number"),
        ("steps=2.5", "steps is 2.5: needed a whole number"),
        ("steps=.inf", "steps is inf: needed a whole number"),
        ("steps=true", "steps is True: needed a number"),
        ("steps=0", "steps is 0: needed at least 1"),
        ("keep=0", "keep is 0: needed at least 1"),
        ("precision=fp8", "precision 'fp8': needed bf16 or no"),
        ("packing.pack_tokens=64", "packing.pack_tokens is 64, smaller than packing.context 128"),
        ("plan={sources: [a.h5ad]}", "needs either `plan:`.*or `corpus:`.*not both"),
        ("model=tiny", "model is 'tiny': needed a mapping"),
        ("model.preset=5", "preset is 5: needed a text"),
        ("precision=no", "precision is False: needed a text .YAML reads no, yes"),
        ("compile=maybe", "compile is 'maybe': needed true or false"),
        ("steps.more=3", "steps.more: steps is 50, which has no parts"),
        ("steps=[", "steps=\\[: not YAML"),
        ("loss.of_field=3", "of_field is 3: needed a mapping"),
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(path, change, says):
    with pytest.raises(RecipeError, match=says):
        read_recipe(path, [change])


def test_neither_plan_nor_corpus_is_an_error(path):
    with pytest.raises(RecipeError, match=rf"^{re.escape(str(path))}: the recipe needs either"):
        read_recipe(path, ["corpus=null"])


@pytest.mark.parametrize(
    ("content", "says"),
    [("a: [", "not YAML"), ("- steps", "needed a mapping"), ("just words", "needed a mapping"), ("\x89HDF", "not YAML")],
)
def test_a_file_that_is_no_recipe_is_an_error_that_names_the_file(tmp_path, content, says):
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(RecipeError, match=rf"odd\.yaml.*{says}"):
        read_recipe(tmp_path / "odd.yaml")


def test_a_file_of_bytes_is_an_error_that_names_it(tmp_path):
    (tmp_path / "odd.yaml").write_bytes(b"\x89HDF\r\n\xff")
    with pytest.raises(RecipeError, match=r"odd\.yaml: not YAML"):
        read_recipe(tmp_path / "odd.yaml")


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file.*give the path of a recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_the_shipped_recipe_is_found_by_its_name_from_anywhere_and_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("training/demo.yaml")
    assert recipe == read_recipe("demo.yaml")
    assert recipe.model.preset in PRESETS
    assert recipe.plan is not None
    for source in recipe.plan["sources"]:
        assert assets.path("embedded", "cells", source["path"].removeprefix("embedded:")).is_file()


def test_a_resolved_recipe_is_plain_data_that_makes_the_same_recipe_again(path):
    recipe = read_recipe(path, ["loss.of_field.organ=2"])
    again = yaml.safe_load(yaml.safe_dump(recipe.to_dict()))
    path.write_text(yaml.safe_dump(again))
    assert read_recipe(path) == recipe


def test_weights_of_parts_are_those_said_and_what_is_given_weighs_nothing():
    loss = LossRecipe(gene=2.0, fields=4.0, of_field={"organ": 9.0})
    weights = {part: loss.weight_of(part) for part in load_prompts().parts}
    assert (weights["given"], weights["frame"], weights["gene"], weights["organ"]) == (0, 0, 2, 9)
    assert {weight for part, weight in weights.items() if part in load_prompts().fields and part != "organ"} == {4.0}


def test_every_stage_of_a_recipe_is_filled_by_its_own_class():
    kinds = [STAGES[name] for name in ("model", "packing", "optimizer", "loss")]
    assert kinds == [ModelRecipe, Packing, OptimizerRecipe, LossRecipe]
    assert set(STAGES) <= {entry.name for entry in dataclasses.fields(Recipe)}
