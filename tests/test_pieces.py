"""Files answered about in pieces: as in memory, stopped or killed anywhere and gone on with; one clear error where that can't be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from conftest import kind_cells, no_file_larger_than

from scmulan import cells_on_disk
from scmulan.cells import read_h5ad
from scmulan.decoding.sampling import Sampling
from scmulan.engines.transformers import TransformersEngine
from scmulan.errors import CellDataError, CheckpointError, EngineError, PromptError, ScmulanWarning
from scmulan.model import load_checkpoint
from scmulan.pieces.answering import annotate_file, embed_file
from scmulan.pieces.carrying import Opening, Where
from scmulan.pieces.kept import MANIFEST, Kept
from scmulan.pieces.writing import Write, write_file
from scmulan.tasks import Model

pytestmark = pytest.mark.slow
KINDS = ("B cell", "natural killer cell", "classical monocyte")
CELLS, SIZE = 30, 8


@dataclass(frozen=True, kw_only=True)
class InFloat32(Opening):
    """The model in float32, so that how cells are batched shows in the last digits alone."""

    def open(self) -> Model:
        checkpoint = load_checkpoint(self.model)
        return Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))


@pytest.fixture(scope="module")
def opening(trained):
    return InFloat32(model=str(trained.folder))


def cells(n_cells: int = CELLS) -> AnnData:
    """Cells of three kinds in clusters, some without an organ."""
    adata = kind_cells(KINDS, n_cells, seed=6)
    adata.obs["cluster"] = pd.Categorical([number % 4 for number in range(n_cells)])
    adata.obs["tissue"] = [organ if number % 3 else None for number, organ in enumerate(adata.obs["tissue"])]
    return adata


@pytest.fixture
def source(tmp_path) -> Path:
    cells().write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@contextmanager
def stops_after(n_cells: int):
    """A watch that raises KeyboardInterrupt once some cells are done."""
    done = []

    def tick(n: int) -> None:
        done.append(n)
        if sum(done) >= n_cells:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        yield tick


def parts(output: Path) -> dict[str, bytes]:
    folder = output.with_name(f"{output.name}.parts")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


# -- the same as in memory ------------------------------------------------------------------------------------------------------------


def as_counts(adata: AnnData) -> None:
    pass


def by_columns(adata: AnnData) -> None:
    adata.X = sp.csc_matrix(adata.X)


def dense(adata: AnnData) -> None:
    adata.X = adata.X.toarray()


def normalised(adata: AnnData) -> None:
    values = adata.X.toarray()
    adata.X = np.log1p(values / values.sum(1, keepdims=True) * 1e4)


def in_a_layer(adata: AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X = sp.csr_matrix(np.ones(adata.shape, dtype=np.float32) * -1.5)
    adata.uns["scmulan"] = {"of_before": "kept", "task": "another"}
    adata.obs["scmulan_cell_type"] = "left over"


@pytest.mark.parametrize("form", [as_counts, by_columns, dense, normalised, in_a_layer])
def test_a_file_in_pieces_is_annotated_and_embedded_as_in_memory(opening, tmp_path, form):
    adata, output = cells(), tmp_path / "out.h5ad"
    form(adata)
    adata.write_h5ad(tmp_path / "in.h5ad")
    how = {"cluster": "cluster", "threshold": 0.4}
    told = annotate_file(opening, tmp_path / "in.h5ad", output, size=SIZE, **how).obs
    found, model = read_h5ad(output), opening.open()
    model.annotate(adata, **how)
    for name in adata.obs:
        if adata.obs[name].dtype == float:
            np.testing.assert_allclose(found.obs[name], adata.obs[name], atol=1e-5)
        else:
            assert found.obs[name].astype(str).tolist() == adata.obs[name].astype(str).tolist(), name
    assert list(found.obs) == list(adata.obs)
    assert (told["scmulan_cell_type"].astype(str) == found.obs["scmulan_cell_type"].astype(str).to_numpy()).all()
    assert plain(found.uns["scmulan"]) == plain(adata.uns["scmulan"])
    np.testing.assert_array_equal(np.asarray(found.X[:].todense() if sp.issparse(found.X) else found.X), as_array(adata.X))
    embed_file(opening, tmp_path / "in.h5ad", output, size=SIZE)
    np.testing.assert_allclose(read_h5ad(output).obsm["X_scmulan"], model.embed(adata), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]


def as_array(matrix) -> np.ndarray:
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def plain(how: dict) -> dict:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in how.items()}


@pytest.mark.parametrize(
    "how",
    [
        {"labels": ["B cell", "natural killer cell", "cell of Mars"]},
        {"level": "lineage", "by": "both"},
        {"level": ["lymphocyte", "monocyte"], "readout": False},
    ],
)
def test_every_way_to_ask_is_answered_as_in_memory(opening, source, tmp_path, how):
    done = annotate_file(opening, source, tmp_path / "out.h5ad", size=SIZE, **how)
    adata = read_h5ad(source)
    opening.open().annotate(adata, **how)
    found = read_h5ad(tmp_path / "out.h5ad")
    assert found.obs["scmulan_cell_type"].tolist() == adata.obs["scmulan_cell_type"].tolist()
    np.testing.assert_allclose(found.obs["scmulan_cell_type_probability"], adata.obs["scmulan_cell_type_probability"], atol=1e-5)
    assert plain(found.uns["scmulan"]) == plain(adata.uns["scmulan"])
    assert done.never_seen == (["cell of Mars"] if "labels" in how else [])


def test_labels_that_some_pieces_never_had_are_joined(opening, tmp_path):
    adata = cells()
    adata.obs["tissue"] = ["blood"] * 16 + ["bone marrow"] * 14
    adata.write_h5ad(tmp_path / "in.h5ad")
    annotate_file(opening, tmp_path / "in.h5ad", tmp_path / "out.h5ad", size=SIZE, cluster="cluster")
    opening.open().annotate(adata, cluster="cluster")
    found = read_h5ad(tmp_path / "out.h5ad")
    assert list(found.uns["scmulan"]["labels"]) == adata.uns["scmulan"]["labels"]
    assert found.obs["scmulan_cell_type_cluster"].tolist() == adata.obs["scmulan_cell_type_cluster"].tolist()


def test_a_file_of_a_layout_of_old_gets_its_answers_in_todays(opening, tmp_path):
    adata = cells()
    with h5py.File(tmp_path / "in.h5ad", "w") as file:
        file["X"] = adata.X.toarray()
        for name, index in (("obs", adata.obs_names), ("var", adata.var_names)):
            file[name] = np.array([(text.encode(),) for text in index], dtype=[("index", "S30")])
    done = annotate_file(opening, tmp_path / "in.h5ad", tmp_path / "out.h5ad", size=SIZE).obs
    found = read_h5ad(tmp_path / "out.h5ad")
    assert found.obs["scmulan_cell_type"].tolist() == done["scmulan_cell_type"].tolist()
    assert list(found.obs_names) == list(adata.obs_names)


def test_cells_without_counts_fill_a_piece_and_are_told_once(opening, tmp_path):
    adata = cells()
    values = adata.X.toarray()
    values[SIZE : 2 * SIZE + 3] = 0
    adata.X = sp.csr_matrix(values)
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.warns(ScmulanWarning, match=r"^11 of 30 cells have no count of a gene .*\('Hom6_8', .* \(11 in all\)\)") as said:
        annotate_file(opening, tmp_path / "in.h5ad", tmp_path / "out.h5ad", size=SIZE)
    assert len([each for each in said if issubclass(each.category, ScmulanWarning)]) == 1


@pytest.mark.parametrize("size", [1, 7, 100])
def test_cells_written_in_pieces_are_those_written_at_once(opening, tmp_path, size):
    asked = {"n": 20, "fields": {"organism": "human"}}
    written = write_file(opening, Write(**asked, sampling=Sampling(seed=3)), tmp_path / "out.h5ad", size=size)
    whole, found = opening.open().generate(n=20, seed=3, organism="human"), read_h5ad(tmp_path / "out.h5ad")
    same_cells(whole, found)
    assert written.counts.tolist() == np.asarray(whole.layers["counts"].sum(1)).ravel().tolist()
    assert written.genes.tolist() == np.diff(whole.layers["counts"].indptr).tolist()
    sampling = Sampling(seed=1, temperature=0.7)
    around = Write(n=5, fields={"organ": "blood"}, genes={"CD19": 4}, depth=300, naming="ensembl", sampling=sampling)
    write_file(opening, around, tmp_path / "around.h5ad", size=size)
    whole = opening.open().complete({"CD19": 4}, n=5, seed=1, temperature=0.7, depth=300, naming="ensembl", organ="blood")
    same_cells(whole, read_h5ad(tmp_path / "around.h5ad"))


def same_cells(one: AnnData, other: AnnData) -> None:
    assert (one.layers["counts"] != other.layers["counts"]).nnz == 0
    assert (one.X != other.X).nnz == 0
    assert other.layers["counts"].has_sorted_indices
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    assert plain(one.uns["scmulan"]) == plain(other.uns["scmulan"])


# -- stopped and gone on with -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(opening, tmp_path_factory) -> Path:
    """A folder with the source and what came of it in one go."""
    folder = tmp_path_factory.mktemp("whole")
    cells().write_h5ad(folder / "in.h5ad")
    run("annotate", str(opening.model), folder / "in.h5ad", folder / "annotate.h5ad")
    run("embed", str(opening.model), folder / "in.h5ad", folder / "embed.h5ad")
    run("generate", str(opening.model), folder / "in.h5ad", folder / "generate.h5ad")
    return folder


def run(task: str, model: str, source: Path, output: Path, tick=lambda n: None) -> None:
    """One of the tasks, told of each cell."""
    opening = Opening(model=model)
    if task == "annotate":
        annotate_file(opening, source, output, size=SIZE, cluster="cluster", watch=lambda total: tick)
    elif task == "embed":
        embed_file(opening, source, output, size=SIZE, watch=lambda total: tick)
    else:
        work = Write(n=CELLS, fields={"organ": "blood"}, sampling=Sampling(seed=8))
        write_file(opening, work, output, size=SIZE, tick=tick)


@pytest.mark.parametrize("task", ["annotate", "embed", "generate"])
@pytest.mark.parametrize("after", [3, 17, CELLS])
def test_stopped_anywhere_a_run_goes_on_and_has_the_same_bytes(opening, whole, tmp_path, task, after):
    output = tmp_path / "out.h5ad"
    with stops_after(after) as tick:
        run(task, opening.model, whole / "in.h5ad", output, tick)
    kept, done = parts(output), []
    assert not output.exists()
    assert output.with_name("out.h5ad.parts").exists() == bool(kept)
    run(task, opening.model, whole / "in.h5ad", output, done.append)
    assert done[0] == len(kept) * SIZE
    assert sum(done) == CELLS
    assert output.read_bytes() == (whole / f"{task}.h5ad").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from test_pieces import run
torch.set_num_threads(1)
done = []
def tick(n):
    done.append(n)
    if sum(done) > 11:
        os.kill(os.getpid(), signal.SIGKILL)
run(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]), tick)
"""


@pytest.mark.parametrize("task", ["annotate", "embed", "generate"])
def test_killed_in_a_piece_a_run_goes_on_and_has_the_same_bytes(opening, whole, tmp_path, task):
    output = tmp_path / "out.h5ad"
    words = [str(Path(__file__).parent), task, opening.model, str(whole / "in.h5ad"), str(output)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, stderr=subprocess.DEVNULL)
    assert ended.returncode == -signal.SIGKILL
    before, done = parts(output), []
    assert len(before) == 1
    run(task, opening.model, whole / "in.h5ad", output, done.append)
    assert done[0] == SIZE
    assert output.read_bytes() == (whole / f"{task}.h5ad").read_bytes()


def test_a_damaged_piece_is_made_anew_or_told(opening, source, tmp_path):
    output = tmp_path / "out.h5ad"
    with stops_after(CELLS) as tick:
        annotate_file(opening, source, output, size=SIZE, watch=lambda total: tick)
    folder = output.with_name("out.h5ad.parts")
    cut, flipped = folder / "0000000.parquet", folder / "0000001.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    content = bytearray(flipped.read_bytes())
    content[40] ^= 1
    flipped.write_bytes(content)
    with pytest.raises(CellDataError, match=r"0000001\.parquet: can't be read .*; remove it and run the same command again"):
        annotate_file(opening, source, output, size=SIZE)
    flipped.unlink()
    done = annotate_file(opening, source, output, size=SIZE).obs
    assert len(done) == CELLS


# -- another question in the same place --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"labels": ["B cell"]}, r'labels was null, is \["B cell"\]'),
        ({"by": "both"}, 'by was "answer", is "both"'),
        ({"readout": False}, "readout was true, is false"),
        ({"organism": "human"}, 'organism was null, is "human"'),
        ({"fields": {"organ": "tissue"}}, r'fields was \{\}, is \{"organ": "tissue"\}'),
        ({"size": 4}, "cells of a piece was 8, is 4"),
        ("source", "source, last written was"),
        ("model", 'weights was "'),
        ("task", 'task was "annotate", is "embed"'),
    ],
)
def test_pieces_of_another_question_are_refused_and_the_difference_is_told(opening, source, trained, tmp_path, changed, says):
    output = tmp_path / "out.h5ad"
    with stops_after(SIZE + 2) as tick:
        annotate_file(opening, source, output, size=SIZE, watch=lambda total: tick)
    kept = parts(output)
    if changed == "source":
        cells().write_h5ad(source)
    if changed == "model":
        opening = another(trained, tmp_path)
    how = {"size": SIZE, **(changed if isinstance(changed, dict) else {})}
    with pytest.raises(PromptError, match=f"out.h5ad.parts: pieces of another run are kept there: .*{says}.*; ask for the same"):
        (embed_file if changed == "task" else annotate_file)(opening, source, output, **how)
    assert parts(output) == kept


def another(trained, tmp_path: Path) -> Opening:
    """A model whose card names other weights."""
    folder = tmp_path / "another"
    folder.mkdir()
    for path in trained.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card = json.loads((folder / "scmulan.json").read_text())
    (folder / "scmulan.json").write_text(json.dumps({**card, "weights_sha256": "0" * 64}))
    return Opening(model=str(folder))


def test_what_is_settled_at_the_end_may_change_between_runs(opening, source, tmp_path):
    output = tmp_path / "out.h5ad"
    with stops_after(CELLS) as tick:
        annotate_file(opening, source, output, size=SIZE, watch=lambda total: tick)
    annotate_file(opening, source, output, size=SIZE, level="lineage", threshold=0.99, cluster="cluster")
    adata = read_h5ad(source)
    opening.open().annotate(adata, level="lineage", threshold=0.99, cluster="cluster")
    found = read_h5ad(output).obs
    for name in ("scmulan_cell_type", "scmulan_cell_type_cluster"):
        assert found[name].astype(str).tolist() == adata.obs[name].astype(str).tolist()


def test_a_folder_that_scmulan_did_not_make_is_left_alone(opening, source, tmp_path):
    folder = tmp_path / "out.h5ad.parts"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(PromptError, match="a folder that scmulan did not make"):
        annotate_file(opening, source, tmp_path / "out.h5ad")
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / MANIFEST).write_text("[")
    with pytest.raises(PromptError, match=r"manifest\.json: can't be read .*; remove .*out\.h5ad\.parts to begin anew"):
        annotate_file(opening, source, tmp_path / "out.h5ad")


# -- what can't be done ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["annotate", "generate"])
def test_a_disk_that_is_full_for_the_result_is_one_error_and_keeps_the_pieces(opening, whole, tmp_path, task):
    output = tmp_path / "out.h5ad"
    limit = max(len(content) for content in pieces_of(opening, whole, tmp_path, task).values()) + 200
    with no_file_larger_than(limit), pytest.raises(CellDataError, match=r"out\.h5ad: can't be written \(OSError.*"):
        run(task, opening.model, whole / "in.h5ad", output)
    assert len(parts(output)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5ad.parts"]
    run(task, opening.model, whole / "in.h5ad", output)
    assert output.read_bytes() == (whole / f"{task}.h5ad").read_bytes()


def pieces_of(opening, whole: Path, tmp_path: Path, task: str) -> dict[str, bytes]:
    """All pieces, kept in the place of a result that is still to be written."""
    with stops_after(CELLS) as tick:
        run(task, opening.model, whole / "in.h5ad", tmp_path / "out.h5ad", tick)
    return parts(tmp_path / "out.h5ad")


def test_a_disk_that_is_full_for_a_piece_is_one_error_that_says_what_to_do(opening, source, tmp_path):
    output = tmp_path / "out.h5ad"
    says = r"out\.h5ad\.parts: a piece can't be written .*are kept: free some space and run the same command again"
    with stops_after(SIZE + 2) as tick:
        annotate_file(opening, source, output, size=SIZE, watch=lambda total: tick)
    with ExitStack() as stack:

        def fills_up(n: int) -> None:  # the first is told of what is there already
            if n < SIZE:
                stack.enter_context(no_file_larger_than(100))

        with pytest.raises(CellDataError, match=says):
            annotate_file(opening, source, output, size=SIZE, watch=lambda total: fills_up)
    assert len(parts(output)) == 1
    assert not list(output.with_name("out.h5ad.parts").glob("*.partial"))


def test_cells_that_can_not_be_read_are_named_and_those_before_are_kept(opening, source, tmp_path, monkeypatch):
    with h5py.File(source, "r+") as file:
        file["X/indices"][int(file["X/indptr"][20])] = 10**6
    says = r"in\.h5ad.*: a damaged sparse matrix: column index 1,000,000 .* in the cell at position 20"
    with pytest.raises(CellDataError, match=says):
        annotate_file(opening, source, tmp_path / "out.h5ad", size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]
    for name, value in (("LOOKED_AT", SIZE), ("RUNS", 1)):  # so that it is met on the way, as in a file of many cells
        monkeypatch.setattr(cells_on_disk, name, value)
    with pytest.raises(CellDataError, match=says):
        annotate_file(opening, source, tmp_path / "out.h5ad", size=SIZE)
    assert not (tmp_path / "out.h5ad").exists()
    assert len(parts(tmp_path / "out.h5ad")) == 2


def test_nothing_is_left_of_a_run_that_could_not_begin(opening, source, tmp_path):
    for what in ({"cluster": "leiden"}, {"organism": "mouse"}, {"fields": {"organ": "tisue"}}):
        with pytest.raises((PromptError, CellDataError)):
            annotate_file(opening, source, tmp_path / "out.h5ad", **what)
    cells().write_zarr(tmp_path / "in.zarr")
    with pytest.raises(CellDataError, match=r"needed an \.h5ad"):
        embed_file(opening, tmp_path / "in.zarr", tmp_path / "out.h5ad")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "in.zarr"]


# -- on Ray -------------------------------------------------------------------------------------------------------------------------------


def test_without_ray_its_extra_is_named(opening, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'scmulan\[cluster\]'"):
        annotate_file(opening, source, tmp_path / "out.h5ad", where=Where(is_ray=True))


@dataclass(frozen=True, kw_only=True)
class Noted(Opening):
    """Notes the node of each worker that opens the model, and lets it work slowly, so that the work is not done before a node is lost."""

    notes: str

    def open(self) -> Model:
        import ray

        (Path(self.notes) / ray.get_runtime_context().get_node_id()).touch()
        opened = super().open()
        score = opened.engine.score

        def slowly(*given, **options):
            time.sleep(0.3)
            return score(*given, **options)

        opened.engine.score = slowly
        return opened


@pytest.fixture
def on_ray(monkeypatch):
    """A cluster of a head that does no work, to which nodes of one processor are added."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    tests = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent}{os.pathsep}{tests}")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_on_a_ray_cluster_that_loses_a_node_the_answers_are_those_of_one_process(on_ray, trained, tmp_path):
    source, output, ticks, notes = tmp_path / "in.h5ad", tmp_path / "out.h5ad", list[int](), tmp_path / "notes"
    cells(24).write_h5ad(source)
    notes.mkdir()
    on_ray.add_node(num_cpus=1)

    def tick(n: int) -> None:
        ticks.append(n)
        if len(ticks) == 4:  # the first is told of what is there already
            at_work = next(notes.iterdir()).name
            assert len(parts(output)) < 18
            on_ray.remove_node(next(node for node in on_ray.list_all_nodes() if node.node_id == at_work), allow_graceful=False)
            on_ray.add_node(num_cpus=1)

    opening = Noted(model=str(trained.folder), notes=str(notes))
    annotate_file(opening, source, output, size=1, cluster="cluster", where=Where(is_ray=True), watch=lambda total: tick)
    assert ticks == [0, *[1] * 24]
    assert len(list(notes.iterdir())) > 1
    annotate_file(Opening(model=str(trained.folder)), source, tmp_path / "one.h5ad", size=1, cluster="cluster")
    assert output.read_bytes() == (tmp_path / "one.h5ad").read_bytes()


@pytest.mark.slow
def test_on_ray_cells_are_written_as_in_one_process_and_what_fails_there_is_one_error(on_ray, whole, trained, tmp_path):
    where = Where(is_ray=True)
    work = Write(n=CELLS, fields={"organ": "blood"}, sampling=Sampling(seed=8))
    write_file(Opening(model=str(trained.folder)), work, tmp_path / "out.h5ad", size=SIZE, where=where)
    assert (tmp_path / "out.h5ad").read_bytes() == (whole / "generate.h5ad").read_bytes()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its sha256 is not the one in scmulan\.json"):
        annotate_file(another(trained, tmp_path), whole / "in.h5ad", tmp_path / "another.h5ad", size=SIZE, where=where)


def test_kept_pieces_cover_each_cell_once():
    kept = Kept(Path("none"), 10, 4)
    assert [kept.span(number) for number in range(len(kept))] == [(0, 4), (4, 8), (8, 10)]
    assert len(Kept(Path("none"), 8, 4)) == 2
    assert os.path.basename(kept.path(2)) == "0000002.parquet"
