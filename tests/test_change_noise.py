"""The noise ceiling and intervals, held against what was simulated."""

from __future__ import annotations

import numpy as np
import pytest
from test_change import SHIFTS, cells

from scmulan.errors import CellDataError
from scmulan.measures.change import change_between, compare_changes, true_change
from scmulan.measures.change_noise import intervals, noise_ceiling, redrawn_truths, share_better

WEAK = {name: dict.fromkeys(shift, 1.3) for name, shift in SHIFTS.items()}


def simulated(n: int, seed: int = 0):
    """Control and perturbed cells, and the change that thousands of cells show."""
    control = cells(n, 1 + seed)
    perturbed = {name: cells(n, 10 + k + seed, shift) for k, (name, shift) in enumerate(WEAK.items())}
    many = cells(6_000, 500)
    noiseless = {name: change_between(many, cells(6_000, 600 + k, shift)) for k, (name, shift) in enumerate(WEAK.items())}
    return control, perturbed, noiseless


@pytest.fixture(scope="module")
def small():
    return simulated(120)


def test_the_ceiling_foretells_what_the_noiseless_change_reaches(small):
    control, perturbed, noiseless = small
    truths = {name: true_change(control, each) for name, each in perturbed.items()}
    reached = compare_changes(truths, noiseless)
    ceiling = noise_ceiling(control, perturbed, n_splits=20)
    assert ceiling.pearson == pytest.approx(reached.means.pearson, abs=0.06)
    assert ceiling.rmse == pytest.approx(reached.means.rmse, rel=0.1)
    assert ceiling.signal == pytest.approx(reached.spread.predicted, rel=0.15)
    assert ceiling.signal_share == pytest.approx(reached.spread.ratio, rel=0.15)


def test_unperturbed_cells_have_no_signal_to_predict():
    ceiling = noise_ceiling(cells(100, 1), {name: cells(100, 2 + k) for k, name in enumerate("abc")})
    assert ceiling.pearson < 0.5
    assert abs(ceiling.halves.pearson) < 0.2
    assert ceiling.signal_share < 0.5


def test_more_cells_raise_the_ceiling(small):
    control, perturbed, _ = small
    few = noise_ceiling(control[:40], {name: each[:40] for name, each in perturbed.items()})
    assert few.pearson < noise_ceiling(control, perturbed).pearson


def test_an_interval_holds_its_figure_and_narrows_with_cells(small):
    control, perturbed, noiseless = small
    widths = []
    for n in (30, 120):
        some = {name: each[:n] for name, each in perturbed.items()}
        truths = {name: true_change(control, each) for name, each in some.items()}
        found = intervals(compare_changes(truths, noiseless), noiseless, redrawn_truths(control, some, n=40))
        assert found["pearson"].low < found["pearson"].value < found["pearson"].high
        widths.append(found["rmse"].high - found["rmse"].low)
    assert widths[1] < widths[0]


def test_the_better_prediction_is_better_in_nearly_every_draw(small):
    control, perturbed, noiseless = small
    redrawn = redrawn_truths(control, perturbed, n=30)
    wrong = dict(zip(noiseless, [*list(noiseless.values())[1:], noiseless["a"]], strict=True))
    assert share_better("pearson", noiseless, wrong, redrawn) > 0.95
    assert share_better("rmse", noiseless, wrong, redrawn) > 0.95
    assert share_better("rmse", noiseless, noiseless, redrawn) == 0.5


def test_draws_repeat_by_seed_and_centre_on_the_truth(small):
    control, perturbed, _ = small
    one, other = (redrawn_truths(control, {"a": perturbed["a"]}, n=200, seed=3) for _ in range(2))
    assert np.array_equal(one[0]["a"].change.mean, other[0]["a"].change.mean)
    centre = np.mean([draw["a"].change.mean for draw in one], axis=0)
    assert np.abs(centre - true_change(control, perturbed["a"]).change.mean).max() < 0.1


def test_too_few_cells_to_halve_are_an_error(small):
    with pytest.raises(CellDataError, match="fewer than 4 cells of 'a'"):
        noise_ceiling(small[0], {"a": small[1]["a"][:3]})
