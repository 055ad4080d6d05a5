"""The part of the page about questions in English."""

from __future__ import annotations

from scmulan.evaluate.cells import MODEL
from scmulan.evaluate.page_words import beats
from scmulan.evaluate.questions import NEAREST, Questions
from scmulan.report import Report, shown


def questions_section(report: Report, found: Questions) -> Report:
    """Shares of each kind of held-out phrasings read right, beside the nearest training phrasing."""
    plain = found.kinds["plain"]
    ours, theirs = plain[MODEL].exact, plain[NEAREST].exact
    words = (
        f"Phrasings that were not trained on, with fresh names, {found.n:,} of each kind. Plain ones are read exactly right by "
        f"{shown(100 * ours)} %, {beats(ours, theirs)} taking the most alike of {found.taught:,} training questions "
        f"({shown(100 * theirs)} %). Outside: questions that are to be refused."
    )
    report.headline("plain questions read right", ours, f"{NEAREST} {shown(theirs)}")
    report.section("How it reads questions", words)
    rows = [
        {
            "kind": kind,
            **{f"{who}, exactly right": share.exact for who, share in ways.items()},
            **{f"{who}, right tasks": share.tasks for who, share in ways.items()},
            "refused wrongly": ways[MODEL].refused_wrongly,
        }
        for kind, ways in found.kinds.items()
    ]
    return report.table(rows)
