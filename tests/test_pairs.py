"""First cells of sentences about two: controls by labels, ancestors as the corpus tells, a cell itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import random_counts

from scmulan import csentence
from scmulan.corpus.pack import SHALLOWER_RATES, Packing, counts_of, epoch_sentences, training_tasks
from scmulan.corpus.pairs import ancestors_of, controls_of, first_cells_of, selves
from scmulan.corpus.shards import CellRows

CELLS = [  # data set, donor, cell type, time, perturbation
    ("screen", "one", "B cell", None, "control"),
    ("screen", "one", "B cell", None, "STAT1 knockout"),
    ("screen", "one", "T cell", None, "control"),
    ("screen", "two", "B cell", None, "STAT1 knockout"),
    ("screen", "one", "T cell", "day 3", "STAT1 knockout"),
    ("other", None, "B cell", None, "STAT1 knockout"),
    ("other", None, "B cell", None, None),
    ("screen", "one", "B cell", None, "non-targeting control"),
]


@pytest.fixture(scope="module")
def rows(language):
    datasets, donors, types, times, perturbations = map(list, zip(*CELLS, strict=True))
    return CellRows(
        ids=csentence.encode(random_counts(len(CELLS), seed=2, mean_genes=90, deepest=30), language.vocabulary),
        fields={"cell_type": types, "time": times, "perturbation": perturbations},
        cell_ids=[f"cell{row}" for row in range(len(CELLS))],
        datasets=datasets,
        donors=donors,
        splits=["train"] * len(CELLS),
        weights=np.ones(len(CELLS), dtype=np.float32),
        fingerprints=np.zeros(len(CELLS), dtype=np.uint64),
        states=(("screen", "cell0", "cell4", 3.0), ("screen", "cell1", "cell4", 1.0), ("screen", "cell0", "elsewhere", 1.0)),
    )


def candidates(found, row):
    return found.rows[found.of_row[row]].tolist() if found.has(row) else []


def test_controls_share_all_that_a_perturbed_cell_is_beside_its_perturbation(rows):
    assert candidates(controls_of(rows), 1) == [0, 7]


@pytest.mark.parametrize(("row", "controls"), [(4, [2]), (3, [0, 7])])
def test_where_no_control_shares_time_or_donor_others_of_the_type_serve(rows, row, controls):
    assert candidates(controls_of(rows), row) == controls


def test_no_control_is_of_another_data_set_or_split_and_no_control_needs_one(rows):
    found = controls_of(rows)
    assert [row for row in range(len(rows)) if not found.has(row)] == [2, 5, 6]
    held_out = replace(rows, splits=["train" if label and "control" in label else "test" for label in rows.fields["perturbation"]])
    assert np.flatnonzero(controls_of(held_out).of_row >= 0).tolist() == [0, 7]


def test_a_control_has_another_control_first_and_never_itself(rows):
    found = controls_of(rows)
    assert {found.draw(0, uniform) for uniform in np.linspace(0, 0.999, 50)} == {7}
    assert not found.has(2)  # the only T cell among controls


def test_ancestors_are_drawn_by_their_weights_and_those_not_at_hand_are_passed_by(rows):
    found = ancestors_of(rows)
    assert np.flatnonzero(found.of_row >= 0).tolist() == [4]
    drawn = [found.draw(4, uniform) for uniform in (np.arange(400) + 0.5) / 400]
    assert [drawn.count(row) for row in (0, 1)] == [300, 100]
    assert found.draw(4, 0.999999999999) == 1


def test_a_cell_is_its_own_shallower_self(rows):
    found = selves(rows)
    assert [found.draw(row, 0.5) for row in range(len(rows))] == list(range(len(rows)))


def test_only_the_kinds_asked_for_are_looked_for(rows):
    assert list(first_cells_of(rows, {"control"})) == ["control"]
    assert first_cells_of(rows, set()) == {}


def test_a_perturbed_cell_stands_after_a_whole_control_and_its_perturbation(language, rows):
    only = {name: replace(task, weight=float(name == "perturb")) for name, task in language.prompts.tasks.items()}
    writer = type(language.writer)(language.tokenizer, language.vocabulary, replace(language.prompts, tasks=only))
    sentences, drawn = epoch_sentences(rows, counts_of(rows.ids, writer), writer, Packing(context=700, thin_share=0.0), seed=0, epoch=0)
    assert [task.name for task in training_tasks(writer)] == ["perturb"]
    assert not drawn.any()
    v, sentence = language.vocabulary, sentences[1].ids.tolist()
    first = sentence[sentence.index(v.cell) : sentence.index(v.end_of_cell) + 1]
    assert first in (rows.ids[0].tolist(), rows.ids[7].tolist())
    after = sentence[sentence.index(v.end_of_cell) + 1 :]
    assert after == [
        *writer.field_ids("perturbation", "STAT1 knockout").tolist(),
        writer.control_id("<task:perturb>"),
        *rows.ids[1].tolist(),
        v.eos,
    ]


def test_the_first_cell_of_enhance_is_the_cell_with_fewer_counts(language, rows):
    only = {name: replace(task, weight=float(name == "enhance")) for name, task in language.prompts.tasks.items()}
    writer = type(language.writer)(language.tokenizer, language.vocabulary, replace(language.prompts, tasks=only))
    packing, v = Packing(context=700, thin_share=0.0), language.vocabulary
    for row, sentence in enumerate(epoch_sentences(rows, counts_of(rows.ids, writer), writer, packing, seed=0, epoch=0)[0]):
        ids = sentence.ids.tolist()
        shallow, whole = (
            csentence.decode_many([cell], v) for cell in (ids[ids.index(v.cell) : ids.index(v.end_of_cell) + 1], rows.ids[row])
        )
        assert (shallow > whole).nnz == 0
        assert SHALLOWER_RATES[0] / 2 < shallow.sum() / whole.sum() < 1.3 * SHALLOWER_RATES[1]


def test_sentences_about_two_cells_fit_the_context(language, rows):
    deep = replace(rows, ids=csentence.encode(random_counts(len(CELLS), seed=3, mean_genes=250, deepest=60), language.vocabulary))
    sentences, _ = epoch_sentences(deep, counts_of(deep.ids, language.writer), language.writer, Packing(context=300), seed=0, epoch=0)
    assert max(len(sentence.ids) for sentence in sentences) <= 300


def test_a_context_without_room_for_two_cells_holds_sentences_about_one(language, rows):
    tasks = training_tasks(language.writer)
    for context in (110, 130):
        sentences, drawn = epoch_sentences(
            rows, counts_of(rows.ids, language.writer), language.writer, Packing(context=context), seed=0, epoch=0
        )
        assert max(len(sentence.ids) for sentence in sentences) <= context
        assert all(tasks[code].first_cell is None for code in drawn)
