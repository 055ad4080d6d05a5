"""Slips of the fingers in a question are mended before it is read; words that are known are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from scmulan.prompts import load_prompts
from scmulan.questions import PARTS, Phrasings
from scmulan.questions_mending import mend_question
from scmulan.questions_text import plain_question
from scmulan.requests import load_grammar


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("which genees say that these are monocites", "which genes say that these are monocytes"),
        ("anotate the keratinocytte cluster", "annotate the keratinocyte cluster"),
        ("wich organ are theese from", "which organ are these from"),
    ],
)
def test_a_word_that_nobody_knows_becomes_the_word_one_slip_away(typed, read):
    assert mend_question(typed)[0] == read


def test_what_was_mended_is_said_but_for_shorthand():
    assert mend_question("wich genees speak for kidneu")[1] == ["'genees' was read as 'genes'", "'kidneu' was read as 'kidney'"]


@pytest.mark.parametrize(
    "typed",
    [
        "knock out STAT1 in NKG7-high cells",
        "what does zotacillin do to them",
        "is gapdh on",
        "10x or drop-seq",
        "tell me a story about a wolf",
        "pdcs and tregs",
    ],
)
def test_genes_unknown_names_and_english_are_left_alone(typed):
    assert mend_question(plain_question(typed)) == (plain_question(typed), [])


def test_a_question_without_slips_is_read_as_it_stands():
    """But for a few words that nobody knows: one in twenty questions is of made-up names."""
    grammar = load_grammar(list(load_prompts().fields))
    for part in PARTS:
        phrasings = Phrasings(grammar, ("GATA1", "STAT1", "CD19"), part=part)
        texts = [phrasings.draw(np.random.default_rng([7, n]), "plain").text for n in range(120)]
        changed = [text for text in texts if mend_question(text)[0] != text]
        assert len(changed) <= 0.06 * len(texts), changed
