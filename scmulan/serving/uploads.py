"""Files of cells from strangers: received up to a limit, read in a process apart (`uploads_apart`), kept as the clean file it wrote.

An upload is a folder ``file-...`` with ``cells.h5ad`` and ``upload.json``; it appears whole, by a rename, and what was received is gone
then. Nothing a client names becomes part of a path: ids are drawn here, names are only shown. Limits: one process a folder; the disk a
folder may take is bounded by ``files`` times ``bytes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scmulan.cells import HDF5, AnnData, read_h5ad
from scmulan.errors import CellDataError
from scmulan.serving.room import bytes_in
from scmulan.serving.uploads_apart import read_apart, readable
from scmulan.serving.uploads_limits import (
    CLEAN,
    RECEIVED,
    UploadLimits,
    UploadRefused,
    UploadsFull,
    UploadTooLarge,
    UploadUnknown,
)

__all__ = ["FILE_ID", "Upload", "UploadLimits", "UploadRefused", "UploadTooLarge", "UploadUnknown", "Uploads", "UploadsFull"]

FILE_ID = "file-[0-9a-f]{24}"
ABOUT, COMING = "upload.json", "coming-"
LONGEST_NAME = 120
AT_ONCE = 2**20  # bytes that are written and hashed at a time
log = logging.getLogger("scmulan.serving")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that was received, read and kept.

    Attributes
    ----------
    id : ``file-`` and 24 hex digits, drawn at random
    name : what the client calls it, only to be shown
    bytes, sha256 : of the file as it came
    created : seconds since 1970
    cells, genes : of the clean file
    verdict : the doctor's report as plain data, as ``scmulan check --json`` prints it; long lists are cut
    obs : columns of ``obs`` with their first values
    left_out : what of the file was not kept, in words
    """

    id: str
    name: str
    bytes: int
    sha256: str
    created: float
    cells: int
    genes: int
    verdict: dict[str, Any]
    obs: dict[str, list[Any]]
    left_out: list[str]


class Uploads:
    """The uploads in a folder; those of an earlier process are there, what it had half received is removed.

    Parameters
    ----------
    folder : made where it is not there
    """

    def __init__(self, folder: Path, limits: UploadLimits = UploadLimits()) -> None:  # noqa: B008  it is frozen
        self.limits = limits
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._n_coming = 0
        for partial in self._folder.glob(f"{COMING}*"):
            shutil.rmtree(partial)
        found = [_read_about(path) for path in self._folder.iterdir() if re.fullmatch(FILE_ID, path.name)]
        self._kept = {upload.id: upload for upload in found if upload is not None}

    @property
    def size(self) -> int:
        """Bytes of all that is kept, and of what is being received."""
        return bytes_in(self._folder)

    async def add(self, name: str, chunks: AsyncIterator[bytes], room: Callable[[], object] = lambda: None) -> Upload:
        """Receive a file, have it read, and keep its clean form.

        Parameters
        ----------
        name : what the client calls it
        room : raises a ScmulanError where there is none for all that is kept, this file with it

        Raises
        ------
        UploadTooLarge
            It is beyond a limit.
        UploadRefused
            It can't be used; nothing of it is kept, and the message says what to do.
        """
        shown = shown_name(name)
        if len(self._kept) + self._n_coming >= self.limits.files:
            raise UploadsFull(f"{shown}: {self.limits.files:,} files are kept, the most there may be; remove some first")
        key = secrets.token_hex(12)
        place = self._folder / f"{COMING}{key}"
        self._n_coming += 1
        try:
            place.mkdir(mode=0o700)
            size, digest = await self._receive(chunks, place / RECEIVED)
            said = await read_apart(place, self.limits)
            upload = Upload(
                id=f"file-{key}", name=shown, bytes=size, sha256=digest, created=time.time(), cells=said["cells"], genes=said["genes"],
                verdict={**said["report"], "source": shown}, obs=said["obs"], left_out=said["left_out"],
            )  # fmt: skip
            (place / RECEIVED).unlink()
            room()
            (place / ABOUT).write_text(json.dumps(asdict(upload)))
            place.rename(self._folder / upload.id)
        except UploadRefused as error:
            raise type(error)(f"{shown}: {error}", error.report) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UploadsFull(f"{shown}: no room to keep it ({error.strerror}); remove other files first") from error
        finally:
            self._n_coming -= 1
            shutil.rmtree(place, ignore_errors=True)  # it has another name where all went well
        self._kept[upload.id] = upload
        return upload

    def get(self, file_id: str) -> Upload:
        """An upload; UploadUnknown where there is none of that id."""
        if not re.fullmatch(FILE_ID, file_id) or file_id not in self._kept:
            raise UploadUnknown(
                f"no file {readable(file_id, 40)!r}; needed an id as an upload gives it; list the files, or upload it again"
            )
        return self._kept[file_id]

    def cells(self, file_id: str) -> AnnData:
        """The cells of an upload: ``X`` (cells, genes) int32 CSR of counts, with the names they came with."""
        upload = self.get(file_id)
        try:
            return read_h5ad(self._folder / upload.id / CLEAN)
        except CellDataError as error:
            raise UploadUnknown(f"{upload.name}: what was kept of it as {upload.id} is gone or damaged; upload it again") from error

    def list(self) -> Sequence[Upload]:
        """All uploads, the oldest first."""
        return sorted(self._kept.values(), key=lambda upload: upload.created)

    def remove(self, file_id: str) -> None:
        """Remove an upload; UploadUnknown where there is none of that id."""
        gone = self._folder / self.get(file_id).id
        del self._kept[file_id]
        shutil.rmtree(gone)

    async def _receive(self, chunks: AsyncIterator[bytes], path: Path) -> tuple[int, str]:
        """Write what comes to a file; its size and its hash."""
        size, digest, waiting = 0, hashlib.sha256(), bytearray()
        with path.open("xb") as file:

            def put() -> None:
                file.write(waiting)
                digest.update(waiting)

            async for chunk in chunks:
                size += len(chunk)
                if size > self.limits.bytes:
                    raise UploadTooLarge(
                        f"more than {self.limits.bytes:,} bytes; needed at most that; leave out layers that are not needed, "
                        "write it with compression='gzip', or upload it in parts"
                    )
                waiting += chunk
                if size >= len(HDF5) and size - len(waiting) == 0 and waiting[: len(HDF5)] != HDF5:
                    raise UploadRefused("not an HDF5 file, so not an .h5ad; write one with adata.write_h5ad")
                if len(waiting) >= AT_ONCE:
                    await _to_its_end(put)
                    waiting.clear()
            await _to_its_end(put)
        if size < len(HDF5):
            raise UploadRefused(f"{size} bytes, {'an empty file' if not size else 'no HDF5 file'}; needed an .h5ad; upload it again")
        return size, digest.hexdigest()


async def _to_its_end(work: Any) -> None:
    """Do what blocks in a thread; where this is cancelled, that is done first."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await asyncio.wait([task])
        raise


def _read_about(folder: Path) -> Upload | None:
    """What is kept of an upload; None, and a line in the log, where it is damaged."""
    try:
        upload = Upload(**json.loads((folder / ABOUT).read_text()))
        if upload.id == folder.name and (folder / CLEAN).is_file():
            return upload
        found = "another id, or no cells"
    except (OSError, ValueError, TypeError) as error:
        found = str(error)
    log.warning("%s: passed by, it is damaged (%s); remove it by hand", folder, found)
    return None


def shown_name(name: str) -> str:
    """The last part of a client's path, fit to be shown.

    >>> shown_name("../../etc/passwd"), shown_name("C:\\\\data\\\\pbmc\\x00.h5ad"), shown_name("..")
    ('passwd', 'pbmc.h5ad', 'cells.h5ad')
    """
    last = readable(re.split(r"[/\\]", name)[-1], LONGEST_NAME).strip()
    return last if last.strip(".") else "cells.h5ad"
