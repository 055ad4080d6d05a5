"""Commands about cells that change: files in, files out, and a line of help where the question can't be answered."""

from __future__ import annotations

import json

import anndata
import pytest
from conftest import screen
from typer.testing import CliRunner

from scmulan.cli import app
from scmulan.errors import ScmulanError


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    screen(60, 1).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def scmulan(changed):
    """A command run on the model that has learnt of changes; its JSON, or the error."""

    def run(*words):
        result = CliRunner().invoke(app, [*map(str, words), "--model", str(changed.checkpoint.folder), "--json"])
        if isinstance(result.exception, ScmulanError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


CONTROLS = ("--only", "perturbation=control")


def test_perturb_writes_cells_and_a_picture_and_says_what_changes(scmulan, cells, tmp_path):
    said = scmulan(
        "perturb", cells, "-o", tmp_path / "out.h5ad", "--agent", "IFN-beta", *CONTROLS, "-n", 30, "--picture", tmp_path / "volcano.png"
    )
    assert said["perturbation"] == "interferon beta"
    assert said["cells"] == 30
    assert {"NKG7", "GNLY"} & set(said["log2 change"])
    assert (tmp_path / "volcano.png").stat().st_size > 10_000
    assert set(anndata.read_h5ad(tmp_path / "out.h5ad").obs["perturbation"]) == {"interferon beta"}


def test_a_gene_is_perturbed_by_name_and_action(scmulan, cells, tmp_path):
    assert (
        scmulan("perturb", cells, "-o", tmp_path / "out.h5ad", "--gene", "cd19=KO", *CONTROLS, "-n", 4)["perturbation"] == "CD19 knockout"
    )


def test_the_other_commands_write_what_they_say(scmulan, cells, tmp_path):
    treated = screen(60, 2)
    treated[treated.obs["perturbation"] == "IFN-beta"].copy().write_h5ad(tmp_path / "treated.h5ad")
    told = scmulan("explain-shift", cells, tmp_path / "treated.h5ad", "-o", tmp_path / "told.h5ad")
    assert sum(row["probability"] for row in told.values()) == pytest.approx(1)
    assert "scmulan_perturbation" in anndata.read_h5ad(tmp_path / "told.h5ad").obs
    assert scmulan("next-state", cells, "-o", tmp_path / "later.h5ad", "--time", "D4", "--only", "time=D2", "-n", 3)["time"] == "day 4"
    fates = scmulan("fate", cells, "--time", "D4", "--only", "time=D2", "-o", tmp_path / "fates.h5ad")
    assert fates["cells"] == {"plasma cell": 30}
    deeper = scmulan("enhance", cells, "-o", tmp_path / "deeper.h5ad", "--depth", 400, "--draws", 1, *CONTROLS)
    assert deeper["cells"] == 20
    assert anndata.read_h5ad(tmp_path / "deeper.h5ad").layers["expected"].shape[0] == 20


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "needed what is done: either --gene STAT1=knockout, or --agent"),
        (("--gene", "CD19=knockout", "--agent", "IFN-beta"), "needed what is done"),
        (("--agent", "IFN-beta", "--only", "perturbatoin=control"), "no column 'perturbatoin' in obs; nearest: 'perturbation'"),
        (("--agent", "IFN-beta", "--only", "perturbation=none"), "no cell has perturbation 'none'; found"),
        (("--agent", "IFN-beta", "--dose", "1 M"), "dose '1 M': this model has seen no dose at all"),
        (("--agent", "IFN-beta", "--picture", "v.doc"), "a picture in the format '.doc'"),
    ],
)
def test_a_question_that_can_not_be_answered_says_what_is_needed(scmulan, cells, tmp_path, words, says):
    with pytest.raises(ScmulanError, match=says.replace("(", r"\(")):
        scmulan("perturb", cells, "-o", tmp_path / "out.h5ad", *words)
    assert not (tmp_path / "out.h5ad").exists()
