"""Fourth part: cells written around a gene at a given count, and what they become; scMulan's gene prompting.

Not an intervention: the question is which cells hold so many counts of the gene, never what the gene would do to a cell.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import plots
from scmulan.cells import Cells
from scmulan.demo.stage import Dataset, Stage
from scmulan.evaluate import bars
from scmulan.evaluate.cells import counter, predict
from scmulan.evaluate.generation import write_cells
from scmulan.labels import agrees
from scmulan.measures import metrics

COUNTS = (0, 1, 2, 4, 8)
WITHOUT = "none"
N_PROGRAM = 20
MARROW = {"organ": "bone marrow"}
PROGENITOR = {"organ": "blood", "cell_type": "hematopoietic precursor cell"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Genes to prompt with, and the fields that stand in the prompt."""

    key: str
    title: str
    genes: tuple[str, ...]
    fields: dict[str, str]
    is_type_open: bool


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """What cells written around one gene became.

    ``shares`` maps each count to the share of each type said by the model, ``by_regression`` to those said by logistic regression.
    ``program`` maps each count to the mean score of the gene's companions and its standard error, and ``real`` holds the same of
    held-out cells without and with the gene; ``real_shares`` the types of training cells without and with it. ``highest`` is the
    gene's largest count in a training cell of this kind.
    """

    question: str
    title: str
    gene: str
    n: int
    shares: dict[str, dict[str, float]]
    by_regression: dict[str, dict[str, float]]
    companions: list[str]
    program: dict[str, tuple[float, float]]
    real: dict[str, tuple[float, float] | None]
    real_shares: dict[str, dict[str, float]]
    real_n: dict[str, int]
    highest: int


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """All questions that this model can be asked, gene by gene; ``left_out`` says why others could not."""

    prompted: list[Prompted]
    left_out: list[str]


QUESTIONS = (
    Question(key="progenitors", title="CD34+ progenitors of blood", genes=("GATA1", "SPI1"), fields=PROGENITOR, is_type_open=False),
    Question(key="marrow", title="any cell of mouse bone marrow", genes=("GATA1", "SPI1"), fields=MARROW, is_type_open=True),
)


def run(stage: Stage) -> Prompting:
    """Write cells for each question and count, annotate them, and show what they became."""
    stage.say("4  Cells written around a gene")
    reasons = {(question, gene): _reason_against(stage, question, gene) for question in QUESTIONS for gene in question.genes}
    asked = [key for key, reason in reasons.items() if not reason]
    written = write(stage, asked)
    prompted = [measure(stage, question, gene, written) for question, gene in asked]
    for each in prompted:
        stage.say(f"   {each.gene} in {each.title}: {_told(each)}")
    left_out = [f"{gene} in {question.title}: {reason}" for (question, gene), reason in reasons.items() if reason]
    found = Prompting(prompted=prompted, left_out=left_out)
    show(stage, found)
    return found


def _reason_against(stage: Stage, question: Question, gene: str) -> str:
    """Why a question can't be asked of this model; empty when it can."""
    if not any(agrees(combination, question.fields) for combination in stage.model.seen.combinations):
        return "the model has seen no such cells"
    if gene not in stage.model.vocabulary.column_of:
        return "the gene is not in the model's vocabulary"
    dataset = stage.of_organ(question.fields["organ"])
    row = int(stage.model.table.index_of_symbols([gene])[0])
    if dataset is None or row not in dataset.genes:
        return "the gene was not measured in these cells"
    return ""


@dataclass(frozen=True, kw_only=True)
class Made:
    """Cells written for one question around one gene at one count, and the type that the model says each is."""

    cells: Cells
    said: list[str]


def write(stage: Stage, asked: Sequence[tuple[Question, str]]) -> dict[tuple[str, str, int], Made]:
    """Cells by question, gene and count; at a count of 0, which is without any gene, the gene is ""."""
    rows = {question.key: _prompt_fields(stage, question) for question, _ in asked}
    kinds = dict.fromkeys((question.key, gene if level else "", level) for question, gene in asked for level in COUNTS)
    keys = [kind for kind in kinds for _ in rows[kind[0]]]
    prompts = [row for kind in kinds for row in rows[kind[0]]]
    around = [{gene: level} if level else {} for _, gene, level in keys]
    with bars() as on_progress:
        count = counter(on_progress, "write cells", len(prompts))
        counts = write_cells(stage.model, prompts, seed=100 + stage.seed, around=around, on_cell=count)
        cells = _as_cells(stage, counts, prompts)
        said = predict(stage.model, cells, on_progress, "annotate").labels
    places = {key: [place for place, other in enumerate(keys) if other == key] for key in kinds}
    return {key: Made(cells=cells.take(at), said=[said[place] for place in at]) for key, at in places.items()}


def _as_cells(stage: Stage, counts: sp.csr_matrix, rows: Sequence[Mapping[str, str]]) -> Cells:
    """Written cells (C, gene table) as if they had been read, with their prompts as fields."""
    fields: dict[str, list[str | None]] = {name: [row.get(name) for row in rows] for name in stage.model.prompts.fields}
    return dataclasses.replace(
        stage.datasets[0].held, counts=counts, measured=np.arange(counts.shape[1], dtype=np.int32), fields=fields, originals={},
        cell_ids=[f"written_{row}" for row in range(len(rows))], donors=[None] * len(rows), dataset=["written"] * len(rows),
    )  # fmt: skip


def measure(stage: Stage, question: Question, gene: str, written: Mapping[tuple[str, str, int], Made]) -> Prompted:
    """What the cells at each count of one gene became, beside real cells."""
    dataset = stage.of_organ(question.fields["organ"])
    assert dataset is not None
    judge = _Judge(stage, dataset, question, gene)
    shares: dict[str, dict[str, float]] = {}
    by_regression: dict[str, dict[str, float]] = {}
    program: dict[str, tuple[float, float]] = {}
    n = 0
    for level in COUNTS:
        made, name = written[question.key, gene if level else "", level], str(level) if level else WITHOUT
        counts, n = dataset.counts(made.cells), len(made.said)
        shares[name], by_regression[name] = _shares(made.said), _shares(dataset.regression.predict(counts).labels)
        program[name] = _mean(judge.scores(counts)) or (0.0, 0.0)
    return Prompted(
        question=question.key, title=question.title, gene=gene, n=n, shares=shares, by_regression=by_regression,
        companions=judge.companions, program=program, real=judge.real, real_shares=judge.real_shares, real_n=judge.real_n,
        highest=judge.highest,
    )  # fmt: skip


def _prompt_fields(stage: Stage, question: Question) -> list[dict[str, str]]:
    """Fields of each cell to write; without type and lineage where the type is to be left open."""
    n = stage.sizes.per_count_open if question.is_type_open else stage.sizes.per_count
    rows = stage.model.rows_for(n, question.fields, stage.seed)
    if not question.is_type_open:
        return rows
    return [{name: row[name] for name in ("organism", "assay", "organ") if name in row} for row in rows]


class _Judge:
    """What real cells of a kind say of a gene: their types with and without it, and its companions, the genes that among training
    cells are higher where the gene is found than where it is not."""

    def __init__(self, stage: Stage, dataset: Dataset, question: Question, gene: str):
        row = int(stage.model.table.index_of_symbols([gene])[0])
        kind = {name: value for name, value in question.fields.items() if not (question.is_type_open and name == "cell_type")}
        train, held = (_rows_of(cells.fields, kind, len(cells)) for cells in (dataset.train, dataset.held))
        has = np.asarray(dataset.train.counts[:, row].toarray()).ravel()
        self.highest = int(has[train].max()) if len(train) else 0
        types = np.array(dataset.train_types)
        self.real_shares = {"without": _shares(types[train][has[train] == 0]), "with": _shares(types[train][has[train] > 0])}
        self.real_n = {"without": int((has[train] == 0).sum()), "with": int((has[train] > 0).sum())}
        self.columns = _companions(dataset, train, has[train] > 0, row)
        self.companions = [str(symbol) for symbol in stage.model.table.symbols[dataset.genes[self.columns]]]
        scores = self.scores(dataset.counts(dataset.held.take(held)))
        held_has = np.asarray(dataset.held.counts[held][:, row].toarray()).ravel() > 0
        self.real = {"without": _mean(scores[~held_has]), "with": _mean(scores[held_has])}

    def scores(self, counts: sp.csr_matrix) -> npt.NDArray[np.float64]:
        """Mean log1p CP10k of the companions, (C,)."""
        if not len(self.columns) or not counts.shape[0]:
            return np.zeros(counts.shape[0])
        return np.asarray(metrics.log_cp10k(counts)[:, self.columns].mean(1), dtype=np.float64).ravel()


def _rows_of(fields: Mapping[str, Sequence[str | None]], wanted: Mapping[str, str], n: int) -> npt.NDArray[np.int64]:
    """Cells that have all of some fields."""
    return np.array(
        [row for row in range(n) if all(fields.get(name, [None] * n)[row] == value for name, value in wanted.items())], dtype=np.int64
    )


def _companions(dataset: Dataset, rows: npt.NDArray[np.int64], has: npt.NDArray[np.bool_], gene: int) -> npt.NDArray[np.int64]:
    """Columns of the genes most raised, in mean log1p CP10k, in cells with the gene; without the gene itself."""
    if has.sum() < 5 or (~has).sum() < 5:
        return np.zeros(0, dtype=np.int64)
    log = metrics.log_cp10k(dataset.counts(dataset.train)[rows])
    raised = np.asarray(log[np.flatnonzero(has)].mean(0) - log[np.flatnonzero(~has)].mean(0)).ravel()
    raised[dataset.genes == gene] = -np.inf
    return np.argsort(-raised, kind="stable")[:N_PROGRAM].astype(np.int64)


def _shares(labels: Iterable[object]) -> dict[str, float]:
    counts = Counter(str(label) for label in labels)
    return {label: n / sum(counts.values()) for label, n in counts.most_common()}


def _mean(values: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Mean and its standard error; None of no value."""
    if not len(values):
        return None
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _most_moved(found: Prompted) -> tuple[str, float, float, float]:
    """The type whose share differs most between cells with and without the gene: name, both shares, two standard errors."""
    levels = [name for name in found.shares if name != WITHOUT]
    types = {label for shares in found.shares.values() for label in shares}
    mean = {label: float(np.mean([found.shares[name].get(label, 0.0) for name in levels])) for label in types}
    label = max(sorted(types), key=lambda name: abs(mean[name] - found.shares[WITHOUT].get(name, 0.0)))
    before, after = found.shares[WITHOUT].get(label, 0.0), mean[label]
    pooled = (before + after * len(levels)) / (1 + len(levels))
    error = 2 * float(np.sqrt(pooled * (1 - pooled) * (1 / found.n + 1 / (found.n * len(levels)))))
    return label, before, after, error


def _told(found: Prompted) -> str:
    """One line of what the gene did to the types."""
    label, before, after, error = _most_moved(found)
    chance = "" if abs(after - before) > error else ", no more than chance"
    return f"{label} {before:.0%} without, {after:.0%} with{chance}"


def show(stage: Stage, found: Prompting) -> None:
    """The section of the page."""
    stage.report.section("4. Cells written around a gene", lead_words(found))
    for each in found.prompted:
        title = f"{each.gene} in {each.title}"
        picture = plots.composition(each.shares, gene=each.gene, without=WITHOUT, title=title)
        stage.picture(picture, f"prompt_{each.question}_{each.gene}", f"{title}: types that the model says the written cells are.")
        stage.report.text(words(each)).table(_rows(each), caption=f"{title}, {each.n} cells at each count.")


def lead_words(found: Prompting) -> str:
    """What was asked, in plain words."""
    text = (
        "The model is given one gene at a certain count and writes the rest of the cell: `GATA1`, which drives erythroid, megakaryocyte "
        "and mast cell fates, then `SPI1` (PU.1), which drives myeloid fates. First in CD34+ progenitors, as in scMulan's figure, the "
        "type standing in the prompt; then with the type left open, which is the more telling question, for then the gene alone must "
        "decide. Beside them: the same without the gene, and real cells with and without it.\n\n"
        "This asks which cells hold so many counts of a gene. It does not ask what raising the gene would do to a cell; nothing here is "
        "an experiment."
    )
    if found.left_out:
        text += "\n\nNot asked: " + "; ".join(found.left_out) + "."
    return text


def words(found: Prompted) -> str:
    """What one gene did, in plain words."""
    label, before, after, error = _most_moved(found)
    real = [f"{found.real_shares[side].get(label, 0.0):.0%}" for side in ("without", "with")]
    text = (
        f"{found.gene} in {found.title}: the type whose share changes most is {label}, {before:.0%} of the cells without the gene and "
        f"{after:.0%} of those with it. {'That is more than' if abs(after - before) > error else 'That is no more than'} chance would "
        f"give with so few cells. Among real training cells it is {real[0]} of the {found.real_n['without']:,} without the gene and "
        f"{real[1]} of the {found.real_n['with']:,} with it."
    )
    if found.real["without"] and found.real["with"] and found.companions:
        names = ", ".join(f"`{gene}`" for gene in found.companions[:5])
        moved = np.mean([mean for name, (mean, _) in found.program.items() if name != WITHOUT]) - found.program[WITHOUT][0]
        real_moved = found.real["with"][0] - found.real["without"][0]
        share = f", {moved / real_moved:.0%} of the way that real held-out cells with it are from those without" if real_moved > 0 else ""
        text += (
            f" Genes that go with it in real cells ({names} and others; {N_PROGRAM} in all) {'rise' if moved > 0 else 'do not rise'} in "
            f"the written cells by {moved:+.2f} in mean log1p CP10k{share}."
        )
    if found.highest < max(COUNTS):
        text += f" No training cell of this kind had more than {found.highest} counts of it: above, the model goes beyond what it saw."
    return text


def _rows(found: Prompted) -> list[dict[str, object]]:
    """A row a count: the commonest types by the model and by regression, and the companions' score."""

    def told(shares: Mapping[str, float]) -> str:
        return ", ".join(f"{label} {share:.0%}" for label, share in list(shares.items())[:3])

    rows: list[dict[str, object]] = [
        {
            f"count of {found.gene}": name,
            "said by scmulan": told(shares),
            "said by logistic regression": told(found.by_regression[name]),
            "companion genes": found.program[name][0] if found.companions else None,
        }
        for name, shares in found.shares.items()
    ]
    for side in ("without", "with"):
        score = found.real[side]
        name = f"real cells {side} it ({found.real_n[side]:,})"
        row: dict[str, object] = {f"count of {found.gene}": name, "said by scmulan": told(found.real_shares[side]) + " (true types)"}
        rows.append(row | {"said by logistic regression": None, "companion genes": score[0] if score and found.companions else None})
    return rows
