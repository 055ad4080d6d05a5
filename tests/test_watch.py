"""Losses that leap or are no number are seen, and a request to end is heard."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from scmulan.training.watch import LEAST_REMEMBERED, EndRequest, LossWatch


def usual(n: int = 40) -> list[float]:
    return (3 + 0.1 * np.random.default_rng(0).standard_normal(n)).tolist()


def test_an_ordinary_loss_is_taken():
    watch = LossWatch()
    assert [watch.verdict(loss, 1.0) for loss in usual()] == [None] * 40


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (3.0, float("nan")), (3.0, float("inf"))])
def test_no_number_is_seen_from_the_first_step(loss, norm):
    assert LossWatch().verdict(loss, norm) == "not a number"


def test_a_leap_is_a_spike_and_a_fall_is_not():
    assert LossWatch(usual()).verdict(5.0, 1.0) == "spike"
    assert LossWatch(usual()).verdict(0.5, 1.0) is None


def test_two_kinds_of_packs_with_losses_far_apart_are_both_ordinary():
    rng = np.random.default_rng(1)
    losses = np.where(rng.random(300) < 0.4, 3 + 0.3 * rng.standard_normal(300), 0.2 + 0.05 * rng.standard_normal(300))
    watch = LossWatch()
    assert [watch.verdict(loss, 1.0) for loss in losses] == [None] * 300
    assert watch.verdict(9.0, 1.0) == "spike"


def test_the_first_steps_may_leap_for_nothing_is_known_yet():
    assert LossWatch(usual(LEAST_REMEMBERED - 1)).verdict(50.0, 1.0) is None


def test_a_loss_that_stays_high_is_taken_after_a_while():
    watch = LossWatch(usual())
    verdicts = [watch.verdict(5.0, 1.0) for _ in range(60)]
    assert verdicts[0] == "spike"
    assert verdicts[-1] is None


def test_a_watch_begun_anew_from_the_losses_decides_alike():
    losses = [*usual(), 5.0, 3.0]
    first = LossWatch()
    for loss in losses:
        first.verdict(loss, 1.0)
    assert LossWatch(losses).verdict(4.1, 1.0) == first.verdict(4.1, 1.0)


def test_sigterm_is_noted_while_it_is_listened_for_and_then_means_what_it_meant():
    before = signal.getsignal(signal.SIGTERM)
    request = EndRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.is_set
    assert signal.getsignal(signal.SIGTERM) is before
