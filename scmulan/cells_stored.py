"""Groups and columns of an AnnData store, read alike from HDF5 and zarr: opened, sliced, told apart when they change.

A layout older than anndata 0.8 is rewritten in today's, in memory, into a scratch folder.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr
from anndata.io import read_elem

from scmulan import metadata
from scmulan.by_rows import Ahead
from scmulan.cells import HDF5, read_h5ad
from scmulan.cells_damage import look_over
from scmulan.errors import CellDataError, nearest

ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs")


def identity_of(path: Path) -> str:
    """A hash that changes when a store is written anew: of path, size and time of last change of its files."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    try:
        text = "\n".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    except OSError as error:
        raise CellDataError(f"{path}: {error.strerror}") from None
    return hashlib.sha256(text.encode()).hexdigest()


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr store."""
    return path.is_dir() and any((path / mark).is_file() for mark in ZARR_MARKS)


def open_group(path: Path, scratch: Path, *, is_looked_over: bool = False) -> Any:
    """The root group; a layout of old is rewritten in today's."""
    if is_zarr(path):
        group = zarr.open_group(path, mode="r")
    else:
        if not path.is_file():
            what = "a folder, but no zarr store" if path.is_dir() else "no such file"
            beside = [other.name for other in path.parent.glob("*") if other.suffix in (".h5ad", ".zarr")] if path.parent.is_dir() else []
            raise CellDataError(f"{what}{nearest(path.name, beside)}")
        with path.open("rb") as file:
            if file.read(len(HDF5)) != HDF5:
                raise CellDataError("not an HDF5 file, so not an .h5ad; write one with adata.write_h5ad")
        if not is_looked_over:
            look_over(path)
        group = h5py.File(path, "r")
    try:
        for needed in ("obs", "var"):
            if needed not in group:
                raise CellDataError(f"no {needed} in it, so no AnnData; found {', '.join(list(group)[:8])}; write it with adata.write_h5ad")
        is_of_today = _is_of_today(group)
    except BaseException:
        close(group)
        raise
    if is_of_today:
        return group
    close(group)
    return _rewritten(path, scratch)


def close(group: Any) -> None:
    """Let go of the file of a root group; a zarr store has none."""
    if isinstance(group, h5py.File):
        group.close()


def _is_of_today(group: Any) -> bool:
    frames = [group["obs"], group["var"]]
    has_frames = all(hasattr(frame, "keys") and frame.attrs.get("encoding-type") == "dataframe" for frame in frames)
    return has_frames and not any("__categories" in frame for frame in frames)


def _rewritten(path: Path, scratch: Path) -> Any:
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    place = scratch / f"rewritten-{key}.h5ad"
    if not place.is_file():
        partial = place.with_suffix(f".{os.getpid()}")
        read_h5ad(path).write_h5ad(partial)
        partial.rename(place)
    return h5py.File(place, "r")


def organism_of(group: Any) -> dict[str, Any]:
    """What ``uns`` says of the species."""
    uns = group.get("uns", {})
    return {key: read_elem(uns[key]) for key in metadata.obs_columns("organism") if key in uns}


def var_of(group: Any) -> pd.DataFrame:
    var = read_elem(group["var"])
    assert isinstance(var, pd.DataFrame)
    return var


def index_of(frame: Any) -> Any:
    return frame[frame.attrs["_index"]]


def column_names(frame: Any) -> list[str]:
    return [str(name) for name in frame.attrs.get("column-order", [])]


def slice_of(array: Any, first: int, last: int, kept: dict[str, Ahead] | None = None) -> npt.NDArray[Any]:
    """Values of a stored array, texts as str; ``kept`` are chunks of zarr arrays that were unpacked for the block before."""
    if isinstance(array, h5py.Dataset) and h5py.check_string_dtype(array.dtype) is not None:
        return np.asarray(array.asstr()[first:last], dtype=object)
    if kept is not None and isinstance(array, zarr.Array):
        values = kept.setdefault(array.path, Ahead(array)).read(first, last)
    else:
        values = np.asarray(array[first:last])
    return values if values.dtype.kind in "biuf" else values.astype(object)


def column_values(element: Any, first: int, last: int, kept: dict[str, Ahead] | None = None) -> Any:
    """A range of a column of ``obs``: categorical, nullable or plain."""
    if not hasattr(element, "keys"):
        return slice_of(element, first, last, kept)
    if "codes" in element:
        return pd.Categorical.from_codes(slice_of(element["codes"], first, last, kept), categories=categories_of(element))
    if "mask" in element:
        values, mask = (slice_of(element[part], first, last, kept) for part in ("values", "mask"))
        values = values.astype(object)
        values[mask.astype(bool)] = None
        return values
    return pd.Series(read_elem(element)).iloc[first:last].to_numpy()


def categories_of(element: Any) -> pd.Index:
    categories = pd.Index(slice_of(element["categories"], 0, element["categories"].shape[0]), dtype=object)
    assert isinstance(categories, pd.Index)
    return categories
