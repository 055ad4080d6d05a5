"""From a plan to a corpus folder: sources surveyed, blocks of cells to shards by workers, doubles dropped, one manifest.

Work goes on in ``OUTPUT.partial`` until all is done, so a folder with a manifest is whole; a build that was stopped goes on there, shard
by shard; one that is finished is looked over, and only what is damaged or changed is built anew. The same plan gives the same bytes,
however often it was stopped and whoever did the work. Limit: a stratified split holds the types of one source's cells in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scmulan import __version__
from scmulan.corpus.blocks import WORK, Block, Survey, Tally, build_block, close_sources, is_built, record_of, survey
from scmulan.corpus.duplicates import drop_rows, find_duplicates
from scmulan.corpus.plan import Plan, Source
from scmulan.corpus.shards import FORMAT, MANIFEST, write_json
from scmulan.corpus.states import states_file, write_states
from scmulan.corpus.workers import Failure, Workers, default_count, told_when_full
from scmulan.errors import CorpusError, some
from scmulan.metadata import FIELDS
from scmulan.tokenizer import TOKENIZER_FILES, load_vocabulary, tokenizer_hash

CELLS_PER_SHARD = 8192
PLAN_RECORD = "plan.json"
PARTIAL = ".partial"


def build_corpus(
    plan: Plan,
    tokenizer_folder: str | Path,
    output: str | Path,
    *,
    workers: Workers | None = None,
    skip_broken: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write a corpus folder, whole or not at all; goes on where an earlier build of the same plan stopped.

    Parameters
    ----------
    workers : where the work runs; by default in this process for few cells, else in a process for each core
    skip_broken : leave out sources that can't be read, and say so in the manifest

    Returns
    -------
    The manifest.

    Raises
    ------
    CorpusError
        When ``output`` is there already and is no corpus (a corpus is replaced), an unfinished build there is of another plan, or sources
        can't be read: the others are built first, and kept for the next run.
    """
    output = Path(output)
    with told_when_full():
        try:
            return _build(plan, Path(tokenizer_folder), output, workers, skip_broken, say)
        finally:
            close_sources()


def _build(
    plan: Plan, tokenizer: Path, output: Path, workers: Workers | None, skip_broken: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    partial = _prepare(plan, tokenizer, output)
    surveys, failures = _survey_all(plan, partial, workers or Workers())
    workers = workers or Workers(count=default_count(sum(found.n_cells for found in surveys.values())))
    blocks = _blocks(plan, surveys, partial)
    failures |= _build_all(blocks, workers, failures)
    if failures and not skip_broken:
        raise CorpusError(_told(failures, plan, partial))
    kept = [number for number in sorted(surveys) if number not in failures]
    if not kept:
        raise CorpusError(f"no source is left: {_first(failures)}")
    files = [block.file for block in blocks if block.number in kept]
    vocabulary = load_vocabulary(partial / "tokenizer")
    if plan.deduplicate:
        for file, rows in find_duplicates(partial, files).items():
            drop_rows(partial, file, rows, FIELDS, vocabulary)
    states = {
        number: write_states(plan.sources[number], number, partial, files, vocabulary, surveys[number].identity)
        for number in kept
        if plan.sources[number].states is not None
    }
    manifest = _manifest(plan, surveys, [block for block in blocks if block.number in kept], partial, failures, states)
    _finish(partial, output, manifest, files)
    for line in warnings_of(manifest):
        say(line)
    return manifest


def _prepare(plan: Plan, tokenizer: Path, output: Path) -> Path:
    """The folder of work, new or as an earlier build left it."""
    if output.exists() and not (output / MANIFEST).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise CorpusError(f"{output}: exists and is no corpus, so it is not replaced; name another folder")
    partial = output.with_name(output.name + PARTIAL)
    said = {
        "scmulan": __version__, "format": FORMAT, "tokenizer_sha256": tokenizer_hash(tokenizer), "cells_per_shard": CELLS_PER_SHARD,
        "plan": json.loads(json.dumps(dataclasses.asdict(plan))),
    }  # fmt: skip
    record = partial / WORK / PLAN_RECORD
    if record.is_file() and json.loads(record.read_text()) != said:
        raise CorpusError(f"{partial}: an unfinished build of another plan or tokenizer; finish that one, or delete the folder")
    finished = output / WORK / PLAN_RECORD
    if not record.is_file() and finished.is_file() and json.loads(finished.read_text()) == said:
        shutil.rmtree(partial, ignore_errors=True)
        output.rename(partial)  # built before: what is still whole stays
    elif not record.is_file():
        shutil.rmtree(partial, ignore_errors=True)
        (partial / WORK).mkdir(parents=True)
        (partial / "tokenizer").mkdir()
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, partial / "tokenizer" / name)
        write_json(record, said)
    for left in (*partial.glob("*.partial"), *(partial / WORK).glob("*.partial")):
        left.unlink()
    return partial


def _survey_all(plan: Plan, partial: Path, workers: Workers) -> tuple[dict[int, Survey], dict[int, str]]:
    """What is known of each source by its number, and why others can't be read."""
    surveys, failures = dict[int, Survey](), dict[int, str]()
    tasks = list(enumerate(plan.sources))
    for (number, _), found in _shown(workers.run(functools.partial(_survey_one, str(partial)), tasks), len(tasks), "sources"):
        if isinstance(found, Failure):
            failures[number] = found.message
        else:
            surveys[number] = found
    return surveys, failures


def _survey_one(partial: str, task: tuple[int, Source]) -> Survey:
    number, source = task
    record = Path(partial) / WORK / f"source-{number:05d}.json"
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        known = None
    found = survey(source, str(Path(partial) / WORK / "scratch"), known)
    write_json(record, dataclasses.asdict(found))
    return found


def _blocks(plan: Plan, surveys: dict[int, Survey], partial: Path) -> list[Block]:
    return [
        Block(
            source=plan.sources[number], number=number, first=first, last=min(first + CELLS_PER_SHARD, surveys[number].n_cells),
            folder=str(partial), tokenizer=str(partial / "tokenizer"), weights=plan.weights, identity=surveys[number].identity,
        )
        for number in sorted(surveys)
        for first in range(0, surveys[number].n_cells, CELLS_PER_SHARD)
    ]  # fmt: skip


def _build_all(blocks: list[Block], workers: Workers, failures: dict[int, str]) -> dict[int, str]:
    """Build what is not built; why sources could not be."""
    found = dict(failures)
    todo = [block for block in blocks if not is_built(block)]
    for block, result in _shown(workers.run(build_block, todo), len(todo), "shards"):
        if isinstance(result, Failure):
            found.setdefault(block.number, result.message)
    return found


def _shown(results: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """The results, with a bar on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(results, total=total, description=what)


def _told(failures: dict[int, str], plan: Plan, partial: Path) -> str:
    messages = [failures[number] for number in sorted(failures)]
    rest = f"\n  and {len(messages) - 3:,} more" if len(messages) > 3 else ""
    listed = ":\n  " + "\n  ".join(messages[:3]) + rest + "\n"
    if len(messages) == len(plan.sources):
        what = "the only source" if len(messages) == 1 else f"all {len(messages):,} sources"
        return f"{what} could not be read{listed}Mend {'it' if len(messages) == 1 else 'them'} and run the same command again"
    return (
        f"{len(messages):,} of {len(plan.sources):,} sources could not be read{listed}"
        f"The others are built, in {partial}: mend these and run the same command again, or leave them out with --skip-broken"
    )


def _first(failures: dict[int, str]) -> str:
    return some(failures[number] for number in sorted(failures))


def _manifest(
    plan: Plan, surveys: dict[int, Survey], blocks: list[Block], partial: Path, failures: dict[int, str], states: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    records = {block.file: json.loads(record_of(block.path).read_text()) for block in blocks}
    whole = Tally()
    for record in records.values():
        whole.join(record)
    names = {number: Path(plan.sources[number].path).name for number in surveys}
    return {
        "format": FORMAT,
        "scmulan": __version__,
        "tokenizer_sha256": tokenizer_hash(partial / "tokenizer"),
        "fields": list(FIELDS),
        "cells": whole.cells,
        "tokens": whole.tokens,
        "doubles": sum(record["doubles"] for record in records.values()),
        "donors_in_several_splits": sum(len(splits) > 1 for splits in whole.donors.values()),
        "donors": len(whole.donors),
        "sources": [
            _source_entry(plan.sources[number], surveys[number], [records[block.file] for block in blocks if block.number == number])
            | ({"states": states[number]} if number in states else {})
            for number in sorted(surveys)
            if number not in failures
        ],
        "left_out": [{"file": Path(plan.sources[number].path).name, "why": failures[number]} for number in sorted(failures)],
        "shards": [
            {"file": block.file, **{key: records[block.file][key] for key in ("sha256", "cells", "tokens")}, "source": names[block.number]}
            | _states_of(block.number, states)
            for block in blocks
        ],
    }  # fmt: skip


def _states_of(number: int, states: dict[int, dict[str, Any]]) -> dict[str, str]:
    """What a shard's line says of the states of its source."""
    return {"states": states_file(Path(), number).name, "states_sha256": states[number]["sha256"]} if number in states else {}


def _source_entry(source: Source, found: Survey, records: list[dict[str, Any]]) -> dict[str, Any]:
    tally = Tally()
    for record in records:
        tally.join(record)
    total, within = (sum(record[name] for record in records) for name in ("counts", "counts_in_vocabulary"))
    return {
        "file": Path(source.path).name,
        "sha256": found.sha256,
        "cells": tally.cells,
        "doubles": sum(record["doubles"] for record in records),
        "splits": {name: tally.splits[name] for name in ("train", "valid", "test") if tally.splits[name]},
        "weight": source.weight,
        **({"licence": source.licence} if source.licence else {}),
        "labels": {name: sorted(values) for name, values in tally.labels.items()},
        "label_cells": {name: dict(sorted(values.items())) for name, values in tally.labels.items()},
        "depths": dict(sorted(tally.depths.items(), key=lambda item: int(item[0]))),
        "lengths": _binned(tally),
        "genes_beyond_species": {organism: sorted(genes) for organism, genes in sorted(tally.beyond.items())},
        "share_of_counts_outside_vocabulary": round(1 - within / max(total, 1), 6),
        "median_tokens": tally.median_length(),
        "findings": found.findings,
    }


def _binned(tally: Tally) -> dict[str, int]:
    """Cells by number of ids, in bins of an eighth of an octave, each named by its lower bound."""
    bins: dict[int, int] = {}
    for length, cells in tally.lengths.items():
        start = round(2 ** (int(8 * math.log2(max(int(length), 1))) / 8))
        bins[start] = bins.get(start, 0) + cells
    return {str(start): bins[start] for start in sorted(bins)}


def _finish(partial: Path, output: Path, manifest: dict[str, Any], files: list[str]) -> None:
    """Remove what only the work needed, and put the corpus in its place."""
    write_json(partial / MANIFEST, manifest)
    shutil.rmtree(partial / WORK / "scratch", ignore_errors=True)
    for path in partial.glob("*.parquet"):
        if path.name not in (*files, *(shard.get("states") for shard in manifest["shards"])):
            path.unlink()
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)


def warnings_of(manifest: dict[str, Any]) -> list[str]:
    """What a user should know of a corpus, a line each."""
    lines = []
    if manifest["doubles"]:
        lines.append(f"{manifest['doubles']:,} cells with the counts of an earlier cell were left out")
    if manifest["donors_in_several_splits"]:
        lines.append(
            f"{manifest['donors_in_several_splits']:,} of {manifest['donors']:,} donors have cells in more than one split, so held-out "
            "figures say little of new donors; split: {by: donor} parts them"
        )
    for entry in manifest["left_out"]:
        lines.append(f"left out: {entry['file']}: {entry['why']}")
    return lines
