"""The commands that serve a model."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Annotated

import typer

from scmulan.cli.terminal import AsJson, Device, pairs, show
from scmulan.errors import EngineError, PromptError

HASH = re.compile(r"[0-9a-f]{64}")


def serve(
    model: Annotated[str, typer.Argument(help="Model folder, or 'demo'.")] = "demo",
    adapter: Annotated[list[str] | None, typer.Option(metavar="NAME=DIR", help="An adapter and its name; repeatable.")] = None,
    engine: Annotated[str, typer.Option(help="transformers; vllm; or the URL of a vLLM server that has the same model.")] = "transformers",
    host: Annotated[str, typer.Option(help="Where to listen; elsewhere than on loopback only with --key-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port there.")] = 8000,
    folder: Annotated[Path, typer.Option(help="For uploads, jobs and results; kept between starts.")] = Path("scmulan-server"),
    key_file: Annotated[Path | None, typer.Option(help="File with the sha256 of an API key a line; `scmulan key` makes one.")] = None,
    hostname: Annotated[list[str] | None, typer.Option(help="A name that clients call the server by; repeatable.")] = None,
    most_cells: Annotated[int, typer.Option(min=1, help="Cells of a file.")] = 200_000,
    most_megabytes: Annotated[int, typer.Option(min=1, help="Size of a file.")] = 1024,
    most_written: Annotated[int, typer.Option(min=1, help="Cells that one job may write.")] = 10_000,
    per_minute: Annotated[int, typer.Option(min=1, help="Requests of one client.")] = 240,
    kept_megabytes: Annotated[int, typer.Option(min=1, help="Files and results that one key may keep.")] = 20 * 1024,
    kept_days: Annotated[float, typer.Option(min=0.01, help="Files and results older than this are removed.")] = 14.0,
    device: Device = "cpu",
) -> None:
    """Serve a model: chat, files and jobs by HTTP, OpenAI-compatible."""
    try:
        from scmulan.serving.start import serve as listen
    except ImportError as error:
        raise EngineError(f"this needs {error.name}, which is not installed; pip install 'scmulan[serve]'") from None
    from scmulan.serving.settings import Settings
    from scmulan.serving.uploads import UploadLimits

    settings = Settings(
        folder=folder, host=host, port=port, keys=read_keys(key_file), hosts=tuple(hostname or ()), most_written=most_written,
        per_minute=per_minute, kept_hours=24 * kept_days, kept_bytes=kept_megabytes * 2**20,
        uploads=UploadLimits(bytes=most_megabytes * 2**20, cells=most_cells),
    )  # fmt: skip
    listen(model, pairs(adapter, "--adapter"), settings, engine=engine, device=device)


def key(as_json: AsJson = False) -> None:
    """Make an API key: give the key to a client, and a line with its sha256 to `scmulan serve --key-file`."""
    from scmulan.serving.keys import hash_of_key

    made = f"scmulan-{secrets.token_urlsafe(32)}"
    show({"key": made, "sha256": hash_of_key(made)}, as_json)


def read_keys(path: Path | None) -> tuple[str, ...]:
    """Hashes of API keys from a file; PromptError for a line that is none."""
    if path is None:
        return ()
    if not path.is_file():
        raise PromptError(f"--key-file {path}: no such file; `scmulan key` prints a key and the line for it")
    lines = [line.split("#")[0].strip().lower() for line in path.read_text().splitlines()]
    found = tuple(line for line in lines if line)
    for number, line in enumerate(lines, 1):
        if line and not HASH.fullmatch(line):
            raise PromptError(f"{path}, line {number}: no sha256 in hex; needed one a line, as `scmulan key` prints it")
    if not found:
        raise PromptError(f"{path}: no key in it; needed the sha256 of one a line, as `scmulan key` prints it")
    return found
