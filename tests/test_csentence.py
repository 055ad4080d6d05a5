"""The c-sentence: counts to ids and back, and the grammar that a parse holds ids to."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import GENES, examples, random_counts
from grammar import N_GENES, cells, first_fault, matrix_of, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import csentence
from scmulan.csentence import EXACT_TO, LARGEST_COUNT, LEVEL_COUNTS, LEVEL_FLOORS, N_DEPTHS, N_LEVELS, Ragged, decode, decode_many, encode
from scmulan.errors import SentenceError, VocabularyError

V = vocabulary_of(N_GENES)


def test_counts_to_ten_come_back_exactly():
    for count in range(1, EXACT_TO + 1):
        assert decode(encode(matrix_of({3: count}), V)[0], V)[1].tolist() == [count]


@given(cells)
def test_counts_come_back_within_half_a_step(cell):
    columns, counts = decode(encode(matrix_of(cell), V)[0], V)
    assert set(columns.tolist()) == set(cell)
    for column, count in zip(columns.tolist(), counts.tolist(), strict=True):
        was = cell[column]
        floor, above = LEVEL_FLOORS[csentence.level_of(was)], LEVEL_FLOORS[csentence.level_of(was) + 1]
        assert count == was if was <= EXACT_TO else floor <= count < above
        half_a_step = np.sqrt((above - 1) / floor)
        assert was / half_a_step - 1 <= count <= was * half_a_step + 1


def test_levels_above_ten_are_steps_of_at_most_a_quarter():
    floors = LEVEL_FLOORS[EXACT_TO:]
    assert (np.diff(floors) <= 0.25 * floors[:-1] + 0.5).all()
    assert (np.diff(LEVEL_COUNTS) > 0).all()
    assert (csentence.level_of(LEVEL_COUNTS) == np.arange(N_LEVELS)).all()


def test_a_count_above_the_largest_is_taken_as_the_largest():
    assert encode(matrix_of({0: LARGEST_COUNT * 100}), V)[0][2] == encode(matrix_of({0: LARGEST_COUNT}), V)[0][2] == V.first_level


def test_drawn_counts_stay_in_the_span_of_their_level():
    counts = np.array([[7, 10, 11, 13, 40, 5_000, LARGEST_COUNT]])
    ids = encode(sp.csr_matrix((counts[0], (np.zeros(7, int), np.arange(7))), shape=(1, N_GENES)), V)[0]
    drawn = np.array([decode(ids, V, np.random.default_rng(seed))[1] for seed in range(50)])
    middle = decode(ids, V)[1]
    assert (csentence.level_of(drawn) == csentence.level_of(middle)).all()
    assert (drawn[:, middle <= EXACT_TO] == middle[middle <= EXACT_TO]).all()
    assert (np.ptp(drawn[:, middle > 12], axis=0) > 0).all()


def test_depth_is_in_half_octaves_of_the_library_size():
    assert csentence.depth_of([0, 1, 2, 3, 4, 1024, 1448, 1449, 2048]).tolist() == [0, 1, 3, 4, 5, 21, 21, 22, 23]
    assert (np.diff(csentence.depth_of(np.arange(5000))) >= 0).all()
    assert csentence.depth_of(1 << 60) == N_DEPTHS - 1


def test_every_level_and_depth_has_a_token_of_its_own():
    tokens = csentence.structure_tokens()
    assert len(tokens) == len(set(tokens)) == N_DEPTHS + N_LEVELS + 1
    assert tokens[-2:] == ["<n:1>", "</cell>"]


@given(st.lists(cells, min_size=1, max_size=6))
def test_levels_fall_and_ids_rise_within_a_level(rows):
    ids = encode(matrix_of(*rows), V)
    for number, counts in enumerate(rows):
        cell = ids[number].tolist()
        assert first_fault(cell, V) is None
        assert cell[1] - V.first_depth == csentence.depth_of(sum(counts.values()))
        levels = [V.end_of_cell - 1 - token for token in cell if V.first_level <= token < V.end_of_cell]
        assert levels == sorted(set(levels), reverse=True)
        assert len([token for token in cell if token >= V.first_gene]) == len(counts)


@given(st.lists(cells, min_size=1, max_size=6))
def test_lengths_are_known_without_encoding(rows):
    counts = matrix_of(*rows)
    assert csentence.sentence_lengths(counts).tolist() == encode(counts, V).lengths.tolist()


def test_a_cell_is_written_as_a_person_expects():
    ids = encode(matrix_of({5: 1, 2: 3, 7: 1, 0: 3, 1: 0}), V)[0].tolist()
    gene = [V.first_gene + column for column in range(N_GENES)]
    three, one = V.end_of_cell - 3, V.end_of_cell - 1
    assert ids == [V.cell, V.first_depth + 7, three, gene[0], gene[2], one, gene[5], gene[7], V.end_of_cell]


def test_an_empty_cell_is_three_ids_and_comes_back_empty():
    counts = matrix_of({}, {1: 2}, {})
    ids = encode(counts, V)
    assert ids[0].tolist() == ids[2].tolist() == [V.cell, V.first_depth, V.end_of_cell]
    assert (decode_many([ids[0], ids[1], ids[2]], V) != counts).nnz == 0
    assert len(encode(sp.csr_matrix((0, N_GENES), dtype=int), V)) == 0
    assert decode_many([], V).shape == (0, N_GENES)


@given(st.lists(cells, min_size=2, max_size=6), st.randoms())
def test_permuting_cells_permutes_their_sentences_and_changes_none(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    straight, shuffled = encode(matrix_of(*rows), V), encode(matrix_of(*(rows[row] for row in order)), V)
    for place, row in enumerate(order):
        assert shuffled[place].tolist() == straight[row].tolist()


@given(st.lists(cells.filter(bool), min_size=1, max_size=4), st.permutations(range(N_GENES)))
def test_permuting_the_genes_of_the_input_changes_nothing(rows, order):
    counts = matrix_of(*rows)
    shuffled, known = csentence.to_vocabulary_order(counts[:, order], [V.genes[column] for column in order], V)
    assert known.all()
    assert (encode(shuffled, V).values == encode(counts, V).values).all()


def test_zeros_and_entries_stored_in_pieces_do_not_change_the_sentence():
    pieces = sp.csr_matrix((np.array([2, 0, 1, 4]), np.array([9, 3, 9, 1]), np.array([0, 4])), shape=(1, N_GENES))
    assert encode(pieces, V).values.tolist() == encode(matrix_of({9: 3, 1: 4}), V).values.tolist()
    assert pieces.nnz == 4, "the caller's matrix is left as it was"


def test_unknown_columns_are_reported_and_left_out():
    counts = sp.csr_matrix(np.array([[1, 2, 3]]))
    ordered, known = csentence.to_vocabulary_order(counts, ["G3", "no such gene", "G1"], V)
    assert known.tolist() == [True, False, True]
    assert (ordered[0, 3], ordered[0, 1], ordered.sum()) == (1, 3, 4)


def test_a_matrix_without_any_known_gene_is_an_error_that_names_some():
    with pytest.raises(VocabularyError, match=r"none of the 4 genes \('a', 'b', 'c' \(4 in all\)\)"):
        csentence.to_vocabulary_order(sp.csr_matrix((1, 4), dtype=int), list("abcd"), V)


def test_a_matrix_of_another_width_is_an_error():
    with pytest.raises(VocabularyError, match="5 columns, the vocabulary 24 genes"):
        encode(sp.csr_matrix((1, 5), dtype=int), V)


def test_a_gene_the_vocabulary_lacks_is_an_error():
    assert V.gene_id("G0") == V.first_gene
    with pytest.raises(VocabularyError, match="'G99'"):
        V.gene_id("G99")


token_ids = st.integers(-3, V.size + 3) | st.integers(V.first_level, V.last_gene - 1)
near_cells = st.tuples(cells, st.lists(st.tuples(st.integers(0, 40), token_ids, st.sampled_from(["put", "cut", "swap"])), max_size=3))


@settings(max_examples=examples(800), deadline=None)
@given(near_cells | st.lists(token_ids, max_size=12))
def test_any_ids_decode_or_name_the_first_position_that_is_wrong(drawn):
    if isinstance(drawn, tuple):  # a real sentence with a few faults: the parse gets far into it
        ids = encode(matrix_of(drawn[0]), V)[0].tolist()
        for at, token, how in drawn[1]:
            at %= len(ids) or 1
            ids[at : at + (how != "put")] = [] if how == "cut" else [token]
    else:
        ids = drawn
    fault = first_fault(ids, V)
    if fault is None:
        columns, counts = decode(ids, V)
        assert len(columns) == len(counts)
        assert len(columns) == len(set(columns.tolist()))
    else:
        with pytest.raises(SentenceError, match=rf"^position {fault}: "):
            decode(ids, V)


def test_the_grammar_is_the_same_whichever_way_it_is_read():
    """Decoding then encoding gives the same ids but for the depth, which generated cells state for themselves."""
    counts = random_counts(50, N_GENES, mean_genes=10)
    ids = encode(counts, V)
    again = encode(decode_many([ids[row] for row in range(50)], V), V)
    small = np.asarray(counts.max(axis=1).todense()).ravel() <= EXACT_TO
    assert small.any()
    for row in range(50):
        assert again[row][2:].tolist() == ids[row][2:].tolist()
        assert again[row][1] == ids[row][1] or not small[row]


def test_an_error_among_many_cells_names_the_cell():
    good = encode(matrix_of({1: 1}), V)[0]
    with pytest.raises(SentenceError, match=r"^cell 1: position 2: found <eos>"):
        decode_many([good, [V.cell, V.first_depth + 1, V.eos, V.end_of_cell]], V)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("<n:1> G0 <n:1> G1 </cell>", "position 4: found <n:1> after gene G0"),
        ("<n:2> G0 <n:1> G0 </cell>", "position 5: found gene G0 after <n:1>"),
        ("<n:1> G0", "position 4: found the end after gene G0"),
        ("<n:1> </cell>", "position 3: found </cell> after <n:1>"),
        ("</cell>", "position 2: found </cell> after <depth:3>"),
        ("<eos>", "position 2: found <eos> after <depth:3>"),
    ],
)
def test_messages_name_genes_and_levels_as_a_person_would(ids, words):
    known = {"<n:1>": V.end_of_cell - 1, "<n:2>": V.end_of_cell - 2, "</cell>": V.end_of_cell, "<eos>": V.eos}
    body = [known[word] if word in known else V.gene_id(word) for word in ids.split()]
    with pytest.raises(SentenceError, match=f"^{words}"):
        decode([V.cell, V.first_depth + 3, *body], V)


def test_rows_of_different_lengths_keep_their_bounds():
    ragged = Ragged.of([[1, 2], [], [3]])
    assert (len(ragged), ragged.lengths.tolist(), [row.tolist() for row in ragged]) == (3, [2, 0, 1], [[1, 2], [], [3]])
    assert len(Ragged.of([])) == 0


def test_the_fixture_vocabulary_and_the_hand_made_one_agree_on_layout(language):
    v = language.vocabulary
    assert v.first_gene == v.end_of_cell + 1
    assert v.first_level == v.first_depth + N_DEPTHS
    assert v.end_of_cell == v.first_level + N_LEVELS
    assert v.genes == GENES
    assert v.text[1] == v.first_depth
