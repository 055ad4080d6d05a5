"""Cells by the model beside the held-out ones whose fields were its prompts, and the same for simple simulators and real cells.

The protocol is that of the published figures on Zheng et al. 2017: as many cells of each type as were held out, two-sample AUC
on 50 components and on the 1,000 most variable genes of the training cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.decoding.sampling import Sampling
from scmulan.evaluate.cells import MODEL, Ground, Judge, OnProgress, Skipped, at_most_per_type, counter, fields_of, predict, reserve, spread
from scmulan.evaluate.given import Given, Prepared
from scmulan.measures import baselines, metrics
from scmulan.measures.metrics import (
    DepthAgreement,
    GeneAgreement,
    LogFoldChangeAgreement,
    Memorisation,
    Mmd,
    Recognised,
    TwoSample,
)
from scmulan.tasks import Model

DEPTH_GIVEN, BINOMIAL, MULTINOMIAL, REAL = "scmulan, depth given", "negative binomial per type", "multinomial per type", "real cells"
REGRESSION = "logistic regression"
N_HVG = 1000


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One kind of cells beside the held-out ones; of ``real cells`` these are training cells, but ``recognised`` is of the held-out.

    ``recognised`` maps who says it (logistic regression, scmulan) to the share said to be of the type asked for.
    """

    n: int
    two_sample: TwoSample
    mmd: Mmd
    genes: GeneAgreement
    log_fold_change: LogFoldChangeAgreement
    depth: DepthAgreement
    memorisation: Memorisation | None
    recognised: dict[str, Recognised]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All kinds of cells, by name, and the two-sample figures of each further seed. ``outside`` is the share of the model's
    generated counts that lie in genes which the data did not measure, and which were left out."""

    kinds: dict[str, Generated]
    seeds: list[TwoSample]
    n_hvg: int
    outside: float
    thinned: int


def prepare(given: Given) -> Prepared[Generation]:
    """The section, or why it can't be measured."""
    ground = given.ground
    if isinstance(ground, Skipped):
        return ground
    part = at_most_per_type(ground, given.cells_per_type, given.seed)
    return lambda: generations(
        given.model, part, given.regression, seed=given.seed, seeds=given.seeds, as_read=given.as_read, say=given.say
    )


def write_cells(
    model: Model,
    fields: Sequence[Mapping[str, str | None]],
    *,
    seed: int,
    depths: npt.ArrayLike | None = None,
    around: Sequence[Mapping[str, int]] | None = None,
    on_cell: Callable[[int], None] | None = None,
) -> sp.csr_matrix:
    """One cell by the model for each prompt, over the genes of the gene table; int32 CSR (C, table).

    ``around`` (C,) are counts by gene that each cell is written around; for the rest see ``Model.write_counts``.
    """
    genes = None if around is None else [model.around(each) for each in around]
    return over_table(model, model.write_counts(fields, Sampling(seed=seed), around=genes, depths=depths, on_cell=on_cell))


def over_table(model: Model, counts: sp.csr_matrix) -> sp.csr_matrix:
    """Counts over the vocabulary (C, V) as counts over the gene table."""
    rows = model.table.index_of_symbols(model.vocabulary.genes)
    flat = counts.tocoo()
    return sp.csr_matrix((flat.data.astype(np.int32), (flat.row, rows[flat.col])), shape=(counts.shape[0], len(model.table)))


def generations(model: Model, ground: Ground, regression: Judge, *, seed: int, seeds: int, as_read: bool, say: OnProgress) -> Generation:
    """Cells by the model and by each baseline beside the held-out ones; as many of each type as ``ground`` holds out."""
    held, n = ground.held_out, len(ground.held_out)
    ready = model.read(held, reserve=reserve(model))
    if as_read:
        train = model.read(ground.train, reserve=reserve(model))
        held, known = (dataclasses.replace(each.cells, counts=over_table(model, each.counts)) for each in (ready, train))
        ground = dataclasses.replace(ground, held_out=held, train=known)
    rng = np.random.default_rng(seed)
    drawn = real_again(ground, rng)
    train_counts, asked = ground.counts(ground.train), ground.types
    prompts = fields_of(model, held)
    free = [write_cells(model, prompts, seed=seed + k, on_cell=counter(say, f"generate, seed {seed + k}", n)) for k in range(max(seeds, 1))]
    depths = np.asarray(ready.counts.sum(1)).ravel()
    given = write_cells(model, prompts, seed=seed + 1000, depths=depths, on_cell=counter(say, "generate, depth given", n))
    made = {
        MODEL: sp.csr_matrix(free[0][:, ground.genes]),
        DEPTH_GIVEN: sp.csr_matrix(given[:, ground.genes]),
        BINOMIAL: baselines.sample_by_type(train_counts, ground.train_types, asked, seed=rng),
        MULTINOMIAL: baselines.sample_by_type(train_counts, ground.train_types, asked, "multinomial", seed=rng),
        REAL: train_counts[drawn],
    }
    hvg = metrics.highly_variable(metrics.log_cp10k(train_counts), min(N_HVG, len(ground.genes)))
    kinds = {}
    for number, (name, counts) in enumerate(made.items()):
        say("compare with real cells", number, len(made))
        types = [ground.train_types[r] for r in drawn] if name == REAL else asked
        kinds[name] = _compare(model, ground, name, counts, types, hvg, regression, seed, say)
    say("compare with real cells", len(made), len(made))
    real = ground.counts(held)
    more = [metrics.two_sample_auc(real, each[:, ground.genes], hvg, seed=seed) for each in free[1:]]
    outside = 1 - float(made[MODEL].sum()) / max(float(free[0].sum()), 1.0)
    thinned = int(ready.thinned.sum()) if as_read else 0
    return Generation(kinds=kinds, seeds=[kinds[MODEL].two_sample, *more], n_hvg=len(hvg), outside=outside, thinned=thinned)


def real_again(ground: Ground, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Training cells, for each type as many as were held out, or all where there are fewer."""
    types, wanted = np.array(ground.train_types), np.array(ground.types)
    rows = []
    for label in np.unique(wanted):
        members = np.flatnonzero(types == label)
        rows.append(rng.choice(members, min(len(members), int((wanted == label).sum())), replace=False))
    return np.concatenate(rows)


def _compare(
    model: Model,
    ground: Ground,
    name: str,
    counts: sp.csr_matrix,
    types: list[str],
    hvg: npt.NDArray[np.int64],
    regression: Judge,
    seed: int,
    say: OnProgress,
) -> Generated:
    """One kind of cells beside the held-out ones."""
    real, is_real = ground.counts(ground.held_out), name == REAL
    symbols = [str(symbol) for symbol in model.table.symbols[ground.genes]]
    judged = real if is_real else counts  # real cells are judged by the held-out ones: the judge was fitted on the others
    as_cells = ground.held_out if is_real else dataclasses.replace(ground.held_out, counts=spread(counts, ground.genes, len(model.table)))
    recognised = {
        REGRESSION: metrics.recognised_share(ground.types, regression.predict(judged).labels),
        MODEL: metrics.recognised_share(ground.types, predict(model, as_cells, say, f"annotate: {name}").labels),
    }
    return Generated(
        n=counts.shape[0],
        two_sample=metrics.two_sample_auc(real, counts, hvg, seed=seed, gene_names=symbols if name == MODEL else None),
        mmd=metrics.mmd(real, counts, hvg, seed=seed),
        genes=metrics.gene_agreement(real, counts),
        log_fold_change=metrics.log_fold_change_agreement(real, ground.types, counts, types),
        depth=metrics.depth_agreement(real, counts),
        memorisation=None if is_real else metrics.memorisation(ground.counts(ground.train), counts, real, hvg, seed=seed),
        recognised=recognised,
    )
