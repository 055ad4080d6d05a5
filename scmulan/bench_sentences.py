"""Sentences to measure training on: a corpus of cells made in a folder, its packs, and the same sentences as padded minibatches.

The embedded blood cells where no folder of cells is given. Minibatches hold about as many places as a pack; what is counted is real ids,
never padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan import assets
from scmulan.corpus.build import build_corpus
from scmulan.corpus.pack import Packing, Packs, epoch_packs
from scmulan.corpus.plan import read_plan
from scmulan.corpus.shards import Corpus
from scmulan.errors import PromptError, nearest
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary
from scmulan.training.held_out import Data
from scmulan.training.recipe import LossRecipe

BLOOD = ("zheng_pbmc_facs",)
EMBEDDED = (*BLOOD, "larry_haematopoiesis", "joost_epidermis", "ipsc_cm_timecourse", "pollen_cortex", "mixology_sc_dropseq")
TOKENIZERS = {"demo": ("embedded", "model"), "default": ("tokenizer", "default")}
"""That of the embedded model, and the one of all genes."""


def corpus_of(folder: Path, tokenizer: str, *, data: Path | None = None, sources: Sequence[str] = BLOOD) -> Corpus:
    """A corpus of the cells of a folder, or of embedded data sets by name; PromptError when the tokenizer is not known."""
    if tokenizer not in TOKENIZERS:
        raise PromptError(f"--tokenizer {tokenizer!r}: needed one of {', '.join(TOKENIZERS)}{nearest(tokenizer, list(TOKENIZERS))}")
    place = folder / f"corpus-{tokenizer}"
    if not (place / "manifest.json").is_file():
        given: list[Any] = [{"path": f"embedded:{name}.h5ad", "split": {"by": "column"}} for name in sources]
        plan = read_plan({"sources": given if data is None else [str(data.absolute())]})
        build_corpus(plan, assets.path(*TOKENIZERS[tokenizer]), place)
    return Corpus(place)


@dataclass(frozen=True)
class Material:
    """A corpus's training sentences.

    Attributes
    ----------
    packs : the first epoch's
    weights : (parts,) of the parts of a sentence
    """

    corpus: Corpus
    writer: SentenceWriter
    packing: Packing
    packs: Packs
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, corpus: Corpus, packing: Packing, *, seed: int = 0) -> Material:
        """The material of a corpus, by its own tokenizer."""
        folder = corpus.folder / "tokenizer"
        writer = SentenceWriter(load_tokenizer(folder), load_vocabulary(folder), load_prompts())
        data = Data.open(corpus, "train", writer)
        weights = np.array([LossRecipe().weight_of(part) for part in writer.prompts.parts], dtype=np.float32)
        return cls(corpus, writer, packing, epoch_packs(data.rows, data.counts, writer, packing, seed=seed, epoch=0), weights)


@dataclass(frozen=True)
class Minibatch:
    """Sentences in rows of the same length.

    Attributes
    ----------
    ids : (B, T) uint16, padded on the right
    parts : (B, T) uint8 part codes, 0 where nothing is learnt
    lengths : (B,) ids of each row that are no padding
    """

    ids: npt.NDArray[np.uint16]
    parts: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]

    def as_pack(self) -> Packs:
        """The rows end to end, padding and all: one pack, each row a sentence."""
        n_rows, longest = self.ids.shape
        bounds = np.arange(n_rows + 1, dtype=np.int32) * longest
        return Packs(self.ids.reshape(1, -1), self.parts.reshape(1, -1), [bounds], [np.zeros(n_rows, dtype=np.uint8)])


def minibatches(packs: Packs, most_places: int, *, pad: int, bucketed: bool, seed: int = 0) -> list[Minibatch]:
    """The sentences of packs in padded minibatches of at most so many places, in an order drawn.

    ``bucketed``: sentences of like length together, which wastes least; else as they were drawn.
    """
    rng = np.random.default_rng(seed)
    spans = [(pack, *span) for pack, bounds in enumerate(packs.bounds) for span in pairwise(bounds.tolist())]
    lengths = np.array([last - first for _, first, last in spans])
    drawn = rng.permutation(len(spans))
    order = drawn[np.argsort(lengths[drawn], kind="stable")] if bucketed else drawn
    found, members = list[Minibatch](), list[int]()
    for number in order:
        if members and (len(members) + 1) * max(lengths[[*members, number]]) > most_places:
            found.append(_padded(packs, [spans[member] for member in members], pad))
            members = []
        members.append(int(number))
    found.append(_padded(packs, [spans[member] for member in members], pad))
    return [found[place] for place in rng.permutation(len(found))]


def _padded(packs: Packs, spans: Sequence[tuple[int, int, int]], pad: int) -> Minibatch:
    lengths = np.array([last - first for _, first, last in spans])
    ids = np.full((len(spans), lengths.max()), pad, dtype=np.uint16)
    parts = np.zeros(ids.shape, dtype=np.uint8)
    for row, (pack, first, last) in enumerate(spans):
        ids[row, : last - first] = packs.ids[pack, first:last]
        parts[row, : last - first] = packs.parts[pack, first:last]
    return Minibatch(ids, parts, lengths)
