"""The readout of counts: what it says, how its voices are weighed, its file, and its place beside an adapter's answer."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import NEW, QUICK, kidney
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import load
from scmulan.adapters_folder import READOUT, merge, open_adapter
from scmulan.errors import CellDataError, CheckpointError
from scmulan.finetune import finetune
from scmulan.measures import metrics
from scmulan.measures.baselines import fit_logistic_regression
from scmulan.model import CARD
from scmulan.readout import Readout, fit_readout

GENES = 400
CONTEXT = 96
"""What the adapter learns from, half of what its base can hold."""


def cells_of(n: int, seed: int, depth: int = 600, kinds: int = 4) -> tuple[sp.csr_matrix, list[str]]:
    """Cells of kinds that differ in some genes of their profile."""
    profiles = np.random.default_rng(1).gamma(0.3, size=(1, GENES)) * np.exp(np.random.default_rng(2).normal(0, 0.5, (kinds, GENES)))
    profiles /= profiles.sum(1, keepdims=True)
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % kinds
    counts = np.stack([rng.multinomial(depth, profiles[k]) for k in kind])
    return sp.csr_matrix(counts.astype(np.int32)), [f"kind {k}" for k in kind]


def accuracy(readout: Readout, counts: sp.csr_matrix, true: list[str], **asked) -> float:
    said = readout.log_probabilities(counts, **asked)
    return float(np.mean([readout.labels[place] == label for place, label in zip(said.argmax(1), true, strict=True)]))


@pytest.mark.slow
def test_it_is_no_worse_than_logistic_regression_on_few_cells():
    ours, theirs = [], []
    for seed in range(5):
        counts, labels = cells_of(20, seed)
        new, true = cells_of(200, seed + 100)
        ours.append(accuracy(fit_readout(counts, labels), new, true))
        theirs.append(metrics.annotation(true, fit_logistic_regression(counts, labels).predict(new).labels).accuracy)
    assert np.mean(ours) >= np.mean(theirs)
    assert np.mean(ours) > 0.6


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(4, 40), kinds=st.integers(2, 5), asked=st.integers(1, 5))
def test_probabilities_add_up_to_one_among_the_labels_asked_of(seed, n, kinds, asked):
    counts, labels = cells_of(max(n, kinds), seed, depth=50, kinds=kinds)
    readout = fit_readout(counts, labels, seed=seed)
    names = list(readout.labels)[: min(asked, kinds)]
    said = readout.log_probabilities(cells_of(3, seed + 1, depth=5)[0], names)
    assert said.shape == (3, len(names))
    np.testing.assert_allclose(np.exp(said).sum(1), 1)


def test_genes_that_were_not_measured_are_no_evidence():
    counts, labels = cells_of(200, 0)
    new, true = cells_of(200, 7)
    panel = np.arange(GENES) % 2 == 0
    readout = fit_readout(counts, labels)
    blind = sp.csr_matrix(new.multiply(panel[None]))
    assert accuracy(readout, blind, true, panel=panel) > 0.9
    none = readout.log_probabilities(blind[:5], panel=np.zeros(GENES, bool))
    assert np.isfinite(none).all()


def test_a_voice_that_only_guesses_is_not_trusted():
    rng = np.random.default_rng(0)
    counts, labels = cells_of(60, 0)
    deep = counts.copy()
    deep.data = deep.data * 1000 ** (rng.random(deep.data.size) < 0.02)  # a few counts outweigh all others, which the logarithm bears
    regression, multinomial = fit_readout(sp.csr_matrix(deep), labels).trust
    clean_regression, clean_multinomial = fit_readout(counts, labels).trust
    assert multinomial / regression < clean_multinomial / clean_regression


@pytest.mark.parametrize(("said", "weight"), [("right", 1.0), ("wrong", 0.0)])
def test_the_models_answer_is_weighed_as_it_serves_on_held_out_cells(said, weight):
    counts, labels = cells_of(20, 0, depth=60)
    held, true = cells_of(200, 9, depth=60)
    readout = fit_readout(counts, labels)
    place = np.array([readout.labels.index(label) for label in true])
    place = place if said == "right" else (place + 1) % len(readout.labels)
    answers = np.where(np.eye(len(readout.labels), dtype=bool)[place], np.log(0.9), np.log(0.1 / 3))
    found = readout.with_answer(answers, held, true)
    assert found.answer >= weight if said == "right" else found.answer == weight
    assert readout.answer == 0
    assert readout.with_answer(answers[:0], held[:0], []).answer == 0
    assert readout.with_answer(answers[:1], held[:1], ["never seen"]).answer == 0


def test_it_is_read_back_as_it_was_written(tmp_path):
    counts, labels = cells_of(30, 0)
    new, _ = cells_of(50, 3)
    readout = fit_readout(counts, labels)
    readout.save(tmp_path)
    again = Readout.of(tmp_path)
    assert again is not None
    assert again.labels == readout.labels
    np.testing.assert_allclose(again.log_probabilities(new), readout.log_probabilities(new), atol=0.02)
    assert Readout.of(tmp_path / "nowhere") is None


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / READOUT).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="can't be read"):
        Readout.of(tmp_path)


def test_one_label_is_refused():
    with pytest.raises(CellDataError, match="every cell is 'kind 0'"):
        fit_readout(*cells_of(5, 0, kinds=1))


# -- beside an adapter ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """An adapter of two steps: what it knows of kidney, its readout knows."""
    output = tmp_path_factory.mktemp("readout") / "kidney"
    said: list[str] = []
    short = {"context": CONTEXT, "pack_tokens": 512}
    folder = finetune(kidney(), output, base=trained.folder, say=said.append, **{**QUICK, "tasks": {"annotate": 1}, "packing": short})
    assert any(line.startswith("readout of counts: ") for line in said)
    return folder


def right(model, **asked) -> float:
    cells = kidney(30, seed=9)
    truth = cells.obs["cell_type"].tolist()
    model.annotate(cells, **asked)
    return float(np.mean([a == b for a, b in zip(truth, cells.obs["scmulan_cell_type"], strict=True)]))


def test_an_adapter_answers_with_its_readout_and_a_merged_model_too(tuned, trained, tmp_path):
    model = load(trained.folder, adapter=tuned)
    assert right(model) > 0.9
    cells = kidney(4, seed=9)
    table = model.annotate(cells)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert cells.uns["scmulan"]["readout"]
    model.annotate(cells, readout=False)
    assert not cells.uns["scmulan"]["readout"]
    merged = load(merge(trained.folder, tuned, tmp_path / "merged"))
    assert right(merged, labels=list(NEW.values())) > 0.9


def test_labels_that_a_readout_does_not_know_keep_their_shares(tuned, trained):
    model = load(trained.folder, adapter=tuned)
    labels = [*NEW.values(), "B cell"]
    with_it, without = (model.annotate(kidney(6, seed=3), labels=labels, readout=readout) for readout in (True, False))
    np.testing.assert_allclose(with_it["B cell"], without["B cell"], rtol=1e-6)
    model.use(None)
    assert model.opened.readout is None


def test_the_card_says_what_the_readout_is_and_its_hash_is_checked(tuned, tmp_path):
    card = open_adapter(tuned).card
    assert card["readout"]["labels"] == sorted(NEW.values())
    assert card["readout"]["cells"] == 40
    copied = shutil.copytree(tuned, tmp_path / "copied")
    (copied / READOUT).unlink()
    with pytest.raises(CheckpointError, match=READOUT):
        open_adapter(copied)
    card = json.loads((copied / CARD).read_text())
    del card["readout"]
    (copied / CARD).write_text(json.dumps(card))
    assert open_adapter(copied).card.get("readout") is None


def test_it_is_left_out_where_the_recipe_says_so_or_nothing_is_annotated(trained, tmp_path):
    for name, changed in (("no", {"readout": False}), ("generate", {"tasks": {"generate": 1}})):
        folder = finetune(kidney(), tmp_path / name, base=trained.folder, say=lambda line: None, **{**QUICK, **changed})
        assert not (folder / READOUT).exists()


# -- how long a cell is read ----------------------------------------------------------------------------------------------


def test_cells_are_read_at_the_length_that_was_learnt_in_views_that_differ(tuned, trained):
    model = load(trained.folder, adapter=tuned)
    cells = kidney(3, seed=9)
    cells.X = sum(kidney(3, seed=seed).X for seed in range(9, 19))  # deeper ones
    assert model.opened.length == CONTEXT < model.checkpoint.context
    ready = model.read(cells, reserve=model.opened.reserve())
    assert ready.thinned.all()
    assert max(len(ready.ids[row]) for row in range(3)) <= model.opened.length
    assert ready.whole.sum() > ready.counts.sum()
    views = model.opened.views(ready.whole)
    assert len(views) == model.checkpoint.context // model.opened.length > 1
    assert views[0][0].tolist() == ready.ids[0].tolist()
    assert views[0][0].tolist() != views[1][0].tolist()
    model.use(None)
    assert model.opened.length == model.checkpoint.context
    assert len(model.opened.views(ready.whole)) == 1


def test_cells_that_fit_are_read_once(tuned, trained):
    model = load(trained.folder, adapter=tuned)
    ready = model.read(kidney(3, seed=9))
    small = ready.whole.copy()
    small.data[small.data < 3] = 0
    small.eliminate_zeros()
    assert len(model.opened.views(small)) == 1
