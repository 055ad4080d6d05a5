"""Old cells beside the new ones, so that tuning does not forget: from a corpus, from data sets, or written by the model itself.

Cells that the model writes stand in for data that is not at hand; they are of the labels it has seen, in their proportion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from scmulan.cells import AnnData
from scmulan.cells_writing import new_adata, write_h5ad
from scmulan.corpus.blocks import open_source
from scmulan.corpus.pack import counts_of
from scmulan.corpus.plan import Source, Split, read_plan
from scmulan.corpus.shards import MANIFEST, Corpus
from scmulan.errors import CorpusError, EngineError
from scmulan.finetune_recipe import FinetuneRecipe, MixRecipe
from scmulan.genes import GeneTable
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary, tokenizer_hash
from scmulan.training.loop import Say

Generate = Callable[..., AnnData]
MOST_OF_CORPUS = 5000
"""Of a corpus no more training cells than these are taken: they are there to be remembered, not learnt."""
DEFAULT_ORGANISM = "Homo sapiens"


def old_sources(recipe: FinetuneRecipe, base: Path, output: Path, *, n_new: int, generate: Generate | None, say: Say) -> list[Source]:
    """Sources of old cells, weighted so that they are the recipe's share of what is seen.

    Parameters
    ----------
    n_new : new cells that are learnt from
    generate : how the model writes cells, its ``Model.generate``
    """
    mix = recipe.mix
    if mix is None:
        return []
    if mix.generated is not None:
        sources = [_of_file(_generated(mix.generated, output, recipe.seed, generate))]
    elif isinstance(mix.cells, str) and (Path(recipe.folder) / mix.cells / MANIFEST).is_file():
        sources = [_of_file(_of_corpus(Path(recipe.folder) / mix.cells, base, output, recipe.seed))]
    else:
        entries = mix.cells if isinstance(mix.cells, list) else [mix.cells]
        sources = list(read_plan({"sources": entries}, Path(recipe.folder)).sources)
    n_old = sum(_n_train(source, output) for source in sources)
    if not n_old:
        raise CorpusError("mix.cells: none of its cells is of the train split; change the split of its sources")
    weight = mix.share / (1 - mix.share) * n_new / n_old
    say(f"{n_old:,} old cells mixed in, {_kind(mix)}, as {mix.share:.0%} of what is seen")
    return [dataclasses.replace(source, weight=source.weight * weight) for source in sources]


def _kind(mix: MixRecipe) -> str:
    return "written by the model itself" if mix.generated is not None else "from data"


def _of_file(path: Path) -> Source:
    return Source(path=str(path), split=Split(by="cell", test=0.0))


def _n_train(source: Source, output: Path) -> int:
    """Training cells of a source; by hash it is known without looking only in the mean, which is enough for a weight."""
    store, split = open_source(source, output / "scratch"), source.split
    if split.by == "column":
        return store.column(split.column, 0, store.n_cells).count("train")
    return round(store.n_cells * (1 - split.test - split.valid))


def _generated(n: int, output: Path, seed: int, generate: Generate | None) -> Path:
    """A file of cells that the model wrote; not written anew where it is there already."""
    path = output / f"stand-ins-{n}-{seed}.h5ad"
    if not path.is_file():
        if generate is None:
            raise EngineError("mix.generated: needed a model that writes the cells; call model.finetune, or give generate=model.generate")
        write_h5ad(generate(n=n, seed=seed), path)
    return path


def _of_corpus(folder: Path, base: Path, output: Path, seed: int) -> Path:
    """A file of training cells drawn from a corpus; counts above ten are the middle of their level, as the corpus has them."""
    corpus = Corpus(folder, tokenizer_sha256=tokenizer_hash(base))
    rows = corpus.read("train")
    if len(rows) > MOST_OF_CORPUS:
        rows = rows.select(sorted(np.random.default_rng(seed).permutation(len(rows))[:MOST_OF_CORPUS].tolist()))
    vocabulary, table = load_vocabulary(base), GeneTable.load()
    counts = counts_of(rows.ids, SentenceWriter(load_tokenizer(base), vocabulary, load_prompts()))
    obs = pd.DataFrame({name: values for name, values in rows.fields.items() if any(values)}, index=rows.cell_ids)
    path = output / "old-cells.h5ad"
    index = np.asarray(table.index_of_symbols(vocabulary.genes))
    known = np.flatnonzero(index >= 0)
    write_h5ad(new_adata(counts[:, known], index[known], table, obs=obs, organism=DEFAULT_ORGANISM), path)
    return path
