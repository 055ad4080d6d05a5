"""A question as the model reads it: one spelling of letter case, hyphens and blanks, and where words begin and end among its ids.

Ordinary words are lower case; abbreviations (``AML``) and what has a digit (``cd8``, ``stat1``) are upper case, for so genes are spelled.
Each character keeps its place, so that what is copied from the ids is found again in what was typed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scmulan.csentence import Ids
from scmulan.prompts import SentenceWriter

SIGNS = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u2011": "-", "\u00a0": " ", "μ": "µ"})
APART = re.compile(
    r"-(?=(?:ko|kd|oe|crispri|crispra|knockouts?|knockdown|null|deficient|overexpression|activation|treated|stimulated|derived|infected|exposed|"
    r"like|positive|negative|high|low|expressing|specific|cells?)\b)",
    re.IGNORECASE,
)
"""Hyphens that join a name and what is said of it: ``STAT1-deficient``."""
WORD = re.compile(r"\w+(?:[-._@/()]\w+)*")
MOST_CHARACTERS = 1200


def plain_question(text: str) -> str:
    """The question as the model reads it.

    >>> plain_question("Knock out  stat1 in these T-cells from AML (Day 3)")
    'knock out STAT1 in these t cells from AML (day 3)'
    """
    plain = APART.sub(" ", " ".join(text.translate(SIGNS).split())[:MOST_CHARACTERS])
    is_shouted = plain.isupper() and len(plain.split()) > 2
    return WORD.sub(lambda found: _cased(found[0], is_shouted), plain)


def _cased(word: str, is_shouted: bool) -> str:
    has_digit = any(sign.isdigit() for sign in word)
    is_abbreviation = word.isupper() and sum(sign.isalpha() for sign in word) > 1 and not is_shouted
    cased = word.upper() if is_abbreviation or (has_digit and word[0].isalpha()) else word.lower()
    is_plural = len(word) > 2 and word[-1] == "s" and word[:-1].isupper() and not is_shouted
    return cased if len(cased) == len(word) and not is_plural else word


@dataclass(frozen=True)
class QuestionIds:
    """Ids of a question, and where names may be copied from it.

    Attributes
    ----------
    text : as the model reads it
    ids : (T,)
    begins, ends : (T,) bool, whether a name may begin, or end, with this id
    spans : (T, 2) characters of each id, a word's blank before it among them (-1 before the first word)
    """

    text: str
    ids: Ids
    begins: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.bool_]
    spans: npt.NDArray[np.int64]

    def within(self, first: int, last: int) -> slice | None:
        """Ids of the characters from ``first`` to ``last``; None where these are no whole words."""
        starts, ends = self.spans[:, 0], self.spans[:, 1]
        blank = first - 1 if first == 0 or self.text[first - 1] == " " else first  # a word's first id holds the blank before it
        inside = np.flatnonzero((ends > blank) & (starts < last))
        if not len(inside) or starts[inside[0]] != blank or ends[inside[-1]] != last:
            return None
        is_whole = bool(self.begins[inside[0]]) and bool(self.ends[inside[-1]])
        return slice(int(inside[0]), int(inside[-1]) + 1) if is_whole else None


def question_ids(texts: Sequence[str], writer: SentenceWriter) -> list[QuestionIds]:
    """Ids of questions that are spelled plainly already; what spells a control token is still text."""
    if not texts:
        return []
    spaced = [f" {text}" for text in texts]
    # split_special_tokens: a question that spells a control token can't end itself or begin an answer
    found = writer.tokenizer(spaced, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    cut = writer.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    return [
        _with_words(text, ids, offsets, cut(line))
        for text, line, ids, offsets in zip(texts, spaced, found["input_ids"], found["offset_mapping"], strict=True)
    ]


def _with_words(text: str, ids: list[int], offsets: list[tuple[int, int]], words: list[tuple[str, tuple[int, int]]]) -> QuestionIds:
    spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    named = [(span, f" {text}"[span[0] : span[1]]) for _, span in words]
    firsts = {span[0] for span, said in named if any(sign.isalnum() for sign in said)}
    lasts = {span[1] for span, said in named if any(sign.isalnum() or sign in "+%'" for sign in said)}
    begins = np.array([first in firsts for first, _ in offsets], dtype=bool)
    ends = np.array([last in lasts for _, last in offsets], dtype=bool)
    # bytes of one character share its span: a name begins with the first of them and ends with the last
    begins[1:] &= spans[1:, 0] != spans[:-1, 0]
    ends[:-1] &= spans[:-1, 1] != spans[1:, 1]
    return QuestionIds(text, np.array(ids, dtype=np.int64), begins, ends, spans - 1)
