"""What a page shows: columns, maps, places on them, comparisons, answers while a job runs, and the Python that gives the same."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import kind_cells
from gateway import ended, listening, uploaded

import scmulan
from scmulan import assets
from scmulan.cells import read_cells, read_h5ad
from scmulan.errors import ScmulanWarning
from scmulan.serving import maps
from scmulan.serving.app import Server
from scmulan.serving.examples import EXAMPLES
from scmulan.serving.models import Models
from scmulan.serving.settings import Settings


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    return Server(Settings(folder=folder, port=0, per_minute=10**6), Models(str(trained.folder), "tiny", {}))


@pytest.fixture(scope="module")
def client(server):
    with listening(server) as address, httpx.Client(base_url=address, timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def cells():
    return kind_cells(("B cell", "natural killer cell", "classical monocyte"), 180, seed=3)


@pytest.fixture(scope="module")
def file_id(client, cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells.write_h5ad(path)
    return uploaded(client, path.read_bytes())


@pytest.fixture(scope="module")
def map_job(client, file_id):
    return ended(client, client.post("/v1/cells/map", json={"file_id": file_id, "layout": "pca"}))


def numbers(array) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["data"]), dtype=f"<{array['dtype'][0]}4")


def result(client, job):
    assert job["state"] == "done", job
    return client.get(f"/v1/jobs/{job['id']}/result.json").json()


def done(client, task, **asked):
    return ended(client, client.post(f"/v1/cells/{task}", json=asked))


def test_a_column_comes_as_codes_and_numbers_as_they_are(client, file_id, cells):
    said = client.get(f"/v1/files/{file_id}/values", params={"obs": "cell_type"}).json()
    assert [said["categories"][code] for code in numbers(said["codes"])] == cells.obs["cell_type"].astype(str).tolist()
    wrong = client.get(f"/v1/files/{file_id}/values", params={"obs": "cell_typ"})
    assert wrong.status_code == 422
    assert "nearest: 'cell_type'" in wrong.json()["error"]["message"]


def test_a_gene_comes_by_any_of_its_names_as_log1p_of_counts_per_ten_thousand(client, file_id, cells):
    by_symbol, by_id = (client.get(f"/v1/files/{file_id}/values", params={"gene": name}).json() for name in ("cd19", "ENSG00000177455"))
    assert by_symbol["name"] == by_id["name"] == "CD19"
    counts = np.asarray(cells.layers["counts"].todense() if "counts" in cells.layers else cells.X.todense())
    wanted = np.log1p(1e4 * counts[:, list(cells.var_names).index("CD19")] / counts.sum(1))
    np.testing.assert_allclose(numbers(by_symbol["values"]), wanted, rtol=1e-5)
    assert client.get(f"/v1/files/{file_id}/values", params={"gene": "FOXP3"}).status_code == 422
    assert client.get(f"/v1/files/{file_id}/values").status_code == 422


def test_a_map_has_a_place_for_every_cell(client, map_job, cells):
    places = numbers(result(client, map_job)["coordinates"]).reshape(-1, 2)
    assert places.shape == (cells.n_obs, 2)
    assert np.isfinite(places).all()


def test_clusters_part_the_types_and_come_as_a_table_too(client, file_id, cells):
    job = done(client, "cluster", file_id=file_id)
    clusters = numbers(result(client, job)["clusters"]["codes"])
    types = cells.obs["cell_type"].astype(str).to_numpy()
    pure = sum(max((types[clusters == code] == name).sum() for name in set(types)) for code in set(clusters))
    assert pure / len(types) > 0.95
    assert list(np.bincount(clusters)) == sorted(np.bincount(clusters), reverse=True)  # the largest first
    table = pd.read_csv(io.StringIO(client.get(f"/v1/jobs/{job['id']}/result.csv").text), index_col=0)
    assert table["cluster"].tolist() == clusters.tolist()
    assert table.index.tolist() == cells.obs_names.tolist()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_map_and_clusters(client, file_id):
    first, second = (result(client, done(client, "map", file_id=file_id, layout="umap")) for _ in range(2))
    assert first["coordinates"] == second["coordinates"]
    first, second = (result(client, done(client, "cluster", file_id=file_id)) for _ in range(2))
    assert first["clusters"] == second["clusters"]


def test_cells_of_a_map_are_placed_where_they_are(cells):
    read = read_cells(cells)
    space = maps.space_of(read)
    places, distances = maps.neighbours(space.points_CK)
    layout = maps.laid_out(space.points_CK, places, distances)
    again = maps.placed(space, layout, read)
    assert np.median(np.linalg.norm(again - layout, axis=1)) < 0.05 * np.ptp(layout)


def test_written_cells_are_placed_on_the_map_and_compared_with_the_real_ones(client, map_job, file_id, cells):
    written = done(client, "generate", fields={"organ": "blood", "cell_type": "B cell"}, n=5)
    placed = result(client, done(client, "place", map_id=map_job["id"], job_id=written["id"]))
    assert numbers(placed["coordinates"]).reshape(-1, 2).shape == (5, 2)
    rows = np.flatnonzero(cells.obs["cell_type"] == "natural killer cell").tolist()
    beside = np.flatnonzero(cells.obs["cell_type"] == "B cell").tolist()
    compared = result(client, done(client, "compare", a={"file_id": file_id, "rows": beside}, b={"file_id": file_id, "rows": rows}))
    log2 = {gene["gene"]: gene["log2"] for gene in compared["genes"][:8]}
    assert [log2[gene] > 0 for gene in log2.keys() & {"NKG7", "GNLY", "KLRD1", "PRF1"}].count(True) >= 1
    assert [log2[gene] < 0 for gene in log2.keys() & {"CD19", "MS4A1", "CD79A", "CD79B"}].count(True) >= 1
    assert result(client, done(client, "compare", a={"file_id": file_id}, b={"job_id": written["id"]}))["cells"] == [cells.n_obs, 5]


@pytest.mark.parametrize(
    ("task", "asked", "status"),
    [
        ("compare", {"a": {}, "b": {}}, 422),
        ("compare", {"a": {"job_id": f"job-{'0' * 24}"}, "b": {"job_id": f"job-{'0' * 24}"}}, 404),
        ("place", {"map_id": f"job-{'0' * 24}", "job_id": f"job-{'0' * 24}"}, 404),
        ("map", {"file_id": f"file-{'0' * 24}"}, 404),
    ],
)
def test_views_of_what_is_not_there_are_refused(client, task, asked, status):
    assert client.post(f"/v1/cells/{task}", json=asked).status_code == status


def test_a_job_on_some_rows_answers_these_in_their_order(client, file_id, cells):
    rows = [70, 3, 100]
    job = done(client, "annotate", file_id=file_id, rows=rows)
    said = client.get(f"/v1/jobs/{job['id']}/values", params={"obs": "scmulan_cell_type"}).json()
    assert numbers(said["rows"]).tolist() == rows
    assert len(numbers(said["codes"])) == 3
    path = io.BytesIO(client.get(f"/v1/jobs/{job['id']}/result.csv").content)
    assert [line.split(",")[0] for line in path.read().decode().splitlines()[1:]] == [cells.obs_names[row] for row in rows]


@pytest.mark.parametrize(("rows", "told"), [([0, 10**6], "has 180 cells"), ([1, 1], "differ")])
def test_rows_that_are_no_cells_or_stand_twice_are_refused(client, file_id, rows, told):
    for asked in (
        client.post("/v1/cells/annotate", json={"file_id": file_id, "rows": rows}),
        client.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "What are these?"}], "scmulan": {"file_id": file_id, "rows": rows}},
        ),
    ):
        assert asked.status_code == 422
        assert told in asked.json()["error"]["message"]


def test_answers_come_while_the_job_runs(server, client, file_id, monkeypatch):
    monkeypatch.setattr("scmulan.serving.asked.Annotate.IN_PIECES", 60)
    job = client.post("/v1/cells/annotate", json={"file_id": file_id})
    seen: dict[int, str] = {}
    since, states = 0, set()
    while len(seen) < 180:
        said = client.get(f"/v1/jobs/{job.json()['id']}/values", params={"obs": "scmulan_cell_type", "since": since}).json()
        since = said["pieces"]
        states.add(len(numbers(said["rows"])))
        seen |= dict(zip(numbers(said["rows"]).tolist(), [said["categories"][code] for code in numbers(said["codes"])], strict=True))
    whole = client.get(f"/v1/jobs/{ended(client, job)['id']}/values", params={"obs": "scmulan_cell_type"}).json()
    assert [seen[row] for row in range(180)] == [whole["categories"][code] for code in numbers(whole["codes"])]


def test_a_chat_about_some_rows_says_how_many(client, file_id):
    said = client.post(
        "/v1/chat/completions",
        json={
            "messages": [{"role": "user", "content": "x"}],
            "scmulan": {"file_id": file_id, "rows": [1, 2, 3], "request": {"task": "annotate"}},
        },
    ).json()
    assert "3 cells" in said["choices"][0]["message"]["content"]
    assert "adata[[1, 2, 3]]" in said["scmulan"]["reproduce"]["python"]


def test_the_python_of_a_job_gives_what_the_job_gave(client, trained, cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    written = done(client, "generate", fields={"organ": "blood", "cell_type": "B cell"}, n=35, seed=4)
    code = client.get(f"/v1/jobs/{written['id']}/reproduce").json()["python"].replace("'tiny'", repr(str(trained.folder)))
    found: dict = {}
    exec(code, found)
    (tmp_path / "result.h5ad").write_bytes(client.get(f"/v1/jobs/{written['id']}/result.h5ad").content)
    there = read_h5ad(tmp_path / "result.h5ad")
    assert (found["cells"].layers["counts"] != there.layers["counts"]).nnz == 0


def test_the_python_of_an_annotation_gives_its_answers(client, file_id, trained, cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells.write_h5ad("cells.h5ad")
    job = done(client, "annotate", file_id=file_id, rows=[5, 90], labels=["B cell", "natural killer cell"])
    code = client.get(f"/v1/jobs/{job['id']}/reproduce").json()
    found: dict = {}
    exec(code["python"].replace("'tiny'", repr(str(trained.folder))), found)
    said = client.get(f"/v1/jobs/{job['id']}/values", params={"obs": "scmulan_cell_type"}).json()
    assert found["adata"].obs["scmulan_cell_type"].astype(str).tolist() == [said["categories"][code] for code in numbers(said["codes"])]
    assert "scmulan annotate selected.h5ad --labels 'B cell;natural killer cell'" in code["command"]


@pytest.mark.slow
def test_the_command_of_a_job_gives_what_the_job_gave(client, trained, tmp_path):
    written = done(client, "generate", fields={"organ": "blood", "cell_type": "B cell"}, n=3, seed=4)
    command = client.get(f"/v1/jobs/{written['id']}/reproduce").json()["command"].replace("--model tiny", f"--model {trained.folder}")
    ran = subprocess.run(f"{sys.executable} -m {command}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "result.h5ad").write_bytes(client.get(f"/v1/jobs/{written['id']}/result.h5ad").content)
    assert (read_h5ad(tmp_path / "cells.h5ad").layers["counts"] != read_h5ad(tmp_path / "result.h5ad").layers["counts"]).nnz == 0


@pytest.mark.slow
def test_the_python_and_the_command_of_a_comparison_give_its_genes(client, file_id, cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells.write_h5ad("cells.h5ad")
    rows = np.flatnonzero(cells.obs["cell_type"] == "B cell").tolist()
    job = done(client, "compare", a={"file_id": file_id, "rows": rows}, b={"file_id": file_id})
    code = client.get(f"/v1/jobs/{job['id']}/reproduce").json()
    found: dict = {}
    exec(code["python"], found)
    told = pd.read_csv(io.StringIO(client.get(f"/v1/jobs/{job['id']}/result.csv").text), index_col="gene")
    pd.testing.assert_frame_equal(found["genes"], told, check_exact=False)
    found["a"].write_h5ad("set_a.h5ad")
    command = code["command"].splitlines()[-1]
    ran = subprocess.run(f"{sys.executable} -m {command}", shell=True, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert pd.read_csv("genes.csv", index_col="gene").index[:50].tolist() == told.index[:50].tolist()


def test_cells_without_counts_are_not_compared_and_it_is_told(cells):
    empty = cells[:20].copy()
    counts = empty.X.tolil()
    counts[3] = 0
    empty.X = counts.tocsr()
    with pytest.warns(ScmulanWarning, match="a: 1 of 20 cells have no counts"):
        found = scmulan.compare(empty, cells)
    assert found.attrs["cells"] == [19, cells.n_obs]


def test_a_view_has_no_python_of_a_model(client, map_job):
    assert client.get(f"/v1/jobs/{map_job['id']}/reproduce").status_code == 422


def test_an_example_opens_as_a_file(client):
    said = client.get("/v1/about").json()
    assert [one["name"] for one in said["examples"]] == [one.name for one in EXAMPLES]
    opened = client.post("/v1/examples/pollen_cortex").json()
    assert opened["cells"] == next(one.cells for one in EXAMPLES if one.name == "pollen_cortex")
    assert client.delete(f"/v1/files/{opened['id']}").status_code == 200
    assert "there are zheng" in client.post("/v1/examples/nothing").json()["error"]["message"]


def test_examples_say_how_many_cells_they_have():
    sources = pd.read_csv(assets.path("embedded", "cells", "SOURCES.tsv"), sep="\t", index_col="name")
    assert {one.name: one.cells for one in EXAMPLES} == {one.name: int(sources.loc[one.name, "cells"]) for one in EXAMPLES}


def test_the_page_needs_no_key_and_what_it_asks_for_does(trained, tmp_path):
    from scmulan.serving.keys import hash_of_key

    made = Server(Settings(folder=tmp_path, port=0, keys=(hash_of_key("secret"),)), Models(str(trained.folder), "tiny", {}))
    with listening(made) as address, httpx.Client(base_url=address) as found:
        page = found.get("/")
        assert page.status_code == 200
        assert "script-src 'unsafe" not in page.headers["content-security-policy"]
        assert found.get("/v1/about").status_code == 401
        assert found.get("/assets/../../../etc/passwd").status_code in (401, 404)
        assert found.get("/assets/%2e%2e/%2e%2e/pyproject.toml").status_code == 404
