"""Eighth part: held-out cells thinned to a quarter of their counts and brought back to depth, beside ways that need no model.

Two kinds of figure: agreement with the full cell, of which the thinned counts are a part, so that leaving a cell alone does well already;
and of the molecules that were removed alone. Limit: few cells of one data set, at one share of the depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells
from scmulan.cells_writing import new_adata
from scmulan.csentence_thinning import thin
from scmulan.demo.stage import Dataset, Skipped, Stage
from scmulan.demo.whole import drawn
from scmulan.evaluate import bars
from scmulan.evaluate.cells import counter, fit_judge
from scmulan.evaluate.learnt import why_not_learnt
from scmulan.evaluate.page import beats
from scmulan.measures.recovery import recovery
from scmulan.measures.recovery_baselines import expected_of_types, leave_alone, smooth_by_neighbours
from scmulan.report import shown

TITLE = "8. Shallow cells brought back to depth"
OURS, ALONE, NEAREST, POSTERIOR = "scmulan", "left alone", "nearest full cells", "seen, and the type's posterior"
SHARE = 0.25
TOLD = ("organism", "assay", "organ")
THINNED_TRAINING_SEED = 11


@dataclass(frozen=True, kw_only=True)
class Depths:
    """Thinned cells brought back: by each way the median correlation with the full cell, the AUROC of telling which genes thinning took
    away, and nats a removed molecule. ``counts`` are those of the median cell, full and thinned."""

    dataset: str
    n: int
    share: float
    draws: int
    counts: dict[str, float]
    depth: int
    ways: dict[str, dict[str, float | None]]


def run(stage: Stage) -> Depths | Skipped:
    """Thin cells, bring them back by every way, and show how near they come."""
    stage.say("8  Shallow cells brought back to depth")
    reason = why_not_learnt(stage.model, "enhance")
    if reason:
        return stage.skip(TITLE, reason)
    found = measure(stage, stage.largest)
    show(stage, found)
    ours, theirs = (found.ways[who]["correlation"] for who in (OURS, ALONE))
    stage.say(f"   {found.n} cells at {SHARE:.0%}: correlation with the full cell {shown(ours)}, {ALONE} {shown(theirs)}")
    return found


def measure(stage: Stage, dataset: Dataset) -> Depths:
    """Every way on the same thinned cells."""
    cells = dataset.held.take(drawn(np.arange(len(dataset.held)), stage.sizes.enhanced, stage.seed))
    full, train = dataset.counts(cells), dataset.counts(dataset.train)
    thinned = thin(full, SHARE, stage.seed)
    total = np.asarray(full.sum(1), dtype=np.int64).ravel()
    depth = int(np.median(total))
    said = {
        OURS: enhance(stage, dataset, cells, thinned, depth),
        ALONE: leave_alone(thinned),
        NEAREST: smooth_by_neighbours(thinned, train, k=min(15, train.shape[0]), seed=stage.seed),
        POSTERIOR: expected_of_types(thinned, total, _types(stage, dataset, thinned), train, dataset.train_types),
    }
    mean = np.asarray(train.sum(0), dtype=np.float64).ravel() + 0.05
    scores = {who: recovery(full, thinned, each, mean_profile=mean / mean.sum(), seed=stage.seed) for who, each in said.items()}
    ways = {
        who: {"correlation": each.pearson_cell, "rank correlation": each.spearman_cell, "genes taken away": each.detection,
              "nats a removed molecule": each.removed_nats}
        for who, each in scores.items()
    }  # fmt: skip
    counts = {"full": float(np.median(total)), "thinned": float(np.median(np.asarray(thinned.sum(1))))}
    return Depths(dataset=dataset.name, n=len(cells), share=SHARE, draws=stage.sizes.enhance_draws, counts=counts, depth=depth, ways=ways)


def enhance(stage: Stage, dataset: Dataset, cells: Cells, thinned: sp.csr_matrix, depth: int) -> sp.csr_matrix:
    """`Model.enhance` of the thinned cells, whose types it is not told; expected counts over the genes measured."""
    with bars() as on_progress:
        count = counter(on_progress, "bring cells back to depth", len(cells))
        adata = as_thinned(stage, cells, thinned)
        made = stage.model.enhance(adata, depth, draws=stage.sizes.enhance_draws, seed=stage.seed, on_cell=count)
    return stage.onto(made, stage.whole(dataset), "expected")


def as_thinned(stage: Stage, cells: Cells, thinned: sp.csr_matrix) -> AnnData:
    """Thinned cells as AnnData over all measured genes, with the few fields that `enhance` is told."""
    obs = pd.DataFrame({name: cells.fields[name] for name in TOLD if name in cells.fields}, index=cells.cell_ids)
    organism = next((str(value) for value in cells.fields.get("organism", []) if value), "Homo sapiens")
    return new_adata(thinned, cells.measured, stage.model.table, obs=obs, organism=organism)


def _types(stage: Stage, dataset: Dataset, thinned: sp.csr_matrix) -> list[str]:
    """Types of the thinned cells as a regression on training cells thinned alike says them: the true ones are not given."""
    train = thin(dataset.counts(dataset.train), SHARE, stage.seed + THINNED_TRAINING_SEED)
    return fit_judge(train, dataset.train_types).predict(thinned).labels


def show(stage: Stage, found: Depths) -> None:
    """The section of the page."""
    ours, theirs = (found.ways[who]["correlation"] for who in (OURS, ALONE))
    stage.report.headline("cells brought back to depth (correlation)", ours, f"{ALONE} {shown(theirs)}")
    stage.report.section(TITLE, words(found))
    caption = f"{found.n} held-out cells of {found.dataset} thinned to {found.share:.0%}; medians and means over cells."
    stage.report.table([{"way": who, **row} for who, row in found.ways.items()], emphasise=OURS, caption=caption)


def words(found: Depths) -> str:
    """What was done and what the figures say, in plain words."""

    def verdict(other: str, name: str, *, is_lower_better: bool = False) -> str:
        ours, theirs = (found.ways[who][name] or 0.0 for who in (OURS, other))
        return f"{beats(ours, theirs, is_lower_better=is_lower_better)} {_NAMED[other]} ({shown(theirs)})"

    correlation, taken, nats = (found.ways[OURS][name] for name in ("correlation", "genes taken away", "nats a removed molecule"))
    return (
        f"{found.n} held-out cells of {found.dataset} were thinned at random to {found.share:.0%} of their counts "
        f"({found.counts['full']:,.0f} in the median cell, then {found.counts['thinned']:,.0f}) and given to the model, which is not told "
        f"what they are: `model.enhance(shallow, {found.depth})`. What was seen is kept; the rest of the depth has the genes of "
        f"{found.draws} whole cells that the model draws for each.\n\n"
        f"Against the full cells the correlation is {shown(correlation)}: {verdict(ALONE, 'correlation')}, "
        f"{verdict(NEAREST, 'correlation')} and {verdict(POSTERIOR, 'correlation')}. Which of the unseen genes "
        f"the full cell has is told with an AUROC of {shown(taken)} (0.5 by chance), "
        f"{verdict(NEAREST, 'genes taken away')} and {verdict(POSTERIOR, 'genes taken away')}. A removed molecule costs "
        f"{shown(nats)} nats, {verdict(POSTERIOR, 'nats a removed molecule', is_lower_better=True)}."
    )


_NAMED = {
    ALONE: "leaving the cells alone",
    NEAREST: "the mean of the nearest full training cells",
    POSTERIOR: "the posterior of a negative binomial of the type that a regression says",
}
