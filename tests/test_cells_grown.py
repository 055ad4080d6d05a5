"""Files of cells that grow: whatever the disk refuses, and wherever, is one error, and what was written reads back until it is told."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from conftest import no_file_larger_than

from scmulan.cells_grown import Disk

WRITES = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from scmulan.cells_grown import new_file
obs = pd.DataFrame({"cell_type": pd.Categorical(["B cell", "T cell"] * 200), "n": np.arange(400.0)}, index=[f"cell{i}" for i in range(400)])
var = pd.DataFrame(index=[f"GENE{i}" for i in range(300)])
for limit in range(0, 60_000, 1_499):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with new_file(Path(sys.argv[1]), obs, var, {"made_by": {"seed": 3}}):
            pass
        print(limit, "written")
    except Exception as error:
        print(limit, type(error).__name__)
"""


def test_what_a_full_disk_did_not_take_reads_back_until_it_is_told(tmp_path):
    rng, whole = np.random.default_rng(0), io.BytesIO()
    with Disk(tmp_path / "file", "w+b") as disk:
        with no_file_larger_than(500):
            for _ in range(200):
                at, content = int(rng.integers(0, 1000)), rng.bytes(int(rng.integers(1, 90)))
                for file in (disk, whole):
                    file.seek(at)
                    assert file.write(content) == len(content)
                at, size = int(rng.integers(0, 1100)), int(rng.integers(0, 300))
                disk.seek(at)
                whole.seek(at)
                assert disk.read(size) == whole.read(size)
                assert disk.tell() == whole.tell()
        assert disk.seek(0, 2) == len(whole.getvalue())
        disk.seek(0)
        assert disk.read() == whole.getvalue()
        with pytest.raises(OSError, match="File too large"):
            disk.check()


def test_wherever_the_disk_is_full_the_process_lives_and_says_so(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", WRITES, str(tmp_path / "out.h5ad")], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr[-600:]
    said = [line.split()[1] for line in run.stdout.splitlines()]
    assert set(said) == {"CellDataError", "written"}
    assert said == sorted(said)
