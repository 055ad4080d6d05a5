"""Second part: cells that the model writes, for each type and organ it knows, beside real cells and simple simulators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from scmulan import plots
from scmulan.cells import AnnData, Cells
from scmulan.cells_writing import new_adata, write_h5ad
from scmulan.demo.stage import Dataset, Stage
from scmulan.evaluate import bars
from scmulan.evaluate.cells import Ground, counter, fields_of, pooled, predict, reserve, shared_ground
from scmulan.evaluate.generation import BINOMIAL, N_HVG, REAL, over_table, real_again, write_cells
from scmulan.evaluate.page_words import beats_apart
from scmulan.measures import baselines, metrics
from scmulan.measures.metrics import DepthAgreement, TwoSample
from scmulan.report import shown
from scmulan.tasks import Model

OURS = "scmulan"


@dataclass(frozen=True, kw_only=True)
class Written:
    """How generated cells compare with as many held-out ones, over all data sets and in the largest.

    ``recognised`` is the share said by the model to be of the type asked for, of generated and of real cells.
    """

    n: int
    n_types: int
    n_organs: int
    not_held_out: list[str]
    thinned: int
    whole: dict[str, TwoSample]
    largest: str
    in_largest: dict[str, TwoSample]
    recognised: dict[str, float]
    depth: dict[str, DepthAgreement]


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Real held-out cells and each kind of cells beside them, over the same genes (rows of the gene table), (C, G) each."""

    ground: Ground
    genes: npt.NDArray[np.int64]
    real: sp.csr_matrix
    made: dict[str, sp.csr_matrix]
    types: dict[str, list[str]]
    datasets: dict[str, list[str]]
    hvg: npt.NDArray[np.int64]


def run(stage: Stage) -> Written:
    """Write cells, keep them in ``generated.h5ad``, compare them with real cells, and show it."""
    stage.say("2  Cells that the model writes")
    chosen = pooled([_chosen(stage, dataset) for dataset in stage.datasets])
    prompts = fields_of(stage.model, chosen)
    further = _not_held_out(stage.model, prompts)
    with bars() as on_progress:
        rows: list[dict[str, str | None]] = [*prompts, *further]
        counts = write_cells(stage.model, rows, seed=stage.seed, on_cell=counter(on_progress, "write cells", len(rows)))
    adata = as_adata(stage.model, counts, rows, stage.seed)
    write_h5ad(adata, stage.output / "generated.h5ad")
    with bars() as on_progress:
        kinds, thinned = beside(stage, chosen, counts[: len(prompts)])
        on_progress("tell generated from real cells", 0, 1)
        found = measure(stage, kinds, thinned, [str(row["cell_type"]) for row in further], rows)
        on_progress("tell generated from real cells", 1, 1)
    show(stage, found, kinds)
    ours, theirs = found.whole[OURS], found.whole[BINOMIAL]
    stage.say(f"   {found.n:,} cells; two-sample AUC {shown(ours.auc_pcs)} on 50 components, {BINOMIAL} {shown(theirs.auc_pcs)}")
    return found


def _chosen(stage: Stage, dataset: Dataset) -> Cells:
    """Held-out cells whose fields are the prompts: as many of each type as the sizes allow."""
    lengths = np.diff(dataset.held.counts.indptr)
    is_long = np.median(lengths) > 0.75 * stage.model.checkpoint.context
    most = stage.sizes.per_type_long if is_long else stage.sizes.per_type
    types, rng = np.array(dataset.types), np.random.default_rng([stage.seed, 4])
    known = set(dataset.train_types) & set(stage.model.seen.values("cell_type"))
    rows = [rng.permutation(np.flatnonzero(types == label))[:most] for label in np.unique(types) if label in known]
    return dataset.held.take(np.sort(np.concatenate(rows)))


def _not_held_out(model: Model, prompts: Sequence[Mapping[str, str | None]]) -> list[dict[str, str | None]]:
    """One prompt for each organ and type that the model has seen and no prompt asks for."""
    asked = {(row.get("organ"), row.get("cell_type")) for row in prompts}
    found: dict[tuple[str | None, str | None], dict[str, str | None]] = {}
    for combination in model.seen.combinations:
        key = (combination.get("organ"), combination.get("cell_type"))
        if key[1] and key not in asked:
            found.setdefault(key, dict(combination))
    return list(found.values())


def as_adata(model: Model, counts: sp.csr_matrix, rows: Sequence[Mapping[str, str | None]], seed: int) -> AnnData:
    """Written cells (C, gene table) with their prompts in ``obs``."""
    genes = np.flatnonzero(np.asarray((counts > 0).sum(0)).ravel())
    names = [name for name in model.prompts.fields if any(row.get(name) for row in rows)]
    obs = pd.DataFrame({name: pd.Categorical([row.get(name) for row in rows]) for name in names})
    obs.index = pd.Index([f"generated_{row}" for row in range(len(rows))])
    how = model.provenance(task="generate", seed=seed)
    return new_adata(counts[:, genes], genes, model.table, obs=obs, organism="Homo sapiens", uns={"scmulan": how})


def beside(stage: Stage, chosen: Cells, counts: sp.csr_matrix) -> tuple[Kinds, int]:
    """Real cells as the model reads them, and as many by each baseline; also how many real cells had to be thinned."""
    model, rng = stage.model, np.random.default_rng(stage.seed)
    ground = shared_ground(model, chosen, pooled([dataset.train for dataset in stage.datasets]))
    held, train = (model.read(cells, reserve=reserve(model)) for cells in (ground.held_out, ground.train))
    read = [dataclasses.replace(each.cells, counts=over_table(model, each.counts)) for each in (held, train)]
    ground = dataclasses.replace(ground, held_out=read[0], train=read[1])
    drawn, train_counts = real_again(ground, rng), ground.counts(ground.train)
    made = {
        OURS: sp.csr_matrix(counts[:, ground.genes]),
        BINOMIAL: baselines.sample_by_type(train_counts, ground.train_types, ground.types, seed=rng),
        REAL: train_counts[drawn],
    }
    again = [ground.train_types[row] for row in drawn], [ground.train.dataset[row] for row in drawn]
    return Kinds(
        ground=ground, genes=ground.genes.astype(np.int64), real=ground.counts(ground.held_out), made=made,
        types={OURS: ground.types, BINOMIAL: ground.types, REAL: again[0]},
        datasets={OURS: ground.held_out.dataset, BINOMIAL: ground.held_out.dataset, REAL: again[1]},
        hvg=metrics.highly_variable(metrics.log_cp10k(train_counts), min(N_HVG, len(ground.genes))),
    ), int(held.thinned.sum())  # fmt: skip


def measure(stage: Stage, kinds: Kinds, thinned: int, further: list[str], rows: Sequence[Mapping[str, str | None]]) -> Written:
    """Two-sample AUC over all and in the largest data set, share recognised, and depth."""
    ground, seed = kinds.ground, stage.seed
    names = np.array(ground.held_out.dataset)
    largest = stage.largest
    inside = names == largest.held.dataset[0]
    train = np.array(ground.train.dataset) == largest.held.dataset[0]
    hvg = metrics.highly_variable(metrics.log_cp10k(ground.counts(ground.train)[train]), len(kinds.hvg))
    whole, part, depth = {}, {}, {}
    for who, counts in kinds.made.items():
        whole[who] = metrics.two_sample_auc(kinds.real, counts, kinds.hvg, seed=seed)
        of_largest = np.array(kinds.datasets[who]) == largest.held.dataset[0]
        if inside.sum() >= 5:
            part[who] = metrics.two_sample_auc(kinds.real[inside], counts[of_largest], hvg, seed=seed)
            depth[who] = metrics.depth_agreement(kinds.real[inside], counts[of_largest])
    return Written(
        n=len(rows), n_types=len({row.get("cell_type") for row in rows}), n_organs=len({row.get("organ") for row in rows}),
        not_held_out=further, thinned=thinned, whole=whole, largest=largest.name, in_largest=part,
        recognised=_recognised(stage, kinds), depth=depth,
    )  # fmt: skip


def _recognised(stage: Stage, kinds: Kinds) -> dict[str, float]:
    """Share of the written and of the real cells that the model says to be of their type."""
    ground, flat = kinds.ground, kinds.made[OURS].tocoo()
    shape = (len(ground.types), len(stage.model.table))
    cells = dataclasses.replace(ground.held_out, counts=sp.csr_matrix((flat.data, (flat.row, kinds.genes[flat.col])), shape=shape))
    said = {OURS: predict(stage.model, cells, lambda what, done, total: None, "").labels}
    said[REAL] = [stage.said[key] for key in zip(ground.held_out.dataset, ground.held_out.cell_ids, strict=True)]
    return {who: metrics.recognised_share(ground.types, labels).share for who, labels in said.items()}


def show(stage: Stage, found: Written, kinds: Kinds) -> None:
    """The section of the page."""
    report, ours = stage.report, found.whole[OURS]
    beside_it = f"{BINOMIAL} {shown(found.whole[BINOMIAL].auc_pcs)}; real cells {shown(found.whole[REAL].auc_pcs)}"
    report.headline("told from real cells (AUC, 50 components)", ours.auc_pcs, beside_it)
    report.section("2. Cells that the model writes", words(found))
    organs = [str(row) for row in kinds.ground.held_out.fields["organ"]]
    _umap(stage, kinds, np.ones(len(organs), dtype=bool), organs, "umap_organs", "all data sets, by organ")
    names = np.array(kinds.ground.held_out.dataset)
    _umap(stage, kinds, names == stage.largest.held.dataset[0], kinds.ground.types, "umap_types", f"{found.largest}, by type")
    caption = "How well a random forest tells each kind of cells from held-out cells; 0.5 is a coin's throw. Bars: two standard errors."
    stage.picture(plots.two_sample(found.whole, title="All data sets: told from real cells"), "two_sample", caption)
    if found.in_largest:
        stage.picture(plots.two_sample(found.in_largest, title=f"{found.largest}: told from real cells"), "two_sample_largest", caption)
    report.table(
        [_row(found, who) for who in found.whole], emphasise=OURS, caption=f"Counts and genes per cell are medians, of {found.largest}."
    )


def _umap(stage: Stage, kinds: Kinds, rows: npt.NDArray[np.bool_], labels: Sequence[str], name: str, title: str) -> None:
    if rows.sum() < 5:
        return
    chosen = [label for label, keep in zip(labels, rows, strict=True) if keep]
    real, made = kinds.real[rows], kinds.made[OURS][rows]
    scores = metrics.pooled_components(real, made, kinds.hvg, seed=stage.seed)
    places = plots.umap_positions(*scores, seed=stage.seed)
    caption = f"Real cells and written cells in one UMAP: {title}. Each written cell has the fields of a real one."
    stage.picture(plots.umap(*places, chosen, chosen, title=title), name, caption)


def _row(found: Written, who: str) -> dict[str, object]:
    depth = found.depth.get(who)
    return {
        "cells": who,
        "AUC, 50 components": found.whole[who].auc_pcs,
        "AUC, variable genes": found.whole[who].auc_hvgs,
        f"AUC, 50 components, {found.largest}": found.in_largest[who].auc_pcs if found.in_largest else None,
        f"AUC, variable genes, {found.largest}": found.in_largest[who].auc_hvgs if found.in_largest else None,
        "recognised as their type": found.recognised.get(who),
        "counts": depth.generated_total if depth else None,
        "real": depth.real_total if depth else None,
        "genes": depth.generated_genes if depth else None,
        "real ": depth.real_genes if depth else None,
    }


def words(found: Written) -> str:
    """What was written and what the figures say, in plain words."""
    ours, theirs, real = (found.whole[who] for who in (OURS, BINOMIAL, REAL))
    worse = [beats_apart(a, b) for a, b in ((ours.auc_pcs, theirs.auc_pcs), (ours.auc_hvgs, theirs.auc_hvgs))]
    error = shown(2 * ours.auc_pcs_error)
    text = (
        f"The model wrote {found.n:,} cells of {found.n_types} types and {found.n_organs} organs; the number is kept small so that this "
        "page takes minutes on a laptop (the evaluation command writes as many as were held out). Each was asked for by the fields of a "
        "held-out cell"
    )
    if found.not_held_out:
        text += f", but for {len(found.not_held_out)} of types of which no cell was held out ({', '.join(found.not_held_out[:4])})"
    text += (
        ".\n\n"
        "Can one tell them from real cells? A random forest is given as many real as written cells and must say which is which. Its AUC "
        f"is {shown(ours.auc_pcs)} on 50 principal components and {shown(ours.auc_hvgs)} on the variable genes (give or take {error}): "
        f"0.5 and less is a coin's throw, and real cells against other real cells give {shown(real.auc_pcs)} and {shown(real.auc_hvgs)}. "
        f"That is {worse[0]} a negative binomial fitted to each type on components ({shown(theirs.auc_pcs)}) and {worse[1]} it on genes "
        f"({shown(theirs.auc_hvgs)}).\n\n"
        f"The model itself recognises {shown(100 * found.recognised[OURS])} % of the written cells as the type that was asked for, and "
        f"{shown(100 * found.recognised[REAL])} % of the real ones."
    )
    if found.thinned:
        text += (
            f" {found.thinned:,} of the real cells have more genes than one sentence of this small model holds. They, and the training "
            "cells, are compared as it reads them: thinned at random."
        )
    return text
