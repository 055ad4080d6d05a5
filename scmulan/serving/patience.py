"""HTTP connections that end where no whole head of a request comes in time; uvicorn alone would wait for ever, until it takes no more."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 20.0
"""Seconds in which the head of a request has to be there whole, from a connection's begin or the first byte of it."""


class Patient(H11Protocol):
    """uvicorn's protocol with an end to waiting."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEAD, self._end)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_between:
            self._stop()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    @property
    def _is_between(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end(self) -> None:
        self._waiting = None
        if self._is_between and not self.transport.is_closing():
            self.transport.close()
