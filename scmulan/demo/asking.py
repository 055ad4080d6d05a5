"""Eleventh part: questions in English, how the model reads each, and the answer, whose every number comes from a result.

The questions were chosen to show what can be asked; six of them measure nothing. ``scmulan bench ask`` measures how well a model reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scmulan.cells import AnnData
from scmulan.corpus.pairs import CONTROLS
from scmulan.demo import screens, states
from scmulan.demo.stage import Skipped, Stage
from scmulan.demo.whole import drawn
from scmulan.errors import EngineError
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.page import beats
from scmulan.measures.questions import NearestPhrasing, same_requests
from scmulan.perturbations import control_label
from scmulan.questions import Phrasings
from scmulan.report import shown
from scmulan.requests import Request, load_grammar
from scmulan.requests_names import with_names

TITLE = "11. Questions in English"
OURS, PHRASING = "scmulan", "nearest phrasing"
LABELS = ("cell_type", "cell_type_ontology_term_id", "original_cell_type")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, the cells that it is about (``blood``, ``controls``, ``clones`` or none), and the requests that are meant."""

    text: str
    about: str
    meant: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, how it was read, with which probability, the answer, and whether each way of reading found what was meant."""

    question: str
    about: str
    request: list[dict[str, object]]
    probability: float
    text: str
    is_done: bool
    right: dict[str, bool]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """All questions that could be asked; ``left_out`` says why others could not."""

    asked: list[Asked]
    left_out: list[str]


QUESTIONS = (
    Question(text="What are these cells?", about="blood", meant=({"task": "annotate"},)),
    Question(
        text="Which organ are these cells from, and which genes say so?", about="blood", meant=({"task": "locate"}, {"task": "speaks_for"})
    ),
    Question(
        text="10 B cells from blood", about="",
        meant=({"task": "generate", "cell_type": "B cell", "organ": "blood", "number": 10},),
    ),
    Question(
        text="What happens to these cells if I knock out IFNGR1?", about="controls",
        meant=({"task": "perturb", "perturbation": "IFNGR1 knockout"},),
    ),
    Question(text="Which fate will these cells take by day 6?", about="clones", meant=({"task": "fate", "time": "day 6"},)),
    Question(text="What is the weather in Paris?", about="", meant=({"task": "outside"},)),
)  # fmt: skip


def run(stage: Stage) -> Asking | Skipped:
    """Ask each question of which there are cells, and show how it was read and answered."""
    stage.say("11  Questions in English")
    if reason := why_not_learnt(stage.model, "request"):
        return stage.skip(TITLE, reason)
    found = measure(stage)
    show(stage, found)
    right = {who: sum(each.right[who] for each in found.asked) for who in (OURS, PHRASING)}
    stage.say(f"   {right[OURS]} of {len(found.asked)} questions read as meant, by the {PHRASING} {right[PHRASING]}")
    return found


def measure(stage: Stage) -> Asking:
    """The answers, beside how a plain way would have read the questions."""
    grammar = load_grammar(list(stage.model.prompts.fields))
    phrasings = Phrasings(grammar, stage.model.vocabulary.genes, part="phrasings")
    rng = np.random.default_rng([stage.seed, 5])
    plain = NearestPhrasing((phrasings.draw(rng, "plain") for _ in range(stage.sizes.taught)), grammar)
    asked, left_out = [], []
    for question in QUESTIONS:
        cells = cells_about(stage, question.about)
        if question.about and cells is None:
            left_out.append(f"“{question.text}” (there are no such cells)")
            continue
        meant = tuple(with_names(Request.from_dict(one, grammar))[0] for one in question.meant)
        try:
            answer = stage.model.ask(cells, question.text, seed=stage.seed)
        except EngineError as error:  # longer than the model's context
            left_out.append(f"“{question.text}” ({error})")
            continue
        asked.append(
            Asked(
                question=question.text, about=question.about, request=[one.to_dict() for one in answer.request],
                probability=float(answer.probability), text=answer.text, is_done=all(one.is_done for one in answer.results),
                right={OURS: same_requests(answer.request, meant), PHRASING: same_requests(plain.read([question.text])[0], meant)},
            )
        )  # fmt: skip
    return Asking(asked=asked, left_out=left_out)


def cells_about(stage: Stage, about: str) -> AnnData | None:
    """Held-out cells of a kind, without what would tell the answer; None where the data have none."""
    if about == "controls":
        dataset = screens.find(stage.datasets)
        if dataset is None or control_label(stage.model.seen) is None:
            return None
        whole = stage.whole(dataset)
        rows = np.flatnonzero(np.isin(whole.field("perturbation").astype(str), CONTROLS) & whole.is_held)
        return whole.take(drawn(rows, stage.sizes.asked, stage.seed), without=screens.HIDDEN)
    if about == "clones":
        followed = states.find(stage)
        if followed is None:
            return None
        return followed[1].whole.take(drawn(followed[1].asked, stage.sizes.asked, stage.seed), without=("clone", *LABELS))
    if about == "blood":
        dataset = stage.largest
        whole = stage.whole(dataset)
        return whole.take(drawn(np.flatnonzero(whole.is_held), stage.sizes.asked, stage.seed), without=LABELS)
    return None


def show(stage: Stage, found: Asking) -> None:
    """The section of the page."""
    stage.report.section(TITLE, words(found))
    for each in found.asked:
        request = "\n".join(json.dumps(one, ensure_ascii=False) for one in each.request)
        stage.report.code(f"> {each.question}\n{request}\n\n{each.text}", caption_of(each))


def caption_of(found: Asked) -> str:
    """How a question was read, beside the plain way."""
    read = "as it was meant" if found.right[OURS] else "otherwise than it was meant"
    return (
        f"Read {read} (probability {shown(found.probability)}); by the {PHRASING} "
        f"{'as it was meant' if found.right[PHRASING] else 'otherwise'}."
    )


def words(found: Asking) -> str:
    """What was asked and how it was read, in plain words."""
    ours, theirs = (sum(each.right[who] for each in found.asked) for who in (OURS, PHRASING))
    text = (
        "A question is read by the same model into requests, which it then carries out; the sentences of the answer hold only numbers that "
        "came out (`model.ask`). Below: the question, the request as it was read, the answer. A reading that is wrong can be corrected and "
        f"given back.\n\n{ours} of {len(found.asked)} were read as they were meant, {beats(float(ours), float(theirs))} looking up the "
        f"most alike of the phrasings that the model was taught ({theirs}). These questions show what can be asked; so few measure nothing."
    )
    if found.left_out:
        text += " Not asked: " + "; ".join(found.left_out) + "."
    return text
