"""Measurements of reading cells: what the doctor says of real files, and whether broken files can break the reader.

A broken file may hang libhdf5 or end the interpreter, which no ``except`` catches. So every broken input is read by a worker process that
is told only its path; one that dies or takes longer than its time is a finding, and the next worker goes on.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells, check, read_cells, read_h5ad
from scmulan.cells_writing import write_h5ad
from scmulan.errors import CellDataError, PromptError

Say = Callable[[str], None]
NORMALISED: dict[str, tuple[float | None, Callable[[np.ndarray], np.ndarray]]] = {  # how counts are made to lose their units
    "ln CP10k": (1e4, np.log1p),
    "log2 CPM": (1e6, lambda values: np.log2(values + 1)),
    "ln at the median depth": (None, np.log1p),
    "CP10k": (1e4, lambda values: values),
    "square root of CP10k": (1e4, np.sqrt),
}
SECONDS_A_FILE, WARM_UP = 30.0, 60.0
MEMORY = 4 * 2**30  # of a worker; the files have some 50 kB
FUZZED = 10_000


def files_in(data: Path | None) -> list[Path]:
    """The ``.h5ad`` files of a folder, sorted."""
    found = sorted(data.glob("*.h5ad")) if data is not None else []
    if not found:
        raise PromptError(f"{data or '--data'}: no .h5ad file in it; name a folder of cells with --data")
    return found


def check_files(*, data: Path | None, say: Say, **_: Any) -> dict[str, Any]:
    """What ``check`` says of each file, and whether counts come back from it once it is normalised."""
    found: dict[str, Any] = {}
    for path in files_in(data):
        began = time.perf_counter()
        report = check(path)
        seconds = time.perf_counter() - began
        genes, values = report["genes"].numbers, report["values"].numbers
        found[path.stem] = {
            "verdict": report.verdict,
            "warnings": [finding.question for finding in report.findings if finding.verdict != "ok"],
            "organism": report["organism"].numbers["named"],
            "values": values["kind"] if values["kind"] == "counts" else f"{values['kind']} from {values['scale']}, {values['norm']}",
            "recovered": values["recovered"],
            "names_known": genes["genes_mapped"],
            "counts_mapped": genes["counts_mapped"],
            "coding_counts_mapped_at_least": genes["coding_counts_mapped"],
            "seconds": round(seconds, 2),
        }
        if values["kind"] == "counts":
            found[path.stem]["cells_that_differ_after"] = recovered_after(path)
        say(f"{path.name}: {json.dumps(found[path.stem])}")
    return found


def recovered_after(path: Path) -> dict[str, str]:
    """Cells whose counts are not those of the file once it was normalised in float32, by the way it was normalised."""
    true = read_cells(path)
    adata = read_h5ad(path)
    counts = sp.csr_matrix(adata.X, dtype=np.float64)
    found = {}
    for name, (total, scale) in NORMALISED.items():
        stored = normalised(counts, total, scale)
        again = AnnData(stored, obs=adata.obs, var=adata.var)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pseudo-counts: they are counted here
            found[name] = _differing(true, read_cells(again))
    return found


def normalised(counts: sp.csr_matrix, total: float | None, scale: Callable[[np.ndarray], np.ndarray]) -> sp.csr_matrix:
    """Counts brought to one total a cell (None: the median), then scaled; float32, as it would be stored."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    factor = (np.median(depth) if total is None else total) / np.maximum(1, depth)
    stored = counts.copy()
    stored.data = scale(stored.data * np.repeat(factor, np.diff(stored.indptr)))
    return stored.astype(np.float32)


def _differing(true: Cells, said: Cells) -> str:
    wrong = np.asarray((true.counts != said.counts).sum(axis=1)).ravel()
    return f"{int((wrong > 0).sum())} of {len(wrong)}"


def fuzz_reader(*, seed: int, n: int | None, say: Say, **_: Any) -> dict[str, Any]:
    """Read ``n`` (10,000) broken files and odd data sets; anything but cells or a CellDataError is a fault."""
    wanted, outcomes, faults = n or FUZZED, Counter[str](), Counter[str]()
    rng, began = np.random.default_rng(seed), time.perf_counter()
    with tempfile.TemporaryDirectory() as name, contextlib.closing(Worker()) as worker:
        folder = Path(name)
        wholes = [path.read_bytes() for path in written(folder / "whole")]
        for number in range(wanted):
            path = folder / "broken.h5ad"
            kind, content = broken(wholes, rng)
            path.write_bytes(content)
            said = worker.read(path)
            outcomes[f"{kind}: {said.split(':')[0]}"] += 1
            if said.split(":")[0] not in ("read", "refused"):
                faults[said] += 1
                say(f"input {number} ({kind}): {said}")
            if number % 1000 == 999:
                say(f"{number + 1:,} inputs, {sum(faults.values())} faults; {time.perf_counter() - began:,.0f} s")
    return {
        "inputs": wanted,
        "seconds": round(time.perf_counter() - began),
        "outcomes": dict(sorted(outcomes.items())),
        "faults": dict(faults.most_common()),
    }


class Worker:
    """A process that reads the files it is told of, one at a time, and is replaced when it dies or takes too long."""

    def __init__(self, seconds: float = SECONDS_A_FILE) -> None:
        self.seconds = seconds
        self._process, self._is_warm = self._start(), False

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from scmulan.bench_reader import answer; answer()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def read(self, path: Path) -> str:
        """``read``, ``refused: ...``, ``raised: ...``, ``died: ...`` or ``hung: ...``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self.seconds if self._is_warm else self.seconds + WARM_UP)
        self._is_warm = True
        said = self._process.stdout.readline().strip() if ready else f"hung: longer than {self.seconds:.0f} s"
        if ready and said:
            return said
        self._process.kill()
        code = self._process.wait()
        self._process, self._is_warm = self._start(), False
        return said or f"died: exit code {code}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def answer() -> None:
    """What a worker does: a line of outcome for each line with a path."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(outcome(Path(line.strip())), flush=True)


def outcome(source: Path | AnnData) -> str:
    """What comes of checking and reading one input."""
    try:
        report = check(source)
        json.dumps(report.to_dict(), allow_nan=False)
        report.to_text(100)
        try:
            read_cells(source)
        except CellDataError as error:
            return f"refused: {str(error)[:80]!r}"
        return "read"
    except Exception as error:  # noqa: BLE001  any other kind of error is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"raised: {type(error).__name__} at {Path(where.filename).name}, line {where.lineno}: {str(error)[:200]!r}"


def written(folder: Path) -> list[Path]:
    """Small data sets in the ways that h5ad can store them: CSR, CSC, dense, compressed, with raw, layers and categories."""
    folder.mkdir()
    genes = ["GATA1", "CD19", "MS4A1", "GNLY", "NKG7", "CD3E", "LYZ", "S100A8", "MT-ND1", "MALAT1", "ENSG00000102145.12", "no gene"]
    counts = np.random.default_rng(0).poisson(1.5, (20, len(genes)))
    obs = {"cell_type": pd.Categorical(["CD19+ B", "T cell"] * 10), "tissue": ["blood"] * 20, "day": np.arange(20) % 3, "age": 0.5}
    frame, var = pd.DataFrame(obs, index=[f"cell{row}" for row in range(20)]), pd.DataFrame({"n": 1}, index=genes)
    forms: list[AnnData] = []
    for matrix in (sp.csr_matrix(counts), sp.csc_matrix(counts), counts, np.log1p(counts * 1.7), counts - 3.0):
        forms.append(
            AnnData(matrix.astype(np.float32), obs=frame, var=var, uns={"organism": "Homo sapiens", "nested": {"a": np.arange(3)}})
        )
    forms[3].layers["counts"] = sp.csr_matrix(counts)
    forms[3].raw = forms[0]
    forms[4].obsm["X_pca"] = np.ones((20, 2))
    paths = []
    for number, adata in enumerate(forms):
        paths.append(folder / f"{number}.h5ad")
        adata.write_h5ad(paths[-1]) if number % 2 else write_h5ad(adata, paths[-1])
    return paths


def broken(wholes: list[bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """One whole file, damaged in one of five ways."""
    content = bytearray(wholes[rng.integers(len(wholes))])
    kind = ("bytes", "bits", "block", "cut", "number")[rng.integers(5)]
    if kind == "cut":
        return kind, bytes(content[: rng.integers(len(content))])
    if kind == "block":
        first, length = int(rng.integers(len(content))), int(rng.integers(1, 512))
        filler = rng.bytes(length) if rng.random() < 0.5 else bytes([rng.choice([0, 255])]) * length
        content[first : first + length] = filler[: len(content) - first]
        return kind, bytes(content)
    for place in _places(content, rng, int(rng.integers(1, 9))):
        if kind == "bytes":
            content[place] = rng.integers(256)
        elif kind == "bits":
            content[place] ^= 1 << int(rng.integers(8))
        else:  # a small number where sizes, types and addresses stand
            content[place] = rng.choice([0, 1, 2, 3, 127, 128, 254, 255])
    return kind, bytes(content)


def _places(content: bytearray, rng: np.random.Generator, number: int) -> Iterator[int]:
    """Positions of bytes: most where something is written, for much of a small file is nothing."""
    filled = np.flatnonzero(np.frombuffer(bytes(content), dtype=np.uint8))
    for _ in range(number):
        yield int(rng.choice(filled)) if rng.random() < 0.8 else int(rng.integers(len(content)))
