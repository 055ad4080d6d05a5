"""Chat: a question becomes a request, which is shown, can be corrected, and is answered; a short one leans on the one before it.

Every number of an answer is a fact of a result, which is kept and can be opened. A chat is short work: of a large file some cells, drawn
evenly, are asked about, and the answer says so; all of them are for a job.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmulan import csentence
from scmulan.cells import AnnData
from scmulan.cells_writing import write_h5ad
from scmulan.errors import PromptError, SentenceError
from scmulan.requests import Request, load_grammar
from scmulan.requests_following import follow
from scmulan.serving.warned import warned
from scmulan.tasks import Model
from scmulan.tasks_asking import Answer, requests_given
from scmulan.tasks_carrying import Circumstances, both_sides
from scmulan.tasks_saying import Result

MOST_CELLS = 100
"""Cells of a file that a chat asks about."""
MOST_WRITTEN = 100
"""Cells that a chat writes."""
MOST_REWRITTEN = 16
"""Cells of a file that it writes anew, as after a perturbation."""
REWRITE = ("perturb", "next_state", "enhance", "edit")
MOST_REQUESTS = 8
"""Requests that are given in place of a question."""
MOST_QUESTIONS = 20
"""Of a thread that are read, the last ones."""
MOST_BARS = 12
MOST_READINGS = 1000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a chat asks.

    Attributes
    ----------
    questions : of the user, in their order; the last one is to be answered
    requests : what to do instead, as plain data
    cells : that are asked about, if any
    """

    questions: Sequence[str]
    requests: Sequence[dict[str, Any]] = ()
    cells: AnnData | None = None
    seed: int = 0


@dataclass(frozen=True)
class Answered:
    """An answer, as plain data beside its text, and the cells that came of it.

    Attributes
    ----------
    shown : the requests, as text
    leans : whether the question was read as leaning on the one before
    plots : bars by label, each number a fact of a result
    rows : which of the cells were asked about, where not all were
    """

    answer: Answer
    shown: str
    text: str
    leans: bool
    plots: list[dict[str, Any]]
    warnings: list[str]
    cells: AnnData | None
    rows: list[int] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            **json.loads(json.dumps(self.answer.to_dict(), default=_plain), parse_constant=lambda _: None),  # NaN is not JSON
            "text": self.text,
            "shown": self.shown,
            "leans_on_the_question_before": self.leans,
            "plots": self.plots,
            "warnings": self.warnings,
        }

    def write(self, folder: Path, **more: Any) -> None:
        """``result.json``, with ``more`` beside it, and ``result.h5ad`` where there are cells."""
        (folder / "result.json").write_text(json.dumps(self.to_dict() | more, ensure_ascii=False, indent=1))
        if self.cells is not None:
            write_h5ad(self.cells, folder / "result.h5ad")


class Chat:
    """Answers chats with a model; readings of questions are kept, for a thread is sent whole each time."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str | None, str], tuple[Request, ...]] = {}

    def answer(self, model: Model, asked: Asked) -> Answered:
        """The last question answered.

        Raises
        ------
        PromptError
            When a question is empty or a request can't be read.
        """
        leans, given = False, list(asked.requests) or None
        with warned() as said:
            if given is None:
                requests, leans = self.read(model, asked.questions[-MOST_QUESTIONS:])
                given = [request.to_dict() for request in requests] if leans else None
            else:
                requests = requests_given(given, list(model.prompts.fields)).requests
            tasks = self._within(requests)
            cells, rows, notes = _some(asked.cells, MOST_REWRITTEN if tasks & set(REWRITE) else MOST_CELLS, asked.seed)
            answer = model.ask(cells, asked.questions[-1] if given is None else None, request=given, seed=asked.seed)
            answer = _with_evidence(answer, Circumstances(model=model, adata=cells, seed=asked.seed))
        shown = "; ".join(map(str, answer.request))
        text = " ".join([*notes, answer.text])
        return Answered(answer, shown, text, leans, _plots(answer), said, _cells(answer, cells), rows)

    def read(self, model: Model, questions: Sequence[str]) -> tuple[tuple[Request, ...], bool]:
        """The requests of the last question, and whether it leans on the one before it."""
        grammar = load_grammar(list(model.prompts.fields))
        before: tuple[Request, ...] = ()
        leans = False
        for question in questions:
            followed = [follow(request, question, grammar) for request in before]
            leans = bool(before) and all(request is not None for request in followed)
            before = tuple(request for request in followed if request is not None) if leans else self._reading(model, question)
        return before, leans

    def _reading(self, model: Model, question: str) -> tuple[Request, ...]:
        key = (model.opened.adapter, question)
        if key not in self._readings:
            if len(self._readings) >= MOST_READINGS:
                self._readings.pop(next(iter(self._readings)))
            self._readings[key] = model.read_questions([question])[0].requests
        return self._readings[key]

    @staticmethod
    def _within(requests: Sequence[Request]) -> set[str]:
        """Tasks of requests that a chat may carry out; PromptError for one that is long."""
        writing = [request for request in requests if request.task in ("generate", "complete")]
        number = sum(request.number or 0 for request in writing)
        if number > MOST_WRITTEN:
            raise PromptError(
                f"{number:,} cells: a chat writes at most {MOST_WRITTEN}; more are for a job, POST /v1/cells/{writing[0].task}"
            )
        if any(request.task == "screen" for request in requests):
            raise PromptError("a screen of all genes takes longer than a chat waits; it is for a job, POST /v1/cells/screen")
        return {request.task for request in requests}


def _some(cells: AnnData | None, most: int, seed: int) -> tuple[AnnData | None, list[int] | None, list[str]]:
    """At most so many cells, drawn evenly, which those are where they are not all, and what is said of it."""
    if cells is None or cells.n_obs <= most:
        return cells, None, []
    rows = np.sort(np.random.default_rng([seed, 31]).permutation(cells.n_obs)[:most])
    told = f"Of {cells.n_obs:,} cells {most:,} were asked about, drawn evenly; a job asks about all."
    return cells[rows].copy(), rows.tolist(), [told]


def cells_of_genes(model: Model, genes: dict[str, int], fields: dict[str, str]) -> AnnData:
    """One cell of genes with counts; PromptError where none of them is known."""
    known = model.opened.table.resolve(list(genes)).index >= 0
    if not known.any():
        raise PromptError(f"none of {len(genes):,} genes is known, as {next(iter(genes))!r}; needed symbols or Ensembl ids")
    var = pd.DataFrame(index=pd.Index(list(genes), dtype=object))
    obs = pd.DataFrame({name: [value] for name, value in fields.items()}, index=["cell"])
    return AnnData(sp.csr_matrix(np.array([list(genes.values())], dtype=np.float32)), obs=obs, var=var)


def cells_of_sentence(model: Model, sentence_text: str) -> AnnData:
    """The cell of a c-sentence, as tokens with spaces between; PromptError that names the position of what is none."""
    tokenizer, v = model.opened.checkpoint.tokenizer, model.vocabulary
    tokens = sentence_text.split()
    ids = np.array(tokenizer.convert_tokens_to_ids(tokens), dtype=np.int64)
    begins, ends = np.flatnonzero(ids == v.cell), np.flatnonzero(ids == v.end_of_cell)
    if not len(begins) or not len(ends):
        raise PromptError("a c-sentence without a cell; needed <cell> … </cell>")
    try:
        counts = csentence.decode_many([ids[begins[0] : ends[0] + 1]], v, np.random.default_rng(0))
    except SentenceError as error:
        raise PromptError(f"the c-sentence can't be read: {error}") from None
    var = pd.DataFrame(index=pd.Index(list(v.genes), dtype=object))
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=pd.DataFrame(index=["cell"]), var=var)


def _with_evidence(answer: Answer, given: Circumstances) -> Answer:
    """The answer with the genes for and against its commonest cell type as one more result, where types were asked for and genes not."""
    annotated = next((result for result in answer.results if result.is_done and result.request.task == "annotate"), None)
    if annotated is None or any(result.request.task == "speaks_for" for result in answer.results):
        return answer
    found = both_sides(annotated, given)
    if found is None:
        return answer
    text = f"{answer.text} {found.text}" if found.is_done else answer.text
    return replace(answer, results=(*answer.results, found), text=text)


def _cells(answer: Answer, cells: AnnData | None) -> AnnData | None:
    written = [result.value for result in answer.results if result.is_done and hasattr(result.value, "obs")]
    return written[-1] if written else cells


def _plots(answer: Answer) -> list[dict[str, Any]]:
    return [plot for result in answer.results if result.is_done for plot in _plots_of(result)]


def _plots_of(result: Result) -> list[dict[str, Any]]:
    """Bars of what the facts of a result list by label or gene."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for fact in result.facts:
        name = next((key for key in ("label", "gene") if key in fact), None)
        value = next((key for key in ("share", "p", "log2", "nats", "shift") if key in fact), None)
        if name and value:
            found.setdefault((name, value), []).append((str(fact[name]), float(fact[value])))
    return [
        {
            "kind": "bar",
            "of": result.request.task,
            "by": name,
            "value": value,
            "labels": [b[0] for b in bars[:MOST_BARS]],
            "values": [b[1] for b in bars[:MOST_BARS]],
        }
        for (name, value), bars in found.items()
        if len(bars) > 1
    ]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
