"""From data sets to a corpus folder: a plan in YAML, a tokenizer made for it, splits, shards, one manifest.

    sources:
      - path: lung.h5ad            # relative to the plan; `embedded:NAME.h5ad` is one of the shipped data sets
        fields: {organ: tissue}    # only where the usual column names don't find it
        split: {by: donor, test: 0.2}
    tokenizer: {least_cells: 10, text_size: 700, gene_order: rising}

A split is fixed by hash of cell, donor or data set, drawn by type as scikit-learn does (``stratified``), or read from a column.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from rich.console import Console
from rich.progress import track
from sklearn.model_selection import train_test_split
from transformers import PreTrainedTokenizerFast

from scmulan import __version__, assets, csentence
from scmulan.cells import Cells, read_cells, read_h5ad
from scmulan.corpus.shards import FORMAT, MANIFEST, SPLITS, CellRows, write_json, write_shard
from scmulan.csentence import Vocabulary
from scmulan.errors import CellDataError, CorpusError, RecipeError, nearest, some
from scmulan.genes import GeneTable
from scmulan.metadata import FIELDS, known_labels
from scmulan.prompts import GENES, load_prompts
from scmulan.tokenizer import build_tokenizer, load_tokenizer, load_vocabulary, tokenizer_hash

EMBEDDED = "embedded:"
CELLS_PER_SHARD = 8192
SPLIT_BY = ("cell", "donor", "dataset", "stratified", "column")
GENE_ORDERS = ("rising", "falling", "alphabetical")


@dataclass(frozen=True, kw_only=True)
class Split:
    """How a source's cells are divided.

    Attributes
    ----------
    by : ``cell``, ``donor`` or ``dataset`` (fixed by hash), ``stratified`` (by cell type, drawn with ``seed``), or ``column``
    column : the column of ``obs`` that says train, valid or test
    valid, test : shares held out
    """

    by: str = "cell"
    column: str = "split"
    valid: float = 0.0
    test: float = 0.1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of a plan."""

    path: str
    fields: dict[str, str] = field(default_factory=dict)
    organism: str | None = None
    layer: str | None = None
    split: Split = field(default_factory=Split)


@dataclass(frozen=True, kw_only=True)
class TokenizerPlan:
    """What a tokenizer made for the plan holds.

    Attributes
    ----------
    least_cells : a gene needs this many training cells that detect it
    most_genes : the genes detected most often are kept, when there are more
    gene_order : ids by ``rising`` detection (fast: most positions see few later genes), ``falling``, or ``alphabetical``
    text_size : ids of the text part
    """

    least_cells: int = 1
    most_genes: int | None = None
    gene_order: str = "rising"
    text_size: int = 1024


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sources and the tokenizer to make when none is given."""

    sources: tuple[Source, ...]
    tokenizer: TokenizerPlan = field(default_factory=TokenizerPlan)
    folder: Path = Path(".")


def _fill(cls: type[Any], where: str, given: Mapping[str, Any]) -> Any:
    """A dataclass from a mapping; RecipeError names an unknown key and its nearest, or one that is missing or of the wrong kind."""
    known = {entry.name: entry for entry in dataclasses.fields(cls)}
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where} is {given!r}; needed a mapping of {', '.join(known)}")
    for key, value in given.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(str(key), list(known))}; known: {', '.join(known)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if str(known[key].type).split(" ")[0] in ("int", "float") and value is not None and not is_number:
            raise RecipeError(f"{where}: {key} is {value!r}; needed a number")
    for key, entry in known.items():
        if key not in given and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where}: no {key}; needed one")
    return cls(**given)


def read_plan(path: str | Path | Mapping[str, Any], folder: Path | None = None) -> Plan:
    """A plan from a YAML file, or from a mapping with the folder that its paths are relative to."""
    if isinstance(path, Mapping):
        given, where, folder = dict(path), "plan", folder or Path(".")
    else:
        where, folder = str(path), Path(path).parent
        try:
            given = yaml.safe_load(Path(path).read_text()) or {}
        except OSError as error:
            raise RecipeError(f"{path}: {error.strerror}; give the path of a plan in YAML") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not YAML ({error})") from None
    if not isinstance(given, dict) or not isinstance(given.get("sources"), list) or not given["sources"]:
        raise RecipeError(f"{where}: no sources; needed a list of data sets under `sources:`")
    for key in given:
        if key not in ("sources", "tokenizer"):
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(str(key), ['sources', 'tokenizer'])}; known: sources, tokenizer")
    sources = []
    for number, entry in enumerate(given["sources"]):
        at = f"{where}: sources[{number}]"
        entry = {"path": entry} if isinstance(entry, str) else entry
        if isinstance(entry, Mapping) and "split" in entry:
            entry = {**entry, "split": _read_split(f"{at}.split", entry["split"])}
        sources.append(_fill(Source, at, entry))
    tokenizer = _fill(TokenizerPlan, f"{where}: tokenizer", given.get("tokenizer") or {})
    if tokenizer.gene_order not in GENE_ORDERS:
        raise RecipeError(f"{where}: tokenizer.gene_order {tokenizer.gene_order!r}: needed one of {', '.join(GENE_ORDERS)}")
    return Plan(sources=tuple(sources), tokenizer=tokenizer, folder=folder)


def _read_split(where: str, given: Any) -> Split:
    split: Split = _fill(Split, where, given)
    if split.by not in SPLIT_BY:
        raise RecipeError(f"{where}: by {split.by!r}: needed one of {', '.join(SPLIT_BY)}{nearest(str(split.by), SPLIT_BY)}")
    if split.valid < 0 or split.test < 0 or split.valid + split.test >= 1:
        raise RecipeError(f"{where}: valid {split.valid:g} and test {split.test:g}; needed shares that leave some cells to train on")
    return split


def _sources(plan: Plan, text: str) -> Iterator[tuple[Path, Cells, list[str]]]:
    """Each source's path, cells and splits."""
    for source in track(plan.sources, description=text, transient=True, console=Console(stderr=True)):
        if source.path.startswith(EMBEDDED):
            path = assets.path("embedded", "cells", source.path.removeprefix(EMBEDDED))
        else:
            path = plan.folder / source.path
        adata = read_h5ad(path)
        try:
            cells = read_cells(adata, fields=source.fields, organism=source.organism, layer=source.layer)
        except CellDataError as error:
            raise CellDataError(f"{path}: {str(error).removeprefix('AnnData: ')}") from None
        cells = dataclasses.replace(cells, dataset=[path.stem if name == "unnamed" else name for name in cells.dataset])
        column = (
            adata.obs[source.split.column].astype(str).tolist()
            if source.split.by == "column" and source.split.column in adata.obs
            else None
        )
        yield path, cells, assign_split(cells, source.split, str(path), column)


def assign_split(cells: Cells, split: Split, where: str, column: list[str] | None = None) -> list[str]:
    """``train``, ``valid`` or ``test`` for each cell; (C,)."""
    if split.by == "column":
        if column is None:
            raise CellDataError(f"{where}: no column obs[{split.column!r}] to read the split from")
        wrong = sorted(set(column) - set(SPLITS))
        if wrong:
            raise CellDataError(f"{where}: obs[{split.column!r}] says {some(wrong)}; needed {', '.join(SPLITS)}")
        return column
    if split.by == "stratified":
        return _stratified(cells, split, where)
    keys: dict[str, list[str | None]] = {"cell": list(cells.cell_ids), "donor": cells.donors, "dataset": list(cells.dataset)}
    if split.by not in keys:
        raise RecipeError(f"{where}: split.by {split.by!r}; needed cell, donor, dataset, stratified or column")
    if None in keys[split.by]:
        raise CellDataError(
            f"{where}: split by {split.by}, but {keys[split.by].count(None):,} cells have none; split by cell or stratified"
        )
    return [_by_hash(f"{split.seed}:{key}", split) for key in keys[split.by]]


def _by_hash(key: str, split: Split) -> str:
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if place < split.test else "valid" if place < split.test + split.valid else "train"


def _stratified(cells: Cells, split: Split, where: str) -> list[str]:
    labels = cells.originals.get("cell_type") or [None] * len(cells)
    said = np.full(len(cells), "train", dtype=object)
    rest = np.arange(len(cells))
    for name, share in (("test", split.test), ("valid", split.valid / (1 - split.test))):
        if share:
            try:
                rest, held = train_test_split(rest, test_size=share, stratify=[str(labels[row]) for row in rest], random_state=split.seed)
            except ValueError as error:
                raise CellDataError(f"{where}: can't split by type ({error}); split by cell") from None
            said[held] = name
    return [str(name) for name in said]


def build_plan_tokenizer(plan: Plan, folder: str | Path) -> PreTrainedTokenizerFast:
    """A tokenizer of the genes that the plan's training cells detect, its text part trained on the labels and phrasings."""
    table, prompts = GeneTable.load(), load_prompts()
    detected = np.zeros(len(table), dtype=np.int64)
    texts: list[str] = []
    for _, cells, splits in _sources(plan, "genes and labels"):
        is_train = np.array(splits) == "train"
        detected += np.asarray((cells.counts[is_train] > 0).sum(0)).ravel()
        for values in cells.fields.values():
            texts += [value for value in set(values) if value] * 4
    chosen = np.flatnonzero(detected >= max(plan.tokenizer.least_cells, 1))
    if plan.tokenizer.most_genes:
        chosen = chosen[np.argsort(-detected[chosen], kind="stable")][: plan.tokenizer.most_genes]
    if not len(chosen):
        raise CorpusError(f"no gene is detected in {plan.tokenizer.least_cells} training cells; lower tokenizer.least_cells")
    texts += prompts.texts() + [label for name in FIELDS for label in known_labels(name)]
    genes = table.symbols[_ordered(chosen, detected, table.symbols, plan.tokenizer.gene_order)]
    return build_tokenizer(
        folder,
        genes=[str(symbol) for symbol in genes],
        texts=texts,
        fields=[*prompts.fields, GENES],
        tasks=list(prompts.tasks),
        text_size=plan.tokenizer.text_size,
        gene_order=plan.tokenizer.gene_order,
    )


def _ordered(
    chosen: npt.NDArray[np.int64], detected: npt.NDArray[np.int64], symbols: npt.NDArray[Any], order: str
) -> npt.NDArray[np.int64]:
    alphabetical = chosen[np.argsort(symbols[chosen].astype(str), kind="stable")]
    if order == "alphabetical":
        return alphabetical
    sign = 1 if order == "rising" else -1
    return alphabetical[np.argsort(sign * detected[alphabetical], kind="stable")]


def build_corpus(plan: Plan, tokenizer_folder: str | Path, output: str | Path) -> dict[str, Any]:
    """Write a corpus folder, whole or not at all; returns its manifest.

    Raises
    ------
    CellDataError
        Naming the source that can't be read, and why.
    CorpusError
        When ``output`` is there already and is no corpus; a corpus is replaced.
    """
    output, vocabulary, table = Path(output), load_vocabulary(tokenizer_folder), GeneTable.load()
    if output.exists() and not (output / MANIFEST).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise CorpusError(f"{output}: exists and is no corpus, so it is not replaced; name another folder")
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copytree(tokenizer_folder, partial / "tokenizer")
    shards: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    for path, cells, splits in _sources(plan, "sentences"):
        rows, left_out = _rows(cells, splits, vocabulary, table)
        for first in range(0, len(rows), CELLS_PER_SHARD):
            block = rows.select(range(first, min(first + CELLS_PER_SHARD, len(rows))))
            name = f"shard-{len(shards):05d}.parquet"
            digest = write_shard(partial / name, block, FIELDS)
            shards.append({"file": name, "sha256": digest, "cells": len(block), "tokens": int(block.ids.offsets[-1]), "source": path.name})
        sources.append(_source_entry(path, cells, splits, rows, left_out))
    manifest = {
        "format": FORMAT,
        "scmulan": __version__,
        "tokenizer_sha256": tokenizer_hash(tokenizer_folder),
        "fields": list(FIELDS),
        "cells": sum(shard["cells"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "sources": sources,
        "shards": shards,
    }
    write_json(partial / MANIFEST, manifest)
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
    return manifest


def _rows(cells: Cells, splits: list[str], vocabulary: Vocabulary, table: GeneTable) -> tuple[CellRows, float]:
    """Cells as ids, and the share of counts of genes that the vocabulary lacks."""
    used = np.unique(cells.counts.indices)
    counts, _ = csentence.to_vocabulary_order(cells.counts[:, used], [str(symbol) for symbol in table.symbols[used]], vocabulary)
    rows = CellRows(
        ids=csentence.encode(counts, vocabulary),
        fields={name: list(cells.fields.get(name) or [None] * len(cells)) for name in FIELDS},
        cell_ids=list(cells.cell_ids),
        datasets=list(cells.dataset),
        donors=list(cells.donors),
        splits=splits,
    )
    return rows, 1 - float(counts.sum()) / max(float(cells.counts.sum()), 1.0)


def _source_entry(path: Path, cells: Cells, splits: list[str], rows: CellRows, left_out: float) -> dict[str, Any]:
    labels = {name: sorted({value for value in values if value}) for name, values in cells.fields.items()}
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "cells": len(cells),
        "splits": {name: splits.count(name) for name in SPLITS if name in splits},
        "labels": {name: values for name, values in labels.items() if values},
        "share_of_counts_outside_vocabulary": round(left_out, 6),
        "median_tokens": int(np.median(rows.ids.lengths)) if len(rows) else 0,
        "findings": cells.report.to_dict(),
    }


def open_tokenizer(folder: str | Path) -> tuple[PreTrainedTokenizerFast, Vocabulary]:
    """Tokenizer and vocabulary of a folder."""
    return load_tokenizer(folder), load_vocabulary(folder)
