"""What a server allows, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scmulan.errors import ScmulanError
from scmulan.serving.uploads import UploadLimits

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServingError(ScmulanError):
    """A server can't be started as it was asked to."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of a server, and where it keeps its files.

    Attributes
    ----------
    folder : for uploads, jobs and their results
    host, port : where it listens
    keys : sha256 of each API key, in hex; none are needed on loopback
    uploads : limits of files
    most_written : cells that one job may write
    most_question : characters of a question
    body : bytes of a JSON body
    jobs : jobs that may wait
    per_minute : requests of one client
    at_once : requests of one client that are answered at the same time
    chat_seconds : how long a chat may wait for its turn; where it would wait longer it is answered 503 at once
    kept_bytes : that the files and results of one key may take, or those of all where there are no keys
    kept_hours : results and files older than this are removed
    hosts : names that a request may call the server by, beside loopback's and ``host``
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    uploads: UploadLimits = field(default_factory=UploadLimits)
    most_written: int = 10_000
    most_question: int = 2_000
    body: int = 2**20
    jobs: int = 100
    per_minute: int = 240
    at_once: int = 32
    chat_seconds: float = 120.0
    kept_bytes: int = 20 * 2**30
    kept_hours: float = 24.0 * 14
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.keys:
            raise ServingError(
                f"host {self.host}: others could reach the server there, so it needs API keys: --key-file FILE with the sha256 of a key "
                "a line (`scmulan key` makes one), or listen on 127.0.0.1"
            )
