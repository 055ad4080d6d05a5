"""A file read in a process of its own that is ended at its limits: started, listened to, judged. The server's own process never opens it.

What that process says is taken as coming from the client: bounded, checked, cleaned of control characters. What it complains of goes to
the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import unicodedata
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from scmulan.serving.uploads_limits import CLEAN, REMEDY, UploadLimits, UploadRefused, UploadTooLarge

READER = "scmulan.serving.uploads_reading"
MOST_SAID, MOST_COMPLAINED = 2**23, 2**14  # bytes of stdout and stderr
MOST_TOLD = 4000  # characters of a message
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of characters that are nothing to be seen, or turn what is."""
NEEDED = {"cells": int, "genes": int, "report": dict, "obs": dict, "left_out": list}
log = logging.getLogger("scmulan.serving")
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_has_told: set[str] = set()


async def read_apart(folder: Path, limits: UploadLimits) -> Mapping[str, Any]:
    """Have the file that was received in a folder read and its clean file written there.

    Returns
    -------
    ``cells``, ``genes``, ``report``, ``obs`` and ``left_out``, as plain data

    Raises
    ------
    UploadRefused
        The file can't be used, or is beyond a limit; the process is gone then, as when this is cancelled.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(limits.at_once))
    async with turn:
        said, complained, code = await _run(folder, limits)
    if complained:
        log.info("reading an upload: code %s, it complained: %r", code, complained.decode("utf-8", "replace"))
    if code != 0:
        _refuse_by_code(code, limits)
    return _understood(said, folder)


async def _run(folder: Path, limits: UploadLimits) -> tuple[bytes, bytes, int]:
    """What the process says, what it complains of, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", READER, json.dumps(asdict(limits)), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=folder,
        env=_environment(), start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(limits.seconds):
            return await asyncio.gather(_first(process.stdout, MOST_SAID + 1), _first(process.stderr, MOST_COMPLAINED), process.wait())
    except TimeoutError:
        raise UploadTooLarge(_too_slow(limits)) from None
    finally:
        await _end(process)


async def _first(stream: asyncio.StreamReader, most: int) -> bytes:
    """The first bytes of a stream; the rest is read and let go, so that nobody waits to write it."""
    kept = bytearray()
    while part := await stream.read(2**16):
        kept += part[: most - len(kept)]
    return bytes(kept)


async def _end(process: Process) -> None:
    """Kill a process that runs on, with all that it started, and wait until it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 10)


def _environment() -> dict[str, str]:
    """Of the environment nothing but where modules are; one thread each for libraries that would start one for each core."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS", "MALLOC_ARENA_MAX")
    return {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
        "HDF5_PLUGIN_PATH": "::", "HDF5_PLUGIN_PRELOAD": "::", **dict.fromkeys(threads, "1"),
    }  # fmt: skip


def _too_slow(limits: UploadLimits) -> str:
    return f"reading it takes longer than {limits.seconds:,} s; needed less; upload fewer cells, or layers['counts'] alone"


def _refuse_by_code(code: int, limits: UploadLimits) -> NoReturn:
    if code == -signal.SIGXCPU:
        raise UploadTooLarge(_too_slow(limits))
    if code == -signal.SIGKILL:
        raise UploadTooLarge(
            "the process that read it was killed: most likely the server is short of memory; upload it later, or fewer cells"
        )
    raise UploadRefused(f"reading it ended the process that did so (code {code}): most likely damaged inside; {REMEDY}")


def _understood(said: bytes, folder: Path) -> Mapping[str, Any]:
    """What was said, checked; its refusal raised."""
    try:
        answer = json.loads(said) if len(said) <= MOST_SAID else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise UploadRefused(f"the process that read it gave no answer that can be used; {REMEDY}")
    network = answer.get("network")
    if network and str(network) not in _has_told:
        _has_told.add(str(network)[:100])
        log.warning("uploads are read in a process that keeps its network: %s", readable(str(network), 100))
    report = answer.get("report")
    if "refused" in answer:
        kind = UploadTooLarge if answer.get("is_too_large") else UploadRefused
        raise kind(readable(str(answer["refused"]), MOST_TOLD), report if isinstance(report, dict) else None)
    clean = folder / CLEAN
    if any(not isinstance(answer.get(key), kind) for key, kind in NEEDED.items()) or clean.is_symlink() or not clean.is_file():
        raise UploadRefused(f"the process that read it did not finish; {REMEDY}")
    return answer


def readable(text: str, most: int) -> str:
    """Text without control characters or any that turn the direction of writing, line ends kept as blanks, cut where it is long."""
    plain = "".join(" " if each in "\n\t" else each for each in text if each in "\n\t" or unicodedata.category(each) not in UNSEEN)
    return plain[:most]
