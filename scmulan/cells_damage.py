"""A look over an HDF5 file before it is read, for damage that would end the interpreter rather than raise an error.

AnnData stores numbers, strings and compounds of them. Where a byte of a string's type is overwritten, libhdf5 takes it for a sequence and
follows what is no pointer; where one of a size is, it asks for all memory. Only types and sizes are looked at, no data: some milliseconds
a file. Limit: a damaged heap of strings, on which libhdf5 2.0 loops for ever, is not seen; `scmulan.cells_apart` bears that too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from scmulan.errors import CellDataError

LARGE = 2**30  # bytes of a data set from which it is asked whether the file can hold it
DENSEST = 5000  # bytes that a byte of the file may stand for; 1032 is the most that deflate can do


def look_over(path: Path) -> None:
    """Raise CellDataError where a type or size is one that no ``.h5ad`` has; what h5py raises where the file can't be opened."""
    most = max(LARGE, DENSEST * path.stat().st_size)

    def look(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            if _holds_sequences(found.id.get_type()):
                raise CellDataError(f"{path}: {name} holds sequences, as in no .h5ad: damaged inside; copy it again")
            if found.nbytes > most:
                raise CellDataError(f"{path}: {name} is said to hold {found.nbytes:,} bytes, more than can be in it; copy it again")
        for key in found.attrs:
            if _holds_sequences(found.attrs.get_id(key).get_type()):
                raise CellDataError(f"{path}: attribute {key!r} of {name} is a sequence, as in no .h5ad: damaged inside; copy it again")

    with h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)


def _holds_sequences(kind: Any) -> bool:
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return any(_holds_sequences(kind.get_member_type(member)) for member in range(kind.get_nmembers()))
    return isinstance(kind, h5py.h5t.TypeVlenID)
