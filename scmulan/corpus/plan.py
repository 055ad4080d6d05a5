"""What a corpus is to be made of: a plan in YAML.

    defaults: {split: {by: donor, test: 0.1}}   # for every source that does not say otherwise
    sources:
      - atlas/                                  # a folder: all .h5ad files and zarr stores in it; or a pattern, atlas/lung_*.h5ad
      - path: lung.h5ad                         # relative to the plan; `embedded:NAME.h5ad` is one of the shipped data sets
        fields: {organ: tissue}                 # only where the usual column names don't find it
        weight: 2                               # how often its cells are seen in training
        licence: CC-BY-4.0                      # of the data; stands in the card of every model that learns from them
        states: {clone: clone_id}               # which cells became which: by clone, or `transport` (docs/corpora.md)
    weights: {cell_type: {platelet: 3}}         # the same by label
    tokenizer: {least_cells: 10, text_size: 700, gene_order: rising}   # or a folder, `default` or `demo`

A split is fixed by hash of cell, donor or data set, drawn by type as scikit-learn does (``stratified``), or read from a column or
a file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from scmulan import assets
from scmulan.cells_stored import is_zarr
from scmulan.errors import RecipeError, nearest
from scmulan.metadata import FIELDS, canonical
from scmulan.tokenizer import SHIPPED

EMBEDDED = "embedded:"
SPLIT_BY = ("cell", "donor", "dataset", "stratified", "column", "file")
TRANSPORT = "transport"
GENE_ORDERS = ("rising", "falling", "alphabetical")
LEAST_TEXT = 256  # a piece of text for each byte
KEYS = ("defaults", "sources", "weights", "tokenizer", "deduplicate")


@dataclass(frozen=True, kw_only=True)
class Split:
    """How a source's cells are divided.

    Attributes
    ----------
    by : ``cell``, ``donor`` or ``dataset`` (fixed by hash), ``stratified`` (by cell type, drawn with ``seed``), ``column`` or ``file``
    column : the column of ``obs`` that says train, valid or test
    file : a text file that says it, a line a cell, in the order of the source
    valid, test : shares held out
    """

    by: str = "cell"
    column: str = "split"
    file: str | None = None
    valid: float = 0.0
    test: float = 0.1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of a plan.

    Attributes
    ----------
    weight : how often its cells are seen beside those of other sources
    licence : of the data
    states : how cells are paired along time: ``{"clone": COLUMN}``, or ``"transport"``; not at all when None
    """

    path: str
    fields: dict[str, str] = field(default_factory=dict)
    organism: str | None = None
    layer: str | None = None
    split: Split = field(default_factory=Split)
    weight: float = 1.0
    licence: str | None = None
    states: Any = None


@dataclass(frozen=True, kw_only=True)
class TokenizerPlan:
    """What a tokenizer made for the plan holds.

    Attributes
    ----------
    least_cells : a gene needs this many training cells that detect it
    most_genes : the genes detected most often are kept, when there are more
    gene_order : ids by ``rising`` detection (fast: most positions see few later genes), ``falling``, or ``alphabetical``
    text_size : ids of the text part
    folder : a tokenizer that is there already, taken instead of making one
    """

    least_cells: int = 1
    most_genes: int | None = None
    gene_order: str = "rising"
    text_size: int = 1024
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sources, each one file or store, and what to make of them.

    Attributes
    ----------
    weights : field to label to how often its cells are seen, 1 where not named
    deduplicate : cells with the same counts are kept once
    """

    sources: tuple[Source, ...]
    tokenizer: TokenizerPlan = field(default_factory=TokenizerPlan)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    deduplicate: bool = True


def read_plan(path: str | Path | Mapping[str, Any], folder: Path | None = None) -> Plan:
    """A plan from a YAML file, or from a mapping with the folder that its paths are relative to.

    Raises
    ------
    RecipeError
        Naming the key, what was found and what was needed; a source that is reached twice with different settings.
    """
    if isinstance(path, Mapping):
        given, where, folder = dict(path), "plan", folder or Path(".")
    else:
        given, where, folder = _yaml(Path(path)), str(path), Path(path).parent
    if not isinstance(given, dict) or not isinstance(given.get("sources"), list) or not given["sources"]:
        raise RecipeError(f"{where}: no sources; needed a list of data sets under `sources:`")
    for key in given:
        if key not in KEYS:
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(str(key), KEYS)}; known: {', '.join(KEYS)}")
    defaults = given.get("defaults") or {}
    if not isinstance(defaults, Mapping):
        raise RecipeError(f"{where}: defaults is {defaults!r}; needed a mapping, as of one source")
    sources = [
        source
        for number, entry in enumerate(given["sources"])
        for source in _sources_of(entry, dict(defaults), f"{where}: sources[{number}]", folder)
    ]
    is_deduplicating = given.get("deduplicate", True)
    if not isinstance(is_deduplicating, bool):
        raise RecipeError(f"{where}: deduplicate is {is_deduplicating!r}; needed true or false")
    return Plan(
        sources=_each_once(sources, where),
        tokenizer=_read_tokenizer(f"{where}: tokenizer", given.get("tokenizer"), folder),
        weights=_read_weights(f"{where}: weights", given.get("weights") or {}),
        deduplicate=is_deduplicating,
    )


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give the path of a plan in YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not YAML ({error})") from None


def _sources_of(entry: Any, defaults: dict[str, Any], at: str, folder: Path) -> Iterator[Source]:
    """The sources of one entry: itself, or each file of a folder or pattern."""
    entry = {"path": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping):
        raise RecipeError(f"{at} is {entry!r}; needed a mapping of {', '.join(one.name for one in dataclasses.fields(Source))}")
    whole = {**defaults, **entry}
    if "split" in whole:
        whole["split"] = _read_split(f"{at}.split", whole["split"])
    source: Source = _fill(Source, at, whole)
    if not isinstance(source.path, str) or not source.path:
        raise RecipeError(f"{at}: path is {source.path!r}; needed a text")
    fields = source.fields
    if not isinstance(fields, Mapping) or not all(isinstance(text, str) for pair in fields.items() for text in pair):
        raise RecipeError(f"{at}: fields is {source.fields!r}; needed a mapping of field to column, {{organ: tissue}}")
    for name, example in (("organism", "human"), ("layer", "raw_counts"), ("licence", "CC-BY-4.0")):
        if not isinstance(getattr(source, name), str | None):
            raise RecipeError(f"{at}: {name} is {getattr(source, name)!r}; needed a text, for example {example}")
    clone = source.states.get("clone") if isinstance(source.states, Mapping) and len(source.states) == 1 else None
    if source.states not in (None, TRANSPORT) and not isinstance(clone, str):
        raise RecipeError(
            f"{at}: states is {source.states!r}; needed {{clone: COLUMN}}, the column of obs that names clones, or `transport`"
        )
    if source.weight < 0:
        raise RecipeError(f"{at}: weight is {source.weight:g}; needed 0 or more")
    for path in _paths(source.path, at, folder):
        yield dataclasses.replace(source, path=str(path))


def _paths(text: str, at: str, folder: Path) -> list[Path]:
    if text.startswith(EMBEDDED):
        return [assets.path("embedded", "cells", text.removeprefix(EMBEDDED))]
    if "\0" in text:
        raise RecipeError(f"{at}: path {text!r}: no path; needed one without a null character")
    path = folder / text
    is_folder, is_pattern = path.is_dir() and not is_zarr(path), any(sign in text for sign in "*?[")
    if not is_folder and not (is_pattern and not path.exists()):
        return [path]
    try:
        inside = path.iterdir() if is_folder else (one for one in path.parent.iterdir() if fnmatch(one.name, path.name))
        found = sorted(one for one in inside if one.suffix == ".h5ad" or is_zarr(one))
    except OSError as error:
        raise RecipeError(f"{at}: path {text!r}: can't be looked through ({error})") from None
    if not found:
        raise RecipeError(f"{at}: no .h5ad file or zarr store in {path}; needed at least one")
    return found


def _each_once(sources: list[Source], where: str) -> tuple[Source, ...]:
    """Sources without those named again alike; RecipeError where one is named again with other settings."""
    found: dict[Path, Source] = {}
    for source in sources:
        path = Path(source.path).absolute()
        if found.setdefault(path, source) != source:
            pairs = zip(*(dataclasses.asdict(one).items() for one in (found[path], source)), strict=True)
            clash = [f"{name} {one!r} and {other!r}" for (name, one), (_, other) in pairs if one != other and name != "path"]
            raise RecipeError(f"{where}: {source.path} is named twice, with {', '.join(clash)}; name it once, or a folder without it")
    return tuple(found.values())


def _read_split(where: str, given: Any) -> Split:
    split: Split = _fill(Split, where, given)
    if split.by not in SPLIT_BY:
        raise RecipeError(f"{where}: by {split.by!r}: needed one of {', '.join(SPLIT_BY)}{nearest(str(split.by), SPLIT_BY)}")
    if split.valid < 0 or split.test < 0 or not split.valid + split.test < 1:
        raise RecipeError(f"{where}: valid {split.valid:g} and test {split.test:g}; needed shares that leave some cells to train on")
    if (split.file is not None) != (split.by == "file"):
        raise RecipeError(f"{where}: by {split.by} and file {split.file!r}; needed `by: file` and the path of a text file, or neither")
    if not isinstance(split.column, str):
        raise RecipeError(f"{where}: column is {split.column!r}; needed the name of a column of obs")
    return split


def _read_tokenizer(where: str, given: Any, folder: Path) -> TokenizerPlan:
    plan: TokenizerPlan = _fill(TokenizerPlan, where, {"folder": given} if isinstance(given, str) else given or {})
    for name, least in (("least_cells", 0), ("most_genes", 1), ("text_size", LEAST_TEXT)):
        value = getattr(plan, name)
        if value is not None and value < least:
            raise RecipeError(f"{where}: {name} is {value}; needed {least} or more")
    if plan.folder is not None:
        if not isinstance(plan.folder, str) or not plan.folder:
            raise RecipeError(f"{where}: folder is {plan.folder!r}; needed a text: a tokenizer folder, or {' or '.join(SHIPPED)}")
        plan = dataclasses.replace(plan, folder=plan.folder if plan.folder in SHIPPED else str(folder / plan.folder))
    if plan.gene_order not in GENE_ORDERS:
        raise RecipeError(f"{where}.gene_order {plan.gene_order!r}: needed one of {', '.join(GENE_ORDERS)}")
    return plan


def _read_weights(where: str, given: Any) -> dict[str, dict[str, float]]:
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where} is {given!r}; needed a mapping of field to label to weight")
    for name, labels in given.items():
        if name not in FIELDS:
            raise RecipeError(f"{where}: unknown field {name!r}{nearest(str(name), FIELDS)}; known: {', '.join(FIELDS)}")
        if not isinstance(labels, Mapping) or not all(_is_number(weight) and weight >= 0 for weight in labels.values()):
            raise RecipeError(f"{where}.{name} is {labels!r}; needed a mapping of label to a weight of 0 or more")
    return {name: {canonical(name, str(label)).value: float(weight) for label, weight in labels.items()} for name, labels in given.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fill(cls: type[Any], where: str, given: Any) -> Any:
    """A dataclass from a mapping; RecipeError names an unknown key and its nearest, or one that is missing or of the wrong kind."""
    known = {entry.name: entry for entry in dataclasses.fields(cls)}
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where} is {given!r}; needed a mapping of {', '.join(known)}")
    for key, value in given.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(str(key), list(known))}; known: {', '.join(known)}")
        kind = str(known[key].type).split(" | ")
        if kind[0] in ("int", "float") and not (_is_number(value) or (value is None and "None" in kind)):
            raise RecipeError(f"{where}: {key} is {value!r}; needed a number")
        if kind[0] == "int" and value is not None and not isinstance(value, int):
            raise RecipeError(f"{where}: {key} is {value!r}; needed a whole number")
    for key, entry in known.items():
        if key not in given and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where}: no {key}; needed one")
    return cls(**given)
