"""How well a model reads questions in English: held-out phrasings by kind and task, and 200 questions written by hand, beside a plain way.

A reading is right when every request is exactly right: task, fields, names, numbers, genes and what is done to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scmulan.errors import PromptError
from scmulan.measures.questions import TAUGHT, Reads, Right, draw_questions, first_asked, same_requests, share_read, teach_nearest
from scmulan.questions import KINDS, PARTS, Phrasings, Question
from scmulan.requests import Request, RequestGrammar, load_grammar
from scmulan.requests_names import with_names
from scmulan.tasks import load

QUESTIONS_A_KIND = 500
READ_AT_ONCE = 64
BY_HAND = Path("tests") / "questions.yaml"


def ask(*, model: str, device: str, seed: int, data: Path | None, n: int | None, say: Callable[[str], None], **_: Any) -> dict[str, Any]:
    """Shares of ``n`` (500) questions of each kind in held-out phrasings, and of those of ``questions.yaml``, that are read exactly right.

    Parameters
    ----------
    data : a folder that holds ``questions.yaml``; ``tests`` when not given
    """
    opened = load(model, device=device)
    grammar = load_grammar(list(opened.prompts.fields))
    held, far = (Phrasings(grammar, opened.vocabulary.genes, part=part) for part in PARTS[1:])
    plain = teach_nearest(grammar, opened.vocabulary.genes, seed=seed)
    say(f"nearest phrasing: knows {TAUGHT:,} training questions")
    sure: list[tuple[bool, float]] = []

    def by_model(texts: Sequence[str]) -> list[Right]:
        found = [reading for at in range(0, len(texts), READ_AT_ONCE) for reading in opened.read_questions(texts[at : at + READ_AT_ONCE])]
        sure.extend((reading.is_unsure, reading.probability) for reading in found)
        return [reading.requests for reading in found]

    found: dict[str, Any] = {"questions_a_kind": n or QUESTIONS_A_KIND}
    for drawn, kind in [*((held, kind) for kind in KINDS), *((far, kind) for kind in KINDS)]:
        name = f"{'held out' if drawn is held else 'far'}, {kind}"
        questions, right = draw_questions(drawn, kind, n or QUESTIONS_A_KIND, grammar, seed=seed)
        said = [question.text for question in questions]
        found[name] = compared(said, right, by_model, plain.read)
        if kind == "plain":
            found[f"{name}, by task"] = _by_task(questions, right, by_model)
        say(f"{name}: {found[name]}")
    said, right = by_hand((data or Path()) / ("questions.yaml" if data else BY_HAND), grammar)
    found["by hand"] = compared(said, right, by_model, plain.read)
    say(f"by hand: {found['by hand']}")
    found["unsure"] = round(float(np.mean([unsure for unsure, _ in sure])), 4)
    return found


def by_hand(path: Path, grammar: RequestGrammar) -> tuple[list[str], list[Right]]:
    """Questions and their requests from a file; PromptError where there is none."""
    if not path.is_file():
        raise PromptError(f"{path}: no such file; give its folder as --data (tests/ of the repository)")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    right = [tuple(with_names(Request.from_dict(one, grammar))[0] for one in entry["want"]) for entry in entries]
    return [entry["ask"] for entry in entries], right


def compared(texts: Sequence[str], right: Sequence[Right], by_model: Reads, by_phrasing: Reads) -> dict[str, float]:
    """Shares of questions read exactly right, and with the right tasks, by the model and by the nearest phrasing."""
    found: dict[str, float] = {}
    for way, reads in (("model", by_model), ("nearest_phrasing", by_phrasing)):
        share = share_read(reads(texts), right)
        found[way], found[f"{way}_tasks"] = round(share.exact, 4), round(share.tasks, 4)
        if share.refused_wrongly is not None:
            found[f"{way}_refused_wrongly"] = round(share.refused_wrongly, 4)
    return found


def _by_task(questions: Sequence[Question], right: Sequence[Right], reads: Reads) -> dict[str, str]:
    """For each task, how many questions were read exactly right."""
    said = reads([question.text for question in questions])
    total = Counter(first_asked(question) for question in questions)
    good = Counter(first_asked(question) for question, a, b in zip(questions, said, right, strict=True) if same_requests(a, b))
    return {task: f"{good[task]} of {total[task]}" for task in sorted(total)}
