"""How many bytes the files and results of one key take, and how many they may."""

from __future__ import annotations

import os
from pathlib import Path

from scmulan.errors import ScmulanError

REMOVE = "remove some with DELETE /v1/files/ID and /v1/jobs/ID"


class NoRoom(ScmulanError):
    """The files and results of a key take as many bytes as they may."""


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder and below; of those that go meanwhile, none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                continue
    return total
