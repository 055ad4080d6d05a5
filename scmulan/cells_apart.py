"""``check`` of a file in a process of its own: a file so damaged that libhdf5 crashes or hangs on it is a finding too, not a crash.

Such damage is past every ``except``. `scmulan.cells_damage` looks for the kinds that are known; this bears those that are not. Limit:
`read_cells` reads in the caller's process, as any reader of HDF5 does; a file of doubtful origin is checked first.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scmulan.cells import check
from scmulan.doctor import CellReport

PATIENCE, SLOWEST = 60.0, 1e6  # seconds, and bytes a second that any disk gives


def check_apart(
    path: str | Path,
    *,
    fields: Mapping[str, str] | None = None,
    organism: str | None = None,
    layer: str | None = None,
    seconds: float | None = None,
) -> CellReport:
    """As `scmulan.cells.check`, for a file, in a process of its own.

    Parameters
    ----------
    seconds
        How long it may take; a minute, and a second for each megabyte of the file, where not given.
    """
    path = Path(path)
    limit = seconds if seconds is not None else PATIENCE + (path.stat().st_size / SLOWEST if path.is_file() else 0)
    # Forking spares a second of imports; elsewhere than on Linux system libraries don't bear it.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, path, {"fields": fields, "organism": organism, "layer": layer}), daemon=True)
    process.start()
    sender.close()
    try:
        said = receiver.recv() if receiver.poll(limit) else f"reading it takes longer than {limit:,.0f} s"
    except EOFError:
        process.join()
        said = _last_words(process.exitcode)
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(said, Exception):
        raise said
    return said if isinstance(said, CellReport) else _damaged(path, said)


def _answer(sender: Connection, path: Path, asked: dict[str, Any]) -> None:
    """What the other process does: a report, or the error that came instead of one."""
    try:
        sender.send(check(path, **asked))
    except Exception as error:  # noqa: BLE001  it is raised again where it was asked for
        sender.send(error)


def _last_words(code: int) -> str:
    return "the process that read it was killed: is there enough memory?" if code == -9 else f"reading it ended the process (code {code})"


def _damaged(path: Path, what: str) -> CellReport:
    report = CellReport(source=str(path))
    report.add("file", "problem", f"{what}: most likely damaged inside", "copy it again, or write it anew from its source")
    return report
