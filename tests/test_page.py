"""The page in a real browser, on the embedded model: a file dropped, its map, a lasso, questions, written cells, a perturbation, a reload.

The tests of one page go on from each other, as a person does. They need chromium.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from gateway import listening

from scmulan.bench_page import ARGUMENTS
from scmulan.bench_screen import held_out
from scmulan.bench_serving import BRIEF
from scmulan.cells import read_h5ad
from scmulan.finetune import finetune
from scmulan.model import load_checkpoint
from scmulan.serving.app import Server
from scmulan.serving.models import Models
from scmulan.serving.settings import Settings
from scmulan.serving.uploads import UploadLimits

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
SECONDS = 240_000
N_CELLS = 200
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
SHOTS = os.environ.get("SCMULAN_SHOTS")
"""A folder for pictures of the page, to be looked at."""
DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name));
  const place = document.querySelector(".start");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    place.dispatchEvent(new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("no chromium; apt-get install chromium")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def cells():
    """Real cells that the model has not seen."""
    whole = held_out("zheng_pbmc_facs")
    return whole[np.random.default_rng(0).permutation(whole.n_obs)[:N_CELLS]].copy()


@pytest.fixture(scope="module")
def address(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    adapter = finetune(cells[:40].copy(), folder / "tuned", base=load_checkpoint("demo").folder, say=lambda _: None, **BRIEF)
    limits = UploadLimits(bytes=40 * 2**20)
    made = Settings(folder=folder / "server", port=0, per_minute=10**5, uploads=limits)
    with listening(Server(made, Models("demo", "demo", {"tuned": adapter}))) as found:
        yield found


@pytest.fixture(scope="module")
def page(browser, address):
    """The page that the tests go on with."""
    context = browser.new_context(viewport=WIDE, accept_downloads=True)
    with opened(context, address) as found:
        yield found
    context.close()


@contextlib.contextmanager
def opened(context, address):
    """A page, whose errors fail what follows it."""
    wrong: list[str] = []
    found = context.new_page()
    found.set_default_timeout(60_000)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda said: wrong.append(said.text) if said.type == "error" and "status of" not in said.text else None)
    found.goto(address)
    yield found
    found.close()
    assert wrong == []


def shot(page, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png")


def h5ad(cells, folder) -> bytes:
    cells.write_h5ad(folder / "cells.h5ad")
    return (folder / "cells.h5ad").read_bytes()


def drop(page, name, content):
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def panel(page, name):
    page.get_by_role("tab", name=name).click()


def told(page) -> str:
    return page.get_by_test_id("selection").inner_text()


def colours(page) -> int:
    """How many colours the map has: one where nothing is drawn."""
    from PIL import Image

    picture = Image.open(io.BytesIO(page.locator("canvas").first.screenshot()))
    return len(picture.convert("RGB").quantize(64).getcolors() or [])


def clusters_answered(page) -> None:
    panel(page, "Table")
    rows = page.get_by_role("region", name="Table of clusters").get_by_role("row")
    expect(rows.nth(1)).to_be_visible(timeout=SECONDS)
    expect(page.get_by_role("cell", name="not yet")).to_have_count(0, timeout=SECONDS)


def ask(page, text):
    panel(page, "Ask")
    page.get_by_label("Your question").fill(text)
    n = page.get_by_role("article").count()
    page.get_by_role("button", name="Ask", exact=True).click()
    answer = page.get_by_role("article").nth(n).locator(".answer")
    expect(answer).to_be_visible(timeout=SECONDS)
    return answer


def test_a_dropped_file_has_a_verdict_a_map_and_clusters(page, cells, tmp_path):
    shot(page, "begin")
    drop(page, "blood.h5ad", h5ad(cells, tmp_path))
    expect(page.get_by_text(f"{N_CELLS} cells, 16,791 genes").first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("Good to go").first).to_be_visible()
    expect(page.get_by_role("region", name="Legend").get_by_role("checkbox").first).to_be_visible(timeout=SECONDS)
    assert colours(page) > 4
    shot(page, "map")


def test_every_cluster_has_an_answer(page, cells):
    clusters_answered(page)
    said = page.get_by_role("region", name="Table of clusters").inner_text()
    types = set(cells.obs["cell_type"].astype(str))
    assert sum(name in said for name in types) >= 3
    shot(page, "table")


def test_a_lasso_chooses_cells_and_a_question_is_about_them(page):
    page.get_by_role("button", name="Lasso").click()
    box = page.locator("canvas").first.bounding_box()
    corners = [(0.1, 0.1), (0.6, 0.1), (0.6, 0.9), (0.1, 0.9), (0.1, 0.12)]
    for number, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if not number:
            page.mouse.down()
    page.mouse.up()
    n = int(re.match(r"[\d,]+", told(page))[0].replace(",", ""))
    assert 0 < n < N_CELLS
    answer = ask(page, "What kinds of cells are these?")
    expect(answer).to_contain_text(f"{min(n, 100)} cells")
    expect(answer).to_contain_text("Understood as")
    expect(answer.get_by_role("img").first).to_be_visible()
    answer.get_by_text("Python and command").click()
    expect(answer.get_by_label("Python", exact=True)).to_contain_text("scmulan.load('demo')")
    shot(page, "asked")


def test_a_follow_up_keeps_the_thread(page):
    answer = ask(page, "and the T cells only?")
    expect(answer).to_contain_text("It goes on from the question before.")


def test_a_reading_can_be_corrected(page):
    answer = page.get_by_role("article").last.locator(".answer")
    n = page.get_by_role("article").count()
    answer.get_by_role("button", name="Correct").click()
    page.get_by_role("button", name=re.compile("Ask again", re.I)).last.click()
    expect(page.get_by_role("article").nth(n).locator(".answer")).to_be_visible(timeout=SECONDS)


def test_written_cells_land_on_the_map(page):
    panel(page, "Generate")
    form = page.get_by_role("form", name="Write cells")
    form.get_by_label("organ", exact=True).fill("blood")
    form.get_by_label("cell type", exact=True).fill("B cell")
    form.get_by_label("How many").fill("4")
    form.get_by_role("button", name="Write cells").click()
    written = page.get_by_role("region", name="Written cells")
    expect(written.get_by_text("Download h5ad")).to_be_visible(timeout=SECONDS)
    expect(page.get_by_role("group", name="Cells written by the model").get_by_role("checkbox")).to_be_checked()
    with page.expect_download() as got:
        written.get_by_text("Download h5ad").click()
    assert read_h5ad(got.value.path()).n_obs == 4
    shot(page, "generated")


def test_a_gene_colours_the_map(page):
    controls = page.get_by_role("region", name="Map controls")
    controls.get_by_role("textbox", name="Gene").fill("CD79A")
    controls.get_by_role("button", name="Colour").click()
    expect(page.get_by_role("region", name="Legend")).to_contain_text("log1p of counts per 10,000", timeout=60_000)
    shot(page, "gene")
    controls.get_by_role("textbox", name="Gene").fill("NOTAGENE")
    controls.get_by_role("button", name="Colour").click()
    expect(page.get_by_role("region", name="Legend")).to_contain_text("not known")
    controls.get_by_label("Colour by").select_option("cluster")


def test_two_sets_are_compared(page):
    panel(page, "Compare")
    page.get_by_role("form", name="Compare two sets").get_by_role("button", name="Compare").click()
    found = page.get_by_role("region", name="Comparison")
    expect(found).to_contain_text("genes differ", timeout=SECONDS)
    expect(found.get_by_role("img").first).to_be_visible()
    found.get_by_text("Python and command").click()
    expect(found.get_by_label("Python", exact=True)).to_contain_text("scmulan.compare(a, b)")
    shot(page, "compared")


def test_a_perturbation_shows_what_changes_beside_its_baselines(page):
    panel(page, "Change")
    form = page.get_by_role("form", name="Change cells")
    form.get_by_label("Perturbation", exact=True).fill("STAT1 knockout")
    form.get_by_label(re.compile("Cells to write anew")).fill("8")
    form.get_by_role("button", name="Show what changes").click()
    made = page.get_by_role("region", name=re.compile("8 cells after STAT1 knockout"), exact=False).first
    expect(made.get_by_role("img").first).to_be_visible(timeout=SECONDS)
    made.get_by_role("button", name=re.compile("baseline|simple", re.I)).first.click()
    expect(made).to_contain_text("mean of the other perturbations")
    shot(page, "changed")


def test_the_adapter_is_switched(page):
    page.get_by_role("combobox", name="Model", exact=True).select_option("tuned")
    answer = ask(page, "What kinds of cells are these?")
    answer.get_by_text("Python and command").click()
    expect(answer.get_by_label("Python", exact=True)).to_contain_text("model.use('tuned')")
    page.get_by_role("combobox", name="Model", exact=True).select_option("demo")


def test_all_answers_are_downloaded(page):
    panel(page, "Table")
    button = page.get_by_role("button", name="Answers (CSV)")
    expect(button).to_be_visible(timeout=SECONDS)
    with page.expect_download() as got:
        button.click()
    lines = Path(got.value.path()).read_text().splitlines()
    assert len(lines) == N_CELLS + 1
    assert "scmulan_cell_type" in lines[0]


def test_a_reload_keeps_the_work(page):
    panel(page, "Ask")
    n, chosen = page.get_by_role("article").count(), told(page)
    page.reload()
    expect(page.get_by_text(f"{N_CELLS} cells, 16,791 genes").first).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(n)
    expect(page.get_by_test_id("selection")).to_have_text(chosen)
    expect(page.get_by_role("group", name="Cells written by the model").get_by_role("checkbox").first).to_be_visible()
    expect(page.get_by_role("region", name="Legend").get_by_role("checkbox").first).to_be_visible()
    panel(page, "Compare")
    expect(page.get_by_role("region", name="Comparison")).to_contain_text("genes differ")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_wrong(page, theme, size):
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size(size)
    page.emulate_media(color_scheme=theme)
    wrong = {}
    for name in ("Ask", "Generate", "Change", "Compare", "Table"):
        panel(page, name)
        shot(page, f"{theme}_{size['width']}_{name.lower()}")
        found = Axe().run(page).response["violations"]
        wrong |= {f"{name}: {each['id']}": [node["html"][:200] for node in each["nodes"][:3]] for each in found}
    width = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
    assert wrong == {}
    assert width <= size["width"]


def test_the_whole_path_by_keyboard_alone(browser, address):
    context = browser.new_context(viewport=WIDE)
    with opened(context, address) as page:
        expect(page.get_by_role("button", name="Open Developing brain, human")).to_be_visible()
        by_keys(page, "Open Developing brain, human")
        page.keyboard.press("Enter")
        boxes = page.get_by_role("region", name="Legend").get_by_role("checkbox")
        expect(boxes.first).to_be_visible(timeout=SECONDS)
        by_keys(
            page, lambda: page.evaluate("document.activeElement.closest('.legend') !== null && document.activeElement.type === 'checkbox'")
        )
        page.keyboard.press("Space")
        expect(page.get_by_test_id("selection")).to_contain_text("chosen")
        by_keys(page, lambda: page.evaluate("document.activeElement.id === 'question'"))
        page.keyboard.type("Which organ are these cells from?")
        page.keyboard.press("Enter")
        expect(page.get_by_role("article").first.locator(".answer")).to_contain_text("Understood as", timeout=SECONDS)
    context.close()


def by_keys(page, wanted):
    """Tab on until the focus is where it is wanted."""
    for _ in range(150):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText || ''")
        if wanted() if callable(wanted) else name == wanted:
            return
    raise AssertionError(f"150 times Tab, and the focus was never on {wanted}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.h5ad", b"these are notes, no cells", "not an HDF5 file"),
        ("large.h5ad", b"\x89HDF\r\n\x1a\n" + bytes(41 * 2**20), "takes 40 MB at most"),
    ],
    ids=["notes", "large"],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(browser, address, name, content, said):
    context = browser.new_context(viewport=WIDE)
    with opened(context, address) as page:
        expect(page.get_by_role("button", name="Choose a file")).to_be_visible()
        page.locator("#file").set_input_files({"name": name, "mimeType": "application/x-hdf5", "buffer": content})
        expect(page.get_by_text(said).first).to_be_visible(timeout=60_000)
        expect(page.get_by_role("button", name="Choose a file")).to_be_visible()
        shot(page, f"refused_{name}")
    context.close()


def test_a_file_without_known_genes_says_so(browser, address, cells, tmp_path):
    strange = cells[:20].copy()
    strange.var_names = [f"thing_{number}" for number in range(strange.n_vars)]
    context = browser.new_context(viewport=WIDE)
    with opened(context, address) as page:
        page.locator("#file").set_input_files({"name": "strange.h5ad", "mimeType": "application/x-hdf5", "buffer": h5ad(strange, tmp_path)})
        expect(page.get_by_text("no known gene among").first).to_be_visible(timeout=60_000)
        shot(page, "strange")
    context.close()


def test_a_server_that_goes_away_is_told_and_waited_for(browser, trained, cells, tmp_path):
    def server():
        return Server(Settings(folder=tmp_path / "server", port=port, per_minute=10**5), Models(str(trained.folder), "tiny", {}))

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    with listening(server()) as address:
        page.goto(address)
        content = h5ad(cells, tmp_path)
        page.locator("#file").set_input_files({"name": "blood.h5ad", "mimeType": "application/x-hdf5", "buffer": content})
        expect(page.get_by_role("region", name="Legend").get_by_role("checkbox").first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text(re.compile("lost|away|reach|connect", re.I)).first).to_be_visible(timeout=60_000)
    shot(page, "away")
    with listening(server()):
        clusters_answered(page)
    context.close()
