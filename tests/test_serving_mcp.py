"""The tasks as tools for assistants: a real client asks a real server, over stdin and stdout and over HTTP, with the embedded model."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("mcp")

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from starlette.testclient import TestClient
from typer.testing import CliRunner

import scmulan
from scmulan.cli.serving_mcp import mcp as mcp_command
from scmulan.errors import CellDataError, PromptError, ScmulanError, ScmulanWarning
from scmulan.serving.mcp import mcp_server, told
from scmulan.serving.mcp_files import Folder
from scmulan.serving.mcp_limits import Limits
from scmulan.serving.mcp_transports import Keys, Listening, http_app
from scmulan.serving.mcp_work import Done, Stopped, Task, Workshop

CELLS = Path(__file__).parent.parent / "embedded" / "cells"
pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "import typer; from scmulan.cli.serving_mcp import mcp; typer.run(mcp)"]
KEY, OTHER_KEY = "scmulan-key-of-a-test", "scmulan-key-of-another"
MOST_CELLS = 50
CONTROLS, TREATED = {"perturbation": "non-targeting control"}, {"perturbation": "STAT1 knockout"}
LONG = {"fields": {"cell_type": "THP-1 cell"}, "n": 5000, "depth": 60}
"""Cells that take many minutes to write: a test that would wait for them fails."""
PATIENCE = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A few cells of three embedded data sets, and a file of too many."""
    folder = tmp_path_factory.mktemp("folder")
    pbmc = anndata.read_h5ad(CELLS / "zheng_pbmc_facs.h5ad")
    pbmc[[0, 1500, 3000, 3800]].copy().write_h5ad(folder / "pbmc.h5ad")
    thp1 = anndata.read_h5ad(CELLS / "papalexi_eccite_thp1.h5ad")
    rows = [np.flatnonzero(thp1.obs["perturbation"] == each["perturbation"]) for each in (CONTROLS, TREATED)]
    thp1[[*rows[0][:6], *rows[1][:4]]].copy().write_h5ad(folder / "thp1.h5ad")
    thp1[rows[0][: MOST_CELLS + 1]].copy().write_h5ad(folder / "many.h5ad")
    larry = anndata.read_h5ad(CELLS / "larry_haematopoiesis.h5ad")
    larry[np.flatnonzero(larry.obs["time"].astype(str) == "4")[:3]].copy().write_h5ad(folder / "larry.h5ad")
    (folder / "notes.txt").write_text("no cells")
    return folder


@pytest.fixture(scope="module")
def demo():
    """The embedded model in this process, to compare what the server's says."""
    return scmulan.load("demo")


@pytest.fixture(scope="module")
def index(demo, folder, tmp_path_factory) -> Path:
    pytest.importorskip("faiss")
    from scmulan.search_build import index_cells

    return index_cells(demo, [folder / "thp1.h5ad"], tmp_path_factory.mktemp("index") / "thp1")


@pytest.fixture(scope="module")
def url(folder, index, tmp_path_factory):
    """A real server on a free port that asks for a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()}  # of a test\n{hashlib.sha256(OTHER_KEY.encode()).hexdigest()}\n")
    words = ["--folder", str(folder), "--http", "0", "--key-file", str(keys), "--index", f"ref={index}", "--most-cells", str(MOST_CELLS)]
    with open(keys.with_name("log.txt"), "w") as log:
        server = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet())
        said: list[str] = []
        for line in server.stderr:
            said.append(line)
            if "listens on" in line:
                break
        else:
            pytest.fail("".join(said))
        rest = threading.Thread(target=lambda: [log.write(line) for line in server.stderr], daemon=True)
        rest.start()
        yield line.split()[-1]
        server.terminate()
        server.wait(30)
        assert server.stdout.read() == ""
        rest.join(30)


def quiet() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@contextlib.asynccontextmanager
async def over_http(url: str, key: str = KEY, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE, trust_env=False) as sending,
        Client(streamable_http_client(url, http_client=sending), mode=mode) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def over_stdio(folder: Path, mode: str = "auto") -> AsyncIterator[Client]:
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "--folder", str(folder)], env=quiet())
    async with Client(server, mode=mode) as client:
        yield client


def call(url: str, tool: str, **given: Any) -> Any:
    """One call of a tool by a client of its own; the result."""

    async def main() -> Any:
        with anyio.fail_after(PATIENCE):
            async with over_http(url) as client:
                await client.list_tools()  # then the client holds results against their schemas
                return await client.call_tool(tool, given)

    return asyncio.run(main())


def right(url: str, tool: str, **given: Any) -> dict[str, Any]:
    """Plain data of a call that went well."""
    result = call(url, tool, **given)
    assert not result.is_error, result.content[0].text
    assert result.content[0].text
    return result.structured_content


def wrong(url: str, tool: str, **given: Any) -> str:
    """The message of a call that could not be done."""
    result = call(url, tool, **given)
    assert result.is_error
    assert result.structured_content is None
    assert "Traceback" not in result.content[0].text
    return result.content[0].text


# -- what the server offers ---------------------------------------------------------------------------------------------------------

TOOLS = {
    "model_info", "check", "annotate", "locate", "describe", "embed", "generate", "complete", "ask", "perturb", "explain_shift",
    "next_state", "fate", "enhance", "edit", "screen", "search", "transfer",
}  # fmt: skip


def test_every_tool_says_what_it_does_what_it_takes_and_what_it_gives(demo, folder):
    async def main():
        async with Client(mcp_server(demo, Folder(folder, Limits()), {"ref": folder})) as client:
            return (await client.list_tools()).tools, client.instructions

    tools, instructions = asyncio.run(main())
    assert {tool.name for tool in tools} == TOOLS
    assert "model_info" in instructions
    for tool in tools:
        assert len(tool.description) > 60, tool.name
        assert "Parameters\n" not in tool.description
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["properties"]["warnings"]
        schemas = json.dumps([tool.input_schema, tool.output_schema])
        assert '"title": "' not in schemas
        assert '"null"' not in schemas  # what may be left out is left out
        assert tool.annotations.read_only_hint == ("overwrite" not in tool.input_schema["properties"])
        assert "adapter" not in tool.input_schema["properties"] or tool.name == "model_info"


def test_tools_take_an_adapter_where_the_server_has_some_and_search_only_with_an_index(folder):
    model = SimpleNamespace(adapters={"kidney": None}, adapter=None)

    async def main():
        async with Client(mcp_server(model, Folder(folder, Limits()))) as client:
            return {tool.name: tool.input_schema["properties"] for tool in (await client.list_tools()).tools}

    takes = asyncio.run(main())
    assert "adapter" in takes["annotate"]
    assert "adapter" not in takes["check"]
    assert set(takes) == TOOLS - {"search", "transfer"}


def test_the_model_is_told_of_as_its_card_has_it(url, demo):
    said = right(url, "model_info")
    assert said["training_cells"] == sum(demo.seen.cells)
    organs = {row["label"]: row["cells"] for row in said["fields"]["organ"]["rows"]}
    assert list(organs) == demo.seen.values("organ")
    assert sum(organs.values()) <= said["training_cells"]
    assert said["files"] == ["larry.h5ad", "many.h5ad", "pbmc.h5ad", "thp1.h5ad"]
    assert said["indexes"] == ["ref"]
    narrow = right(url, "model_info", field="perturbation", containing="stat")
    assert {row["label"] for row in narrow["fields"]["perturbation"]["rows"]} == {f"STAT{n} knockout" for n in ("1", "2", "3", "5A")}
    assert "nearest: 'organ'" in wrong(url, "model_info", field="organs")


def test_card_and_tasks_are_resources(url, demo):
    async def main():
        async with over_http(url) as client:
            uris = [str(each.uri) for each in (await client.list_resources()).resources]
            return {uri: (await client.read_resource(uri)).contents[0].text for uri in uris}

    texts = asyncio.run(main())
    assert set(texts) == {"scmulan://model/card", "scmulan://tasks"}
    assert "## Limits" in texts["scmulan://model/card"]
    assert all(f"- {tool}: " in texts["scmulan://tasks"] for tool in TOOLS)
    assert all(f"- {name}" in texts["scmulan://tasks"] for name in demo.prompts.fields)


# -- each tool once -----------------------------------------------------------------------------------------------------------------


def test_check_tells_of_a_file_what_the_doctor_found(url):
    said = right(url, "check", file="thp1.h5ad")
    assert said["verdict"] in ("ok", "warning")
    assert {"values", "genes", "organism"} <= {finding["question"] for finding in said["findings"]}


def test_annotate_counts_labels_as_the_model_gives_them_and_writes_the_whole(url, folder, demo):
    said = right(url, "annotate", file="pbmc.h5ad", output="called.csv")
    adata = anndata.read_h5ad(folder / "pbmc.h5ad")
    table = demo.annotate(adata)
    assert {row["label"]: row["cells"] for row in said["labels"]["rows"]} == adata.obs["scmulan_cell_type"].value_counts().to_dict()
    assert said["mean_probability"] == pytest.approx(table.max(axis=1).mean(), rel=1e-3)
    assert said["output"] == "called.csv"
    written = pd.read_csv(folder / "called.csv", index_col=0)
    assert np.allclose(written.to_numpy(), table.to_numpy(), atol=1e-4)
    assert list(written) == list(table)


def test_annotate_among_labels_says_which_were_never_seen_and_labels_clusters(url):
    said = right(url, "annotate", file="pbmc.h5ad", labels=["B cell", "podocyte"], cluster="organism")
    assert said["never_seen"] == ["podocyte"]
    assert list(said["by_cluster"]) == ["Homo sapiens"]


def test_locate_and_describe_and_embed_write_their_answers_into_a_copy(url, folder):
    assert right(url, "locate", file="thp1.h5ad", output="placed.h5ad")["labels"]["rows"][0]["cells"] > 0
    assert "scmulan_organ" in anndata.read_h5ad(folder / "placed.h5ad").obs
    said = right(url, "describe", file="thp1.h5ad", output="said.csv")
    assert {"organism", "organ", "cell_type"} <= set(said["fields"])
    assert "scmulan_organ_probability" in pd.read_csv(folder / "said.csv")
    said = right(url, "embed", file="thp1.h5ad", output="points.h5ad")
    assert anndata.read_h5ad(folder / "points.h5ad").obsm[said["key"]].shape == (said["cells"], said["dimensions"])


def test_generate_and_complete_write_cells_of_their_fields_and_genes(url, folder):
    fields = {"cell_type": "THP-1 cell"}
    said = right(url, "generate", fields=fields, n=2, depth=200, output="new.h5ad")
    cells = anndata.read_h5ad(folder / "new.h5ad")
    assert (cells.n_obs, said["cells"]) == (2, 2)
    assert said["median_counts"] == np.median(np.asarray(cells.layers["counts"].sum(1)))
    assert said["fields"]["cell_type"]["rows"] == [{"label": "THP-1 cell", "cells": 2}]
    said = right(url, "complete", genes={"STAT1": 8}, fields=fields, n=1, depth=200, output="around.h5ad")
    assert anndata.read_h5ad(folder / "around.h5ad")[:, "STAT1"].layers["counts"].sum() == 8


def test_a_question_is_shown_as_it_was_read_and_its_correction_is_done(url, folder):
    read = right(url, "ask", question="which organ are these cells from?", only_read=True)
    assert read["request"] == [{"task": "locate"}]
    assert read["answer"] == ""
    said = right(url, "ask", request={**read["request"][0], "task": "annotate"}, file="thp1.h5ad", output="asked.h5ad")
    assert said["results"][0]["done"]
    assert said["results"][0]["facts"][0]["label"] in said["answer"]
    assert "scmulan_cell_type" in anndata.read_h5ad(folder / "asked.h5ad").obs
    refused = right(url, "ask", request={"task": "generate", "number": 20_000})
    assert not refused["results"][0]["done"]
    assert "at most 10,000" in refused["answer"]


def test_perturb_tells_genes_with_intervals_and_says_what_was_never_learnt(url, folder):
    said = right(url, "perturb", file="thp1.h5ad", genes={"STAT1": "knockout"}, only=CONTROLS, n=3, output="change.csv")
    assert said["cells"] == 3
    assert {"gene", "value", "low", "high", "q"} <= set(said["changes"][0])
    table = pd.read_csv(folder / "change.csv", index_col=0)
    assert said["changes"][0]["value"] == pytest.approx(table["scmulan_change"].loc[said["changes"][0]["gene"]], rel=1e-3)
    assert said["warnings"] == []
    guessed = call(url, "perturb", file="thp1.h5ad", genes={"LYZ": "knockout"}, only=CONTROLS, n=1)
    assert "guess by analogy" in guessed.structured_content["warnings"][0]
    assert "Warning: no training cell had 'LYZ knockout'" in guessed.content[0].text


def test_a_shift_is_explained_by_one_file_that_holds_both(url, demo, folder):
    both = {"control": "thp1.h5ad", "perturbed": "thp1.h5ad", "control_only": CONTROLS, "perturbed_only": TREATED}
    said = right(url, "explain_shift", **both, perturbations=["STAT1 knockout", "IRF7 knockout"])
    assert said["cells"] == 4
    assert sum(row["probability"] for row in said["rows"]) == pytest.approx(1, abs=1e-3)
    assert sum(row["cells"] for row in said["rows"]) == 4


def test_what_cells_become(url, folder):
    assert right(url, "next_state", file="larry.h5ad", time="day 6", n=1, output="later.h5ad")["cells"] == 1
    assert set(anndata.read_h5ad(folder / "later.h5ad").obs["time"]) == {"day 6"}
    said = right(url, "fate", file="larry.h5ad", time="day 6", labels=None)  # null stands for nothing
    assert sum(row["cells"] for row in said["labels"]["rows"]) == 3
    assert sum(said["fates"].values()) == pytest.approx(1, abs=1e-3)
    said = right(url, "enhance", file="thp1.h5ad", depth=600, draws=1, only=TREATED, output="deeper.h5ad")
    assert said["median_counts"] > said["median_counts_before"]
    assert "expected" in anndata.read_h5ad(folder / "deeper.h5ad").layers


def test_genes_are_edited_and_screened(url, folder):
    said = right(url, "edit", file="thp1.h5ad", genes={"STAT1": "raise"}, only=TREATED)
    assert (said["genes"], said["cells"]) == ({"STAT1": "raise"}, 4)
    assert said["cells_changed"] > 0
    goal = {"cell_type": "THP-1 cell"}
    said = right(url, "screen", file="thp1.h5ad", goal=goal, most_cells=2, output="ranked.csv")
    ranked = pd.read_csv(folder / "ranked.csv", index_col=0)
    assert [row["gene"] for row in said["rows"]] == list(ranked.index[: len(said["rows"])])
    assert said["genes"] == len(ranked) > len(said["rows"])
    exact = right(url, "screen", file="thp1.h5ad", goal=goal, genes=["STAT1", "STAT2"], by="odds", most_cells=1)
    assert [row["rank"] for row in exact["rows"]] == [1, 2]


def test_reference_cells_are_found_and_give_their_labels(url, folder):
    said = right(url, "search", file="thp1.h5ad", index="ref", k=3, output="near.csv")
    assert said["neighbours"] == 30 == len(pd.read_csv(folder / "near.csv"))
    assert said["fields"]["cell_type"]["rows"] == [{"label": "THP-1 cell", "cells": 30}]
    assert right(url, "transfer", file="thp1.h5ad", index="ref")["labels"]["rows"][0]["label"] == "THP-1 cell"
    assert "nearest: 'ref'" in wrong(url, "search", file="thp1.h5ad", index="reff")


# -- what can't be done -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("annotate", {"file": "../thp1.h5ad"}, "outside of the server's folder"),
        ("annotate", {"file": "/etc/passwd"}, "outside of the server's folder"),
        ("annotate", {"file": "notes.txt"}, "ends in .h5ad"),
        ("annotate", {"file": "thp.h5ad"}, "nearest: 'thp1.h5ad'"),
        ("annotate", {"file": "many.h5ad"}, "51 cells; needed at most 50 (--most-cells)"),
        ("annotate", {"file": "thp1.h5ad", "output": "thp1.h5ad"}, "is there already; needed another name, or overwrite=true"),
        ("annotate", {"file": "thp1.h5ad", "output": "/tmp/out.h5ad"}, "outside of the server's folder"),
        ("annotate", {"file": "thp1.h5ad", "cluster": "leidn"}, "cluster 'leidn' is not a column of obs"),
        ("locate", {"file": "thp1.h5ad", "output": "out.xlsx"}, "ends in .h5ad or .csv"),
        ("generate", {"fields": {"cell_type": "B cel"}}, "cell_type 'B cel' was not among this model's training cells; nearest: 'B cell'"),
        ("generate", {"fields": {"n": "3"}}, "'n' is not a field; fields: organism"),
        ("generate", {"n": 20_000}, "20,000 cells to write; needed at most 10,000 (--most-written)"),
        ("generate", {"n": "many"}, "generate: n: found 'many'"),
        ("generate", {"nn": 3}, "generate: 'nn' is not an argument"),
        ("generate", {"n": 0}, "greater than or equal to 1"),
        ("complete", {}, "complete: genes: not given"),
        ("edit", {"file": "thp1.h5ad", "genes": {"STAT1": "remove"}}, "found 'remove'"),
        ("perturb", {"file": "thp1.h5ad", "agent": "water", "only": {"donr": "x"}}, "no column 'donr' in obs; nearest: 'donor'"),
        ("perturb", {"file": "thp1.h5ad"}, "either genes={'STAT1': 'knockout'}, or agent="),
        ("ask", {}, "either a question, or a request"),
        ("ask", {"request": {"task": "anotate"}}, "nearest: 'annotate'"),
        ("screen", {"file": "pbmc.h5ad", "goal": {"cell_type": "B cell"}, "by": "odds"}, "by='gradient', with fewer genes"),
        ("anotate", {"file": "thp1.h5ad"}, "nearest: 'annotate'"),
    ],
)  # fmt: skip
def test_an_error_says_what_was_found_and_what_is_needed(url, folder, tool, given, said):
    message = wrong(url, tool, **given)
    assert said in message
    assert str(folder) not in message


def test_nothing_is_overwritten_unasked(url, folder):
    before = (folder / "thp1.h5ad").read_bytes()
    (folder / "mine.csv").write_text("mine")
    assert "overwrite=true" in wrong(url, "locate", file="thp1.h5ad", output="mine.csv")
    assert (folder / "mine.csv").read_text() == "mine"
    assert right(url, "locate", file="thp1.h5ad", output="mine.csv", overwrite=True)["output"] == "mine.csv"
    assert (folder / "mine.csv").read_text() != "mine"
    assert (folder / "thp1.h5ad").read_bytes() == before


def test_what_nobody_foresaw_is_logged_and_not_told(caplog):
    said = told("annotate", Done(crash=KeyError("secret")))
    assert said.is_error
    assert said.content[0].text == "annotate: an error inside scmulan (KeyError); the server's log says more"
    assert "secret" in caplog.text


# -- while a task runs --------------------------------------------------------------------------------------------------------------


async def cancels(client: Client) -> list[tuple[float, float | None]]:
    """Start a long task, ask something else, cancel it, and have the next one done; progress of both."""
    told: list[tuple[float, float | None]] = []
    began = anyio.Event()

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total))
        began.set()

    async def write() -> None:
        await client.call_tool("generate", LONG, progress_callback=on_progress)
        pytest.fail("so many cells can't be done already")

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await began.wait()
            assert not (await client.call_tool("model_info", {})).is_error
            tasks.cancel_scope.cancel()
        located: list[tuple[float, float | None]] = []

        async def on_located(done: float, total: float | None, message: str | None) -> None:
            if total is not None:  # it may have waited
                located.append((done, total))

        result = await client.call_tool("locate", {"file": "thp1.h5ad"}, progress_callback=on_located)
        assert not result.is_error, result.content[0].text
    assert located[-1] == (10, 10)
    return told


@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.slow)])
def test_over_stdio_a_task_tells_how_far_it_is_and_a_cancelled_one_makes_room(folder, mode):
    async def main():
        async with over_stdio(folder, mode) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == TOOLS - {"search", "transfer"}
            told = await cancels(client)
            message = (await client.call_tool("annotate", {"file": "../thp1.h5ad"})).content[0].text
            return told, message

    told, message = asyncio.run(main())
    assert told[0][1] == 5000
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert message == "../thp1.h5ad: outside of the server's folder; needed a path inside it, as 'cells.h5ad'"


@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.slow)])
def test_over_http_a_task_tells_how_far_it_is_and_a_cancelled_one_makes_room(url, mode):
    async def main():
        async with over_http(url, mode=mode) as client:
            return await cancels(client)

    assert asyncio.run(main())[0][1] == 5000


class Idle:
    """A model that does nothing, with two adapters."""

    adapters = dict.fromkeys(("kidney", "heart"))

    def __init__(self) -> None:
        self.adapter, self.used = None, []

    def use(self, adapter: str | None) -> None:
        if adapter not in (None, *self.adapters):
            raise PromptError(f"adapter {adapter!r}: loaded: kidney, heart")
        self.adapter = adapter
        self.used.append(adapter)


@pytest.fixture
def workshop(tmp_path) -> Workshop:
    return Workshop(Idle(), Folder(tmp_path, Limits()))


async def nobody(done: float, total: float | None, message: str) -> None:
    """Is told how far a task is."""


def test_tasks_are_done_one_at_a_time_with_their_own_adapters(workshop):
    at_once, most = 0, 0

    def work(task: Task) -> str | None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        threading.Event().wait(0.02)
        at_once -= 1
        return task.model.adapter

    async def main() -> dict[int, Done]:
        done = {}

        async def one(number: int, adapter: str | None) -> None:
            done[number] = await workshop.do("work", work, nobody, adapter=adapter)

        async with anyio.create_task_group() as tasks:
            for number, adapter in enumerate(["kidney", "heart", None, "liver"]):
                tasks.start_soon(one, number, adapter)
        return done

    done = asyncio.run(main())
    assert most == 1
    assert [done[number].value for number in range(3)] == ["kidney", "heart", None]
    assert "adapter 'liver'" in done[3].refused


def test_a_cancelled_task_is_told_to_stop_before_the_next_one_begins(workshop):
    came: list[str] = []

    def endless(task: Task) -> None:
        try:
            while True:
                task.tick(1)
        except Stopped:
            came.append("stopped")
            raise

    async def main() -> Done:
        with anyio.move_on_after(0.05) as scope:
            await workshop.do("endless", endless, nobody)
        assert scope.cancelled_caught
        return await workshop.do("next", lambda task: came.append("next"), nobody)

    assert asyncio.run(main()).refused is None
    assert came == ["stopped", "next"]


def test_warnings_of_scmulan_come_with_the_result_and_others_do_not(workshop):
    def work(task: Task) -> None:
        for _ in range(2):
            warnings.warn("look at this", ScmulanWarning, stacklevel=1)
        warnings.warn("look away", UserWarning, stacklevel=1)

    assert asyncio.run(workshop.do("work", work, nobody)).warnings == ("look at this",)


def test_an_error_names_files_as_the_assistant_did(workshop):
    def work(task: Task) -> None:
        task.named.append("mine.h5ad")
        raise CellDataError(f"AnnData: no gene of {workshop.files.folder}/mine.h5ad is known")

    assert asyncio.run(workshop.do("work", work, nobody)).refused == "mine.h5ad: no gene of mine.h5ad is known"


def test_progress_never_goes_back_and_has_no_total_that_was_passed(workshop):
    told: list[tuple[float, float | None]] = []

    async def report(done: float, total: float | None, message: str) -> None:
        told.append((done, total))

    def work(task: Task) -> None:
        task.tick.total = 2
        task.tick(3)

    asyncio.run(workshop.do("work", work, report))
    assert told == [(3, None)]


# -- files --------------------------------------------------------------------------------------------------------------------------


def test_a_path_is_what_it_leads_to(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.h5ad").write_bytes(b"")
    (inside / "link.h5ad").symlink_to(tmp_path / "outside.h5ad")
    (inside / "out").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    files = Folder(inside, Limits())
    assert files.path("a/../b.h5ad") == inside / "b.h5ad"
    assert files.path(str(inside / "b.h5ad")) == inside / "b.h5ad"
    for given in ("link.h5ad", "out/outside.h5ad", "../outside.h5ad", "../inside2/a.h5ad", str(tmp_path / "outside.h5ad")):
        with pytest.raises(PromptError, match="outside of the server's folder"):
            files.readable(given)
        with pytest.raises(PromptError, match="outside of the server's folder"):
            files.writable(given, True)
    for given in ("loop/a.h5ad", "a\0.h5ad"):
        with pytest.raises(PromptError, match="no path"):
            files.path(given)


def test_what_may_not_be_written_is_said_before_the_work(tmp_path):
    files = Folder(tmp_path, Limits())
    (tmp_path / "folder.csv").mkdir()
    assert files.writable(None, False) is None
    with pytest.raises(PromptError, match="a folder; name a file"):
        files.writable("folder.csv", True)
    with pytest.raises(PromptError, match="no such folder to write into"):
        files.writable("deep/er.csv", True)
    with pytest.raises(PromptError, match=r"ends in \.csv"):
        files.writable("cells.h5ad", True, (".csv",))


def test_a_file_that_takes_values_from_others_is_refused(tmp_path, folder):
    files = Folder(tmp_path, Limits())
    (tmp_path / "linked.h5ad").write_bytes((folder / "thp1.h5ad").read_bytes())
    with h5py.File(tmp_path / "linked.h5ad", "a") as file:
        file["uns/stolen"] = h5py.ExternalLink(str(folder / "pbmc.h5ad"), "/uns")
    (tmp_path / "raw.h5ad").write_bytes((folder / "thp1.h5ad").read_bytes())
    (tmp_path / "secret.bin").write_bytes(bytes(80))
    with h5py.File(tmp_path / "raw.h5ad", "a") as file:
        made = file["obs"].create_dataset("stolen", (10,), "i8", external=[(str(tmp_path / "secret.bin"), 0, 80)])
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"
        file["obs"].attrs["column-order"] = [*file["obs"].attrs["column-order"], "stolen"]
    for name in ("linked.h5ad", "raw.h5ad"):
        with pytest.raises(CellDataError, match="taken from another file"):
            files.check(name).raise_problem()


def test_a_file_too_large_or_damaged_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "large.h5ad").write_bytes(bytes(2**20 + 1))
    with pytest.raises(CellDataError, match="needed at most 1 MB"):
        Folder(tmp_path, Limits(megabytes=1)).read("large.h5ad")
    with pytest.raises(CellDataError, match=r"^large\.h5ad: not an HDF5 file"):
        Folder(tmp_path, Limits()).read("large.h5ad")


def test_a_file_is_checked_again_only_when_it_changed(tmp_path, folder, monkeypatch):
    from scmulan.serving import mcp_files

    asked = []
    monkeypatch.setattr(mcp_files, "check_apart", lambda path, **how: asked.append(path) or scmulan.cells.check(path, **how))
    (tmp_path / "cells.h5ad").write_bytes((folder / "larry.h5ad").read_bytes())
    files = Folder(tmp_path, Limits())
    assert files.read("cells.h5ad").n_obs == files.read("cells.h5ad").n_obs == 3
    assert len(asked) == 1
    (tmp_path / "cells.h5ad").write_bytes((folder / "thp1.h5ad").read_bytes())
    assert files.read("cells.h5ad", only=TREATED).n_obs == 4
    assert len(asked) == 2


# -- who may come in ----------------------------------------------------------------------------------------------------------------

HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}  # fmt: skip
ACCEPT = {"accept": "application/json, text/event-stream"}


def statuses(app: Any, *headers: dict[str, str]) -> list[int]:
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        return [client.post("/mcp", json=HELLO, headers={**ACCEPT, **each}).status_code for each in headers]


def test_a_page_of_another_site_is_no_client(folder):
    listening = Listening.of("8765", hosts=["cells.example.org"])
    app = http_app(SimpleNamespace(adapters={}, adapter=None), Folder(folder, Limits()), listening)
    headers = [
        {}, {"host": "evil.example.com"}, {"origin": "https://evil.example.com"}, {"origin": "http://localhost:3000"},
        {"host": "cells.example.org"}, {"host": "127.0.0.1.evil.example.com"}, {"host": "localhost:8765", "origin": "null"},
    ]  # fmt: skip
    assert statuses(app, *headers) == [200, 421, 403, 200, 200, 421, 403]


def test_a_server_with_keys_lets_in_only_who_has_one(folder):
    keys = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, OTHER_KEY)]
    listening = Listening.of("0.0.0.0:8765", keys=keys)
    app = http_app(SimpleNamespace(adapters={}, adapter=None), Folder(folder, Limits()), listening)
    headers = [
        {},
        *({"authorization": said} for said in (f"Bearer {KEY}", f"Bearer {OTHER_KEY}", "Bearer wrong", f"Basic {KEY}", "Bearer ")),
    ]
    assert statuses(app, *headers) == [401, 200, 200, 401, 401, 401]


def test_nobody_goes_on_in_the_session_of_another(folder):
    keys = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, OTHER_KEY)]
    app = http_app(SimpleNamespace(adapters={}, adapter=None), Folder(folder, Limits()), Listening.of("8765", keys=keys))
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        mine, other = ({**ACCEPT, "authorization": f"Bearer {key}"} for key in (KEY, OTHER_KEY))
        session = {"mcp-session-id": client.post("/mcp", json=HELLO, headers=mine).headers["mcp-session-id"]}
        wanted = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert client.post("/mcp", json=wanted, headers={**mine, **session}).status_code == 200
        assert client.post("/mcp", json=wanted, headers={**other, **session}).status_code == 404


def test_a_key_is_known_by_its_hash_alone():
    keys = Keys([hashlib.sha256(KEY.encode()).hexdigest()])
    assert asyncio.run(keys.verify_token(KEY)).client_id == keys.hashes[0][:16]
    assert asyncio.run(keys.verify_token(keys.hashes[0])) is None


def test_others_are_listened_to_only_with_keys():
    assert (Listening.of("8765").host, Listening.of("[::1]:8765").host, Listening.of("localhost:80").port) == ("127.0.0.1", "::1", 80)
    for place in ("0.0.0.0:8765", "192.168.0.4:8765", "[::]:8765", "example.org:8765"):
        with pytest.raises(PromptError, match="it needs keys: --key-file FILE"):
            Listening.of(place)
        assert Listening.of(place, keys=["0" * 64]).port == 8765
    for place in ("port", "localhost", "127.0.0.1:", "99999"):
        with pytest.raises(PromptError, match="needed PORT or HOST:PORT"):
            Listening.of(place)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--http", "0.0.0.0:8765"], "it needs keys"),
        (["--hostname", "me"], "--key-file and --hostname are for --http"),
        (["--folder", "nowhere"], "--folder nowhere: no such folder"),
        (["--index", "ref"], "--index 'ref': needed NAME=VALUE"),
        (["no-such-model"], "no-such-model"),
    ],
)
def test_the_command_refuses_what_can_not_be_served(words, said):
    import typer

    app = typer.Typer()
    app.command()(mcp_command)
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ScmulanError)
    assert said in str(result.exception)
