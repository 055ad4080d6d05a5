"""The corpus on disk: what is written comes back, a shard that exists is whole, and damage is found and named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import random_counts

from scmulan import csentence
from scmulan.corpus import shards
from scmulan.corpus.shards import FORMAT, MANIFEST, CellRows, Corpus, ShardWriter, write_json
from scmulan.errors import CorpusError

FIELDS = ("organ", "cell_type", "perturbation")


def rows_of(vocabulary, n_cells: int, seed: int = 0) -> CellRows:
    return CellRows(
        ids=csentence.encode(random_counts(n_cells, seed=seed), vocabulary),
        fields={"organ": ["blood"] * n_cells, "cell_type": [None if row % 3 == 0 else f"type é {row % 5}" for row in range(n_cells)]},
        cell_ids=[f"cell{seed}-{row}" for row in range(n_cells)],
        datasets=[f"dataset{seed}"] * n_cells,
        donors=[None if row % 2 else f"donor{row}" for row in range(n_cells)],
        splits=[("train", "train", "valid")[row % 3] for row in range(n_cells)],
        weights=np.ones(n_cells, dtype=np.float32),
        fingerprints=np.arange(n_cells, dtype=np.uint64),
    )


def write_shard(path: Path, rows: CellRows, names) -> str:
    with ShardWriter(path, names) as writer:
        writer.add(rows)
    return writer.sha256


@pytest.fixture
def written(language, tmp_path) -> tuple[Path, list[CellRows]]:
    """A corpus of two shards."""
    blocks = [rows_of(language.vocabulary, n_cells, seed) for seed, n_cells in enumerate((30, 17))]
    entries = []
    for number, rows in enumerate(blocks):
        name = f"shard-{number:05d}.parquet"
        entries.append({"file": name, "sha256": write_shard(tmp_path / name, rows, FIELDS), "cells": len(rows)})
    write_json(
        tmp_path / MANIFEST, {"format": FORMAT, "tokenizer_sha256": "a" * 64, "fields": list(FIELDS), "shards": entries, "sources": []}
    )
    return tmp_path, blocks


def test_cells_come_back_as_they_were_written(written):
    folder, blocks = written
    read = Corpus(folder).read()
    assert len(read) == 47
    assert [ids.tolist() for ids in read.ids] == [ids.tolist() for rows in blocks for ids in rows.ids]
    for name in ("cell_ids", "datasets", "donors", "splits"):
        assert getattr(read, name) == [value for rows in blocks for value in getattr(rows, name)]
    for name in ("organ", "cell_type"):
        assert read.fields[name] == [value for rows in blocks for value in rows.fields[name]]
    assert read.fields["perturbation"] == [None] * 47


def test_a_split_is_read_alone_in_order(written):
    folder, blocks = written
    valid = Corpus(folder).read("valid")
    kept = [(rows, row) for rows in blocks for row in range(len(rows)) if rows.splits[row] == "valid"]
    assert [ids.tolist() for ids in valid.ids] == [rows.ids[row].tolist() for rows, row in kept]
    assert valid.cell_ids == [rows.cell_ids[row] for rows, row in kept]
    assert len(Corpus(folder).read("test")) == 0
    with pytest.raises(CorpusError, match="split 'held out': needed one of train, valid, test"):
        Corpus(folder).read("held out")


def test_rows_can_be_chosen_and_keep_what_is_known_of_them(language):
    rows = rows_of(language.vocabulary, 10)
    chosen = rows.select([7, 2])
    assert chosen.ids[0].tolist() == rows.ids[7].tolist()
    assert (chosen.cell_ids, chosen.donors) == (["cell0-7", "cell0-2"], [None, "donor2"])
    assert chosen.fields_of(1) == rows.fields_of(2)


def test_ids_are_sixteen_bits_on_disk(written):
    assert str(pq.read_schema(written[0] / "shard-00000.parquet").field("ids").type) == "large_list<element: uint16>"


def test_a_shard_that_exists_is_whole(language, tmp_path, monkeypatch):
    """A process that dies while it writes leaves no shard, not half of one."""

    def dies(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "file_hash", dies)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "shard.parquet", rows_of(language.vocabulary, 5), FIELDS)
    assert not (tmp_path / "shard.parquet").exists()
    monkeypatch.undo()
    digest = write_shard(tmp_path / "shard.parquet", rows_of(language.vocabulary, 5), FIELDS)
    assert [path.name for path in tmp_path.iterdir()] == ["shard.parquet"]
    assert hashlib.sha256((tmp_path / "shard.parquet").read_bytes()).hexdigest() == digest


def test_a_manifest_is_replaced_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / MANIFEST, {"format": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / MANIFEST, {"format": object()})
    assert json.loads((tmp_path / MANIFEST).read_text()) == {"format": 1}


def test_the_same_cells_make_the_same_file(language, tmp_path):
    digests = {write_shard(tmp_path / f"{number}.parquet", rows_of(language.vocabulary, 20), FIELDS) for number in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize("place", np.linspace(0, 0.999, 6))
def test_verify_finds_a_flipped_bit_and_names_the_shard(written, place):
    folder, _ = written
    Corpus(folder).verify()
    path = folder / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"shard-00001\.parquet: its sha256 is not the manifest's"):
        Corpus(folder).verify()


def test_a_shard_that_is_missing_or_cut_is_an_error_that_names_it(written):
    folder, _ = written
    path = folder / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorpusError, match=r"shard-00001\.parquet"):
        Corpus(folder).read()
    path.unlink()
    with pytest.raises(CorpusError, match=r"shard-00001\.parquet: missing"):
        Corpus(folder).verify()
    with pytest.raises(CorpusError, match=r"shard-00001\.parquet"):
        Corpus(folder).read()


def test_a_corpus_without_cells_is_an_error(tmp_path):
    write_json(tmp_path / MANIFEST, {"format": FORMAT, "tokenizer_sha256": "a" * 64, "fields": [], "shards": []})
    with pytest.raises(CorpusError, match="no shard, so no cell"):
        Corpus(tmp_path).read()


def test_a_corpus_of_another_tokenizer_is_refused(written):
    folder, _ = written
    assert len(Corpus(folder, tokenizer_sha256="a" * 64).read()) == 47
    with pytest.raises(CorpusError, match="built with tokenizer aaaaaaaaaaaa, the model's is bbbbbbbbbbbb"):
        Corpus(folder, tokenizer_sha256="b" * 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no manifest.json; build the corpus with `scmulan corpus build`"),
        ("{", "not JSON"),
        ("[]", "not a corpus manifest"),
        ('{"format": 99}', "format 99, needed 2"),
        ('{"format": 2, "shards": []}', "not a corpus manifest, needed format, tokenizer_sha256, fields, shards"),
    ],
)
def test_a_folder_without_a_whole_manifest_is_an_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(CorpusError, match=message):
        Corpus(tmp_path)
