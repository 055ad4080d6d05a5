"""Measures a model on cells that it has not seen: their labels, cells like them, their likelihood, and the tasks about cells that change.

Every figure stands beside its baselines, on the same cells and genes. A section that these cells or this model do not allow is left out,
and ``skipped`` says why; one that was asked for by name is then an error.
Everything returned is frozen and of plain values: ``dataclasses.asdict`` of an Evaluation is JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scmulan.errors import CellDataError, PromptError, nearest
from scmulan.evaluate import annotation, depth, generation, likelihood, mapping, perturbation, questions, states
from scmulan.evaluate.cells import Ground, OnProgress, Side, Skipped, Source, at_most, divide, find_ground, gather, read_split
from scmulan.evaluate.depth import Depth
from scmulan.evaluate.generation import Generation
from scmulan.evaluate.given import Given, Prepared, Sizes
from scmulan.evaluate.likelihood import Likelihood
from scmulan.evaluate.mapping import Mapped
from scmulan.evaluate.perturbation import Perturbation
from scmulan.evaluate.progress import bars
from scmulan.evaluate.questions import Questions
from scmulan.evaluate.states import States
from scmulan.evaluate.text import to_text
from scmulan.measures.metrics import Annotation
from scmulan.tasks import Model

__all__ = [
    "Depth",
    "Evaluation",
    "Generation",
    "Held",
    "Likelihood",
    "Mapped",
    "Perturbation",
    "Questions",
    "Sizes",
    "States",
    "bars",
    "evaluate",
    "evaluate_files",
    "read_split",
    "to_text",
    "write",
]

SECTIONS: Mapping[str, Callable[[Given], Prepared[Any]]] = {
    "annotation": annotation.prepare,
    "generation": generation.prepare,
    "likelihood": likelihood.prepare,
    "perturbation": perturbation.prepare,
    "states": states.prepare,
    "depth": depth.prepare,
    "mapping": mapping.prepare,
    "questions": questions.prepare,
}
WITHOUT_CELLS = ("questions",)
"""Sections that are about no cell."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What was measured on. ``left_out`` says why some held-out cells were not measured on by type, and how many."""

    n_held_out: int
    n_train: int
    n_genes: int
    types: dict[str, int]
    left_out: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured; a section that was not asked for is None, and so is one of ``skipped``, which says why, of parts too."""

    model: dict[str, Any]
    seed: int
    cells: Held
    annotation: dict[str, Annotation] | None = None
    generation: Generation | None = None
    likelihood: list[Likelihood] | None = None
    perturbation: list[Perturbation] | None = None
    states: list[States] | None = None
    depth: Depth | None = None
    mapping: Mapped | None = None
    questions: Questions | None = None
    skipped: dict[str, str] = field(default_factory=dict)


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
    guide: str = "guide",
    clone: str = "clone",
    sizes: Sizes | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a model on held-out cells, beside baselines that are fitted on the training cells.

    Parameters
    ----------
    held_out, train : files, AnnData or Cells; several are taken together
    sections : names of ``SECTIONS``; all that can be measured when not given
    cells_per_type : generate at most so many cells of a type; as many as were held out when not given
    most_cells : measure the sections about cells with types on at most so many held-out cells, drawn evenly over types
    seeds : generate so often, with ``seed``, ``seed + 1``, ...
    as_read : compare generation with real cells as the model reads them, thinned to its context where they are longer; for
        data so deep that no sentence of this model can hold a cell whole
    guide, clone : columns of ``obs`` that say a perturbed cell's guide and a cell's clone, where there are such columns
    sizes : how much the other sections measure
    on_progress : called with a step's name, cells done and cells in all

    Raises
    ------
    CellDataError
        When nothing about these cells can be measured.
    PromptError
        When a section is not known, or was asked for by name and can't be measured; says why.
    """
    chosen = list(sections or SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            raise PromptError(f"section {name!r}{nearest(name, list(SECTIONS))}; sections: {', '.join(SECTIONS)}")
    held, known = gather(held_out, (guide, clone)), gather(train, (guide, clone))
    ground = find_ground(model, held.cells, known.cells)
    given = Given(
        model=model, held=held, train=known, ground=ground if isinstance(ground, Skipped) else at_most(ground, most_cells, seed),
        sizes=sizes or Sizes(), seed=seed, guide=guide, clone=clone, cells_per_type=cells_per_type, seeds=seeds, as_read=as_read,
        say=on_progress or (lambda what, done, total: None),
    )  # fmt: skip
    prepared = {name: SECTIONS[name](given) for name in chosen}
    skipped = {name: each.reason for name, each in prepared.items() if isinstance(each, Skipped)}
    if sections and skipped:
        raise PromptError("; ".join(f"section {name} can't be measured: {reason}" for name, reason in skipped.items()))
    if not [name for name in prepared if name not in (*skipped, *WITHOUT_CELLS)]:
        raise CellDataError("; ".join(dict.fromkeys(skipped.values())))
    measured = {name: each() for name, each in prepared.items() if not isinstance(each, Skipped)}
    how = model.provenance(context=model.checkpoint.context, parameters=model.checkpoint.card.get("parameters"))
    return Evaluation(model=how, seed=seed, cells=_held(given), skipped=skipped | given.partly, **measured)


def evaluate_files(
    model: Model,
    held_out: Sequence[str | Path],
    train: Sequence[str | Path],
    *,
    column: str = "split",
    seed: int = 0,
    sections: Sequence[str] | None = None,
    guide: str = "guide",
    clone: str = "clone",
    on_progress: OnProgress | None = None,
    **how: Any,
) -> Evaluation:
    """`evaluate` on files; a file that is named on both sides is divided by a column of its ``obs`` that says train or test."""
    test, known = [Path(path) for path in held_out], [Path(path) for path in train]
    if not test or not known:
        raise CellDataError("evaluate: needed one file or more of held-out cells and of training cells")
    divided: dict[Path, tuple[Side, Side]] = {path: divide(path, column, names=(guide, clone)) for path in test if path in known}
    return evaluate(
        model,
        [divided[path][0] if path in divided else path for path in test],
        [divided[path][1] if path in divided else path for path in known],
        seed=seed, sections=sections, guide=guide, clone=clone, on_progress=on_progress, **how,
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


def _held(given: Given) -> Held:
    """Of the ground where there is one, else of all cells."""
    ground = given.ground
    if not isinstance(ground, Ground):
        genes = set(given.held.cells.measured.tolist()) & set(given.train.cells.measured.tolist())
        return Held(n_held_out=len(given.held.cells), n_train=len(given.train.cells), n_genes=len(genes), types={}, left_out={})
    types = {label: ground.types.count(label) for label in sorted(set(ground.types))}
    return Held(
        n_held_out=len(ground.held_out), n_train=len(ground.train), n_genes=len(ground.genes), types=types, left_out=ground.left_out
    )
