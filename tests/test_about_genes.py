"""Questions about genes: embeddings, likeness, programs, regulators and probes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import kind_cells
from test_adapters import write_adapter

from scmulan.errors import CellDataError, EngineError, PromptError, VocabularyError
from scmulan.genes import GeneTable
from scmulan.tasks_probe import labelled_genes
from scmulan.tasks_regulators import edges_auc, known_regulators


def test_an_embedding_is_the_mean_state_at_the_gene_in_the_cells_that_have_it(model, new_cells):
    found = model.genes.embeddings(new_cells, layer=1, least_cells=1)
    ready, v = model.read(new_cells, reserve=model.opened.reserve()), model.vocabulary
    sums: dict[tuple[str, str], list[np.ndarray]] = {}
    import torch

    for row, kind in enumerate(new_cells.obs["cell_type"].astype(str)):
        ids = np.concatenate([[v.bos], ready.ids[row]])
        with torch.no_grad():
            states = model.engine.body(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states[1][0].numpy()
        for place in np.flatnonzero(ids >= v.first_gene):
            sums.setdefault((kind, v.genes[ids[place] - v.first_gene]), []).append(states[place])
    assert set(found.embeddings.index) == set(sums)
    for key, states in sums.items():
        assert found.cells[key] == len(states)
        np.testing.assert_allclose(found.embeddings.loc[key], np.mean(states, 0), atol=1e-4)


def test_groups_together_are_weighted_by_their_cells(model, new_cells):
    apart, together = model.genes.embeddings(new_cells, least_cells=1), model.genes.embeddings(new_cells, groupby=None, least_cells=1)
    np.testing.assert_allclose(apart.of().sort_index(), together.of().sort_index(), atol=1e-4)


def test_a_gene_in_too_few_cells_has_no_embedding(model, new_cells):
    found = model.genes.embeddings(new_cells, least_cells=4)
    assert (found.cells >= 4).all()
    assert len(found.cells) < len(model.genes.embeddings(new_cells, least_cells=1).cells)
    with pytest.raises(CellDataError, match="no gene is in 40 cells"):
        model.genes.embeddings(new_cells, least_cells=40)


def test_likeness_is_by_any_name_and_leaves_out_the_gene_itself(model, new_cells):
    one, other = model.genes.like("ENSG00000102145", n=5), model.genes.like("gata1", n=5)
    assert one.equals(other)
    assert "GATA1" not in one.index
    assert len(one) == 5
    in_cells = model.genes.like("ACTB", new_cells, group="B cell", n=3)
    assert in_cells.between(-1, 1).all()
    assert (np.diff(in_cells) <= 0).all()


def test_likeness_answers_with_the_adapter_in_use(trained, tmp_path, new_cells):
    from scmulan.tasks import load

    opened = load(trained.folder)
    plain = opened.genes.embeddings(new_cells).embeddings
    effects = opened.genes.regulators(new_cells, ["GATA1"])
    opened.add_adapter(write_adapter(trained.folder, tmp_path / "kidney"))
    assert not np.allclose(opened.genes.embeddings(new_cells).embeddings, plain)
    assert not np.allclose(opened.genes.regulators(new_cells, ["GATA1"]), effects, equal_nan=True)


def test_programs_hold_every_gene_once_and_are_set_beside_shuffled_embeddings(model, new_cells):
    found = model.genes.programs(new_cells, n=4)
    genes = [gene for program in found.genes for gene in program]
    assert len(genes) == len(set(genes))
    assert len(found.genes) == len(found.table) <= 4
    assert found.table["genes"].tolist() == [len(program) for program in found.genes]
    assert 0 < found.p <= 1
    assert found.table["p"].dropna().between(0, 1).all()


def test_markers_of_one_type_raised_make_the_others_likelier(model):
    """Trained on cells in which the markers of a type go together, the model reads one as speaking for the others."""
    cells = kind_cells(("B cell", "natural killer cell"), 30, seed=9)
    effects = model.genes.regulators(cells, ["NKG7", "CD19"], action=40)
    of_killers, of_b_cells = (effects[genes].mean(1) for genes in (["GNLY", "KLRD1", "PRF1"], ["MS4A1", "CD79A", "CD79B"]))
    assert (of_killers - of_b_cells)["NKG7"] > (of_killers - of_b_cells)["CD19"]  # some genes rise with any other
    assert np.isnan(effects.loc["NKG7", "NKG7"])
    assert effects.attrs["cells"] == {"NKG7": 30, "CD19": 30}


def test_an_edit_that_changes_no_cell_has_no_effect_that_is_known(model, new_cells):
    from scipy.sparse import csr_matrix

    new_cells.X = csr_matrix(new_cells.X.toarray() * (new_cells.var_names != "GATA1"))
    effects = model.genes.regulators(new_cells, ["GATA1"], action="delete")
    assert effects.isna().all(axis=None)
    assert effects.attrs["cells"] == {"GATA1": 0}


def test_the_known_regulators_are_genes_of_the_table_each_once():
    names = [each.symbol for each in known_regulators()]
    assert len(names) == len(set(names)) > 40
    table = GeneTable.load()
    targets = [gene for each in known_regulators() for gene in each.targets]
    assert not table.resolve(targets).unknown
    assert all(each.fates and each.sources for each in known_regulators())
    assert all(each.symbol not in each.targets for each in known_regulators())


def test_the_known_regulators_of_the_cells_are_asked_when_none_is_named(model, new_cells):
    assert set(model.genes.regulators(new_cells, most_cells=2).index) == {"GATA1", "SPI1"}


def test_edges_that_stand_first_have_the_whole_area_and_edges_at_random_half():
    effects = pd.DataFrame([[9.0, -8.0, 1.0, 0.5, np.nan]], index=["A"], columns=list("abcde"))
    assert edges_auc(effects, [("A", "a"), ("A", "b"), ("A", "e"), ("B", "a")]) == (1.0, 2)
    assert edges_auc(effects, [("A", "c"), ("A", "d")])[0] == 0.0
    assert edges_auc(effects, [("C", "a")]) == (None, 0)
    rng = np.random.default_rng(0)
    random = pd.DataFrame(rng.normal(size=(1, 4000)), index=["A"], columns=[f"g{n}" for n in range(4000)])
    assert abs(edges_auc(random, [("A", f"g{n}") for n in range(1000)])[0] - 0.5) < 0.03


def test_a_probe_has_the_same_genes_for_all_features_and_says_what_it_left_out(model, new_cells):
    genes = [gene for gene in new_cells.var_names if gene not in ("INS",)][:40]
    labels = {gene: "first" if number % 2 else "second" for number, gene in enumerate(genes)} | {"INS": "first", "no such gene": "second"}
    found = model.genes.probe(new_cells, labels, folds=3)
    assert set(found.table.index) == {
        "contextual embedding", "row of the embedding matrix", "mean expression and detection", "profile over the cells"
    }  # fmt: skip
    assert {"INS", "no such gene"} <= set(found.left_out)
    assert sum(found.genes.values()) + len(found.left_out) == len(labels)
    assert found.table[["auc", "accuracy"]].stack().between(0, 1).all()
    assert 0.5 <= found.majority < 0.7


def test_classes_that_differ_in_expression_are_told_by_expression_alone(model, new_cells):
    mean = pd.Series(np.asarray(new_cells.X.mean(0)).ravel(), index=new_cells.var_names).sort_values()
    labels = {**dict.fromkeys(mean.index[-15:], "high"), **dict.fromkeys(mean.index[10:25], "low")}
    found = model.genes.probe(new_cells, labels, folds=3)
    assert found.table.loc["mean expression and detection", "auc"] > 0.95


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda genes, cells: genes.embeddings(cells, groupby="type"), PromptError, "groupby 'type' is not a column of obs"),
        (lambda genes, cells: genes.embeddings(cells, layer=7), EngineError, "layer 7: the model has 2"),
        (lambda genes, cells: genes.like("GATA11"), VocabularyError, "gene 'GATA11' is not known; nearest"),
        (lambda genes, cells: genes.like("CD19", cells, group="T cell"), PromptError, "group 'T cell': not among"),
        (lambda genes, cells: genes.like("KRT5", cells), PromptError, "gene 'KRT5': in too few of these cells"),
        (lambda genes, cells: genes.programs(cells, n=1000), PromptError, "n is 1000: needed 2 programs or more"),
        (lambda genes, cells: genes.regulators(cells, []), PromptError, "no regulator given"),
        (lambda genes, cells: genes.regulators(cells, ["KRT5"]), PromptError, "'KRT5' was not measured"),
        (lambda genes, cells: genes.regulators(cells, action="rase"), PromptError, "action 'rase'.*nearest: 'raise'"),
        (lambda genes, cells: genes.probe(cells, {"CD19": "B"}), PromptError, "classes of genes.*needed two or more"),
    ],
)  # fmt: skip
def test_questions_that_can_not_be_asked_are_refused(model, new_cells, ask, error, said):
    with pytest.raises(error, match=said):
        ask(model.genes, new_cells)


@pytest.mark.parametrize(
    ("text", "said"), [("CD19", "line 1: found 'CD19'"), ("CD19\tB\nCD19\tT", "line 2: gene 'CD19' is of 'B', 'T'"), ("a,b,c", "line 1")]
)
def test_a_list_of_classes_that_can_not_be_read_names_the_line(text, said):
    with pytest.raises(PromptError, match=said):
        labelled_genes(text, "list")
