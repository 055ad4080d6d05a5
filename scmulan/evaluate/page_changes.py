"""The parts of the page about cells that change: perturbations."""

from __future__ import annotations

from typing import Any

from scmulan.evaluate.cells import MODEL
from scmulan.evaluate.page_words import beats
from scmulan.evaluate.perturbation import FROM_REAL, TARGET_MEAN, Foreseen, Perturbation, Which
from scmulan.report import Report, shown


def perturbation_section(report: Report, found: list[Perturbation]) -> Report:
    """Each data set: every way beside the others, perturbation by perturbation beside the best simple rule, and which one it was."""
    report.section("What a perturbation does")
    for each in found:
        ours, theirs = each.ways[MODEL], each.ways[TARGET_MEAN]
        report.headline(f"Pearson of changes, {each.dataset}", ours.pearson, f"{TARGET_MEAN} {shown(theirs.pearson)}")
        report.text(perturbation_words(each))
        caption = (
            "Means over perturbations. Own: the mean of all perturbations taken off. Rank: share of other perturbations whose true "
            f"change is less alike, 0.5 by chance. The noise of the held-out cells allows a Pearson of {shown(each.ceiling)}."
        )
        report.table([_row(who, way) for who, way in each.ways.items()], emphasise=MODEL, caption=caption)
        report.table(
            [
                {
                    "perturbation": name,
                    "held-out cells": n,
                    "Pearson, scmulan": ours.by_perturbation[name],
                    "from measured controls": each.ways[FROM_REAL].by_perturbation[name],
                    TARGET_MEAN: theirs.by_perturbation[name],
                }
                for name, n in each.cells.items()
            ],
            caption="Pearson of the change over all genes.",
        )
        for size, which in each.which.items():
            report.table(
                _which_rows(which), emphasise=MODEL, caption=f"Which of {which.n_candidates} perturbations: {size}, {which.n:,} times."
            )
        if each.left_out:
            report.table([[name, why] for name, why in each.left_out.items()], ["perturbation", "why it was left out"])
    return report


def perturbation_words(found: Perturbation) -> str:
    """What was done, and whether the rules were beaten."""
    ours = found.ways[MODEL]
    rules = {who: way.pearson for who, way in found.ways.items() if who not in (MODEL, FROM_REAL) and way.pearson is not None}
    best = max(rules, key=lambda who: rules[who]) if rules else None
    words = (
        f"{found.dataset}: the model wrote {found.n_written:,} cells of each of {len(found.cells)} perturbations from training control "
        f"cells, and as many with none. The truth is {sum(found.cells.values()):,} held-out perturbed cells against {found.n_control:,} "
        f"control cells ({found.controls})."
    )
    if ours.pearson is not None and best is not None:
        words += (
            f" The model's change correlates with the true one by {shown(ours.pearson)}, {beats(ours.pearson, rules[best])} the best "
            f"simple way, {best} ({shown(rules[best])})."
        )
    return words


def _row(who: str, way: Foreseen) -> dict[str, Any]:
    return {
        "way": who,
        "Pearson": way.pearson,
        "20 most changed": way.pearson_top,
        "own": way.pearson_own,
        "RMSE": way.rmse,
        "rank": way.rank,
        "energy distance": way.energy,
    }


def _which_rows(which: Which) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"way": who, "first": told.first, "first five": told.five, "rank": told.rank} for who, told in which.ways.items()
    ]
    return [*rows, {"way": "chance", "first": which.chance_first, "first five": which.chance_five, "rank": 0.5}]
