"""How an assistant reaches the server: stdin and stdout of a process, or streamable HTTP.

HTTP listens on loopback; elsewhere only with keys, of which sha256 alone is known, compared in constant time. A request must name a host
that the server is called by (a page of another site whose name leads to this machine is no client), and a browser's page its origin.
Logs go to stderr, for stdout belongs to the protocol.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette

from scmulan.errors import PromptError
from scmulan.serving.keys import hash_of_key
from scmulan.serving.mcp import mcp_server
from scmulan.serving.mcp_files import Folder
from scmulan.tasks import Model

PATH = "/mcp"
LARGEST = 2**20
"""Bytes of a request."""
MOST_SESSIONS = 200
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where HTTP is listened to.

    Attributes
    ----------
    keys : sha256 of each key, in hex; none are needed on loopback
    hosts : more names that clients call the server by

    Raises
    ------
    PromptError
        When others could reach the server and no key is asked of them.
    """

    host: str = "127.0.0.1"
    port: int
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.keys:
            raise PromptError(
                f"--http {self.host}:{self.port}: others could reach the server there, so it needs keys: --key-file FILE with the sha256 "
                f"of a key a line, or --http {self.port} for this machine alone"
            )

    @classmethod
    def of(cls, text: str, *, keys: Sequence[str] = (), hosts: Sequence[str] = ()) -> Listening:
        """From ``[HOST:]PORT``; PromptError where it is none."""
        host, _, port = text.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise PromptError(f"--http {text!r}: needed PORT or HOST:PORT, for example 8765")
        return cls(host=host.strip("[]") or "127.0.0.1", port=int(port), keys=tuple(keys), hosts=tuple(hosts))

    def security(self) -> TransportSecuritySettings:
        """Hosts and origins that a request may name."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        names = dict.fromkeys([*LOOPBACK, own, *self.hosts])
        return TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[spelled for name in names for spelled in (name, f"{name}:*")],
            allowed_origins=[f"{scheme}://{spelled}" for scheme in ("http", "https") for name in names for spelled in (name, f"{name}:*")],
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Keys:
    """Lets in who has a key, and tells one from the other, so that nobody goes on in the session of another."""

    def __init__(self, hashes: Sequence[str]):
        self.hashes = tuple(hashes)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who has a key; as the SDK asks."""
        given = hash_of_key(token)
        matches = [hmac.compare_digest(given, known) for known in self.hashes]  # all of them, so that time says nothing
        return AccessToken(token=token, client_id=given[:16], scopes=[]) if any(matches) else None


def serve_stdio(model: Model, files: Folder, indexes: Mapping[str, Path] | None = None) -> None:
    """Answer on stdout what comes on stdin, until it ends."""
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Ctrl-C waits for the thread that waits for a line of stdin
    mcp_server(model, files, indexes).run("stdio")


def http_app(model: Model, files: Folder, listening: Listening, indexes: Mapping[str, Path] | None = None) -> Starlette:
    """The server as an ASGI application, behind its checks of hosts, origins and keys."""
    options: dict[str, Any] = {}
    if listening.keys:
        issuer: Any = "http://localhost"  # the SDK wants one; keys are no OAuth, and nobody is told of it
        options = {"token_verifier": Keys(listening.keys), "auth": AuthSettings(issuer_url=issuer, resource_server_url=None)}
    return mcp_server(model, files, indexes, **options).streamable_http_app(
        streamable_http_path=PATH, transport_security=listening.security(), host=listening.host, max_request_body_size=LARGEST,
        max_sessions=MOST_SESSIONS,
    )  # fmt: skip


def serve_http(model: Model, files: Folder, listening: Listening, indexes: Mapping[str, Path] | None = None) -> None:
    """Listen until told to end.

    Raises
    ------
    PromptError
        When it can't be listened there.
    """
    log_to_stderr()
    app = http_app(model, files, listening, indexes)
    try:
        family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
        bound = socket.create_server((listening.host, listening.port), family=family)
    except OSError as error:
        raise PromptError(f"--http {listening.host}:{listening.port}: {error.strerror or error}; name another port or host") from None
    named = f"[{listening.host}]" if ":" in listening.host else listening.host
    print(f"scmulan: listens on http://{named}:{bound.getsockname()[1]}{PATH}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=10, h11_max_incomplete_event_size=64 * 1024
    )
    uvicorn.Server(config).run(sockets=[bound])


def log_to_stderr() -> None:
    """Warnings and errors of the server as plain lines on stderr, before the SDK sets up a log of its own."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
