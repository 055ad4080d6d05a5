"""Packs in windows: each training cell once an epoch, the same packs whoever makes them, and training on files is training on cells."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import kind_cells, tiny_recipe

from scmulan.corpus import build
from scmulan.corpus.build import build_corpus
from scmulan.corpus.pack import Packing
from scmulan.corpus.plan import read_plan
from scmulan.corpus.shards import Corpus
from scmulan.corpus.windows import folder_of, verify_packed, window_packs, windows_of, write_window
from scmulan.corpus.workers import Workers
from scmulan.errors import CorpusError
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary
from scmulan.training.ahead import pack_ahead
from scmulan.training.curve import curve_lines
from scmulan.training.loop import pretrain
from scmulan.training.recipe import Recipe, fill

KINDS = ("B cell", "natural killer cell", "classical monocyte")
PACKING = Packing(context=192, pack_tokens=1024, window_cells=100)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory) -> Path:
    """A corpus of 240 cells in shards of 30."""
    place = tmp_path_factory.mktemp("windows")
    for number in range(2):
        kind_cells(KINDS, 120, seed=number).write_h5ad(place / f"{number}.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CELLS_PER_SHARD", 30)
        build_corpus(read_plan({"sources": [str(place)]}), trained.tokenizer, place / "corpus")
    return place / "corpus"


@pytest.fixture
def corpus(folder, tmp_path) -> Corpus:
    return Corpus(shutil.copytree(folder, tmp_path / "corpus"))


@pytest.fixture(scope="module")
def writer(trained) -> SentenceWriter:
    return SentenceWriter(load_tokenizer(trained.tokenizer), load_vocabulary(trained.tokenizer), load_prompts())


def sentences(packs) -> list[list[int]]:
    return [
        packs.ids[number, start:end].tolist() for number, bounds in enumerate(packs.bounds) for start, end in itertools.pairwise(bounds)
    ]


def test_a_corpus_that_fits_is_one_window_in_its_own_order(corpus):
    (window,) = windows_of(corpus, 240, seed=3, epoch=5)
    assert list(window.files) == [shard["file"] for shard in corpus.manifest["shards"]]


def test_a_larger_one_is_cut_into_windows_that_hold_each_shard_once_in_a_new_order_each_epoch(corpus):
    first, second = (windows_of(corpus, 100, seed=0, epoch=epoch) for epoch in (0, 1))
    for windows in (first, second):
        assert sorted(file for window in windows for file in window.files) == sorted(s["file"] for s in corpus.manifest["shards"])
        assert [len(window.files) for window in windows] == [3, 3, 2]
    assert [window.files for window in first] != [window.files for window in second]
    assert windows_of(corpus, 100, seed=0, epoch=0) == first != windows_of(corpus, 100, seed=1, epoch=0)


def test_an_epoch_of_windows_holds_each_training_cell_once(corpus, writer):
    windows = windows_of(corpus, 100, seed=0, epoch=0)
    made = [window_packs(corpus, window, writer, PACKING, seed=0) for window in windows]
    assert sum(len(sentences(packs)) for packs in made) == len(corpus.read("train"))


def test_packs_of_files_are_those_that_are_made(corpus, writer):
    for window in windows_of(corpus, 100, seed=0, epoch=0):
        made = window_packs(corpus, window, writer, PACKING, seed=0)
        write_window(corpus, window, writer, PACKING, seed=0)
        read = window_packs(corpus, window, writer, PACKING, seed=0)
        assert isinstance(read.ids, np.memmap)
        assert (read.ids.dtype, read.parts.dtype) == (np.uint16, np.uint8)
        assert np.array_equal(read.ids, made.ids)
        assert np.array_equal(read.parts, made.parts)
        for name in ("bounds", "tasks"):
            assert [each.tolist() for each in getattr(read, name)] == [each.tolist() for each in getattr(made, name)]


def test_files_of_other_settings_are_never_taken(corpus, writer):
    window = windows_of(corpus, 100, seed=0, epoch=0)[0]
    write_window(corpus, window, writer, PACKING, seed=0)
    assert not isinstance(window_packs(corpus, window, writer, PACKING, seed=1).ids, np.memmap)
    other = Packing(context=192, pack_tokens=1024, window_cells=100, thin_share=0.9)
    assert not isinstance(window_packs(corpus, window, writer, other, seed=0).ids, np.memmap)


def recipe_of(corpus: Corpus, output: Path, **changes) -> Recipe:
    given = tiny_recipe(output, steps=12)
    packing = {**given["packing"], "window_cells": 100}
    recipe: Recipe = fill(Recipe, {**given, "corpus": str(corpus.folder), "packing": packing, **changes}, "test")
    return recipe


def losses(recipe: Recipe, corpus: Corpus, **more) -> list[float]:
    pretrain(recipe, corpus.folder, say=lambda _: None, log_with=None, **more)
    return [line["loss"] for line in curve_lines(Path(recipe.output) / "curve.jsonl")]


@pytest.mark.slow
def test_training_on_files_stopped_or_not_is_training_on_cells(corpus, tmp_path):
    plain = losses(recipe_of(corpus, tmp_path / "plain", steps=30), corpus)
    recipe = recipe_of(corpus, tmp_path / "packed", steps=30)
    found = pack_ahead(recipe, corpus.folder, epochs=3, workers=Workers())
    assert found["windows"] == 9
    assert found["fill"] > 0.85
    losses(recipe, corpus, stop_after=13)
    assert losses(recipe, corpus) == plain


def test_packing_again_leaves_what_is_there_and_the_manifest_says_what_it_is(corpus, tmp_path, writer):
    recipe = recipe_of(corpus, tmp_path / "run")
    found = pack_ahead(recipe, corpus.folder, epochs=1, workers=Workers())
    place = folder_of(corpus, writer, recipe.packing, recipe.seed)
    assert found["folders"] == [str(place)]
    times = {path: path.stat().st_mtime_ns for path in place.rglob("*.npy")}
    assert pack_ahead(recipe, corpus.folder, epochs=1, workers=Workers()) == found
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.npy")} == times
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["tokenizer_sha256"] == corpus.manifest["tokenizer_sha256"]
    assert sum(window["packs"] for window in manifest["windows"]) == found["packs"]


def test_packing_that_was_killed_goes_on_and_leaves_nothing_half_written(corpus, tmp_path, writer):
    recipe = recipe_of(corpus, tmp_path / "run")
    found = pack_ahead(recipe, corpus.folder, epochs=1, workers=Workers())
    place = folder_of(corpus, writer, recipe.packing, recipe.seed)
    windows = sorted(path for path in place.iterdir() if path.is_dir())
    windows[0].with_suffix(".json").unlink()
    windows[1].rename(place / f"{windows[1].name}.1-abcd.partial")
    (place / "manifest.json.1-abcd.partial").write_text("{")
    assert pack_ahead(recipe, corpus.folder, epochs=1, workers=Workers()) == found
    assert not list(place.glob("*.partial"))
    assert sorted(path for path in place.iterdir() if path.is_dir()) == windows
    assert verify_packed(corpus) == 3


def test_a_window_without_training_cells_is_packed_and_passed_over(trained, tmp_path):
    for split in ("train", "test"):
        adata = kind_cells(KINDS, 60)
        adata.obs["split"] = split
        adata.write_h5ad(tmp_path / f"{split}.h5ad")
    plan = {"sources": ["*.h5ad"], "defaults": {"split": {"by": "column"}}, "deduplicate": False}
    build_corpus(read_plan(plan, tmp_path), trained.tokenizer, tmp_path / "corpus")
    corpus = Corpus(tmp_path / "corpus")
    plain = losses(recipe_of(corpus, tmp_path / "plain"), corpus)
    recipe = recipe_of(corpus, tmp_path / "packed")
    assert pack_ahead(recipe, corpus.folder, epochs=3, workers=Workers())["windows"] == 6
    assert losses(recipe, corpus) == plain


def test_a_damaged_packed_file_is_found_and_named(corpus, tmp_path):
    pack_ahead(recipe_of(corpus, tmp_path / "run"), corpus.folder, epochs=1, workers=Workers())
    assert verify_packed(corpus) == 3
    damaged = sorted(corpus.folder.glob("packed/*/*/ids.npy"))[1]
    content = bytearray(damaged.read_bytes())
    content[-10] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CorpusError, match=r"ids\.npy: missing, or its sha256 is not the one"):
        verify_packed(corpus)
    damaged.write_bytes(b"")
    with pytest.raises(CorpusError, match=r"packed files that can't be read .*; delete the folder and pack again"):
        losses(recipe_of(corpus, tmp_path / "other"), corpus)
