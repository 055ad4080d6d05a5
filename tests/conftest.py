"""What several test modules need: a small tokenizer over made-up genes, random cells for it, and a tiny model trained for a moment."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from scmulan.csentence import Vocabulary
from scmulan.prompts import Prompts, SentenceWriter, load_prompts
from scmulan.requests import argument_tokens, request_tasks
from scmulan.tokenizer import build_tokenizer, load_vocabulary

settings.register_profile("scmulan", deadline=None, derandomize=True, database=None)
settings.load_profile("scmulan")
torch.set_num_threads(1)  # the tensors are small: more threads would only wait for each other

ODD_GENES = ("HLA-DRA", "RP11-34P13.7", "MT-CO1", "G1", "G10", "Gm20854_loc1", "1600012H06Rik", "NKX2-1", "AC004.2", "T")
GENES = (*ODD_GENES, *(f"GENE{number}" for number in range(290)))
LABELS = (
    "CD8-positive, alpha-beta T cell", "naive T cell", "B cell", "natural killer cell", "blood", "bone marrow", "Homo sapiens",
    "Mus musculus", "10x 3' v2", "lymphoid", "myeloid", "female", "GATA1 knockout", "day 7",
)  # fmt: skip
LONGEST = (
    "test_pieces", "test_parallel", "test_corpus_work", "test_serving_schema", "test_trials", "test_bench_training", "test_cli_changes",
    "test_serving_views", "test_bench_organs", "test_serving_mcp", "test_automaton",
)  # fmt: skip
"""Files that take minutes: they go first, so that no worker is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Language:
    """A tokenizer folder and all that is read from it."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    prompts: Prompts
    writer: SentenceWriter


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> Language:
    folder = tmp_path_factory.mktemp("tokenizer")
    prompts = load_prompts()
    fields, tasks = [*prompts.fields, "genes", *argument_tokens()], list(dict.fromkeys([*prompts.tasks, *request_tasks()]))
    tokenizer = build_tokenizer(folder, genes=GENES, texts=[*prompts.texts(), *LABELS], fields=fields, tasks=tasks, text_size=420)
    vocabulary = load_vocabulary(folder)
    return Language(folder, tokenizer, vocabulary, prompts, SentenceWriter(tokenizer, vocabulary, prompts))


def random_counts(n_cells: int, n_genes: int = len(GENES), *, seed: int = 0, mean_genes: float = 60, deepest: int = 5) -> sp.csr_matrix:
    """Cells with counts like those of droplets: mostly ones, a long tail, some genes common and most rare; int32 CSR."""
    rng = np.random.default_rng(seed)
    rate = rng.lognormal(0, 1.5, n_genes)
    rate *= mean_genes / rate.clip(max=50).sum()
    depth = rng.lognormal(0, 0.4, n_cells)
    counts = rng.poisson(depth[:, None] * rate * rng.gamma(0.8, 1 / 0.8, (n_cells, n_genes)) * rng.integers(1, deepest, n_genes))
    counts[:, 0] += 1  # no empty cell unless a test makes one
    return sp.csr_matrix(counts.astype(np.int32))


KINDS = {  # cell type: (organism, organ, number of cells)
    "B cell": ("Homo sapiens", "blood", 40),
    "natural killer cell": ("Homo sapiens", "blood", 40),
    "classical monocyte": ("Homo sapiens", "bone marrow", 30),
    "keratinocyte": ("Mus musculus", "skin", 30),
}
MARKERS = {
    "B cell": ("CD19", "MS4A1", "CD79A", "CD79B"), "natural killer cell": ("NKG7", "GNLY", "KLRD1", "PRF1"),
    "classical monocyte": ("LYZ", "CD14", "S100A8", "FCN1"), "keratinocyte": ("KRT5", "KRT14", "KRT15", "Ly6c2"),
}  # fmt: skip
HOUSEKEEPING = (  # noqa: SIM905
    "ACTB GAPDH B2M MALAT1 TMSB4X EEF1A1 TPT1 FTL FTH1 PTMA RACK1 UBA52 FAU NACA CFL1 PFN1 MYL6 ARPC2 HNRNPA1 HSP90AA1 HSP90AB1 ENO1 PKM "
    "LDHA LDHB TPI1 PGK1 ALDOA UBC UBB GATA1 SPI1 CD3E CD4 CD8A IL7R CCR7 SELL MS4A7 JUN FOS DUSP1 KLF2 KLF6 VIM LGALS1 S100A4 S100A6"
).split()


def examples(n: int) -> int:
    """How many inputs a property test draws: ``n``, or SCMULAN_FUZZ times as many (`make fuzz`)."""
    return n * int(os.environ.get("SCMULAN_FUZZ", "1"))


def kind_cells(kinds: tuple[str, ...], n_cells: int, *, seed: int = 0, gene_style: str = "symbol"):
    """AnnData of made-up cells over real genes: each kind high in its own markers; labels in ``obs`` under usual names."""
    from anndata import AnnData

    from scmulan.genes import GeneTable

    table, rng, organism = GeneTable.load(), np.random.default_rng(seed), KINDS[kinds[0]][0]
    wanted = [*HOUSEKEEPING, *(gene for kind in MARKERS if KINDS[kind][0] == organism for gene in MARKERS[kind])]
    index = np.array(sorted({int(row) for row in table.resolve(wanted, organism).index if row >= 0}))
    kind_of = np.array([kinds[number % len(kinds)] for number in range(n_cells)])
    rate = np.exp(np.random.default_rng(5).normal(0, 1, len(index)))
    rates = np.tile(rate, (n_cells, 1))
    for kind in kinds:
        own = np.isin(index, table.resolve(list(MARKERS[kind]), organism).index)
        rates[np.ix_(kind_of == kind, own)] = 12
    counts = rng.poisson(rates * rng.lognormal(0, 0.3, (n_cells, 1))) + (np.arange(len(index)) == 0)
    obs = pd.DataFrame(
        {"cell_type": kind_of, "tissue": [KINDS[kind][1] for kind in kind_of], "organism": [KINDS[kind][0] for kind in kind_of],
         "donor": [f"donor{number % 7}" for number in range(n_cells)],
         "split": ["train" if number % 5 else "test" for number in range(n_cells)]},
        index=[f"{organism[:3]}{seed}_{number}" for number in range(n_cells)],
    )  # fmt: skip
    names = table.spell(index, organism, gene_style)
    return AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names))


@dataclass(frozen=True)
class Trained:
    """A tiny model trained for a moment on made-up cells, with all it was made of."""

    folder: Path
    corpus: Path
    tokenizer: Path
    plan: Path
    cells: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from scmulan.corpus.build import build_corpus
    from scmulan.corpus.own_tokenizer import build_plan_tokenizer
    from scmulan.corpus.plan import read_plan
    from scmulan.training.loop import pretrain
    from scmulan.training.recipe import Recipe, fill

    folder = tmp_path_factory.mktemp("trained")
    kind_cells(("B cell", "natural killer cell", "classical monocyte"), 120).write_h5ad(folder / "human.h5ad")
    kind_cells(("keratinocyte",), 40, seed=1).write_h5ad(folder / "mouse.h5ad")
    kind_cells(("B cell", "natural killer cell", "classical monocyte"), 12, seed=2).write_h5ad(folder / "new.h5ad")
    plan = folder / "plan.yaml"
    plan.write_text(
        "sources:\n  - {path: human.h5ad, split: {by: column}}\n  - {path: mouse.h5ad, split: {by: column}}\ntokenizer: {text_size: 300}\n"
    )
    opened = read_plan(plan)
    build_plan_tokenizer(opened, folder / "tokenizer")
    build_corpus(opened, folder / "tokenizer", folder / "corpus")
    recipe = fill(Recipe, tiny_recipe(folder / "run", steps=100), "test")
    model = pretrain(recipe, folder / "corpus", say=lambda _: None, log_with=None)
    return Trained(model, folder / "corpus", folder / "tokenizer", plan, folder / "new.h5ad")


def tiny_recipe(output: Path, **changes: object) -> dict[str, object]:
    """A recipe of seconds, as plain data."""
    return {
        "output": str(output), "corpus": "given by hand", "model": {"preset": "tiny"}, "precision": "no", "steps": 12,
        "packing": {"context": 192, "pack_tokens": 1024, "thin_share": 0.25}, "optimizer": {"warmup": 3, "matrix_lr": 0.02, "lr": 0.01},
        "evaluate_every": 1000, "evaluation_cells": 16, "checkpoint_every": 5, **changes,
    }  # fmt: skip


@pytest.fixture(scope="session")
def model(trained: Trained):
    """The tiny model, opened, in float32."""
    from scmulan.engines.transformers import TransformersEngine
    from scmulan.model import load_checkpoint
    from scmulan.tasks import Model

    checkpoint = load_checkpoint(trained.folder)
    return Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))


@pytest.fixture
def new_cells(trained: Trained):
    """Twelve cells that the tiny model has not seen, fresh for each test."""
    from scmulan.cells import read_h5ad

    return read_h5ad(trained.cells)


QUICK = {
    "steps": 6, "evaluate_every": 3, "checkpoint_every": 3, "precision": "no", "packing": {"context": 192, "pack_tokens": 512},
    "adapter": {"rank": 4},
}  # fmt: skip
"""A fine-tuning of the tiny model in seconds."""
NEW = {"B cell": "podocyte", "natural killer cell": "mesangial cell"}
"""Types of kidney that the tiny model has not seen, by the types whose cells stand for them."""


def kidney(n_cells: int = 40, *, seed: int = 4):
    """Cells of two types of an organ that the tiny model has not seen."""
    cells = kind_cells(("B cell", "natural killer cell"), n_cells, seed=seed)
    cells.obs["cell_type"] = [NEW[kind] for kind in cells.obs["cell_type"]]
    cells.obs["tissue"] = "kidney"
    return cells


RISES, FALLS = ("NKG7", "GNLY"), ("CD19", "MS4A1", "CD79A")


def screen(n_cells: int, seed: int):
    """B cells: a third are controls, a third lost CD19, a third were given interferon beta; half of them of day 2, half of day 4."""
    adata = kind_cells(("B cell",), n_cells, seed=seed)
    counts, names = adata.X.toarray(), list(adata.var_names)
    rng = np.random.default_rng(seed)
    label = np.array(["control", "CD19 knockout", "IFN-beta"])[np.arange(n_cells) % 3]
    counts[np.ix_(label == "CD19 knockout", [names.index(gene) for gene in FALLS])] = 0
    counts[np.ix_(label == "IFN-beta", [names.index(gene) for gene in RISES])] += rng.poisson(15, ((label == "IFN-beta").sum(), 2))
    adata.X = sp.csr_matrix(counts)
    adata.obs["perturbation"], adata.obs["donor"] = label, "one"
    adata.obs["time"] = np.where(np.arange(n_cells) // 3 % 2, "D4", "D2")
    adata.obs["clone"] = [f"clone{number // 6}" for number in range(n_cells)]
    adata.obs["cell_type"] = np.where(adata.obs["time"] == "D4", "plasma cell", "B cell")
    return adata


@pytest.fixture(scope="session")
def changed(tmp_path_factory: pytest.TempPathFactory):
    """A tiny model that has learnt the tasks about two cells."""
    from scmulan.corpus.build import build_corpus
    from scmulan.corpus.own_tokenizer import build_plan_tokenizer
    from scmulan.corpus.plan import read_plan
    from scmulan.tasks import load
    from scmulan.training.loop import pretrain
    from scmulan.training.recipe import Recipe, fill

    folder = tmp_path_factory.mktemp("changed")
    screen(150, 0).write_h5ad(folder / "screen.h5ad")
    (folder / "plan.yaml").write_text(
        "sources:\n  - {path: screen.h5ad, split: {by: column}, states: {clone: clone}}\ntokenizer: {text_size: 300}\n"
    )
    plan = read_plan(folder / "plan.yaml")
    build_plan_tokenizer(plan, folder / "tokenizer")
    build_corpus(plan, folder / "tokenizer", folder / "corpus")
    packing = {"context": 256, "pack_tokens": 1024, "thin_share": 0.0}
    recipe = fill(Recipe, tiny_recipe(folder / "run", steps=300, packing=packing), "test")
    return load(pretrain(recipe, folder / "corpus", say=lambda _: None, log_with=None))


@contextmanager
def no_file_larger_than(n_bytes: int):
    """What the kernel answers then is what it answers on a full disk, but for the number."""
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
