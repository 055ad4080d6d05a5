"""Cells that are in a corpus more than once, found by their counts' fingerprints over all shards; the first of each stays.

Memory is bounded: fingerprints are read in as many passes as keep each below `AT_ONCE` of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from scmulan.corpus.blocks import Tally, record_of
from scmulan.corpus.shards import ShardWriter, read_shard, write_json
from scmulan.csentence import Vocabulary

AT_ONCE = 20_000_000


def find_duplicates(folder: Path, files: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each shard whose counts an earlier cell has; shards without such rows are left out."""
    n_cells = sum(pq.read_metadata(folder / file).num_rows for file in files)
    n_passes = max(1, -(-n_cells // AT_ONCE))
    found: defaultdict[str, list[npt.NDArray[np.int64]]] = defaultdict(list)
    for number in range(n_passes):
        prints, shards, rows = _of_pass(folder, files, number, n_passes)
        order = np.argsort(prints, kind="stable")
        again = order[1:][prints[order[1:]] == prints[order[:-1]]]
        for shard in np.unique(shards[again]):
            found[files[shard]].append(rows[again[shards[again] == shard]])
    return {file: np.sort(np.concatenate(parts)) for file, parts in found.items()}


def _of_pass(folder: Path, files: Sequence[str], number: int, n_passes: int) -> tuple[Any, Any, Any]:
    """Fingerprints of one pass, in the order of the corpus, with shard and row of each."""
    parts = []
    for shard, file in enumerate(files):
        prints = pq.read_table(folder / file, columns=["fingerprint"])["fingerprint"].to_numpy()
        rows = np.flatnonzero((prints != 0) & (prints % np.uint64(n_passes) == number))
        parts.append((prints[rows], np.full(len(rows), shard, dtype=np.int32), rows))
    prints, shards, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    return prints, shards, places


def drop_rows(folder: Path, file: str, rows: npt.NDArray[np.int64], field_names: Sequence[str], vocabulary: Vocabulary) -> None:
    """Write a shard again without some of its rows, and its record; a run that is killed in between builds the shard anew."""
    whole, path = read_shard(folder / file, field_names), folder / file
    record = json.loads(record_of(path).read_text())
    kept = whole.select(np.setdiff1d(np.arange(len(whole)), rows).tolist())
    tally = Tally()
    with ShardWriter(path, field_names) as writer:
        writer.add(kept)
        tally.add(kept, vocabulary)
    changed = {"sha256": writer.sha256, "doubles": record["doubles"] + len(rows)}
    write_json(record_of(path), {**record, **tally.to_dict(), **changed})
