"""Later states and fates foretold from held-out earlier cells, beside ways that need no model; truth are the later cells of their clones.

Data set by data set and from one time to another, where cells have labels of time and a column of ``obs`` says their clones. Pairs are
within the held-out cells. Limit: where a clone stands on both sides, every way has learnt from relatives; ``shared_clones`` counts them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scmulan.corpus.states import in_days
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance
from scmulan.errors import CellDataError
from scmulan.evaluate.cells import MODEL, Side, Skipped, counter, of_dataset
from scmulan.evaluate.given import Given, Prepared
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.perturbation_ways import onto_genes
from scmulan.genes import GeneTable
from scmulan.measures.change import Floats
from scmulan.measures.fate import fate_score
from scmulan.measures.next_state import Followed, next_state_score
from scmulan.measures.populations import cell_space, population_distance
from scmulan.measures.state_ways import FATES, STATES, TRANSPORT, Rows, StateTask, as_points, fates_of
from scmulan.pairing import Pairs, pair_by_clone

LEAST_CELLS = 10
"""Held-out earlier cells with a later relative that a pair of times needs."""
LEAST_LATER = 4
NO_CLONE = ("", "nan", "None", "<NA>")


@dataclass(frozen=True, kw_only=True)
class StateWay:
    """Foretold states against the later cells of the clones, in principal components of log1p CP10k; see `scmulan.measures.next_state`.

    ``energy`` asks whether they are like real later cells, ``error`` whether a cell went where its relatives did, ``rank`` (0.5 by chance)
    whether clones are told apart. No one of the three is enough.
    """

    energy: float
    error: float
    rank: float | None


@dataclass(frozen=True, kw_only=True)
class FateWay:
    """Foretold fates against those of the clone: log loss in nats, share of right ones, AUROC over fates."""

    log_loss: float
    accuracy: float
    auroc: float | None


@dataclass(frozen=True, kw_only=True)
class States:
    """From one time to another in one data set.

    Attributes
    ----------
    n_cells, n_later, n_clones : held-out earlier cells, their later relatives, and their clones
    shared_clones : those of the clones that training cells have too
    halves_energy : energy distance of one half of the true later cells from the other
    fates : types that the relatives of five earlier cells or more have; ``undecided`` pairs have none of them
    left_out : why a part was not measured
    """

    dataset: str
    earlier: str
    later: str
    n_cells: int
    n_later: int
    n_clones: int
    shared_clones: int
    halves_energy: float
    states: dict[str, StateWay]
    fates: list[str]
    undecided: int
    fate_ways: dict[str, FateWay]
    left_out: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Posed:
    """What is asked of one data set and two times: the task, and which held-out cells became which."""

    dataset: str
    task: StateTask
    followed: Followed
    shared_clones: int


def prepare(given: Given) -> Prepared[list[States]]:
    """Each data set and pair of times with enough held-out relatives, or why there is none."""
    cells = given.held.cells
    if not any(given.held.column(given.clone)):
        return Skipped(f"the held-out cells have no clones: no column {given.clone!r} of obs says any")
    if not any(cells.fields.get("time") or []):
        return Skipped("the held-out cells have no labels of time")
    if (reason := why_not_learnt(given.model, "next_state")) is not None:
        return Skipped(reason)
    found = [each for dataset in sorted(set(cells.dataset)) for each in _of_dataset(given, dataset)]
    posed = given.those_posed("states", found)
    return posed if isinstance(posed, Skipped) else lambda: [_measured(given, each) for each in posed]


def _of_dataset(given: Given, dataset: str) -> list[Posed | Skipped]:
    both, n_train = of_dataset(given.train, given.held, dataset)
    times = [time or "" for time in both.cells.fields.get("time") or [None] * len(both.cells)]
    try:
        order = sorted({time for time in times if time}, key=in_days)
    except CellDataError as error:
        return [Skipped(str(error), dataset)]
    if len(order) < 2:
        return [Skipped(f"cells of {len(order)} times; needed two", dataset)]
    return [_posed(given, dataset, both, n_train, times, *step) for step in itertools.combinations(order, 2)]


def _posed(given: Given, dataset: str, both: Side, n_train: int, times: Sequence[str], earlier: str, later: str) -> Posed | Skipped:
    what = f"{dataset}, {earlier} to {later}"
    clones = [clone if clone and clone not in NO_CLONE else None for clone in both.column(given.clone)]
    if later not in given.model.seen.values("time"):
        return Skipped(f"the model has seen no cell of {later}", what)
    try:
        held, train = (
            pair_by_clone(of_side, clones, earlier=earlier, later=later)
            for of_side in (["" if row < n_train else time for row, time in enumerate(times)], times[:n_train])
        )
    except CellDataError as error:
        return Skipped(str(error), what)
    rows, place = np.unique(held.earlier, return_inverse=True)
    n_later = len(np.unique(held.later))
    if len(rows) < LEAST_CELLS or n_later < LEAST_LATER:
        needed = f"needed {LEAST_CELLS} cells and {LEAST_LATER} relatives"
        return Skipped(f"{len(rows)} held-out cells have a later relative, {n_later} later cells are one; {needed}", what)
    task = _task(both, np.arange(n_train), times, clones, rows, train, (earlier, later), given.seed)
    known = {clone for clone in clones[:n_train] if clone}
    return Posed(
        dataset=dataset,
        task=task,
        followed=Followed(earlier=place.astype(np.int64), later=held.later, weight=held.weight),
        shared_clones=len({clones[row] for row in rows} & known),
    )


def _task(
    both: Side,
    train: Rows,
    times: Sequence[str],
    clones: Sequence[str | None],
    held: Rows,
    pairs: Pairs,
    step: tuple[str, str],
    seed: int,
) -> StateTask:
    cells = both.cells
    counts = sp.csr_matrix(cells.counts[:, cells.measured])
    return StateTask(
        cells=cells,
        counts=counts,
        genes=[str(symbol) for symbol in GeneTable.load().symbols[cells.measured]],
        times=list(times),
        clones=[clone or "" for clone in clones],
        types=[label or "" for label in cells.fields.get("cell_type") or [None] * len(cells)],
        earlier=step[0],
        later=step[1],
        train=train,
        pairs=pairs,
        held=held,
        space=cell_space(counts, seed=seed),
        seed=seed,
    )


def _measured(given: Given, posed: Posed) -> States:
    task, followed, left_out = posed.task, posed.followed, dict[str, str]()
    clones = [task.clones[row] for row in task.held]
    points = task.space.place(task.counts)
    draws = given.sizes.state_draws
    on_cell = counter(given.say, f"next state, {task.earlier} to {task.later}", draws * len(task.held))
    drawn = [as_points(each, task) for each in later_cells(given, task, draws, on_cell)]
    said = {MODEL: drawn[0], **({f"{MODEL}, mean of {draws} draws": np.mean(drawn, axis=0)} if draws > 1 else {})}
    said |= {name: as_points(way(task), task) for name, way in STATES.items() if name != TRANSPORT}
    scores = {
        name: next_state_score(each, points, followed, clones=clones, bandwidth=task.space.bandwidth, seed=task.seed)
        for name, each in said.items()
    }
    true, fates, undecided = fates_of(task, followed)
    fate_ways: dict[str, FateWay] = {}
    if (reason := _why_no_fates(given, task, fates)) is not None:
        left_out["fates"] = reason
    else:
        for name, each in _foretold_fates(given, task, fates).items():
            score = fate_score(true, fates, each)
            fate_ways[name] = FateWay(log_loss=score.log_loss, accuracy=score.accuracy, auroc=score.auroc)
    later = points[np.unique(followed.later)]
    return States(
        dataset=posed.dataset,
        earlier=task.earlier,
        later=task.later,
        n_cells=len(task.held),
        n_later=len(later),
        n_clones=len(set(clones)),
        shared_clones=posed.shared_clones,
        halves_energy=_halves_energy(later, task),
        states={name: StateWay(energy=each.population.energy, error=each.error, rank=each.rank) for name, each in scores.items()},
        fates=fates,
        undecided=undecided,
        fate_ways=fate_ways,
        left_out=left_out,
    )


def later_cells(given: Given, task: StateTask, draws: int, on_cell: Advance | None) -> list[sp.csr_matrix]:
    """Cells that the model writes of the later time, one for each held-out cell and draw; counts over the task's genes."""
    changes = given.model.changes.changes
    ready, after = changes.read(task.cells.take(task.held)), {"time": task.later}
    samplings = [Sampling(seed=task.seed + draw) for draw in range(draws)]
    written = [changes.rewrite("next_state", ready, after, sampling=sampling, on_cell=on_cell) for sampling in samplings]
    return [onto_genes(given.model, each.counts, task.genes) for each in written]


def _foretold_fates(given: Given, task: StateTask, fates: Sequence[str]) -> Mapping[str, Floats]:
    on_cell = counter(given.say, f"fate, {task.earlier} to {task.later}", len(task.held))
    table = given.model.changes.changes.fates(task.cells.take(task.held), task.later, fates, on_cell)[0]
    return {MODEL: table.to_numpy(dtype=np.float64), **{name: way(task, fates) for name, way in FATES.items() if name != TRANSPORT}}


def _why_no_fates(given: Given, task: StateTask, fates: Sequence[str]) -> str | None:
    if (reason := why_not_learnt(given.model, "fate")) is not None:
        return reason
    if len(fates) < 2:
        return (
            f"the relatives of the held-out cells have {len(fates)} decided type{'s' * (len(fates) != 1)} of five cells or more; needed two"
        )
    known = {task.types[row] for row in task.pairs.later}
    missing = [name for name in fates if name not in known]
    return f"no relative of a training cell became {missing[0]!r}" if missing else None


def _halves_energy(later: Floats, task: StateTask) -> float:
    """Two random halves of the true later cells: what equal populations score."""
    shuffled = later[np.random.default_rng(task.seed).permutation(len(later))]
    half = len(later) // 2
    return population_distance(shuffled[:half], shuffled[half:], bandwidth=task.space.bandwidth).energy
