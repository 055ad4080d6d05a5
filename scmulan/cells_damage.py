"""A look over an HDF5 file before it is read, for damage that would end or hang the interpreter rather than raise an error.

AnnData stores numbers, strings and compounds of them. Where a byte of a string's type is overwritten, libhdf5 takes it for a sequence and
follows what is no pointer; where one of a size is, it asks for all memory; in a heap of strings with an empty header it loops for ever
(2.0). So types, sizes and the headers of heaps are looked at: milliseconds a file, half a second for a million strings. The layout of a
heap is that of the HDF5 file format specification, III.E, "Global Heap".
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import h5py

from scmulan.errors import CellDataError

HEAP = b"GCOL\x01\0\0\0"  # signature and version
OBJECT = struct.Struct("<H6xQ")  # index, reference count, nothing; size of what follows
LARGE = 2**26  # bytes of a data set from which it is asked whether the file can hold it
WINDOW = 2**26  # bytes of a file that are looked through at a time; a multiple of every page size
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

    if has_endless_heap(path):
        raise CellDataError(f"{path}: a heap of strings is damaged; copy the file again")
    with h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)


def has_endless_heap(path: Path) -> bool:
    """Whether the objects of a global heap don't lead to its end."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _bytes_of_a_length(content[:16]) != 8:
            return False  # of another layout, which nobody writes
        for first in range(0, len(content), WINDOW):
            at = content.find(HEAP, first, first + WINDOW + len(HEAP) - 1)
            while at >= 0:
                size = int.from_bytes(content[at + 8 : at + 16], "little")
                if at + size <= len(content) and _is_endless(content[at + 16 : at + size]):
                    return True
                at = content.find(HEAP, at + len(HEAP), first + WINDOW + len(HEAP) - 1)
            if hasattr(mmap, "MADV_DONTNEED"):  # so that a file of any size takes a window's memory
                content.madvise(mmap.MADV_DONTNEED, first, min(WINDOW, len(content) - first))
    return False


def _bytes_of_a_length(superblock: bytes) -> int:
    """Size of a length in a file, by its superblock."""
    return superblock[14 if superblock[8] < 2 else 10] if len(superblock) == 16 else 0


def _is_endless(heap: bytes) -> bool:
    """Whether a step from object to object does not get on, or leads out of the heap; index 0 is the free space at its end."""
    place = 0
    while place + OBJECT.size <= len(heap):
        index, size = OBJECT.unpack_from(heap, place)
        if size > len(heap) - place or (index == 0 and size == 0):
            return True
        place += size if index == 0 else OBJECT.size + -(-size // 8) * 8
    return False


def _holds_sequences(kind: Any) -> bool:
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return any(_holds_sequences(kind.get_member_type(member)) for member in range(kind.get_nmembers()))
    return isinstance(kind, h5py.h5t.TypeVlenID)
