"""Goals and starts as sets of labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from scmulan.errors import PromptError
from scmulan.tasks_goals import goal_of, labels_of

BLOOD = ["monocyte", "neutrophil", "CD4-positive helper T cell", "naive thymus-derived CD8-positive, alpha-beta T cell", "B cell"]


def test_a_goal_without_a_start_stands_against_every_other_label():
    goal = goal_of(BLOOD, {"cell_type": "Monocytes"}, None)
    assert goal.toward == ("monocyte",)
    assert set(goal.away) == set(BLOOD) - {"monocyte"}


def test_log_odds_are_those_of_summed_probabilities():
    goal = goal_of(BLOOD, {"cell_type": "T cell"}, None)
    scores = np.random.default_rng(0).normal(size=(3, len(goal.labels)))
    shares = softmax(scores, axis=1)
    n = len(goal.toward)
    assert n == 2
    np.testing.assert_allclose(goal.log_odds(scores), np.log(shares[:, :n].sum(1) / shares[:, n:].sum(1)))


def test_a_lineage_means_all_labels_of_it():
    assert labels_of(BLOOD, {"lineage": "B cell"}, "goal") == ["B cell"]
    assert len(labels_of(BLOOD, {"lineage": "T cell"}, "goal")) == 2


@pytest.mark.parametrize(
    ("goal", "start", "said"),
    [
        ({"cell_type": "hepatocyte"}, None, "none of the labels that the model would choose among here.*they are 'monocyte'"),
        ({"cell_type": "monocyte"}, {"cell_type": "monocyte"}, "both goal and start"),
        ({"organ": "blood"}, None, "needed one field, cell_type or lineage"),
        ({}, None, "goal is empty: needed one field"),
        ({"cell_type": "monocyte", "lineage": "T cell"}, None, "needed one field"),
        ({"cell_type": "leukocyte"}, None, "every label is of the goal"),
    ],
)
def test_goals_that_can_not_be_are_refused(goal, start, said):
    with pytest.raises(PromptError, match=said):
        goal_of(BLOOD, goal, start)
