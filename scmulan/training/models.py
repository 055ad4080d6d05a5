"""The model that a recipe begins with: new from a preset, of a folder to go on from, or any Hugging Face causal LM."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedModel

from scmulan.adapters import attach
from scmulan.corpus.shards import Corpus
from scmulan.errors import EngineError
from scmulan.model import load_checkpoint, new_model, start_genes_by_detection
from scmulan.model_start import is_foreign, start_from_hf
from scmulan.prompts import SentenceWriter
from scmulan.tokenizer_renew import is_renewal_of
from scmulan.training import attention
from scmulan.training.dropout import add_dropout
from scmulan.training.recipe import Recipe
from scmulan.training.seen import detection


@dataclass(frozen=True)
class StartModel:
    """A model in training mode.

    Attributes
    ----------
    card : of the model it goes on from; empty when there is none
    adapted : its ``PeftModel``, where an adapter is trained
    """

    lm: PreTrainedModel
    card: dict[str, Any] = field(default_factory=dict)
    adapted: Any = None


def model_of(recipe: Recipe, corpus: Corpus, writer: SentenceWriter) -> StartModel:
    """The model that a recipe begins with, its attention that of packs; with an adapter, nothing else of it is trained.

    Raises
    ------
    EngineError, CheckpointError
        When the model to go on from has another tokenizer than the corpus, or its folder can't be read.
    """
    settings = recipe.model
    start = _new(recipe, corpus, writer) if settings.start is None else _of_folder(settings.start, recipe, corpus)
    attention.register()
    if recipe.adapter is not None:
        start = replace(start, adapted=attach(start.lm, recipe.adapter))
    start.lm.set_attn_implementation(attention.PACKED)
    add_dropout(start.lm, settings.dropout)
    if recipe.checkpoint_activations:
        start.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    start.lm.train()
    return start


def _new(recipe: Recipe, corpus: Corpus, writer: SentenceWriter) -> StartModel:
    settings = recipe.model
    lm = new_model(settings.preset, writer.vocabulary, context=recipe.packing.context, seed=recipe.seed)
    if settings.gene_start == "detection":
        start_genes_by_detection(lm, writer.vocabulary, detection(corpus, writer))
    return StartModel(lm)


def _of_folder(name: str, recipe: Recipe, corpus: Corpus) -> StartModel:
    if is_foreign(name) and recipe.adapter is not None:
        raise EngineError(
            f"model.start {name}: an adapter stands on a model that has cell tokens, and this one has none yet; "
            "make one with `scmulan start`, train it whole (adapter: null), and then adapters on it"
        )
    if is_foreign(name):
        return StartModel(start_from_hf(name, corpus.folder / "tokenizer", context=recipe.packing.context, seed=recipe.seed))
    found = load_checkpoint(name)
    of_start = found.card["tokenizer_sha256"]
    if of_start != corpus.manifest["tokenizer_sha256"] and not is_renewal_of(corpus.folder / "tokenizer", of_start):
        raise EngineError(f"model.start {name}: its tokenizer is not that of {corpus.folder}; build the corpus with that model's tokenizer")
    # positions are rotations: those beyond the old context need no new weights, only training
    found.model.config.max_position_embeddings = max(found.context, recipe.packing.context)
    return StartModel(found.model, found.card)
