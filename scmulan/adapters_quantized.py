"""QLoRA: the linear layers below an adapter held in 4 bits (NF4) or 8 (LLM.int8), by bitsandbytes.

Only what is held is quantised: products are made in the computing type, and gradients pass through to the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from scmulan.errors import EngineError, RecipeError

INSTALL = "pip install 'scmulan[lora]'"
WIDTH_STEP = 32
"""bitsandbytes needs output widths that are a multiple of this."""


def quantize(lm: PreTrainedModel, bits: int, layers: Mapping[str, Any]) -> None:
    """Hold some linear layers, given by their full names, in 4 or 8 bits, in place.

    Raises
    ------
    RecipeError
        When a layer's width is no multiple of 32.
    """
    bnb = _import_bitsandbytes()
    for name, layer in layers.items():
        if layer.out_features % WIDTH_STEP:
            raise RecipeError(
                f"adapter.bits {bits}: {name} is {layer.out_features} wide; needed a multiple of {WIDTH_STEP}; leave bits out"
            )
    for name, layer in layers.items():
        outer, _, last = name.rpartition(".")
        setattr(lm.get_submodule(outer), last, (_in_4_bits if bits == 4 else _in_8_bits)(bnb, layer))
    setattr(lm, f"is_loaded_in_{bits}bit", True)  # so PEFT knows which layers it stands beside


def _in_4_bits(bnb: Any, layer: Any) -> torch.nn.Module:
    made = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=layer.bias is not None, quant_type="nf4")
    made.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
    # On processors with AVX512-BF16 the first forward in eval mode repacks the weights for inference, and what is trained after it gets
    # no gradient, without a word (bitsandbytes 0.50).
    made.support_avx512bf16_for_cpu = False
    return _with_bias(made, layer)


def _in_8_bits(bnb: Any, layer: Any) -> torch.nn.Module:
    made = bnb.nn.Linear8bitLt(layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False)
    made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    return _with_bias(made, layer)


def _with_bias(made: torch.nn.Module, layer: Any) -> torch.nn.Module:
    """The layer on its device, which is what quantises it."""
    if layer.bias is not None:
        made.bias = layer.bias
    return made.to(layer.weight.device)


def _import_bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise EngineError(f"adapter.bits needs bitsandbytes, which is not installed; {INSTALL}, or leave bits out") from None
    return bitsandbytes
