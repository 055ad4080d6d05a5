"""Fifth part: one real cell as a sentence, how likely the model finds it, and the genes that speak most for its label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scmulan import plots
from scmulan.cells import Cells
from scmulan.demo.labels import as_adata
from scmulan.demo.stage import Stage
from scmulan.evaluate.cells import MODEL, shared_ground
from scmulan.evaluate.likelihood import BINOMIAL, likelihoods
from scmulan.evaluate.page import beats
from scmulan.report import shown

CANDIDATES = 40


@dataclass(frozen=True, kw_only=True)
class OneCell:
    """One held-out cell: its sentence, label and runner-up with their probabilities, nats, and nats of genes for the label."""

    cell: str
    dataset: str
    true: str
    label: str
    probability: float
    against: str
    against_probability: float
    sentence: str
    n_tokens: int
    n_genes: int
    nats: dict[str, float]
    parts: dict[str, float]
    genes: dict[str, float]


def run(stage: Stage) -> OneCell:
    """Choose a cell, read it in every way, and show it."""
    stage.say("5  A cell as a sentence")
    found = measure(stage)
    show(stage, found)
    strongest = ", ".join(list(found.genes)[:5])
    stage.say(f"   a {found.true}: {found.n_tokens:,} words, {shown(found.nats[MODEL])} nats; {strongest} speak most for {found.label}")
    return found


def choose(stage: Stage) -> tuple[Cells, str, float, str, float]:
    """A held-out cell of the largest data set, as one of the shorter ones that are labelled rightly, with its label and runner-up."""
    dataset, model = stage.largest, stage.model
    rows = np.random.default_rng([stage.seed, 8]).permutation(len(dataset.held))[:CANDIDATES]
    cells = dataset.held.take(rows)
    ready = model.read(cells, reserve=model.checkpoint.context // 4)
    table = model.annotate_ready(ready)
    best = table.idxmax(axis=1).to_numpy()
    is_right = best == np.array([dataset.types[row] for row in rows])
    order = sorted(range(len(rows)), key=lambda row: (bool(ready.thinned[row]), not is_right[row], int(ready.ids.lengths[row])))
    usable = [row for row in order if is_right[row] and not ready.thinned[row]] or order
    row = usable[len(usable) // 4]
    ranked = table.iloc[row].sort_values(ascending=False)
    return cells.take([row]), str(ranked.index[0]), float(ranked.iloc[0]), str(ranked.index[1]), float(ranked.iloc[1])


def measure(stage: Stage) -> OneCell:
    """Sentence, likelihood and telling genes of the chosen cell."""
    model = stage.model
    cell, label, probability, against, against_probability = choose(stage)
    adata = as_adata(model, cell)
    sentence = model.sentence(adata, 0)
    ground = shared_ground(model, cell, stage.largest.train)
    likely = likelihoods(model, ground, seed=stage.seed, say=lambda what, done, total: None)[-1]
    genes = model.speaks_for(adata, 0, label, against)
    ids = model.read(cell).ids[0]
    n_genes = int((ids >= model.vocabulary.first_gene).sum())
    return OneCell(
        cell=cell.cell_ids[0], dataset=stage.largest.name, true=ground.types[0], label=label, probability=probability, against=against,
        against_probability=against_probability, sentence=sentence, n_tokens=len(ids), n_genes=n_genes,
        nats=likely.nats, parts=likely.parts, genes={str(gene): float(nats) for gene, nats in genes.items()},
    )  # fmt: skip


def show(stage: Stage, found: OneCell) -> None:
    """The section of the page."""
    stage.report.section("5. A cell as a sentence", words(found))
    stage.report.code(found.sentence, f"Cell {found.cell} of {found.dataset}, a {found.true}, word for word.")
    rows = [[part, nats] for part, nats in found.parts.items()]
    stage.report.table(rows, ["part of the sentence", "nats"], caption="Depth is not in the sum: it is given to both.")
    title = f"For {found.label}, against {found.against}"
    picture = plots.gene_contributions(found.genes, label=found.label, title=title)
    stage.picture(picture, "speaks_for", f"Genes of this cell by how much they speak for {found.label} and against {found.against}.")


def words(found: OneCell) -> str:
    """What stands in the sentence and what the model makes of it, in plain words."""
    ours, theirs = found.nats[MODEL], found.nats[BINOMIAL]
    return (
        "This is how the model sees a cell. `<depth:...>` says how many counts it has in all; `<n:5>` opens the genes with five counts "
        "each; the many with a single count come last. Within a group the genes stand in a fixed order, rare ones first. This cell, a "
        f"{found.true}, has {found.n_genes:,} genes and takes {found.n_tokens:,} words.\n\n"
        f"Given its fields and its depth the sentence costs {shown(ours)} nats; the lower, the likelier. A negative binomial of its type "
        f"needs {shown(theirs)}: on this one cell the model is {beats(ours, theirs, is_lower_better=True)} it. (One cell proves little; "
        "the evaluation command measures all held-out cells.)\n\n"
        "Because a sentence has a likelihood, one can ask which words make it more likely under one type than under another. The model "
        f"says {found.label} with probability {shown(found.probability)}; its second choice is {found.against} "
        f"({shown(found.against_probability)})."
    )
