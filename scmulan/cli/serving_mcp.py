"""The command that offers a model's tasks to assistants as tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scmulan.cli.terminal import Device, pairs
from scmulan.errors import EngineError, PromptError
from scmulan.serving.mcp_limits import Limits


def mcp(
    model: Annotated[str, typer.Argument(help="Model folder, or 'demo' for the embedded one.")] = "demo",
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="An adapter, by the name that assistants call it; repeatable.")
    ] = None,
    index: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="An index of reference cells, for search and transfer; repeatable.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="The only folder whose files are read and written.")] = Path("."),
    http: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Listen by streamable HTTP instead of stdin and stdout; on 127.0.0.1 if not said."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the sha256 of a key a line; needed elsewhere than on loopback. `scmulan key` makes one.")
    ] = None,
    hostname: Annotated[list[str] | None, typer.Option(help="A name that clients call the HTTP server by; repeatable.")] = None,
    most_cells: Annotated[int, typer.Option(min=1, help="Cells of a file.")] = Limits.cells,
    most_written: Annotated[int, typer.Option(min=1, help="Cells that one call may write.")] = Limits.written,
    most_megabytes: Annotated[int, typer.Option(min=1, help="Size of a file.")] = Limits.megabytes,
    device: Device = "cpu",
) -> None:
    """Offer the tasks as tools to assistants, by the Model Context Protocol."""
    try:
        from scmulan.serving.mcp_transports import Listening, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "uvicorn"):
            raise
        raise EngineError("this needs mcp, which is not installed; pip install 'scmulan[serve]'") from None
    from scmulan.cli.serving import read_keys
    from scmulan.search_folder import read_index_card
    from scmulan.serving.mcp_files import Folder
    from scmulan.tasks import load

    if http is None and (key_file is not None or hostname):
        raise PromptError("--key-file and --hostname are for --http; over stdin and stdout there is one client, who started the server")
    listening = Listening.of(http, keys=read_keys(key_file), hosts=hostname or ()) if http is not None else None
    files = Folder(folder, Limits(cells=most_cells, written=most_written, megabytes=most_megabytes))
    indexes = {name: Path(where).resolve() for name, where in pairs(index, "--index").items()}
    for where in indexes.values():
        read_index_card(where)  # says before the first call that there is none
    opened = load(model, adapters=pairs(adapter, "--adapter"), device=device)
    if listening is None:
        serve_stdio(opened, files, indexes)
    else:
        serve_http(opened, files, listening, indexes)
