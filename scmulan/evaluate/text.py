"""An evaluation as lines for a terminal: the main figures of each section, the model first, its baselines below it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scmulan.evaluate.depth import Depth
from scmulan.evaluate.generation import REGRESSION
from scmulan.evaluate.mapping import Mapped
from scmulan.evaluate.perturbation import Perturbation
from scmulan.evaluate.questions import Questions
from scmulan.evaluate.states import States
from scmulan.measures.metrics import Annotation
from scmulan.report import shown

if TYPE_CHECKING:
    from scmulan.evaluate import Evaluation


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
    for screen in evaluation.perturbation or []:
        lines += of_perturbations(screen)
    for step in evaluation.states or []:
        lines += of_states(step)
    if evaluation.depth is not None:
        lines += of_depth(evaluation.depth)
    if evaluation.mapping is not None:
        lines += of_mapping(evaluation.mapping)
    if evaluation.questions is not None:
        lines += of_questions(evaluation.questions)
    return "\n".join([*lines, *(f"{section} was not measured: {reason}" for section, reason in evaluation.skipped.items())])


def of_perturbations(found: Perturbation) -> Iterator[str]:
    """Each way to foretell, and each way to tell which perturbation it was."""
    yield f"perturbation, {found.dataset}: {len(found.cells)} perturbations, {sum(found.cells.values()):,} held-out cells"
    for who, way in found.ways.items():
        figures = f"{shown(way.pearson)}, 20 most changed {shown(way.pearson_top)}; rank {shown(way.rank)}; energy {shown(way.energy)}"
        yield f"perturbation, {who}: Pearson of the change {figures}"
    for size, which in found.which.items():
        ways = ", ".join(f"{who} {shown(told.first)} / {shown(told.five)}" for who, told in which.ways.items())
        yield f"which perturbation, {size}, first / five: {ways}, chance {shown(which.chance_first)} / {shown(which.chance_five)}"


def of_states(found: States) -> Iterator[str]:
    """Each way to foretell the later state, and each way to foretell the fate."""
    yield f"states, {found.dataset}: {found.n_cells:,} held-out cells of {found.earlier}, {found.n_later:,} relatives of {found.later}"
    for who, way in found.states.items():
        yield f"next state, {who}: energy {shown(way.energy)}, error {shown(way.error)}, rank of the clone {shown(way.rank)}"
    for who, fate in found.fate_ways.items():
        yield f"fate, {who}: log loss {shown(fate.log_loss)}, accuracy {shown(fate.accuracy)}, AUROC {shown(fate.auroc)}"
    for part, reason in found.left_out.items():
        yield f"{part} of {found.dataset} were not measured: {reason}"


def of_depth(found: Depth) -> Iterator[str]:
    """Each way to bring thinned cells back to depth."""
    for who, way in found.ways.items():
        figures = f"correlation with the full cell {shown(way.pearson_cell)}, detection AUROC {shown(way.detection)}"
        yield f"depth, {found.n_cells:,} cells thinned to {found.share:.0%}, {who}: {figures}"


def of_mapping(found: Mapped) -> Iterator[str]:
    """Labels carried over, by each way."""
    for who, way in found.ways.items():
        figures = f"accuracy {shown(way.accuracy)}, macro-F1 {shown(way.macro_f1)}"
        yield f"mapping, {found.n:,} cells onto {found.n_reference:,}, {who}: {figures}"


def of_questions(found: Questions) -> Iterator[str]:
    """The share of each kind that was read exactly right."""
    for kind, ways in found.kinds.items():
        yield f"questions, {kind}, read right: {', '.join(f'{who} {shown(share.exact)}' for who, share in ways.items())}"


def by_distance(found: Annotation) -> str:
    """How far off the wrong labels are, as the rest of a line; ``""`` where it was not measured."""
    wrong = found.mistakes
    if wrong is None:
        return ""
    steps = f", mistakes {shown(wrong.mean_distance)} steps off" if wrong.mean_distance is not None else ""
    without = f" ({wrong.n_without_id:,} of {wrong.n_wrong:,} have no id)" if wrong.n_without_id else ""
    return f", lineage {shown(wrong.lineage_accuracy)}{steps}{without}"
