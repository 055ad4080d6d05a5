"""The automaton: what the loss counts as legal is what the sampler may draw, and whatever is drawn is a cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_counts
from grammar import first_fault, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import csentence
from scmulan.automaton import CellAutomaton, LegalTargets, legal_targets
from scmulan.csentence import N_DEPTHS, Vocabulary
from scmulan.errors import SentenceError

SMALL = vocabulary_of(12)


def mask_from_targets(legal: LegalTargets, row: int, v: Vocabulary) -> np.ndarray:
    """(V,) bool: what `LegalTargets` says of one position inside a cell."""
    mask = np.zeros(v.size, dtype=bool)
    mask[v.first_gene + legal.after_gene[row] + 1 : v.last_gene] = True
    mask[legal.after_level[row] + 1 : v.end_of_cell + 1] = True
    if legal.after_level[row] == v.first_level - 1:  # the first level of a cell
        mask[v.end_of_cell] = False
    mask[v.first_gene + legal.named[legal.named_of == row]] = False
    return mask


def walk(cell: list[int], v: Vocabulary) -> np.ndarray:
    """(len(cell) - 1, V) bool: what the step automaton allows at each id after ``<cell>``."""
    automaton = CellAutomaton(v)
    automaton.begin(1)
    masks = []
    for token in cell[1:]:
        masks.append(automaton.legal()[0].numpy())
        automaton.advance(torch.tensor([token]))
    assert bool(automaton.is_done[0])
    return np.stack(masks)


def sampled_cells(
    v: Vocabulary, n_tokens: int, *, seed: int = 0, n_rows: int = 64, most: int | None = None, panel: torch.Tensor | None = None, forced=()
) -> list[list[int]]:
    """Cells drawn with even chances among all legal ids; closed rows leave the run, as in the engine."""
    torch.manual_seed(seed)
    cells: list[list[int]] = []
    drawn = 0
    while drawn < n_tokens:
        automaton = CellAutomaton(v)
        automaton.begin(n_rows, panel=panel, forced=[forced] * n_rows)
        open_cells, rows = [[v.cell] for _ in range(n_rows)], torch.arange(n_rows)
        for step in range(most or v.n_genes * 3):
            mask_BV = automaton.part(rows, 0, v).legal(left=None if most is None else most - step)
            assert bool(mask_BV.any(1).all()), "a row has no legal id left"
            chosen_B = torch.multinomial(mask_BV.float(), 1).squeeze(1)
            drawn += len(chosen_B)
            automaton.advance(chosen_B, rows)
            for cell, token in zip(open_cells, chosen_B.tolist(), strict=True):
                cell.append(token)
            is_done = automaton.is_done[rows]
            cells += [cell for cell, done in zip(open_cells, is_done.tolist(), strict=True) if done]
            open_cells = [cell for cell, done in zip(open_cells, is_done.tolist(), strict=True) if not done]
            rows = rows[~is_done]
            if not open_cells:
                break
        assert not open_cells, "a cell was not closed"
    return cells


def test_the_step_automaton_allows_just_what_the_loss_counts_as_legal(language):
    v = language.vocabulary
    cells = csentence.encode(random_counts(25, seed=1), v)
    legal = legal_targets(cells.values, np.ones(len(cells.values), dtype=bool), v)
    rows = {int(at): row for row, at in enumerate(legal.cell_at)}
    for number in range(len(cells)):
        masks = walk(cells[number].tolist(), v)
        start = int(cells.offsets[number])
        assert masks[0].nonzero()[0].tolist() == list(range(v.first_depth, v.first_depth + N_DEPTHS))
        for step in range(1, len(masks)):
            from_targets = mask_from_targets(legal, rows[start + step], v)
            assert (masks[step] == from_targets).all(), f"cell {number}, after position {step}"


def test_every_target_is_legal_where_it_stands(language):
    v = language.vocabulary
    ids = csentence.encode(random_counts(40, seed=2), v).values
    legal = legal_targets(ids, np.ones(len(ids), dtype=bool), v)
    assert len(legal.cell_at) > 2000
    assert len(legal.named) > 2000
    assert (legal.cell_target == ids[legal.cell_at + 1]).all()
    for row in range(0, len(legal.cell_at), 7):
        assert mask_from_targets(legal, row, v)[legal.cell_target[row]]


def test_only_what_is_learnt_is_a_target(language):
    v = language.vocabulary
    ids = csentence.encode(random_counts(10, seed=2), v).values
    is_learnt = np.random.default_rng(0).random(len(ids)) < 0.3
    legal = legal_targets(ids, is_learnt, v)
    planned = np.sort(np.concatenate([legal.depth_at, legal.cell_at, legal.word_at])) + 1
    assert planned.tolist() == [at for at in np.flatnonzero(is_learnt).tolist() if at > 0]


def test_the_close_of_an_empty_cell_is_certain_and_so_not_learnt():
    v = SMALL
    ids = np.array([v.bos, v.cell, v.first_depth, v.end_of_cell, v.eos])
    legal = legal_targets(ids, np.array([False, True, True, True, True]), v)
    assert (legal.depth_at.tolist(), legal.cell_at.tolist(), legal.word_at.tolist()) == ([1], [], [0, 3])
    assert walk(ids[1:4].tolist(), v)[1].nonzero()[0].tolist() == [v.end_of_cell]


def test_right_after_a_field_only_words_are_legal(language):
    writer, v = language.writer, language.vocabulary
    ids = np.concatenate([[v.bos], writer.fields_ids({"organ": "blood", "cell_type": "B cell"}), [v.eos]])
    legal = legal_targets(ids, np.ones(len(ids), dtype=bool), v)
    after_a_field = [ids[at] in (writer.control_id("<organ>"), writer.control_id("<cell_type>")) for at in legal.word_at]
    assert legal.word_only.tolist() == after_a_field
    assert sum(after_a_field) == 2


def test_twenty_thousand_tokens_drawn_evenly_are_all_legal_and_every_cell_decodes(language):
    v = language.vocabulary
    cells = sampled_cells(v, 20_000, n_rows=1024)
    assert sum(len(cell) - 1 for cell in cells) >= 20_000
    for cell in cells:
        assert first_fault(cell, v) is None
    counts = csentence.decode_many(cells, v)
    assert counts.shape == (len(cells), v.n_genes)
    assert counts.nnz == sum(token >= v.first_gene for cell in cells for token in cell)


@pytest.mark.slow
def test_a_million_tokens_drawn_evenly_are_all_legal_and_every_cell_decodes(language):
    v = language.vocabulary
    cells = sampled_cells(v, 1_000_000, n_rows=1024, seed=1)
    assert sum(len(cell) - 1 for cell in cells) >= 1_000_000
    assert all(first_fault(cell, v) is None for cell in cells)
    assert csentence.decode_many(cells, v).shape[0] == len(cells)


def test_drawing_reaches_every_gene_level_and_depth():
    tokens = {token for cell in sampled_cells(SMALL, 30_000, n_rows=1024) for token in cell}
    v = SMALL
    assert tokens == {v.cell, *range(v.first_depth, v.last_gene)}


def test_genes_outside_the_panel_never_appear(language):
    v = language.vocabulary
    panel = torch.zeros(v.n_genes, dtype=torch.bool)
    panel[[0, 7, 8, 250]] = True
    cells = sampled_cells(v, 3_000, n_rows=256, panel=panel)
    named = {token - v.first_gene for cell in cells for token in cell if token >= v.first_gene}
    assert named == {0, 7, 8, 250}
    assert all(first_fault(cell, v) is None for cell in cells)
    assert panel.sum() == 4, "the caller's panel is left as it was"


def test_a_panel_without_genes_is_an_error(language):
    with pytest.raises(SentenceError, match="the panel allows no gene"):
        CellAutomaton(language.vocabulary).begin(2, panel=torch.zeros(language.vocabulary.n_genes, dtype=torch.bool))


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(0, 8), st.booleans(), st.booleans())
def test_rows_that_passed_a_column_are_told_the_same_without_the_columns_before_it(seed, first, is_forced, runs_out):
    v = SMALL
    narrow = v.without_genes_before(first)
    panel = torch.ones(v.n_genes, dtype=torch.bool)
    panel[[0, 9]] = False
    automaton = CellAutomaton(v)
    forced = [(9, int(v.level_id(0)))] if is_forced else []
    automaton.begin(24, panel=panel, forced=[forced if row % 2 else [] for row in range(24)])
    torch.manual_seed(seed)
    kept = torch.cat([torch.arange(v.first_gene), torch.arange(v.first_gene + first, v.size)])
    for step in range(9):
        left = torch.full((24,), 10 - step) if runs_out else None
        legal_BV = automaton.legal(left)
        rows = (automaton.last_gene + 1 >= first).nonzero().squeeze(1)
        told = automaton.part(rows, first, narrow).legal(None if left is None else left[rows])
        assert torch.equal(told, legal_BV[rows][:, kept])
        automaton.advance(torch.multinomial(legal_BV.float(), 1).squeeze(1))


@pytest.mark.slow
@given(st.integers(0, 99))
def test_each_row_has_its_own_panel_and_its_own_forced_genes(seed):
    """What a row may take does not depend on the rows beside it."""
    v, rng = SMALL, np.random.default_rng(seed)
    panel_BG = torch.from_numpy(rng.random((6, v.n_genes)) < 0.5)
    panel_BG[:, 0] = True
    forced = [[(column, int(v.level_id(column % 3))) for column in rng.permutation(v.n_genes)[: rng.integers(0, 4)]] for _ in range(6)]
    together = CellAutomaton(v)
    together.begin(6, panel=panel_BG, forced=forced)
    alone = []
    for row in range(6):
        alone.append(CellAutomaton(v))
        alone[row].begin(1, panel=panel_BG[row], forced=[forced[row]])
    torch.manual_seed(seed)
    for _ in range(20):
        legal_BV = together.legal()
        assert torch.equal(legal_BV, torch.cat([each.legal() for each in alone]))
        chosen_B = torch.multinomial(legal_BV.float(), 1).squeeze(1)
        together.advance(chosen_B)
        for row in range(6):
            alone[row].advance(chosen_B[row : row + 1])


@settings(max_examples=40)
@given(
    st.dictionaries(st.integers(0, 11), st.sampled_from([0, 1, 2, 5, 30]), min_size=1, max_size=5),
    st.sets(st.integers(0, 11), max_size=12),
    st.integers(0, 99),
)
def test_genes_that_are_forced_are_in_every_cell_at_their_levels(forced, others, seed):
    """Also when the panel is narrow, and when it allows nothing but what is forced."""
    v = SMALL
    panel = torch.zeros(v.n_genes, dtype=torch.bool)
    panel[[*forced, *others]] = True
    pairs = [(column, int(v.level_id(level))) for column, level in forced.items()]
    for cell in sampled_cells(v, 1, seed=seed, n_rows=8, panel=panel, forced=pairs):
        assert first_fault(cell, v) is None
        columns, counts = csentence.decode(cell, v)
        levels = dict(zip(columns.tolist(), csentence.level_of(counts).tolist(), strict=True))
        assert {column: levels.get(column) for column in forced} == forced
        assert set(levels) <= {*forced, *others}


@settings(max_examples=40)
@given(
    st.integers(5, 30),
    st.dictionaries(st.integers(0, 11), st.sampled_from([0, 1, 30]), max_size=3),
    st.sets(st.integers(0, 11), min_size=1, max_size=12),
    st.integers(0, 99),
)
def test_a_cell_that_runs_out_of_room_is_closed_in_time(most, forced, others, seed):
    v = SMALL
    panel = torch.zeros(v.n_genes, dtype=torch.bool)
    panel[[*forced, *others]] = True
    pairs = [(column, int(v.level_id(level))) for column, level in forced.items()]
    for cell in sampled_cells(v, 1, seed=seed, n_rows=16, most=most, panel=panel, forced=pairs):
        assert len(cell) <= most + 1
        assert first_fault(cell, v) is None


def test_rows_that_are_done_may_only_take_padding():
    v = SMALL
    automaton = CellAutomaton(v)
    automaton.begin(2)
    for chosen in ([v.first_depth, v.first_depth + 3], [v.end_of_cell, v.end_of_cell - 1]):
        automaton.advance(torch.tensor(chosen))
    assert automaton.is_done.tolist() == [True, False]
    assert automaton.legal()[0].nonzero().squeeze(1).tolist() == [v.pad]
    automaton.advance(torch.tensor([v.pad, v.first_gene]))
    assert automaton.is_done.tolist() == [True, False]


def test_rows_do_not_see_each_other_and_others_may_take_their_places():
    v = SMALL
    automaton = CellAutomaton(v)
    automaton.begin(3)
    automaton.advance(torch.full((3,), v.first_depth + 5))
    automaton.advance(torch.full((3,), v.end_of_cell - 2))
    automaton.advance(torch.tensor([v.first_gene + gene for gene in (2, 9, 5)]))
    before = automaton.legal()
    assert before[2, v.first_gene :][:12].nonzero().squeeze(1).tolist() == [6, 7, 8, 9, 10, 11]
    begun = CellAutomaton(v)
    begun.begin(1, forced=[[(3, int(v.level_id(1)))]])
    automaton.put(torch.tensor([1]), begun)
    assert (automaton.legal()[[0, 2]] == before[[0, 2]]).all()
    assert (automaton.legal()[1] == begun.legal()[0]).all()
    automaton.advance(torch.tensor([v.first_depth + 5]), torch.tensor([1]))
    begun.advance(torch.tensor([v.first_depth + 5]))
    assert (automaton.legal()[[0, 2]] == before[[0, 2]]).all()
    assert (automaton.legal()[1] == begun.legal()[0]).all()
