"""Files from strangers: what is no plain file of cells is refused and leaves nothing; what is one is kept clean and can be joined back."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from conftest import kind_cells

from scmulan.cells import check, read_cells, read_draft, read_h5ad
from scmulan.errors import ScmulanError
from scmulan.serving import uploads_apart
from scmulan.serving.uploads import (
    FILE_ID,
    Upload,
    UploadLimits,
    UploadRefused,
    Uploads,
    UploadsFull,
    UploadTooLarge,
    UploadUnknown,
    shown_name,
)
from scmulan.serving.uploads_apart import MOST_SAID, _environment, _first, _understood
from scmulan.serving.uploads_clean import clean_cells, told
from scmulan.serving.uploads_limits import CLEAN, RECEIVED
from scmulan.serving.uploads_structure import MOST_OBJECTS, look_inside

POLLEN = Path(__file__).parent.parent / "embedded" / "cells" / "pollen_cortex.h5ad"
READER = [sys.executable, "-P", "-m", uploads_apart.READER]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def some_cells(n_cells: int = 60) -> AnnData:
    return kind_cells(("B cell", "natural killer cell"), n_cells)


async def parts(data: bytes, size: int = 2**16) -> AsyncIterator[bytes]:
    for first in range(0, len(data), size):
        yield data[first : first + size]


def add(folder: Path, data: bytes, name: str = "cells.h5ad", limits: UploadLimits | None = None) -> Upload:
    return asyncio.run(Uploads(folder, limits or UploadLimits()).add(name, parts(data)))


def refusal(folder: Path, data: bytes, **limits: int) -> UploadRefused:
    """The error of an upload, after which nothing of it is there."""
    with pytest.raises(UploadRefused) as caught:
        add(folder, data, limits=UploadLimits(**limits))
    assert not list(folder.iterdir())
    return caught.value


def readers() -> list[int]:
    """Processes that read an upload for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, status = (path / "cmdline").read_bytes(), (path / "status").read_text()
        except OSError:
            continue
        if uploads_apart.READER.encode() in command and f"PPid:\t{os.getpid()}\n" in status and "State:\tZ" not in status:
            found.append(int(path.name))
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file as anybody has it."""
    path = tmp_path_factory.mktemp("plain") / "plain.h5ad"
    some_cells().write_h5ad(path)
    return path.read_bytes()


def changed(plain: bytes, path: Path, change: Callable[[h5py.File], None]) -> bytes:
    """The small file after a change to its HDF5."""
    path.write_bytes(plain)
    with h5py.File(path, "r+") as file:
        change(file)
    return path.read_bytes()


# -- what is kept --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnnData, Upload]:
    """A folder with one upload, of a file with much beside its counts, under a name that is a trick."""
    folder = tmp_path_factory.mktemp("kept")
    adata = some_cells()
    adata.obs["share"], adata.obs["is_good"], adata.obs["day"] = np.linspace(0, 1, 60), True, pd.array([1, None] * 30, dtype="Int64")
    adata.obs["note"] = ["a", None, "ü\u202e"] * 20
    adata.obsm["X_umap"], adata.obsm["X_wide"] = np.ones((60, 2)), np.ones((60, 51))
    adata.layers["spliced"] = adata.X.copy()
    adata.obsp["distances"] = sp.eye(60, format="csr")
    adata.uns["trap"] = np.frombuffer(pickle.dumps(Trap(folder / "sprung")), dtype=np.uint8)
    adata.write_h5ad(folder / "source.h5ad", compression="gzip")
    return folder, adata, add(folder / "files", (folder / "source.h5ad").read_bytes(), "../../etc/pass\0\u202ewd")


def test_a_good_file_is_kept_with_what_the_doctor_says_of_it(kept: tuple[Path, AnnData, Upload]) -> None:
    folder, adata, upload = kept
    report = check(adata).to_dict()
    assert re.fullmatch(FILE_ID, upload.id)
    assert (upload.name, upload.bytes) == ("passwd", (folder / "source.h5ad").stat().st_size)
    assert (upload.cells, upload.genes, upload.verdict["verdict"]) == (*adata.shape, report["verdict"])
    assert [finding["found"] for finding in upload.verdict["findings"]] == [finding["found"] for finding in report["findings"]]
    assert upload.obs["cell_type"] == ["B cell", "natural killer cell"]
    assert upload.obs["share"] == adata.obs["share"].iloc[:5].tolist()


def test_the_clean_file_holds_counts_names_columns_and_small_embeddings_and_nothing_else(kept: tuple[Path, AnnData, Upload]) -> None:
    folder, adata, upload = kept
    clean = Uploads(folder / "files").cells(upload.id)
    assert (clean.X != adata.X).nnz == 0
    assert clean.X.dtype == np.int32
    assert list(clean.obs_names) == list(adata.obs_names)
    assert list(clean.var_names) == list(adata.var_names)
    assert list(clean.obs) == list(adata.obs)
    assert clean.obs["day"].isna().sum() == 30
    assert clean.obs["note"].tolist()[2] == "ü\u202e"
    assert list(clean.obsm) == ["X_umap"]
    assert not clean.uns
    assert not clean.layers
    assert not clean.obsp
    assert clean.raw is None
    assert upload.left_out == ["obsm: 'X_wide'", "obsp: 'distances'", "layers: 'spliced'", "uns: 'trap'"]


def test_what_was_received_is_gone_and_a_pickle_in_it_was_never_opened(kept: tuple[Path, AnnData, Upload]) -> None:
    folder, _, upload = kept
    assert {path.name for path in (folder / "files" / upload.id).iterdir()} == {CLEAN, "upload.json"}
    assert not (folder / "sprung").exists()


def test_a_later_process_finds_uploads_removes_halves_and_passes_by_what_is_damaged(kept: tuple[Path, AnnData, Upload]) -> None:
    folder, _, upload = kept
    half, damaged = folder / "files" / "coming-0123", folder / "files" / f"file-{'0' * 24}"
    half.mkdir()
    (half / RECEIVED).write_bytes(b"half")
    damaged.mkdir()
    later = Uploads(folder / "files")
    assert later.list() == [upload]
    assert later.get(upload.id) == upload
    assert not half.exists()
    damaged.rmdir()


@pytest.mark.parametrize(
    "odd", ["", ".", "..", "/", "file-", "../" * 5 + "etc/passwd", f"file-{'0' * 24}", f"file-{'0' * 24}\n", "file-\0"]
)
def test_an_unknown_id_is_unknown_whatever_it_looks_like(kept: tuple[Path, AnnData, Upload], odd: str) -> None:
    folder, _, upload = kept
    files = Uploads(folder / "files")
    for ask in (files.get, files.cells, files.remove):
        for file_id in (odd, f"{upload.id}/../{upload.id}", f"{upload.id}{odd or ' '}"):
            with pytest.raises(UploadUnknown, match="no file"):
                ask(file_id)
    assert files.list() == [upload]


def test_a_file_of_real_cells_reads_as_it_did_and_is_gone_when_removed(tmp_path: Path) -> None:
    files = Uploads(tmp_path)
    upload = asyncio.run(files.add("pollen_cortex.h5ad", parts(POLLEN.read_bytes())))
    same_cells(files.cells(upload.id), read_h5ad(POLLEN))
    files.remove(upload.id)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UploadUnknown):
        files.cells(upload.id)


def same_cells(clean: AnnData, source: AnnData) -> None:
    found, needed = read_cells(clean), read_cells(source)
    assert (found.counts != needed.counts).nnz == 0
    assert (found.measured == needed.measured).all()
    assert (found.fields, found.cell_ids, found.donors) == (needed.fields, needed.cell_ids, needed.donors)


def in_form(form: str) -> AnnData:
    adata = some_cells()
    if form == "log1p":
        adata.X = sp.csr_matrix(np.log1p(adata.X.toarray() / adata.X.toarray().sum(axis=1, keepdims=True) * 1e4))
    elif form == "raw":
        adata.raw = adata.copy()
        adata = adata[:, :20].copy()
        adata.X = adata.X.toarray() - 3.5
    elif form == "ids in a column":
        adata.var["gene_ids"] = kind_cells(("B cell", "natural killer cell"), 60, gene_style="ensembl").var_names
        adata.var_names = [str(number) for number in range(adata.n_vars)]
    elif form == "guides among genes":
        adata.var["feature_types"] = ["CRISPR Guide Capture"] * 3 + ["Gene Expression"] * (adata.n_vars - 3)
    elif form == "species in uns":
        del adata.obs["organism"]
        adata.uns["organism"] = "Homo sapiens"
    elif form == "names given twice":
        adata.obs_names = ["cell"] * 60
        adata.var_names = ["ACTB", *adata.var_names[1:]]
    return adata


@pytest.mark.parametrize("form", ["log1p", "raw", "ids in a column", "guides among genes", "species in uns", "names given twice"])
def test_the_clean_file_of_every_form_reads_as_the_form_did(tmp_path: Path, form: str) -> None:
    adata = in_form(form)
    clean, _ = clean_cells(read_draft(adata, {}, None, None))
    clean.write_h5ad(tmp_path / CLEAN)
    same_cells(read_h5ad(tmp_path / CLEAN), adata)
    assert list(clean.obs_names) == list(adata.obs_names)


def test_columns_that_are_neither_numbers_nor_texts_or_of_odd_names_are_left_out_and_named() -> None:
    adata = some_cells()
    adata.obs["when"], adata.obs["a/b"], adata.obs["nul"] = pd.Timestamp("2020-01-01"), "x", "a\0b"
    clean, left_out = clean_cells(read_draft(adata, {}, None, None))
    assert left_out == ["obs: 'when', 'a/b'"]
    assert clean.obs["nul"].tolist() == ["ab"] * 60


def test_as_many_files_are_kept_as_may_be(kept: tuple[Path, AnnData, Upload], plain: bytes) -> None:
    with pytest.raises(UploadsFull, match="1 files are kept, the most there may be; remove some first"):
        add(kept[0] / "files", plain, limits=UploadLimits(files=1))


# -- what is refused -----------------------------------------------------------------------------------------------------------


def test_a_file_without_known_genes_is_refused_with_the_report_of_the_doctor(tmp_path: Path) -> None:
    adata = some_cells()
    adata.var_names = [f"nothing{number}" for number in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "odd.h5ad")
    error = refusal(tmp_path / "files", (tmp_path / "odd.h5ad").read_bytes())
    assert str(error).startswith("cells.h5ad: no known gene among 'nothing0', 'nothing1', 'nothing2'")
    assert error.report is not None
    assert error.report["verdict"] == "problem"
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes, an empty file"), (b"\x89HDF", "4 bytes, no HDF5 file"), (b"obs,var\n1,2\n", "not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(5000), "not an HDF5 file, or cut short or damaged"),
    ],
)  # fmt: skip
def test_what_is_no_hdf5_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    assert says in str(refusal(tmp_path, data))


def test_what_is_no_hdf5_is_refused_at_its_first_bytes_and_too_many_bytes_as_they_come(tmp_path: Path, plain: bytes) -> None:
    taken: list[bytes] = []

    async def endless(start: bytes) -> AsyncIterator[bytes]:
        taken.clear()
        while True:
            taken.append(start)
            yield start

    for start, kind in ((b"no HDF5 " * 100, UploadRefused), (plain[:1000], UploadTooLarge)):
        with pytest.raises(kind, match="not an HDF5 file" if kind is UploadRefused else r"more than 10,000 bytes; needed at most that"):
            asyncio.run(Uploads(tmp_path, UploadLimits(bytes=10_000)).add("endless", endless(start)))
        assert len(taken) == (1 if kind is UploadRefused else 11)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, plain: bytes, share: float) -> None:
    assert "cut short or damaged" in str(refusal(tmp_path, plain[: int(share * len(plain))]))


def link_outside(file: h5py.File) -> None:
    file["layers/outside"] = h5py.ExternalLink("/etc/passwd", "/x")


def link_softly(file: h5py.File) -> None:
    file["layers/other"] = h5py.SoftLink("/../X")


def view_others(file: h5py.File) -> None:
    """A view of a pipe: who opens it waits for ever."""
    pipe = f"{file.filename}.pipe"
    os.mkfifo(pipe)
    layout = h5py.VirtualLayout(shape=(60, 5), maxshape=(None, 5), dtype="f4")
    layout[: h5py.h5s.UNLIMITED] = h5py.VirtualSource(pipe, "x", shape=(60, 5), maxshape=(None, 5))[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("layers/view", layout)


def store_outside(file: h5py.File) -> None:
    file.create_dataset("layers/outside", shape=(60, 5), dtype="u1", external=[("/etc/passwd", 0, 300)])


def refer(file: h5py.File) -> None:
    file.create_dataset("uns/reference", data=file["obs"].ref, dtype=h5py.ref_dtype)


def refer_to_region(file: h5py.File) -> None:
    file.create_dataset("uns/region", data=file["var/_index"].regionref[:2], dtype=h5py.regionref_dtype)


def refer_in_table(file: h5py.File) -> None:
    file.create_dataset("uns/table", shape=(2,), dtype=[("number", "f4"), ("reference", h5py.ref_dtype)])


def pickle_in_attribute(file: h5py.File) -> None:
    file["obs"].attrs["frame"] = np.void(pickle.dumps(Trap(Path(f"{file.filename}.sprung"))))


def sequences(file: h5py.File) -> None:
    file.create_dataset("uns/sequences", shape=(3,), dtype=h5py.vlen_dtype("u1"))


def declare_much(file: h5py.File) -> None:
    matrix = file.create_dataset("layers/much", shape=(10**6, 10**6), chunks=(64, 64), dtype="f4", compression="gzip")
    matrix[:64, :64] = 0


def zeros(file: h5py.File, n_chunks: int, n_times: int) -> None:
    """Chunks of 16 MiB of zeros, packed once or twice."""
    stored, packed = h5py.h5p.create(h5py.h5p.DATASET_CREATE), bytes(2**24)
    stored.set_chunk((2**24,))
    for _ in range(n_times):
        stored.set_deflate(9)
        packed = zlib.compress(packed, 9)
    space = h5py.h5s.create_simple((n_chunks * 2**24,))
    h5py.h5d.create(file["layers"].id, b"zeros", h5py.h5t.STD_U8LE, space, stored)
    for number in range(n_chunks):
        file["layers/zeros"].id.write_direct_chunk((number * 2**24,), packed)


def hold_itself(file: h5py.File) -> None:
    file["uns/loop"] = file["uns"]


def fan_out(file: h5py.File) -> None:
    """Groups that each hold the next one ten times: 10^6 groups to who follows."""
    for level in range(6):
        file.create_group(f"fan/{level}")
        for number in range(10 if level else 0):
            file[f"fan/{level - 1}/{number}"] = file[f"fan/{level}"]


def large_attribute(file: h5py.File) -> None:
    file.create_group("uns/attributes", track_order=True).attrs.create("large", np.zeros(2**22 + 1, "f8"))


def declare_chunk(file: h5py.File) -> None:
    """A little data in chunks of 4 GiB less a bit, which who reads has to make room for."""
    file.create_dataset("layers/chunks", shape=(8,), maxshape=(None,), chunks=(2**29 - 1,), dtype="f8", compression="gzip")


@pytest.mark.parametrize(
    ("change", "says", "kind"),
    [
        (link_outside, "/layers/outside: a link to another file; needed the data itself", UploadRefused),
        (link_softly, "/layers/other: a soft link; needed the data itself", UploadRefused),
        (view_others, "/layers/view: a virtual data set", UploadRefused),
        (store_outside, "/layers/outside: values stored in another file", UploadRefused),
        (refer, "/uns/reference: holds a reference to another object; needed numbers or texts", UploadRefused),
        (refer_to_region, "/uns/region: holds a reference", UploadRefused),
        (refer_in_table, "/uns/table: holds a reference", UploadRefused),
        (pickle_in_attribute, "attribute 'frame' of /obs: holds opaque bytes, as of a pickle", UploadRefused),
        (sequences, "/uns/sequences: holds sequences", UploadRefused),
        (declare_much, "/layers/much: declares 4,000,000,000,000 bytes, of which", UploadRefused),
        (lambda file: zeros(file, 10, 2), "/layers/zeros: declares 167,772,160 bytes, of which", UploadRefused),
        (lambda file: zeros(file, 260, 1), "/layers/zeros: 4,362,076,160 of 4,362,", UploadTooLarge),
        (hold_itself, "groups more than 32 deep, as where one holds itself", UploadRefused),
        (fan_out, f"more than {MOST_OBJECTS:,} objects", UploadRefused),
        (large_attribute, "attribute 'large' of /uns/attributes: 33,554,440 bytes", UploadRefused),
        (declare_chunk, "/layers/chunks: 4,294,967,288 of 4,29", UploadTooLarge),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_what_no_h5ad_holds_is_refused_where_it_lies(
    tmp_path: Path, plain: bytes, change: Callable[[h5py.File], None], says: str, kind: type[UploadRefused]
) -> None:
    error = refusal(tmp_path / "files", changed(plain, tmp_path / "changed.h5ad", change))
    assert says in str(error)
    assert type(error) is kind
    assert str(error).startswith("cells.h5ad: ")
    assert "needed" in str(error)
    assert not list(tmp_path.glob("*.sprung"))


@pytest.mark.parametrize("flag", [0, 1], ids=["mandatory", "optional"])
def test_a_filter_that_is_not_built_in_is_refused(tmp_path: Path, plain: bytes, flag: int) -> None:
    def pack(file: h5py.File) -> None:
        stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        stored.set_chunk((10,))
        stored.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(file["layers"].id, b"packed", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((20,)), stored)

    data = changed(plain, tmp_path / "changed.h5ad", pack)
    optional = (32999).to_bytes(2, "little") + bytes((0, 0, 1, 0))  # filter, length of its name, flags
    assert data.count(optional) == 1
    data = data.replace(optional, optional[:4] + bytes((flag, 0)))
    assert "/layers/packed: packed by filter 32999 (without a name); needed none or gzip, lzf" in str(refusal(tmp_path / "files", data))


def test_every_filter_that_is_built_in_is_taken(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        file.create_dataset("gzip", data=np.arange(100), compression="gzip")
        file.create_dataset("lzf", data=np.arange(100), compression="lzf", shuffle=True, fletcher32=True)
        file.create_dataset("scaled", data=np.arange(100), scaleoffset=0)
    look_inside(tmp_path / "packed.h5", UploadLimits())


def test_every_embedded_file_passes_the_look_inside() -> None:
    for path in POLLEN.parent.glob("*.h5ad"):
        look_inside(path, UploadLimits())


# -- limits --------------------------------------------------------------------------------------------------------------------


def test_too_many_cells_are_refused_before_they_are_read(tmp_path: Path, plain: bytes) -> None:
    error = refusal(tmp_path, plain, cells=59)
    assert type(error) is UploadTooLarge
    assert "/obs: 60 cells; needed at most 59; upload it in parts, such as adata[:59].copy()" in str(error)
    assert error.report is None


def test_too_many_values_are_refused(tmp_path: Path, plain: bytes) -> None:
    error = refusal(tmp_path, plain, values=100)
    assert type(error) is UploadTooLarge
    assert re.search(r"60 cells with [\d,]+ counts above zero; needed at most 200,000 cells with 100;", str(error))


def sparse_of_much(file: h5py.File) -> None:
    """60 cells of 140,000 genes each: 8 million values that lie there packed in little."""
    n_genes = 140_000
    del file["X"], file["var"]
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [60, n_genes]})
    for name, values in {
        "data": np.ones(60 * n_genes, "f4"), "indices": np.tile(np.arange(n_genes, dtype="i4"), 60), "indptr": np.arange(61) * n_genes
    }.items():  # fmt: skip
        group.create_dataset(name, data=values, compression="lzf", chunks=(2**20,) if len(values) > 100 else None)
    frame = file.create_group("var")
    frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    frame.attrs.create("column-order", [], dtype=h5py.string_dtype())
    frame.create_dataset("_index", data=[f"GENE{number}" for number in range(n_genes)])


@pytest.mark.parametrize("change", [lambda file: zeros(file, 36, 1), sparse_of_much], ids=["when it is read", "when it is worked on"])
def test_more_memory_than_may_be_is_not_taken(tmp_path: Path, plain: bytes, change: Callable[[h5py.File], None]) -> None:
    data = changed(plain, tmp_path / "changed.h5ad", change)
    error = refusal(tmp_path / "files", data, memory=650 * 2**20)
    assert type(error) is UploadTooLarge
    assert "reading it takes more than 0.6 GiB of memory" in str(error)


def test_longer_than_may_be_is_not_waited(tmp_path: Path) -> None:
    error = refusal(tmp_path, POLLEN.read_bytes(), seconds=1)
    assert type(error) is UploadTooLarge
    assert "reading it takes longer than 1 s" in str(error)
    assert not readers()


def test_the_kernel_ends_the_reader_at_its_processor_time_with_nobody_watching(tmp_path: Path) -> None:
    (tmp_path / RECEIVED).write_bytes(POLLEN.read_bytes())
    limits = json.dumps(asdict(UploadLimits(seconds=1)))
    run = subprocess.run([*READER, limits], cwd=tmp_path, env=_environment(), capture_output=True, check=False, timeout=60)
    assert run.returncode == -signal.SIGXCPU
    assert not run.stdout
    with pytest.raises(UploadTooLarge, match="takes longer than 1 s"):
        uploads_apart._refuse_by_code(run.returncode, UploadLimits(seconds=1))


def test_an_upload_that_is_cancelled_takes_its_process_and_files_with_it(tmp_path: Path) -> None:
    async def cancel() -> int:
        task = asyncio.create_task(Uploads(tmp_path).add("pollen.h5ad", parts(POLLEN.read_bytes())))
        looks = 0
        while not (found := readers()):  # the loop runs on while it is received and read
            await asyncio.sleep(0.01)
            looks += 1
        await asyncio.sleep(0.3)
        assert readers() == found
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not readers()
        return looks

    assert asyncio.run(cancel())
    assert not list(tmp_path.iterdir())


def test_an_upload_whose_client_goes_away_leaves_nothing(tmp_path: Path, plain: bytes) -> None:
    async def leaving() -> AsyncIterator[bytes]:
        yield plain[:1000]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        asyncio.run(Uploads(tmp_path).add("cells.h5ad", leaving()))
    assert not list(tmp_path.iterdir())


CONFINED = """
import json, resource, socket, sys
from scmulan.serving.uploads_confined import confine
from scmulan.serving.uploads_limits import UploadLimits
network = confine(UploadLimits(memory=2**30, seconds=7, bytes=2**20))
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    reached = True
except OSError:
    reached = False
try:
    bytearray(2**30)
    grown = True
except MemoryError:
    grown = False
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE")]
print(json.dumps({"network": network, "reached": reached, "grown": grown, "new": status["NoNewPrivs"], "limits": limits}))
"""


def test_a_confined_process_has_its_limits_no_new_rights_and_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        run = subprocess.run([sys.executable, "-c", CONFINED, port], capture_output=True, check=True, env=_environment())
    found = json.loads(run.stdout)
    assert found["limits"] == [2**30, 7, 2**21 + 2**26, 64, 0]
    assert (found["grown"], found["new"]) == (False, "1")
    assert found["reached"] == bool(found["network"])  # where the kernel keeps it, that is said


def test_nothing_of_the_servers_environment_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = _environment()
    assert "secret" not in found.values()
    assert (found["HDF5_PLUGIN_PATH"], found["HDF5_PLUGIN_PRELOAD"]) == ("::", "::")
    assert not {"HOME", "PATH", "LD_PRELOAD", "LD_LIBRARY_PATH"} & set(found)


# -- what the reader says is not believed --------------------------------------------------------------------------------------


GOOD = {"cells": 1, "genes": 1, "report": {}, "obs": {}, "left_out": [], "network": ""}


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"{", b"[" * 100_000, b'"' + b"a" * MOST_SAID + b'"', b"\xff", json.dumps({**GOOD, "cells": "many"}).encode(),
     json.dumps({**GOOD, "obs": None}).encode()],
    ids=range(8),
)  # fmt: skip
def test_an_answer_that_is_no_answer_is_a_refusal(tmp_path: Path, said: bytes) -> None:
    (tmp_path / CLEAN).write_bytes(b"")
    with pytest.raises(UploadRefused):
        _understood(said, tmp_path)


def test_a_clean_file_that_is_not_there_or_stands_elsewhere_is_a_refusal(tmp_path: Path) -> None:
    said = json.dumps(GOOD).encode()
    with pytest.raises(UploadRefused, match="did not finish"):
        _understood(said, tmp_path)
    (tmp_path / CLEAN).symlink_to(POLLEN)
    with pytest.raises(UploadRefused, match="did not finish"):
        _understood(said, tmp_path)
    (tmp_path / CLEAN).unlink()
    (tmp_path / CLEAN).write_bytes(b"")
    assert _understood(said, tmp_path) == GOOD


def test_a_refusal_shows_no_control_characters_and_is_cut(tmp_path: Path) -> None:
    with pytest.raises(UploadTooLarge) as caught:
        _understood(json.dumps({"refused": "a\x1b[31m\u202eb\n" + "c" * 10_000, "is_too_large": True}).encode(), tmp_path)
    assert str(caught.value).startswith("a[31mb cc")
    assert len(str(caught.value)) == 4000


def test_a_reader_that_crashes_is_a_refusal_and_one_that_was_killed_says_so() -> None:
    with pytest.raises(UploadRefused, match=r"code -11\): most likely damaged inside") as caught:
        uploads_apart._refuse_by_code(-signal.SIGSEGV, UploadLimits())
    assert type(caught.value) is UploadRefused
    with pytest.raises(UploadTooLarge, match="was killed"):
        uploads_apart._refuse_by_code(-signal.SIGKILL, UploadLimits())


def test_of_a_stream_the_first_bytes_are_kept_and_the_rest_is_read() -> None:
    async def read() -> tuple[bytes, bool]:
        stream = asyncio.StreamReader()
        stream.feed_data(b"ab" * 10**6)
        stream.feed_eof()
        return await _first(stream, 5), stream.at_eof()

    assert asyncio.run(read()) == (b"ababa", True)


def test_a_network_that_is_kept_is_said_once_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / CLEAN).write_bytes(b"")
    uploads_apart._has_told.discard("no such right")
    for _ in range(2):
        _understood(json.dumps({**GOOD, "network": "no such right"}).encode(), tmp_path)
    assert [record.message for record in caplog.records] == ["uploads are read in a process that keeps its network: no such right"]


def test_what_is_told_is_plain_and_bounded() -> None:
    found = told(
        {"a": float("nan"), "b": np.int64(3), "c": "x" * 600, "d": list(range(200)), "e": {str(n): n for n in range(200)}, "f": "\udcff"}
    )
    assert (found["a"], found["b"], found["f"]) == (None, 3, "?")
    assert found["c"] == "x" * 500 + "…"
    assert found["d"][99:] == [99, "… 200 in all"]
    assert found["e"]["…"] == "200 in all"
    json.dumps(found, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\data\\pbmc.h5ad", "pbmc.h5ad"), ("a\0b\x1b[2J\n.h5ad", "ab[2J .h5ad"), ("", "cells.h5ad"),
        ("..", "cells.h5ad"), ("x/", "cells.h5ad"), ("\u202egpj.h5ad\u200b\ufeff", "gpj.h5ad"), ("\ud800Zellen_ü.h5ad", "Zellen_ü.h5ad"),
        ("a" * 500, "a" * 120),
    ],
)  # fmt: skip
def test_a_name_is_shown_without_path_controls_or_excess(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_every_error_is_one_of_scmulans() -> None:
    for kind in (UploadRefused, UploadTooLarge, UploadsFull, UploadUnknown):
        assert issubclass(kind, ScmulanError)
    assert issubclass(UploadTooLarge, UploadRefused)
