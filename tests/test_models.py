"""The model that a recipe begins with, where it is another causal LM: it trains on cells, goes on, and is refused where it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from foreign import FAMILIES, change_json, write_model

from scmulan.corpus.build import build_corpus
from scmulan.corpus.plan import read_plan
from scmulan.errors import CheckpointError
from scmulan.model import load_checkpoint
from scmulan.tasks import load
from scmulan.tokenizer_extend import extend_tokenizer, extension_of, read_foreign_tokenizer
from scmulan.training.curve import curve_lines
from scmulan.training.loop import pretrain
from scmulan.training.recipe import Recipe, fill


def train(output: Path, corpus: Path, start: Path, stop_after: int | None = None, **changes: object) -> Path:
    given = {"model": {"start": str(start)}, "optimizer": {"warmup": 3, "matrix_lr": 0.005, "lr": 0.005}, **changes}
    recipe = fill(Recipe, tiny_recipe(output, **given), "test")
    return pretrain(recipe, corpus, say=lambda _: None, log_with=None, stop_after=stop_after)


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in curve_lines(output / "curve.jsonl")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A model folder of each family, all with one tokenizer."""
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        write_model(folder / family, family)
    return folder


@pytest.fixture(scope="module")
def corpus(folders, trained, tmp_path_factory) -> Path:
    """The tiny model's cells with a tokenizer that extends that of the families."""
    folder = tmp_path_factory.mktemp("corpus")
    extend_tokenizer(read_foreign_tokenizer(folders / "qwen2"), folder / "tokenizer", genes_of=trained.tokenizer)
    build_corpus(read_plan(trained.plan), folder / "tokenizer", folder / "corpus")
    return folder / "corpus"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_cells_from_another_model_lowers_the_loss_and_the_model_writes_cells(folders, corpus, tmp_path, family):
    model = train(tmp_path, corpus, folders / family)
    found = losses(tmp_path)
    assert np.mean(found[-3:]) < 0.85 * np.mean(found[:2])
    checkpoint = load_checkpoint(model)
    assert (checkpoint.model.config.model_type, checkpoint.context, checkpoint.card["steps"]) == (family, 192, 12)
    assert extension_of(model) == extension_of(corpus / "tokenizer")
    assert load(model).generate(organ="blood", cell_type="B cell", n=2).n_obs == 2


def test_a_stopped_run_from_another_model_goes_on_to_the_same_curve(folders, corpus, tmp_path):
    train(tmp_path / "whole", corpus, folders / "llama", steps=6)
    train(tmp_path / "half", corpus, folders / "llama", steps=6, stop_after=3)
    train(tmp_path / "half", corpus, folders / "llama", steps=6)
    assert losses(tmp_path / "half") == losses(tmp_path / "whole")


def test_without_learning_the_layers_stay_those_of_the_other_model(folders, corpus, tmp_path):
    from safetensors.torch import load_file

    model = train(tmp_path, corpus, folders / "qwen3", steps=1, optimizer={"lr": 0.0, "matrix_lr": 0.0})
    was, now = load_file(folders / "qwen3" / "model.safetensors"), load_file(model / "model.safetensors")
    assert was.keys() == now.keys()
    for name in (name for name in was if "layers" in name):
        assert torch.equal(now[name], was[name].bfloat16()), name


def test_dropout_and_recomputed_activations_work_on_another_model(folders, corpus, tmp_path):
    model = {"start": str(folders / "qwen2"), "dropout": 0.1}
    train(tmp_path, corpus, folders / "qwen2", steps=2, model=model, checkpoint_activations=True)
    assert np.isfinite(losses(tmp_path)).all()


def test_a_corpus_whose_tokenizer_extends_nothing_is_an_error_with_the_command(folders, trained, tmp_path):
    with pytest.raises(CheckpointError, match=r"extends no other tokenizer.*scmulan tokenizer extend .*qwen2 -o FOLDER"):
        train(tmp_path, trained.corpus, folders / "qwen2")


def test_a_corpus_of_another_models_tokenizer_is_an_error(folders, corpus, tmp_path):
    write_model(tmp_path / "other", "qwen2")
    change_json(tmp_path / "other" / "tokenizer.json", model__ignore_merges=True)
    with pytest.raises(CheckpointError, match="extends another tokenizer"):
        train(tmp_path / "run", corpus, tmp_path / "other")


def test_a_started_model_is_gone_on_from_like_any_other(folders, corpus, tmp_path):
    first = train(tmp_path / "first", corpus, folders / "llama", steps=2)
    second = train(tmp_path / "second", corpus, first, steps=2)
    assert load_checkpoint(second).card["steps"] == 4
