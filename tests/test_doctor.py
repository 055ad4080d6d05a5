"""The report: values and where they lie, fields of mixed kinds, its text and JSON; every key of the JSON stands in the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scmulan.cells import check
from scmulan.doctor import CellReport
from scmulan.errors import CellDataError

GENES = ["GATA1", "CD19", "MS4A1", "GNLY", "NKG7", "CD3E", "LYZ", "S100A8", "MT-ND1", "MALAT1", "CD4", "CD8A"]
DOCS = Path(__file__).parent.parent / "docs" / "check.md"


def counts(n_cells: int = 60) -> np.ndarray:
    drawn = np.random.default_rng(0).poisson(2.0, (n_cells, len(GENES)))
    drawn[:, 0] += 1
    return drawn


def some_cells(values: object = None, **obs: list[object]) -> AnnData:
    values = counts().astype(np.float32) if values is None else values
    n_cells = values.shape[0]
    frame = pd.DataFrame({"cell_type": ["B cell"] * n_cells, "tissue": "blood", **obs}, index=[f"c{row}" for row in range(n_cells)])
    return AnnData(values, obs=frame, var=pd.DataFrame(index=GENES))


def noise() -> np.ndarray:
    return np.random.default_rng(0).lognormal(0, 1, (60, len(GENES)))


def test_a_layer_of_another_name_that_holds_whole_numbers_is_named_as_the_fix() -> None:
    adata = some_cells(noise())
    adata.layers["soup"] = sp.csr_matrix(counts())
    finding = check(adata)["values"]
    assert finding.numbers["whole_numbers_elsewhere"] == ["layers['soup']"]
    assert "adata.layers['counts'] = adata.layers['soup']" in finding.fix
    adata.X = noise() - 5
    assert "whole numbers lie in layers['soup']" in check(adata)["values"].found


def test_a_place_that_goes_first_but_is_damaged_is_passed_by_and_said() -> None:
    adata = some_cells()
    broken = counts().astype(float)
    broken[3, 2] = np.nan
    adata.layers["counts"] = broken
    finding = check(adata)["values"]
    assert (finding.verdict, finding.numbers["where"]) == ("ok", "X")
    assert (
        "layers['counts'] can't be used: 1 value is NaN or infinite, in cells at positions '3', first in cell 'c3', gene 'MS4A1'"
        in finding.found
    )


def test_genes_divided_by_their_deviation_are_said_not_to_be_recoverable() -> None:
    scaled = np.log1p(noise())
    finding = check(some_cells(scaled / scaled.std(axis=0, ddof=1)))["values"]
    assert "each gene was divided by its standard deviation; not recoverable" in finding.found


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (np.log1p(counts() / counts().sum(axis=1, keepdims=True) * 1e4), "log1p values, CP10k: 10,000 a cell; counts recovered exactly"),
        (np.log2(counts() / counts().sum(axis=1, keepdims=True) * 1e6 + 1), r"log2\(x \+ 1\) values, CPM"),
        (np.sqrt(counts()), "X holds square root values, never divided by a size factor"),
    ],
)  # fmt: skip
def test_the_form_and_size_of_values_are_told(stored: np.ndarray, says: str) -> None:
    assert re.search(says, check(some_cells(stored))["values"].found)


def test_values_of_mixed_kinds_in_a_field_are_counted_by_kind() -> None:
    finding = check(some_cells(cell_type=["B cell"] * 50 + [1.5] * 7 + [None] * 3))["field cell_type"]
    assert finding.verdict == "warning"
    assert finding.numbers["kinds"] == {"texts": 50, "numbers": 7}
    assert "of mixed kinds, read as text: 50 texts, 7 numbers" in finding.found
    assert "adata.obs['cell_type'].astype(str)" in finding.fix


def test_numbers_of_clusters_are_not_taken_for_names_in_silence() -> None:
    finding = check(some_cells(cell_type=[str(row % 4) for row in range(60)]))["field cell_type"]
    assert finding.verdict == "warning"
    assert finding.fix == "these look like numbers of clusters: give their names in a column of their own"


def a_report(*verdicts: str) -> CellReport:
    report = CellReport(source="cells.h5ad")
    for number, verdict in enumerate(verdicts):
        fix = "" if verdict == "ok" else "mend it"
        report.add(f"question {number}", verdict, "a long answer " * 12, fix)  # type: ignore[arg-type]
    return report


@pytest.mark.parametrize(
    ("verdicts", "closing"),
    [
        (["ok"], "Usable; nothing to mend."), (["ok", "warning"], "Usable; 1 warning to read."),
        (["warning", "warning"], "Usable; 2 warnings to read."),
        (["warning", "problem"], "Not usable until the problem is mended; → says how."),
    ],
)  # fmt: skip
def test_the_text_closes_with_what_the_findings_come_to(verdicts: list[str], closing: str) -> None:
    assert a_report(*verdicts).to_text().splitlines()[-1] == closing


def test_the_text_is_broken_under_its_column_at_the_width_given_and_loses_no_word() -> None:
    report = a_report("ok", "problem")
    broken = report.to_text(80)
    assert max(map(len, broken.splitlines())) <= 80
    assert broken.split() == report.to_text().split()
    continued = [line for line in broken.splitlines() if line.startswith(" " * 15)]
    assert len({len(line) - len(line.lstrip()) for line in continued}) <= 2
    assert a_report("ok").to_text(10) == a_report("ok").to_text()


def keys_of(report: CellReport) -> dict[str, set[str]]:
    plain = report.to_dict()
    assert list(plain) == ["format", "source", "verdict", "findings"]
    shared = {"question", "verdict", "found", "fix"}
    return {finding["question"].split(" ")[0] if finding["question"].startswith("field ") else finding["question"]: set(finding) - shared
            for finding in plain["findings"]}  # fmt: skip


def test_every_question_and_key_of_the_json_stands_in_the_docs(tmp_path: Path) -> None:
    empty, doubled = counts(), counts()
    empty[3] = 0
    doubled[4] = doubled[5]
    repeated = some_cells(doubled)
    repeated.obs_names = ["a"] * 60
    bare = some_cells()
    bare.obs = bare.obs[[]]
    both = AnnData(counts(), var=pd.DataFrame(index=[*(f"GRCh38_{name}" for name in GENES[:6]), *(f"mm10_{name}" for name in GENES[6:])]))
    seen: dict[str, set[str]] = {}
    for source in (some_cells(), some_cells(empty), repeated, bare, both, tmp_path / "none.h5ad"):
        for question, keys in keys_of(check(source)).items():
            seen.setdefault(question, set()).update(keys)
    rows = dict(re.findall(r"^\| `([\w -]+)` \| .*? \| (.*) \|$", DOCS.read_text(), flags=re.MULTILINE))
    assert set(seen) <= set(rows)
    for question, keys in seen.items():
        assert keys <= set(re.findall(r"`(\w+)`", rows[question])), question


def test_problems_are_raised_together_with_their_fixes() -> None:
    with pytest.raises(CellDataError, match=r"cells\.h5ad: a long answer .*; mend it"):
        a_report("ok", "problem").raise_problem()
    a_report("warning").raise_problem()


def test_a_number_that_is_infinite_is_none_in_json():
    report = CellReport(source="x.h5ad")
    report.add("values", "warning", "values beyond all sums", size_factor=float("inf"), size_spread=float("nan"), median_depth=3.0)
    (finding,) = json.loads(json.dumps(report.to_dict(), allow_nan=False))["findings"]
    assert (finding["size_factor"], finding["size_spread"], finding["median_depth"]) == (None, None, 3.0)
