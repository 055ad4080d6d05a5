"""What stands before every route: whose key, from which host, how much, how often; and headers that keep browsers careful.

Keys are kept as sha256 and compared in constant time. Nothing that a client sent is logged but method, path without query, status and time.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from scmulan.serving.keys import hash_of_key
from scmulan.serving.metrics import Metrics
from scmulan.serving.settings import LOOPBACK, Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
OPEN = ("/health", "/ready")
"""Routes that need no key and are not counted."""
PAGE = ("/", "/assets/")
"""The page, which needs no key; what it asks for does."""
FILES = "/v1/files"
FORM = 2**20
"""Bytes of a form around a file."""
SLOWEST = 30.0
"""Seconds between two parts of a body."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
MOST_CLIENTS = 10_000
log = logging.getLogger("scmulan.serving")


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str, kind: str, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.message, self.kind, self.retry_after = status, message, kind, retry_after


def error_body(message: str, kind: str) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


@dataclass
class Bucket:
    """What a client may still ask for, and how many of its requests are being answered."""

    left: float
    since: float
    at_once: int = 0


class Guard:
    """ASGI middleware; ``scope["owner"]`` says to the routes whose request it is."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics
        self.hosts = {*LOOPBACK, settings.host, *settings.hosts}
        self.buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, said = time.perf_counter(), {"status": 500}
        name = uuid.uuid4().hex[:12]
        body = Body(receive, self.settings, scope["path"])

        async def guarded_send(message: MutableMapping[str, Any]) -> None:
            if body.refused is not None and said["status"] != body.refused.status:
                return  # what a route makes of a body that was refused
            if message["type"] == "http.response.start":
                said["status"] = message["status"]
                extra = [*HEADERS.items(), ("x-request-id", name)]
                known = {key for key, _ in message.get("headers", [])}
                more = [(key.encode(), value.encode()) for key, value in extra if key.encode() not in known]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        client: Bucket | None = None
        try:
            headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
            self._check_host(headers)
            scope["owner"] = self._owner(headers, scope["path"])
            if scope["path"] not in OPEN and not _is_page(scope["path"]):
                client = self._admit(scope["owner"] or (scope.get("client") or ("?",))[0])
            body.check(headers)
            await self.app(scope, body.receive, guarded_send)
            if body.refused is not None:
                raise body.refused
        except Refused as refused:
            said["status"] = refused.status
            await _refuse(guarded_send, refused)
        finally:
            if client is not None:
                client.at_once -= 1
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.answered(scope["method"], route, said["status"], seconds)
            extra = {"request": name, "method": scope["method"], "route": route, "status": said["status"], "seconds": round(seconds, 4)}
            log.info("request", extra=extra)

    def _check_host(self, headers: dict[str, str]) -> None:
        """A page of another site whose name leads to this machine is no client."""
        said = headers.get("host", "")
        name = said[1 : said.find("]")] if said.startswith("[") else said.rsplit(":", 1)[0]
        if name not in self.hosts:
            raise Refused(421, f"this server is not called {name[:80]!r}; start it with --hostname for that name", "misdirected_request")

    def _owner(self, headers: dict[str, str], path: str) -> str:
        if not self.settings.keys or path in OPEN or _is_page(path):
            return ""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = hash_of_key(key.strip())
        matches = [hmac.compare_digest(given, known) for known in self.settings.keys]  # all of them, so that time says nothing
        if scheme.lower() != "bearer" or not any(matches):
            raise Refused(401, "no API key of this server was given; needed the header Authorization: Bearer KEY", "invalid_api_key")
        return given[:16]

    def _admit(self, name: str) -> Bucket:
        now, settings = time.monotonic(), self.settings
        if len(self.buckets) > MOST_CLIENTS:
            self.buckets = {key: bucket for key, bucket in self.buckets.items() if bucket.at_once or now - bucket.since < 60}
        bucket = self.buckets.setdefault(name, Bucket(settings.per_minute, now))
        bucket.left = min(settings.per_minute, bucket.left + (now - bucket.since) * settings.per_minute / 60)
        bucket.since = now
        if bucket.left < 1:
            wait = (1 - bucket.left) * 60 / settings.per_minute
            raise Refused(429, f"more than {settings.per_minute} requests a minute; ask again in {wait:.0f} s", "rate_limit_exceeded", wait)
        if bucket.at_once >= settings.at_once:
            raise Refused(429, f"{bucket.at_once} requests of yours are being answered; wait for one to end", "too_many_at_once", 1.0)
        bucket.left -= 1
        bucket.at_once += 1
        return bucket


def _is_page(path: str) -> bool:
    return path == PAGE[0] or path.startswith(PAGE[1])


class Body:
    """The body of a request, refused when it is too large or comes too slowly; files have a limit of their own behind this one.

    Attributes
    ----------
    refused : why nothing more of it is read, for a framework takes any error there for one of its own
    """

    def __init__(self, receive: Receive, settings: Settings, path: str):
        self._receive, self._taken, self._is_whole = receive, 0, False
        self.most = settings.uploads.bytes + FORM if path == FILES else settings.body
        self.refused: Refused | None = None

    def check(self, headers: dict[str, str]) -> None:
        """Refused where the body is said to be too large."""
        said = headers.get("content-length", "0")
        if said.isdigit() and int(said) > self.most:
            raise Refused(413, f"a body of {int(said):,} bytes; needed at most {self.most:,}", "request_too_large")

    async def receive(self) -> MutableMapping[str, Any]:
        """The next part; once the body is whole, whoever reads on waits for the client to leave."""
        if self._is_whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), SLOWEST)
        except TimeoutError:
            self.refused = Refused(408, f"nothing more of the body came for {SLOWEST:.0f} s; send it again", "request_timeout")
            raise self.refused from None
        self._taken += len(message.get("body", b""))
        if self._taken > self.most:
            self.refused = Refused(413, f"a body of more than {self.most:,} bytes; send less at once", "request_too_large")
            raise self.refused
        self._is_whole = not message.get("more_body", False)
        return message


async def _refuse(send: Send, refused: Refused) -> None:
    body = json.dumps(error_body(refused.message, refused.kind)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(refused.retry_after))).encode()))
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
