"""What one request asks of a server's logits, as one text that travels with it: the cell to write and its draws, or words to weigh.

The text is JSON with what is long in base64, so that it fits every way to vLLM: in process, and by URL.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan.csentence import N_DEPTHS, Vocabulary
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import CellRequest
from scmulan.errors import PromptError
from scmulan.rates import RatesOfKind

KEY = "scmulan"
"""Under which a request's extra arguments hold the text."""
DRAWN = tuple(name for name in vars(Sampling()) if name != "rates")
"""What is said of a sampling; whether there are rates says the request itself, by them."""
MOST_RATES = 64
"""Tables of rates that are kept decoded."""


@dataclass(frozen=True)
class CellAsked:
    """A cell to write; of the request all but its prompt."""

    request: CellRequest
    sampling: Sampling


@dataclass(frozen=True)
class WordsAsked:
    """Words to weigh among all words, or, right after a field's token, among pieces of text alone."""

    is_text: bool


def write_cell(request: CellRequest, sampling: Sampling, n_genes: int) -> str:
    """The text of a cell to write.

    >>> text = write_cell(CellRequest(prompt=np.zeros(1, dtype=np.int64), row=3), Sampling(seed=5), 8)
    >>> text
    '{"seed": 5, "row": 3}'
    """
    unlike = {name: value for name, value in vars(sampling).items() if name in DRAWN and value != getattr(Sampling(), name)}
    said: dict[str, Any] = {**unlike, "seed": sampling.seed, "row": request.row}
    if request.depth is not None:
        said["depth"] = int(request.depth)
    if request.panel is not None and not request.panel.all():
        said["panel"] = _text(np.packbits(request.panel))
    if request.forced:
        said["forced"] = [[int(column), int(level)] for column, level in request.forced]
    if request.rates is not None:
        said["rates"] = [_text(request.rates.genes.astype(np.float16)), _text(request.rates.frame.astype(np.float16))]
    return json.dumps(said)


def write_words(is_text: bool) -> str:
    """The text of words to weigh."""
    return json.dumps({"words": "text" if is_text else "any"})


class AskedReader:
    """Reads such texts under one vocabulary; equal tables of rates are one object."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary, self._rates = vocabulary, dict[tuple[str, str], RatesOfKind]()

    def read(self, text: object) -> CellAsked | WordsAsked:
        """What a text asks; PromptError where it is none, or asks for what the vocabulary does not have."""
        try:
            said = json.loads(str(text))
            if "words" in said:
                return WordsAsked({"any": False, "text": True}[said["words"]])
            named = {name: said[name] for name in DRAWN if name in said}
            request = CellRequest(
                prompt=np.zeros(0, dtype=np.int64),
                row=int(said["row"]),
                depth=self._depth(said.get("depth")),
                panel=self._panel(said.get("panel")),
                forced=tuple((self._column(column), self._level(level)) for column, level in said.get("forced", [])),
                rates=self._rates_of(*said["rates"]) if "rates" in said else None,
            )
            return CellAsked(request, replace(Sampling(), **named))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise PromptError(f"what is asked of the logits can't be read ({type(error).__name__}: {error}); ask through scmulan") from None

    def _depth(self, said: int | None) -> int | None:
        v = self.vocabulary
        if said is not None and not v.first_depth <= int(said) < v.first_depth + N_DEPTHS:
            raise ValueError(f"{said} is no depth")
        return None if said is None else int(said)

    def _panel(self, said: str | None) -> npt.NDArray[np.bool_] | None:
        if said is None:
            return None
        bits = np.unpackbits(_array(said, np.uint8), count=self.vocabulary.n_genes).astype(bool)
        if len(bits) != self.vocabulary.n_genes or not bits.any():
            raise ValueError("a panel of another vocabulary, or of no gene")
        return bits

    def _column(self, said: int) -> int:
        if not 0 <= int(said) < self.vocabulary.n_genes:
            raise ValueError(f"{said} is no gene")
        return int(said)

    def _level(self, said: int) -> int:
        if not self.vocabulary.first_level <= int(said) < self.vocabulary.end_of_cell:
            raise ValueError(f"{said} is no level")
        return int(said)

    def _rates_of(self, genes: str, frame: str) -> RatesOfKind:
        if (genes, frame) not in self._rates:
            if len(self._rates) >= MOST_RATES:
                self._rates.pop(next(iter(self._rates)))
            v = self.vocabulary
            tables = [_array(text, np.float16).astype(np.float32) for text in (genes, frame)]
            n_frame = v.end_of_cell + 1 - v.first_depth
            if not np.isfinite(np.concatenate(tables)).all() or len(tables[0]) != v.n_genes:
                raise ValueError("rates of another vocabulary")
            self._rates[genes, frame] = RatesOfKind(tables[0], tables[1].reshape(2, n_frame))
        return self._rates[genes, frame]


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _array(text: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
