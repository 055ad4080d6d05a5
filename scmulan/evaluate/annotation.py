"""Labels of held-out cells by the model beside logistic regression and the commonest label."""

from __future__ import annotations

import dataclasses

from scmulan.evaluate.cells import MODEL, WEIGHED, Ground, Judge, OnProgress, Skipped, predict
from scmulan.evaluate.generation import REGRESSION
from scmulan.evaluate.given import Given, Prepared
from scmulan.measures import baselines, metrics
from scmulan.measures.metrics import Annotation
from scmulan.tasks import Model

MAJORITY = "commonest label"


def prepare(given: Given) -> Prepared[dict[str, Annotation]]:
    """The section, or why it can't be measured."""
    ground = given.ground
    return ground if isinstance(ground, Skipped) else lambda: annotate_beside(given.model, ground, given.regression, given.say)


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
