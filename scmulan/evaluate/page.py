"""The page that shows an evaluation: each section in plain words, its tables and pictures, and whether the baselines were beaten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scmulan import plots
from scmulan.evaluate.cells import MODEL
from scmulan.evaluate.generation import BINOMIAL, REAL, REGRESSION, Generation
from scmulan.evaluate.mapping import PCA, Mapped
from scmulan.evaluate.page_changes import depth_section, perturbation_section, states_section
from scmulan.evaluate.page_questions import questions_section
from scmulan.evaluate.page_words import beats as beats  # part of how pages speak: the demo says it too
from scmulan.evaluate.page_words import beats_apart
from scmulan.report import Report, shown

if TYPE_CHECKING:
    from scmulan.evaluate import Evaluation
    from scmulan.evaluate.likelihood import Likelihood
    from scmulan.measures.metrics import Annotation


def page(evaluation: Evaluation) -> Report:
    """The report of an evaluation; sections that were not measured are not in it."""
    held = evaluation.cells
    lead = (
        f"{held.n_held_out:,} cells of {len(held.types)} types that the model has not seen, on {held.n_genes:,} genes. "
        f"All baselines were fitted on the {held.n_train:,} training cells of the same data."
    )
    if held.left_out:
        lead += " Not measured on: " + "; ".join(f"{n:,} cells with {why}" for why, n in held.left_out.items()) + "."
    report = Report(f"Evaluation of {evaluation.model.get('model', 'a model')}", lead)
    if evaluation.annotation:
        annotation_section(report, evaluation.annotation)
    if evaluation.generation:
        generation_section(report, evaluation.generation)
    if evaluation.likelihood:
        likelihood_section(report, evaluation.likelihood)
    if evaluation.perturbation:
        perturbation_section(report, evaluation.perturbation)
    if evaluation.states:
        states_section(report, evaluation.states)
    if evaluation.depth is not None:
        depth_section(report, evaluation.depth)
    if evaluation.mapping is not None:
        mapping_section(report, evaluation.mapping)
    if evaluation.questions is not None:
        questions_section(report, evaluation.questions)
    if evaluation.skipped:
        report.section("What was not measured").table([[name, why] for name, why in evaluation.skipped.items()], ["section", "why"])
    report.section("How this was made").table([[key, value] for key, value in evaluation.model.items()], ["model", ""])
    return report.table(list(held.types.items()), ["type", "held-out cells"])


def annotation_section(report: Report, found: dict[str, Annotation]) -> Report:
    """Who said how many labels right, the confusion matrix, and whether probabilities hold."""
    ours, theirs = found[MODEL], found[REGRESSION]
    report.headline("accuracy of labels", ours.accuracy, f"{REGRESSION} {shown(theirs.accuracy)}")
    report.headline("macro-F1", ours.macro_f1, f"{REGRESSION} {shown(theirs.macro_f1)}")
    report.section("Labels of cells it has not seen", annotation_words(found))
    report.table([_annotation_row(who, each) for who, each in found.items()], emphasise=MODEL, caption=mistakes_words(ours))
    report.figure(plots.confusion_matrix(ours), "Labels said by the model against the true ones.")
    if ours.calibration:
        report.figure(plots.reliability(ours.calibration), "Where the model says 80 %, are 80 % right? Points on the line: yes.")
    return report.table(
        [
            {"type": score.label, "cells": score.support, "precision": score.precision, "recall": score.recall, "F1": score.f1}
            for score in ours.classes
        ],
        caption="By type, of the model.",
    )


def annotation_words(found: dict[str, Annotation]) -> str:
    """What accuracy and macro-F1 say beside logistic regression, in a paragraph."""
    ours, theirs = found[MODEL], found[REGRESSION]
    return (
        f"The model names the type of {shown(100 * ours.accuracy)} % of {ours.n:,} cells rightly, "
        f"{beats(ours.accuracy, theirs.accuracy)} logistic regression on log counts ({shown(100 * theirs.accuracy)} %). Macro-F1, "
        f"which counts rare types as much as common ones, is {shown(ours.macro_f1)}, {beats(ours.macro_f1, theirs.macro_f1)} "
        f"its {shown(theirs.macro_f1)}."
    )


def mistakes_words(found: Annotation) -> str:
    """What the columns on lineage and on steps mean, and of how many mistakes the steps could not be counted."""
    words = (
        "Lineage accuracy: answers of the right lineage. Steps of mistakes: through the Cell Ontology, from the true type to the one said."
    )
    if found.mistakes is not None and found.mistakes.n_without_id:
        words += f" Of the model's {found.mistakes.n_wrong:,} mistakes {found.mistakes.n_without_id:,} have none: a type has no id there."
    return words


def _annotation_row(who: str, found: Annotation) -> dict[str, Any]:
    measured, wrong = found.calibration, found.mistakes
    return {
        "who": who,
        "accuracy": found.accuracy,
        "lineage accuracy": wrong.lineage_accuracy if wrong else None,
        "steps of mistakes": wrong.mean_distance if wrong else None,
        "macro-F1": found.macro_f1,
        "balanced accuracy": found.balanced_accuracy,
        "calibration error": measured.error if measured else None,
        "log loss, nats": measured.log_loss if measured else None,
    }


def mapping_section(report: Report, found: Mapped) -> Report:
    """Labels carried over by nearest neighbours in the embedding, beside those in principal components."""
    ours, theirs = found.ways[MODEL].accuracy, found.ways[PCA].accuracy
    words = f"{found.n:,} held-out cells take labels by votes of their {found.k} nearest among {found.n_reference:,} training cells."
    if ours is not None and theirs is not None:
        words += f" In the model's embedding {shown(100 * ours)} % are right, {beats(ours, theirs)} in {PCA} ({shown(100 * theirs)} %)."
        report.headline("labels carried over", ours, f"{PCA} {shown(theirs)}")
    report.section("Nearest cells lend their labels", words)
    rows = [{"way": who, "accuracy": way.accuracy, "macro-F1": way.macro_f1} for who, way in found.ways.items()]
    return report.table(rows, emphasise=MODEL)


def generation_section(report: Report, found: Generation) -> Report:
    """Whether a classifier tells generated cells from real ones, and what gives them away."""
    ours, theirs, real = (found.kinds[who].two_sample for who in (MODEL, BINOMIAL, REAL))
    report.headline("two-sample AUC, 50 components", ours.auc_pcs, f"{BINOMIAL} {shown(theirs.auc_pcs)}; real cells {shown(real.auc_pcs)}")
    report.section("Cells it writes", generation_words(found))
    report.figure(
        plots.two_sample({who: each.two_sample for who, each in found.kinds.items()}),
        "How well a random forest tells each kind of cells from the held-out ones; 0.5 is a coin's throw. Bars: two standard errors.",
    )
    report.table(
        [_generation_row(who, each) for who, each in found.kinds.items()],
        emphasise=MODEL,
        caption="Each kind of cells beside the held-out ones.",
    )
    report.table([_gene_row(who, each) for who, each in found.kinds.items()], emphasise=MODEL, caption="Gene by gene, and cell sizes.")
    if len(found.seeds) > 1:
        rows = [
            {"draw": k + 1, "AUC, 50 components": each.auc_pcs, "AUC, variable genes": each.auc_hvgs} for k, each in enumerate(found.seeds)
        ]
        report.table(rows, caption="The same with other random draws of the model.")
    telltale = [
        {"gene": gene.gene, "importance": gene.importance, "mean, real": gene.real_mean, "mean, generated": gene.generated_mean}
        for gene in ours.telltale
    ]
    return report.table(telltale, caption="Genes by which generated cells are known; means of log1p CP10k.") if telltale else report


def generation_words(found: Generation) -> str:
    """What the two-sample figures say, in a paragraph."""
    ours, theirs, real = (found.kinds[who].two_sample for who in (MODEL, BINOMIAL, REAL))
    words = [
        f"For each held-out cell the model wrote one from the same fields ({ours.n:,} cells). A random forest tells them from real "
        f"cells with an AUC of {shown(ours.auc_pcs)} on 50 components and {shown(ours.auc_hvgs)} on {found.n_hvg:,} variable genes; 0.5 "
        f"and less is a coin's throw, and real cells against other real cells give {shown(real.auc_pcs)} and {shown(real.auc_hvgs)}."
    ]
    for name, a, b in (("components", ours.auc_pcs, theirs.auc_pcs), ("genes", ours.auc_hvgs, theirs.auc_hvgs)):
        words.append(f"On {name} that is {beats_apart(a, b)} a negative binomial fitted to each type ({shown(b)}).")
    if found.thinned:
        words.append(
            f"{found.thinned:,} of the real cells are longer than a sentence of this model may be: they, and the training cells, were "
            "thinned at random to its length before anything was compared."
        )
    if found.outside > 0.0005:
        words.append(
            f"{shown(100 * found.outside)} % of the generated counts lie in genes that these data did not measure; they were left out."
        )
    return " ".join(words)


def _generation_row(who: str, made: Any) -> dict[str, Any]:
    kept = made.memorisation
    return {
        "cells": who,
        "AUC, 50 components": made.two_sample.auc_pcs,
        "AUC, variable genes": made.two_sample.auc_hvgs,
        "MMD²": made.mmd.squared,
        "p": made.mmd.p_value,
        "recognised by regression": made.recognised[REGRESSION].share,
        "recognised by scmulan": made.recognised[MODEL].share,
        "nearness to training cells": kept.ratio if kept else None,
        "copies": kept.n_copies if kept else None,
    }


def _gene_row(who: str, made: Any) -> dict[str, Any]:
    return {
        "cells": who,
        "r of means": made.genes.mean.pearson,
        "r of variances": made.genes.variance.pearson,
        "r of zeros": made.genes.zero_fraction.pearson,
        "slope of fold changes": made.log_fold_change.slope,
        "r of fold changes": made.log_fold_change.pearson,
        "counts per cell": made.depth.generated_total,
        "real": made.depth.real_total,
        "genes per cell": made.depth.generated_genes,
        "real ": made.depth.real_genes,
    }


def likelihood_section(report: Report, found: list[Likelihood]) -> Report:
    """Nats per cell beside the negative binomial, by part and by type."""
    first = found[0]
    report.headline("nats per cell", first.nats[MODEL], f"{BINOMIAL} {shown(first.nats[BINOMIAL])}")
    report.section("How likely it finds cells it has not seen", likelihood_words(first))
    for each in found:
        rows: list[dict[str, Any]] = [{"who": who, "nats per cell": each.nats[who], "standard error": each.error[who]} for who in each.nats]
        what = f"{each.genes[0].upper()}{each.genes[1:]}: {each.n:,} cells, {each.n_genes:,} genes, {shown(each.genes_per_cell)} detected"
        caption = f"{what} per cell, {each.n_thinned:,} cells thinned. Standard error of the difference {shown(each.difference_error)}."
        report.table(rows, caption=caption, emphasise=MODEL)
        report.table(list(each.parts.items()), ["part of the sentence", "nats per cell"])
    by_type = [{"type": label, **nats} for label, nats in first.by_type.items()]
    return report.table(by_type, caption="Nats per cell by type, on the first of these sets of genes.")


def likelihood_words(found: Likelihood) -> str:
    """What nats per cell say beside the negative binomial, in a paragraph."""
    ours, theirs = found.nats[MODEL], found.nats[BINOMIAL]
    return (
        f"Given its fields and its depth, a held-out cell costs the model {shown(ours)} nats, {beats(ours, theirs, is_lower_better=True)} "
        f"the {shown(theirs)} of a negative binomial of its type on the same counts; less is better. The dispersion floor of the negative "
        "binomial is chosen on these very cells, which flatters it, and it knows the depth to the count, the model within half an "
        "octave. Counts above ten stand in the sentence as levels; what it takes to name the count within its level is in the model's sum."
    )
