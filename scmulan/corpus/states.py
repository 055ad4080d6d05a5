"""Which cells of a source became which: found over all of its shards, kept beside them for tasks that ask what a cell becomes.

A plan says it of a source, ``states: {clone: COLUMN}`` where cells of one clone were measured at several times, else ``states: transport``.
Cells are paired within their split alone, so that no held-out cell stands behind one that is learnt from. Limit: a source's cells are
read at once, for a transport plan is over all of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scmulan.corpus.blocks import WORK, number_of, open_source
from scmulan.corpus.pack import counts_of_ids
from scmulan.corpus.plan import Source
from scmulan.corpus.shards import SPLITS, STATE_COLUMNS, CellRows, State, file_hash, read_shard
from scmulan.csentence import Ragged, Vocabulary
from scmulan.errors import CellDataError, CorpusError
from scmulan.metadata import FIELDS
from scmulan.pairing import Pairs, pair_by_clone, pair_by_transport

UNITS = {"minute": 1 / 1440, "hour": 1 / 24, "day": 1.0, "week": 7.0}


def states_file(folder: Path, number: int) -> Path:
    """Where the states of a source lie."""
    return folder / f"states-{number:05d}.parquet"


def in_days(time: str) -> float:
    """A label of ``time`` as a number of days.

    >>> in_days("day 6"), in_days("hour 12")
    (6.0, 0.5)
    """
    unit, _, number = time.partition(" ")
    try:
        return UNITS[unit] * float(number)
    except (KeyError, ValueError):
        raise CellDataError(f"time {time!r}: can't be put in order; needed a unit and a number, such as 'day 6' or 'hour 12'") from None


def write_states(source: Source, number: int, folder: Path, files: Sequence[str], vocabulary: Vocabulary, identity: str) -> dict[str, Any]:
    """Pair a source's cells along time and write the pairs; returns what the manifest says of it.

    Raises
    ------
    CorpusError
        Naming the source, when its cells know no time or can't be paired.
    """
    of_source = [file for file in files if number_of(file) == number]
    shards = [read_shard(folder / file, FIELDS) for file in of_source]
    clones = _clones(source, folder, identity)
    found, records = list[State](), list[dict[str, Any]]()
    try:
        for split in SPLITS:
            rows = [shard.select([row for row, of in enumerate(shard.splits) if of == split]) for shard in shards]
            pairs, said = _of_split(rows, clones, vocabulary)
            found += pairs
            records += [{"split": split, **record} for record in said]
        if not found:
            raise CellDataError("no cell could be paired with one of a later time; needed labels of time, and clones at two times or more")
    except CellDataError as error:
        raise CorpusError(f"{source.path}: states: {error}") from None
    columns = zip(*found, strict=True)
    pq.write_table(pa.table(dict(zip(STATE_COLUMNS, map(list, columns), strict=True))), states_file(folder, number))
    return {"pairs": len(found), "sha256": file_hash(states_file(folder, number)), "found": records}


def _clones(source: Source, folder: Path, identity: str) -> Mapping[str, str | None] | None:
    """Each cell's clone by its name; None where cells are to be paired by transport."""
    if not isinstance(source.states, Mapping):
        return None
    store = open_source(source, folder / WORK / "scratch", identity, is_looked_over=True)
    return dict(zip(store.names(0, store.n_cells), store.column(source.states["clone"], 0, store.n_cells), strict=True))


def _of_split(
    shards: Sequence[CellRows], clones: Mapping[str, str | None] | None, vocabulary: Vocabulary
) -> tuple[list[State], list[dict[str, Any]]]:
    """Pairs of one split, and what was done for each pair of times."""
    times = [time for shard in shards for time in shard.fields.get("time") or [None] * len(shard)]
    names = [name for shard in shards for name in shard.cell_ids]
    datasets = [dataset for shard in shards for dataset in shard.datasets]
    timed = [row for row, time in enumerate(times) if time is not None]
    order = sorted({str(times[row]) for row in timed}, key=in_days)
    of_timed = [str(times[row]) for row in timed]
    pair = functools.partial(_pair, clones=None if clones is None else [clones[names[row]] for row in timed], times=of_timed)
    counts = counts_of_ids(Ragged.of([shard.ids[row] for shard in shards for row in range(len(shard))]), vocabulary)[timed]
    found, records = list[State](), list[dict[str, Any]]()
    # clones are kin over any span of time; a transport plan is between times that follow each other
    for earlier, later in itertools.combinations(order, 2) if clones is not None else itertools.pairwise(order):
        pairs = pair(counts, earlier=earlier, later=later)
        if pairs is None:
            continue
        pair_of = zip(np.array(timed)[pairs.earlier], np.array(timed)[pairs.later], pairs.weight, strict=True)
        found += [(datasets[first], names[first], names[second], float(weight)) for first, second, weight in pair_of]
        records.append(pairs.record)
    return found, records


def _pair(counts: Any, *, times: list[str], clones: list[str | None] | None, earlier: str, later: str) -> Pairs | None:
    """Pairs between two times; None where no clone was seen at both."""
    if clones is None:
        return pair_by_transport(counts, times, earlier=earlier, later=later)
    of_time = [{clone for clone, time in zip(clones, times, strict=True) if time == at and clone} for at in (earlier, later)]
    return pair_by_clone(times, clones, earlier=earlier, later=later) if of_time[0] & of_time[1] else None
