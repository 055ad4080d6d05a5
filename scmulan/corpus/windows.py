"""Training packs in windows: some shards at a time, so that memory is bounded whatever the size of the corpus.

A corpus of up to `Packing.window_cells` cells is one window. A larger one is a new order of its shards each epoch, cut into windows; the
packs of a window are a function of (corpus, packing, seed, epoch, window) alone, whoever makes them and in whatever order. They are made
while the window before is trained on, or ahead, in files of 16-bit ids (`scmulan corpus pack`), which training maps into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan.corpus.pack import Packing, Packs, counts_of, epoch_packs
from scmulan.corpus.shards import Corpus, file_hash, write_json
from scmulan.errors import CorpusError
from scmulan.prompts import SentenceWriter
from scmulan.questions import material_hash

PACKED = "packed"
PARTS = ("ids", "parts", "bounds", "tasks", "ends")


@dataclass(frozen=True)
class Window:
    """One window of an epoch, and the shards in it."""

    epoch: int
    number: int
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"epoch-{self.epoch:04d}-window-{self.number:05d}"


def windows_of(corpus: Corpus, most_cells: int, *, seed: int, epoch: int) -> list[Window]:
    """An epoch's windows, in order."""
    shards: Sequence[Mapping[str, Any]] = corpus.manifest["shards"]
    if sum(shard["cells"] for shard in shards) <= most_cells:
        return [Window(epoch, 0, tuple(shard["file"] for shard in shards))]
    groups: list[list[str]] = [[]]
    cells = 0
    for place in np.random.default_rng([seed, epoch, 3]).permutation(len(shards)):
        if groups[-1] and cells + shards[place]["cells"] > most_cells:
            groups.append([])
            cells = 0
        groups[-1].append(shards[place]["file"])
        cells += shards[place]["cells"]
    return [Window(epoch, number, tuple(files)) for number, files in enumerate(groups)]


def window_packs(corpus: Corpus, window: Window, writer: SentenceWriter, packing: Packing, *, seed: int) -> Packs:
    """The packs of a window: read from its file where there is one, else made."""
    found = _read(folder_of(corpus, writer, packing, seed) / window.name)
    return found if found is not None else _made(corpus, window, writer, packing, seed)


def _made(corpus: Corpus, window: Window, writer: SentenceWriter, packing: Packing, seed: int) -> Packs:
    rows = corpus.read("train", window.files)
    # the first window of an epoch draws as a corpus of one window does, each other one for itself
    of_window = seed if window.number == 0 else int(np.random.SeedSequence([seed, window.number]).generate_state(1)[0])
    return epoch_packs(rows, counts_of(rows.ids, writer), writer, packing, seed=of_window, epoch=window.epoch)


def folder_of(corpus: Corpus, writer: SentenceWriter, packing: Packing, seed: int) -> Path:
    """Where the packs of a corpus under these settings lie: a folder named by a hash of all that decides them."""
    tasks = {name: asdict(task) for name, task in writer.prompts.tasks.items()}
    decisive = [corpus.manifest["tokenizer_sha256"], [shard["sha256"] for shard in corpus.manifest["shards"]], asdict(packing), seed, tasks]
    if packing.questions:
        decisive.append(material_hash())
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return corpus.folder / PACKED / key


def write_window(corpus: Corpus, window: Window, writer: SentenceWriter, packing: Packing, *, seed: int) -> dict[str, Any]:
    """Write a window's packs to files, whole or not at all; what is there already is left. Returns what the manifest says of it."""
    folder = folder_of(corpus, writer, packing, seed)
    place, record = folder / window.name, folder / f"{window.name}.json"
    if not (record.is_file() and place.is_dir()):
        packs = _made(corpus, window, writer, packing, seed)
        partial = folder / f"{window.name}.{os.getpid()}-{os.urandom(4).hex()}.partial"
        partial.mkdir(parents=True)
        ends = np.cumsum([len(bounds) for bounds in packs.bounds]).astype(np.int64)
        bounds, tasks = np.concatenate([np.zeros(0, np.int32), *packs.bounds]), np.concatenate([np.zeros(0, np.uint8), *packs.tasks])
        flat: tuple[npt.NDArray[Any], ...] = (packs.ids, packs.parts, bounds, tasks, ends)
        for name, array in zip(PARTS, flat, strict=True):
            np.save(partial / f"{name}.npy", array)
            with open(partial / f"{name}.npy", "rb") as handle:
                os.fsync(handle.fileno())
        hashes = {name: file_hash(partial / f"{name}.npy") for name in PARTS}
        shutil.rmtree(place, ignore_errors=True)  # without a record, where a run was killed between the two
        partial.rename(place)
        write_json(record, {"window": window.name, "packs": len(packs), "fill": round(packs.fill, 4), "sha256": hashes})
    content: dict[str, Any] = json.loads(record.read_text())
    return content


def clear_partial(corpus: Corpus, writer: SentenceWriter, packing: Packing, seed: int) -> None:
    """Remove what runs that were killed left half written under these settings."""
    for left in folder_of(corpus, writer, packing, seed).glob("*.partial"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_manifest(corpus: Corpus, writer: SentenceWriter, packing: Packing, seed: int, windows: Sequence[dict[str, Any]]) -> Path:
    """Write what the packed files are and what they were made of; returns their folder."""
    folder = folder_of(corpus, writer, packing, seed)
    made_of = {"tokenizer_sha256": corpus.manifest["tokenizer_sha256"], "packing": asdict(packing), "seed": seed}
    write_json(folder / "manifest.json", {**made_of, "windows": list(windows)})
    return folder


def verify_packed(corpus: Corpus) -> int:
    """Compare every packed file with its hash; how many windows there are. CorpusError names the first damaged one."""
    windows = 0
    for record in sorted((corpus.folder / PACKED).glob("*/*-window-*.json")):
        content = json.loads(record.read_text())
        for name, expected in content["sha256"].items():
            path = record.with_suffix("") / f"{name}.npy"
            if not path.is_file() or file_hash(path) != expected:
                raise CorpusError(f"{path}: missing, or its sha256 is not the one in {record.name}; delete {path.parent} and pack again")
        windows += 1
    return windows


def _read(place: Path) -> Packs | None:
    """Packs of files, ids and parts mapped rather than read; None where there are none."""
    if not place.is_dir():
        return None
    try:
        ids, parts, bounds, tasks, ends = (np.load(place / f"{name}.npy", mmap_mode="r") for name in PARTS)
        starts = np.concatenate([[0], ends])[:-1].astype(np.int64)
        # a pack of n sentences has n + 1 bounds and n tasks, so the tasks of pack k start k places earlier
        spans = [(int(start), int(end), number) for number, (start, end) in enumerate(zip(starts, ends, strict=True))]
        return Packs(
            ids,
            parts,
            [np.asarray(bounds[start:end]) for start, end, _ in spans],
            [np.asarray(tasks[start - number : end - number - 1]) for start, end, number in spans],
        )
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(f"{place}: packed files that can't be read ({error}); delete the folder and pack again") from None
