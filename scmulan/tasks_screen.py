"""Every gene, or pair of genes, edited in the cells of a start: how far each goes toward a goal, beside genes that are detected as often.

What comes out is a ranking of what speaks for the goal in the model's reading of cells (`scmulan.tasks_edits`), not of what would bring
cells there. Three questions may be put: the log-odds of the goal's labels, where the embedding goes, or the slope of the log-odds, which
stands for all genes at once and is a first guess at the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from scmulan.cells import AnnData
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.engines.transformers_slopes import slopes
from scmulan.engines.transformers_variants import hidden_variants, score_variants
from scmulan.errors import PromptError, nearest, some
from scmulan.measures.matched import matched
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.tasks_edits import ACTIONS, Action, edited, edited_count, measured_column, sentences
from scmulan.tasks_embedding import Embeddings, EmbeddingSettings, as_points
from scmulan.tasks_goals import Goal, goal_of, labels_of
from scmulan.tasks_opened import Ready

BY = ("odds", "embedding", "gradient")
MOST_CELLS, CONTROLS, MOST_PAIRED = 50, 200, 200
VARIANTS = 512
Set = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """The cells and the genes of a screen.

    Attributes
    ----------
    rows : cells that are edited, of those read
    sets : vocabulary columns that are edited together; the controls come last
    n_wanted : how many of the sets were asked for
    detection : (vocabulary genes,) share of all cells read that have the gene
    """

    ready: Ready
    known: list[dict[str, str | None]]
    goal: Goal
    rows: list[int]
    sets: list[Set]
    n_wanted: int
    detection: npt.NDArray[np.float64]


def screen(
    answers: Answers,
    adata: AnnData,
    goal: Mapping[str, str],
    *,
    start: Mapping[str, str] | None = None,
    genes: Sequence[str] | None = None,
    action: Action = "raise",
    pairs: bool = False,
    by: str = "odds",
    most_cells: int = MOST_CELLS,
    controls: int = CONTROLS,
    seed: int = 0,
    on_variant: Advance | None = None,
) -> pd.DataFrame:
    """As ``Model.screen``."""
    if by not in BY:
        raise PromptError(f"by {by!r}: needed one of {', '.join(BY)}{nearest(by, BY)}")
    if action not in ACTIONS and not (isinstance(action, int) and action > 0):
        raise PromptError(f"action {action!r}: needed {', '.join(ACTIONS)} or a whole count{nearest(str(action), ACTIONS)}")
    if by == "gradient" and action in ACTIONS[:2]:
        raise PromptError(
            f"by='gradient' says nothing of genes to {action} (measured: docs/benchmarks.md); needed action='raise' or a count"
        )
    if pairs and (by == "gradient" or not genes or not 2 <= len(genes) <= MOST_PAIRED):
        raise PromptError(f"pairs: needed genes, from 2 to {MOST_PAIRED}, and by='odds' or 'embedding'")
    asked = ask(answers, adata, goal, start, genes, pairs, most_cells, controls, seed)
    shift_CN = by_slopes(answers, asked, action) if by == "gradient" else by_editing(answers, asked, action, by, on_variant)
    table = _ranked(answers, asked, shift_CN, pairs)
    table.attrs |= {
        "cells": len(asked.rows), "toward": list(asked.goal.toward), "away": list(asked.goal.away), "action": action, "by": by,
        "controls": len(asked.sets) - asked.n_wanted or asked.n_wanted, "seed": seed, **answers.opened.losses(asked.ready),
        "means": "what the model reads in edited cells; not an intervention that was learnt",
    }  # fmt: skip
    return table


def ask(
    answers: Answers,
    adata: AnnData,
    goal: Mapping[str, str],
    start: Mapping[str, str] | None,
    genes: Sequence[str] | None,
    pairs: bool,
    most_cells: int,
    controls: int,
    seed: int,
) -> Asked:
    """Read the cells and find which of them, and which genes, are meant."""
    opened, rng = answers.opened, np.random.default_rng([seed, 23])
    ready = opened.read(adata, reserve=opened.reserve() + 4)
    known = opened.given(ready.cells, GIVEN_TO_ANNOTATE)
    possible = answers.labels_for(known[0])
    if any(set(answers.labels_for(fields)) != set(possible) for fields in known):
        raise PromptError("the cells are of several organisms or organs, whose labels differ; screen those of one at a time")
    rows = _start_rows(ready, possible, start)
    if len(rows) > most_cells:
        rows = sorted(rng.choice(rows, most_cells, replace=False).tolist())
    detection = np.asarray((ready.counts > 0).mean(0)).ravel()
    every = np.flatnonzero(detection > 0)
    wanted = every if genes is None else np.array(list(dict.fromkeys(measured_column(opened, name, ready) for name in genes)), np.int64)
    if genes is not None and not len(wanted):
        raise PromptError("no gene given; needed at least one, or None for all that the cells have")
    drawn = np.zeros(0, np.int64) if genes is None else _controls(wanted, every, detection, controls, rng)
    sets: list[Set] = [(int(column),) for column in wanted]
    of_controls: list[Set] = [(int(column),) for column in drawn]
    if pairs:
        sets += [(int(a), int(b)) for a, b in combinations(wanted, 2)]
        of_controls += [(int(a), int(b)) for a, b in rng.permuted(np.tile(drawn, (2, 1)), axis=1).T if a != b]
    return Asked(ready, known, goal_of(possible, goal, start), rows, sets + of_controls, len(sets), detection)


def _start_rows(ready: Ready, possible: Sequence[str], start: Mapping[str, str] | None) -> list[int]:
    """Cells of the start: those of its labels where cells have labels, else all."""
    types = ready.cells.fields.get("cell_type")
    if start is None or types is None:
        return list(range(len(ready.ids)))
    labels = labels_of(possible, start, "start")
    rows = [row for row, label in enumerate(types) if label in labels]
    if not rows:
        raise PromptError(
            f"start {some(labels)}: no cell has such a cell_type; the cells are {some(sorted({str(t) for t in types}), most=8)}"
        )
    return rows


def _controls(
    wanted: npt.NDArray[np.int64], every: npt.NDArray[np.int64], detection: npt.NDArray[np.float64], n: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Genes that were not asked for, detected about as often as those that were: each of those in turn gets one of its nearest."""
    others = rng.permutation(np.setdiff1d(every, wanted))
    taken: dict[int, None] = {}
    near = [others[np.argsort(np.abs(np.log((detection[others] + 1e-3) / (detection[gene] + 1e-3))), kind="stable")] for gene in wanted]
    for place in range(len(others)):
        for order in near:
            if len(taken) >= n:
                return np.array(list(taken), np.int64)
            taken[int(order[place])] = None
    return np.array(list(taken), np.int64)


def variants(asked: Asked, row: int, action: Action) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Which sets change one cell, and the counts of the cell with none edited; an edit that changes nothing needs no asking."""
    counts_G = asked.ready.counts[[row]].toarray()[0].astype(np.int64)
    changes = edited_count(counts_G, action) != counts_G
    return [number for number, columns in enumerate(asked.sets) if all(changes[list(columns)])], counts_G


def edited_cells(
    answers: Answers, asked: Asked, row: int, numbers: Sequence[int], counts_G: npt.NDArray[np.int64], action: Action
) -> Iterator[tuple[list[int], list[Ids]]]:
    """Numbers of sets and the cell's sentences with each edited, some at a time."""
    for first in range(0, len(numbers), VARIANTS):
        part = list(numbers[first : first + VARIANTS])
        after_NG = edited(np.tile(counts_G, (len(part), 1)), [dict.fromkeys(asked.sets[number], action) for number in part])
        yield part, sentences(after_NG, np.full(len(part), asked.ready.ids[row][1]), answers.opened.vocabulary)


def by_editing(answers: Answers, asked: Asked, action: Action, by: str, on_variant: Advance | None = None) -> npt.NDArray[np.float64]:
    """Shift of each cell by each edit, the model asked about each; (cells, sets), NaN where the edit changes nothing."""
    shift_CN = np.full((len(asked.rows), len(asked.sets)), np.nan)
    direction_D = _direction(answers, asked) if by == "embedding" else None
    said = None if by == "embedding" else asked.goal.answers(answers)
    for place, part, found in answers_to_edits(answers, asked, action, said, on_variant):
        level = asked.goal.log_odds(found) if direction_D is None else found @ direction_D
        shift_CN[place, part] = level[1:] - level[0]
    return shift_CN


def answers_to_edits(
    answers: Answers, asked: Asked, action: Action, said: Sequence[Ids] | None, on_variant: Advance | None = None
) -> Iterator[tuple[int, list[int], npt.NDArray[np.float64]]]:
    """Place of a cell, numbers of sets, and what the model says of the cell as it is and with each set edited; (1 + sets, ...).

    ``said`` are answers to be scored; embeddings come where there are none.
    """
    opened, embeddings = answers.opened, Embeddings(answers.opened)
    for place, row in enumerate(asked.rows):
        numbers, counts_G = variants(asked, row, action)
        if on_variant:
            on_variant(len(asked.sets) - len(numbers))
        for part, cells in edited_cells(answers, asked, row, numbers, counts_G, action):
            both = [asked.ready.ids[row], *cells]
            if said is not None:
                prompts = answers.type_prompts(both, [asked.known[row]] * len(both))
                yield place, part, score_variants(opened.engine, prompts[0], prompts, said)
            else:
                prompts, after = [embeddings.question(cell) for cell in both], embeddings.after(EmbeddingSettings())
                yield place, part, as_points(hidden_variants(opened.engine, prompts[0], prompts, after)).astype(np.float64)
            if on_variant:
                on_variant(len(part))


def _direction(answers: Answers, asked: Asked) -> npt.NDArray[np.float64]:
    """From the middle of the start's embeddings to the middle of the goal's, of length 1: a shift along it is in units of embeddings."""
    types = asked.ready.cells.fields.get("cell_type") or []
    ends = []
    for labels, what in ((asked.goal.toward, "goal"), (asked.goal.away, "start")):
        rows = [row for row, label in enumerate(types) if label in labels]
        if not rows:
            raise PromptError(f"by='embedding': no cell is of the {what} ({some(labels)}); needed labelled cells of both among those given")
        ends.append(Embeddings(answers.opened).of_sentences([asked.ready.ids[row] for row in rows]).astype(np.float64).mean(0))
    direction: npt.NDArray[np.float64] = ends[0] - ends[1]
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def by_slopes(answers: Answers, asked: Asked, action: Action) -> npt.NDArray[np.float64]:
    """Shift of each cell by each edit as the slope of the log-odds says it; (cells, sets), NaN where the edit changes nothing."""
    shift_CN = np.full((len(asked.rows), len(asked.sets)), np.nan)
    columns = np.array([columns[0] for columns in asked.sets])
    said = asked.goal.answers(answers)
    for place, row in enumerate(asked.rows):
        numbers = variants(asked, row, action)[0]
        base = answers.type_prompts([asked.ready.ids[row]], [asked.known[row]])[0]
        level = int(edited_count(np.zeros(1, np.int64), action)[0])
        slope_G = slopes(answers.opened.engine, base, said, len(asked.goal.toward), level)
        shift_CN[place, numbers] = slope_G[columns[numbers]]
    return shift_CN


def _ranked(answers: Answers, asked: Asked, shift_CN: npt.NDArray[np.float64], pairs: bool) -> pd.DataFrame:
    """One row a gene or pair, the strongest toward the goal first."""
    genes, n = answers.opened.vocabulary.genes, asked.n_wanted
    n_cells = np.isfinite(shift_CN).sum(0)
    mean = np.where(n_cells > 0, np.nansum(shift_CN, axis=0) / np.maximum(n_cells, 1), np.nan)
    spread = np.sqrt(np.nansum((shift_CN - mean) ** 2, axis=0) / np.maximum(n_cells - 1, 1))
    toward = np.nansum(shift_CN > 0, axis=0) / np.maximum(n_cells, 1)
    detection = np.array([np.exp(np.log(asked.detection[list(columns)] + 1e-6).mean()) for columns in asked.sets])
    is_pair = np.array([len(columns) > 1 for columns in asked.sets])
    is_control = (np.arange(len(asked.sets)) >= n) if len(asked.sets) > n else np.ones(n, bool)
    table = pd.DataFrame(
        {"shift": mean, "sd": np.where(n_cells > 1, spread, np.nan), "share_toward": np.where(n_cells > 0, toward, np.nan),
         "cells": n_cells, "detection": detection}
    )  # fmt: skip
    for name in ("z", "p", "q"):
        table[name] = np.nan
    for kind in (False, True):
        of_kind = np.flatnonzero(is_pair == kind)
        if len(of_kind):
            found = matched(mean[of_kind], detection[of_kind], is_control[of_kind])
            table.loc[of_kind, ["z", "p", "q"]] = np.stack([found.z, found.p, found.q], axis=1)
    kept = np.flatnonzero((np.arange(len(asked.sets)) < n) & (is_pair == pairs))
    symbols = [[genes[column] for column in asked.sets[number]] for number in kept]
    if pairs:
        alone = {columns[0]: mean[number] for number, columns in enumerate(asked.sets[:n]) if len(columns) == 1}
        table.insert(
            1, "beyond_sum", [mean[k] - sum(alone.get(column, np.nan) for column in asked.sets[k]) for k in range(len(asked.sets))]
        )
    found_table = table.loc[kept].set_axis(pd.Index([" + ".join(names) for names in symbols], name="genes" if pairs else "gene"))
    ranked = found_table.sort_values("shift", ascending=False, na_position="last")
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    return ranked
