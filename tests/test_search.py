"""An index of cells: what it finds, what it refuses, and how its building goes on."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from scmulan import search_build
from scmulan.errors import CellDataError, CheckpointError, EngineError, PromptError
from scmulan.search import CellIndex
from scmulan.search_build import index_cells
from scmulan.search_folder import CARD, NEIGHBOURS
from tests.conftest import kind_cells

BLOOD = ("B cell", "natural killer cell", "classical monocyte")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two files of blood cells, of different donors; the model has seen neither."""
    folder = tmp_path_factory.mktemp("sources")
    for number in (0, 1):
        cells = kind_cells(BLOOD, 30, seed=20 + number)
        cells.obs["dataset"] = f"study {number}"
        cells.write_h5ad(folder / f"study{number}.h5ad")
    return [folder / "study0.h5ad", folder / "study1.h5ad"]


@pytest.fixture(scope="module")
def index(model, sources, tmp_path_factory):
    return index_cells(model, sources, tmp_path_factory.mktemp("index") / "blood")


def test_a_reference_cell_finds_itself_first_with_its_source_and_labels(model, sources, index):
    from scmulan.cells import read_h5ad

    cells = read_h5ad(sources[1])[:6].copy()
    found = model.search(cells, index, k=4)
    first = found[found["rank"] == 1]
    assert first["cell_id"].tolist() == first["cell"].tolist() == cells.obs_names.tolist()
    assert set(first["source"]) == {"study1.h5ad"}
    assert set(first["dataset"]) == {"study 1"}
    assert first["cell_type"].tolist() == cells.obs["cell_type"].astype(str).tolist()
    assert first["distance"].max() < 0.01  # the index holds half precision
    assert len(found) == 24
    assert (found.groupby("cell", sort=False)["distance"].diff().dropna() >= 0).all()


def test_labels_are_those_that_the_nearest_have(model, new_cells, index):
    share = model.transfer(new_cells, index, k=5, beyond=1.0)
    np.testing.assert_allclose(share.sum(1), 1)
    said = new_cells.obs["scmulan_transferred_cell_type"].astype(str)
    assert (said == share.idxmax(axis=1)).all()
    neighbours = model.search(new_cells, index, k=5)
    commonest = neighbours.groupby("cell", sort=False)["cell_type"].agg(lambda kinds: kinds.value_counts().max())
    clear = commonest[commonest == 5].index
    assert (said[clear] == neighbours.groupby("cell", sort=False)["cell_type"].first()[clear]).all()
    assert new_cells.uns["scmulan"]["near_across"] == "batches"


def test_a_cell_that_is_far_from_all_stays_unassigned_and_a_reference_cell_does_not(model, sources, index):
    from scmulan.cells import read_h5ad

    known, strange = read_h5ad(sources[0]), kind_cells(("keratinocyte",), 12, seed=9)
    model.transfer(known, index)
    model.transfer(strange, index)
    unassigned = [(cells.obs["scmulan_transferred_cell_type"] == "unassigned").mean() for cells in (known, strange)]
    assert unassigned[0] < 0.1
    assert strange.obs["scmulan_transferred_cell_type_beyond"].mean() > known.obs["scmulan_transferred_cell_type_beyond"].mean()
    model.transfer(known, index, threshold=1.0, beyond=0.0)
    assert (known.obs["scmulan_transferred_cell_type"] == "unassigned").mean() > 0.5


def test_cells_in_memory_and_in_files_are_indexed_alike(model, sources, index, tmp_path):
    from scmulan.cells import read_h5ad

    folder = index_cells(model, [read_h5ad(path) for path in sources], tmp_path / "memory")
    one, other = CellIndex(index), CellIndex(folder)
    for first, second in zip(one.parts.states(), other.parts.states(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert one.labels("cell_type") == other.labels("cell_type")
    assert set(other.labels("dataset")) == {"study 0", "study 1"}


def test_parts_of_any_size_give_the_same_index(model, sources, index, tmp_path, monkeypatch):
    monkeypatch.setattr(search_build, "PART_CELLS", 7)
    folder = index_cells(model, sources, tmp_path / "parts")
    one, other = CellIndex(index), CellIndex(folder)
    assert len(other.card["parts"]) == 10
    joined = np.concatenate(list(other.parts.states()))
    np.testing.assert_allclose(joined, np.concatenate(list(one.parts.states())), atol=2e-3)
    points = joined[:5]
    np.testing.assert_array_equal(one.nearest(points, 1)[0], other.nearest(points, 1)[0])


def test_a_graph_finds_what_comparing_all_finds(model, sources, index, tmp_path, monkeypatch):
    monkeypatch.setattr(search_build, "EXACT_TO", 10)
    folder = index_cells(model, sources, tmp_path / "graph")
    one, other = CellIndex(index, model), CellIndex(folder, model)
    assert (one.card["search"], other.card["search"]) == ("all cells", "HNSW of 32 links")
    points = np.concatenate(list(one.parts.states()))
    same = [len(set(a) & set(b)) for a, b in zip(one.nearest(points)[0].tolist(), other.nearest(points)[0].tolist(), strict=True)]
    assert np.mean(same) > 9.5


def test_a_build_that_was_stopped_goes_on_with_the_parts_that_are_there(model, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(search_build, "PART_CELLS", 10)
    folder, made, write = tmp_path / "stopped", [], search_build.write_part

    def stop_at_the_fourth(path, *rest):
        made.append(path.name)
        if len(made) == 4:
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(search_build, "write_part", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        index_cells(model, sources, folder)
    with pytest.raises(CheckpointError, match="whose build was stopped"):
        CellIndex(folder)
    index_cells(model, sources, folder)
    assert len(made) == 4 + 3  # three of six parts were there
    index_cells(model, sources, folder)
    assert len(made) == 7


def test_parts_of_other_settings_and_of_sources_no_longer_named_are_not_kept(model, sources, tmp_path):
    from scmulan.tasks_embedding import EmbeddingSettings

    folder = index_cells(model, sources, tmp_path / "again")
    index_cells(model, sources[:1], folder, settings=EmbeddingSettings(at=("organ",)))
    opened = CellIndex(folder, model)
    assert (len(opened), opened.settings.at, len(list(folder.glob("part-*")))) == (30, ("organ",), 1)
    assert opened.card["dimensions"] == model.checkpoint.model.config.hidden_size


def test_an_index_of_another_model_or_adapter_is_refused(model, index, new_cells, tmp_path):
    for key, said in (("model", "open that model"), ("adapter", "made with adapter kidney")):
        folder = tmp_path / key
        folder.mkdir()
        for path in index.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        card = json.loads((folder / CARD).read_text())
        card[key] = {"name": "kidney", "weights_sha256": "0" * 64, "sha256": "0" * 64}
        (folder / CARD).write_text(json.dumps(card))
        with pytest.raises(CheckpointError, match=said):
            model.search(new_cells, folder)
        with pytest.raises(CheckpointError, match=said):
            model.search(new_cells, CellIndex(folder))  # opened before the model was known


@pytest.mark.parametrize("name", [NEIGHBOURS, "part-00000-000000000.parquet"])
def test_a_damaged_or_missing_file_is_named(model, index, tmp_path, name):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in index.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-9] + bytes(9))
    with pytest.raises(CheckpointError, match=f"{name}: its sha256"):
        CellIndex(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: missing"):
        CellIndex(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 9}', '{"format": 1}'])
def test_a_card_that_is_none_is_refused_in_one_line(tmp_path, text):
    (tmp_path / CARD).write_text(text)
    with pytest.raises(CheckpointError, match="build it again"):
        CellIndex(tmp_path)


def test_a_folder_that_is_no_index_is_refused_and_the_nearest_named(index):
    with pytest.raises(CheckpointError, match="nearest: 'blood'"):
        CellIndex(index.parent / "blod")


def test_what_can_not_be_asked_is_refused(model, new_cells, index, tmp_path):
    with pytest.raises(PromptError, match="nearest: 'cell_type'"):
        model.transfer(new_cells, index, field="celltype")
    with pytest.raises(PromptError, match="none of its cells has a disease"):
        model.transfer(new_cells, index, field="disease")
    with pytest.raises(PromptError, match="shares, from 0 to 1"):
        model.transfer(new_cells, index, beyond=3.0)
    with pytest.raises(PromptError, match="needed 1 or more"):
        model.search(new_cells, index, k=0)
    with pytest.raises(CheckpointError, match="embed them as its cells were"):
        CellIndex(index).nearest(np.zeros((1, 3)))
    with pytest.raises(CellDataError, match="no source given"):
        index_cells(model, [], tmp_path / "none")


def test_without_faiss_the_install_line_is_named(model, sources, index, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: index_cells(model, sources, tmp_path / "x"), lambda: CellIndex(index)):
        with pytest.raises(EngineError, match=r"pip install 'scmulan\[search\]'"):
            call()


def test_an_index_smaller_than_k_gives_all_it_has(model, new_cells, tmp_path):
    folder = index_cells(model, [new_cells[:3].copy()], tmp_path / "small")
    assert len(model.search(new_cells[3:5].copy(), folder, k=10)) == 6
    cells = new_cells[3:5].copy()
    model.transfer(cells, folder, k=15)
    assert cells.uns["scmulan"]["near_across"] == "cells"


def test_an_index_of_one_batch_calls_no_cell_a_stranger_unless_told_to(model, tmp_path):
    known, strange = kind_cells(BLOOD, 30, seed=20), kind_cells(("keratinocyte",), 12, seed=9)
    known.obs["donor"] = "the only one"
    folder = index_cells(model, [known], tmp_path / "one")
    model.transfer(strange, folder)
    assert "unassigned" not in set(strange.obs["scmulan_transferred_cell_type"])
    assert strange.uns["scmulan"]["beyond"] == 1.0
    model.transfer(strange, folder, beyond=0.5)
    assert (strange.obs["scmulan_transferred_cell_type"] == "unassigned").any()


def test_nothing_in_the_folder_is_pickled_and_parts_open_with_pyarrow_alone(index):
    assert {path.suffix for path in index.iterdir()} == {".json", ".parquet", ".faiss"}
    table = pq.read_table(next(index.glob("part-*"))).to_pandas()
    assert {"cell_id", "source", "dataset", "donor", "cell_type", "embedding"} <= set(table)
    assert table["embedding"][0].dtype == np.float16


def test_the_commands_build_tell_search_and_transfer(trained, sources, tmp_path):
    from typer.testing import CliRunner

    from scmulan.cli import app

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    made = tmp_path / "index"
    assert json.loads(run("index", "build", *sources, "-o", made, "--model", trained.folder, "--json"))["cells"] == 60
    told = json.loads(run("index", "info", made, "--json"))
    assert told["cells"] == 60
    assert told["labels"]["cell_type"]["B cell"] == 20
    run("search", trained.cells, "--index", made, "-o", tmp_path / "n.tsv", "-k", 3, "--model", trained.folder)
    assert len(pd.read_csv(tmp_path / "n.tsv", sep="\t")) == 36
    run("transfer", trained.cells, "--index", made, "-o", tmp_path / "t.h5ad", "--of", "lineage", "--model", trained.folder)
    from scmulan.cells import read_h5ad

    assert "scmulan_transferred_lineage" in read_h5ad(tmp_path / "t.h5ad").obs
