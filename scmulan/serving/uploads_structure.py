"""A look over an HDF5 file from a stranger before its values are read: whether it stands for itself and could fit what it declares.

Only what AnnData writes may be in it: groups and data sets by hard links; numbers, texts, enumerations and tables of them; stored in the
file, packed by filters that are built in. Everything is visited as a reader would come by it, an object as often as it is linked to, so
that loops and fans of links come out as depth and numbers. No other link is followed and no value read; what is met first is told.
`scmulan.cells_damage` looks for other damage after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from scmulan.serving.uploads_limits import REMEDY, UploadLimits, UploadRefused, UploadTooLarge

FILTERS = {
    h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_LZF: "lzf", h5z.FILTER_SZIP: "szip", h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32", h5z.FILTER_SCALEOFFSET: "scaleoffset",
}  # fmt: skip
TYPES = (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM, h5t.COMPOUND, h5t.ARRAY)
ODD_TYPES = {
    h5t.REFERENCE: "a reference to another object", h5t.VLEN: "sequences", h5t.OPAQUE: "opaque bytes, as of a pickle",
    h5t.TIME: "times of HDF5", h5t.BITFIELD: "bit fields",
}  # fmt: skip
DEEPEST, MOST_OBJECTS = 32, 20_000  # a file of anndata is five groups deep; a large one has some hundreds of objects
LARGE = 2**26  # bytes of a data set from which it is asked whether the file can hold it
DENSEST = 1100  # bytes that a stored byte may stand for; 1032 is the most that gzip can do
LARGEST_ATTRIBUTE = 2**24
LONGEST_PLACE = 200  # characters of where something lies, as it is told


@dataclass
class _Seen:
    """What was come by so far."""

    objects: int = 0
    bytes: int = 0
    largest: int = 0
    where: str = "/"
    cells: int = 0

    def count(self, more: int, where: str) -> None:
        self.objects += more
        if self.objects > MOST_OBJECTS:
            raise UploadRefused(
                f"{where}: more than {MOST_OBJECTS:,} objects up to here, links to one object counted each; needed fewer; "
                f"remove what is not needed, for example adata.uns.clear(), and {REMEDY}"
            )

    def add(self, size: int, where: str) -> None:
        self.bytes += size
        if size >= self.largest:
            self.largest, self.where = size, where


def look_inside(path: Path, limits: UploadLimits) -> None:
    """Raise UploadRefused where a file holds what no ``.h5ad`` has, UploadTooLarge where it declares more than may be read."""
    seen = _Seen()
    try:
        with h5py.File(path, "r", driver="sec2") as file:
            waiting: list[tuple[Any, str, int]] = [(file.id, "", 0)]
            while waiting:
                waiting += _look_at_group(*waiting.pop(), seen, limits)
    except (UploadRefused, MemoryError):
        raise
    except Exception as error:
        # h5py raises many kinds of error here; each means that the file is no HDF5, or damaged.
        found = f"{type(error).__name__}: {error}"
        raise UploadRefused(f"not an HDF5 file, or cut short or damaged ({found}); upload it again, or {REMEDY}") from error


def _look_at_group(group: Any, where: str, depth: int, seen: _Seen, limits: UploadLimits) -> list[tuple[Any, str, int]]:
    """Look at all that lies directly in a group; the groups among it."""
    if depth > DEEPEST:
        raise UploadRefused(f"{where}: groups more than {DEEPEST} deep, as where one holds itself; needed fewer; {REMEDY}")
    seen.count(len(group), where or "/")
    _look_at_attributes(group, where or "/", seen)
    below = []
    for name in group:
        place = f"{where}/{name.decode('utf-8', 'replace')}"[:LONGEST_PLACE]
        _look_at_link(group, name, place)
        found = h5o.open(group, name)
        if isinstance(found, h5g.GroupID):
            below.append((found, place, depth + 1))
            continue
        if isinstance(found, h5d.DatasetID):
            _look_at_attributes(found, place, seen)
            n_rows = _look_at_data(found, place, seen)
            seen.cells = max(seen.cells, n_rows if place == "/obs" or where == "/obs" else 0)
            _judge(seen, limits)
        else:  # a type by itself
            _look_at_type(found, place)
    return below


def _look_at_link(group: Any, name: bytes, place: str) -> None:
    kind = group.links.get_info(name).type
    if kind != h5l.TYPE_HARD:
        what = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}.get(kind, f"a link of kind {kind}")
        raise UploadRefused(f"{place}: {what}; needed the data itself in this place; {REMEDY}")


def _look_at_attributes(found: Any, place: str, seen: _Seen) -> None:
    n_attributes = h5a.get_num_attrs(found)
    seen.count(n_attributes, place)
    for number in range(n_attributes):
        attribute = h5a.open(found, index=number)
        where = f"attribute {attribute.name.decode('utf-8', 'replace')!r} of {place}"
        kind = attribute.get_type()
        _look_at_type(kind, where)
        size = math.prod(_shape_of(attribute.get_space())) * kind.get_size()
        if size > LARGEST_ATTRIBUTE:
            raise UploadRefused(f"{where}: {size:,} bytes; needed at most {LARGEST_ATTRIBUTE:,}; {REMEDY}")


def _look_at_data(found: Any, place: str, seen: _Seen) -> int:
    """Look at how a data set is stored and what it declares; its number of rows."""
    stored = found.get_create_plist()
    layout = stored.get_layout()
    if layout not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        what = "a virtual data set, a view of other files" if layout == h5d.VIRTUAL else f"stored in layout {layout}"
        raise UploadRefused(f"{place}: {what}; needed the values themselves; {REMEDY}")
    if stored.get_external_count():
        raise UploadRefused(f"{place}: values stored in another file; needed the values themselves; {REMEDY}")
    for number in range(stored.get_nfilters()):
        code, _, _, name = stored.get_filter(number)
        if code not in FILTERS:
            known = ", ".join(FILTERS.values())
            shown = name.decode("utf-8", "replace") or "without a name"
            raise UploadRefused(
                f"{place}: packed by filter {code} ({shown}); needed none or {known}; write_h5ad(compression='gzip') does it"
            )
    kind = found.get_type()
    _look_at_type(kind, place)
    shape = _shape_of(found.get_space())
    size = math.prod(shape) * kind.get_size()
    if size > LARGE and size > DENSEST * found.get_storage_size():
        raise UploadRefused(
            f"{place}: declares {size:,} bytes, of which {found.get_storage_size():,} are stored; needed values that were written; {REMEDY}"
        )
    seen.add(max(size, math.prod(stored.get_chunk()) * kind.get_size() if layout == h5d.CHUNKED else 0), place)
    return shape[0] if shape else 0


def _shape_of(space: Any) -> tuple[int, ...]:
    return (0,) if space.get_simple_extent_type() == h5s.NULL else tuple(map(int, space.get_simple_extent_dims()))


def _look_at_type(kind: Any, place: str) -> None:
    code = kind.get_class()
    if code not in TYPES:
        found = ODD_TYPES.get(code, f"values of HDF5 type class {code}")
        raise UploadRefused(f"{place}: holds {found}; needed numbers or texts; remove it and {REMEDY}")
    if code == h5t.COMPOUND:
        for number in range(kind.get_nmembers()):
            _look_at_type(kind.get_member_type(number), place)
    elif code == h5t.ARRAY:
        _look_at_type(kind.get_super(), place)


def _judge(seen: _Seen, limits: UploadLimits) -> None:
    if seen.cells > limits.cells:
        raise UploadTooLarge(
            f"/obs: {seen.cells:,} cells; needed at most {limits.cells:,}; upload it in parts, such as adata[:{limits.cells}].copy()"
        )
    if seen.bytes > limits.memory:
        raise UploadTooLarge(
            f"{seen.where}: {seen.largest:,} of {seen.bytes:,} bytes when unpacked; needed at most {limits.memory:,} in all; "
            "store matrices sparse (scipy.sparse.csr_matrix), leave out layers that are not needed, or upload fewer cells"
        )
