"""How many bytes one key may keep: refused with what was found and needed, and room again when something is removed."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from gateway import ended, h5ad, listening, uploaded

from scmulan.serving.app import Server
from scmulan.serving.keys import hash_of_key
from scmulan.serving.models import Models
from scmulan.serving.settings import Settings

KEYS = ("one", "other")
ANNOTATE = {"messages": [{"role": "user", "content": "?"}], "scmulan": {"request": {"task": "annotate"}, "genes": {"CD19": 3}}}


@pytest.fixture(scope="module")
def models(trained):
    return Models(str(trained.folder), "tiny", {})


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return h5ad(tmp_path_factory.mktemp("cells"))


@pytest.fixture
def opened(models, tmp_path):
    """Makes a server that keeps so many bytes, and gives it with clients of two keys."""
    with contextlib.ExitStack() as stack:

        def open_with(kept_bytes):
            keys = tuple(hash_of_key(key) for key in KEYS)
            server = Server(Settings(folder=tmp_path, port=0, keys=keys, kept_bytes=kept_bytes), models)
            address = stack.enter_context(listening(server))
            headers = [{"Authorization": f"Bearer {key}"} for key in KEYS]
            return server, *(stack.enter_context(httpx.Client(base_url=address, headers=each, timeout=60)) for each in headers)

        yield open_with


def no_room(answer):
    assert answer.status_code == 507, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error["code"] == "storage_full"
    return error["message"]


def test_a_file_for_which_there_is_no_room_is_refused_and_leaves_nothing(opened, content, tmp_path):
    _, one, other = opened(20_000)
    said = no_room(one.post("/v1/files", files={"file": ("cells.h5ad", content)}))
    assert "needed less than 20,000" in said
    assert "DELETE /v1/files/ID" in said
    assert one.get("/v1/files").json()["data"] == []
    assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert other.get("/v1/files").status_code == 200


def test_who_keeps_as_much_as_may_be_asks_for_nothing_more_until_some_is_removed(opened, content):
    server, one, other = opened(10**9)
    file_id = uploaded(one, content)
    kept = sum(path.stat().st_size for path in server.settings.folder.glob("files/*/*/*"))
    object.__setattr__(server.settings, "kept_bytes", kept)
    for answer in (
        one.post("/v1/files", files={"file": ("cells.h5ad", content)}),
        one.post("/v1/cells/annotate", json={"file_id": file_id}),
        one.post("/v1/cells/generate", json={"n": 1}),
        one.post("/v1/chat/completions", json=ANNOTATE),
    ):
        assert f"take {kept:,} bytes; needed less than {kept:,}" in no_room(answer)
    assert other.post("/v1/chat/completions", json=ANNOTATE).status_code == 200
    assert one.delete(f"/v1/files/{file_id}").status_code == 200
    assert one.post("/v1/chat/completions", json=ANNOTATE).status_code == 200


def test_a_job_whose_results_find_no_room_fails_with_the_reason_and_keeps_none(opened, content):
    server, one, _ = opened(10**9)
    file_id = uploaded(one, content)
    server.check_room(owner := hash_of_key(KEYS[0])[:16])
    object.__setattr__(server.settings, "kept_bytes", server.files(owner).size + 2000)
    said = ended(one, one.post("/v1/cells/annotate", json={"file_id": file_id}))
    assert (said["state"], said["results"]) == ("failed", {})
    assert "needed less than" in said["message"]
    assert [path.name for path in (server.settings.folder / "jobs" / said["id"]).iterdir()] == ["job.json"]
