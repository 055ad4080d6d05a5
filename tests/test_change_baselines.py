"""The rules that predict a change from training changes: each on cells where its answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from test_change import N_GENES, SHIFTS, cells

from scmulan.errors import CellDataError
from scmulan.measures.change import change_between, compare_changes, true_change
from scmulan.measures.change_baselines import (
    OF_SEEN,
    RULES,
    linear,
    mean_shift,
    nearest,
    no_change,
    shrunken_mean,
    target_mean,
    training_changes,
)

CONTROL = cells(300, 1)


@pytest.fixture(scope="module")
def training():
    parts = [cells(100, 10 * k + g, shift) for k, shift in enumerate(SHIFTS.values()) for g in range(2)]
    names = np.repeat([name for name in SHIFTS for _ in range(2)], 100)
    guides = np.repeat([f"{name}{g}" for name in SHIFTS for g in range(2)], 100)
    return training_changes(CONTROL, sp.vstack(parts), names, groups=guides)


@pytest.fixture(scope="module")
def truths():
    control = cells(300, 2)
    return {name: true_change(control, cells(200, 900 + k, shift)) for k, (name, shift) in enumerate(SHIFTS.items())}


def test_groups_are_guides_and_shares_are_by_cells(training):
    assert training.targets == ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert training.of_target("b").tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert not training.of_target("zork").any()


def test_the_target_mean_is_the_change_of_its_own_cells_pooled(training):
    pooled = sp.vstack([cells(100, 0, SHIFTS["a"]), cells(100, 1, SHIFTS["a"])])
    assert np.allclose(target_mean(training, "a").mean, change_between(CONTROL, pooled).mean)


def test_the_mean_shift_counts_each_target_alike(training):
    by_hand = np.mean([target_mean(training, name).mean for name in SHIFTS], axis=0)
    assert np.allclose(mean_shift(training, "a").mean, by_hand)
    assert np.array_equal(mean_shift(training, "a").fold, mean_shift(training, "zork").fold)


@pytest.mark.parametrize("name", RULES)
def test_each_rule_answers_for_seen_and_unseen_targets(training, name):
    for target in ("a", "zork"):
        found = RULES[name](training, target)
        assert found.mean.shape == found.fold.shape == (N_GENES,)
        assert np.isfinite(found.mean).all()


@pytest.mark.parametrize("name", [name for name in RULES if name != "no change"])
def test_a_target_with_nothing_to_go_by_gets_the_mean_shift(training, name):
    assert np.allclose(RULES[name](training, "zork").mean, mean_shift(training, "zork").mean)
    assert set(OF_SEEN) < set(RULES)


def test_rules_that_know_the_target_beat_those_that_do_not(training, truths):
    rmse = {name: compare_changes(truths, {each: rule(training, each) for each in truths}).means.rmse for name, rule in RULES.items()}
    assert max(rmse["target mean"], rmse["shrunken target mean"], rmse["linear"]) < min(rmse["mean shift"], rmse["no change"])


def test_shrinking_lowers_the_error_of_noisy_means(truths):
    parts = [cells(12, 10 * k, shift, depth=300) for k, shift in enumerate(SHIFTS.values())]
    noisy = training_changes(cells(300, 1, depth=300), sp.vstack(parts), np.repeat(list(SHIFTS), 12))
    error = {
        rule: np.mean([np.square(rule(noisy, name).mean - truths[name].change.mean).mean() for name in SHIFTS])
        for rule in (target_mean, shrunken_mean)
    }
    assert error[shrunken_mean] < error[target_mean]


def test_nearest_is_another_target_and_the_most_alike():
    twins = {"a": SHIFTS["a"], "twin of a": SHIFTS["a"], "b": SHIFTS["b"]}
    parts = [cells(150, 70 + k, shift) for k, shift in enumerate(twins.values())]
    training = training_changes(CONTROL, sp.vstack(parts), np.repeat(list(twins), 150))
    assert np.array_equal(nearest(training, "a").mean, target_mean(training, "twin of a").mean)


def modules(n: int, seed: int) -> sp.csr_matrix:
    """Cells of two modules of genes, each of which varies as one."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, 0.8, (n, 2))
    rates = np.repeat(activity, [20, 20], axis=1) * 5
    return sp.csr_matrix(rng.poisson(np.hstack([rates, np.full((n, 40), 5.0)])))


def test_an_unseen_target_goes_by_the_genes_it_is_expressed_with():
    """Perturbing a gene of a module silences the module; a held-out gene of it is predicted by its fellow."""
    genes = [f"g{k}" for k in range(80)]
    changed = {"g0": range(20), "g1": range(20), "g20": range(20, 40), "g21": range(20, 40)}
    parts = []
    for k, columns in enumerate(changed.values()):
        silenced = modules(150, 50 + k).tolil()
        silenced[:, list(columns)] = 0
        parts.append(silenced.tocsr())
    training = training_changes(modules(400, 1), sp.vstack(parts), np.repeat(list(changed), 150), genes=genes)
    for held in changed:
        rest, fellow = training.without(held), next(name for name in changed if name != held and changed[name] == changed[held])
        assert held not in rest.targets
        assert np.array_equal(nearest(rest, held).mean, target_mean(rest, fellow).mean)
        true = target_mean(training, held).mean
        error = {rule: np.square(rule(rest, held).mean - true).mean() for rule in (linear, mean_shift, no_change)}
        assert error[linear] < min(error[mean_shift], error[no_change])


def test_small_groups_are_left_out_and_named():
    found = training_changes(CONTROL, cells(13, 3), ["a"] * 10 + ["b"] * 3)
    assert (found.targets, found.left_out) == (["a"], ["b"])
    assert np.allclose(shrunken_mean(found, "a").mean, target_mean(found, "a").mean)
    with pytest.raises(CellDataError, match="no group has 5 cells"):
        training_changes(CONTROL, cells(3, 3), ["b"] * 3)


def test_unequal_lengths_are_an_error():
    with pytest.raises(CellDataError, match="13 training cells, 2 targets"):
        training_changes(CONTROL, cells(13, 3), ["a", "b"])
    with pytest.raises(CellDataError, match="gene names"):
        training_changes(CONTROL, cells(13, 3), ["a"] * 13, genes=["x"])
