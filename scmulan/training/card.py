"""What a trained model is and has seen, as it is kept in its ``scmulan.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from scmulan import __version__
from scmulan.corpus.shards import Corpus
from scmulan.model import n_parameters
from scmulan.training.recipe import Recipe
from scmulan.training.seen import seen_labels


def training_card(
    recipe: Recipe,
    lm: PreTrainedModel,
    corpus: Corpus,
    curve: Sequence[Mapping[str, Any]],
    *,
    start: Mapping[str, Any],
    step: int,
    tokens: int,
) -> dict[str, Any]:
    """Parameters, steps, tokens, sources, labels, held-out nats at the step that was kept, and the recipe.

    Parameters
    ----------
    curve : lines of the run up to the step that was kept
    start : card of the model that was gone on from, empty when there is none
    step, tokens : of this run, at what was kept
    """
    sources = [{key: value for key, value in source.items() if key != "findings"} for source in corpus.manifest["sources"]]
    held: Mapping[str, float] = next((line["held_out_per_sentence"] for line in reversed(curve) if "held_out_per_sentence" in line), {})
    return {
        "format": 1,
        "scmulan": __version__,
        "parameters": sum(p.numel() for p in lm.parameters() if p.requires_grad) if recipe.adapter else n_parameters(lm),
        "context": int(lm.config.max_position_embeddings),
        "steps": step + start.get("steps", 0),
        "tokens": tokens + start.get("tokens", 0),
        "sources": sources,
        "labels": seen_labels(corpus),
        "held_out_nats": dict(held),
        "recipe": {key: value for key, value in recipe.to_dict().items() if key not in ("output", "folder", "corpus")},
    }
