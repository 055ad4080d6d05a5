"""A corpus built in pieces: stopped anywhere, by any workers, it has the same bytes; what fails is named, and the rest is built."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import yaml
from conftest import examples, kind_cells
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan.corpus import blocks, build, duplicates
from scmulan.corpus.build import build_corpus
from scmulan.corpus.contents import contents_of
from scmulan.corpus.duplicates import find_duplicates
from scmulan.corpus.own_tokenizer import build_plan_tokenizer
from scmulan.corpus.pack import Packing, counts_of, epoch_sentences
from scmulan.corpus.plan import KEYS, Plan, read_plan
from scmulan.corpus.shards import MANIFEST, Corpus
from scmulan.corpus.workers import Workers
from scmulan.csentence import decode
from scmulan.errors import CorpusError, RecipeError, ScmulanError
from scmulan.plots_corpus import draw_corpus
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary

KINDS = ("B cell", "natural killer cell", "classical monocyte")
FILES, CELLS = 5, 60


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    """A folder of data sets of 60 cells: four files and a zarr store."""
    folder = tmp_path_factory.mktemp("atlas")
    for number in range(FILES):
        adata = kind_cells(KINDS, CELLS, seed=number)
        if number == FILES - 1:
            adata.write_zarr(folder / f"set{number}.zarr")
        else:
            adata.write_h5ad(folder / f"set{number}.h5ad")
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(build, "CELLS_PER_SHARD", 25)


@pytest.fixture(scope="module")
def built(atlas, trained, tmp_path_factory) -> dict:
    """Manifest of the whole, built in one go by this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CELLS_PER_SHARD", 25)
        return build_corpus(read_plan({"sources": [str(atlas)]}), trained.tokenizer, tmp_path_factory.mktemp("built") / "corpus")


def plan_of(atlas: Path, **more) -> Plan:
    return read_plan({"sources": [str(atlas)], **more})


# -- plans ------------------------------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_all_data_sets_in_it(atlas):
    names = [Path(source.path).name for source in plan_of(atlas).sources]
    assert names == ["set0.h5ad", "set1.h5ad", "set2.h5ad", "set3.h5ad", "set4.zarr"]
    assert [Path(s.path).name for s in read_plan({"sources": ["set[13].*"]}, atlas).sources] == ["set1.h5ad", "set3.h5ad"]


def test_defaults_hold_where_a_source_says_nothing_else(atlas):
    plan = {
        "defaults": {"split": {"by": "donor"}, "organism": "mouse"},
        "sources": ["set0.h5ad", {"path": "set1.h5ad", "organism": "human"}],
    }
    first, second = read_plan(plan, atlas).sources
    assert (first.split.by, first.organism, second.split.by, second.organism) == ("donor", "mouse", "donor", "human")


def test_a_source_named_twice_with_other_settings_is_an_error_that_names_them(atlas):
    plan = {"sources": [str(atlas), {"path": str(atlas / "set1.h5ad"), "fields": {"organ": "site"}}]}
    with pytest.raises(RecipeError, match=r"set1\.h5ad is named twice, with fields \{\} and \{'organ': 'site'\}; name it once"):
        read_plan(plan)
    assert len(read_plan({"sources": [str(atlas), str(atlas / "set1.h5ad")]}).sources) == FILES


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"sources": ["empty/"]}, r"sources\[0\]: no \.h5ad file or zarr store in .*empty"),
        ({"sources": ["*.loom"]}, r"sources\[0\]: no \.h5ad file or zarr store"),
        ({"sources": ["a"], "weights": {"cell_typ": {}}}, "weights: unknown field 'cell_typ'; nearest: 'cell_type'"),
        ({"sources": ["a"], "weights": {"cell_type": {"B cell": -1}}}, r"weights\.cell_type is .*; needed a mapping of label to a weight"),
        ({"sources": [{"path": "a", "weight": -2}]}, r"sources\[0\]: weight is -2; needed 0 or more"),
        ({"sources": [{"path": "a", "fields": {"organ": 3}}]}, r"sources\[0\]: fields is .*needed a mapping of field to column"),
        ({"sources": [{"path": 7}]}, r"sources\[0\]: path is 7; needed a text"),
        ({"sources": ["a"], "defaults": "donor"}, "defaults is 'donor'; needed a mapping"),
        ({"sources": ["a"], "deduplicate": "maybe"}, "deduplicate is 'maybe'; needed true or false"),
    ],
)
def test_a_wrong_plan_is_an_error_that_names_the_key(tmp_path, plan, says):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=says):
        read_plan(plan, tmp_path)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8
)
sources = st.lists(st.text(max_size=8) | st.fixed_dictionaries(
    {"path": st.text(max_size=8) | leaves}, optional=dict.fromkeys(("fields", "organism", "layer", "split", "weight"), trees)
), max_size=3)  # fmt: skip


def reads(path: Path) -> bool:
    try:
        read_plan(path)
    except RecipeError:
        return False
    return True


@settings(max_examples=examples(300), deadline=None)
@given(given=st.dictionaries(st.sampled_from([*KEYS, "other"]), trees, max_size=4) | trees, own=st.none() | sources)
def test_any_yaml_is_a_plan_or_an_error_that_says_why(tmp_path_factory, given, own):
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    given = {**given, "sources": own} if own is not None and isinstance(given, dict) else given
    path.write_text(yaml.safe_dump(given, allow_unicode=True))
    with pytest.raises(RecipeError, match=r"plan\.yaml") if not reads(path) else nullcontext():
        assert isinstance(read_plan(path), Plan)


@settings(max_examples=examples(200), deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_plan_or_an_error_that_names_the_file(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"plan\.yaml"):
        read_plan(path)


# -- stopped and gone on with --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_built_by_processes_it_has_the_same_bytes(atlas, trained, built, tmp_path, small_shards):
    assert build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus", workers=Workers(count=2)) == built
    Corpus(tmp_path / "corpus").verify()
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == sorted(
        [MANIFEST, "tokenizer", "work", *(shard["file"] for shard in built["shards"])]
    )


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 6, 14])
def test_stopped_after_some_shards_it_goes_on_and_has_the_same_bytes(atlas, trained, built, tmp_path, small_shards, monkeypatch, after):
    done = []

    def stops(block):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(block.file)
        blocks.build_block(block)

    monkeypatch.setattr(build, "build_block", stops)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
    again = []
    monkeypatch.setattr(build, "build_block", lambda block: (again.append(block.file), blocks.build_block(block))[1])
    assert build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus") == built
    assert not set(again) & set(done)
    assert len(again) + len(done) == len(built["shards"])


def test_a_shard_that_was_damaged_meanwhile_is_built_anew(atlas, trained, built, tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(build, "_finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus")
    monkeypatch.undo()
    monkeypatch.setattr(build, "CELLS_PER_SHARD", 25)
    damaged = tmp_path / "corpus.partial" / built["shards"][3]["file"]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus") == built
    Corpus(tmp_path / "corpus").verify()


def test_built_again_a_finished_corpus_is_mended_where_it_is_damaged(atlas, trained, built, tmp_path, small_shards, monkeypatch):
    build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus")
    flipped, lost = (tmp_path / "corpus" / built["shards"][number]["file"] for number in (2, 7))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 3] ^= 8
    flipped.write_bytes(content)
    lost.unlink()
    with pytest.raises(CorpusError, match="its sha256 is not the manifest's; run the build again, which mends it"):
        Corpus(tmp_path / "corpus").verify()
    again = []
    monkeypatch.setattr(build, "build_block", lambda block: (again.append(block.file), blocks.build_block(block))[1])
    assert build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus") == built
    assert again == [flipped.name, lost.name]
    Corpus(tmp_path / "corpus").verify()


def test_a_tokenizer_of_a_model_folder_is_copied_without_the_model(atlas, trained, tmp_path):
    build_corpus(plan_of(atlas), trained.folder, tmp_path / "corpus")
    names = {path.name for path in (tmp_path / "corpus" / "tokenizer").iterdir()}
    assert {"tokenizer.json", "scmulan_vocabulary.json"} <= names
    assert "model.safetensors" not in names


def test_a_source_that_changed_meanwhile_is_read_anew(atlas, trained, tmp_path, small_shards, monkeypatch):
    folder = Path(shutil.copytree(atlas, tmp_path / "atlas"))
    monkeypatch.setattr(build, "_finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_corpus(plan_of(folder), trained.tokenizer, tmp_path / "corpus")
    monkeypatch.undo()
    monkeypatch.setattr(build, "CELLS_PER_SHARD", 25)
    (folder / "set1.h5ad").unlink()
    kind_cells(KINDS, 40, seed=9).write_h5ad(folder / "set1.h5ad")
    manifest = build_corpus(plan_of(folder), trained.tokenizer, tmp_path / "corpus")
    assert [source["cells"] for source in manifest["sources"]] == [60, 40, 60, 60, 60]
    assert manifest == build_corpus(plan_of(folder), trained.tokenizer, tmp_path / "other")


def test_built_in_the_same_place_with_another_tokenizer_the_ids_are_those_of_that_one(atlas, trained, tmp_path):
    plan = read_plan({"sources": ["set0.h5ad"], "tokenizer": {"gene_order": "alphabetical", "text_size": 300}}, atlas)
    build_plan_tokenizer(plan, tmp_path / "other")
    build_corpus(plan, trained.tokenizer, tmp_path / "corpus")
    build_corpus(plan, tmp_path / "other", tmp_path / "corpus")
    vocabulary, ids = load_vocabulary(tmp_path / "other"), Corpus(tmp_path / "corpus").read().ids
    assert all(len(decode(ids[row], vocabulary)[0]) > 20 for row in range(len(ids)))


def test_an_unfinished_build_of_another_plan_is_not_mixed_in(atlas, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus")
    with pytest.raises(CorpusError, match=r"corpus\.partial: an unfinished build of another plan or tokenizer; finish that one, or delete"):
        build_corpus(plan_of(atlas, deduplicate=False), trained.tokenizer, tmp_path / "corpus")


KILLED = """
import sys
from scmulan.corpus import build
from scmulan.corpus.build import build_corpus
from scmulan.corpus.plan import read_plan
from scmulan.corpus.workers import Workers
if __name__ == "__main__":
    build.CELLS_PER_SHARD = 25
    workers = Workers(engine=sys.argv[4], count=2, address="local" if sys.argv[4] == "ray" else None)  # no cluster of another test's
    build_corpus(read_plan({"sources": [sys.argv[1]]}), sys.argv[2], sys.argv[3], workers=workers)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kills"), [("processes", examples(4)), ("ray", examples(1))])  # a start of Ray takes many seconds
def test_killed_at_random_it_has_the_same_bytes(atlas, trained, built, tmp_path, engine, kills):
    if engine == "ray":
        pytest.importorskip("ray")
    script = tmp_path / "build.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(atlas), str(trained.tokenizer), str(tmp_path / "corpus"), engine]
    began = time.monotonic()
    subprocess.run([*command[:4], str(tmp_path / "timed"), engine], check=True)
    whole, draw = time.monotonic() - began, random.Random(0)
    for _ in range(kills):
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(draw.uniform(0.2, 0.9) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(tmp_path / "corpus", ignore_errors=True)
    subprocess.run(command, check=True)
    assert Corpus(tmp_path / "corpus").manifest == built
    Corpus(tmp_path / "corpus").verify()


@pytest.mark.slow
def test_on_a_ray_cluster_that_loses_a_node_it_has_the_same_bytes(atlas, trained, built, tmp_path, small_shards, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        finished = []
        run = Workers.run

        def loses_a_node(self, function, tasks):
            for pair in run(self, function, tasks):
                finished.append(pair)
                if len(finished) == FILES + 3:
                    cluster.remove_node(nodes[0], allow_graceful=False)
                    cluster.add_node(num_cpus=1)
                yield pair

        monkeypatch.setattr(Workers, "run", loses_a_node)
        assert build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus", workers=Workers(engine="ray")) == built
        Corpus(tmp_path / "corpus").verify()
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_without_ray_the_engine_names_its_extra(atlas, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ScmulanError, match=r"pip install 'scmulan\[cluster\]'"):
        build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus", workers=Workers(engine="ray"))


# -- what can't be built -------------------------------------------------------------------------------------------------------------


def break_in_the_middle(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X/indices"][int(file["X/indptr"][40])] = 10**6


def test_one_broken_source_among_others_is_named_and_the_others_are_built(atlas, trained, built, tmp_path, small_shards):
    folder = Path(shutil.copytree(atlas, tmp_path / "atlas"))
    cut, broken = folder / "set0.h5ad", folder / "set2.h5ad"
    cut.write_bytes(cut.read_bytes()[:3000])
    break_in_the_middle(broken)
    with pytest.raises(CorpusError) as failed:
        build_corpus(plan_of(folder), trained.tokenizer, tmp_path / "corpus")
    said = str(failed.value)
    assert "2 of 5 sources could not be read" in said
    assert "set0.h5ad: can't be read, so cut short" in said
    assert "column index 1,000,000" in said
    assert "--skip-broken" in said
    assert len(list((tmp_path / "corpus.partial").glob("*.parquet"))) >= 9
    for name in ("set0.h5ad", "set2.h5ad"):
        (folder / name).unlink()
        shutil.copy2(atlas / name, folder / name)
    assert build_corpus(plan_of(folder), trained.tokenizer, tmp_path / "corpus")["shards"] == built["shards"]


def open_files(folder: Path) -> list[str]:
    """Files below a folder that this process holds open or mapped."""
    names = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    mapped = [line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    return [name for name in [*names, *mapped] if name.startswith(str(folder))]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed by Linux alone")
@pytest.mark.parametrize("is_broken", [False, True])
def test_after_a_build_no_source_and_nothing_rewritten_is_held_open(trained, tmp_path, is_broken):
    for number in range(blocks.OPEN_AT_ONCE + 1):
        adata = kind_cells(KINDS, 30, seed=number)
        adata.X = sp.csc_matrix(adata.X)
        adata.write_h5ad(tmp_path / f"set{number}.h5ad")
    if is_broken:
        with h5py.File(tmp_path / "set0.h5ad", "r+") as file:
            file["X/indices"][3] = 10**6
    defaults = {"split": {"by": "stratified", "test": 0.2}}
    plan = read_plan({"sources": ["*.h5ad"], "defaults": defaults, "tokenizer": {"text_size": 300}}, tmp_path)
    with pytest.raises(CorpusError) if is_broken else nullcontext():
        build_corpus(plan, trained.tokenizer, tmp_path / "corpus")
    if not is_broken:
        build_plan_tokenizer(plan, tmp_path / "tokenizer")
    assert not open_files(tmp_path)


def test_broken_sources_can_be_left_out_which_the_manifest_says(atlas, trained, tmp_path, small_shards):
    folder = Path(shutil.copytree(atlas, tmp_path / "atlas"))
    break_in_the_middle(folder / "set1.h5ad")
    heard: list[str] = []
    manifest = build_corpus(plan_of(folder), trained.tokenizer, tmp_path / "corpus", skip_broken=True, say=heard.append)
    assert [source["file"] for source in manifest["sources"]] == ["set0.h5ad", "set2.h5ad", "set3.h5ad", "set4.zarr"]
    assert manifest["left_out"][0]["file"] == "set1.h5ad"
    assert any("left out: set1.h5ad" in line for line in heard)
    assert manifest["cells"] == 240 == len(Corpus(tmp_path / "corpus").read())


def test_a_full_disk_stops_the_build_and_keeps_what_is_finished(atlas, trained, built, tmp_path, small_shards, monkeypatch):
    whole, done = blocks.ShardWriter.__exit__, []

    def full(self, *error):
        if len(done) == 4:
            self._writer.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(self.path)
        return whole(self, *error)

    monkeypatch.setattr(blocks.ShardWriter, "__exit__", full)
    with pytest.raises(
        CorpusError, match=r"disk full .* the shards that are finished are kept: free some space and run the same command again"
    ):
        build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus")
    monkeypatch.setattr(blocks.ShardWriter, "__exit__", whole)
    assert len(list((tmp_path / "corpus.partial").glob("*.parquet"))) == 4
    assert build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus") == built
    assert not list((tmp_path / "corpus").rglob("*.partial"))


def test_a_column_of_mixed_types_is_read_as_text(trained, tmp_path):
    adata = kind_cells(KINDS, 30)
    adata.obs["cell_type"] = [("B cell", "7", "nan")[row % 3] for row in range(30)]
    adata.write_h5ad(tmp_path / "mixed.h5ad")
    build_corpus(read_plan({"sources": ["mixed.h5ad"]}, tmp_path), trained.tokenizer, tmp_path / "corpus")
    assert set(Corpus(tmp_path / "corpus").read().fields["cell_type"]) == {"B cell", "7", None}


def test_field_maps_may_differ_from_file_to_file(trained, tmp_path):
    for name, column in (("a", "site"), ("b", "where")):
        adata = kind_cells(KINDS, 30)
        adata.obs[column] = "lung"
        del adata.obs["tissue"]
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    entries = [{"path": "a.h5ad", "fields": {"organ": "site"}}, {"path": "b.h5ad", "fields": {"organ": "where"}}]
    build_corpus(read_plan({"sources": entries, "deduplicate": False}, tmp_path), trained.tokenizer, tmp_path / "corpus")
    assert Corpus(tmp_path / "corpus").read().fields["organ"] == ["lung"] * 60
    entries[1]["fields"]["organ"] = "site"
    with pytest.raises(CorpusError, match=r"b\.h5ad: field organ: obs has no column 'site'"):
        build_corpus(read_plan({"sources": entries, "deduplicate": False}, tmp_path), trained.tokenizer, tmp_path / "other")


# -- doubles, weights, leaks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_at_once", [10**6, 40])
def test_cells_that_are_in_several_files_are_kept_once(trained, tmp_path, monkeypatch, n_at_once):
    monkeypatch.setattr(duplicates, "AT_ONCE", n_at_once)
    first, second = kind_cells(KINDS, 60), kind_cells(KINDS, 50, seed=3)
    second = anndata.concat([second, first[10:30]])
    second.obs_names = [f"renamed{number}" for number in range(70)]
    first.write_h5ad(tmp_path / "a.h5ad")
    second.write_h5ad(tmp_path / "b.h5ad")
    plan = {"sources": ["a.h5ad", "b.h5ad"]}
    heard: list[str] = []
    manifest = build_corpus(read_plan(plan, tmp_path), trained.tokenizer, tmp_path / "corpus", say=heard.append)
    rows = Corpus(tmp_path / "corpus").read()
    assert (manifest["cells"], manifest["doubles"], len(rows)) == (110, 20, 110)
    assert [source["doubles"] for source in manifest["sources"]] == [0, 20]
    assert not set(rows.cell_ids) & {f"renamed{number}" for number in range(50, 70)}
    assert heard[0] == "20 cells with the counts of an earlier cell were left out"
    Corpus(tmp_path / "corpus").verify()
    whole = build_corpus(read_plan({**plan, "deduplicate": False}, tmp_path), trained.tokenizer, tmp_path / "whole")
    assert (whole["cells"], whole["doubles"]) == (130, 0)
    found = find_duplicates(tmp_path / "whole", [shard["file"] for shard in whole["shards"]])
    assert [rows.tolist() for rows in found.values()] == [list(range(50, 70))]


def test_cells_of_few_genes_are_never_taken_for_doubles(trained, tmp_path):
    adata = kind_cells(KINDS, 20)
    adata.X = sp.csr_matrix(np.eye(20, adata.n_vars) + np.eye(1, adata.n_vars).repeat(20, axis=0))
    anndata.concat([adata, adata], index_unique="-").write_h5ad(tmp_path / "shallow.h5ad")
    manifest = build_corpus(read_plan({"sources": ["shallow.h5ad"]}, tmp_path), trained.tokenizer, tmp_path / "corpus")
    assert (manifest["cells"], manifest["doubles"]) == (40, 0)


def test_sources_and_labels_weigh_as_the_plan_says(atlas, trained, tmp_path):
    sources = [{"path": "set0.h5ad", "weight": 3}, "set1.h5ad", {"path": "set2.h5ad", "weight": 0}]
    plan = read_plan({"sources": sources, "weights": {"cell_type": {"NK": 2}}}, atlas)
    build_corpus(plan, trained.tokenizer, tmp_path / "corpus")
    rows = Corpus(tmp_path / "corpus").read()
    is_nk = np.array(rows.fields["cell_type"]) == "natural killer cell"
    assert rows.weights.tolist() == (np.repeat([3, 1, 0], CELLS) * np.where(is_nk, 2, 1)).tolist()
    writer = SentenceWriter(load_tokenizer(trained.tokenizer), load_vocabulary(trained.tokenizer), load_prompts())
    packing = Packing(context=512, pack_tokens=1024)
    drawn, _ = epoch_sentences(rows, counts_of(rows.ids, writer), writer, packing, seed=0, epoch=0)
    assert len(drawn) == rows.weights.sum()


def test_donors_in_several_splits_are_counted_and_told(atlas, trained, tmp_path):
    heard: list[str] = []
    manifest = build_corpus(
        plan_of(atlas, defaults={"split": {"by": "cell", "test": 0.5}}), trained.tokenizer, tmp_path / "a", say=heard.append
    )
    assert manifest["donors_in_several_splits"] == manifest["donors"] == 7 * FILES
    assert any("35 of 35 donors have cells in more than one split" in line for line in heard)
    parted = build_corpus(plan_of(atlas, defaults={"split": {"by": "donor", "test": 0.5}}), trained.tokenizer, tmp_path / "b")
    assert (parted["donors_in_several_splits"], parted["donors"]) == (0, 35)


# -- what is in it -----------------------------------------------------------------------------------------------------------------------


def test_contents_say_labels_depths_and_lengths(built, tmp_path):
    contents = contents_of(built)
    assert contents["labels"]["cell_type"] == dict.fromkeys(KINDS, 100)
    assert sum(contents["depths"]["bins"].values()) == sum(contents["lengths"]["bins"].values()) == 300
    low, middle, high = contents["lengths"]["quartiles"]
    assert 0 < low <= middle <= high <= 200
    draw_corpus(contents, tmp_path / "corpus.png")
    assert (tmp_path / "corpus.png").stat().st_size > 10_000


def test_shards_are_read_by_the_datasets_library(atlas, trained, built, tmp_path, small_shards):
    datasets = pytest.importorskip("datasets")
    build_corpus(plan_of(atlas), trained.tokenizer, tmp_path / "corpus")
    found = datasets.load_dataset("parquet", data_files=str(tmp_path / "corpus" / "*.parquet"), cache_dir=str(tmp_path / "cache"))["train"]
    rows = Corpus(tmp_path / "corpus").read()
    assert found.num_rows == 300
    assert found[7]["ids"] == rows.ids[7].tolist()
    assert found["cell_type"][:] == rows.fields["cell_type"]
