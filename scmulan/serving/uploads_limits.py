"""What an uploaded file may be, and the errors where it is something else.

    ScmulanError
    ├── UploadRefused (ValueError)   the file can't be used; the message says what to do
    │   ├── UploadTooLarge           it, or what reading it takes, is beyond a limit
    │   └── UploadsFull              as many files are kept as may be
    └── UploadUnknown (LookupError)  no file of that id

The process that reads a file imports this too, so it is light.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scmulan.errors import ScmulanError

RECEIVED, CLEAN = "received.h5ad", "cells.h5ad"
"""In the folder of an upload: what came, and what was made of it, which alone is kept."""
REMEDY = "write it anew with anndata.read_h5ad(...).write_h5ad(...) where it was made, and upload that"


class UploadRefused(ScmulanError, ValueError):
    """A file that can't be used; ``report`` is the doctor's, as plain data, where it got that far."""

    def __init__(self, message: str, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report


class UploadTooLarge(UploadRefused):
    """A file that is beyond a limit, or that would take more than one to read."""


class UploadsFull(UploadRefused):
    """As many files are kept as may be."""


class UploadUnknown(ScmulanError, LookupError):
    """No file of that id is kept."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """What an upload may be, and what reading it may take.

    Attributes
    ----------
    bytes : of the file as it comes
    cells
    values : counts above zero
    memory : bytes of address space of the process that reads it: 0.4 GiB for libraries and about 45 a value, so 4 GiB bear 80 million
    seconds : until that process is ended, on the clock and of processor time
    files : kept at once in a folder
    at_once : files that are read at the same time in this server process; others wait
    """

    bytes: int = 2**30
    cells: int = 200_000
    values: int = 200_000_000
    memory: int = 4 * 2**30
    seconds: int = 120
    files: int = 1000
    at_once: int = 2
