"""Genes edited in cells in silico."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from scipy.sparse import csr_matrix

from scmulan import csentence
from scmulan.errors import PromptError, VocabularyError
from scmulan.tasks_edits import edited, edited_count, sentences


def test_an_edit_that_changes_nothing_shifts_nothing(model, new_cells):
    new_cells.X = csr_matrix(new_cells.X.toarray() * (new_cells.var_names != "GATA1"))
    found = model.edit(new_cells, {"GATA1": "delete"})
    assert not found.cells["changed"].any()
    assert found.without == {"GATA1": 12}
    assert (found.cells[["cosine", "euclidean", "log_likelihood"]] == 0).all(axis=None)
    np.testing.assert_allclose(found.shift, 0, atol=1e-6)
    assert found.summary()["cosine"] is None
    assert found.summary()["cells_changed"] == 0


def test_deleting_a_gene_is_as_if_it_had_not_been_counted(model, new_cells):
    found = model.edit(new_cells, {"MS4A1": "delete"})
    without = new_cells.copy()
    column = without.var_names.get_loc("MS4A1")
    had = np.asarray(without.X[:, column].toarray()).ravel() > 0
    without.X = csr_matrix(without.X.toarray() * (np.arange(without.n_vars) != column))
    ready, before = (model.read(cells, reserve=model.opened.reserve()) for cells in (without, new_cells))
    same_depth = [row for row in range(12) if ready.ids[row][1] == before.ids[row][1]]
    assert same_depth
    assert found.without == {"MS4A1": int((~had).sum())}
    states = model.embed(without)[same_depth]
    np.testing.assert_allclose(found.embeddings[same_depth], states, atol=1e-4)


def test_probabilities_before_are_those_of_annotate_and_each_row_adds_up(model, new_cells):
    found = model.edit(new_cells, {"NKG7": "raise", "ms4a1": "delete"})
    table = model.annotate(new_cells)
    np.testing.assert_allclose(found.before[table.columns], table, atol=1e-4)
    np.testing.assert_allclose(found.after.sum(axis=1), 1, atol=1e-6)
    assert found.genes == {"NKG7": "raise", "MS4A1": "delete"}


def test_a_marker_raised_speaks_for_its_type(model, new_cells):
    b_cells = new_cells[new_cells.obs["cell_type"] == "B cell"].copy()
    found = model.edit(b_cells, {"NKG7": 30, "GNLY": 30, "KLRD1": 30, "PRF1": 30, "CD79A": "delete", "MS4A1": "delete", "CD19": "delete"})
    assert found.shift["natural killer cell"].mean() > 0


def test_the_rest_of_the_cell_is_likelier_without_a_gene_that_does_not_belong(model, new_cells):
    """Nats of the rest leave out what the edited gene itself costs: raising a marker of another type does not pay for itself."""
    found = model.edit(new_cells, {"NKG7": "raise"})
    assert np.isfinite(found.cells["log_likelihood"]).all()
    assert (found.cells["log_likelihood"] != 0).any()


def test_results_stand_in_the_anndata_under_the_documented_keys(model, new_cells):
    model.edit(new_cells, {"ENSG00000102145": "raise"}, key_added="up")
    assert {"scmulan_up_changed", "scmulan_up_cosine", "scmulan_up_euclidean", "scmulan_up_log_likelihood"} <= set(new_cells.obs)
    assert new_cells.obsm["X_up"].shape[0] == 12
    assert new_cells.uns["scmulan"]["task"] == "edit"
    assert new_cells.uns["scmulan"]["genes"] == {"GATA1": "raise"}


@pytest.mark.parametrize(
    ("genes", "error", "said"),
    [
        ({}, PromptError, "no gene given"),
        ({"GATA11": "delete"}, VocabularyError, "gene 'GATA11' is not known; nearest"),
        ({"GATA1": "remove"}, PromptError, "found 'remove'; needed delete, lower, raise or a whole count"),
        ({"GATA1": "delet"}, PromptError, "nearest: 'delete'"),
        ({"GATA1": -1}, PromptError, "a count of -1"),
        ({"GATA1": 1.5}, PromptError, "needed delete, lower, raise or a whole count"),
        ({"GATA1": True}, PromptError, "found True"),
        ({"GATA1": "raise", "Gata1": "delete"}, PromptError, "GATA1 is named twice"),
        ({"KRT5": "delete"}, PromptError, "gene 'KRT5' was not measured in these cells"),
        ({"INS": "raise"}, VocabularyError, "training cells did not hold it"),
    ],
)
def test_edits_that_can_not_be_are_refused(model, new_cells, genes, error, said):
    with pytest.raises(error, match=said):
        model.edit(new_cells, genes)


def test_a_cell_that_loses_its_last_gene_is_an_empty_one_and_still_a_sentence(language):
    cells = sentences(np.array([[0] * 300, [0, 2] + [0] * 298]), np.array([language.vocabulary.first_depth + 3] * 2), language.vocabulary)
    assert [len(csentence.decode(cell, language.vocabulary)[0]) for cell in cells] == [0, 1]
    assert cells[1][1] == language.vocabulary.first_depth + 3


ACTIONS = st.one_of(st.sampled_from(["delete", "lower", "raise"]), st.integers(0, 10**6))


@given(
    seed=st.integers(0, 2**32 - 1),
    edits=st.lists(st.dictionaries(st.integers(0, 299), ACTIONS, max_size=5), min_size=3, max_size=3),
)
def test_every_edited_cell_is_a_sentence_that_differs_in_the_edited_genes_alone(language, seed, edits):
    counts = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 17, 300, 10**7], (3, 300))
    after = edited(counts, edits)
    for row, cell in enumerate(sentences(after, np.full(3, language.vocabulary.first_depth + 9), language.vocabulary)):
        genes, _ = csentence.decode(cell, language.vocabulary)
        assert set(genes.tolist()) == set(np.flatnonzero(after[row]).tolist())
        assert set(np.flatnonzero(after[row] != counts[row]).tolist()) <= set(edits[row])


@given(hn.arrays(np.int64, 20, elements=st.integers(0, 10**6)))
def test_lowered_is_never_more_and_raised_never_fewer(counts):
    lowered, raised = edited_count(counts, "lower"), edited_count(counts, "raise")
    assert (lowered <= counts).all()
    assert ((lowered > 0) == (counts > 0)).all()
    assert (raised > counts).all()
