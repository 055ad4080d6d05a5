"""The one folder whose files an assistant may name: what is read is checked first in a process of its own, nothing is overwritten unasked.

Every path is resolved, symbolic links too, and must lie inside the folder. Only ``.h5ad`` is read; ``.h5ad`` and ``.csv`` are written,
whole or not at all. Limit: between looking at a path and opening it another program of the same machine may put a link in its place.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

from scmulan.cells import AnnData, read_h5ad
from scmulan.cells_apart import check_apart
from scmulan.cells_writing import write_h5ad
from scmulan.doctor import CellReport
from scmulan.errors import CellDataError, PromptError, nearest, some
from scmulan.serving.mcp_limits import Limits

CELLS, TABLE = ".h5ad", ".csv"
MOST_NAMED = 500
"""Files of the folder that are looked at to name some."""
MOST_KEPT = 100
"""Checks that are remembered."""


class Folder:
    """The files of a folder, by the paths that an assistant gives.

    Raises
    ------
    PromptError
        When there is no such folder.
    """

    def __init__(self, folder: str | Path, limits: Limits):
        self.folder, self.limits = Path(folder).resolve(), limits
        if not self.folder.is_dir():
            raise PromptError(f"--folder {folder}: no such folder; needed one that holds the files of cells")
        self._checked: dict[tuple[Any, ...], CellReport] = {}

    def names(self) -> list[str]:
        """Some files of cells in the folder and in those right inside it."""
        found = itertools.chain(self.folder.glob(f"*{CELLS}"), self.folder.glob(f"*/*{CELLS}"))
        return sorted(str(path.relative_to(self.folder)) for path in itertools.islice(found, MOST_NAMED))

    def path(self, given: str) -> Path:
        """A path resolved; PromptError where it leads out of the folder."""
        try:
            found = (self.folder / given).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # loops of links, bytes that no path has
            raise PromptError(f"{given!r}: no path ({error}); needed one inside the server's folder, as 'cells.h5ad'") from None
        if not found.is_relative_to(self.folder):
            raise PromptError(f"{given}: outside of the server's folder; needed a path inside it, as 'cells.h5ad'")
        return found

    def readable(self, given: str) -> Path:
        """The path of a file of cells that may be read; PromptError or CellDataError where it may not."""
        path = self.path(given)
        if path.suffix.lower() != CELLS:
            raise PromptError(f"{given}: only files of cells are read; needed a name that ends in {CELLS}")
        if not path.is_file():
            names = self.names()
            there = nearest(given, names) or (f"; there is {some(names, most=8)}" if names else "; the folder holds none")
            raise CellDataError(f"{given}: {'a folder' if path.is_dir() else 'no such file'} in the server's folder{there}")
        size = path.stat().st_size
        if size > self.limits.megabytes * 2**20:
            raise CellDataError(f"{given}: {size:,} bytes; needed at most {self.limits.megabytes:,} MB (--most-megabytes); split the file")
        return path

    def check(self, given: str, *, fields: Mapping[str, str] | None = None, organism: str | None = None) -> CellReport:
        """What the doctor says of a file, in a process of its own; said again while the file stays as it is."""
        path = self.readable(given)
        now = path.stat()
        key = (path, now.st_size, now.st_mtime_ns, now.st_ino, tuple(sorted((fields or {}).items())), organism)
        if key not in self._checked:
            report = check_apart(path, fields=fields, organism=organism)
            if report.verdict != "problem":
                stand_alone(path, given)
            report.source = given
            if len(self._checked) >= MOST_KEPT:
                self._checked.pop(next(iter(self._checked)))
            self._checked[key] = report
        return self._checked[key]

    def read(
        self, given: str, *, fields: Mapping[str, str] | None = None, organism: str | None = None, only: Mapping[str, str] | None = None
    ) -> AnnData:
        """Cells of a file that was checked, or those of them that have some values of columns of ``obs``.

        Raises
        ------
        PromptError, CellDataError
            When the file may not be read or can't be used, holds too many cells, or none of those asked for.
        """
        self.check(given, fields=fields, organism=organism).raise_problem()
        path = self.readable(given)
        n_cells = cells_in(path)
        if n_cells > self.limits.cells:
            raise CellDataError(
                f"{given}: {n_cells:,} cells; needed at most {self.limits.cells:,} (--most-cells); write some of them into a file of their "
                "own, for example every tenth"
            )
        adata = chosen(read_h5ad(path), given, only or {})
        if organism is not None:
            adata.obs["organism"] = organism
        return adata

    def writable(self, given: str | None, overwrite: bool, kinds: Sequence[str] = (CELLS, TABLE)) -> Path | None:
        """The path of a file that may be written; PromptError where it may not, said before the work."""
        if given is None:
            return None
        path = self.path(given)
        if path.suffix.lower() not in kinds:
            raise PromptError(f"{given}: needed a name that ends in {' or '.join(kinds)}, for example {path.with_suffix(kinds[0]).name}")
        if path.is_dir() or not path.parent.is_dir():
            raise PromptError(
                f"{given}: {'a folder; name a file' if path.is_dir() else 'no such folder to write into; name one that is there'}"
            )
        if path.exists() and not overwrite:
            raise PromptError(f"{given}: is there already; needed another name, or overwrite=true")
        return path

    def write(self, path: Path, overwrite: bool, *, cells: AnnData | None = None, table: pd.DataFrame | None = None) -> str:
        """Write the cells or the table, as the name says; the path inside the folder."""
        self.writable(str(path), overwrite)  # another task may have written there meanwhile
        if path.suffix.lower() == CELLS:
            assert cells is not None
            write_h5ad(cells, path)
        else:
            assert table is not None
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                table.to_csv(temporary, float_format="%.6g")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return str(path.relative_to(self.folder))


def cells_in(path: Path) -> int:
    """Number of cells of a file that was checked, without reading them."""
    with h5py.File(path, "r") as file:
        obs = file["obs"]
        if isinstance(obs, h5py.Dataset):  # as anndata wrote it before 0.7
            return int(obs.shape[0])
        return int(obs[obs.attrs["_index"]].shape[0])


def stand_alone(path: Path, given: str) -> None:
    """CellDataError for an HDF5 file that takes values from other files, for those may lie anywhere."""

    def look(name: str, found: Any) -> None:
        reaches = isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)
        links = isinstance(found, h5py.Group) and any(isinstance(found.get(key, getlink=True), h5py.ExternalLink) for key in found)
        if reaches or links:
            raise CellDataError(f"{given}: {name} is taken from another file; needed a file that holds all its data; write it anew")

    with h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)


def chosen(adata: AnnData, given: str, only: Mapping[str, str]) -> AnnData:
    """The cells that have some values of columns of ``obs``."""
    for column, value in only.items():
        if column not in adata.obs:
            raise PromptError(f"only {column}={value}: {given} has no column {column!r} in obs{nearest(column, list(adata.obs))}")
        values = adata.obs[column].astype(str)
        if not (values == value).any():
            raise CellDataError(f"{given}: no cell has {column} {value!r}; found {some(sorted(set(values)), most=6)}")
        adata = adata[(values == value).to_numpy()].copy()
    return adata
