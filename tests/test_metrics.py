"""The measures: each is checked against a value worked out by hand or by another library, and on cells where it must fail."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from scmulan.errors import CellDataError
from scmulan.measures import baselines, metrics, two_sample


def cells(n: int, seed: int, *, shift: float = 1.0, n_genes: int = 60, depth: float = 300) -> sp.csr_matrix:
    """Poisson cells of one profile; ``shift`` multiplies the first five genes."""
    profile = np.random.default_rng(9).gamma(0.5, 1, n_genes) + 0.01
    profile[:5] *= shift
    rng = np.random.default_rng(seed)
    totals = rng.lognormal(np.log(depth), 0.3, n)
    return sp.csr_matrix(rng.poisson(totals[:, None] * profile / profile.sum()))


GENES = np.arange(60)


@pytest.fixture
def few_trees(monkeypatch):
    """The two-sample forest at a tenth of its size, for speed."""
    monkeypatch.setattr(two_sample, "N_TREES", 30)


@pytest.mark.parametrize("module", ["annotation", "mistakes", "two_sample", "agreement", "counts", "baselines"])
def test_examples_in_docstrings_run(module):
    assert doctest.testmod(importlib.import_module(f"scmulan.measures.{module}")).failed == 0


def test_mistakes_are_measured_in_steps_and_those_without_an_id_are_counted():
    true = ["CD4-positive, alpha-beta T cell", "B cell", "A549 cell", "B cell", "T cell", "A549 cell"]
    said = ["CD8-positive, alpha-beta T cell", "T cell", "B cell", "B cell", None, "H1975 cell"]
    found = metrics.mistakes(true, said)
    assert (found.n, found.n_wrong, found.n_without_id) == (6, 4, 2)
    assert found.mean_distance == (2 + 3) / 2
    assert found.lineage_accuracy == 3 / 6  # two T cells, two B cells, two malignant ones; no answer is wrong


def test_labels_outside_any_ontology_have_no_distance_and_stand_for_themselves():
    found = metrics.mistakes(["zork", "zork"], ["zork", "blarg"])
    assert (found.n_wrong, found.n_without_id, found.mean_distance, found.lineage_accuracy) == (1, 1, None, 0.5)


def test_mistakes_of_unequal_or_no_cells_are_an_error():
    for true, said in ((["B cell"], []), ([], [])):
        with pytest.raises(CellDataError, match="needed one of each a cell"):
            metrics.mistakes(true, said)


def test_every_public_name_exists_and_is_listed_once():
    assert metrics.__all__ == sorted(set(metrics.__all__))
    assert all(hasattr(metrics, name) for name in metrics.__all__)


@pytest.mark.usefixtures("few_trees")
def test_every_result_is_json_without_nan():
    real, made = cells(30, 1), cells(30, 2)
    types = ["B"] * 15 + ["NK"] * 15
    results = [
        metrics.annotation(["B", "NK"], ["B", None], probability=[0.9, 0.1]),
        metrics.mistakes(["B cell"], ["B cell"]),
        metrics.recognised_share(["B"], ["NK"]),
        metrics.two_sample_auc(real, made, GENES, gene_names=[f"G{g}" for g in GENES], n_telltale=2),
        metrics.mmd(real, made, GENES, n_permutations=10),
        metrics.gene_agreement(real, made),
        metrics.log_fold_change_agreement(real, types, made, types),
        metrics.log_fold_change_agreement(real, types, made, types, min_cells=99),
        metrics.depth_agreement(real, made),
        metrics.memorisation(real, made, cells(30, 3), GENES),
    ]
    for result in results:
        json.dumps(dataclasses.asdict(result), allow_nan=False)


# annotation


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_accuracy_and_f1_are_those_of_scikit_learn_when_every_cell_has_an_answer(pairs):
    true, said = ([*column] for column in zip(*pairs, strict=True))
    found = metrics.annotation(true, said)
    assert found.accuracy == pytest.approx(accuracy_score(true, said))
    assert found.macro_f1 == pytest.approx(f1_score(true, said, average="macro", zero_division=0))
    assert np.sum(found.confusion) == len(true)


def test_abstention_is_wrong_in_accuracy_and_recall_but_not_in_precision():
    found = metrics.annotation(["B", "B", "NK", "NK"], ["B", None, "NK", float("nan")])
    assert (found.accuracy, found.accuracy_answered, found.coverage) == (0.5, 1.0, 0.5)
    assert [(c.precision, c.recall) for c in found.classes] == [(1.0, 0.5), (1.0, 0.5)]
    assert (found.confusion, found.abstained, found.labels) == ([[1, 0], [0, 1]], [1, 1], ["B", "NK"])


def test_a_label_said_but_never_true_lowers_macro_f1_and_not_balanced_accuracy():
    found = metrics.annotation(["B", "B", "B"], ["B", "B", "T"])
    assert found.macro_f1 == pytest.approx(0.8 / 2)
    assert found.balanced_accuracy == pytest.approx(2 / 3)


def test_all_abstained_is_a_result_and_not_a_crash():
    found = metrics.annotation(["B"], [None], probability=[0.2])
    assert found.accuracy == 0
    assert found.accuracy_answered is None
    assert found.calibration is not None
    assert found.calibration.n == 0


def test_calibration_error_is_the_mean_gap_of_the_bins():
    said, true = ["a"] * 10, ["a"] * 6 + ["b"] * 4
    found = metrics.calibration(true, said, probability=[0.95] * 5 + [0.55] * 5)
    assert found.error == pytest.approx(0.5 * (1 - 0.95) + 0.5 * abs(0.2 - 0.55))
    assert [each.n for each in found.bins if each.n] == [5, 5]


def test_a_probability_on_an_edge_belongs_to_the_bin_below():
    found = metrics.calibration(["a"] * 3, ["a"] * 3, probability=[0.3, 0.7, 1.0])
    assert [b for b, each in enumerate(found.bins) if each.n] == [2, 6, 9]


def test_log_loss_is_scikit_learns_and_brier_runs_from_zero_to_two():
    full = np.array([[0.7, 0.3], [0.4, 0.6]])
    found = metrics.calibration(["a", "a"], ["a", "b"], classes=["a", "b"], class_probabilities=full)
    assert found.log_loss == pytest.approx(log_loss(["a", "a"], full, labels=["a", "b"]))
    assert found.brier == pytest.approx((0.3**2 * 2 + 0.6**2 * 2) / 2)
    worst = metrics.calibration(["a"], ["b"], classes=["a", "b"], class_probabilities=[[0, 1]])
    assert worst.brier == pytest.approx(2)
    assert worst.log_loss == pytest.approx(-np.log(1e-12))


def test_a_true_label_outside_the_classes_is_counted():
    found = metrics.calibration(["z", "a"], ["a", "a"], classes=["a"], class_probabilities=[[1.0], [1.0]])
    assert found.n_outside == 1


def test_probability_of_the_said_label_is_taken_from_all_probabilities():
    full = [[0.8, 0.2], [0.8, 0.2]]
    found = metrics.calibration(["a", "b"], ["a", "b"], classes=["a", "b"], class_probabilities=full)
    assert [each.probability for each in found.bins if each.n] == [pytest.approx(0.2), pytest.approx(0.8)]


@pytest.mark.parametrize(
    ("true", "said", "given", "message"),
    [
        (["a"], [], {}, "1 true ones but 0"),
        ([], [], {}, "needed one for each"),
        ([None, "a"], ["a", "a"], {}, "1 of 2 missing"),
        (["a"], ["a"], {"probability": [1.5]}, "from 0 to 1"),
        (["a"], ["a"], {"probability": [float("nan")]}, "from 0 to 1"),
        (["a"], ["a"], {"classes": ["a", "b"], "class_probabilities": [[0.5, 0.4]]}, "sums to 0.9"),
        (["a"], ["a"], {"classes": ["a"], "class_probabilities": [[0.5, 0.5]]}, "1 classes"),
    ],
)
def test_what_cannot_be_measured_says_why(true, said, given, message):
    with pytest.raises(CellDataError, match=message):
        metrics.annotation(true, said, **given)


def test_recognised_share_counts_an_abstention_as_not_recognised():
    found = metrics.recognised_share(["B", "B", "NK"], ["B", None, "B"])
    assert found.by_type == {"B": 0.5, "NK": 0.0}
    assert found.share == pytest.approx(1 / 3)


# scales


def test_log_cp10k_undoes_depth_and_leaves_an_empty_cell_zero():
    log = metrics.log_cp10k([[1, 3], [2, 6], [0, 0]]).toarray()
    assert np.allclose(log[0], np.log1p([2500, 7500]))
    assert np.allclose(log[0], log[1])
    assert not log[2].any()


def test_variable_genes_are_those_of_largest_variance_most_variable_first():
    log = np.array([[0, 5, 1.0], [0, 0, 2.0]])
    assert metrics.highly_variable(sp.csr_matrix(log), 2).tolist() == [1, 2]


def test_gene_statistics_are_numpys_on_the_log_scale():
    counts = cells(20, 1)
    log, found = metrics.log_cp10k(counts).toarray().astype(float), metrics.gene_statistics(counts)
    assert np.allclose(found.mean, log.mean(0))
    assert np.allclose(found.variance, log.var(0), atol=1e-6)
    assert np.allclose(found.zero_fraction, (log == 0).mean(0))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0.5]], "no whole counts"),
        ([[-1]], "value of -1"),
        ([[np.nan]], "no whole counts"),
        (np.zeros((0, 3), int), "0 cells × 3 genes"),
    ],
)
def test_what_is_not_counts_is_refused(bad, message):
    with pytest.raises(CellDataError, match=message):
        metrics.gene_statistics(bad)


# two samples


def test_the_two_sample_forest_has_the_trees_of_the_protocol():
    assert two_sample._forest(0, 1).n_estimators == 300


@pytest.mark.usefixtures("few_trees")
def test_two_sample_auc_follows_the_published_protocol():
    """The same forest, folds and components written out as in the reference script give the same figures."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    real, made = cells(40, 1), cells(40, 2, shift=1.6)
    both = np.vstack([metrics.log_cp10k(real).toarray(), metrics.log_cp10k(made).toarray()])
    y = np.r_[np.zeros(40), np.ones(40)]
    expected = []
    for values in (PCA(50, random_state=0).fit_transform(both), both):
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        forest = RandomForestClassifier(30, n_jobs=2, random_state=0)
        expected.append(roc_auc_score(y, cross_val_predict(forest, values, y, cv=folds, method="predict_proba")[:, 1]))
    found = metrics.two_sample_auc(real, made, GENES)
    assert [found.auc_pcs, found.auc_hvgs] == pytest.approx(expected)
    assert found.auc_hvgs > 0.6


@pytest.mark.usefixtures("few_trees")
def test_two_sample_auc_names_the_genes_that_give_cells_away_and_takes_equal_numbers():
    found = metrics.two_sample_auc(cells(40, 1), cells(70, 2, shift=3), GENES[::-1], gene_names=[f"G{g}" for g in range(60)], n_telltale=3)
    assert found.n == 40
    assert found.auc_hvgs > 0.9
    assert {each.gene for each in found.telltale} <= {f"G{g}" for g in range(5)}
    assert all(each.generated_mean > each.real_mean for each in found.telltale)


@pytest.mark.usefixtures("few_trees")
def test_two_sample_auc_of_cells_of_one_distribution_is_about_a_half():
    found = metrics.two_sample_auc(cells(150, 1), cells(150, 2), GENES)
    assert abs(found.auc_hvgs - 0.5) < 3 * found.auc_hvgs_error < 0.15


def test_auc_error_is_that_of_hanley_and_mcneil():
    assert two_sample._auc_error(0.5, 100) == pytest.approx(np.sqrt((0.25 + 99 * (1 / 3 - 0.25) * 2) / 1e4))
    assert two_sample._auc_error(1.0, 100) == 0


@pytest.mark.parametrize(
    ("made", "genes", "message"),
    [
        (cells(9, 1, n_genes=59), GENES, "60 genes, generated cells 59"),
        (cells(3, 1), GENES, "needed 5 of each"),
        (cells(9, 1), [60], "column numbers"),
        (cells(9, 1), [], "column numbers"),
    ],
)
def test_two_sample_auc_refuses_what_cannot_be_compared(made, genes, message):
    with pytest.raises(CellDataError, match=message):
        metrics.two_sample_auc(cells(9, 2), made, genes)


def test_mmd_is_the_unbiased_estimate_of_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))

    def k(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 2)

    xx, yy = k(x, x), k(y, y)
    expected = (xx.sum() - 4) / 12 + (yy.sum() - 3) / 6 - 2 * k(x, y).mean()
    kernel = k(np.vstack([x, y]), np.vstack([x, y]))
    np.fill_diagonal(kernel, 0)
    found = two_sample._unbiased_mmd(kernel, np.r_[np.ones(4), np.zeros(3)][:, None], 4, 3)
    assert found[0] == pytest.approx(expected)


def test_mmd_sees_a_shift_and_not_a_second_draw():
    same = metrics.mmd(cells(80, 1), cells(90, 2), GENES, n_permutations=200)
    other = metrics.mmd(cells(80, 1), cells(90, 2, shift=2), GENES, n_permutations=200)
    assert same.p_value > 0.05
    assert same.squared < same.null_95
    assert other.p_value == pytest.approx(1 / 201)
    assert other.squared > other.null_95


def test_mmd_uses_no_more_cells_than_allowed_and_repeats_with_its_seed():
    first, again = (metrics.mmd(cells(50, 1), cells(60, 2), GENES, most=20, n_permutations=20, seed=4) for _ in range(2))
    assert first == again
    assert (first.n_real, first.n_generated) == (20, 20)


def test_a_copy_of_training_cells_is_found_out_and_a_fresh_draw_is_not():
    train, fresh = cells(200, 1), cells(200, 2)
    copied, drawn = (metrics.memorisation(train, made, fresh, GENES) for made in (train[:50], cells(200, 3)))
    assert copied.n_copies == 50
    assert copied.ratio < 0.01
    assert copied.share_nearest == 1
    assert drawn.n_copies == 0
    assert drawn.ratio == pytest.approx(1, abs=0.1)
    assert drawn.share_nearest < 0.05


def test_a_copy_is_found_whatever_the_order_of_its_stored_values():
    train = cells(20, 1)
    made = train[:1].copy()
    made.indices, made.data = made.indices[::-1].copy(), made.data[::-1].copy()
    made.has_sorted_indices = False
    assert metrics.memorisation(train, made, cells(20, 2), GENES).n_copies == 1


# agreement


def test_equal_cells_agree_fully_in_every_statistic():
    found = metrics.gene_agreement(cells(40, 1), cells(40, 1))
    for each in (found.mean, found.variance, found.zero_fraction):
        assert each.pearson == pytest.approx(1)
        assert each.spearman == pytest.approx(1)
        assert each.rmse == 0


def test_genes_that_neither_side_has_do_not_count_as_agreement():
    pad = sp.csr_matrix((40, 100), dtype=np.int32)
    real, made = cells(40, 1), cells(40, 2)
    assert metrics.gene_agreement(sp.hstack([real, pad]), sp.hstack([made, pad])) == metrics.gene_agreement(real, made)


def test_shuffled_genes_do_not_agree():
    made = cells(40, 2)[:, np.random.default_rng(0).permutation(60)]
    assert metrics.gene_agreement(cells(40, 1), made).mean.pearson < 0.6


def test_slope_is_one_for_the_same_cells_and_below_for_types_too_alike():
    real, types = sp.vstack([cells(60, 1, shift=6), cells(60, 2)]), ["A"] * 60 + ["B"] * 60
    alike = sp.vstack([cells(60, 3, shift=2), cells(60, 4)])
    same = metrics.log_fold_change_agreement(real, types, real, types, top=5)
    weak = metrics.log_fold_change_agreement(real, types, alike, types, top=60)
    assert same.slope == pytest.approx(1)
    assert same.pearson == pytest.approx(1)
    assert same.n_pairs == 1
    assert 0.2 < weak.slope < 0.7


def test_types_of_few_cells_are_left_out_and_none_left_is_none():
    real, types = cells(40, 1), ["A"] * 20 + ["B"] * 15 + ["C"] * 5
    assert metrics.log_fold_change_agreement(real, types, real, types).n_pairs == 1
    assert metrics.log_fold_change_agreement(real, types, real, ["A"] * 40).slope is None


def test_labels_must_be_one_a_cell():
    with pytest.raises(CellDataError, match="2 labels for 40 cells"):
        metrics.log_fold_change_agreement(cells(40, 1), ["A"] * 40, cells(40, 2), ["A", "B"])


def test_depth_distance_is_zero_for_the_same_cells_and_one_for_depths_apart():
    same = metrics.depth_agreement(cells(40, 1), cells(40, 1))
    deep = metrics.depth_agreement(cells(40, 1, depth=100), cells(40, 1, depth=3000))
    assert (same.total_distance, same.genes_distance) == (0, 0)
    assert deep.total_distance == 1
    assert same.real_total == np.median(np.asarray(cells(40, 1).sum(1)))


def test_thinned_cells_show_in_the_depth():
    real = cells(60, 1)
    found = metrics.depth_agreement(real, baselines.thin(real, 20, seed=0))
    assert found.generated_genes <= 20 < found.real_genes
    assert found.genes_distance > 0.9
