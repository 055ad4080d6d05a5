"""Ninth part: every gene of progenitors raised in silico, ranked by how far it takes them toward a fate; where known regulators stand.

A reading of what the model makes of a cell whose genes were changed by hand; it has learnt from no such experiment. Limit: the slope of
the log-odds stands for the edit (``by="gradient"``), and few cells are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from scmulan.demo.stage import Dataset, Skipped, Stage
from scmulan.demo.states import UNDECIDED
from scmulan.demo.whole import Rows, Whole, drawn
from scmulan.errors import PromptError
from scmulan.evaluate.page import beats
from scmulan.measures.counts import log_cp10k
from scmulan.report import shown
from scmulan.tasks_regulators import known_regulators

TITLE = "9. Genes edited in silico"
OURS, FOLD = "scmulan", "log fold change"
LEAST_DRIVERS, LEAST_CELLS, LEAST_TRAINED, MOST_SHOWN = 3, 3, 20, 10
"""Known regulators of the fate, held-out progenitors that have each, training cells of the fate, and genes of the table."""


@dataclass(frozen=True, kw_only=True)
class Edits:
    """A screen of all genes toward a fate.

    ``drivers`` has a row for each known regulator of the fate and ``top`` one for each of the first genes: rank, mean shift of the
    log-odds, z, p and q beside genes detected as often. ``share_beaten`` is the mean share of the genes that stand below the known
    regulators (0.5 by chance), by the model and by the log fold change between training cells of fate and start.
    """

    dataset: str
    start: str
    fate: str
    n_cells: int
    n_genes: int
    drivers: list[dict[str, str | float | int | None]]
    top: list[dict[str, str | float | int | None]]
    share_beaten: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where a screen starts and where it goes: rows of held-out cells of the start, and the fate's known regulators."""

    dataset: Dataset
    whole: Whole
    start: str
    fate: str
    rows: Rows
    drivers: list[str]


def run(stage: Stage) -> Edits | Skipped:
    """Screen all genes in progenitors toward the fate of which most regulators are known."""
    stage.say("9  Genes edited in silico")
    goal = find(stage)
    if goal is None:
        return stage.skip(TITLE, f"no data set has held-out progenitors and a fate of which {LEAST_DRIVERS} regulators are known")
    try:
        table = stage.model.screen(
            goal.whole.take(goal.rows), {"cell_type": goal.fate}, start={"cell_type": goal.start}, by="gradient",
            most_cells=stage.sizes.screened, seed=stage.seed,
        )  # fmt: skip
    except PromptError as error:
        return stage.skip(TITLE, str(error))
    found = measure(goal, table.dropna(subset=["shift"]))
    show(stage, found)
    ours, theirs = found.share_beaten[OURS], found.share_beaten[FOLD]
    stage.say(f"   {len(found.drivers)} regulators of {found.fate} stand above {ours:.0%} of the genes, by {FOLD} above {theirs:.0%}")
    return found


def find(stage: Stage) -> Goal | None:
    """The data set and fate with the most known regulators among genes that held-out progenitors have."""
    best: Goal | None = None
    for dataset in stage.datasets:
        known = set(dataset.train_types) & set(stage.model.seen.values("cell_type"))
        for start in (name for name in UNDECIDED if name in known):
            whole = stage.whole(dataset)
            rows = np.flatnonzero((whole.field("cell_type") == start) & whole.is_held)
            has = np.asarray((whole.counts[rows] > 0).sum(0)).ravel() >= LEAST_CELLS
            genes = {gene for gene, is_there in zip(whole.genes, has, strict=True) if is_there} & set(stage.model.vocabulary.genes)
            for fate in sorted(label for label in known - {start} if dataset.train_types.count(label) >= LEAST_TRAINED):
                drivers = [each.symbol for each in known_regulators() if fate in each.fates and each.symbol in genes]
                if len(drivers) >= max(LEAST_DRIVERS, len(best.drivers) + 1 if best else 0):
                    best = Goal(dataset=dataset, whole=whole, start=start, fate=fate, rows=drawn(rows, 100, stage.seed), drivers=drivers)
    return best


def measure(goal: Goal, table: pd.DataFrame) -> Edits:
    """Where the known regulators stand among all genes, by the model's shift and by the training cells' log fold change."""
    whole, types = goal.whole, goal.whole.field("cell_type")
    mean = {
        label: np.expm1(log_cp10k(whole.counts[np.flatnonzero((types == label) & ~whole.is_held)]).toarray()).mean(0)
        for label in (goal.start, goal.fate)
    }
    fold = pd.Series(np.log2((mean[goal.fate] + 1) / (mean[goal.start] + 1)), index=whole.genes).reindex(table.index).fillna(0.0)
    drivers = [gene for gene in goal.drivers if gene in table.index]
    beaten = {OURS: _beaten(table["shift"].astype(float)), FOLD: _beaten(fold)}
    return Edits(
        dataset=goal.dataset.name, start=goal.start, fate=goal.fate, n_cells=int(table.attrs["cells"]), n_genes=len(table),
        drivers=[_row(table, gene) | {"by log fold change": float(beaten[FOLD][gene])} for gene in drivers],
        top=[_row(table, str(gene)) for gene in table.index[:MOST_SHOWN]],
        share_beaten={who: float(each[drivers].mean()) for who, each in beaten.items()},
    )  # fmt: skip


def _beaten(values: pd.Series[float]) -> pd.Series[float]:
    """Share of the other genes that each stands above, ties half."""
    return pd.Series((rankdata(values.to_numpy()) - 1) / max(len(values) - 1, 1), index=values.index)


def _row(table: pd.DataFrame, gene: str) -> dict[str, str | float | int | None]:
    row = table.loc[gene, ["rank", "shift", "z", "p", "q"]].to_numpy(dtype=float)
    shift, z, p, q = (float(value) if np.isfinite(value) else None for value in row[1:])
    return {"gene": gene, "rank": int(row[0]), "shift": shift, "z": z, "p": p, "q": q}


def show(stage: Stage, found: Edits) -> None:
    """The section of the page."""
    stage.report.section(TITLE, words(found))
    stage.report.table(
        found.drivers,
        caption=f"Known regulators of {found.fate} among {found.n_genes:,} genes: mean shift of the log-odds in nats; z, p and q beside "
        "genes detected as often; last, the share of the genes that each stands above by log fold change.",
    )
    stage.report.table(found.top, caption="The genes that the model puts first.")


def words(found: Edits) -> str:
    """What was asked and what the figures say, in plain words."""
    ours, theirs = found.share_beaten[OURS], found.share_beaten[FOLD]
    sure = sum(row["p"] is not None and float(row["p"]) < 0.05 and float(row["shift"] or 0) > 0 for row in found.drivers)
    return (
        f"In {found.n_cells} held-out cells of {found.dataset} ({found.start}) each of {found.n_genes:,} genes is raised in the cell's "
        f"sentence, and the model is asked how much likelier {found.fate} becomes: `model.screen`. It has seen no such experiment. This "
        "asks what speaks for the fate in its reading of cells, not what would bring cells there.\n\n"
        f"{len(found.drivers)} of these genes are known from the literature to drive this fate. They stand above {shown(100 * ours)} % of "
        f"the genes on the mean (50 % would be chance), and {sure} of them beyond 95 % of the genes detected as often. A plain log fold "
        f"change between training cells of both types puts them above {shown(100 * theirs)} %: the model is {beats(ours, theirs)} it. "
        "Of so few genes and cells, a difference of some hundredths is chance."
    )
