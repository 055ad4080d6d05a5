"""Fine-tuning: new labels are learnt, donors stay whole, the base is not forgotten without a word, and bad input is one clear error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import NEW, QUICK, kidney
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import cli
from scmulan.adapters_folder import open_adapter
from scmulan.cells import read_h5ad
from scmulan.corpus.shards import Corpus
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import CellDataError, CorpusError, EngineError, RecipeError, ScmulanError
from scmulan.finetune import finetune, run_finetune
from scmulan.finetune_recipe import FinetuneRecipe, MixRecipe, fill_finetune, read_finetune
from scmulan.finetune_split import HELD, TRAIN, HeldOutRecipe, as_said, divide
from scmulan.model import CARD, load_checkpoint
from scmulan.tasks import Model, load
from scmulan.training.curve import curve_lines


@pytest.fixture
def quick(trained, tmp_path):
    """Fine-tune the tiny model in seconds; (folder, what was said)."""

    def tune(cells=None, output: str = "out", **settings):
        said: list[str] = []
        given = {**QUICK, **settings}
        folder = finetune(kidney() if cells is None else cells, tmp_path / output, base=trained.folder, say=said.append, **given)
        return folder, said

    return tune


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory) -> Path:
    """An adapter that has learnt two types of kidney."""
    output = tmp_path_factory.mktemp("tuned") / "kidney"
    settings = {**QUICK, "steps": 90, "evaluate_every": 15, "adapter": {"rank": 16}, "tasks": {"annotate": 1, "generate": 0.3}}
    settings |= {"optimizer": {"lr": 0.01}, "loss": {"fields": 30.0}}
    return finetune(kidney(), output, base=trained.folder, say=lambda line: None, **settings)


# -- what is learnt -------------------------------------------------------------------------------------------------------


def test_new_types_of_a_new_organ_are_told_apart_and_generated(tuned, trained):
    model = load(trained.folder, adapter=tuned)
    cells = kidney(30, seed=9)
    truth = cells.obs["cell_type"].tolist()
    found = model.annotate(cells, readout=False)
    assert set(found.columns) == set(NEW.values())
    assert np.mean([a == b for a, b in zip(truth, cells.obs["scmulan_cell_type"], strict=True)]) > 0.9
    written = model.generate(n=5, organ="kidney", cell_type="podocyte")
    assert set(written.obs["cell_type"]) == {"podocyte"}
    assert set(model.describe(kidney(4))["organ"].columns) >= {"kidney", "blood"}


def test_no_row_of_the_vocabulary_is_added_for_new_labels(tuned, trained):
    base, with_adapter = load_checkpoint(trained.folder), load(trained.folder, adapter=tuned)
    assert with_adapter.engine.lm.config.vocab_size == base.model.config.vocab_size
    assert open_adapter(tuned).card["tokenizer_sha256"] == base.card["tokenizer_sha256"]


def test_the_card_says_data_split_recipe_and_held_out_nats(tuned, trained):
    card = open_adapter(tuned).card
    assert sum(entry["cells"] for entry in card["labels"]) == card["held_out"]["cells"][TRAIN]
    assert {entry["cell_type"] for entry in card["labels"]} == set(NEW.values())
    assert card["held_out"]["by"] == "donor"
    assert "annotate/cell_type" in card["held_out_nats"]
    assert card["recipe"]["adapter"]["rank"] == 16
    assert card["recipe"]["tasks"] == {"annotate": 1.0, "generate": 0.3}
    assert "kidney" in (tuned / "README.md").read_text()
    assert card["parameters"] < load_checkpoint(trained.folder).card["parameters"]
    assert str(tuned.parent) not in json.dumps({key: value for key, value in card.items() if key != "sources"})


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_adapter(quick):
    one, two = quick(output="one")[0], quick(output="two")[0]
    assert open_adapter(one).sha256 == open_adapter(two).sha256


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_its_adapter_and_its_state_holds_no_frozen_weight(quick, tmp_path):
    whole, _ = quick(output="whole")
    step = sorted((tmp_path / "whole" / "checkpoints").glob("step-*"))[0]
    state = torch.load(step / "state.pt", weights_only=True)["model"]
    assert state
    assert all("lora_" in name for name in state)
    quick(output="half")
    for path in sorted((tmp_path / "half" / "checkpoints").glob("step-*"))[1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    again, said = quick(output="half")
    assert "goes on from step 3" in said
    assert open_adapter(again).sha256 == open_adapter(whole).sha256


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room(quick, monkeypatch):
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole, _ = quick(output="whole")
    for place in ("scmulan.adapters_folder.save_file", "scmulan.training.checkpoints.os.fsync"):
        monkeypatch.setattr(place, full_disk)
        with pytest.raises(ScmulanError, match=r"(can't be written|disk full) \(.*No space left on device\)"):
            quick(output="full")
        monkeypatch.undo()
    folder, _ = quick(output="full")
    assert open_adapter(folder).sha256 == open_adapter(whole).sha256


def test_what_is_kept_is_the_best_and_training_stops_when_nothing_is_gained(quick, tmp_path):
    settings = {"steps": 60, "evaluate_every": 2, "patience": 2, "optimizer": {"lr": 0.0}}  # nothing is ever gained
    folder, _ = quick(**settings)
    curve = curve_lines(tmp_path / "out" / "curve.jsonl")
    held = {line["step"]: line["held_out_loss"] for line in curve if "held_out_loss" in line}
    best = min(held, key=held.__getitem__)
    assert len(curve) == best + 4 < 60
    assert open_adapter(folder).card["steps"] == best


def test_full_fine_tuning_writes_a_whole_model_that_knows_old_and_new_labels(quick, trained):
    folder, _ = quick(adapter=None)
    opened = load(folder)
    assert {"podocyte", "B cell"} <= set(opened.seen.values("cell_type"))
    assert opened.checkpoint.card["tuned_from"]["weights_sha256"] == load_checkpoint(trained.folder).card["weights_sha256"]
    before, after = load_checkpoint(trained.folder).model.state_dict(), opened.checkpoint.model.state_dict()
    assert any(not torch.equal(before[name], after[name].float()) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_can_be_trained_on_few_bits_and_used_on_the_whole_model(quick, trained, bits):
    folder, _ = quick(adapter={"rank": 4, "bits": bits})
    model = load(trained.folder, adapter=folder)
    assert open_adapter(folder).card["recipe"]["adapter"]["bits"] == bits
    model.annotate(kidney(4))
    from safetensors.torch import load_file

    grown = [name for name, tensor in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in name and not tensor.any()]
    assert grown == []  # each B began at 0, so each had a gradient after the evaluation in the middle of the run


@pytest.mark.slow
def test_model_finetune_stays_in_use_and_the_base_is_still_there(trained, tmp_path):
    checkpoint = load_checkpoint(trained.folder)
    model = Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))
    cells = kidney(4)
    before = model.embed(cells.copy())
    assert model.finetune(kidney(), tmp_path / "kidney", say=lambda line: None, **QUICK) is model
    assert model.adapter == "kidney"
    assert "podocyte" in model.seen.values("cell_type")
    assert not np.array_equal(model.embed(cells.copy()), before)
    np.testing.assert_array_equal(model.use(None).embed(cells.copy()), before)
    whole = model.finetune(kidney(), tmp_path / "whole", say=lambda line: None, **{**QUICK, "adapter": None})
    assert whole is not model
    assert "podocyte" in whole.seen.values("cell_type")


# -- old cells ------------------------------------------------------------------------------------------------------------


def seen_of(output: Path) -> Counter[str]:
    rows = Corpus(output / "corpus").read("train")
    found: Counter[str] = Counter()
    for label, weight in zip(rows.fields["cell_type"], rows.weights, strict=True):
        found["new" if label in NEW.values() else "old"] += float(weight)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generated", "corpus", "sources"])
def test_old_cells_are_mixed_in_at_their_share_and_are_no_labels_of_the_adapter(quick, trained, tmp_path, kind):
    cells = {"corpus": str(trained.corpus), "sources": [{"path": str(trained.plan.parent / "human.h5ad"), "split": {"by": "column"}}]}
    mix = {"generated": 30, "share": 0.4} if kind == "generated" else {"cells": cells[kind], "share": 0.4}
    writer = load(trained.folder).generate if kind == "generated" else None
    folder, said = quick(mix=mix, generate=writer)
    assert any("old cells mixed in" in line and "40%" in line for line in said)
    seen = seen_of(tmp_path / "out")
    assert seen["old"] / seen.total() == pytest.approx(0.4, abs=0.01)
    assert {entry["cell_type"] for entry in open_adapter(folder).card["labels"]} == set(NEW.values())
    if kind == "sources":
        assert "Homo sapiens" in json.dumps(open_adapter(folder).card["sources"])
        used = set(Corpus(tmp_path / "out" / "corpus").read("train").cell_ids)
        held = read_h5ad(trained.plan.parent / "human.h5ad").obs.query("split == 'test'").index
        assert not used & set(held)


def test_cells_that_no_one_can_write_are_an_error(quick):
    with pytest.raises(EngineError, match=r"needed a model that writes the cells; call model\.finetune"):
        quick(mix={"generated": 5})


def test_a_mix_without_training_cells_is_an_error(quick, tmp_path):
    cells = kidney(6)
    cells.obs["split"] = "test"
    cells.write_h5ad(tmp_path / "old.h5ad")
    with pytest.raises(CorpusError, match=r"mix\.cells: none of its cells is of the train split"):
        quick(mix={"cells": [{"path": str(tmp_path / "old.h5ad"), "split": {"by": "column"}}]})


# -- which cells are held out ---------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=2, max_size=120), st.floats(0.05, 0.5), st.integers(0, 3))
def test_no_donor_is_in_two_splits_and_no_label_is_lost(pairs, share, seed):
    labels, donors = [f"type {label}" for label, _ in pairs], [f"d{donor}" for _, donor in pairs]
    try:
        found = divide(labels, donors, HeldOutRecipe(share=share, seed=seed), "test")
    except CellDataError:  # none can be held out: of each label there is one cell, or the share is less than one
        assert len(set(labels)) == len(labels) or round(share * len(labels)) < 1
        return
    learnt = {label for label, split in zip(labels, found.splits, strict=True) if split == TRAIN}
    assert learnt == set(labels)
    assert HELD in found.splits
    if found.by == "donor":
        assert not set(found.donors[TRAIN]) & set(found.donors[HELD])
        assert found.splits.count(HELD) <= max(1, 2 * share * len(labels))
    else:
        assert found.why


def test_donors_are_held_out_whole_and_cover_the_labels():
    donors = [f"d{number % 5}" for number in range(100)]
    labels = [("a", "b")[number // 5 % 2] for number in range(100)]
    found = divide(labels, donors, HeldOutRecipe(share=0.2), "test")
    assert found.by == "donor"
    assert found.labels[HELD] == {"a": 10, "b": 10}
    assert found.lines()[0] == "80 cells to learn from, 20 held out (donor)"
    assert f"of donors {found.donors[HELD][0]}" in found.lines()[1]


def test_a_donor_that_alone_has_a_label_is_not_held_out():
    donors, labels = ["a"] * 5 + ["b"] * 5 + ["c"] * 5, ["x"] * 5 + ["y"] * 5 + ["z"] * 5
    found = divide(labels, donors, HeldOutRecipe(share=0.3), "test")
    assert found.by == "label"
    assert found.why.startswith("no donor can be held out that leaves each label")
    with pytest.raises(CellDataError, match=r"held_out\.by donor, but no donor can be held out"):
        divide(labels, donors, HeldOutRecipe(by="donor"), "test")


def test_labels_are_held_out_in_proportion_when_there_are_no_donors():
    found = divide(["a"] * 60 + ["b"] * 40 + ["c"], [None] * 101, HeldOutRecipe(share=0.1), "test")
    assert found.labels[HELD] == {"a": 6, "b": 4}
    assert found.why == "not every cell has a donor"


def test_a_column_may_say_it_and_test_cells_serve_where_none_are_valid():
    found = as_said(["train", "test", "train"], ["a", "b", "a"], [None] * 3, "split", "test")
    assert found.splits == [TRAIN, HELD, TRAIN]
    with pytest.raises(CellDataError, match=r"obs\['split'\] calls no cell train"):
        as_said(["test", "test"], ["a", "b"], [None] * 2, "split", "test")


# -- bad input ------------------------------------------------------------------------------------------------------------


def test_one_cell_is_refused(quick):
    with pytest.raises(CellDataError, match=r"'cells\.h5ad': 1 cell; needed at least 2"):
        quick(kidney(1))


def test_a_split_that_holds_none_out_is_refused_and_says_what_to_do(quick):
    with pytest.raises(CellDataError, match=r"holds none out .* raise held_out\.share, or set it to 0"):
        quick(kidney(2), held_out={"by": "label"})


def test_a_share_of_zero_trains_through_all_steps_without_holding_out(quick, tmp_path):
    folder, said = quick(kidney(6), held_out={"share": 0})
    assert said[0].startswith("6 cells to learn from, 0 held out")
    assert open_adapter(folder).card["steps"] == 6


def test_labels_all_of_one_class_are_refused_for_annotation_alone_and_told_of_else(quick):
    cells = kidney()
    cells.obs["cell_type"] = "podocyte"
    with pytest.raises(CellDataError, match=r"every cell is 'podocyte'.* mix old ones in"):
        quick(cells, tasks={"annotate": 1})
    _, said = quick(cells)
    assert any(line.startswith("every cell is 'podocyte'") for line in said)


def test_cells_without_any_label_are_refused_for_tasks_about_labels(quick):
    cells = kidney()
    cells.obs = cells.obs[["donor"]]
    with pytest.raises(CellDataError, match="no cell has a label"):
        quick(cells, tasks={"annotate": 1, "locate": 1})


def test_genes_of_no_known_name_are_refused(quick):
    cells = kidney()
    cells.var_names = [f"thing{number}" for number in range(cells.n_vars)]
    with pytest.raises((CellDataError, CorpusError), match="gene"):
        quick(cells)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stepz": 4}, "finetune: unknown key 'stepz'; nearest: 'steps'"),
        ({"adapter": {"rnak": 4}}, "finetune: adapter: unknown key 'rnak'; nearest: 'rank'"),
        ({"adapter": 8}, "adapter is 8: needed a mapping"),
        ({"adapter": {"targets": ["qproj"]}}, "no linear layer 'qproj'"),
        ({"tasks": {"anotate": 1}}, "'anotate' is none that can be trained; nearest: 'annotate'"),
        ({"tasks": {"request": 1}}, "'request' is none that can be trained"),
        ({"tasks": {"annotate": 0}}, "every weight is 0"),
        ({"tasks": {"annotate": "often"}}, "annotate is 'often': needed a weight"),
        ({"held_out": {"by": "doner"}}, "held_out.by 'doner': needed one of"),
        ({"held_out": {"share": 1.0}}, "held_out.share 1: needed a share"),
        ({"mix": {"share": 0.2}}, "mix: needed either `generated:`"),
        ({"mix": {"generated": 5, "share": 1.5}}, "mix.share 1.5"),
        ({"mix": {"generated": 0}}, "mix.generated is 0"),
        ({"model": {"start": "demo"}}, "the model that is tuned is given as `base:`"),
        ({"steps": 0}, "steps is 0: needed at least 1"),
    ],
)
def test_an_impossible_recipe_is_refused(quick, change, words):
    with pytest.raises(RecipeError) as caught:
        quick(**change)
    assert words in str(caught.value)


def test_a_recipe_needs_cells():
    with pytest.raises(RecipeError, match="no cells: give a file of labelled cells"):
        FinetuneRecipe()
    assert MixRecipe(generated=3).share == 0.2


def test_a_mixed_in_corpus_of_another_tokenizer_is_refused(quick, trained, tmp_path, language):
    import shutil

    other = shutil.copytree(trained.corpus, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "tokenizer_sha256": "0" * 64}))
    with pytest.raises(CorpusError, match="built with tokenizer 000000000000"):
        quick(mix={"cells": str(other)})


def test_another_recipe_in_the_same_folder_is_refused(quick):
    quick()
    with pytest.raises(EngineError, match="its checkpoints are of another recipe or corpus"):
        quick(seed=3)


def test_a_loss_that_is_no_number_ends_the_run(quick):
    with pytest.raises(EngineError, match=r"not a number.*lower the learning rates"):
        quick(optimizer={"lr": 1e30, "warmup": 1, "clip": 1e30}, steps=20)


# -- recipe and command ---------------------------------------------------------------------------------------------------


def test_the_shipped_recipe_is_the_defaults():
    shipped = read_finetune("training/finetune.yaml")
    plain = fill_finetune({"cells": shipped.cells, "folder": shipped.folder}, "test")
    assert shipped.to_dict() | {"optimizer": None} == plain.to_dict() | {"optimizer": None}
    assert shipped.optimizer == plain.training(Path("b"), Path("c"), is_held_out=True).optimizer


def test_what_a_stage_leaves_out_has_the_default_of_fine_tuning():
    recipe = fill_finetune({"cells": "a.h5ad", "packing": {"context": 512}, "adapter": None, "optimizer": {"warmup": 5}}, "test")
    assert recipe.packing.thin_share == FinetuneRecipe(cells="a").packing.thin_share
    assert recipe.optimizer.matrix_lr == 0
    assert recipe.optimizer.lr == 0.0005


@pytest.fixture
def scmulan(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scmulan", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.slow
def test_the_commands_tune_list_use_and_merge(scmulan, trained, tmp_path):
    kidney().write_h5ad(tmp_path / "kidney.h5ad")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**QUICK, "base": str(trained.folder), "cells": "kidney.h5ad", "output": str(tmp_path / "run")}))
    code, out, err = scmulan("finetune", recipe, "--set", "steps=3", "--set", "mix.generated=4", "--json")
    assert code == 0, err
    folder = json.loads(out)["adapter"]
    assert folder == str(tmp_path / "run" / "adapter")
    code, out, err = scmulan("adapter", "list", tmp_path, "--json")
    assert json.loads(out)[folder]["cell_types"] == sorted(NEW.values()), err
    assert "podocyte" in scmulan("adapter", "list", tmp_path)[1]
    common = ("--model", trained.folder, "--adapter", folder)
    code, out, err = scmulan("annotate", tmp_path / "kidney.h5ad", "-o", tmp_path / "out.h5ad", *common, "--json")
    assert code == 0, err
    assert set(json.loads(out)["cell_types"]) <= set(NEW.values())
    assert read_h5ad(tmp_path / "out.h5ad").uns["scmulan"]["adapter"] == "adapter"
    assert scmulan("generate", "-o", tmp_path / "cells.h5ad", "-n", 2, "--cell-type", "podocyte", *common)[0] == 0
    code, out, err = scmulan("adapter", "merge", trained.folder, folder, "-o", tmp_path / "merged", "--json")
    assert code == 0, err
    assert load_checkpoint(tmp_path / "merged").card["merged_adapter"]["name"] == "adapter"


def test_a_wrong_adapter_is_one_line(scmulan, trained, tmp_path):
    code, _, err = scmulan("embed", trained.cells, "-o", tmp_path / "o.h5ad", "--model", trained.folder, "--adapter", tmp_path)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith(f"scmulan: {tmp_path}: no adapter_config.json")
    assert scmulan("adapter", "list", tmp_path)[0] == 2


def test_several_sources_are_divided_as_one(trained, tmp_path):
    kidney(20).write_h5ad(tmp_path / "a.h5ad")
    kidney(20, seed=8).write_h5ad(tmp_path / "b.h5ad")
    given = {"base": str(trained.folder), "cells": ["a.h5ad", "b.h5ad"], "folder": str(tmp_path), "output": str(tmp_path / "o")}
    recipe = fill_finetune({**QUICK, **given}, "test")
    said: list[str] = []
    folder = run_finetune(recipe, say=said.append)
    card = open_adapter(folder).card
    rows = Corpus(tmp_path / "o" / "corpus").read()
    assert Counter(rows.splits) == Counter(card["held_out"]["cells"])
    of_donor = {(donor, split) for donor, split in zip(rows.donors, rows.splits, strict=True)}
    assert len(of_donor) == len({donor for donor, _ in of_donor})
    assert len(json.loads((folder / CARD).read_text())["sources"]) == 2


def test_no_sentence_is_longer_than_the_model_reads(quick, trained, tmp_path):
    folder, _ = quick(packing={"context": 512, "pack_tokens": 512}, steps=1)
    context = load_checkpoint(trained.folder).context
    assert open_adapter(folder).card["context"] == context < 512


def test_a_line_that_training_refuses_is_refused_before_any_work(trained, tmp_path):
    with pytest.raises(RecipeError, match="steps is -3: needed at least 1"):
        finetune(kidney(), tmp_path / "out", base=trained.folder, say=print, steps=-3)
    assert not (tmp_path / "out" / "corpus").exists()
