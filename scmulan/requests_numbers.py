"""Numbers as people write them: ``10``, ``1,000``, ``10k``, ``twenty-five``, ``a dozen``, ``two hundred and fifty``."""

from __future__ import annotations

import re

SMALL = "zero one two three four five six seven eight nine ten eleven twelve"
TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
UNITS = dict(zip(f"{SMALL} {TEENS}".split(" "), range(20), strict=True))
TENS = dict(zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True))
LARGE = {"dozen": 12, "score": 20, "hundred": 100, "thousand": 1000, "k": 1000, "million": 1_000_000}
ONE = ("a", "an", "single")
LEFT_OUT = ("and", "of", "cells", "cell", "about", "around", "exactly")


def number_of(text: str) -> int | None:
    """The whole number that words or digits say; None when they say none.

    >>> number_of("10"), number_of("1,000"), number_of("10k"), number_of("2.5k"), number_of("a dozen")
    (10, 1000, 10000, 2500, 12)
    >>> number_of("two hundred and fifty"), number_of("twenty-five"), number_of("a single"), number_of("many")
    (250, 25, 1, None)
    """
    plain = text.lower().replace("-", " ").strip(" .:=#")
    plain = re.sub(r"(?<=\d)[,_ ](?=\d{3}\b)", "", plain)
    if found := re.fullmatch(r"(\d+(?:\.\d+)?) ?(k|m)?", plain):
        value = float(found[1]) * {"k": 1000, "m": 1_000_000}.get(found[2] or "", 1)
        return int(value) if value.is_integer() else None
    return _in_words([word for word in plain.split() if word not in LEFT_OUT])


def _in_words(words: list[str]) -> int | None:
    total, part = 0, 0
    for word in words:
        if word in ONE:
            part += 0 if part else 1
        elif word == "half" or (word not in UNITS and word not in TENS and word not in LARGE and not word.isdecimal()):
            return None
        elif word in LARGE:
            part = max(part, 1) * LARGE[word]
            if LARGE[word] >= 1000:
                total, part = total + part, 0
        else:
            part += UNITS.get(word, TENS.get(word, int(word) if word.isdecimal() else 0))
    # "a single" is one, not two
    return (total + part) or None if words else None


def in_words(number: int) -> str:
    """A number below a thousand in words.

    >>> in_words(25), in_words(250), in_words(12)
    ('twenty-five', 'two hundred and fifty', 'twelve')
    """
    names = {value: word for word, value in (UNITS | TENS).items()}
    if number in names:
        return names[number]
    if number < 100:
        return f"{names[number - number % 10]}-{names[number % 10]}"
    rest = number % 100
    return f"{names[number // 100]} hundred" + (f" and {in_words(rest)}" if rest else "")
