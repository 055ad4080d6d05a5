"""Gene rates: what a model expects of its own cells, how few cells are shrunk, their file, and the cells written by them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import NEW, QUICK, kidney

from scmulan import csentence, load
from scmulan.adapters_folder import RATES, merge, open_adapter
from scmulan.decoding.sampling import Sampling
from scmulan.engines.transformers_rates import expected_genes
from scmulan.errors import CheckpointError
from scmulan.finetune import finetune
from scmulan.rates import SHRINK, GeneRates, fit_rates, kind_of

KIDNEY = {"organism": "Homo sapiens", "organ": "kidney", "cell_type": "podocyte"}


def test_of_cells_that_a_model_wrote_it_expects_what_they_hold(model):
    rows = model.rows_for(150, {"organism": "Homo sapiens"}, 3)
    counts = model.write_counts(rows, Sampling(seed=5, least_hazard=0.0))
    cells = csentence.encode(counts, model.vocabulary)
    prompts = [model.writer.prompt("generate", row) for row in rows]
    expected = expected_genes(model.engine, prompts, [cells[row] for row in range(len(rows))])
    taken = np.asarray((counts > 0).sum(0), dtype=float).ravel()
    assert expected.sum() == pytest.approx(taken.sum(), rel=0.03)
    often = expected > 5
    errors = (taken - expected)[often] / np.sqrt(expected[often])
    assert 0.4 < np.sqrt((errors**2).mean()) < 1.3


def test_rates_are_ratios_that_few_cells_are_not_believed():
    taken = np.array([[40.0, 10.0, 0.0], [1.0, 0.0, 0.0]])
    expected = np.array([[20.0, 10.0, 0.0], [1.0, 0.0, 0.0]])
    rates = fit_rates(taken, expected, [("a",), ("b",)])
    assert rates.logs[:, 1] == pytest.approx([0, 0], abs=1e-6)
    assert rates.logs[:, 2] == pytest.approx([0, 0])
    of_all = (41 + SHRINK) / (21 + SHRINK)
    assert np.exp(rates.logs[0, 0]) == pytest.approx(43 / (20 + SHRINK / of_all), rel=1e-5)
    assert 0 < rates.logs[1, 0] < rates.logs[0, 0]


def test_the_file_gives_back_what_was_written_and_a_damaged_one_is_an_error(tmp_path):
    rates = GeneRates((("Homo sapiens", None, "podocyte"),), np.linspace(-2, 2, 30, dtype=np.float32)[None])
    rates.save(tmp_path)
    again = GeneRates.of(tmp_path)
    assert again is not None
    assert again.kinds == rates.kinds
    np.testing.assert_allclose(again.logs, rates.logs, atol=2e-3)
    assert again.of_row({"organism": "Homo sapiens", "cell_type": "podocyte", "assay": "10x 3' v3"}) is not None
    assert again.of_row({"organism": "Homo sapiens", "cell_type": "B cell"}) is None
    (tmp_path / RATES).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=r"rates\.safetensors: can't be read"):
        GeneRates.of(tmp_path)


# -- beside an adapter ----------------------------------------------------------------------------------------------------


def strange_kidney(n_cells: int):
    """Cells of kidney whose genes are others' in their numbers, so that a model that has not learnt them writes others."""
    cells = kidney(n_cells)
    cells.X = sp.csr_matrix(cells.X)[:, np.random.default_rng(0).permutation(cells.n_vars)]
    return cells


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """An adapter of six steps, which has learnt next to nothing of its cells."""
    said: list[str] = []
    output = tmp_path_factory.mktemp("rates") / "kidney"
    folder = finetune(strange_kidney(60), output, base=trained.folder, say=said.append, **{**QUICK, "tasks": {"generate": 1}})
    assert any(line.startswith("gene rates: ") for line in said)
    return folder


def distance(model, learnt, **asked) -> float:
    """How far the share of cells that detect each gene is from that of the cells learnt from, root mean square over genes."""
    shares = []
    for cells in (learnt, model.generate(n=60, seed=2, organ="kidney", cell_type="podocyte", **asked)):
        ready = model.read(cells, reserve=model.opened.reserve())
        shares.append(np.asarray((ready.counts > 0).mean(0)).ravel())
    return float(np.sqrt(((shares[0] - shares[1]) ** 2).mean()))


def test_cells_written_with_rates_are_nearer_to_those_learnt_from(tuned, trained, tmp_path):
    model = load(trained.folder, adapter=tuned)
    learnt = strange_kidney(60)
    learnt = learnt[learnt.obs["cell_type"] == "podocyte"].copy()
    with_rates = distance(model, learnt)
    assert with_rates < 0.8 * distance(model, learnt, rates=False)
    assert model.generate(n=2, organ="kidney").uns["scmulan"]["rates"]
    assert not model.generate(n=2, organ="kidney", rates=False).uns["scmulan"]["rates"]
    assert not model.generate(n=2, cell_type="B cell").uns["scmulan"]["rates"]
    merged = load(merge(trained.folder, tuned, tmp_path / "merged"))
    assert distance(merged, learnt) == pytest.approx(with_rates, rel=0.2)


def test_cells_of_other_kinds_are_written_as_the_adapter_alone_does(tuned, trained):
    model = load(trained.folder, adapter=tuned)
    rows = model.rows_for(6, {"cell_type": "B cell"}, 1)
    assert all(model.opened.rates.of_row(row) is None for row in rows)
    with_rates = model.write_counts(rows, Sampling(seed=1))
    assert (with_rates != model.write_counts(rows, Sampling(seed=1, rates=False))).nnz == 0
    model.use(None)
    assert model.opened.rates is None


def test_rows_with_and_without_rates_stand_in_one_batch(tuned, trained):
    model = load(trained.folder, adapter=tuned)
    new, old = model.rows_for(3, {"organ": "kidney"}, 1), model.rows_for(3, {"cell_type": "B cell"}, 1)
    both = model.write_counts([*new, *old], Sampling(seed=1))
    assert (both[:3] != model.write_counts(new, Sampling(seed=1))).nnz == 0


def test_the_card_says_so_and_the_hash_is_checked(tuned, tmp_path):
    card = open_adapter(tuned).card
    assert sorted(kind[2] for kind in card["rates"]["kinds"]) == sorted(NEW.values())
    assert "written with gene rates" in (tuned / "README.md").read_text()
    copied = shutil.copytree(tuned, tmp_path / "copied")
    GeneRates((("a", "b", "c"),), np.zeros((1, 3), np.float32)).save(copied)
    with pytest.raises(CheckpointError, match=RATES):
        open_adapter(copied)


@pytest.mark.parametrize("changed", [{"rates": False}, {"tasks": {"annotate": 1}}])
def test_there_are_none_where_the_recipe_says_so_or_no_cell_is_written(trained, tmp_path, changed):
    given = {**QUICK, "tasks": {"generate": 1}, **changed}
    folder = finetune(kidney(), tmp_path / "none", base=trained.folder, say=lambda line: None, **given)
    assert not (folder / RATES).exists()


def test_a_kind_is_organism_organ_and_type():
    assert kind_of({**KIDNEY, "assay": "10x"}) == ("Homo sapiens", "kidney", "podocyte")
    assert kind_of({"cell_type": "podocyte", "organ": ""}) == (None, None, "podocyte")
