"""The command line end to end on a tiny model: results on stdout, JSON alone where asked, one clear line for whatever is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from anndata import AnnData
from conftest import kind_cells, tiny_recipe
from foreign import made_up_words, write_model, write_tokenizer

from scmulan import __version__, cli
from scmulan.cells import read_h5ad
from scmulan.model import load_checkpoint
from scmulan.tokenizer import default_folder, load_vocabulary

KINDS = ("B cell", "natural killer cell")


@pytest.fixture
def scmulan(monkeypatch, capsys, trained):
    """Run a command in this process; (exit code, stdout, stderr)."""

    def run(*words: object, model: object = trained.folder) -> tuple[int, str, str]:
        needs_model = words[0] in ("annotate", "embed", "locate", "describe", "generate", "complete", "ask", "edit", "screen", "genes")
        monkeypatch.setattr(sys, "argv", ["scmulan", *map(str, words), *(("--model", str(model)) if needs_model else ())])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def right(result: tuple[int, str, str]) -> str:
    """Stdout of a command that went well."""
    code, out, err = result
    assert code == 0, err
    return out


def refused(result: tuple[int, str, str], code: int = 2) -> str:
    """The one line that a command said when it could not do it."""
    found, out, err = result
    assert found == code, out + err
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if line.startswith("scmulan: ")]
    assert len(lines) == 1, err
    return lines[0]


# -- what goes well -----------------------------------------------------------------------------------------------------------------


def test_check_prints_what_was_found(scmulan, trained):
    assert "12" in right(scmulan("check", trained.cells))
    report = json.loads(right(scmulan("check", trained.cells, "--json")))
    assert report["verdict"] in ("ok", "warning")


def test_check_reads_the_layer_it_is_told_and_names_the_nearest_of_one_that_is_not_there(scmulan, tmp_path):
    adata = kind_cells(KINDS, 8)
    adata.layers["spliced"] = adata.X * 2
    adata.write_h5ad(tmp_path / "in.h5ad")
    report = json.loads(right(scmulan("check", tmp_path / "in.h5ad", "--layer", "spliced", "--json")))
    values = next(finding for finding in report["findings"] if finding["question"] == "values")
    assert (values["where"], report["format"]) == ("layers['spliced']", 1)
    code, out, _ = scmulan("check", tmp_path / "in.h5ad", "--layer", "splice")
    assert (code, "nearest: 'spliced'" in out, "Not usable until" in out) == (1, True, True)


def test_annotate_writes_a_copy_with_labels(scmulan, trained, tmp_path):
    out = right(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--cluster", "donor", "--threshold", 0.1))
    assert "written to" in out
    done = read_h5ad(tmp_path / "out.h5ad")
    assert {"scmulan_cell_type", "scmulan_cell_type_probability", "scmulan_cell_type_cluster"} <= set(done.obs)
    assert "scmulan_cell_type" not in read_h5ad(trained.cells).obs


@pytest.mark.parametrize("how", ["text", "file", "many"])
def test_labels_come_as_text_or_as_a_file(scmulan, trained, tmp_path, how):
    labels = ["B cell", "natural killer cell"] + ([f"kind number {number} of many" for number in range(15)] if how == "many" else [])
    given = ";".join(labels)
    if how == "file":
        (tmp_path / "labels.txt").write_text("\n".join(labels) + "\n")
        given = str(tmp_path / "labels.txt")
    right(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--labels", given))
    assert set(read_h5ad(tmp_path / "out.h5ad").obs["scmulan_cell_type"]) <= set(labels)


def test_a_label_never_seen_is_scored_as_text(scmulan, trained, tmp_path):
    out = right(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--labels", "cell of Mars", "--json"))
    assert json.loads(out)["cell_types"] == {"cell of Mars": 12}


def test_embed_locate_and_describe_write_their_keys(scmulan, trained, tmp_path):
    right(scmulan("embed", trained.cells, "-o", tmp_path / "e.h5ad"))
    assert read_h5ad(tmp_path / "e.h5ad").obsm["X_scmulan"].shape == (12, 2 * 64)
    right(scmulan("locate", trained.cells, "-o", tmp_path / "l.h5ad"))
    assert "scmulan_organ" in read_h5ad(tmp_path / "l.h5ad").obs
    right(scmulan("describe", trained.cells, "-o", tmp_path / "d.h5ad"))
    assert "scmulan_organism" in read_h5ad(tmp_path / "d.h5ad").obs
    assert "blood" in right(scmulan("locate", trained.cells)) or "skin" in right(scmulan("locate", trained.cells))


def test_generate_and_complete_write_cells(scmulan, tmp_path):
    right(scmulan("generate", "--organ", "blood", "--cell-type", "b cells", "-n", 3, "--seed", 1, "-o", tmp_path / "g.h5ad"))
    assert set(read_h5ad(tmp_path / "g.h5ad").obs["cell_type"]) == {"B cell"}
    right(scmulan("complete", "--gene", "GATA1=8", "--set", "organ=blood", "-n", 2, "-o", tmp_path / "c.h5ad"))
    made = read_h5ad(tmp_path / "c.h5ad")
    assert made[:, "GATA1"].layers["counts"].toarray().ravel().tolist() == [8, 8]


def test_ask_carries_a_request_out_and_writes_its_cells(scmulan, trained, tmp_path):
    said = json.loads(
        right(scmulan("ask", "", "--request", "{task: generate, organ: blood, number: 2}", "-o", tmp_path / "x.h5ad", "--json"))
    )
    assert said["request"] == [{"task": "generate", "organ": "blood", "number": 2}]
    assert read_h5ad(tmp_path / "x.h5ad").n_obs == 2
    answer = right(scmulan("ask", "", trained.cells, "--request", "[{task: annotate}, {task: locate}]"))
    assert "are called" in answer
    assert "are placed in" in answer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ask", "make 3 B cells"), "trained without questions"),
        (("ask", "", "--request", "{task: generat}"), "nearest: 'generate'"),
        (("ask", "", "--request", "[1, 2]"), "needed a mapping"),
        (
            (
                "ask",
                "",
                "--request",
                "{task: [",
            ),
            "not YAML",
        ),
        (("ask", "", "nowhere.h5ad", "--request", "{task: annotate}"), "nowhere.h5ad"),
    ],
)
def test_what_can_not_be_asked_is_one_line(scmulan, words, said):
    assert said in refused(scmulan(*words))


def test_annotate_answers_at_the_level_asked_for(scmulan, trained, tmp_path):
    out = json.loads(right(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--level", "lineage", "--json")))
    assert set(out["cell_types"]) <= {"B cell", "natural killer cell", "mononuclear phagocyte"}
    out = json.loads(right(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--level", "lymphocyte; monocyte", "--json")))
    assert set(out["cell_types"]) <= {"lymphocyte", "monocyte"}
    assert json.loads(right(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--level", "Cell_Type", "--json")))
    assert "level 'zork'" in refused(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--level", "zork"))


def test_a_tokenizer_is_built_from_a_plan_or_is_the_default_and_not_both(scmulan, trained, tmp_path):
    for words in ((), (trained.plan, "--default", "-o", tmp_path / "t")):
        assert "needed a plan or --default" in refused(scmulan("tokenizer", "build", *words))
    assert "needed -o" in refused(scmulan("tokenizer", "build", trained.plan))


@pytest.mark.parametrize("command", ["annotate", "embed", "locate", "describe", "generate", "complete"])
def test_json_is_all_that_stands_on_stdout(scmulan, trained, tmp_path, command):
    extra = {"generate": ["-n", 2], "complete": ["-n", 2, "--gene", "GATA1=3"]}.get(command, [trained.cells])
    found = json.loads(right(scmulan(command, *extra, "-o", tmp_path / "out.h5ad", "--json")))
    assert isinstance(found, dict)
    assert found


def test_another_language_model_is_started_from(scmulan, trained, tmp_path):
    write_model(tmp_path / "hf", "llama")
    extend = ("tokenizer", "extend", tmp_path / "hf", "-o", tmp_path / "tok", "--json")
    made = json.loads(right(scmulan(*extend, "--genes-of", trained.tokenizer)))
    assert (made["genes"], made["pruned merges"]) == (load_vocabulary(trained.tokenizer).n_genes, 0)
    words = ("start", tmp_path / "hf", "--tokenizer", tmp_path / "tok", "-o", tmp_path / "base", "--context", 256, "--json")
    assert json.loads(right(scmulan(*words)))["context"] == 256
    base = load_checkpoint(tmp_path / "base")
    assert (base.context, base.card["steps"], base.vocabulary.size) == (256, 0, made["ids"])
    assert "extends no other tokenizer" in refused(scmulan(*words[:3], trained.tokenizer, *words[4:]))


@pytest.mark.slow
def test_an_extension_that_has_to_be_pruned_says_so(scmulan, tmp_path):
    write_tokenizer(tmp_path, pieces=12_000, more=made_up_words(9000))
    code, _, err = scmulan("tokenizer", "extend", tmp_path, "-o", tmp_path / "tok")
    assert code == 0
    assert "merges are kept, those of highest priority" in " ".join(err.split())
    assert load_vocabulary(tmp_path / "tok").n_genes == load_vocabulary(default_folder()).n_genes


def test_tokenizer_corpus_and_pretraining_in_a_row(scmulan, trained, tmp_path):
    built = json.loads(right(scmulan("tokenizer", "build", trained.plan, "-o", tmp_path / "tok", "--json")))
    assert built["genes"] > 50
    corpus = tmp_path / "corpus"
    built = json.loads(right(scmulan("corpus", "build", trained.plan, "-o", corpus, "--tokenizer", tmp_path / "tok", "--json")))
    assert built["cells"] == 160
    assert "human.h5ad" in right(scmulan("corpus", "inspect", corpus, "--verify"))
    assert json.loads(right(scmulan("corpus", "inspect", corpus, "--json")))["cells"] == 160
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny_recipe(tmp_path / "run", corpus=str(corpus), steps=9)))
    made = json.loads(right(scmulan("pretrain", tmp_path / "recipe.yaml", "--set", "steps=2", "--json")))
    assert load_checkpoint(made["model"]).card["steps"] == 2


def test_a_corpus_without_its_broken_sources_has_a_tokenizer_of_the_others(scmulan, trained, tmp_path):
    shutil.copy2(trained.cells, tmp_path / "whole.h5ad")
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "whole.h5ad").read_bytes()[:3000])
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"sources": ["cut.h5ad", "whole.h5ad"], "tokenizer": {"text_size": 300}}))
    words = ("corpus", "build", tmp_path / "plan.yaml", "-o", tmp_path / "corpus")
    assert "cut.h5ad: can't be read" in refused(scmulan(*words))
    found = json.loads(right(scmulan(*words, "--skip-broken", "--json")))
    assert (found["cells"] > 0, found["left out"]) == (True, 1)


def test_pretrain_builds_the_corpus_of_its_plan(scmulan, trained, tmp_path):
    recipe = tiny_recipe(tmp_path / "run", steps=1, plan={"sources": [str(trained.plan.parent / "human.h5ad")]})
    del recipe["corpus"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    right(scmulan("pretrain", tmp_path / "recipe.yaml"))
    assert (tmp_path / "run" / "corpus" / "manifest.json").is_file()
    assert (tmp_path / "run" / "model" / "scmulan.json").is_file()


def test_the_program_runs_as_a_program(tmp_path):
    found = subprocess.run([sys.executable, "-m", "scmulan.cli", "--version"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, __version__)
    found = subprocess.run(
        [sys.executable, "-m", "scmulan.cli", "check", str(tmp_path / "none.h5ad")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "no such file" in found.stdout
    assert "Traceback" not in found.stderr


# -- bad cells ----------------------------------------------------------------------------------------------------------------------


def bad(path: Path, how: str) -> Path:
    """A file with one fault."""
    adata = kind_cells(KINDS, 8)
    if how == "no file":
        return path
    if how == "not an h5ad":
        path.write_text("cell,gene\n")
        return path
    if how == "truncated":
        adata.write_h5ad(path)
        path.write_bytes(path.read_bytes()[:3000])
        return path
    dense = adata.X.toarray()
    if how == "empty":
        adata = AnnData(np.zeros((0, adata.n_vars), np.float32), var=adata.var)
    elif how == "no counts":
        adata.X = dense * 0
    elif how == "NaN":
        dense[2, 3] = np.nan
        adata.X = dense
    elif how == "negative":
        adata.X = dense - 1
    elif how == "no known gene":
        adata.var_names = [f"contig{number}" for number in range(adata.n_vars)]
    adata.write_h5ad(path)
    return path


BAD = {
    "no file": "no such file",
    "not an h5ad": "not an HDF5 file, so not an .h5ad",
    "truncated": "cut short",
    "empty": "an empty matrix",
    "no counts": "count",
    "NaN": "NaN or infinite",
    "negative": "negative",
    "no known gene": "no known gene",
}


@pytest.mark.parametrize("how", BAD)
def test_cells_that_can_not_be_used_are_refused_in_one_line(scmulan, tmp_path, how):
    path = bad(tmp_path / "in.h5ad", how)
    line = refused(scmulan("annotate", path, "-o", tmp_path / "out.h5ad"))
    assert BAD[how] in line
    assert str(path) in line
    assert not (tmp_path / "out.h5ad").exists()


def test_a_label_that_was_never_seen_is_said_to_be_and_one_of_another_case_is_not(scmulan, trained, tmp_path):
    code, _, err = scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--labels", "b CELL;purple cell")
    assert code == 0, err
    assert "never seen in training, told by their words alone: 'purple cell'" in " ".join(err.split())


@pytest.mark.parametrize("how", BAD)
def test_check_reports_them_as_problems_and_exits_with_1(scmulan, tmp_path, how):
    code, out, err = scmulan("check", bad(tmp_path / "in.h5ad", how), "--json")
    report = json.loads(out)
    assert "Traceback" not in err
    said = " ".join(finding["found"] for finding in report["findings"])
    assert BAD[how] in said
    assert (code, report["verdict"]) == (1, "problem")


@pytest.mark.parametrize("how", ["dense", "float counts", "log1p", "duplicate genes"])
def test_odd_cells_that_can_be_used_are_annotated_like_plain_ones(scmulan, tmp_path, how):
    plain, odd = kind_cells(KINDS, 8), kind_cells(KINDS, 8)
    if how == "dense":
        odd.X = odd.X.toarray()
    elif how == "float counts":
        odd.X = odd.X.astype(np.float64)
    elif how == "log1p":
        dense = odd.X.toarray()
        odd.X = np.log1p(dense / dense.sum(1, keepdims=True) * 1e4)
    elif how == "duplicate genes":  # one gene's counts divided between two columns of its name
        dense, half = odd.X.toarray(), odd.X.toarray()[:, :1] // 2
        dense[:, :1] -= half
        odd = AnnData(np.hstack([dense, half]), obs=odd.obs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            odd.var_names = [*plain.var_names, plain.var_names[0]]
            odd.write_h5ad(tmp_path / "odd.h5ad")
    plain.write_h5ad(tmp_path / "plain.h5ad")
    if how != "duplicate genes":
        odd.write_h5ad(tmp_path / "odd.h5ad")
    answers = []
    for name in ("plain", "odd"):
        right(scmulan("annotate", tmp_path / f"{name}.h5ad", "-o", tmp_path / "out.h5ad", "--labels", ";".join(KINDS)))
        answers.append(read_h5ad(tmp_path / "out.h5ad").obs["scmulan_cell_type_probability"].to_numpy())
    np.testing.assert_allclose(answers[1], answers[0], atol=0.02)


def test_cells_said_to_be_of_another_species_than_their_genes_are_refused(scmulan, trained, tmp_path):
    line = refused(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", "--organism", "mouse"))
    assert "Mus musculus is said, but the gene names are those of Homo sapiens" in line
    assert "WARNING" in right(scmulan("check", trained.cells, "--organism", "mouse"))


# -- bad questions ------------------------------------------------------------------------------------------------------------------

GENERATE = ["generate", "-o", "OUT", "-n", 2]
COMPLETE = ["complete", "-o", "OUT", "-n", 2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*GENERATE, "--cell-type", "keratinocite"], "nearest: 'keratinocyte'"),
        ([*GENERATE, "--organ", "skin", "--cell-type", "B cell"], "no training cell had"),
        ([*GENERATE, "--set", "flavour=sweet"], "'flavour' is not a field; fields: organism"),
        ([*GENERATE, "--set", "organ"], "--set 'organ': needed NAME=VALUE"),
        ([*GENERATE, "--depth", 0], "depth 0: needed at least 1"),
        ([*GENERATE, "--top-p", 2], "top_p 2.0: needed"),
        (["generate", "-o", "OUT", "-n", 0], "n is 0: needed at least 1 cell"),
        ([*COMPLETE, "--gene", "GATA11=8"], "gene 'GATA11' is not known; nearest"),
        ([*COMPLETE, "--gene", "GATA1=many"], "--gene GATA1=many: needed a whole count, for example GATA1=8"),
        ([*COMPLETE, "--gene", "GATA1"], "--gene 'GATA1': needed NAME=VALUE"),
        (["annotate", "IN", "-o", "OUT", "--field", "organ=tisue"], "obs has no column 'tisue'.*nearest: 'tissue'"),
        (["annotate", "IN", "-o", "OUT", "--field", "organn=tissue"], "field 'organn' is unknown.*nearest: 'organ'"),
        (["annotate", "IN", "-o", "OUT.csv"], r"cells are written as h5ad; needed a name that ends in \.h5ad"),
        (["annotate", "IN", "-o", "OUT", "--cluster", "leiden"], "cluster 'leiden' is not a column of obs"),
        (["annotate", "IN", "-o", "OUT", "--labels", "B cell;b cells"], "give each label once"),
        (["annotate", "IN", "-o", "OUT", "--labels", ";"], "no label given"),
        (["annotate", "IN", "-o", "OUT", "--labels", "none.txt"], r"none\.txt: no such file; needed labels separated by ';', or a file"),
        (["annotate", "IN", "-o", "OUT", "--labels", "IN"], "not a text file; needed one label a line"),
        (["annotate", "IN", "-o", "OUT", "--level", "lineage;B cell"], "level 'lineage' stands alone"),
        (["annotate", "IN", "-o", "OUT", "--threshold", 7], "threshold 7.0: needed a probability, from 0 to 1"),
        (["annotate", "IN", "-o", "OUT", "--threshold", "nan"], "threshold nan: needed a probability, from 0 to 1"),
        (["annotate", "IN", "-o", "OUT", "--device", "gpu"], "device 'gpu' can't be used here .*; give cpu"),
        (["annotate", "IN", "-o", "OUT", "--device", "cuda:99"], "device 'cuda:99' can't be used here .*; give cpu"),
        (["evaluate", "IN", "--train", "IN", "-o", "IN"], "a file; name a folder"),
        (["demo", "-o", "IN"], "a file; name a folder"),
        (["bench", "roundtrip", "--data", "none"], "--data none: no such folder; needed a folder of .h5ad files"),
        (["annotate", "IN", "-o", "OUT", "--engine", "vlm"], "engine 'vlm': needed transformers, vllm, ray or the URL .*; nearest: 'vllm'"),
        (["embed", "IN", "-o", "OUT", "--address", "auto"], "--address auto: is of a Ray cluster; needed --engine ray beside it"),
        ([*GENERATE, "--engine", "vlm"], "engine 'vlm': needed transformers, vllm, ray or the URL"),
        ([*GENERATE, "--set", "organ=blood", "--engine", "http://127.0.0.1:9"], "127.0.0.1:9: can't be reached"),
        (["annotate", "IN", "-o", "none/out.h5ad"], "no folder none; make it first"),
        (["embed", "IN", "-o", "FOLDER"], "a folder; name a file"),
        (["generate", "-o", "none/out.h5ad"], "no folder none; make it first"),
        (["pretrain", "none.yaml"], "none.yaml: No such file"),
        (["corpus", "inspect", "FOLDER"], "no manifest.json; build the corpus"),
        (["corpus", "inspect", "none", "--picture", "x.foo"], r"x\.foo: a picture in the format '\.foo'; needed .*\.png, \.svg, \.pdf"),
        (["corpus", "inspect", "none", "--picture", "x"], "x: a picture without a format"),
        (["corpus", "inspect", "none", "--picture", "none/x.png"], "no folder none; make it first"),
        (["corpus", "build", "none.yaml", "-o", "OUT", "--engine", "rai"], "engine 'rai': needed one of processes, ray; nearest: 'ray'"),
        (["corpus", "pack", "none.yaml", "--engine", "rai"], "engine 'rai': needed one of processes, ray; nearest: 'ray'"),
        (["corpus", "build", "none.yaml", "-o", "OUT"], "none.yaml: No such file"),
        (["tokenizer", "build", "none.yaml", "-o", "OUT"], "none.yaml: No such file"),
    ],
)
def test_a_question_that_can_not_be_answered_is_one_line_and_exit_code_2(scmulan, trained, tmp_path, words, says):
    (tmp_path / "folder").mkdir()
    places = {"IN": trained.cells, "OUT": tmp_path / "out.h5ad", "FOLDER": tmp_path / "folder"}
    line = refused(scmulan(*(places.get(word, word) for word in words)))
    assert re.search(says, line), line
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["annotate"],
        ["generate", "-n", "many", "-o", "x"],
        ["annotat"],
        ["complete", "-o", "x"],
        ["bench", "speed", "-n", "0"],
        ["evaluate", "x.h5ad", "--train", "x.h5ad", "-o", "x", "--most-cells", "0"],
    ],
)
def test_words_that_are_no_command_are_exit_code_2_without_traceback(scmulan, words):
    code, out, err = scmulan(*words)
    assert code == 2
    assert "Usage" in out + err
    assert "Traceback" not in out + err


# -- bad models and disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "model"))


def test_a_damaged_model_is_refused(scmulan, trained, copied, tmp_path):
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[:-7] + b"damaged")
    line = refused(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", model=copied))
    assert "model.safetensors: its sha256 is not the one in scmulan.json" in line


def test_a_tokenizer_of_another_model_is_refused(scmulan, trained, copied, language, tmp_path):
    for name in ("tokenizer.json", "scmulan_vocabulary.json"):
        shutil.copyfile(language.folder / name, copied / name)
    line = refused(scmulan("annotate", trained.cells, "-o", tmp_path / "out.h5ad", model=copied))
    assert "the tokenizer is not the one this model was trained with" in line


def test_a_model_that_is_not_there_is_refused(scmulan, trained, tmp_path):
    line = refused(scmulan("embed", trained.cells, "-o", tmp_path / "out.h5ad", model=tmp_path / "none"))
    assert "no such model folder" in line


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(scmulan, trained, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AnnData, "write_h5ad", full)
    line = refused(scmulan("locate", trained.cells, "-o", tmp_path / "out.h5ad"))
    assert "out.h5ad: can't be written (OSError: [Errno 28] No space left on device)" in line
    assert list(tmp_path.glob("*out.h5ad*")) == []


def test_a_disk_that_fails_elsewhere_is_one_line_too(scmulan, trained, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder is needed")
    line = refused(scmulan("tokenizer", "build", trained.plan, "-o", tmp_path / "taken"))
    assert "taken" in line


def test_a_warning_is_one_line_without_code(capsys):
    from scmulan.cli import say_warning
    from scmulan.errors import ScmulanWarning

    say_warning(ScmulanWarning("no training cell had it"), ScmulanWarning, "file.py", 3)
    assert capsys.readouterr().err == "scmulan: warning: no training cell had it\n"
    say_warning(UserWarning("of another library"), UserWarning, "file.py", 3)
    assert "file.py:3: UserWarning: of another library" in capsys.readouterr().err
