"""Training checkpoints that survive a kill at any moment.

A checkpoint is written to a temporary folder, hashed, synced and renamed; a folder with a manifest whose hashes hold is whole.
On start the newest whole one is used, and what is broken is left aside with a word.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from scmulan.errors import CheckpointError
from scmulan.model import file_hash

MANIFEST = "manifest.json"
STATE = "state.pt"


def save(folder: Path, step: int, state: Mapping[str, Any], progress: Mapping[str, Any], keep: int) -> Path:
    """Write ``folder/step-0000123`` whole or not at all, then delete all but the newest ``keep`` up to it."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, final = folder / ".partial", folder / f"step-{step:07d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with open(partial / STATE, "wb") as handle:
            torch.save(dict(state), handle)
            handle.flush()
            os.fsync(handle.fileno())
        with open(partial / MANIFEST, "w") as handle:
            json.dump({"step": step, "progress": dict(progress), "sha256": file_hash(partial / STATE)}, handle)
            handle.flush()
            os.fsync(handle.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{final}: can't be written ({error}); the checkpoints before it are whole") from error
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync_folder(folder)
    whole = [path for path in checkpoints(folder) if path.name <= final.name]  # a later one was broken, or the run would stand there
    for path in set(checkpoints(folder)) - set(whole[-keep:]):
        shutil.rmtree(path)
    return final


class Writer:
    """Writes checkpoints, at once or in a thread while training goes on; an error of the thread is raised with the next checkpoint.

    Parameters
    ----------
    folder : of the checkpoints
    keep : so many stay
    """

    def __init__(self, folder: Path, keep: int, *, in_background: bool):
        self.folder, self.keep, self.in_background = folder, keep, in_background
        self.pool = ThreadPoolExecutor(1)
        self.waiting: Future[Path] | None = None

    def save(self, step: int, state: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint once the one before is written."""
        self.wait()
        if not self.in_background:
            save(self.folder, step, state, progress, self.keep)
            return
        copied = torch.utils._pytree.tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, dict(state))
        self.waiting = self.pool.submit(save, self.folder, step, copied, progress, self.keep)

    def wait(self) -> None:
        """Until the last checkpoint is written."""
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.result()


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, whole or not."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def newest_whole(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]] | None:
    """State and progress of the newest whole checkpoint, and what was passed over; None when there is no checkpoint.

    Raises
    ------
    CheckpointError
        When there are checkpoints and none is whole.
    """
    broken: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if file_hash(path / STATE) != manifest["sha256"]:
                raise ValueError("its sha256 is not the manifest's")
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
            return state, {"step": manifest["step"], **manifest["progress"]}, broken
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
            broken.append(f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    if broken:
        raise CheckpointError("no checkpoint is whole: " + "; ".join(broken) + "; delete them to begin again")
    return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
