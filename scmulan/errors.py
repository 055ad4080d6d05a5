"""Every error that scmulan raises on purpose.

    ScmulanError
    ├── CellDataError     (ValueError)    a file, matrix, gene naming or obs column
    ├── VocabularyError   (ValueError)    a gene, label or id the vocabulary does not have
    ├── SentenceError     (ValueError)    an id sequence that is not a c-sentence; names the position
    ├── PromptError       (ValueError)    a task, field or value asked for
    ├── RecipeError       (ValueError)    a recipe's key or value
    ├── CorpusError       (RuntimeError)  a corpus folder that is damaged or of another tokenizer
    ├── CheckpointError   (RuntimeError)  a model folder that is damaged, missing or of another tokenizer
    └── EngineError       (RuntimeError)  the engine that runs the model

A message says where, what was found, what was needed, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ScmulanError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback."""


class CellDataError(ScmulanError, ValueError):
    """A file, matrix, gene naming or obs column that can't be used as it is."""


class VocabularyError(ScmulanError, ValueError):
    """A gene, label or id that the vocabulary does not have."""


class SentenceError(ScmulanError, ValueError):
    """An id sequence that is not a c-sentence."""


class PromptError(ScmulanError, ValueError):
    """A task, field or value that can't be asked for."""


class RecipeError(ScmulanError, ValueError):
    """A recipe with an unknown key or an impossible value."""


class CorpusError(ScmulanError, RuntimeError):
    """A corpus folder that is damaged, missing or of another tokenizer."""


class CheckpointError(ScmulanError, RuntimeError):
    """A model folder that is damaged, missing or of another tokenizer."""


class EngineError(ScmulanError, RuntimeError):
    """The engine that runs the model could not do what was asked."""


class ScmulanWarning(UserWarning):
    """Something was done with the data that the user should know of."""


def some(names: Iterable[object], total: int | None = None, most: int = 3) -> str:
    """Name at most ``most`` examples and the total: ``'A', 'B', 'C' (17 in all)``."""
    listed = list(names)
    total = len(listed) if total is None else total
    text = ", ".join(repr(str(name)) for name in listed[:most])
    return text if total <= most else f"{text} ({total:,} in all)"


def nearest(name: str, known: Sequence[str], most: int = 3) -> str:
    """A clause that names the nearest known spellings, or an empty string when none is near."""
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=most, cutoff=0.6)
    return f"; nearest: {some(lower[candidate] for candidate in close)}" if close else ""
