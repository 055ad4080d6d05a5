"""The evaluation: every figure has its baselines on the same cells and genes, and everything is plain values."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import scipy.sparse as sp

from scmulan import evaluate as evaluation_module
from scmulan.csentence import LEVEL_FLOORS
from scmulan.errors import CellDataError, PromptError
from scmulan.evaluate import bars, evaluate, evaluate_files, read_split, to_text, write
from scmulan.evaluate.cells import WEIGHED, at_most, at_most_per_type, fields_of, pooled, shared_ground
from scmulan.evaluate.generation import BINOMIAL, DEPTH_GIVEN, MULTINOMIAL, REAL, REGRESSION, over_table, real_again, write_cells
from scmulan.evaluate.likelihood import _span_nats
from scmulan.evaluate.page import beats
from scmulan.measures import two_sample

pytest.importorskip("matplotlib")
MODEL = "scmulan"


@pytest.fixture(scope="module")
def human(trained):
    return trained.plan.parent / "human.h5ad"


@pytest.fixture(scope="module")
def split(human):
    return read_split(human)


@pytest.fixture(scope="module")
def found(model, split):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "N_TREES", 20)
        return evaluate(model, *split, seeds=2)


def test_every_answer_stands_beside_logistic_regression_and_the_commonest_label(found):
    assert list(found.annotation) == [MODEL, WEIGHED, REGRESSION, "commonest label"]
    assert len({each.n for each in found.annotation.values()}) == 1


def test_every_answer_says_how_far_off_its_mistakes_are_and_how_often_the_lineage_is_right(found):
    for each in found.annotation.values():
        assert each.mistakes.n_wrong == round((1 - each.accuracy) * each.n)
        assert each.mistakes.lineage_accuracy >= each.accuracy
    line = next(line for line in to_text(found).splitlines() if "commonest label" in line)
    assert re.search(r"lineage 0\.\d+, mistakes \d+\.\d+ steps off$", line), line


def test_generated_cells_stand_beside_simulators_and_real_cells_in_equal_number(found):
    assert list(found.generation.kinds) == [MODEL, DEPTH_GIVEN, BINOMIAL, MULTINOMIAL, REAL]
    assert {each.two_sample.n for each in found.generation.kinds.values()} == {found.cells.n_held_out}
    assert {frozenset(each.recognised) for each in found.generation.kinds.values()} == {frozenset([REGRESSION, MODEL])}


def test_each_seed_gives_a_two_sample_figure_and_the_first_is_the_one_shown(found):
    assert len(found.generation.seeds) == 2
    assert found.generation.seeds[0] == found.generation.kinds[MODEL].two_sample


def test_nats_stand_beside_the_negative_binomial_and_are_the_sum_of_their_parts(found):
    for each in found.likelihood:
        assert list(each.nats) == [MODEL, BINOMIAL]
        assert each.nats[MODEL] == pytest.approx(sum(nats for part, nats in each.parts.items() if part != "depth"))
        assert set(each.by_type) == set(found.cells.types)


def test_an_evaluation_is_plain_json_without_nan(found):
    content = dataclasses.asdict(found)
    assert json.loads(json.dumps(content, allow_nan=False)) == json.loads(json.dumps(content))


def test_the_page_shows_every_section_and_the_json_holds_every_figure(found, tmp_path):
    paths = write(found, tmp_path / "new")
    html = paths["html"].read_text()
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert [title for title in titles if title.startswith(("Labels", "Cells it", "How likely"))] == [
        "Labels of cells it has not seen", "Cells it writes", "How likely it finds cells it has not seen"
    ]  # fmt: skip
    assert json.loads(paths["json"].read_text())["annotation"][MODEL]["accuracy"] == found.annotation[MODEL].accuracy


def test_the_text_names_every_baseline(found):
    text = to_text(found)
    assert all(name in text for name in (REGRESSION, "commonest label", BINOMIAL, MULTINOMIAL, REAL))


def test_only_the_sections_asked_for_are_measured(model, split):
    found = evaluate(model, *split, sections=["annotation"], most_cells=9)
    assert found.generation is None
    assert found.likelihood is None
    assert found.cells.n_held_out == 9


def test_an_unknown_section_is_an_error_that_names_the_nearest(model, split):
    with pytest.raises(PromptError, match="annotation"):
        evaluate(model, *split, sections=["anotation"])


def test_a_file_named_on_both_sides_is_divided_by_its_split(model, human, split):
    one = evaluate_files(model, [human], [human], sections=["annotation"])
    assert (one.cells.n_held_out, one.cells.n_train) == (len(split[0]), len(split[1]))


def test_a_file_without_a_split_says_which_columns_it_has(human):
    with pytest.raises(CellDataError, match="donor"):
        read_split(human, column="fold")


def test_a_split_without_held_out_cells_is_an_error(human):
    with pytest.raises(CellDataError, match="valid"):
        read_split(human, held_out="valid")


def test_cells_of_a_type_that_was_not_trained_on_are_counted_not_dropped_in_silence(model, split):
    held, train = split
    few = train.take([row for row, label in enumerate(train.fields["cell_type"]) if label != "B cell"])
    ground = shared_ground(model, held, few)
    assert ground.left_out == {"type not among the training cells": held.fields["cell_type"].count("B cell")}
    assert "B cell" not in ground.types


def test_no_cell_to_measure_on_is_an_error(model, split):
    held, train = split
    of = {label: [row for row, name in enumerate(cells.fields["cell_type"]) if name == label] for label, cells in (("B cell", held),)}
    others = train.take([row for row, label in enumerate(train.fields["cell_type"]) if label != "B cell"])
    with pytest.raises(CellDataError, match="none of"):
        shared_ground(model, held.take(of["B cell"]), others)


def test_pooled_cells_keep_their_counts_and_fields(trained):
    parts = [read_split(trained.plan.parent / name)[0] for name in ("human.h5ad", "mouse.h5ad")]
    both = pooled(parts)
    assert len(both) == sum(map(len, parts))
    assert both.fields["cell_type"] == parts[0].fields["cell_type"] + parts[1].fields["cell_type"]
    assert both.counts.sum() == sum(part.counts.sum() for part in parts)
    assert set(both.measured) == set(parts[0].measured) | set(parts[1].measured)


def test_fewer_cells_keep_every_type(model, split):
    ground = shared_ground(model, *split)
    assert set(at_most(ground, 4, 0).types) == set(ground.types)
    assert max(at_most_per_type(ground, 2, 0).types.count(label) for label in ground.types) == 2


def test_generated_counts_lie_at_their_genes_rows(model):
    counts = sp.csr_matrix(np.arange(model.vocabulary.n_genes)[None] + 1)
    row = over_table(model, counts).tocoo()
    symbols = [str(model.table.symbols[column]) for column in row.col]
    assert {symbol: int(n) for symbol, n in zip(symbols, row.data, strict=True)} == {
        symbol: place + 1 for place, symbol in enumerate(model.vocabulary.genes)
    }


def test_each_cell_written_depends_on_its_prompt_and_the_seed_alone(model, split):
    prompts = fields_of(model, split[0])[:6]
    whole, again, other = (write_cells(model, prompts, seed=seed) for seed in (1, 1, 2))
    assert (whole != again).nnz == 0
    assert (whole != other).nnz > 0


def test_cells_written_at_a_depth_come_near_it(model, split):
    prompts = fields_of(model, split[0])[:8]
    low, high = (write_cells(model, prompts, seed=0, depths=np.full(8, depth)) for depth in (2, 100_000))
    assert low.shape == high.shape == (8, len(model.table))


def test_cells_written_around_a_gene_hold_it_at_its_count(model):
    row = {"organism": "Homo sapiens", "organ": "blood"}
    cells = write_cells(model, [row] * 3, seed=0, around=[{"GATA1": 4, "SPI1": 1}] * 3)
    columns = model.table.index_of_symbols(["GATA1", "SPI1"])
    assert cells[:, columns].toarray().tolist() == [[4, 1]] * 3


def test_real_cells_drawn_again_are_training_cells_of_the_same_types(model, split):
    ground = shared_ground(model, *split)
    rows = real_again(ground, np.random.default_rng(0))
    assert sorted(ground.train_types[row] for row in rows) == sorted(ground.types)
    assert len(set(rows)) == len(rows)


def test_counts_up_to_ten_cost_nothing_within_their_level_and_larger_ones_do():
    spans = _span_nats(np.arange(1, 16))
    assert not spans[:10].any()
    assert spans[12] == pytest.approx(np.log(LEVEL_FLOORS[11] - LEVEL_FLOORS[10]))


@pytest.mark.parametrize(
    ("ours", "theirs", "lower", "said"),
    [(0.9, 0.8, False, "better than"), (0.9, 0.8, True, "worse than"), (0.9, 0.90004, False, "no better than")],
)
def test_a_claim_is_made_only_where_the_figure_is_better(ours, theirs, lower, said):
    assert beats(ours, theirs, is_lower_better=lower) == said


def test_bars_take_any_number_of_steps(capsys):
    with bars() as on_progress:
        for step in ("one", "two", "one"):
            on_progress(step, 0, 2)
            on_progress(step, 2, 2)
    assert capsys.readouterr().out == ""


def test_public_names_exist():
    assert all(hasattr(evaluation_module, name) for name in evaluation_module.__all__)
