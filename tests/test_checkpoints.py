"""Training checkpoints: whole or not there; what is broken is passed over and said; nothing whole is ever lost for it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from scmulan.errors import CheckpointError
from scmulan.training import checkpoints
from scmulan.training.checkpoints import MANIFEST, STATE, newest_whole, save


def state(step: int) -> dict[str, object]:
    return {"model": {"weight": torch.full((40, 30), float(step))}, "optimizers": [{"state": {0: {"momentum": torch.ones(3) * step}}}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (5, 10, 15):
        save(tmp_path, step, state(step), {"epoch": step // 5}, keep=3)
    return tmp_path


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints.checkpoints(folder)]


def test_the_newest_comes_back_as_it_was_saved(folder):
    found = newest_whole(folder)
    assert found is not None
    loaded, progress, broken = found
    assert torch.equal(loaded["model"]["weight"], state(15)["model"]["weight"])
    assert torch.equal(loaded["optimizers"][0]["state"][0]["momentum"], torch.ones(3) * 15)
    assert (progress, broken) == ({"step": 15, "epoch": 3}, [])


def test_no_checkpoint_is_none(tmp_path):
    assert newest_whole(tmp_path) is None
    assert newest_whole(tmp_path / "not there") is None


def test_only_the_newest_are_kept(folder):
    save(folder, 20, state(20), {}, keep=2)
    assert steps(folder) == [15, 20]


def damage(path: Path, how: str) -> None:
    content = (path / STATE).read_bytes()
    if how == "flipped bit":
        (path / STATE).write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    elif how == "cut":
        (path / STATE).write_bytes(content[: len(content) // 2])
    elif how == "no state":
        (path / STATE).unlink()
    elif how == "no manifest":
        (path / MANIFEST).unlink()
    else:
        (path / MANIFEST).write_text(how)


DAMAGES = ["flipped bit", "cut", "no state", "no manifest", "", "{", "[]", "3", "{}", '{"sha256": "0"}']


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(folder, how):
    damage(folder / "step-0000015", how)
    found = newest_whole(folder)
    assert found is not None
    assert found[1]["step"] == 10
    assert torch.equal(found[0]["model"]["weight"], state(10)["model"]["weight"])
    assert len(found[2]) == 1
    assert "step-0000015" in found[2][0]


def test_all_damaged_is_an_error_that_names_each(folder):
    for step, how in zip((5, 10, 15), ("cut", "no manifest", "flipped bit"), strict=True):
        damage(folder / f"step-{step:07d}", how)
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole: .*0000015.*sha256.*0000010.*0000005.*delete them to begin again"):
        newest_whole(folder)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_broken_later_checkpoint_never_takes_the_place_of_a_whole_one(folder, keep):
    """A run that went back to step 5 and saves step 7 keeps what it just wrote, not the broken ones of later steps."""
    damage(folder / "step-0000010", "cut")
    damage(folder / "step-0000015", "cut")
    save(folder, 7, state(7), {}, keep=keep)
    found = newest_whole(folder)
    assert found is not None
    assert found[1]["step"] == 7
    assert steps(folder) == [5, 7][-keep:]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["fsync", "manifest", "torch"])
def test_a_full_disk_is_an_error_and_leaves_the_older_ones_whole(folder, monkeypatch, place):
    if place == "fsync":
        monkeypatch.setattr(checkpoints.os, "fsync", full_disk)
    elif place == "manifest":
        monkeypatch.setattr(checkpoints.json, "dump", full_disk)
    else:
        monkeypatch.setattr(checkpoints.torch, "save", lambda content, handle: torch_save(content, Filling(handle)))
    with pytest.raises(CheckpointError, match=r"step-0000020: can't be written \(.+\); the checkpoints before it are whole"):
        save(folder, 20, state(20), {}, keep=1)
    monkeypatch.undo()
    assert steps(folder) == [5, 10, 15]
    found = newest_whole(folder)
    assert found is not None
    assert (found[1]["step"], found[2]) == (15, [])
    assert not (folder / ".partial").exists()


torch_save = torch.save


class Filling:
    """A file on a disk that is full after a thousand bytes; torch makes a RuntimeError of what it raises."""

    def __init__(self, handle):
        self.handle, self.left = handle, 1000

    def write(self, content) -> int:
        self.left -= len(content)
        if self.left < 0:
            full_disk()
        return self.handle.write(content)

    def flush(self) -> None:
        self.handle.flush()


def test_what_a_kill_left_half_written_is_no_checkpoint_and_is_cleared_away(folder):
    (folder / ".partial").mkdir()
    (folder / ".partial" / STATE).write_bytes(b"half")
    found = newest_whole(folder)
    assert found is not None
    assert found[1]["step"] == 15
    save(folder, 20, state(20), {}, keep=3)
    assert steps(folder) == [10, 15, 20]
    assert not (folder / ".partial").exists()


def test_a_step_may_be_saved_again(folder):
    save(folder, 15, state(99), {}, keep=3)
    found = newest_whole(folder)
    assert found is not None
    assert float(found[0]["model"]["weight"][0, 0]) == 99


def test_a_checkpoint_that_holds_code_is_not_run(folder, tmp_path):
    """Only tensors and plain data are unpickled, so a checkpoint from elsewhere can't run code."""
    path = folder / "step-0000015"
    mark = tmp_path / "ran"
    torch.save({"model": Runs(str(mark))}, path / STATE)
    (path / MANIFEST).write_text(json.dumps({"step": 15, "progress": {}, "sha256": checkpoints.file_hash(path / STATE)}))
    try:
        found = newest_whole(folder)
    except CheckpointError:
        found = None
    assert not mark.exists()
    assert found is not None
    assert found[1]["step"] == 10


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, name: str):
        self.name = name

    def __reduce__(self):
        return os.mkdir, (self.name,)
