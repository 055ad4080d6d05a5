"""The page measured in a real browser: from a file dropped to the first map, an answer for every cluster and the last cell; panning.

The server is a process of its own, as `scmulan serve` starts it; the browser is chromium without a graphics card, on the same machine.
Times are those of marks that the page itself sets.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp

from scmulan.bench_screen import held_out
from scmulan.bench_served import Served
from scmulan.cells import AnnData
from scmulan.cells_writing import write_h5ad
from scmulan.errors import EngineError

Say = Callable[[str], None]
CELLS, MANY = 10_000, 200_000
WIDTH, HEIGHT = 1400, 900
DRAGS = 6.0
"""Seconds of dragging."""
ARGUMENTS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
COMPILES = 20.0
"""Seconds that are left to what the server compiles at its start."""
MARKS = ("pca is there", "clusters are there", "umap is there", "every cluster has an answer", "all cells have an answer")
FRAMES = """() => new Promise((done) => {
  const at = [];
  const next = (now) => { at.push(now); if (window.scmulanStop) done(at); else requestAnimationFrame(next); };
  window.scmulanStop = false;
  requestAnimationFrame(next);
})"""


def page(*, model: str, seed: int, n: int | None, only: Any, say: Say, **_: Any) -> dict[str, Any]:
    """``n`` (10,000) cells dropped on the page, and 200,000 panned.

    Parameters
    ----------
    only : ``drop``, ``all`` (waits for the last cell too) or ``pan``; ``drop`` and ``pan`` where not given
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise EngineError(f"a browser is driven by playwright ({error}); pip install playwright") from None
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise EngineError("no chromium on the path; install it, as by apt-get install chromium")
    wanted = list(only) or ["drop", "pan"]
    found: dict[str, Any] = {}
    with TemporaryDirectory() as name, sync_playwright() as run:
        folder = Path(name)
        server = Served(model, folder)
        try:
            time.sleep(COMPILES)
            opened = run.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            for what in wanted:
                tab = opened.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
                if what == "pan":
                    found["pan"] = _pan(tab, server, many_cells(folder, MANY, seed=seed), say)
                else:
                    found[what] = _drop(tab, server.url, drawn_cells(folder, n or CELLS, seed=seed), MARKS[: 4 + (what == "all")], say)
                say(f"{what}: {found[what]}")
                tab.close()
            opened.close()
        finally:
            server.end()
    return found


def drawn_cells(folder: Path, n: int, *, seed: int = 0) -> Path:
    """A file of cells drawn from real ones: each from the summed profile of five blood cells of one type, at the depth of the first."""
    rng = np.random.default_rng([seed, 41])
    source = held_out("zheng_pbmc_facs")
    counts, types = sp.csr_matrix(source.X, dtype=np.float64), source.obs["cell_type"].astype(str).to_numpy()
    first = rng.integers(0, source.n_obs, n)
    others = np.stack([rng.choice(np.flatnonzero(types == types[row]), 4) for row in first])
    picked = sp.csr_matrix(
        (np.ones(5 * n), (np.repeat(np.arange(n), 5), np.column_stack([first, others]).ravel())), shape=(n, source.n_obs)
    )
    profiles, depths = sp.csr_matrix(picked @ counts), np.asarray(counts.sum(1)).ravel()[first].astype(np.int64)
    for row in range(n):
        part = slice(profiles.indptr[row], profiles.indptr[row + 1])
        profiles.data[part] = rng.multinomial(depths[row], profiles.data[part] / profiles.data[part].sum())
    profiles.eliminate_zeros()
    adata = AnnData(profiles.astype(np.float32), obs=source.obs.iloc[first].copy(), var=source.var.copy())
    adata.obs_names = [f"cell_{number}" for number in range(n)]
    path = folder / f"{n}.h5ad"
    write_h5ad(adata, path)
    return path


def many_cells(folder: Path, n: int, *, seed: int = 0) -> Path:
    """A file of many cells of few genes, as a panel has: what is measured is the page, not the model."""
    rng = np.random.default_rng([seed, 43])
    kinds = rng.gamma(0.3, 4.0, (12, 60))
    counts = sp.csr_matrix(rng.poisson(kinds[rng.integers(0, 12, n)] * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32))
    source = held_out("zheng_pbmc_facs")
    adata = AnnData(counts, var=source.var.iloc[:60].copy())
    adata.obs_names = [f"cell_{number}" for number in range(n)]
    path = folder / f"{n}_many.h5ad"
    write_h5ad(adata, path)
    return path


def _drop(tab: Any, address: str, path: Path, marks: tuple[str, ...], say: Say) -> dict[str, Any]:
    """Seconds from the file given to each mark, bytes of the page, and its first paint."""
    tab.goto(address)
    tab.get_by_role("button", name="Choose a file").wait_for()
    tab.wait_for_timeout(2_000)  # a paint is told some time after it
    paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    begun = tab.evaluate("performance.now()")
    tab.locator("#file").set_input_files(path)
    found: dict[str, Any] = {
        "first_paint_ms": round(paint) if paint else None,
        "megabytes_of_the_file": round(path.stat().st_size / 1e6, 1),
    }
    for mark in marks:
        found[mark] = round((_at(tab, mark) - begun) / 1000, 1)
        say(f"{mark}: {found[mark]} s")
    sizes = tab.evaluate("performance.getEntriesByType('resource').filter((e) => e.name.includes('/assets/')).map((e) => e.transferSize)")
    return {**found, "kilobytes_of_the_page": round(sum(sizes) / 1000)}


def _at(tab: Any, mark: str, most: float = 3600.0) -> float:
    """When the page set a mark, in milliseconds, waited for; the page's policy lets no text be waited for as a condition."""
    began = time.perf_counter()
    while time.perf_counter() - began < most:
        at = tab.evaluate(f"performance.getEntriesByName('scmulan: {mark}')[0]?.startTime ?? 0")
        if at:
            return float(at)
        tab.wait_for_timeout(200)
    raise EngineError(f"the page did not come so far as {mark!r} in {most:.0f} s")


def _pan(tab: Any, server: Served, path: Path, say: Say) -> dict[str, Any]:
    """Frames a second while the map is dragged to and fro for some seconds: while the server looks for clusters, and while it is paused."""
    tab.goto(server.url)
    begun = tab.evaluate("performance.now()")
    tab.locator("#file").set_input_files(path)
    found: dict[str, Any] = {"points": MANY, MARKS[0]: round((_at(tab, MARKS[0]) - begun) / 1000, 1)}
    say(str(found))
    tab.wait_for_timeout(3_000)
    found["beside the server's work"] = _dragged(tab)
    with server.paused():
        tab.wait_for_timeout(2_000)
        found["alone"] = _dragged(tab)
    return found


def _dragged(tab: Any) -> dict[str, float]:
    box = tab.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.get_by_role("button", name="Move").click()
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.evaluate(f"() => {{ window.scmulanFrames = ({FRAMES})(); }}")  # returns nothing, or the promise would be waited for
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < DRAGS:
        tab.mouse.move(x + 200 * np.sin(2 * now), y + 100 * np.cos(2 * now))
    tab.evaluate("window.scmulanStop = true")
    at = np.array(tab.evaluate("window.scmulanFrames"))
    tab.mouse.up()
    gaps = np.diff(at[at > at[0] + 1000])  # the first second is the pace's
    return {
        "frames_a_second": round(float(1000 / gaps.mean()), 1),
        "median_gap_ms": round(float(np.median(gaps)), 1),
        "p95_gap_ms": round(float(np.quantile(gaps, 0.95)), 1),
    }
