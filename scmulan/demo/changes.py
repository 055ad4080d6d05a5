"""Sixth part: cells as they would be after a knock-out, beside cells that really had it; and which knock-out it was, told from the cells.

What is measured against are held-out cells of guides that no model saw, beside control cells of their own: the noise of a shared control
would correlate truth and prediction. The perturbations shown are those that change most genes among *training* cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmulan import plots
from scmulan.corpus.pairs import CONTROLS
from scmulan.decoding.sampling import Sampling
from scmulan.demo.screens import HIDDEN, LEAST_HELD, Screen, find, open_screen
from scmulan.demo.stage import Dataset, Skipped, Stage
from scmulan.demo.whole import drawn
from scmulan.engines.base import Advance
from scmulan.evaluate import bars
from scmulan.evaluate.cells import counter
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.page import beats
from scmulan.measures import change_baselines as rules
from scmulan.measures import shift
from scmulan.measures.change import Change, ChangeScore, change_between, compare_changes, moments, true_change
from scmulan.report import shown
from scmulan.tasks_changed import change_table

TITLE = "6. Cells as they would be after a knock-out"
OURS, OWN, OTHERS, NONE = "scmulan", "mean of its training cells", "mean shift of the others", "no change"
LOOKUP, CHANCE = "correlation look-up", "chance"
MOST_CONTROLS, SUREST = 60, 8


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """One perturbation: cells it was learnt from and held-out ones, genes that it changes among the former, and how near each way came.

    ``pearson`` is over all genes, ``pearson_top`` over the 20 that truly change most, of the change in log1p CP10k; None where a way says
    no change. ``changed`` are the foretold changes (log2) of the genes of which it is surest, ``true`` those of the held-out cells.
    """

    perturbation: str
    n_train: int
    n_held: int
    significant: int
    pearson: dict[str, float | None]
    pearson_top: dict[str, float | None]
    rmse: dict[str, float]
    changed: dict[str, float]
    true: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Told:
    """Which perturbation: share of groups told right first, and mean rank among the candidates (0.5 by chance), by way."""

    n_groups: int
    group_cells: int
    n_candidates: int
    first: dict[str, float]
    rank: dict[str, float]
    answers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was foretold, each by itself and on the mean; ``told`` is None where there are too few cells for groups."""

    dataset: str
    n_written: int
    n_control: int
    foretold: list[Foretold]
    mean: dict[str, float | None]
    told: Told | None


def run(stage: Stage) -> Changes | Skipped:
    """Write cells of the perturbations that change most, and tell the perturbation of groups of held-out cells."""
    stage.say("6  Cells after a knock-out")
    reason = why_not_learnt(stage.model, "perturb") or why_not_learnt(stage.model, "explain_shift")
    dataset = None if reason else find(stage.datasets)
    if dataset is None:
        return stage.skip(TITLE, reason or "no data set has held-out perturbed cells beside controls")
    screen = open_screen(stage, dataset)
    if screen is None:
        return stage.skip(TITLE, f"{dataset.name} has not two perturbations that the model has seen, of {LEAST_HELD} held-out cells")
    chosen = sorted(screen.held, key=lambda label: -screen.significant[label])
    asked = chosen[: stage.sizes.knock_outs]
    with bars() as on_progress:
        n = stage.sizes.perturbed * (len(asked) + 1)
        written = write(stage, screen, asked, counter(on_progress, "write perturbed cells", n))
    found = measure(stage, dataset, screen, written, tell(stage, screen, chosen))
    show(stage, screen, found, written)
    ours, theirs = found.mean[OURS], found.mean[OWN]
    stage.say(f"   {', '.join(asked)}: correlation with the true change {shown(ours)}, {OWN} {shown(theirs)}")
    if found.told:
        stage.say(f"   which perturbation: {found.told.first[OURS]:.0%} of groups told right, {LOOKUP} {found.told.first[LOOKUP]:.0%}")
    return found


def write(stage: Stage, screen: Screen, asked: Sequence[str], on_cell: Advance) -> dict[str, sp.csr_matrix]:
    """Cells of each perturbation, and with none, all written from the same training controls; (N, measured genes) each.

    `Model.perturb` does the same for one perturbation; here the cells with none are written once for all of them.
    """
    changes, sampling = stage.model.changes.changes, Sampling(seed=stage.seed, coupled=True)
    ready = changes.read(screen.whole.take(screen.control_train, without=HIDDEN))
    columns = stage.model.vocabulary.columns(screen.whole.genes)
    known = np.flatnonzero(columns >= 0)
    found = {}
    for label in (changes.control(), *asked):
        after = {"perturbation": label}
        counts = changes.rewrite("perturb", ready, after, n=stage.sizes.perturbed, sampling=sampling, on_cell=on_cell).counts
        onto = sp.csr_matrix((np.ones(len(known), np.int32), (columns[known], known)), shape=(counts.shape[1], len(columns)))
        found[NONE if label in CONTROLS else label] = sp.csr_matrix(counts @ onto)
    return found


def measure(stage: Stage, dataset: Dataset, screen: Screen, written: Mapping[str, sp.csr_matrix], told: Told | None) -> Changes:
    """The change of written cells, and what simple rules say, against that of held-out cells."""
    counts, asked = screen.whole.counts, [label for label in written if label != NONE]
    control = moments(counts[screen.control_true])
    truths = {label: true_change(control, counts[screen.held[label]]) for label in asked}
    ways: dict[str, dict[str, Change]] = {
        OURS: {label: change_between(written[NONE], written[label]) for label in asked},
        OWN: {label: rules.target_mean(screen.training, label) for label in asked},
        OTHERS: {label: rules.mean_shift(screen.training.without(label), label) for label in asked},
        NONE: {label: rules.no_change(screen.training, label) for label in asked},
    }
    compared = {who: compare_changes(truths, said) for who, said in ways.items()}
    foretold = []
    for label in asked:
        of: dict[str, ChangeScore] = {who: each.scores[label] for who, each in compared.items()}
        fold, table = ways[OURS][label].fold, change_table(written[NONE], written[label], seed=stage.seed)
        most = np.lexsort((-np.abs(fold), table["p_value"].to_numpy()))[:SUREST]
        foretold.append(
            Foretold(
                perturbation=label, n_train=len(screen.train[label]), n_held=len(screen.held[label]), significant=screen.significant[label],
                pearson={who: each.pearson for who, each in of.items()}, pearson_top={who: each.pearson_top for who, each in of.items()},
                rmse={who: each.rmse for who, each in of.items()}, changed={screen.whole.genes[k]: float(fold[k]) for k in most},
                true={screen.whole.genes[k]: float(truths[label].change.fold[k]) for k in most},
            )
        )  # fmt: skip
    return Changes(
        dataset=dataset.name, n_written=stage.sizes.perturbed, n_control=len(screen.control_true), foretold=foretold,
        mean={who: each.means.pearson for who, each in compared.items()}, told=told,
    )  # fmt: skip


def tell(stage: Stage, screen: Screen, chosen: Sequence[str]) -> Told | None:
    """The perturbation of one group of held-out cells of each target, those first that change most genes in training cells."""
    size, candidates = stage.sizes.group_cells, sorted(screen.train)
    labels = [label for label in chosen if len(screen.held[label]) >= size][: stage.sizes.groups]
    if not labels or len(candidates) < 2:
        return None
    groups = [shift.Population(target=label, rows=drawn(screen.held[label], size, stage.seed)) for label in labels]
    control = screen.whole.take(drawn(screen.control_train, MOST_CONTROLS, stage.seed), without=HIDDEN)
    ranked = []
    with bars() as on_progress:
        for done, group in enumerate(groups):
            on_progress("tell the perturbation", done, len(groups))
            table = stage.model.explain_shift(control, screen.whole.take(group.rows, without=HIDDEN), seed=stage.seed)
            ranked.append([name for name in table.index if name in candidates])
        on_progress("tell the perturbation", len(groups), len(groups))
    profiles = np.stack([rules.target_mean(screen.training, label).mean for label in candidates])
    counts = screen.whole.counts
    queries = shift.population_changes(counts, groups, moments(counts[screen.control_true]).mean)
    scores = {
        OURS: np.array([[-float(order.index(name)) for name in candidates] for order in ranked]),
        LOOKUP: shift.correlation_lookup(profiles, queries),
    }
    found = {who: shift.identification(labels, each, candidates) for who, each in scores.items()}
    one = found[OURS]
    return Told(
        n_groups=len(labels), group_cells=size, n_candidates=one.n_candidates,
        first={who: each.first for who, each in found.items()} | {CHANCE: one.chance_first},
        rank={who: each.rank for who, each in found.items()} | {CHANCE: 0.5},
        answers={label: order[0] for label, order in zip(labels, ranked, strict=True)},
    )  # fmt: skip


def show(stage: Stage, screen: Screen, found: Changes, written: Mapping[str, sp.csr_matrix]) -> None:
    """The section of the page."""
    report, ours = stage.report, found.mean[OURS]
    report.headline("change after a knock-out (correlation)", ours, f"{OWN} {shown(found.mean[OWN])}")
    report.section(TITLE, words(found))
    for number, each in enumerate(found.foretold, 1):
        table = change_table(written[NONE], written[each.perturbation], seed=stage.seed).set_axis(pd.Index(screen.whole.genes))
        picture = plots.volcano(table.add_prefix("scmulan_"), title=f"{each.perturbation}, as the model foretells it")
        most = ", ".join(f"{gene} {change:+.2f} (truly {each.true[gene]:+.2f})" for gene, change in each.changed.items())
        stage.picture(picture, f"volcano_{number}", f"Foretold changes, log2, of {each.perturbation}; the surest: {most}.")
    rows = [_row(each, who) for each in found.foretold for who in each.pearson]
    report.table(rows, caption="Foretold change against that of held-out cells of another guide; in log1p CP10k.")
    if found.told:
        report.text(told_words(found.told))
        answers = [{"perturbation": name, "said": said, "right": name == said} for name, said in found.told.answers.items()]
        report.table(answers, caption="What the model said of each group.")


def _row(found: Foretold, who: str) -> dict[str, object]:
    return {
        "perturbation": found.perturbation,
        "foretold by": who,
        "held-out cells": found.n_held,
        "correlation, all genes": found.pearson[who],
        "correlation, 20 most changed": found.pearson_top[who],
        "RMSE": found.rmse[who],
    }


def words(found: Changes) -> str:
    """What was foretold and what the figures say, in plain words."""
    ours, own, others = (found.mean[who] or 0.0 for who in (OURS, OWN, OTHERS))
    names = ", ".join(each.perturbation for each in found.foretold)
    return (
        f"The model has learnt from knocked-out cells beside controls. Here it is given control cells and writes each as it would be after "
        f"{names}: of those in {found.dataset}, the ones that change most genes among training cells. {found.n_written} cells are written "
        "of each, and the same cells with no knock-out; their difference is what the model foretells. In your own data: "
        '`model.perturb(controls, {"STAT1": "knockout"})`.\n\n'
        f"The truth are cells of a guide that was held out, against {found.n_control:,} control cells that were held out, too. On the mean "
        f"the foretold change correlates with it by {shown(ours)}. The mean change of the target's own training cells, which needs no "
        f"model and knows this target only, has {shown(own)}: the model is {beats(ours, own)} it. The mean over all other perturbations, "
        f"which says the same of every target, has {shown(others)}: the model is {beats(ours, others)} it. Such a mean is taken from all "
        "training cells, the model's from few written ones, whose noise counts against it."
    )


def told_words(found: Told) -> str:
    """How often the perturbation was told, in plain words."""
    ours, theirs, chance = (found.first[who] for who in (OURS, LOOKUP, CHANCE))
    return (
        f"The question put backwards: which of {found.n_candidates} perturbations was it? For each of {found.n_groups} groups of "
        f"{found.group_cells} held-out cells, of the targets that change most, the model is given controls and the group. It names "
        f"{ours:.0%} rightly, {beats(ours, theirs)} looking up the group's change among those of the training cells ({theirs:.0%}); "
        f"chance is {chance:.0%}. The right one stands above {found.rank[OURS]:.0%} of the others, by look-up above "
        f"{found.rank[LOOKUP]:.0%}."
    )
