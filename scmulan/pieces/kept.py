"""Pieces of a result in a folder beside it, ``OUT.h5ad.parts``: a Parquet file each, written whole or not at all, under a manifest.

The manifest says what the pieces are of. Who asks for anything else in the same place is told what differs; who asks for the same goes
on where the last run was, however it ended. A piece has one column, a row a cell, and in its metadata what is told of them together.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scmulan.corpus.shards import write_json
from scmulan.errors import CellDataError, PromptError

MANIFEST, CELLS, TOLD = "manifest.json", "cells", b"scmulan"


@dataclass(frozen=True)
class Piece:
    """What came of some cells.

    Attributes
    ----------
    values : a row a cell
    told : of all of them together, as plain data
    """

    values: pa.Array
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """The folder of the pieces of ``n_cells`` cells, ``size`` cells each."""

    folder: Path
    n_cells: int
    size: int

    def __len__(self) -> int:
        return -(-self.n_cells // self.size)

    def span(self, number: int) -> tuple[int, int]:
        """First cell of a piece, and the first after it."""
        return number * self.size, min((number + 1) * self.size, self.n_cells)

    def path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.parquet"

    def missing(self) -> list[int]:
        """Pieces that are not there yet."""
        return [number for number in range(len(self)) if not self._is_there(number)]

    def _is_there(self, number: int) -> bool:
        first, last = self.span(number)
        try:
            return bool(pq.read_metadata(self.path(number)).num_rows == last - first)
        except (OSError, pa.ArrowException):
            return False

    def write(self, number: int, piece: Piece) -> None:
        """Keep a piece; CellDataError where the disk does not take it."""
        table = pa.table({CELLS: piece.values}).replace_schema_metadata({TOLD: json.dumps(piece.told).encode()})
        partial = self.folder / f"{number:07d}.{os.getpid()}-{os.urandom(4).hex()}.partial"
        try:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
            with open(partial, "rb") as handle:
                os.fsync(handle.fileno())
            partial.rename(self.path(number))
        except OSError as error:
            raise CellDataError(
                f"{self.folder}: a piece can't be written ({error}); those that are finished are kept: "
                "free some space and run the same command again"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    def read(self, number: int) -> Piece:
        """A piece that is there."""
        try:
            table = pq.read_table(self.path(number), page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise CellDataError(f"{self.path(number)}: can't be read ({error}); remove it and run the same command again") from None
        return Piece(table[CELLS].combine_chunks(), json.loads(table.schema.metadata[TOLD]))

    def told(self) -> list[dict[str, Any]]:
        """What is told of each piece."""
        return [json.loads(pq.read_schema(self.path(number)).metadata[TOLD]) for number in range(len(self))]


@contextmanager
def kept_beside(output: Path, of: Mapping[str, Any]) -> Iterator[Path]:
    """The folder for the pieces of a result, which goes when the result is written, or when nothing came of it.

    Parameters
    ----------
    of : what the pieces depend on, as plain data

    Raises
    ------
    PromptError
        When pieces of something else are there; it says what differs.
    """
    folder = output.with_name(f"{output.name}.parts")
    _begin(folder, json.loads(json.dumps(of)))
    try:
        yield folder
    except BaseException:
        if not any(folder.glob("*.parquet")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _begin(folder: Path, of: dict[str, Any]) -> None:
    if folder.exists() and not folder.is_dir():
        raise PromptError(f"{folder}: a file where the pieces of the result are to be kept; move it")
    manifest = folder / MANIFEST
    if folder.exists() and not manifest.is_file() and any(not path.name.endswith(".partial") for path in folder.iterdir()):
        raise PromptError(f"{folder}: a folder that scmulan did not make, where the pieces of the result are to be kept; move it")
    if not manifest.is_file():
        folder.mkdir(exist_ok=True)
        write_json(manifest, of)
        return
    try:
        begun = dict(json.loads(manifest.read_text()))
    except (ValueError, TypeError) as error:
        raise PromptError(f"{manifest}: can't be read ({error}); remove {folder} to begin anew") from None
    differs = [name for name in {**begun, **of} if begun.get(name) != of.get(name)]
    if differs:
        changes = "; ".join(f"{name} was {_spelled(begun.get(name))}, is {_spelled(of.get(name))}" for name in differs)
        raise PromptError(
            f"{folder}: pieces of another run are kept there: {changes}; ask for the same as before to go on, "
            "name another output, or remove the folder to begin anew"
        )


def _spelled(value: object, most: int = 100) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}..."
