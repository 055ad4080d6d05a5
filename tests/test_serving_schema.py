"""The gateway by its OpenAPI document: schemathesis sends what the document allows and what it does not to every operation of a server that
listens, and holds each answer to what the document says of it."""

from __future__ import annotations

import collections
import itertools
import re
import time

import httpx
import pytest
import schemathesis
from conftest import examples
from gateway import ended, h5ad, listening, uploaded
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from scmulan.serving.app import Server, routes
from scmulan.serving.keys import hash_of_key
from scmulan.serving.models import Models
from scmulan.serving.settings import Settings
from scmulan.serving.uploads import UploadLimits

KEY = "scmulan-of-a-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}
BUSY = ["503", "507"]
"""Codes of a server that has no room or no time; any other of 5xx is a fault."""
ID = "(file|job)-[0-9a-f]{24}"
SENSE = ["413", "422"]
"""Codes for what a schema can't tell: an unknown gene, a file that is none."""
CONFIG = {
    "request-timeout": 120,
    "generation": {"deterministic": True, "allow-extra-parameters": False},  # unknown ones of a query are passed over
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", *BUSY]},
        "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "429", *SENSE, *BUSY]},
    },
}
SENSIBLE = {
    "fields": {"organ": "blood"}, "n": 2, "depth": 40, "genes": {"CD19": 3}, "prompt": "<organ> blood <task:generate>",
    "messages": [{"role": "user", "content": "What kinds of cells are these?"}],
}  # fmt: skip
NEEDED = {
    "POST /v1/cells/generate": ("fields", "n", "depth"),
    "POST /v1/cells/complete": ("fields", "n", "depth", "genes"),
    "POST /v1/chat/completions": ("messages", "scmulan"),
    "POST /v1/completions": ("prompt", "n"),
}
EXAMPLE = "POST /v1/examples/{name}"
OF_PERTURBED = {"GET /v1/jobs/{job_id}/genes", "GET /v1/jobs/{job_id}/baselines"}
"""What the model of these tests can't be asked, for it has seen no perturbed cell."""
COLUMN = {"GET /v1/files/{file_id}/values": "cell_type", "GET /v1/jobs/{job_id}/values": "scmulan_cell_type"}
CARRIED_OUT = 2 * examples(1)
"""Jobs of an operation that are carried out; others are removed when they were taken."""
SECONDS = 300.0
"""In which jobs that were taken on the way have to end."""
sent: collections.Counter[tuple[str, int]] = collections.Counter()
turn = itertools.count()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    limits = UploadLimits(cells=500)
    made = Settings(folder=folder, port=0, keys=(hash_of_key(KEY),), per_minute=10**6, most_written=4, jobs=10**6, uploads=limits)
    with listening(Server(made, Models(str(trained.folder), "tiny", {}))) as found:
        yield found


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, headers=HEADERS, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return h5ad(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def there(client, content):
    """A file, a job and a model that are there, by the names of their parameters."""
    asked = client.build_request("POST", "/v1/files", files={"file": ("cells.h5ad", content)})
    asked.read()  # or what validates the answer can't see it
    answer = client.send(asked)
    document["/v1/files"]["POST"].validate_response(answer)
    sent["POST /v1/files", answer.status_code] += 1
    file_id = answer.json()["id"]
    job, drawn = (
        ended(client, client.post(f"/v1/cells/{task}", json={"file_id": file_id, **how}))
        for task, how in (("annotate", {}), ("map", {"layout": "pca"}))
    )
    assert (job["state"], drawn["state"]) == ("done", "done"), (job, drawn)
    return {"file_id": file_id, "perturbed_file_id": file_id, "job_id": job["id"], "map_id": drawn["id"], "name": "tiny"}


def with_what_is_there(case, client, content, there):
    """Mostly a valid id is one that there is, a question one that can be answered: else all would be refused
    for what a schema can't tell."""
    if next(turn) % 4 == 3:
        return
    known = {**there, "name": "pollen_cortex"} if case.operation.label == EXAMPLE else dict(there)
    if case.method == "DELETE":
        known["file_id"] = uploaded(client, content) if not sent[case.operation.label, 200] else known["file_id"][:-1] + "x"
        known["job_id"] = client.post("/v1/cells/generate", json={"n": 1}).json()["id"]
    for part in (case.path_parameters, case.body if isinstance(case.body, dict) else None):
        for name in known.keys() & set(part or ()):
            if name in ("name", "map_id") or re.fullmatch(ID, str(part[name])):
                part[name] = known[name]
    if case.operation.label in COLUMN and "obs" in (case.query or {}):
        case.query = {"obs": COLUMN[case.operation.label]}
    if case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE and isinstance(case.body, dict) and "file" not in case.body:
        sense = {**SENSIBLE, "model": there["name"], "scmulan": {"file_id": there["file_id"], "request": {"task": "annotate"}}}
        if case.operation.label == "POST /v1/cells/compare":
            case.body |= {name: {"file_id": there["file_id"]} for name in ("a", "b")}
        if "embedding" in case.body:
            case.body["embedding"] = None
        case.body |= {name: sense[name] for name in sense.keys() & {*NEEDED.get(case.operation.label, ()), *(case.body.keys() & {"model"})}}


document = schemathesis.openapi.from_dict(routes().openapi(), config=SchemathesisConfig.from_dict(CONFIG))


@document.parametrize()
@settings(max_examples=examples(6), suppress_health_check=list(HealthCheck))
def test_every_operation_keeps_to_its_document(case, address, client, content, there):
    with_what_is_there(case, client, content, there)
    answer = case.call(base_url=address, headers=HEADERS)
    sent[case.operation.label, answer.status_code] += 1
    case.validate_response(answer)
    if answer.status_code == 202 and sent[case.operation.label, 202] > CARRIED_OUT:
        client.delete(f"/v1/jobs/{answer.json()['id']}")


def test_numbers_have_their_limits_in_the_document():
    of = routes().openapi()["components"]["schemas"]
    assert (of["Enhance"]["properties"]["depth"]["minimum"], of["Enhance"]["properties"]["draws"]["maximum"]) == (1, 32)
    assert of["Generate"]["properties"]["temperature"]["maximum"] == 5


def test_each_operation_was_answered_well_too(client):
    labels = {operation.ok().label for operation in document.get_all_operations()}
    assert {label for (label, status), n in sent.items() if n and status < 300} == labels - OF_PERTURBED


def test_jobs_that_were_taken_on_the_way_end_without_a_fault(client):
    until = time.monotonic() + SECONDS
    while (jobs := client.get("/v1/jobs?limit=1000").json()["data"]) and time.monotonic() < until:
        if all(job["state"] in ("done", "failed", "cancelled") for job in jobs):
            break
        time.sleep(0.5)
    assert collections.Counter(job["state"] for job in jobs).keys() <= {"done", "failed", "cancelled"}
    assert [job for job in jobs if "a fault of the server" in job["message"]] == []
    assert client.get("/ready").status_code == 200
