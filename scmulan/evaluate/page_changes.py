"""The parts of the page about cells that change: perturbations, later states and fates, depth."""

from __future__ import annotations

from typing import Any

from scmulan.evaluate.cells import MODEL
from scmulan.evaluate.depth import Depth
from scmulan.evaluate.generation import REGRESSION
from scmulan.evaluate.page_words import beats
from scmulan.evaluate.perturbation import FROM_REAL, TARGET_MEAN, Foreseen, Perturbation, Which
from scmulan.evaluate.states import States
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


def states_section(report: Report, found: list[States]) -> Report:
    """Each pair of times: later states, and fates, every way beside the others."""
    report.section("What cells become")
    for each in found:
        report.text(states_words(each))
        rows = [
            {"way": who, "energy distance": way.energy, "error": way.error, "rank of the clone": way.rank}
            for who, way in each.states.items()
        ]
        caption = (
            f"From {each.earlier} to {each.later}. Energy distance to the real later cells (half of them from the other half: "
            f"{shown(each.halves_energy)}); error, the distance of a foretold cell from the mean of its relatives; rank, the share of "
            "other clones that are farther, 0.5 by chance. No one of the three is enough: a mean has a small error and is like no cell."
        )
        report.table(rows, emphasise=MODEL, caption=caption)
        if each.fate_ways:
            fates = [
                {"way": who, "log loss, nats": way.log_loss, "accuracy": way.accuracy, "AUROC": way.auroc}
                for who, way in each.fate_ways.items()
            ]
            caption = f"Fates {', '.join(each.fates)}; {each.undecided:,} pairs have none of them."
            report.table(fates, emphasise=MODEL, caption=caption)
        if each.left_out:
            report.table([[name, why] for name, why in each.left_out.items()], ["part", "why it was left out"])
    return report


def states_words(found: States) -> str:
    """What was foretold, and whether the fates were told better than by regression."""
    words = (
        f"{found.dataset}: {found.n_cells:,} held-out cells of {found.earlier}, of {found.n_clones:,} clones, were taken to {found.later}, "
        f"where {found.n_later:,} cells are of their clones."
    )
    if found.shared_clones:
        words += f" {found.shared_clones:,} of the clones have training cells too, which flatters every way."
    ours, theirs = (found.fate_ways.get(who) for who in (MODEL, REGRESSION))
    if ours is not None and theirs is not None:
        words += (
            f" The model's fates have a log loss of {shown(ours.log_loss)}, "
            f"{beats(ours.log_loss, theirs.log_loss, is_lower_better=True)} logistic regression ({shown(theirs.log_loss)})."
        )
    return words


def depth_section(report: Report, found: Depth) -> Report:
    """Thinned cells brought back to depth, every way beside the others."""
    ours = found.ways[MODEL]
    others = {who: way.detection for who, way in found.ways.items() if who != MODEL and way.detection is not None}
    full, thinned = found.counts
    words = (
        f"{found.n_cells:,} held-out cells were thinned to {found.share:.0%} of their counts (of {shown(full)} in the median, "
        f"{shown(thinned)} are left) and brought back; the model drew {found.draws} cells of each."
    )
    if others and ours.detection is not None:
        best = max(others, key=lambda who: others[who])
        words += (
            f" Genes that thinning took away are told from absent ones with an AUROC of {shown(ours.detection)}, "
            f"{beats(ours.detection, others[best])} the best simple way, {best} ({shown(others[best])})."
        )
    report.headline("detection of what thinning took away", ours.detection)
    report.section("Shallow cells brought back to depth", words)
    rows = [
        {
            "way": who,
            "correlation with the full cell": way.pearson_cell,
            "gene by gene": way.pearson_gene,
            "RMSE": way.rmse,
            "detection AUROC": way.detection,
            "nats of a removed count": way.removed_nats,
        }
        for who, way in found.ways.items()
    ]
    caption = (
        "A thinned cell is part of the full one, so that leaving it alone correlates well; it detects nothing that was taken away (0.5)."
    )
    return report.table(rows, emphasise=MODEL, caption=caption)


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
