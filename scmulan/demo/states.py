"""Seventh part: what cells of clones become by a later time, for clones of which the model has seen no cell.

The truth is what cells of the same clone were found to be at the later time. A clone may have several fates; a later cell that is still a
progenitor says nothing yet. Few clones are held out, so that differences of some hundredths are chance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scmulan import plots_fates
from scmulan.demo.stage import Dataset, Skipped, Stage
from scmulan.demo.whole import Rows, Whole, drawn
from scmulan.evaluate import bars
from scmulan.evaluate.cells import counter
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.page import beats
from scmulan.measures.change import Floats
from scmulan.measures.fate import Fates, fate_score, foretell_by_regression, foretell_shares
from scmulan.measures.next_state import Followed, NextStateScore, as_neighbour, next_state_score
from scmulan.measures.populations import cell_space
from scmulan.pairing import Pairs, pair_by_clone
from scmulan.report import shown

TITLE = "7. What cells become"
OURS, SHARES, REGRESSION = "scmulan", "training shares", "logistic regression"
UNCHANGED, LATER, NEIGHBOUR = "no change", "later cells at random", "nearest cell's relative"
UNDECIDED = ("hematopoietic multipotent progenitor cell", "hematopoietic precursor cell")
LEAST_CELLS = 5
"""Earlier training cells that a fate needs to be a class."""


@dataclass(frozen=True, kw_only=True)
class States:
    """Fates and later states of cells of held-out clones.

    ``fates`` maps each way to log loss (nats), accuracy and AUROC; ``states`` each way to the energy distance of its cells from the true
    later ones, the distance of each from its relatives' mean, and the rank of the right clone (0.5 by chance).
    """

    dataset: str
    earlier: str
    later: str
    n_clones: int
    n_fates: int
    n_train: int
    classes: list[str]
    fates: dict[str, dict[str, float | None]]
    n_states: int
    states: dict[str, dict[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class Clones:
    """Cells of clones at two times; pairs by row of the file, of clones learnt from and of those held out."""

    whole: Whole
    earlier: str
    later: str
    clones: list[str]
    train: Pairs
    held: Pairs

    @property
    def asked(self) -> Rows:
        """Rows of the held-out earlier cells."""
        return np.unique(self.held.earlier)


def run(stage: Stage) -> States | Skipped:
    """Ask fates and write later states of held-out clones."""
    stage.say("7  What cells become")
    reason = why_not_learnt(stage.model, "next_state") or why_not_learnt(stage.model, "fate")
    clones = None if reason else find(stage)
    if clones is None:
        return stage.skip(TITLE, reason or "no data set has clones, some of them held out, that were measured at two times")
    dataset, followed = clones
    classes = classes_of(followed)
    if len(classes) < 2:
        return stage.skip(TITLE, f"{dataset.name} has {len(classes)} fates with {LEAST_CELLS} cells; needed two")
    true = _fates(followed.whole, followed.held, classes)[1]
    said = foretell(stage, followed, classes)
    fates = {who: _fate_row(true, classes, each) for who, each in said.items()}
    n, states = measure_states(stage, followed)
    found = States(
        dataset=dataset.name, earlier=followed.earlier, later=followed.later,
        n_clones=len({followed.clones[followed.asked[cell]] for cell in true.cell}), n_fates=len(set(true.cell.tolist())),
        n_train=len(np.unique(followed.train.earlier)), classes=list(classes), fates=fates, n_states=n, states=states,
    )  # fmt: skip
    show(stage, followed, found, true, said)
    ours, theirs = (found.fates[who]["log loss"] for who in (OURS, REGRESSION))
    stage.say(f"   fates of {found.n_fates} cells of {found.n_clones} clones: log loss {shown(ours)}, {REGRESSION} {shown(theirs)}")
    return found


def find(stage: Stage) -> tuple[Dataset, Clones] | None:
    """The first data set with clones at its last two times, held out and not."""
    for dataset in stage.datasets:
        if not any(dataset.held.fields.get("time") or []):
            continue
        whole = stage.whole(dataset)
        clones, times = whole.column("clone"), whole.field("time")
        known = sorted({str(time) for time in times if time is not None} & set(stage.model.seen.values("time")), key=_number)
        if clones is None or len(known) < 2:
            continue
        earlier, later = known[-2:]
        sides = [_pairs(whole, clones, earlier, later, is_held) for is_held in (False, True)]
        if sides[0] is not None and sides[1] is not None:
            return dataset, Clones(whole=whole, earlier=earlier, later=later, clones=clones, train=sides[0], held=sides[1])
    return None


def _number(time: str) -> float:
    found = re.search(r"\d+(?:\.\d+)?", time)
    return float(found.group()) if found else 0.0


def _pairs(whole: Whole, clones: Sequence[str], earlier: str, later: str, is_held: bool) -> Pairs | None:
    """Pairs among the cells of one side of the split; None where no clone has any."""
    times = whole.field("time")
    rows = np.flatnonzero(whole.is_held == is_held)
    shared = [{clones[row] for row in rows.tolist() if times[row] == time} for time in (earlier, later)]
    if not shared[0] & shared[1]:
        return None
    found = pair_by_clone(times[rows], [clones[row] for row in rows.tolist()], earlier=earlier, later=later)
    return Pairs(earlier=rows[found.earlier], later=rows[found.later], weight=found.weight, record=found.record)


def classes_of(found: Clones) -> list[str]:
    """Types that enough earlier training cells become, and that any held-out one may be said to; progenitors are none."""
    types = found.whole.field("cell_type")
    cells: dict[str, set[int]] = {}
    for row, later in zip(found.train.earlier.tolist(), found.train.later.tolist(), strict=True):
        cells.setdefault(str(types[later]), set()).add(row)
    classes = sorted(name for name, rows in cells.items() if len(rows) >= LEAST_CELLS and name not in (*UNDECIDED, "None"))
    return classes if {str(types[row]) for row in found.held.later} & set(classes) else []


def _fates(whole: Whole, pairs: Pairs, classes: Sequence[str]) -> tuple[Rows, Fates]:
    """The earlier cells with a fate of the classes, and the fates by place among *all* earlier cells of the pairs."""
    types = whole.field("cell_type")
    rows, place = np.unique(pairs.earlier, return_inverse=True)
    kept = np.flatnonzero([str(types[row]) in classes for row in pairs.later])
    weight = pairs.weight[kept]
    total = np.bincount(place[kept], weight, minlength=len(rows))
    labels = [str(types[row]) for row in pairs.later[kept]]
    return rows, Fates(cell=place[kept].astype(np.int64), label=labels, weight=weight / total[place[kept]])


def foretell(stage: Stage, found: Clones, classes: Sequence[str]) -> dict[str, Floats]:
    """Probabilities of the classes for each held-out earlier cell, by each way; (C, classes)."""
    counts, asked = found.whole.counts, found.asked
    rows, train = _fates(found.whole, found.train, classes)
    with bars() as on_progress:
        count = counter(on_progress, "ask fates", len(asked))
        ours = stage.model.fate(found.whole.take(asked, without=("clone",)), found.later, labels=classes, on_cell=count)
    return {
        OURS: ours[list(classes)].to_numpy(),
        REGRESSION: foretell_by_regression(counts[rows], train, counts[asked], classes),
        SHARES: foretell_shares(train, classes, len(asked)),
    }


def _fate_row(true: Fates, classes: Sequence[str], said: Floats) -> dict[str, float | None]:
    score = fate_score(true, classes, said)
    return {"log loss": score.log_loss, "accuracy": score.accuracy, "AUROC": score.auroc}


def measure_states(stage: Stage, found: Clones) -> tuple[int, dict[str, dict[str, float | None]]]:
    """How near written later cells are to the true ones, beside ways that need no model; and of how many cells."""
    whole, rows = found.whole, drawn(found.asked, stage.sizes.followed, stage.seed)
    with bars() as on_progress:
        count = counter(on_progress, "write later states", len(rows))
        made = stage.model.next_state(whole.take(rows, without=("clone",)), found.later, seed=stage.seed, on_cell=count)
    space = cell_space(whole.counts[~whole.is_held], seed=stage.seed)
    points = space.place(whole.counts)
    place = {row: k for k, row in enumerate(rows.tolist())}
    kept = np.flatnonzero(np.isin(found.held.earlier, rows))
    held = Followed(
        earlier=np.array([place[row] for row in found.held.earlier[kept].tolist()]), later=found.held.later[kept],
        weight=found.held.weight[kept],
    )  # fmt: skip
    train = Followed(earlier=found.train.earlier, later=found.train.later, weight=found.train.weight)
    at_random = np.random.default_rng([stage.seed, 31]).choice(np.unique(found.train.later), len(rows))
    ways = {
        OURS: space.place(stage.onto(made, whole)),
        UNCHANGED: points[rows],
        LATER: points[at_random],
        NEIGHBOUR: as_neighbour(points, points, train, points[rows], seed=stage.seed),
    }
    clones = [found.clones[row] for row in rows]
    scores = {who: next_state_score(said, points, held, clones=clones, bandwidth=space.bandwidth) for who, said in ways.items()}
    return len(rows), {who: _state_row(score) for who, score in scores.items()}


def _state_row(score: NextStateScore) -> dict[str, float | None]:
    return {"energy": score.population.energy, "error": score.error, "rank": score.rank}


def show(stage: Stage, followed: Clones, found: States, true: Fates, said: dict[str, Floats]) -> None:
    """The section of the page."""
    report = stage.report
    ours, theirs = (found.fates[who]["log loss"] for who in (OURS, REGRESSION))
    report.headline("fate of held-out clones (log loss)", ours, f"{REGRESSION} {shown(theirs)}")
    report.section(TITLE, words(found))
    shares = _by_clone(followed, found.classes, true, said)
    title = f"Fates by {found.later} of cells of {found.earlier}, by clone"
    caption = "Each row is a held-out clone: what its later cells truly are, and the mean of what was foretold of its earlier cells."
    stage.picture(plots_fates.fates_by_clone(shares, found.classes, title=title), "fates", caption)
    report.table([{"foretold by": who, **row} for who, row in found.fates.items()], emphasise=OURS, caption="Fates.")
    report.table([{"later cells": who, **row} for who, row in found.states.items()], emphasise=OURS, caption=STATES_CAPTION)


STATES_CAPTION = (
    "Later states. Energy: distance of all foretold cells from the true later cells. Error: distance of a cell from the mean of its "
    "clone's later cells. Rank: share of the other clones that are farther than the right one; 0.5 by chance."
)


def _by_clone(followed: Clones, classes: Sequence[str], true: Fates, said: dict[str, Floats]) -> dict[str, Floats]:
    """Mean shares of the fates by clone, (clones, classes), true first; clones in the order of their commonest fate."""
    cells, k = np.unique(true.cell), {name: place for place, name in enumerate(classes)}
    shares = np.zeros((len(followed.asked), len(classes)))
    np.add.at(shares, (true.cell, np.array([k[label] for label in true.label])), true.weight)
    clones = np.array([followed.clones[followed.asked[cell]] for cell in cells])
    names = np.unique(clones)
    means = {who: np.stack([each[cells[clones == name]].mean(0) for name in names]) for who, each in {"true": shares, **said}.items()}
    order = np.lexsort((-means["true"].max(1), means["true"].argmax(1)))
    return {who: each[order] for who, each in means.items()}


def words(found: States) -> str:
    """What was asked and what the figures say, in plain words."""
    ours, theirs, plain = (found.fates[who] for who in (OURS, REGRESSION, SHARES))
    loss, right = ((beats_of(ours, theirs, name, name == "log loss")) for name in ("log loss", "accuracy"))
    energy, at_random = (found.states[who]["energy"] for who in (OURS, LATER))
    rank, unchanged = (found.states[who]["rank"] for who in (OURS, UNCHANGED))
    return (
        f"In {found.dataset} cells carry barcodes, so that it is known which cells of {found.later} descend from the same cell as those of "
        f"{found.earlier}. The model has learnt from {found.n_train} such cells of {found.earlier}; asked here are {found.n_fates} of "
        f"{found.n_clones} clones of which it has seen none. `model.fate` gives probabilities of {len(found.classes)} fates (cells that "
        f"are still progenitors at {found.later} say nothing yet and are left out).\n\n"
        f"Its log loss is {shown(ours['log loss'])} nats, {loss} logistic regression on the same pairs ({shown(theirs['log loss'])}) and "
        f"{beats_of(ours, plain, 'log loss', True)} the bare shares of the training fates ({shown(plain['log loss'])}). Its likeliest fate "
        f"is right for {shown(100 * (ours['accuracy'] or 0))} %, {right} the regression's "
        f"({shown(100 * (theirs['accuracy'] or 0))} %).\n\n"
        f"`model.next_state` writes the later cell itself, here of {found.n_states} cells. As a population the written cells are "
        f"{shown(energy)} away from the true later cells, {beats_of(found.states[OURS], found.states[LATER], 'energy', True)} real later "
        f"cells of other clones, drawn at random ({shown(at_random)}). The right clone stands "
        f"above {shown(100 * (rank or 0))} % of the others; a cell left as it is: {shown(100 * (unchanged or 0))} %, so the "
        f"written cells tell clones apart {_clones_verdict(rank, unchanged)} the cells that they were written from. "
        "With so few clones, here and above, a difference of some hundredths is chance."
    )


def beats_of(ours: dict[str, float | None], theirs: dict[str, float | None], name: str, is_lower_better: bool) -> str:
    """`beats` of one measure."""
    return beats(ours[name] or 0.0, theirs[name] or 0.0, is_lower_better=is_lower_better)


def _clones_verdict(ours: float | None, theirs: float | None) -> str:
    return beats(ours or 0.0, theirs or 0.0)
