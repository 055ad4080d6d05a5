"""Cells that change: after a perturbation, at a later time, at a greater depth; and which perturbation it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import FALLS, RISES, screen

from scmulan.counts import log1p_cp10k
from scmulan.errors import PromptError, ScmulanWarning
from scmulan.tasks_changed import change_table, expected_counts, most_changed


@pytest.fixture
def controls():
    cells = screen(60, 1)
    return cells[cells.obs["perturbation"] == "control"].copy()


def mean_of(adata, genes):
    at = [list(adata.var_names).index(gene) for gene in genes]
    return float(adata.X[:, at].mean())


def test_a_perturbation_changes_the_genes_that_it_changed_in_training(changed, controls):
    lost = changed.perturb(controls, {"CD19": "knockout"}, n=40)
    stimulated = changed.perturb(controls, "interferon-beta", n=40)
    assert mean_of(lost, FALLS) < 0.5 * mean_of(stimulated, FALLS)
    assert mean_of(stimulated, RISES) > 1.5 * mean_of(lost, RISES)
    assert (stimulated.var.loc[list(RISES), "scmulan_low"] > 0).all()
    assert (lost.var.loc[list(FALLS), "scmulan_high"] < 0).all()


def test_predicted_cells_say_of_which_cell_they_are_and_what_was_done(changed, controls):
    cells = changed.perturb(controls, {"cd19": "KO"}, seed=3)
    assert cells.obs["scmulan_from"].tolist() == controls.obs_names.tolist()
    assert set(cells.obs["perturbation"]) == {"CD19 knockout"}
    assert set(cells.obs["organ"]) == {"blood"}
    assert cells.layers["counts"].dtype == np.int32
    assert cells.uns["scmulan"]["task"] == "perturb"
    assert cells.uns["scmulan"]["seed"] == 3
    assert cells.uns["scmulan"]["is_learnt"]
    again = changed.perturb(controls, {"CD19": "knockout"}, seed=3)
    assert (cells.layers["counts"] != again.layers["counts"]).nnz == 0


def test_fewer_or_more_cells_than_were_given_are_drawn_evenly_from_them(changed, controls):
    cells = changed.perturb(controls, "CD19 knockout", n=2 * len(controls))
    assert cells.obs["scmulan_from"].value_counts().tolist() == [2] * len(controls)


def test_a_perturbation_that_was_not_learnt_is_answered_with_a_warning(changed, controls):
    with pytest.warns(ScmulanWarning, match="no training cell had 'GATA1 knockdown': this is a guess by analogy"):
        cells = changed.perturb(controls, {"GATA1": "knockdown"}, n=2)
    assert not cells.uns["scmulan"]["is_learnt"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CD19": "polish"}, "CD19='polish': needed one of knockout, knockdown, overexpression"),
        ({"NOTAGENE": "knockout"}, "gene 'NOTAGENE', which is not known"),
        ("interferon omega", "perturbation 'interferon omega' was not among this model's training cells; nearest: 'interferon beta'"),
    ],
)
def test_a_perturbation_that_means_nothing_is_an_error_that_says_what_would(changed, controls, given, message):
    with pytest.raises(PromptError, match=message.replace("(", r"\(")):
        changed.perturb(controls, given)


def test_a_model_without_perturbed_cells_says_so(model, new_cells):
    with pytest.raises(PromptError, match="has seen no perturbed cell"):
        model.perturb(new_cells, {"CD19": "knockout"})


def test_each_perturbation_is_likelier_of_its_own_cells_than_of_others(changed, controls):
    """Of single cells: a tiny model after a few hundred steps knows little, but more than nothing."""
    cells = screen(60, 2)
    of_cells = {}
    for label in ("IFN-beta", "CD19 knockout"):
        perturbed = cells[cells.obs["perturbation"] == label].copy()
        table = changed.explain_shift(controls, perturbed)
        assert table["probability"].sum() == pytest.approx(1)
        assert table["probability"].is_monotonic_decreasing
        assert table["cells"].sum() == perturbed.n_obs
        assert set(perturbed.obs["scmulan_perturbation"]) <= set(table.index)
        of_cells[label] = table["mean_probability"]
    assert of_cells["IFN-beta"]["interferon beta"] > of_cells["CD19 knockout"]["interferon beta"]
    assert of_cells["CD19 knockout"]["CD19 knockout"] > of_cells["IFN-beta"]["CD19 knockout"]


def test_among_named_perturbations_only_those_are_told_apart(changed, controls):
    table = changed.explain_shift(controls, controls.copy(), perturbations=["CD19 knockout", "IFN-beta"])
    assert set(table.index) == {"CD19 knockout", "interferon beta"}
    with pytest.raises(PromptError, match="'CD19 knockout' alone to choose from; needed two or more"):
        changed.explain_shift(controls, controls.copy(), perturbations=["CD19 knockout"])


def test_a_perturbation_that_no_training_cell_had_is_not_told_from_others(changed, controls):
    with pytest.raises(PromptError, match=r"'GATA1 knockout': no training cell had it, .*; it has learnt"):
        changed.explain_shift(controls, controls.copy(), perturbations=["CD19 knockout", "GATA1 knockout"])


def test_the_later_state_and_the_fates_are_those_of_the_later_time(changed):
    cells = screen(60, 3)
    early = cells[cells.obs["time"] == "D2"].copy()
    later = changed.next_state(early, "D4", n=6)
    assert set(later.obs["time"]) == {"day 4"}
    assert "cell_type" not in later.obs
    table = changed.fate(early, "day 4")
    assert np.allclose(table.sum(1), 1)
    assert list(table.columns) == ["plasma cell"]
    assert set(early.obs["scmulan_fate"]) == {"plasma cell"}
    both = changed.fate(early, "day 4", labels=["B cell", "plasma cell"])
    assert both.mean().idxmax() == "plasma cell"
    with pytest.raises(PromptError, match="time 'day 9' was not among"):
        changed.next_state(early, "day 9")


def test_an_enhanced_cell_keeps_what_was_seen_and_reaches_the_depth(changed, controls):
    shallow = controls.copy()
    shallow.X = sp.csr_matrix(np.random.default_rng(0).binomial(shallow.X.toarray().astype(int), 0.2).astype(float))
    depth = int(controls.X.sum(1).mean())
    deeper = changed.enhance(shallow, depth, draws=3)
    assert deeper.obs_names.tolist() == shallow.obs_names.tolist()
    seen = shallow.X.toarray()
    expected = deeper.layers["expected"].toarray()[:, [list(deeper.var_names).index(name) for name in shallow.var_names]]
    assert (expected >= seen - 1e-4).all()
    assert expected.sum(1) == pytest.approx(np.maximum(depth, seen.sum(1)), rel=1e-3)
    assert np.allclose(deeper.X.toarray(), log1p_cp10k(deeper.layers["expected"]).toarray())


def test_cells_deeper_than_the_depth_asked_for_are_said_and_keep_their_counts(changed, controls):
    with pytest.warns(ScmulanWarning, match="20 of 20 cells have 1 counts or more already"):
        deeper = changed.enhance(controls, 1, draws=1)
    assert np.array_equal(deeper.layers["expected"].sum(1), controls[:, deeper.var_names].X.sum(1))


@pytest.mark.parametrize(("depth", "draws"), [(0, 1), (100, 0)])
def test_enhance_needs_a_depth_and_a_draw(changed, controls, depth, draws):
    with pytest.raises(PromptError, match="needed at least 1 of each"):
        changed.enhance(controls, depth, draws=draws)


def test_the_rest_of_the_depth_is_shared_out_as_the_draws_are():
    seen = sp.csr_matrix([[2, 0, 0]])
    draws = [sp.csr_matrix([[1, 1, 0]]), sp.csr_matrix([[2, 1, 3]])]
    assert expected_counts(seen, draws, 10).toarray().tolist() == [[2 + 8 * 3 / 8, 8 * 2 / 8, 8 * 3 / 8]]
    assert expected_counts(seen, draws, 1).toarray().tolist() == [[2, 0, 0]]


def test_the_table_of_changes_has_intervals_that_hold_the_change_and_finds_the_gene_that_changed():
    rng = np.random.default_rng(0)
    before = rng.poisson(3.0, (200, 6))
    after = rng.poisson(3.0, (200, 6))
    after[:, 2] = rng.poisson(12.0, 200)
    table = change_table(sp.csr_matrix(before), sp.csr_matrix(after))
    assert ((table["low"] <= table["change"]) & (table["change"] <= table["high"])).all()
    assert table["q_value"].idxmin() == 2
    assert table["change"].idxmax() == 2
    same = change_table(sp.csr_matrix(before), sp.csr_matrix(before))
    assert (same["change"] == 0).all()
    assert (same["p_value"] == 1).all()
    assert isinstance(table, pd.DataFrame)


def test_genes_are_told_by_how_sure_their_change_is():
    genes = pd.DataFrame(
        {"scmulan_change": [2.0, -1.0, 0.5, np.nan], "scmulan_low": [-0.1, -1.2, 0.4, np.nan], "scmulan_high": [4.0, -0.8, 0.6, np.nan]},
        index=["noisy", "falls", "rises", "unmeasured"],
    )
    assert most_changed(genes).index.tolist() == ["falls", "rises", "noisy"]


@pytest.mark.parametrize(("n", "is_told"), [(9, False), (18, True)])
def test_few_pairs_have_no_p_value(n, is_told):
    rng, mean = np.random.default_rng(0), np.ones(40)
    before = rng.poisson(mean, (n, 40))
    mean[2] = 10
    table = change_table(sp.csr_matrix(before), sp.csr_matrix(rng.poisson(mean, (n, 40))))
    assert bool((table["p_value"] < 1).any()) is is_told
    assert not is_told or table["p_value"].idxmin() == 2


def test_a_cell_without_counts_is_told(changed, controls):
    counts = controls.X.toarray()
    counts[3] = 0
    controls.X = sp.csr_matrix(counts)
    with pytest.warns(ScmulanWarning, match=f"1 of 20 cells have no count of a gene of this model \\('{controls.obs_names[3]}'\\)"):
        changed.perturb(controls, "CD19 knockout", n=2)
