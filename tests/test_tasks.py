"""Tasks on AnnData: what is written where, in what spelling, and that only the cell and the question decide the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import KINDS, MARKERS, kind_cells

from scmulan import __version__, tasks_answers
from scmulan.cells import read_h5ad
from scmulan.cells_writing import write_h5ad
from scmulan.counts import log1p_cp10k
from scmulan.csentence import LEVEL_FLOORS, depth_of, level_of
from scmulan.errors import CellDataError, CheckpointError, PromptError, VocabularyError
from scmulan.labels import as_answer
from scmulan.levels import UNASSIGNED
from scmulan.tasks import load

HUMAN = [kind for kind in KINDS if KINDS[kind][0] == "Homo sapiens"]


@pytest.fixture(scope="module")
def drawn(model):
    return model.generate(n=24, seed=3)


def counts_in(adata, gene: str) -> np.ndarray:
    """Counts of a gene, 0 where the panel lacks it."""
    column = np.flatnonzero(adata.var["gene_symbol"] == gene)
    return adata.layers["counts"][:, column].toarray().sum(1)


# -- generate ---------------------------------------------------------------------------------------------------------------------


def test_generated_cells_have_counts_log_values_and_names(drawn):
    assert drawn.shape[0] == 24
    assert drawn.layers["counts"].dtype == np.int32
    assert (drawn.layers["counts"].data > 0).all()
    assert np.allclose(drawn.X.toarray(), log1p_cp10k(drawn.layers["counts"]).toarray())
    assert {"gene_symbol", "gene_id"} <= set(drawn.var)
    assert drawn.obs_names.is_unique
    assert drawn.var_names.is_unique


def test_fields_left_open_are_filled_from_what_was_seen_in_its_proportions(drawn, model):
    seen = {tuple(sorted(combination.items())) for combination in model.seen.combinations}
    rows = [tuple(sorted((name, str(value)) for name, value in row.items())) for row in drawn.obs.to_dict("records")]
    assert set(rows) <= seen
    assert drawn.obs["cell_type"].value_counts().to_dict() == dict.fromkeys(KINDS, 6)


def test_what_is_given_is_held_to_in_any_spelling(model):
    cells = model.generate(n=3, organ="BLOOD", cell_type="CD19+ B")
    assert set(cells.obs["cell_type"]) == {"B cell"}
    assert set(cells.obs["organ"]) == {"blood"}
    assert set(cells.obs["organism"]) == {"Homo sapiens"}


def test_generated_cells_express_the_markers_of_their_kind(model):
    """Forty steps of training are enough for that: the prompt reaches the cell."""
    for kind in ("classical monocyte", "keratinocyte"):
        own = model.generate(n=12, cell_type=kind, seed=1)
        other = model.generate(n=12, cell_type="B cell", seed=1)
        markers = list(MARKERS[kind])
        symbols = [model.table.spell(model.table.resolve([gene]).index, KINDS[kind][0])[0] for gene in markers]
        assert sum(counts_in(own, name).sum() for name in symbols) > 2 * sum(counts_in(other, name).sum() for name in markers)


def test_a_seed_decides_the_cells(model, drawn):
    again = model.generate(n=24, seed=3)
    assert (again.layers["counts"] != drawn.layers["counts"]).nnz == 0
    other = model.generate(n=24, seed=4)
    assert (other.layers["counts"] != drawn.layers["counts"]).nnz > 0


def test_a_cell_is_the_same_whatever_else_is_asked_for(model):
    few, many = (model.generate(n=n, seed=2, cell_type="B cell") for n in (2, 9))
    assert (few.layers["counts"] != many.layers["counts"][:2]).nnz == 0


def test_mouse_cells_have_mouse_genes_by_mouse_names(model):
    cells = model.generate(n=2, organism="mouse")
    assert set(cells.obs["cell_type"]) == {"keratinocyte"}
    assert "Krt5" in cells.var_names
    assert "KRT5" not in cells.var_names
    assert cells.var["gene_id"].str.startswith("ENSMUSG").all()


def test_genes_are_named_by_ensembl_ids_when_asked(model):
    cells = model.generate(n=1, organism="human", naming="ensembl")
    assert cells.var_names.str.startswith("ENSG").mean() > 0.95


def test_a_depth_asked_for_is_the_depth_of_the_sentence(model, monkeypatch):
    asked, generate = [], model.engine.generate

    def noted(requests, *rest, **more):
        asked.extend(requests)
        return generate(requests, *rest, **more)

    monkeypatch.setattr(model.engine, "generate", noted)
    for depth in (60, 4000):
        model.generate(n=3, cell_type="B cell", depth=depth)
    v = model.vocabulary
    assert [request.depth for request in asked] == [v.first_depth + int(depth_of(depth)) for depth in (60, 4000) for _ in range(3)]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cell_type": "keratinocite"}, "cell_type 'keratinocite' was not among.*nearest: 'keratinocyte'"),
        ({"organ": "skin", "cell_type": "B cell"}, "no training cell had organ 'skin' and cell_type 'B cell' together; with .* can be"),
        ({"tissue": "blood"}, "'tissue' is not a field; fields: organism, assay, organ"),
        ({"disease": "normal"}, "has seen no disease at all"),
        ({"n": 0}, "n is 0: needed at least 1"),
        ({"temperature": -1}, "temperature -1: needed 0 or more"),
        ({"depth": 0}, "depth 0: needed at least 1"),
    ],
)
def test_what_can_not_be_generated_is_an_error_that_says_what_can(model, fields, says):
    with pytest.raises(PromptError, match=says):
        model.generate(**fields)


def test_generated_cells_read_back_as_what_they_are(model, drawn, tmp_path):
    write_h5ad(drawn, tmp_path / "made.h5ad")
    ready = model.read(tmp_path / "made.h5ad")
    assert ready.outside == 0
    assert ready.cells.fields["cell_type"] == drawn.obs["cell_type"].astype(str).tolist()
    assert read_h5ad(tmp_path / "made.h5ad").uns["scmulan"]["seed"] == 3


# -- complete ---------------------------------------------------------------------------------------------------------------------


def test_completed_cells_hold_their_genes_at_their_levels(model):
    cells = model.complete({"gata1": 8, "ENSG00000066336": 30, "CD34": 2} if "CD34" in model.vocabulary.column_of else
                           {"gata1": 8, "ENSG00000066336": 30}, n=6, organism="human")  # fmt: skip
    assert counts_in(cells, "GATA1").tolist() == [8] * 6
    low, high = LEVEL_FLOORS[level_of([30])[0]], LEVEL_FLOORS[level_of([30])[0] + 1]
    assert ((counts_in(cells, "SPI1") >= low) & (counts_in(cells, "SPI1") < high)).all()
    assert cells.uns["scmulan"]["genes"]["GATA1"] == 8
    assert cells.uns["scmulan"]["task"] == "complete"


@pytest.mark.parametrize(
    ("genes", "error", "says"),
    [
        ({"GATA11": 3}, VocabularyError, "gene 'GATA11' is not known; nearest: '.*GATA1'"),
        ({"INS": 3}, VocabularyError, "gene 'INS' is known, but this model's training cells did not hold it"),
        ({"GATA1": 0}, PromptError, "gene GATA1=0: needed a whole count of 1 or more"),
        ({"GATA1": 1.5}, PromptError, "gene GATA1=1.5: needed a whole count"),
        ({"GATA1": 3, "Gata1": 5}, PromptError, "'GATA1' and 'Gata1' are one gene"),
        ({}, PromptError, "no gene given"),
    ],
)
def test_a_gene_that_can_not_be_prompted_with_is_an_error_that_says_why(model, genes, error, says):
    with pytest.raises(error, match=says):
        model.complete(genes)


def test_a_gene_of_another_species_that_was_asked_for_is_not_lost(model):
    """Ly6c2 has no human orthologue; asked of human cells, it stands in them all the same."""
    assert not model.written.panel("Homo sapiens")[model.vocabulary.column_of["Ly6c2"]]
    cells = model.complete({"Ly6c2": 5}, n=2, organism="human")
    assert counts_in(cells, "Ly6c2").tolist() == [5, 5]


def test_a_gene_that_the_training_cells_of_a_species_had_may_be_written_there(model, monkeypatch):
    column = model.vocabulary.column_of["Ly6c2"]
    card = model.opened.checkpoint.card
    monkeypatch.setitem(card, "sources", [*card["sources"], {"genes_beyond_species": {"Homo sapiens": ["Ly6c2"]}}])
    assert model.written.panel("Homo sapiens")[column]
    assert model.opened.genes_beyond("Mus musculus") == []


# -- annotate ---------------------------------------------------------------------------------------------------------------------


def test_weighing_in_the_likelihood_leaves_what_is_sure_and_adds_up_to_one(model, new_cells, monkeypatch):
    monkeypatch.setattr(tasks_answers, "SURE", 0.3)
    ready = model.read(new_cells, reserve=64)
    answer, both = (model.annotate_ready(ready, given=(), by=by).to_numpy() for by in tasks_answers.BY)
    np.testing.assert_allclose(both.sum(1), 1, atol=1e-6)
    sure = (answer.max(1) >= 0.3) | ((answer >= tasks_answers.POSSIBLE).sum(1) < 2)
    np.testing.assert_array_equal(both[sure], answer[sure])
    monkeypatch.setattr(tasks_answers, "SURE", 1.1)
    weighed = model.annotate_ready(ready, given=(), by="both")
    labels, row = list(weighed.columns), 0
    nats = [sum(model.nats(ready, [dict(as_answer(label)) for _ in range(len(ready.ids))])[row][2:]) for label in labels]
    possible = answer[row] >= tasks_answers.POSSIBLE
    expected = np.exp((np.log(answer[row]) - np.array(nats) + min(nats)) / 2) * possible
    expected *= answer[row][possible].sum() / expected.sum()
    np.testing.assert_allclose(weighed.to_numpy()[row][possible], expected[possible], rtol=0.05)


def test_at_a_coarser_level_the_exact_probabilities_are_summed_up(model, new_cells):
    fine = model.annotate(new_cells)
    coarse = model.annotate(new_cells, level=["lymphocyte"])
    np.testing.assert_allclose(coarse["lymphocyte"], fine["B cell"] + fine["natural killer cell"], atol=1e-6)
    np.testing.assert_allclose(coarse.sum(axis=1), 1, atol=1e-6)
    assert set(new_cells.obs["scmulan_cell_type"]) <= {"lymphocyte", "other"}
    assert set(new_cells.obs["scmulan_cell_type_ontology_id"]) <= {"CL:0000542", ""}
    assert new_cells.uns["scmulan"]["level"] == ["lymphocyte"]


def test_an_unknown_level_is_an_error_before_any_work(model, new_cells):
    with pytest.raises(PromptError, match="level 'lineages of Mars'"):
        model.annotate(new_cells, level="lineages of Mars", on_cell=pytest.fail)


def test_another_way_to_annotate_is_an_error(model, new_cells):
    with pytest.raises(PromptError, match="by 'likelihood': needed one of answer, both"):
        model.annotate(new_cells, by="likelihood")


def test_annotation_writes_the_documented_keys(model, new_cells):
    table = model.annotate(new_cells)
    assert {
        "scmulan_cell_type", "scmulan_cell_type_probability", "scmulan_cell_type_ontology_id", "scmulan_cell_type_lineage"
    } <= set(new_cells.obs)  # fmt: skip
    assert list(table.index) == list(new_cells.obs_names)
    assert table.idxmax(axis=1).tolist() == new_cells.obs["scmulan_cell_type"].astype(str).tolist()
    np.testing.assert_allclose(table.max(axis=1), new_cells.obs["scmulan_cell_type_probability"])
    by_label = dict(zip(new_cells.obs["scmulan_cell_type"], new_cells.obs["scmulan_cell_type_ontology_id"], strict=True))
    assert by_label["classical monocyte"] == "CL:0000860"


def test_probabilities_are_of_the_labels_seen_for_the_cells_species_and_organ_and_sum_to_one(model, new_cells):
    table = model.annotate(new_cells)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert set(table.columns) == set(HUMAN)
    in_blood = (new_cells.obs["tissue"] == "blood").to_numpy()
    assert (table.loc[in_blood, "classical monocyte"] == 0).all()
    assert (table.loc[~in_blood, "classical monocyte"] == 1).all()


def test_without_given_fields_every_label_seen_is_possible(model, new_cells):
    table = model.annotate(new_cells, given=())
    assert set(table.columns) == set(KINDS)
    assert (table.to_numpy() > 0).all()
    np.testing.assert_allclose(table.sum(axis=1), 1)


def test_the_tiny_model_tells_kinds_apart_that_differ_in_their_markers(model, new_cells):
    table = model.annotate(new_cells, given=())
    is_monocyte = (new_cells.obs["cell_type"] == "classical monocyte").to_numpy()
    assert table.loc[is_monocyte, "classical monocyte"].mean() > 1.5 * table.loc[~is_monocyte, "classical monocyte"].mean()


def test_below_the_threshold_cells_stay_unassigned(model, new_cells):
    table = model.annotate(new_cells, given=(), threshold=1.1)
    assert set(new_cells.obs["scmulan_cell_type"]) == {UNASSIGNED}
    assert set(new_cells.obs["scmulan_cell_type_ontology_id"]) == {""}
    cut = float(table.max(axis=1).median())
    model.annotate(new_cells, given=(), threshold=cut)
    is_left = (new_cells.obs["scmulan_cell_type"] == UNASSIGNED).to_numpy()
    assert is_left.tolist() == (table.max(axis=1) < cut).tolist()


def test_a_cluster_gets_the_label_of_the_largest_summed_probability(model, new_cells):
    new_cells.obs["leiden"] = pd.Categorical([str(number % 2) for number in range(12)])
    table = model.annotate(new_cells, given=(), cluster="leiden")
    for name, rows in new_cells.obs.groupby("leiden", observed=True).groups.items():
        assert set(new_cells.obs.loc[rows, "scmulan_cell_type_cluster"]) == {table.loc[rows].sum().idxmax()}, name


def test_a_cluster_column_that_is_not_there_is_an_error_that_names_those_that_are(model, new_cells):
    with pytest.raises(PromptError, match="cluster 'louvain' is not a column of obs; columns: 'cell_type', 'tissue'"):
        model.annotate(new_cells, cluster="louvain")


def test_the_users_labels_are_scored_as_text_even_when_never_seen(model, new_cells):
    table = model.annotate(new_cells, labels=["NK cells", "Purkinje neuron of Mars"])
    assert list(table.columns) == ["Purkinje neuron of Mars", "natural killer cell"]
    assert (table.to_numpy() > 0).all()
    np.testing.assert_allclose(table.sum(axis=1), 1)


def test_the_order_of_the_users_labels_changes_nothing(model, new_cells):
    labels = ["B cell", "natural killer cell", "keratinocyte"]
    first, turned = model.annotate(new_cells, labels=labels), model.annotate(new_cells, labels=labels[::-1])
    np.testing.assert_allclose(first, turned[first.columns], atol=1e-6)


def test_a_label_given_twice_is_refused(model, new_cells):
    with pytest.raises(PromptError, match="give each label once"):
        model.annotate(new_cells, labels=["B cell", "b cells"])


# -- invariance -------------------------------------------------------------------------------------------------------------------


def test_sentences_labels_and_embeddings_do_not_depend_on_order_or_batch(model, new_cells):
    rng = np.random.default_rng(0)
    rows, genes = rng.permutation(new_cells.n_obs), rng.permutation(new_cells.n_vars)
    table, states, ids = model.annotate(new_cells), model.embed(new_cells), model.read(new_cells).ids
    shuffled = new_cells[rows][:, genes].copy()
    assert [model.read(shuffled).ids[at].tolist() for at in range(12)] == [ids[row].tolist() for row in rows]
    np.testing.assert_allclose(model.annotate(shuffled), table.iloc[rows], atol=1e-5)
    np.testing.assert_allclose(model.embed(shuffled), states[rows], atol=1e-4)
    for row in (0, 7):
        alone = new_cells[[row]].copy()
        np.testing.assert_allclose(model.annotate(alone).loc[:, table.columns[table.iloc[row] > 0]].iloc[0],
                                   table.iloc[row][table.iloc[row] > 0], atol=1e-5)  # fmt: skip
        np.testing.assert_allclose(model.embed(alone)[0], states[row], atol=1e-4)


@pytest.mark.parametrize("style", ["ensembl", "lower case"])
def test_genes_in_another_naming_give_the_same_sentences(model, style):
    kinds = ("B cell", "natural killer cell")
    straight = kind_cells(kinds, 6, seed=9)
    other = kind_cells(kinds, 6, seed=9, gene_style="ensembl") if style == "ensembl" else straight.copy()
    if style != "ensembl":
        other.var_names = other.var_names.str.lower()
    assert set(other.var_names) != set(straight.var_names)
    first, second = model.read(straight).ids, model.read(other).ids
    assert first.values.tolist() == second.values.tolist()


# -- locate, describe, embed --------------------------------------------------------------------------------------------------------


def test_locate_writes_organ_and_probability(model, new_cells):
    table = model.locate(new_cells)
    assert {"scmulan_organ", "scmulan_organ_probability", "scmulan_region"} <= set(new_cells.obs)
    assert set(table.columns) == {"blood", "bone marrow", "skin"}
    np.testing.assert_allclose(table.sum(axis=1), 1)


def test_describe_writes_every_field_that_was_seen(model, new_cells):
    tables = model.describe(new_cells)
    assert set(tables) == {"organism", "organ", "lineage", "cell_type"}
    for name, table in tables.items():
        np.testing.assert_allclose(table.sum(axis=1), 1)
        assert table.idxmax(axis=1).tolist() == new_cells.obs[f"scmulan_{name}"].astype(str).tolist()
        np.testing.assert_allclose(table.max(axis=1), new_cells.obs[f"scmulan_{name}_probability"])


def test_what_describe_says_of_one_field_agrees_with_what_it_says_of_another(model, new_cells):
    """Fields come from one joint distribution over combinations that exist: skin and mouse have the same probability here."""
    tables = model.describe(new_cells)
    np.testing.assert_allclose(tables["organ"]["skin"], tables["organism"]["Mus musculus"], atol=1e-9)
    np.testing.assert_allclose(tables["organ"]["skin"], tables["cell_type"]["keratinocyte"], atol=1e-9)


def test_answers_from_the_cell_alone_do_not_read_its_labels(model, new_cells):
    before = model.locate(new_cells), model.embed(new_cells)
    new_cells.obs["tissue"], new_cells.obs["cell_type"] = "skin", "keratinocyte"
    np.testing.assert_array_equal(model.locate(new_cells), before[0])
    np.testing.assert_array_equal(model.embed(new_cells), before[1])


def test_embedding_lies_in_obsm_and_is_what_was_returned(model, new_cells):
    states = model.embed(new_cells)
    assert new_cells.obsm["X_scmulan"].shape == (12, 2 * 64)
    np.testing.assert_array_equal(new_cells.obsm["X_scmulan"], states)
    assert np.isfinite(states).all()


# -- likelihood -------------------------------------------------------------------------------------------------------------------


def test_genes_that_speak_for_a_type_add_up_to_no_more_than_the_likelihood_ratio(model, new_cells):
    speaks = model.speaks_for(new_cells, 2, "classical monocyte", "B cell")
    assert speaks.is_monotonic_decreasing
    assert len(speaks) == (model.read(new_cells[[2]].copy()).ids[0] >= model.vocabulary.first_gene).sum()
    turned = model.speaks_for(new_cells, 2, "B cell", "classical monocyte")
    np.testing.assert_allclose(turned[speaks.index], -speaks, atol=1e-5)


def test_a_sentence_is_readable_and_reads_back(model, new_cells):
    text = model.sentence(new_cells, 1)
    assert text.startswith("<cell><depth:")
    assert text.endswith("</cell>")
    assert model.checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"] == model.read(new_cells).ids[1].tolist()


def test_nats_of_a_cell_under_its_own_fields_are_fewer_than_under_those_of_another_kind(model, new_cells):
    monocytes = new_cells[(new_cells.obs["cell_type"] == "classical monocyte").to_numpy()].copy()
    own, other = (
        sum(nats.sum() for nats in model.nats(monocytes, [{"cell_type": kind}] * monocytes.n_obs))
        for kind in ("classical monocyte", "keratinocyte")
    )
    assert own < other


def test_genes_that_were_not_measured_say_nothing_about_a_cell(model, new_cells):
    """A gene that a cell lacks costs nats where it was measured and none where it was not."""
    cell = new_cells[:1].copy()
    seen = np.asarray(cell.X.sum(0)).ravel() > 0
    assert not seen.all()
    whole, narrow = (float(model.nats(cells, [{}])[0].sum()) for cells in (cell, cell[:, seen].copy()))
    assert narrow < whole - 0.01


# -- data that are not as they should be, and provenance ----------------------------------------------------------------------------


def test_no_known_gene_is_an_error_that_says_what_was_needed(model, new_cells):
    new_cells.var_names = [f"contig_{number}" for number in range(new_cells.n_vars)]
    with pytest.raises(CellDataError, match="no known gene among 'contig_0'"):
        model.annotate(new_cells)


def test_known_genes_that_the_model_lacks_are_an_error_or_counted(model, new_cells):
    few = new_cells[:, :3].copy()
    few.var_names = ["INS", "GCG", "SST"]
    with pytest.raises(VocabularyError, match=r"none of the \d genes .* is in this model's vocabulary"):
        model.embed(few)
    names = list(new_cells.var_names)
    names[5] = "INS"
    new_cells.var_names = names
    model.embed(new_cells)
    share = float(new_cells.X[:, 5].sum() / new_cells.X.sum())
    assert new_cells.uns["scmulan"]["share_of_counts_outside_vocabulary"] == pytest.approx(share, abs=1e-5)


def test_cells_without_any_count_are_an_error(model, new_cells):
    new_cells.X = new_cells.X * 0
    with pytest.raises((CellDataError, VocabularyError), match=r"count"):
        model.annotate(new_cells)


def test_a_cell_too_long_for_the_context_is_thinned_and_that_is_recorded(model, trained, monkeypatch, new_cells):
    ready = model.read(new_cells, reserve=160)
    assert ready.thinned.all()
    assert (ready.ids.lengths <= 32).all()
    assert not model.read(new_cells, reserve=0).thinned.any()


def test_provenance_says_which_model_made_it_and_survives_the_file(model, new_cells, tmp_path):
    model.annotate(new_cells, threshold=0.2)
    write_h5ad(new_cells, tmp_path / "out.h5ad")
    kept = read_h5ad(tmp_path / "out.h5ad").uns["scmulan"]
    assert kept["weights_sha256"] == model.checkpoint.card["weights_sha256"]
    assert kept["scmulan"] == __version__
    assert kept["task"] == "annotate"
    assert list(kept["given"]) == ["organism", "assay", "organ"]
    assert set(kept["labels"]) == set(HUMAN)


@pytest.mark.parametrize("given", [(), ("organ",)])
def test_results_can_be_written_whatever_was_given(model, new_cells, tmp_path, given):
    model.annotate(new_cells, given=given)
    model.locate(new_cells)
    model.describe(new_cells)
    model.embed(new_cells)
    write_h5ad(new_cells, tmp_path / "out.h5ad")
    assert read_h5ad(tmp_path / "out.h5ad").obsm["X_scmulan"].shape == (12, 2 * 64)


def test_cells_keep_their_own_labels_and_counts(model, new_cells):
    before = new_cells.copy()
    model.annotate(new_cells)
    assert (before.X != new_cells.X).nnz == 0
    pd.testing.assert_frame_equal(new_cells.obs[list(before.obs)], before.obs)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such model folder"):
        load(tmp_path / "none")


def test_load_opens_a_model_with_the_embedded_engine(trained, model):
    opened = load(trained.folder)
    assert opened.vocabulary == model.vocabulary
    assert opened.seen == model.seen
