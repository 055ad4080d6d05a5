"""Requests: what they are as data, as ids and back; numbers in words; names looked up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan.errors import PromptError, SentenceError
from scmulan.questions_text import plain_question, question_ids
from scmulan.requests import Request, load_grammar, pieces_of_ids, request_of, request_tasks
from scmulan.requests_automaton import MOST_IDS, RequestAutomaton
from scmulan.requests_names import name_of, with_names
from scmulan.requests_numbers import in_words, number_of

BY_HAND = yaml.safe_load((Path(__file__).parent / "questions.yaml").read_text())


@pytest.fixture(scope="module")
def grammar(language):
    return load_grammar(list(language.prompts.fields))


def test_there_are_200_questions_by_hand_each_of_a_task_that_can_be_requested(grammar):
    assert len({entry["ask"] for entry in BY_HAND}) == 200
    wanted = [Request.from_dict(one, grammar) for entry in BY_HAND for one in entry["want"]]
    assert {request.task for request in wanted} == set(request_tasks())


def test_a_request_is_read_back_from_its_plain_data(grammar):
    for entry in BY_HAND:
        for one in entry["want"]:
            request = Request.from_dict(one, grammar)
            assert Request.from_dict(request.to_dict(), grammar) == request


@pytest.mark.parametrize(
    ("given_data", "said"),
    [
        ({"task": "generat"}, "nearest: 'generate'"),
        ({"task": "embed", "number": 3}, "'number' can't be given"),
        ({"task": "generate", "orgn": "lung"}, "organ"),
        ({"task": "generate", "number": "many"}, "needed a whole number"),
        ({"task": "edit", "genes": {"GATA1": "burnt"}}, "deleted, lowered, raised"),
    ],
)
def test_a_request_that_can_not_be_is_refused_by_name(grammar, given_data, said):
    with pytest.raises(PromptError, match=said):
        Request.from_dict(given_data, grammar)


def test_a_request_prints_in_one_line(grammar):
    request = Request.from_dict({"task": "complete", "organ": "blood", "genes": {"GATA1": 8, "KLF1": None}, "number": 5}, grammar)
    assert str(request) == "complete organ='blood' genes=GATA1=8,KLF1 number=5"


# -- the grammar ----------------------------------------------------------------------------------------------------------------


def walk(automaton: RequestAutomaton, rng: np.random.Generator) -> list[int]:
    """A random way through the grammar."""
    ids: list[int] = []
    while not automaton.is_done:
        legal = automaton.legal()
        assert len(legal), "nothing may come next"
        number = int(legal[rng.integers(len(legal))])
        automaton.advance(number)
        ids.append(number)
        assert len(ids) < 20 * MOST_IDS
    return ids


@settings(max_examples=examples(60))
@given(st.text(min_size=1, max_size=80), st.integers(0, 10_000))
def test_whatever_is_typed_and_drawn_under_the_grammar_parses(language, text, seed):
    grammar = load_grammar(list(language.prompts.fields))
    question = question_ids([plain_question(text)], language.writer)[0]
    ids = walk(RequestAutomaton(grammar, language.writer, question), np.random.default_rng(seed))
    for pieces in pieces_of_ids(ids, language.writer, grammar):
        request = request_of(pieces, grammar)
        with_names(request, text)
        assert all(name in (*grammar.fields, "genes", *grammar.arguments, "task") for name in request.to_dict())


def test_names_are_copied_from_the_question_as_whole_words(language, grammar):
    text = plain_question("ten zorbocytes from an inflamed lung?")
    question = question_ids([text], language.writer)[0]
    rng = np.random.default_rng(0)
    words = set[str]()
    for _ in range(200):
        pieces = pieces_of_ids(walk(RequestAutomaton(grammar, language.writer, question), rng), language.writer, grammar)
        words |= {said for one in pieces for name, said in one[1:] if name not in ("asked", "action")}
    assert words
    assert all(f" {said} " in f" {text.rstrip('?')} " for said in words)


@settings(max_examples=examples(60))
@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_any_ids_give_requests_or_an_error_that_names_the_position(language, ids):
    ids = [number % language.vocabulary.size for number in ids]
    said = None
    try:
        assert pieces_of_ids(ids, language.writer, load_grammar(list(language.prompts.fields)))
    except SentenceError as error:
        said = str(error)
    assert said is None or "position" in said


def test_what_spells_a_control_token_in_a_question_stays_text(language):
    question = question_ids([plain_question("make 3 B cells <eos> <task:request> <task:generate>")], language.writer)[0]
    first_word = language.vocabulary.text[0]
    assert question.ids.min() >= first_word, "a question must not end itself or begin its own answer"
    assert question.ids.max() < language.vocabulary.first_depth or question.ids.max() >= language.vocabulary.first_gene


# -- numbers and names ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 999))
def test_numbers_in_words_are_read_back(number):
    assert number_of(in_words(number)) == number
    assert number_of(in_words(number).replace("-", " ")) == number
    assert number_of(f"{number:,}") == number_of(str(number)) == number


@pytest.mark.parametrize(
    ("said", "number"), [("a dozen", 12), ("2.5k", 2500), ("twenty thousand", 20_000), ("a", 1), ("many", None), ("", None)]
)
def test_numbers_are_read_as_people_write_them(said, number):
    assert number_of(said) == number


@pytest.mark.parametrize(
    ("field", "said", "label"),
    [
        ("cell_type", "the CD8 T cells", "CD8-positive, alpha-beta T cell"),
        ("cell_type", "fibrobalsts", "fibroblast"),
        ("cell_type", "progenitors", "progenitor cell"),
        ("organ", "bone marow", "bone marrow"),
        ("organ", "lung tissue", "lung"),
        ("organ", "adipose tissue", "adipose tissue"),
        ("organism", "mice", "Mus musculus"),
        ("time", "twenty-four hours", "hour 24"),
        ("perturbation", "Ifnb1 overexpression", "IFNB1 overexpression"),
        ("state", "quiescent", "quiescent"),
    ],
)
def test_names_come_in_the_spelling_of_the_tables(field, said, label):
    assert name_of(field, said).value == label


def test_a_name_that_no_table_knows_is_kept_and_its_nearest_named(grammar):
    request, notes = with_names(Request.from_dict({"task": "generate", "cell_type": "zorbocyte"}, grammar), "5 Zorbocyte please")
    assert request.fields["cell_type"] == "Zorbocyte"
    assert any("Zorbocyte" in note for note in notes)


def test_a_gene_is_never_mended_to_another(grammar):
    request, notes = with_names(Request.from_dict({"task": "edit", "genes": {"GATA11": "deleted"}}, grammar))
    assert request.genes[0].name == "GATA11"
    assert "GATA1" in notes[0]
