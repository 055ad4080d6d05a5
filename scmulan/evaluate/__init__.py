"""Measures a model on cells that it has not seen: their labels, cells like them, their likelihood.

Every figure stands beside its baselines, on the same cells and genes: logistic regression and the commonest label; for each type
a negative binomial and a multinomial; real cells against other real cells. Fields of the held-out cells are the prompts.
Everything returned is frozen and of plain values: ``dataclasses.asdict`` of an Evaluation is JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scmulan.cells import Cells
from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.evaluate.cells import (
    MODEL,
    WEIGHED,
    Ground,
    Judge,
    OnProgress,
    Source,
    at_most,
    at_most_per_type,
    fit_judge,
    predict,
    read_split,
    shared_ground,
)
from scmulan.evaluate.generation import REGRESSION, Generation, generations
from scmulan.evaluate.likelihood import Likelihood, likelihoods
from scmulan.evaluate.progress import bars
from scmulan.measures import baselines, metrics
from scmulan.measures.metrics import Annotation
from scmulan.report import shown
from scmulan.tasks import Model

__all__ = ["Evaluation", "Generation", "Held", "Likelihood", "bars", "evaluate", "evaluate_files", "read_split", "to_text", "write"]

SECTIONS = ("annotation", "generation", "likelihood")
MAJORITY = "commonest label"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What was measured on. ``left_out`` says why some held-out cells were not, and how many."""

    n_held_out: int
    n_train: int
    n_genes: int
    types: dict[str, int]
    left_out: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured; a section that was not asked for is None."""

    model: dict[str, Any]
    seed: int
    cells: Held
    annotation: dict[str, Annotation] | None = None
    generation: Generation | None = None
    likelihood: list[Likelihood] | None = None


def evaluate(
    model: Model,
    held_out: Source | Sequence[Source],
    train: Source | Sequence[Source],
    *,
    seed: int = 0,
    sections: Sequence[str] | None = None,
    cells_per_type: int | None = None,
    most_cells: int | None = None,
    seeds: int = 1,
    as_read: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a model on held-out cells, beside baselines that are fitted on the training cells.

    Parameters
    ----------
    held_out, train : files, AnnData or Cells; several are taken together
    sections : of ``annotation``, ``generation``, ``likelihood``; all when not given
    cells_per_type : generate at most so many cells of a type; as many as were held out when not given
    most_cells : measure on at most so many held-out cells, drawn evenly over types
    seeds : generate so often, with ``seed``, ``seed + 1``, ...
    as_read : compare generation with real cells as the model reads them, thinned to its context where they are longer; for
        data so deep that no sentence of this model can hold a cell whole
    on_progress : called with a step's name, cells done and cells in all

    Raises
    ------
    CellDataError
        When no held-out cell has a type that is also among the training cells.
    PromptError
        When a section is not known.
    """
    chosen = list(sections or SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            raise PromptError(f"section {name!r}{nearest(name, SECTIONS)}; sections: {', '.join(SECTIONS)}")
    say: OnProgress = on_progress or (lambda what, done, total: None)
    ground = at_most(shared_ground(model, held_out, train), most_cells, seed)
    regression = None
    if {"annotation", "generation"} & set(chosen):
        say("fit logistic regression", 0, 1)
        regression = fit_judge(ground.counts(ground.train), ground.train_types)
        say("fit logistic regression", 1, 1)
    annotation = generation = likelihood = None
    if "annotation" in chosen and regression is not None:
        annotation = annotate_beside(model, ground, regression, say)
    if "generation" in chosen and regression is not None:
        part = at_most_per_type(ground, cells_per_type, seed)
        generation = generations(model, part, regression, seed=seed, seeds=seeds, as_read=as_read, say=say)
    if "likelihood" in chosen:
        likelihood = likelihoods(model, ground, seed=seed, say=say)
    how = model.provenance(context=model.checkpoint.context, parameters=model.checkpoint.card.get("parameters"))
    return Evaluation(model=how, seed=seed, cells=_held(ground), annotation=annotation, generation=generation, likelihood=likelihood)


def evaluate_files(
    model: Model,
    held_out: Sequence[str | Path],
    train: Sequence[str | Path],
    *,
    column: str = "split",
    seed: int = 0,
    sections: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    **how: Any,
) -> Evaluation:
    """`evaluate` on files; a file that is named on both sides is divided by a column of its ``obs`` that says train or test."""
    test, known = [Path(path) for path in held_out], [Path(path) for path in train]
    if not test or not known:
        raise CellDataError("evaluate: needed one file or more of held-out cells and of training cells")
    divided: dict[Path, tuple[Cells, Cells]] = {path: read_split(path, column) for path in test if path in known}
    return evaluate(
        model,
        [divided[path][0] if path in divided else path for path in test],
        [divided[path][1] if path in divided else path for path in known],
        seed=seed, sections=sections, on_progress=on_progress, **how,
    )  # fmt: skip


def write(evaluation: Evaluation, folder: str | Path) -> dict[str, Path]:
    """Write ``evaluation.json`` and ``evaluation.html`` into a folder, which is made where missing; returns both paths.

    Raises
    ------
    EngineError
        When the extra ``plots`` is not installed; the JSON is written all the same.
    """
    from scmulan.evaluate.page import page

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    as_json = folder / "evaluation.json"
    as_json.write_text(json.dumps(dataclasses.asdict(evaluation), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return {"json": as_json, "html": page(evaluation).write(folder / "evaluation.html")}


def to_text(evaluation: Evaluation) -> str:
    """The main figures, a line each, for a terminal."""
    held = evaluation.cells
    lines = [f"{held.n_held_out:,} held-out cells of {len(held.types)} types, {held.n_train:,} training cells, {held.n_genes:,} genes"]
    lines += [f"not measured on: {n:,} cells, {why}" for why, n in held.left_out.items()]
    for who, found in (evaluation.annotation or {}).items():
        lines.append(f"annotation, {who}: accuracy {shown(found.accuracy)}, macro-F1 {shown(found.macro_f1)}{by_distance(found)}")
    for who, made in (evaluation.generation.kinds if evaluation.generation else {}).items():
        told = f"two-sample AUC {shown(made.two_sample.auc_pcs)} on 50 components, {shown(made.two_sample.auc_hvgs)} on variable genes"
        lines.append(f"generation, {who}: {told}; recognised {shown(made.recognised[REGRESSION].share)}")
    for likely in evaluation.likelihood or []:
        nats = ", ".join(f"{who} {shown(value)}" for who, value in likely.nats.items())
        lines.append(f"nats per cell given fields and depth, {likely.n_genes:,} genes: {nats}")
    return "\n".join(lines)


def by_distance(found: Annotation) -> str:
    """How far off the wrong labels are, as the rest of a line; ``""`` where it was not measured."""
    wrong = found.mistakes
    if wrong is None:
        return ""
    steps = f", mistakes {shown(wrong.mean_distance)} steps off" if wrong.mean_distance is not None else ""
    without = f" ({wrong.n_without_id:,} of {wrong.n_wrong:,} have no id)" if wrong.n_without_id else ""
    return f", lineage {shown(wrong.lineage_accuracy)}{steps}{without}"


def annotate_beside(model: Model, ground: Ground, regression: Judge, say: OnProgress) -> dict[str, Annotation]:
    """Labels of the held-out cells by the model, by logistic regression, and the commonest label of all."""
    counts = ground.counts(ground.held_out)
    said = {
        MODEL: predict(model, ground.held_out, say, "annotate"),
        WEIGHED: predict(model, ground.held_out, say, "annotate by both", by="both"),
        REGRESSION: regression.predict(counts),
        MAJORITY: baselines.fit_majority_class(ground.train_types).predict(counts),
    }
    measured = {
        who: metrics.annotation(ground.types, each.labels, classes=each.classes, class_probabilities=each.probabilities)
        for who, each in said.items()
    }
    return {who: dataclasses.replace(each, mistakes=metrics.mistakes(ground.types, said[who].labels)) for who, each in measured.items()}


def _held(ground: Ground) -> Held:
    types = {label: ground.types.count(label) for label in sorted(set(ground.types))}
    return Held(
        n_held_out=len(ground.held_out), n_train=len(ground.train), n_genes=len(ground.genes), types=types, left_out=ground.left_out
    )
