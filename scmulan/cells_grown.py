"""Files of cells written without being held: a copy of a file to which answers are added, and matrices that grow by blocks of rows.

Memory holds a block, and of all cells what is added to ``obs``: some bytes a cell and column.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem, write_elem

from scmulan.cells_stored import column_names
from scmulan.cells_writing import appearing

CHUNK = 100_000
CHUNK_ROWS = 1024
EMPTY = ("layers", "obsm", "varm", "obsp", "varp")


@contextmanager
def added_to_copy(source: Path, output: Path) -> Iterator[Added]:
    """A copy of an ``.h5ad`` that is added to, and appears under its name when all is."""
    with appearing(output) as temporary:
        shutil.copyfile(source, temporary)
        with _opened(temporary, "r+") as (file, disk):
            yield Added(file, disk)


@contextmanager
def new_file(output: Path, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> Iterator[NewFile]:
    """An ``.h5ad`` of some cells and genes that is still without matrices, and appears under its name when they are written."""
    with appearing(output) as temporary, _opened(temporary, "w") as (file, disk):
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, value in (("obs", obs), ("var", var), ("uns", dict(uns)), *((name, {}) for name in EMPTY)):
            write_elem(file, name, value)
        yield NewFile(file, disk, len(var))


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[tuple[h5py.File, Disk]]:
    """A file to be written, and the disk below it; what the disk could not do is raised when the file is closed."""
    with Disk(path, "w+b" if mode == "w" else "r+b") as disk:
        try:
            with h5py.File(disk, mode) as file:
                yield file, disk
        finally:
            disk.check()


class Disk:
    """A file below HDF5 that keeps the first error of the disk to itself, and from then on what is written, so that it reads back.

    HDF5 brings the process down when it can't write what it still holds as it is closed, and when it reads other bytes than it wrote.
    """

    error: OSError | None

    def __init__(self, path: Path, mode: str):
        file: Any = open(path, mode, buffering=0)  # noqa: SIM115
        self._file, self.error = file, None
        self._at, self._unwritten = 0, list[tuple[int, bytes]]()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise what the disk could not do."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end()}[whence]
        return self._at

    def _end(self) -> int:
        """Where the last of it stands, whether it could be written or not."""
        return max(int(self._file.seek(0, os.SEEK_END)), *(at + len(content) for at, content in self._unwritten), 0)

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        content = bytearray(max(0, self._end() - self._at) if size < 0 else size)
        return bytes(content[: self.readinto(content)])

    def readinto(self, content: Any) -> int:
        at, end = self._at, self._end()
        view = memoryview(content).cast("B")[: max(0, end - at)]
        self._file.seek(at)
        n = 0
        while n < len(view) and (more := self._file.readinto(view[n:])):
            n += more
        view[n:] = bytes(len(view) - n)
        for start, unwritten in self._unwritten:
            first, last = max(start, at), min(start + len(unwritten), at + len(view))
            if first < last:
                view[first - at : last - at] = unwritten[first - start : last - start]
        self._at = at + len(view)
        return len(view)

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                self._file.seek(self._at + done)
                done += self._file.write(view[done:])
            except OSError as error:
                self.error = error
        if done < len(view):
            self._unwritten.append((self._at + done, bytes(view[done:])))
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> None:
        try:
            self._file.truncate(self._at if size is None else size)
        except OSError as error:
            self.error = self.error or error

    def flush(self) -> None:
        """Nothing is held back."""


class Added:
    """What is added to a file of cells."""

    def __init__(self, file: h5py.File, disk: Disk):
        self.file, self._disk = file, disk

    def obs(self, name: str, values: Any) -> None:
        """A column of ``obs``, in place of one of that name."""
        obs = self.file["obs"]
        names = column_names(obs)
        write_elem(obs, name, values)
        if name not in names:
            obs.attrs["column-order"] = np.array([*names, name], dtype=h5py.string_dtype())

    def obsm(self, name: str, blocks: Iterator[npt.NDArray[np.float32]], shape: tuple[int, int]) -> None:
        """A float32 array (C, D) of ``obsm``, given in blocks of rows."""
        if "obsm" not in self.file:
            write_elem(self.file, "obsm", {})
        group, first = self.file["obsm"], 0
        if name in group:
            del group[name]
        chunks = (min(CHUNK_ROWS, shape[0]), shape[1])
        whole = group.create_dataset(name, shape=shape, dtype=np.float32, chunks=chunks, compression="gzip")
        whole.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for block in blocks:
            whole[first : first + len(block)] = block
            first += len(block)
            self._disk.check()

    def uns(self, how: Mapping[str, Any]) -> None:
        """Joined to what ``uns["scmulan"]`` holds."""
        if "uns" not in self.file:
            write_elem(self.file, "uns", {})
        known = read_elem(self.file["uns/scmulan"]) if "scmulan" in self.file["uns"] else {}
        write_elem(self.file["uns"], "scmulan", {**known, **how})


class NewFile:
    """A file of cells that gets its matrices."""

    def __init__(self, file: h5py.File, disk: Disk, n_vars: int):
        self.file, self._disk, self._n_vars = file, disk, n_vars

    def matrix(self, name: str, dtype: npt.DTypeLike) -> GrownMatrix:
        """``X``, or ``layers/NAME``, that is still without a row."""
        return GrownMatrix(self.file.create_group(name), self._n_vars, dtype, self._disk)


class GrownMatrix:
    """A CSR matrix in a file that grows by blocks of rows; whole after `close`."""

    def __init__(self, group: h5py.Group, n_columns: int, dtype: npt.DTypeLike, disk: Disk):
        self.group, self._n_columns, self._disk = group, n_columns, disk
        self._ends = [np.zeros(1, dtype=np.int64)]
        self._parts = {
            part: self.group.create_dataset(part, shape=(0,), maxshape=(None,), dtype=kind, chunks=(CHUNK,), compression="gzip")
            for part, kind in (("data", dtype), ("indices", np.int32))
        }

    def add(self, block: sp.csr_matrix) -> None:
        """Some more rows."""
        filled = int(self._ends[-1][-1])
        for part, values in (("data", block.data), ("indices", block.indices)):
            self._parts[part].resize((filled + block.nnz,))
            self._parts[part][filled:] = values
            self._disk.check()
        self._ends.append(block.indptr[1:].astype(np.int64) + filled)

    def close(self) -> None:
        """Write the bounds of rows, and what the matrix is."""
        indptr = np.concatenate(self._ends)
        self.group.create_dataset("indptr", data=indptr, compression="gzip")
        self.group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [len(indptr) - 1, self._n_columns]})
