"""Scores beside those of controls of like detection."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scmulan.measures.matched import matched


def test_a_score_that_only_follows_detection_does_not_stand_out():
    detection = np.geomspace(0.01, 0.9, 400)
    rng = np.random.default_rng(0)
    scores = 5 * np.log(detection) + rng.normal(0, 0.3, 400)
    found = matched(scores, detection, np.ones(400, bool), nearest=20)
    assert np.abs(np.corrcoef(found.z, np.log(detection))[0, 1]) < 0.2
    assert (found.q > 0.05).mean() > 0.9


def test_a_gene_far_from_its_controls_is_found_and_others_are_not():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 1, 501)
    scores[-1] = 12
    found = matched(scores, np.full(501, 0.5), np.arange(501) < 500)
    assert found.q[-1] < 1e-6
    assert found.p[-1] == 1 / 501
    assert (found.q[:-1] < 0.05).sum() <= 2


def test_p_is_that_of_a_rank_when_every_gene_is_a_control():
    scores = np.random.default_rng(2).normal(size=200)
    found = matched(scores, np.full(200, 0.3), np.ones(200, bool), nearest=199)
    np.testing.assert_allclose(np.sort(found.p), np.arange(1, 201) / 200, atol=0.011)


def test_unknown_scores_and_too_few_controls_stay_unknown():
    found = matched([1.0, np.nan, 2.0, 3.0], [0.5] * 4, [False, True, True, True])
    assert np.isnan(found.z).all()
    assert np.isnan(found.p).all()
    assert np.isnan(found.q).all()


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_shifting_and_scaling_all_scores_changes_nothing(seed, scale, shift):
    rng = np.random.default_rng(seed)
    scores, detection = rng.normal(size=60), rng.uniform(0.01, 1, 60)
    control = rng.random(60) < 0.7
    control[:10] = True
    one, other = (matched(values, detection, control) for values in (scores, scores * scale + shift))
    np.testing.assert_allclose(one.z, other.z, rtol=1e-6, atol=1e-8)
