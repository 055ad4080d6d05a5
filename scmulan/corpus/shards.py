"""The canonical corpus: Parquet shards of cells as ids, with fields and splits, under one manifest with hashes.

A shard is written, synced and renamed, so a shard that exists is whole. Reading one needs pyarrow and numpy only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scmulan.csentence import Ids, Ragged
from scmulan.errors import CorpusError

MANIFEST = "manifest.json"
FORMAT = 2
NEEDED = ("format", "tokenizer_sha256", "fields", "shards")
SPLITS = ("train", "valid", "test")
State = tuple[str, str, str, float]
STATE_COLUMNS = ("dataset", "earlier", "later", "weight")


@dataclass(frozen=True, kw_only=True)
class CellRows:
    """Cells as ids with what is known about each.

    Attributes
    ----------
    ids : Ragged, C rows
        Each from ``<cell>`` to ``</cell>``, whole (not thinned).
    fields : name -> (C,) list of text or None
    cell_ids, datasets, donors, splits : (C,) lists
    weights : (C,) float32
        How often each is seen in training, beside the others.
    fingerprints : (C,) uint64
        Equal for cells of the same counts; 0 for those too shallow to tell.
    states : (data set, id of an earlier cell, id of a later one, weight)
        Which cells became which, as far as the corpus tells it; cells of other splits or shards may be named.
    """

    ids: Ragged
    fields: dict[str, list[str | None]]
    cell_ids: list[str]
    datasets: list[str]
    donors: list[str | None]
    splits: list[str]
    weights: npt.NDArray[np.float32]
    fingerprints: npt.NDArray[np.uint64]
    states: tuple[State, ...] = ()

    def __len__(self) -> int:
        return len(self.cell_ids)

    def fields_of(self, row: int) -> dict[str, str | None]:
        return {name: values[row] for name, values in self.fields.items()}

    def select(self, rows: Sequence[int]) -> CellRows:
        return CellRows(
            ids=Ragged.of([self.ids[row] for row in rows]),
            fields={name: [values[row] for row in rows] for name, values in self.fields.items()},
            cell_ids=[self.cell_ids[row] for row in rows],
            datasets=[self.datasets[row] for row in rows],
            donors=[self.donors[row] for row in rows],
            splits=[self.splits[row] for row in rows],
            weights=self.weights[list(rows)],
            fingerprints=self.fingerprints[list(rows)],
            states=self.states,
        )


class ShardWriter:
    """Writes one Parquet shard in row groups, so that it appears whole or not at all.

    As a context manager; after it, ``sha256`` is that of the file. Left by an error, it leaves nothing.
    """

    def __init__(self, path: Path, field_names: Sequence[str]) -> None:
        self.path, self.partial, self.sha256 = path, path.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}.partial"), ""
        self._names = list(field_names)
        texts = ["cell_id", "dataset", "donor", "split", *self._names]
        more = [("weight", pa.float32()), ("fingerprint", pa.uint64()), ("ids", pa.large_list(pa.uint16()))]
        self._schema = pa.schema([*((name, pa.string()) for name in texts), *more])
        # genes of a level rise, so their differences are small: a third smaller than plain zstd, and three times as fast to write
        encodings = {"ids.list.element": "DELTA_BINARY_PACKED"}
        self._writer = pq.ParquetWriter(self.partial, self._schema, compression="zstd", use_dictionary=texts, column_encoding=encodings)

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, rows: CellRows) -> None:
        """One row group."""
        none = [None] * len(rows)
        columns = {
            "cell_id": rows.cell_ids, "dataset": rows.datasets, "donor": rows.donors, "split": rows.splits,
            **{name: rows.fields.get(name) or none for name in self._names},
        }  # fmt: skip
        arrays = [pa.array(values, pa.string()) for values in columns.values()]
        ids = pa.LargeListArray.from_arrays(pa.array(rows.ids.offsets), pa.array(rows.ids.values.astype(np.uint16)))
        arrays += [pa.array(rows.weights, pa.float32()), pa.array(rows.fingerprints, pa.uint64()), ids]
        self._writer.write_table(pa.table(arrays, schema=self._schema))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._writer.close()
            if error is None:
                with open(self.partial, "rb") as handle:
                    os.fsync(handle.fileno())
                self.sha256 = file_hash(self.partial)
                self.partial.rename(self.path)
        finally:
            self.partial.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """sha256 of a file, read a piece at a time."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that it appears whole or not at all."""
    partial = path.with_suffix(f"{path.suffix}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    with open(partial, "w") as handle:
        handle.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    partial.rename(path)


class Corpus:
    """A corpus folder, opened for reading.

    Raises
    ------
    CorpusError
        When the folder has no manifest, the format is another, or the tokenizer is not the one given.
    """

    def __init__(self, folder: str | Path, *, tokenizer_sha256: str | None = None):
        self.folder = Path(folder)
        try:
            self.manifest: Any = json.loads((self.folder / MANIFEST).read_text())
        except FileNotFoundError:
            raise CorpusError(f"{self.folder}: no {MANIFEST}; build the corpus with `scmulan corpus build`") from None
        except ValueError as error:
            raise CorpusError(f"{self.folder / MANIFEST}: not JSON ({error}); build the corpus again") from None
        is_mapping = isinstance(self.manifest, dict)
        if is_mapping and self.manifest.get("format", FORMAT) != FORMAT:
            raise CorpusError(f"{self.folder}: format {self.manifest['format']!r}, needed {FORMAT}; build the corpus again")
        if not is_mapping or any(key not in self.manifest for key in NEEDED):
            raise CorpusError(f"{self.folder / MANIFEST}: not a corpus manifest, needed {', '.join(NEEDED)}; build the corpus again")
        if tokenizer_sha256 and self.manifest["tokenizer_sha256"] != tokenizer_sha256:
            raise CorpusError(
                f"{self.folder}: built with tokenizer {self.manifest['tokenizer_sha256'][:12]}, the model's is {tokenizer_sha256[:12]}; "
                "build the corpus again with the model's tokenizer, or start a model from the corpus's"
            )

    @property
    def field_names(self) -> list[str]:
        return list(self.manifest["fields"])

    def verify(self) -> None:
        """Compare each shard with its hash; CorpusError names the first that is missing or damaged."""
        states = {shard["states"]: shard["states_sha256"] for shard in self.manifest["shards"] if "states" in shard}
        for file, sha256 in [*((shard["file"], shard["sha256"]) for shard in self.manifest["shards"]), *states.items()]:
            path = self.folder / file
            if not path.is_file():
                raise CorpusError(f"{path}: missing; run the build again, which mends it")
            if file_hash(path) != sha256:
                raise CorpusError(f"{path}: its sha256 is not the manifest's; run the build again, which mends it")

    def table(self, file: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard, or some of its columns; CorpusError when it can't be read."""
        try:
            return _plain(pq.read_table(self.folder / file, columns=list(columns) if columns is not None else None))
        except (OSError, pa.ArrowInvalid) as error:
            raise CorpusError(f"{self.folder / file}: {error}; build the corpus again") from None

    def read(self, split: str | None = None, files: Sequence[str] | None = None) -> CellRows:
        """Cells of one split (or all), in shard order; of some of the shards when they are named."""
        if split is not None and split not in SPLITS:
            raise CorpusError(f"split {split!r}: needed one of {', '.join(SPLITS)}")
        tables = []
        for file in files if files is not None else [shard["file"] for shard in self.manifest["shards"]]:
            table = self.table(file)
            tables.append(table if split is None else table.filter(pc.equal(table["split"], split)))
        if not tables:
            raise CorpusError(f"{self.folder}: no shard, so no cell; build the corpus again")
        return replace(_rows_of(pa.concat_tables(tables), self.field_names), states=self._states(files))

    def _states(self, files: Sequence[str] | None) -> tuple[State, ...]:
        """Which cells became which, of the sources that some shards are of."""
        chosen = [shard["states"] for shard in self.manifest["shards"] if shard.get("states") and (files is None or shard["file"] in files)]
        tables = [self.table(file) for file in dict.fromkeys(chosen)]
        return tuple(pair for table in tables for pair in zip(*(table[name].to_pylist() for name in STATE_COLUMNS), strict=True))


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as strings, so that shards with different dictionaries can be joined."""
    fields = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def read_shard(path: Path, field_names: Sequence[str]) -> CellRows:
    """All cells of one shard."""
    return _rows_of(_plain(pq.read_table(path)), field_names)


def _rows_of(table: pa.Table, field_names: Sequence[str]) -> CellRows:
    ids = table["ids"].combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    offsets: Ids = np.asarray(ids.offsets, dtype=np.int64)
    return CellRows(
        ids=Ragged(np.asarray(ids.values, dtype=np.int64)[offsets[0] : offsets[-1]], offsets - offsets[0]),
        fields={name: table[name].to_pylist() for name in field_names},
        cell_ids=table["cell_id"].to_pylist(),
        datasets=table["dataset"].to_pylist(),
        donors=table["donor"].to_pylist(),
        splits=table["split"].to_pylist(),
        weights=table["weight"].to_numpy().astype(np.float32),
        fingerprints=table["fingerprint"].to_numpy().astype(np.uint64),
    )
