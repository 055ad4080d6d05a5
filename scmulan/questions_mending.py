"""Slips of the fingers in a question, mended before the model reads it: a word that nobody knows, one slip from a word of the phrasings.

A word is known when it stands in the trained phrasings, in the tables of labels or in the English dictionary of pyspellchecker, or names a
gene. The word that takes its place is of the phrasings or the tables, never of the dictionary, and begins with the same letter; of several
the most frequent. What was mended is said, but for shorthand (``wich``).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from spellchecker import SpellChecker

from scmulan.genes import GeneTable
from scmulan.metadata import FIELDS, labels_by_spelling
from scmulan.requests import read_material

LEAST_LETTERS = 4
"""Shorter words have too many words one slip away."""
WORD = re.compile(r"(?<![\w'/+.-])[a-z]+(?![\w'/+]|[.-]\w)")
"""A lower-case word that is no part of a longer name."""
OF_PHRASINGS = ("phrasings", "follow_ups")


def mend_question(text: str) -> tuple[str, list[str]]:
    """A plainly spelled question with unknown words mended, and what was read as what.

    >>> mend_question("which genees say that these are monocites")
    ('which genes say that these are monocytes', ["'genees' was read as 'genes'", "'monocites' was read as 'monocytes'"])
    """
    notes: list[str] = []

    def mended(found: re.Match[str]) -> str:
        word = _mended(found[0])
        if word != found[0] and found[0] not in _shorthand():
            notes.append(f"{found[0]!r} was read as {word!r}")
        return word

    return WORD.sub(mended, text), list(dict.fromkeys(notes))


@functools.lru_cache(maxsize=4096)
def _mended(word: str) -> str:
    if word in (short := _shorthand()):
        return short[word]
    own, english = _spellers()
    is_known = word in own or word in english or word.removesuffix("s") in own
    if len(word) < LEAST_LETTERS or is_known or GeneTable.load().resolve([word]).index[0] >= 0:
        return word
    near = [known for known in own.candidates(word) or () if known[0] == word[0]]
    return max(near, key=lambda known: (own.word_frequency[known], known)) if near else word


@functools.lru_cache(maxsize=1)
def _shorthand() -> dict[str, str]:
    """The word that each shorthand of a word stands for."""
    return {str(said): str(word) for word, said in read_material()["shorthand"].items() if WORD.fullmatch(str(said)) and len(str(said)) > 1}


@functools.lru_cache(maxsize=1)
def _spellers() -> tuple[SpellChecker, SpellChecker]:
    """Of the words that may take another's place, and of English."""
    own = SpellChecker(language=None, distance=1)
    words = Counter(_words())
    own.word_frequency.load_json({f"{word}s": 1 for word in words if not word.endswith("s")} | words)
    return own, SpellChecker(language="en", distance=1)


def _words() -> Iterator[str]:
    """Every word of the trained phrasings, and of the labels."""
    material = read_material()
    lines = [material["synonyms"], *_lines(material)]
    for name in ("before_verbs", "before_any", "after_any", "between"):
        lines += material[name]
    lines += [said for words in material["asked"].values() for said in words]
    lines += [said for names in material["names"].values() for said in names]
    lines += [said for field in FIELDS for said in labels_by_spelling(field)]
    for line in lines:
        yield from re.findall(r"[a-z]+", re.sub(r"\{\w+(?:=\w+)?\}|=>.*", " ", str(line)).lower())


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """The trained phrasings of the material, never those held out."""
    for name, below in entry.items():
        if name in OF_PHRASINGS and isinstance(below, str):
            yield from below.splitlines()
        elif isinstance(below, Mapping):
            yield from _lines(below)
