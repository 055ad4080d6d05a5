"""Short work that clients wait for, where more is asked than can be answered in time."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest
from gateway import listening

from scmulan.serving.app import Busy, Server
from scmulan.serving.line import CHAT
from scmulan.serving.models import Models
from scmulan.serving.settings import Settings

SECONDS = 0.3


@pytest.fixture
def server(trained, tmp_path):
    return Server(Settings(folder=tmp_path, port=0, chat_seconds=SECONDS), Models(str(trained.folder), "tiny", {}))


def test_what_has_begun_is_brought_to_its_end(server):
    def long() -> str:
        time.sleep(3 * SECONDS)
        return "answered"

    assert asyncio.run(server.soon(long)) == "answered"


def test_what_does_not_have_its_turn_in_time_is_told_when_to_come_again_and_is_never_begun(server):
    has_turn, may_go, begun = threading.Event(), threading.Event(), []
    server.line.put(lambda: (has_turn.set(), may_go.wait(10)))
    assert has_turn.wait(10)
    with pytest.raises(Busy, match="its turn did not come within") as told:
        asyncio.run(server.soon(lambda: begun.append(1)))
    assert told.value.seconds > 0
    may_go.set()
    server.line.put(lambda: None).result(10)
    assert begun == []


def test_what_would_not_have_its_turn_in_time_is_told_at_once(server):
    server.line.put(lambda: time.sleep(SECONDS), CHAT).result(10)
    may_go = threading.Event()
    waiting = [server.line.put(lambda: may_go.wait(10), CHAT) for _ in range(4)]
    with listening(server) as address:
        began = time.monotonic()
        said = httpx.post(f"{address}/v1/chat/completions", json={"messages": [{"role": "user", "content": "Which organ?"}]}, timeout=60)
        assert time.monotonic() - began < SECONDS
        may_go.set()
    assert said.status_code == 503
    assert "ahead of it" in said.json()["error"]["message"]
    assert int(said.headers["retry-after"]) >= 1
    for each in waiting:
        each.result(10)
