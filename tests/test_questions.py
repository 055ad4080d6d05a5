"""Questions drawn from the phrasings: their pieces stay known, nothing held out is trained on, and only requests are learnt."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from scmulan.measures.questions import NearestPhrasing, same_requests
from scmulan.questions import KINDS, PARTS, SLOT, Phrasings
from scmulan.questions_fillers import misspell_text, plural
from scmulan.questions_sentences import question_sentences
from scmulan.questions_text import plain_question, question_ids
from scmulan.requests import load_grammar, pieces_of_ids, read_material, request_of
from scmulan.requests_automaton import RequestAutomaton
from scmulan.requests_names import with_names

BY_HAND = yaml.safe_load((Path(__file__).parent / "questions.yaml").read_text())
GENES = ("GATA1", "STAT1", "CD3D", "LYZ", "S100A8", "MALAT1")


@pytest.fixture(scope="module")
def phrasings(language):
    grammar = load_grammar(list(language.prompts.fields))
    return {part: Phrasings(grammar, GENES, part=part) for part in PARTS}


def test_a_question_is_a_function_of_its_seed(phrasings):
    first, again = ([phrasings["phrasings"].draw(np.random.default_rng(number)) for number in range(50)] for _ in range(2))
    assert first == again
    assert len({question.text for question in first}) > 45


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_what_a_request_copies_stands_in_the_question_letter_by_letter(phrasings, part, kind):
    for number in range(60):
        question = phrasings[part].draw(np.random.default_rng([number, 7]), kind)
        assert question.text == plain_question(question.text)
        for pieces, spans in zip(question.requests, question.spans, strict=True):
            for (name, words), span in zip(pieces, spans, strict=True):
                if span is None:
                    assert name in ("task", "asked", "action")
                elif kind != "misspelt" and name != "action":
                    said = question.text[span[0] : span[1]]
                    assert said == plain_question(words) or kind == "joined", (question.text, words, said)


def test_genes_and_numbers_are_never_misspelt(phrasings):
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(400):
        question = phrasings["phrasings"].draw(rng, "misspelt")
        for pieces, spans in zip(question.requests, question.spans, strict=True):
            for (name, words), span in zip(pieces, spans, strict=True):
                if span and name in ("genes", "number", "count", "cluster"):
                    assert question.text[span[0] : span[1]].lower() == words.lower()
                    seen += 1
    assert seen > 20


def test_every_phrasing_can_be_drawn(phrasings):
    for part in PARTS:
        for task, lines in phrasings[part].of_task.items():
            for phrasing in lines:
                assert phrasings[part]._fill(phrasing, np.random.default_rng(1)).tasks[0][0] == task
        for line in phrasings[part].joined:
            assert len(phrasings[part]._shared(line, np.random.default_rng(1)).tasks) > 1


def lines_of(phrasings, part: str) -> set[str]:
    found = {phrasing.line for lines in phrasings[part].of_task.values() for phrasing in lines}
    return found | set(phrasings[part].joined)


ALTERNATIVES = re.compile(r"(\([^()]*\|[^()]*\))")


def wordings(lines: set[str]) -> set[str]:
    """Every way in which lines can be worded, but for those of very many ways."""
    found = set[str]()
    for line in lines:
        parts = [part[1:-1].split("|") if ALTERNATIVES.fullmatch(part) else [part] for part in ALTERNATIVES.split(line)]
        if np.prod([len(part) for part in parts]) < 20_000:
            found |= {" ".join("".join(words).split()) for words in itertools.product(*parts)}
    return found


def test_no_held_out_phrasing_is_trained_on(phrasings):
    trained = lines_of(phrasings, "phrasings")
    held, far = lines_of(phrasings, "held_out"), lines_of(phrasings, "far")
    assert not wordings(trained) & wordings(held | far)
    assert len(trained) > 2000
    assert len(held) > 120
    assert len(far) > 100


def test_no_question_written_by_hand_is_a_phrasing(phrasings):
    """Nor does one match a phrasing word for word once its names are in."""
    lines = {plain_question(SLOT.sub("", line)) for part in PARTS for line in lines_of(phrasings, part)}
    drawn = {phrasings["phrasings"].draw(np.random.default_rng([number, 1])).text.strip("?.! ") for number in range(3000)}
    for entry in BY_HAND:
        text = plain_question(entry["ask"]).strip("?.! ")
        if len(text.split()) > 2:
            assert text not in lines, text
            assert text not in drawn, text


def test_every_task_is_asked_for_in_training(phrasings):
    rng = np.random.default_rng(0)
    drawn = [phrasings["phrasings"].draw(rng) for _ in range(800)]
    tasks = {pieces[0][1] for question in drawn for pieces in question.requests}
    assert tasks == set(read_material()["tasks"])
    assert {question.kind for question in drawn} == set(KINDS)


def test_misspelling_leaves_what_has_digits_or_capitals_inside():
    rng = np.random.default_rng(0)
    assert misspell_text("STAT1 10x CD8", rng, 1.0) == "STAT1 10x CD8"
    assert misspell_text("monocytes", rng, 1.0) != "monocytes"


@pytest.mark.parametrize(
    ("name", "several"), [("B cell", "B cells"), ("Treg", "Tregs"), ("CD56", "CD56"), ("cell of muscle", "cell of muscle")]
)
def test_plurals_are_made_only_where_they_are_plain(name, several):
    assert plural(name) == several


# -- as sentences --------------------------------------------------------------------------------------------------------------


def test_only_the_requests_are_learnt_and_they_parse(language):
    grammar = load_grammar(list(language.prompts.fields))
    code = language.writer.part_code["request"]
    for sentence in question_sentences(language.writer, 60, seed=[0, 0]):
        at = int(np.flatnonzero(sentence.ids == language.writer.control_id("<task:request>"))[0])
        assert not sentence.parts[: at + 1].any()
        assert (sentence.parts[at + 1 :] == code).all()
        assert pieces_of_ids(sentence.ids[at + 1 :].tolist(), language.writer, grammar)
        assert sentence.ids[-1] == language.vocabulary.eos


def test_sentences_are_new_each_epoch_and_the_same_each_time(language):
    first, again, later = (question_sentences(language.writer, 20, seed=seed) for seed in ([0, 0], [0, 0], [0, 1]))
    assert all(np.array_equal(one.ids, other.ids) for one, other in zip(first, again, strict=True))
    assert not all(np.array_equal(one.ids, other.ids) for one, other in zip(first, later, strict=True))


def test_what_a_question_asks_for_is_what_its_sentence_says(language, phrasings):
    """The words copied into the ids, looked up, are the names that were meant."""
    grammar = phrasings["phrasings"].grammar
    from scmulan.questions_sentences import question_sentence

    for number in range(120):
        question = phrasings["phrasings"].draw(np.random.default_rng([number, 3]), "plain")
        read = question_ids([question.text], language.writer)[0]
        sentence = question_sentence(question, read, language.writer, grammar)
        if sentence is None:
            continue
        answer = sentence.ids[sentence.parts > 0].tolist()
        said = [with_names(request_of(pieces, grammar))[0] for pieces in pieces_of_ids(answer, language.writer, grammar)]
        meant = [with_names(request_of(pieces, grammar))[0] for pieces in question.requests]
        assert same_requests(said, meant), question.text


# -- the plain way to read them -----------------------------------------------------------------------------------------------


def test_the_nearest_phrasing_reads_questions_that_it_knows(phrasings):
    rng = np.random.default_rng(0)
    known = [phrasings["phrasings"].draw(rng, "plain") for _ in range(400)]
    plain = NearestPhrasing(known, phrasings["phrasings"].grammar)
    meant = [tuple(with_names(request_of(pieces, plain.grammar))[0] for pieces in question.requests) for question in known[:100]]
    said = plain.read([question.text for question in known[:100]])
    assert np.mean([same_requests(one, other) for one, other in zip(said, meant, strict=True)]) > 0.6


def test_every_sentence_that_is_learnt_is_legal_under_the_grammar_of_decoding(language):
    grammar = load_grammar(list(language.prompts.fields))
    for sentence in question_sentences(language.writer, 150, seed=[1, 1]):
        at = int(np.flatnonzero(sentence.parts)[0])
        question = question_ids([language.tokenizer.decode(sentence.ids[1 : at - 1]).removeprefix(" ")], language.writer)[0]
        automaton = RequestAutomaton(grammar, language.writer, question)
        for number in sentence.ids[at:].tolist():
            assert number in automaton.legal(), (question.text, language.tokenizer.decode(sentence.ids[at:]))
            automaton.advance(number)
        assert automaton.is_done
