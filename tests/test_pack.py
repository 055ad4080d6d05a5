"""Packs: every token of every sentence, nothing cut, little room lost, and a function of (corpus, seed, epoch) alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_counts
from hypothesis import given
from hypothesis import strategies as st

from scmulan import csentence
from scmulan.automaton import legal_targets
from scmulan.corpus.pack import Packing, counts_of, epoch_packs, epoch_sentences, pack, sentence_tasks, training_tasks
from scmulan.corpus.shards import CellRows
from scmulan.csentence import Ragged
from scmulan.errors import RecipeError
from scmulan.prompts import Sentence, SentenceWriter

N_CELLS = 240
PACKING = Packing(context=200, pack_tokens=800, thin_share=0.5, thin_least=0.3)


@pytest.fixture(scope="module")
def rows(language):
    """Cells of two data sets; those of the second know only their perturbation, dose and time."""
    known = np.arange(N_CELLS) < N_CELLS // 2
    return CellRows(
        ids=csentence.encode(random_counts(N_CELLS, seed=6, mean_genes=90, deepest=30), language.vocabulary),
        fields={
            "organism": ["Homo sapiens" if is_known else None for is_known in known],
            "organ": ["blood" if is_known else None for is_known in known],
            "cell_type": [("B cell", "naive T cell")[row % 2] if known[row] else None for row in range(N_CELLS)],
            "perturbation": [None if is_known else "GATA1 knockout" for is_known in known],
            "dose": [None if is_known else "10 nM" for is_known in known],
            "time": [None if is_known else "day 7" for is_known in known],
        },
        cell_ids=[f"cell{row}" for row in range(N_CELLS)],
        datasets=["first" if is_known else "second" for is_known in known],
        donors=[None] * N_CELLS,
        splits=["train"] * N_CELLS,
        weights=np.ones(N_CELLS, dtype=np.float32),
        fingerprints=np.zeros(N_CELLS, dtype=np.uint64),
    )


def made(rows, language, packing=PACKING, **changes):
    arguments = {"seed": 0, "epoch": 0, **changes}
    return epoch_sentences(rows, counts_of(rows.ids, language.writer), language.writer, packing, **arguments)


def of_one_cell(language):
    """The language without the tasks about two cells."""
    tasks = {name: task for name, task in language.prompts.tasks.items() if task.first_cell is None}
    prompts = replace(language.prompts, tasks=tasks)
    return replace(language, prompts=prompts, writer=SentenceWriter(language.tokenizer, language.vocabulary, prompts))


def packed(rows, language, packing=PACKING, **changes):
    return epoch_packs(rows, counts_of(rows.ids, language.writer), language.writer, packing, **{"seed": 0, "epoch": 0, **changes})


def unpacked(packs):
    """(ids, parts, task) of every sentence of some packs."""
    for place, bounds in enumerate(packs.bounds):
        for task, first, last in zip(packs.tasks[place], bounds[:-1], bounds[1:], strict=True):
            yield tuple(packs.ids[place, first:last].tolist()), tuple(packs.parts[place, first:last].tolist()), int(task)


def cell_of(ids, v):
    """The cell that a sentence is about: the last of those in it."""
    ids = list(ids)
    return ids[len(ids) - 1 - ids[::-1].index(v.cell) : len(ids) - ids[::-1].index(v.end_of_cell)]


def dummy_sentences(lengths):
    rng = np.random.default_rng(1)
    return [Sentence(rng.integers(1, 900, length), rng.integers(0, 9, length).astype(np.uint8)) for length in lengths]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(60, 100), st.integers(0, 9))
def test_packing_loses_no_token_and_cuts_no_sentence(lengths, size, seed):
    sentences, tasks = dummy_sentences(lengths), np.arange(len(lengths), dtype=np.uint8)
    packs = pack(sentences, tasks, Packing(context=60, pack_tokens=size), np.random.default_rng(seed))
    given = Counter((tuple(s.ids.tolist()), tuple(s.parts.tolist()), int(task)) for s, task in zip(sentences, tasks, strict=True))
    assert Counter(unpacked(packs)) == given
    for place, bounds in enumerate(packs.bounds):
        assert (packs.ids[place, bounds[-1] :] == 0).all()
        assert (packs.parts[place, bounds[-1] :] == 0).all()
    assert packs.fill == pytest.approx(sum(lengths) / max(packs.ids.size, 1))


@pytest.mark.parametrize(("context", "pack_tokens"), [(1024, 4096), (1024, 8192), (2048, 4096), (2048, 16384)])
def test_packs_of_sentences_of_real_lengths_are_at_least_99_percent_full(context, pack_tokens):
    lengths = np.random.default_rng(0).lognormal(np.log(0.6 * context), 0.45, 3000).clip(20, context).astype(int)
    packs = pack(
        dummy_sentences(lengths),
        np.zeros(3000, dtype=np.uint8),
        Packing(context=context, pack_tokens=pack_tokens),
        np.random.default_rng(0),
    )
    assert packs.fill >= 0.99


def test_the_last_two_sentences_of_a_pack_are_the_pair_that_fills_it():
    """Longest first alone would put 60 beside 36, and nothing fits the last 4."""
    lengths = [60, 36, 22, 18]
    packs = pack(dummy_sentences(lengths), np.zeros(4, np.uint8), Packing(context=60, pack_tokens=100), np.random.default_rng(0))
    assert sorted(sorted(np.diff(bounds).tolist()) for bounds in packs.bounds) == [[18, 22, 60], [36]]


def test_the_order_of_packs_is_drawn():
    sentences = dummy_sentences([50] * 40)
    first, second = (
        pack(sentences, np.zeros(40, np.uint8), Packing(context=60, pack_tokens=100), np.random.default_rng(seed)) for seed in (0, 1)
    )
    assert (first.ids != second.ids).any()
    assert Counter(unpacked(first)) == Counter(unpacked(second))


def test_an_epoch_holds_each_cell_once_whole_or_thinned_never_cut(language, rows):
    v, seen = language.vocabulary, []
    sentences, _ = made(rows, language)
    lengths = [len(sentence.ids) for sentence in sentences]
    assert max(lengths) <= PACKING.context
    packs = packed(rows, language)
    assert Counter(ids for ids, _, _ in unpacked(packs)) == Counter(tuple(sentence.ids.tolist()) for sentence in sentences)
    for row, sentence in enumerate(sentences):
        assert (sentence.ids[0], sentence.ids[-1]) == (v.bos, v.eos)
        columns, _ = csentence.decode(cell_of(sentence.ids, v), v)
        assert set(columns.tolist()) <= set(csentence.decode(rows.ids[row], v)[0].tolist())
        seen.append(len(columns))
    assert min(seen) > 5


def test_a_cell_that_is_not_thinned_is_written_as_in_the_corpus(language, rows):
    """Its depth too, though counts above ten are kept only as levels."""
    v = language.vocabulary
    roomy = Packing(context=600, pack_tokens=1200, thin_share=0.0)
    tasks = training_tasks(language.writer)
    for row, (sentence, code) in enumerate(zip(*made(rows, language, roomy), strict=True)):
        assert cell_of(sentence.ids, v) == rows.ids[row].tolist()
        assert (sentence.parts == language.writer.part_code["depth"]).sum() == (tasks[code].name != "enhance")


def test_thinning_touches_the_share_asked_for_and_its_depths_are_not_learnt(language, rows):
    v = language.vocabulary
    roomy = Packing(context=600, pack_tokens=1200, thin_share=0.5, thin_least=0.3)
    sentences, _ = made(rows, of_one_cell(language), roomy)
    is_thinned = np.array([cell_of(sentence.ids, v) != rows.ids[row].tolist() for row, sentence in enumerate(sentences)])
    is_depth_learnt = np.array([(sentence.parts == language.writer.part_code["depth"]).any() for sentence in sentences])
    assert is_thinned.mean() == pytest.approx(0.5, abs=0.1)
    assert not (is_thinned & is_depth_learnt).any()
    assert is_depth_learnt.mean() == pytest.approx(0.5, abs=0.1)
    kept = [
        csentence.decode(cell_of(sentences[row].ids, v), v)[1].sum() / csentence.decode(rows.ids[row], v)[1].sum()
        for row in np.flatnonzero(is_thinned)
    ]
    assert 0.2 < min(kept) < 0.45
    assert max(kept) > 0.85


def test_held_out_packs_are_not_thinned(language, rows):
    roomy = Packing(context=600, pack_tokens=1200, thin_share=1.0, thin_least=0.3)
    for row, sentence in enumerate(made(rows, language, roomy, augment=False)[0]):
        assert cell_of(sentence.ids, language.vocabulary) == rows.ids[row].tolist()


def test_the_same_seed_and_epoch_give_the_same_packs_and_another_epoch_others(language, rows):
    first, again, later, other = (packed(rows, language, **which) for which in ({}, {}, {"epoch": 1}, {"seed": 1}))
    assert (first.ids == again.ids).all()
    assert (first.parts == again.parts).all()
    assert all((one == two).all() for one, two in zip(first.bounds, again.bounds, strict=True))
    for different in (later, other):
        assert len({ids for ids, _, _ in unpacked(first)} & {ids for ids, _, _ in unpacked(different)}) < 0.5 * N_CELLS


def test_a_cell_is_thinned_alike_wherever_it_stands_in_the_corpus(language, rows):
    """Thinning to fit depends on the cell alone, so that the order of a corpus's files is no part of what is learnt."""
    order = np.random.default_rng(5).permutation(N_CELLS)
    tight = Packing(context=120, pack_tokens=240, thin_share=0.0)
    straight, _ = made(rows, of_one_cell(language), tight)
    shuffled, _ = made(rows.select(order.tolist()), of_one_cell(language), tight)
    v = language.vocabulary
    for place, row in enumerate(order):
        assert cell_of(shuffled[place].ids, v) == cell_of(straight[row].ids, v)


def test_fields_such_as_perturbation_dose_and_time_survive_into_packs(language, rows):
    writer = language.writer
    wanted = [
        writer.field_ids(name, value).tolist() for name, value in (("perturbation", "GATA1 knockout"), ("dose", "10 nM"), ("time", "day 7"))
    ]
    holds = np.zeros(3)
    for ids, _, _ in unpacked(packed(rows, language)):
        before_task = list(ids)
        holds += [any(before_task[at : at + len(part)] == part for at in range(len(ids))) for part in wanted]
    assert (holds > 0.4 * N_CELLS / 2).all()
    assert (holds <= N_CELLS / 2).all()


def test_a_cell_that_knows_nothing_asked_for_gets_a_task_that_predicts_a_cell(language, rows):
    sentences, drawn = made(rows, language)
    tasks = training_tasks(language.writer)
    for row in range(N_CELLS):
        task = tasks[drawn[row]]
        asked = [name for name in task.predict if name != "cell"]
        assert "cell" in task.predict or any(rows.fields.get(name, [None] * N_CELLS)[row] for name in asked)
        assert language.writer.control_id(task.token) in sentences[row].ids
    assert {tasks[code].name for code in drawn} == {task.name for task in tasks if task.first_cell in (None, "shallower")}


def test_tasks_are_drawn_by_their_weights(language, rows):
    labelled = rows.select(list(range(N_CELLS // 2)))
    drawn = np.concatenate([made(labelled, language, epoch=epoch)[1] for epoch in range(12)])
    possible = [task.first_cell in (None, "shallower") for task in training_tasks(language.writer)]
    weights = np.array([task.weight for task in training_tasks(language.writer)]) * possible
    assert np.bincount(drawn, minlength=len(weights)) / len(drawn) == pytest.approx(weights / weights.sum(), abs=0.04)


def test_data_sets_are_seen_as_often_as_their_weights_say(language, rows):
    packing = Packing(context=200, pack_tokens=800, dataset_weights={"first": 2.5, "second": 0.0})
    n = len(made(rows, language, packing)[0])
    assert n == pytest.approx(2.5 * N_CELLS / 2, rel=0.1)
    assert len(made(rows.select(range(N_CELLS // 2, N_CELLS)), language, packing)[0]) == 0


def test_every_learnt_id_of_a_pack_is_planned_in_the_loss(language, rows):
    packs = packed(rows, language)
    for place in range(0, len(packs), 5):
        is_learnt = packs.parts[place] > 0
        legal = legal_targets(packs.ids[place].astype(np.int64), is_learnt, language.vocabulary)
        planned = np.sort(np.concatenate([legal.depth_at, legal.cell_at, legal.word_at])) + 1
        assert planned.tolist() == np.flatnonzero(is_learnt).tolist()


def test_counts_come_back_from_ids_as_the_checked_parser_gives_them(language, rows):
    fast = counts_of(rows.ids, language.writer)
    assert (fast != csentence.decode_many([rows.ids[row] for row in range(N_CELLS)], language.vocabulary)).nnz == 0
    assert fast.has_sorted_indices
    assert counts_of(Ragged.of([]), language.writer).shape == (0, language.vocabulary.n_genes)


def test_a_pack_smaller_than_a_sentence_is_an_error():
    with pytest.raises(RecipeError, match=r"packing\.pack_tokens is 512, smaller than packing\.context 1024"):
        Packing(context=1024, pack_tokens=512)
    with pytest.raises(RecipeError, match="a sentence of 101 tokens does not fit a pack of 100"):
        pack(dummy_sentences([101]), np.zeros(1, np.uint8), Packing(context=50, pack_tokens=100), np.random.default_rng(0))


def test_questions_stand_in_the_packs_of_an_epoch_and_only_their_requests_are_learnt(language, rows):
    counts = counts_of(rows.ids, language.writer)
    packing = Packing(context=512, pack_tokens=1024, questions=40)
    first, again = (epoch_packs(rows, counts, language.writer, packing, seed=0, epoch=1) for _ in range(2))
    assert np.array_equal(first.ids, again.ids)
    asks, code = language.writer.control_id("<task:request>"), language.writer.part_code["request"]
    of_questions = sentence_tasks(language.writer)[-1].name == "request"
    assert of_questions
    assert (first.ids == asks).sum() == 40 == sum(int((tasks == len(training_tasks(language.writer))).sum()) for tasks in first.tasks)
    for ids, parts in zip(first.ids, first.parts, strict=True):
        assert (parts[ids == asks] == 0).all()
        learnt = np.flatnonzero(parts == code)
        assert all(ids[at - 1] == asks or parts[at - 1] == code for at in learnt)
    held = epoch_packs(rows, counts, language.writer, packing, seed=0, epoch=1, augment=False)
    assert not np.array_equal(np.sort(held.ids[held.parts == code]), np.sort(first.ids[first.parts == code]))
