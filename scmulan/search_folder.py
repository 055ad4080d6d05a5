"""The folder of an index: Parquet parts (cell, source, fields, embedding as float16), a faiss file of neighbours, and a card with hashes.

A part is written, synced and renamed, so that a part that exists is whole; what it is of stands in its own metadata, and one that fits is
not made again. The card is written last: a folder without one is an index that is still being built. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from scmulan.corpus.shards import file_hash
from scmulan.errors import CheckpointError, EngineError, nearest
from scmulan.metadata import FIELDS

CARD, NEIGHBOURS = "index.json", "neighbours.faiss"
FORMAT = 1
OF = b"scmulan"
TEXTS = ("cell_id", "source", "dataset", "donor", *FIELDS)
NEEDED = ("format", "model", "adapter", "embedding", "n_cells", "dimensions", "parts", "neighbours", "nearness")
AGAIN = "build it again with `scmulan index build`"


@dataclass(frozen=True, kw_only=True)
class IndexedCells:
    """Some cells of an index: what is said of each, and its embedding.

    Attributes
    ----------
    texts : name -> (C,) text or None, the names those of ``TEXTS``
    states : (C, D) float32
    """

    texts: Mapping[str, Sequence[str | None]]
    states: npt.NDArray[np.float32]


def import_faiss() -> Any:
    """The library that searches; EngineError when it is not installed."""
    try:
        import faiss
    except ImportError:
        raise EngineError("an index needs faiss, which is not installed; pip install 'scmulan[search]'") from None
    return faiss


def write_part(path: Path, cells: IndexedCells, of: Mapping[str, Any]) -> None:
    """One part, whole or not at all; ``of`` is what it depends on."""
    states = np.ascontiguousarray(cells.states, dtype=np.float16)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(states.ravel(), pa.float16()), states.shape[1])
    columns = {name: pa.array(cells.texts[name], pa.string()) for name in TEXTS}
    table = pa.table({**columns, "embedding": embedding}).replace_schema_metadata({OF: json.dumps(of, sort_keys=True).encode()})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd", use_dictionary=list(TEXTS))
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def is_part_of(path: Path, of: Mapping[str, Any]) -> bool:
    """Whether a part is there, can be read, and depends on just this."""
    try:
        found = (pq.read_schema(path).metadata or {}).get(OF)
    except (OSError, pa.ArrowInvalid):
        return False
    return bool(found == json.dumps(of, sort_keys=True).encode())


def states_of(path: Path) -> npt.NDArray[np.float32]:
    """Embeddings of a part; (C, D) float32."""
    column = _table(path, ["embedding"])["embedding"].combine_chunks()
    width = column.type.list_size
    values = column.values if not isinstance(column, pa.ChunkedArray) else column.chunk(0).values
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, width)


def texts_of(path: Path, names: Sequence[str] = TEXTS) -> pa.Table:
    """What a part says of its cells, as categories."""
    table = _table(path, list(names))
    return pa.table({name: table[name].dictionary_encode() for name in names})


def _table(path: Path, names: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=names)
    except (OSError, pa.ArrowInvalid) as error:
        raise CheckpointError(f"{path}: can't be read ({error}); {AGAIN}") from None


class Parts:
    """The parts of an index in order; rows are numbered through them."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.paths = [folder / name for name in names]

    def states(self) -> Iterator[npt.NDArray[np.float32]]:
        """Embeddings, a part at a time."""
        return (states_of(path) for path in self.paths)

    def texts(self, names: Sequence[str] = TEXTS) -> pa.Table:
        """What is said of all cells."""
        return pa.concat_tables([texts_of(path, names) for path in self.paths]).unify_dictionaries().combine_chunks()


def read_index_card(folder: str | Path) -> dict[str, Any]:
    """The card of an index; CheckpointError when there is none, or it is of another format."""
    folder = Path(folder)
    if not folder.is_dir():
        beside = [other.parent.name for other in folder.parent.glob(f"*/{CARD}")] if folder.parent.is_dir() else []
        raise CheckpointError(f"{folder}: no such index{nearest(folder.name, beside)}; `scmulan index build` makes one")
    try:
        card = json.loads((folder / CARD).read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {CARD}: no index, or one whose build was stopped; run the same build again") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / CARD}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(card, dict) or any(key not in card for key in NEEDED):
        raise CheckpointError(f"{folder / CARD}: not the card of an index, which has {', '.join(NEEDED)}; {AGAIN}")
    if card["format"] != FORMAT:
        raise CheckpointError(f"{folder}: an index of format {card['format']!r}, needed {FORMAT}; {AGAIN}")
    return card


def check_files(folder: Path, card: Mapping[str, Any]) -> None:
    """Compare each file with its hash; CheckpointError names the first that is missing or damaged."""
    for entry in (*card["parts"], card["neighbours"]):
        path = folder / entry["file"]
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; {AGAIN}, which mends it")
        if file_hash(path) != entry["sha256"]:
            raise CheckpointError(f"{path}: its sha256 is not the one in {CARD}; {AGAIN}, which mends it")


def check_made_by(card: Mapping[str, Any], model: Mapping[str, Any], adapter: Mapping[str, Any], folder: Path) -> None:
    """Refuse another model or adapter than the one that embedded the cells: distances between their embeddings mean nothing."""
    of_model, of_adapter = card["model"], card["adapter"]
    if of_model["weights_sha256"] != model["weights_sha256"]:
        raise CheckpointError(
            f"{folder}: made with model {of_model['name']} ({of_model['weights_sha256'][:12]}), this one is {model['name']} "
            f"({model['weights_sha256'][:12]}); open that model, or build an index with this one"
        )
    if of_adapter["sha256"] != adapter["sha256"]:
        needed = f"adapter {of_adapter['name']} ({of_adapter['sha256'][:12]})" if of_adapter["sha256"] != "none" else "no adapter"
        used = f"adapter {adapter['name']} ({adapter['sha256'][:12]})" if adapter["sha256"] != "none" else "none"
        raise CheckpointError(f"{folder}: made with {needed}, in use is {used}; use the one it was made with, or build an index anew")
