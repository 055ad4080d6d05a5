"""Rates: what a model expects of its own cells, how few cells are shrunk, their file, and the cells written by them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import NEW, QUICK, kidney

from scmulan import csentence, load
from scmulan.adapters_folder import RATES, merge, open_adapter
from scmulan.decoding.sampling import Sampling
from scmulan.engines.transformers_likelihood import rated_nats
from scmulan.engines.transformers_rates import counts_along, taken_and_expected
from scmulan.errors import CheckpointError
from scmulan.finetune import finetune
from scmulan.rates import SHRINK, Rates, RatesOfKind, fit_rates, kind_of

KIDNEY = {"organism": "Homo sapiens", "organ": "kidney", "cell_type": "podocyte"}


def test_of_cells_that_a_model_wrote_it_expects_what_they_hold(model):
    rows = model.rows_for(150, {"organism": "Homo sapiens"}, 3)
    counts = model.write_counts(rows, Sampling(seed=5, least_hazard=0.0))
    v = model.vocabulary
    cells = csentence.encode(counts, v)
    prompts = [model.writer.prompt("generate", row) for row in rows]
    taken, expected = taken_and_expected(model.engine, prompts, [cells[row] for row in range(len(rows))])
    genes, depths = slice(v.first_gene, v.last_gene), slice(v.first_depth, v.first_level)
    np.testing.assert_array_equal(taken[1, genes], np.asarray((counts > 0).sum(0)).ravel())
    assert taken[0, depths].sum() == pytest.approx(expected[0, depths].sum()) == len(rows)
    assert taken[1, v.end_of_cell] == len(rows)
    assert expected[1, genes].sum() == pytest.approx(taken[1, genes].sum(), rel=0.08)  # five times what it varies by from draw to draw
    often = expected > 5
    errors = (taken - expected)[often] / np.sqrt(expected[often])
    assert 0.4 < np.sqrt((errors**2).mean()) < 1.3


def test_rates_are_ratios_that_few_cells_are_not_believed(model):
    v = model.vocabulary
    taken, expected = np.zeros((2, 2, v.size)), np.zeros((2, 2, v.size))
    taken[0, 1, v.first_gene : v.first_gene + 3], taken[1, 1, v.first_gene : v.first_gene + 3] = [40, 10, 0], [1, 0, 0]
    expected[0, 1, v.first_gene : v.first_gene + 3], expected[1, 1, v.first_gene : v.first_gene + 3] = [20, 10, 0], [1, 0, 0]
    rates = fit_rates(taken, expected, [("a",), ("b",)], v).of_kind
    genes = np.exp(np.stack([rates[("a",)].genes, rates[("b",)].genes]))
    assert genes[:, 1:] == pytest.approx(np.ones((2, v.n_genes - 1)), abs=1e-6)
    of_all = (41 + SHRINK) / (21 + SHRINK)
    assert genes[0, 0] == pytest.approx((40 + SHRINK) / (20 + SHRINK / of_all), rel=1e-5)
    assert 1 < genes[1, 0] < genes[0, 0]
    assert not rates[("a",)].frame.any()


def test_levels_that_the_model_puts_too_high_fall_with_those_beside_them(model):
    v = model.vocabulary
    taken, expected = np.zeros((1, 2, v.size)), np.zeros((1, 2, v.size))
    taken[0, 0, v.level_id(6)], expected[0, 0, v.level_id(6)], expected[0, 0, v.level_id(30)] = 50, 10, 40
    first, after = fit_rates(taken, expected, [("a",)], v).of_kind[("a",)].frame
    first = dict(zip(range(v.first_depth, v.end_of_cell + 1), first, strict=True))
    assert first[int(v.level_id(6))] > first[int(v.level_id(7))] > first[int(v.level_id(8))] > 0.5
    assert first[int(v.level_id(30))] < first[int(v.level_id(31))] < first[int(v.level_id(32))] < -0.5
    assert first[int(v.level_id(20))] == first[v.end_of_cell] == 0
    assert not after.any()


def test_the_file_gives_back_what_was_written_and_a_damaged_one_is_an_error(tmp_path):
    kind = ("Homo sapiens", None, "podocyte", None, "generate")
    rates = Rates({kind: RatesOfKind(np.linspace(-2, 2, 30, dtype=np.float32), np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 10))})
    rates.save(tmp_path)
    again = Rates.of(tmp_path)
    assert again is not None
    assert list(again.of_kind) == [kind]
    for part, was in zip(again.of_kind[kind], rates.of_kind[kind], strict=True):
        np.testing.assert_allclose(part, was, atol=2e-3)
    assert again.of_row({"organism": "Homo sapiens", "cell_type": "podocyte", "assay": "10x 3' v3"}) is again.of_kind[kind]
    assert again.of_row({"organism": "Homo sapiens", "cell_type": "B cell"}) is None
    (tmp_path / RATES).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=r"rates\.st: can't be read"):
        Rates.of(tmp_path)


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
    assert any(line.startswith("rates of generate: ") for line in said)
    return folder


def distance(model, learnt, **asked) -> float:
    """How far the share of cells that detect each gene is from that of the cells learnt from, root mean square over genes."""
    shares = []
    for cells in (learnt, model.generate(n=60, seed=2, organ="kidney", cell_type="podocyte", **asked)):
        ready = model.read(cells, reserve=model.opened.reserve())
        shares.append(np.asarray((ready.counts > 0).mean(0)).ravel())
    return float(np.sqrt(((shares[0] - shares[1]) ** 2).mean()))


def test_rates_under_their_name_of_before_are_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "rates.safetensors").touch()
    with pytest.raises(CheckpointError, match=f"rates.safetensors: rates are read from {RATES} now; rename the file"):
        Rates.of(tmp_path)


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
    assert "written with rates" in (tuned / "README.md").read_text()
    copied = shutil.copytree(tuned, tmp_path / "copied")
    Rates({("a", "b", "c"): RatesOfKind(np.zeros(3, np.float32), np.zeros((2, 4), np.float32))}).save(copied)
    with pytest.raises(CheckpointError, match=RATES):
        open_adapter(copied)


@pytest.mark.parametrize("changed", [{"rates": False}, {"tasks": {"annotate": 1}}])
def test_there_are_none_where_the_recipe_says_so_or_no_cell_is_written(trained, tmp_path, changed):
    given = {**QUICK, "tasks": {"generate": 1}, **changed}
    folder = finetune(kidney(), tmp_path / "none", base=trained.folder, say=lambda line: None, **given)
    assert not (folder / RATES).exists()


def test_a_kind_is_organism_organ_and_type():
    assert kind_of({**KIDNEY, "assay": "10x"}) == ("Homo sapiens", "kidney", "podocyte", None, "generate")
    assert kind_of({"cell_type": "podocyte", "organ": ""}, "perturb") == (None, None, "podocyte", None, "perturb")


def cells_of(model, n=6):
    rows = model.rows_for(n, {"organism": "Homo sapiens"}, 3)
    cells = csentence.encode(model.write_counts(rows, Sampling(seed=5)), model.vocabulary)
    return [model.writer.prompt("generate", row) for row in rows], [cells[row] for row in range(n)]


def test_without_rates_a_cell_is_as_likely_as_the_model_says(model):
    prompts, cells = cells_of(model)
    plain = [each.sum() for each in model.engine.nats(prompts, cells)]
    for number, cell in enumerate(cells):
        found = rated_nats(model.engine, [prompts[number], prompts[0]], cell, [None, None])
        assert found[0] == pytest.approx(plain[number], rel=1e-4)


@pytest.mark.parametrize("part", ["genes", "frame"])
def test_a_rate_moves_the_nats_as_far_as_more_was_expected_than_taken(model, part):
    prompts, cells = cells_of(model)
    v, small = model.vocabulary, 0.01
    spans = {"genes": slice(v.first_gene, v.last_gene), "frame": slice(v.first_depth, v.end_of_cell + 1)}
    shapes = {"genes": v.n_genes, "frame": (2, v.end_of_cell + 1 - v.first_depth)}
    none = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    steps = np.random.default_rng(0).normal(size=shapes[part]).astype(np.float32)
    up, down = (RatesOfKind(**none | {part: sign * small * steps}) for sign in (1, -1))
    both = np.sum([rated_nats(model.engine, [prompt] * 2, cell, [up, down]) for prompt, cell in zip(prompts, cells, strict=True)], axis=0)
    taken, expected = taken_and_expected(model.engine, prompts, cells)
    slope = float(((expected - taken)[:, spans[part]] * steps).sum())
    assert (both[0] - both[1]) / (2 * small) == pytest.approx(slope, rel=0.03, abs=0.05)


def test_counts_along_a_cell_are_the_chances_at_its_levels_times_their_counts(model):
    prompts, cells = cells_of(model)
    v = model.vocabulary
    genes = slice(v.first_gene, v.last_gene)
    assert counts_along(model.engine, prompts, cells).shape == (len(cells), v.n_genes)
    for count in (1, 4):
        for cell in csentence.encode(sp.csr_matrix(np.eye(3, v.n_genes, 4, dtype=np.int32) * count), v):
            _, expected = taken_and_expected(model.engine, prompts[:1], [cell])
            along = counts_along(model.engine, prompts[:1], [cell]).toarray()[0]
            np.testing.assert_allclose(along, count * expected[1, genes], atol=2e-4)
