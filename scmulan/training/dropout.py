"""Dropout for stock models that have none: on the embeddings of what is read and on what each layer adds to them, as in GPT-2.

A small corpus is read many times, and a model without it comes to know the training cells one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel


def add_dropout(model: PreTrainedModel, share: float) -> None:
    """Drop ``share`` of the embeddings' columns and of each branch's while the model is in training mode; weights are untouched.

    Parameters
    ----------
    model : a causal LM with ``self_attn.o_proj`` and ``mlp.down_proj`` in its layers, as Qwen and Llama have
    share : between 0 and 1; 0 changes nothing
    """
    if share == 0:
        return

    def drop(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(output, share, module.training)

    model.get_input_embeddings().register_forward_hook(drop)
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)
