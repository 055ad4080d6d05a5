"""What strangers may send a gateway: it refuses or answers, in words, and answers the next as well."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time

import httpx
import pytest
from gateway import ended, h5ad, listening, uploaded

from scmulan.serving import chat, guard, patience
from scmulan.serving.app import Server
from scmulan.serving.chat import MOST_REQUESTS
from scmulan.serving.keys import hash_of_key
from scmulan.serving.models import Models
from scmulan.serving.settings import Settings

pytestmark = pytest.mark.slow
KEY = "scmulan-of-a-test"
QUESTION = [{"role": "user", "content": "What kinds of cells are these?"}]
CHAT, WRITE, GENERATE = "/v1/chat/completions", "/v1/completions", "/v1/cells/generate"
PROMPT = "<organ> blood <task:generate>"
ANNOTATE = {"request": {"task": "annotate"}}


@pytest.fixture(scope="module")
def models(trained):
    return Models(str(trained.folder), "tiny", {})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(models, place):
    settings = Settings(folder=place, port=0, keys=(hash_of_key(KEY),), per_minute=10**6, most_written=100, jobs=1000)
    with listening(Server(settings, models)) as found:
        yield found


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def file_id(client, tmp_path_factory):
    return uploaded(client, h5ad(tmp_path_factory.mktemp("cells")))


@pytest.fixture(autouse=True)
def still_there(client):
    """After whatever was sent, the server answers."""
    yield
    assert client.get("/ready", timeout=10).json()["ready"]


def raw(address, method, path, body=None, headers=()):
    """A request whose path and headers are sent as they are."""
    line = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    line.putrequest(method, path, skip_accept_encoding=True)
    for name, value in [("authorization", f"Bearer {KEY}".encode()), *headers]:
        line.putheader(name, value)
    line.endheaders(body)
    answer = line.getresponse()
    found = answer.status, answer.read()
    line.close()
    return found


def refused(answer, *statuses):
    """The words of an error in the form of OpenAI's."""
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])
    return answer.json()["error"]["message"]


# Size


GENES = [f"GENE{number}" for number in range(10_000)]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (CHAT, {"messages": QUESTION, "scmulan": {"genes": dict.fromkeys(GENES, 1)}}, "at most 2000 items"),
        (
            CHAT,
            {"messages": QUESTION, "scmulan": {"sentence": " ".join(["<cell>", "<x3>", *GENES, "</cell>"])}},
            "at most 20000 characters",
        ),
        (WRITE, {"prompt": " ".join(["<task:complete>", "<genes>", *GENES])}, "at most 20000 characters"),
        (WRITE, {"prompt": [5] * 10_000}, "at most 8192 items"),
        (WRITE, {"prompt": f"{'<organ> blood ' * 1000} <task:generate>"}, "fewer than the model's context"),
        ("/v1/cells/complete", {"genes": dict.fromkeys(GENES, 1)}, "at most 2000 items"),
        ("/v1/cells/screen", {"file_id": "file-" + "0" * 24, "goal": {"cell_type": "x"}, "genes": GENES}, "at most 5000 items"),
    ],
)
def test_ten_thousand_genes_are_refused_with_how_many_may_be(client, path, body, said):
    assert said in refused(client.post(path, json=body), 422)


def test_as_many_genes_as_may_be_are_answered_or_refused(client):
    genes = {"CD19": 3, **dict.fromkeys(GENES[:1999], 10**6)}
    known = client.post(CHAT, json={"messages": QUESTION, "scmulan": {"genes": genes, **ANNOTATE}})
    assert known.status_code == 200, known.text
    unknown = {f"no gene {number}": 1 for number in range(2000)}
    assert "none of 2,000 genes is known" in refused(
        client.post(CHAT, json={"messages": QUESTION, "scmulan": {"genes": unknown, **ANNOTATE}}), 422
    )


# Control tokens


@pytest.fixture(scope="module")
def control(models):
    tokens = list(models.model.opened.checkpoint.tokenizer.get_added_vocab())
    assert {"<cell>", "</cell>", "<organ>", "<task:generate>"} <= set(tokens)
    return tokens


def test_a_control_token_as_a_label_is_text_of_no_control_id(models, control):
    model = models.model
    ids = {model.opened.checkpoint.tokenizer.convert_tokens_to_ids(token) for token in control}
    for token in control:
        assert not ids & set(model.opened.writer.field_ids("cell_type", token)[1:].tolist()), token


def test_control_tokens_as_values_of_fields_are_labels_that_nobody_has_seen(client, control):
    jobs = [client.post(GENERATE, json={"fields": {"cell_type": token}, "n": 1}) for token in control]
    for token, job in zip(control, jobs, strict=True):
        said = ended(client, job)
        assert said["state"] == "failed", (token, said)
        assert "was not among this model's training cells" in said["message"]


def test_control_tokens_as_names_of_fields_or_genes_are_refused(client, control):
    for token in control:
        assert "is not a field" in refused(client.post(GENERATE, json={"fields": {token: "blood"}, "n": 1}), 422)
    said = ended(client, client.post("/v1/cells/complete", json={"genes": dict.fromkeys(control, 1), "n": 1}))
    assert (said["state"], "a fault" in said["message"]) == ("failed", False), said


def test_control_tokens_as_labels_are_labels(client, file_id, control):
    job = client.post("/v1/cells/annotate", json={"file_id": file_id, "labels": ["B cell", *(token[:200] for token in control)][:500]})
    said = ended(client, job)
    assert "a fault of the server" not in said["message"]
    assert said["state"] == "done" or "was not among" in said["message"], said


# Keys


@pytest.mark.parametrize(
    "said",
    [
        b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Bearer " + KEY[:-1].encode(), b"Bearer " + KEY.upper().encode(), KEY.encode(),
        b"Basic " + KEY.encode(), b"Bearer " + b"x" * 60_000, "Bearer schlüssel".encode(), "Bearer schlüssel".encode("latin-1"),
        b"Bearer \xff\xfe",
        b"Bearer " + hash_of_key(KEY).encode(), b"Bearer " + KEY.encode() + b" " + KEY.encode(),
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(address, said):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: " + said + b"\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 401"), answer[:200]
    assert b"invalid_api_key" in answer
    assert b"www-authenticate: Bearer" in answer


@pytest.mark.parametrize("said", [b"authorization: " + b"x" * 200_000, b"authorization: Bearer \x00", b"no colon"])
def test_headers_that_are_none_are_refused_before_any_route(address, said):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + said + b"\r\n\r\n")
        assert line.recv(64).startswith(b"HTTP/1.1 400")


# Slow clients


def test_slow_clients_keep_nobody_waiting(address, client, monkeypatch):
    monkeypatch.setattr(guard, "SLOWEST", 2.0)
    host, port = address.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
    beginnings = [b"", b"GET /v1", head.encode(), f"{head}content-length: 100\r\n\r\n{{".encode()]
    lines = [socket.create_connection((host, int(port)), timeout=30) for _ in range(40)]
    try:
        for number, line in enumerate(lines):
            line.sendall(beginnings[number % 3])
        slow = [socket.create_connection((host, int(port)), timeout=30) for _ in range(8)]
        lines += slow
        for line in slow:
            line.sendall(beginnings[3])
        assert client.get("/v1/models", timeout=10).status_code == 200
        assert all(line.recv(64).startswith(b"HTTP/1.1 408") for line in slow)
    finally:
        for line in lines:
            line.close()


def test_a_connection_on_which_no_whole_request_comes_is_closed(address, client, monkeypatch):
    monkeypatch.setattr(patience, "HEAD", 1.5)
    host, port = address.removeprefix("http://").split(":")
    whole = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        silent, half, second = (stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(3))
        half.sendall(whole[:20])
        second.sendall(whole)
        assert second.recv(65536).startswith(b"HTTP/1.1 200")
        second.sendall(whole[:20])
        for _ in range(3):  # a byte now and then is no whole head
            time.sleep(0.3)
            half.sendall(b"x")
        rest = [b"".join(iter(lambda line=line: line.recv(65536), b"")) for line in (silent, half, second)]
        assert [part.count(b"HTTP/1.1") for part in rest] == [0, 0, 0]


def test_one_that_leaves_amid_an_answer_is_no_harm(address, file_id):
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"messages": QUESTION, "scmulan": {"file_id": file_id, **ANNOTATE}, "stream": True}).encode()
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=30) as line:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
            line.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


# Paths


TRICKS = [
    "..", "../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd", "..%5c..%5cetc", "/etc/passwd", "%2fetc%2fpasswd",
    "%00", "file-000000000000000000000000%00", "job-000000000000000000000000%0a", "file-000000000000000000000000/../../..", "x" * 5000,
    "%ff%fe", "%C0%AE%C0%AE", "file-00000000000000000000000G", "JOB-000000000000000000000000", "~root", "$(id)", "%25%32%65",
]  # fmt: skip
ROUTES = [
    ("GET", "/v1/files/{}"), ("DELETE", "/v1/files/{}"), ("GET", "/v1/jobs/{}"), ("DELETE", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel"),
    ("GET", "/v1/jobs/{}/events"), ("GET", "/v1/jobs/{}/result.json"), ("GET", "/v1/jobs/{}/result.h5ad"), ("GET", "/v1/models/{}"),
    ("GET", "/v1/jobs/job-000000000000000000000000/result.{}"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("trick", TRICKS, ids=range(len(TRICKS)))
def test_no_id_leads_out_of_the_folder(address, method, route, trick):
    status, body = raw(address, method, route.format(trick))
    assert status in (404, 405, 422), (status, body[:200])
    assert b"root:" not in body
    assert json.loads(body)["error"]["message"]


@pytest.mark.parametrize("trick", ["../../etc/passwd", "/etc/passwd", "file-" + "0" * 24 + "\n", "\x00", "x" * 5000, "%2e%2e%2f"])
@pytest.mark.parametrize("path", ["/v1/cells/annotate", CHAT])
def test_no_id_in_a_body_leads_out_of_the_folder(client, path, trick):
    body = {"file_id": trick} if path != CHAT else {"messages": QUESTION, "scmulan": {"file_id": trick}}
    refused(client.post(path, json=body), 422)
    body = {"model": trick, **({"n": 1} if path != CHAT else {"messages": QUESTION})}
    refused(client.post(GENERATE if path != CHAT else CHAT, json=body), 422)


@pytest.mark.parametrize(
    "name", ["../../../evil.h5ad", "/etc/evil.h5ad", "a%00b.h5ad", "%2e%2e%2fevil.h5ad", "é" * 200, "x" * 4000, "..", " "]
)
def test_a_file_goes_by_an_id_whatever_its_name(client, place, tmp_path, name):
    before = {path.name for path in place.rglob("*")}
    content = h5ad(tmp_path, 2)
    answer = client.post("/v1/files", files={"file": (name, content)})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert "/" not in said["filename"]
    assert 0 < len(said["filename"]) <= 120
    new = {path.name for path in place.rglob("*")} - before
    assert new == {said["id"], "cells.h5ad", "upload.json"} - before
    assert client.delete(f"/v1/files/{said['id']}").json()["deleted"]


# Bodies


def deep(depth, inner="1"):
    return "[" * depth + inner + "]" * depth


BODIES = [
    ("nothing", b"", (422,)),
    ("null", b"null", (422,)),
    ("a list", b"[]", (422,)),
    ("no JSON", b"{", (422,)),
    ("two of them", b'{"n": 1}{"n": 1}', (422,)),
    ("deep", deep(100_000).encode(), (400, 422)),
    ("deep inside", b'{"messages": [], "scmulan": {"request": {"task": ' + deep(900).encode() + b"}}}", (400, 422)),
    ("deep objects", (b'{"scmulan":' * 20_000) + b"1" + b"}" * 20_000, (400, 422)),
    ("no UTF-8", b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', (400, 422)),
    ("UTF-16", json.dumps({"messages": QUESTION}).encode("utf-16"), (200, 400, 422)),
    ("half a character", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', (422,)),
    ("half a character inside", b'{"messages": [], "scmulan": {"request": {"task": "\\ud800"}}}', (422,)),
    ("half a character in a name", b'{"messages": [{"role": "user", "content": "x"}], "scmulan": {"request": {"\\udfff": "x"}}}', (422,)),
    ("a number of 5,000 digits", b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}", (400, 422)),
    ("a seed beyond 63 bits", b'{"messages": [{"role": "user", "content": "x"}], "seed": 9223372036854775808}', (422,)),
    ("a seed that is none", b'{"messages": [{"role": "user", "content": "x"}], "seed": NaN}', (422,)),
    ("infinitely many", b'{"messages": [{"role": "user", "content": "x"}], "seed": Infinity}', (422,)),
    ("1e400", b'{"messages": [{"role": "user", "content": "x"}], "seed": 1e400}', (422,)),
]  # fmt: skip


@pytest.mark.parametrize(("body", "statuses"), [each[1:] for each in BODIES], ids=[each[0] for each in BODIES])
def test_a_body_that_is_none_is_refused(client, body, statuses):
    answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    assert answer.status_code == 200 or answer.json()["error"]["message"]


def test_of_a_key_that_stands_twice_the_last_counts(client):
    body = b'{"n": 0, "n": 1, "fields": {"organ": "blood"}, "depth": 20}'
    job = client.post(GENERATE, content=body, headers={"content-type": "application/json"})
    assert job.json()["asked"]["n"] == 1
    assert ended(client, job)["cells"] == 1


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "text/html; charset=x", "a" * 3000],
)
def test_a_body_of_another_kind_is_refused(client, kind):
    for path in (CHAT, GENERATE, "/v1/files"):
        answer = client.post(path, content=b'{"n": 1}', headers={"content-type": kind})
        assert answer.status_code in (400, 422), (path, answer.status_code, answer.text)


# Numbers


@pytest.mark.parametrize("path", [GENERATE, WRITE])
@pytest.mark.parametrize(
    "said",
    [
        '"n": 0', '"n": -1', '"n": 1000000000', '"n": 1e30', '"n": 1.5', '"n": "many"', '"n": true', '"n": NaN', '"n": null', '"n": [1]',
        '"temperature": NaN', '"temperature": -1', '"temperature": 1e308', '"temperature": Infinity', '"temperature": "hot"', '"top_p": 0',
        '"top_p": 2', '"top_p": NaN', '"seed": -1', '"seed": 1e300', '"depth": 0', '"depth": -5', '"depth": 1e12',
    ],
)  # fmt: skip
def test_a_number_that_can_not_be_is_refused(client, path, said):
    if path == WRITE and "depth" in said:
        pytest.skip("completions take no depth")
    body = f'{{"prompt": "{PROMPT}", {said}}}' if path == WRITE else f"{{{said}}}"
    answer = client.post(path, content=body.encode(), headers={"content-type": "application/json"})
    refused(answer, 422)


@pytest.mark.parametrize("said", [{"temperature": 0}, {"temperature": 5}, {"temperature": 1e-300}, {"top_p": 1e-300}, {"seed": 2**63 - 1}])
def test_numbers_at_the_edge_are_answered(client, said):
    answer = client.post(WRITE, json={"prompt": PROMPT, **said})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"].endswith("</cell>")


# Requests in place of a question


@pytest.mark.parametrize(
    "request_data",
    [
        {}, {"task": None}, {"task": ["annotate"]}, {"task": "annotate", "among": 5}, {"task": "annotate", "among": {"a": 1}},
        {"task": "complete", "genes": 5}, {"task": "complete", "genes": {"CD19": ["x"]}}, {"task": "complete", "genes": {"CD19": -1}},
        {"task": "complete", "genes": {"CD19": 10**18}}, {"task": "complete", "genes": {"CD19": 10**40}},
        {"task": "generate", "number": 10**6}, {"task": "generate", "number": "1000000"},
        {"task": "generate", "number": "a million"}, {"task": "generate", "number": "²"},
        {"task": "generate", "number": -5}, {"task": "generate", "number": [5]}, {"task": "generate", "number": 1e300},
        {"task": "generate", "cell_type": {"a": 1}}, {"task": "annotate", "../../x": "y"}, {"task": "screen"},
        [{"task": "annotate"}] * (MOST_REQUESTS + 1), [{"task": "generate", "number": 60}] * 2, [], "annotate", 5, [[{"task": "annotate"}]],
    ],
)  # fmt: skip
def test_a_request_that_is_none_or_too_large_is_refused(client, file_id, request_data):
    extra = {"file_id": file_id, "request": request_data}
    refused(client.post(CHAT, json={"messages": QUESTION, "scmulan": extra}), 422)


# Questions, of a model that reads them


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Asks the embedded model about two cells."""
    server = Server(Settings(folder=tmp_path_factory.mktemp("demo"), port=0, per_minute=10**6), Models("demo", "demo", {}))
    with listening(server) as found, httpx.Client(base_url=found, timeout=120) as client:
        file_id = uploaded(client, h5ad(tmp_path_factory.mktemp("cells"), 2))

        def ask(*questions):
            messages = [{"role": "user", "content": question} for question in questions]
            return client.post(CHAT, json={"messages": messages, "scmulan": {"file_id": file_id}})

        ask.chat = server.chat
        yield ask


def test_control_tokens_in_a_question_are_words_of_it(asked, control):
    answer = asked(f"What kinds of cells are these? {' '.join(control)}"[:2000])
    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize(
    "said", ["Generate ² B cells", "\x00", "a\u202e💉%s%n{}{0}${x}\\", "Generate 1e400 cells", "Generate a million B cells"]
)
def test_any_text_is_a_question(asked, said):
    answer = asked(said)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert all(request.get("number", 0) <= chat.MOST_WRITTEN for request in answer.json()["scmulan"]["request"])


def test_of_a_long_thread_the_end_is_read(asked, monkeypatch):
    monkeypatch.setattr(chat, "MOST_QUESTIONS", 2)
    before = len(asked.chat._readings)
    assert asked(*(f"Which organ is this, {name}?" for name in ("Ada", "Ben", "Cai", "Dee"))).status_code == 200
    assert len(asked.chat._readings) - before <= 2
