"""LoRA on a language model: its recipe, its attachment to the linear layers, and which of several is in use.

An adapter is a pair of narrow matrices beside each linear layer (Hu et al. 2021, arXiv:2106.09685), put there by PEFT, and beside the
output matrix: how often each gene is taken, in an organ whose genes the base never met, is a number of that gene, which no change of the
layers can say. Labels are text and genes are rows that exist, so no embedding is trained: vLLM, which takes linear layers and, of a
Qwen3 or Llama, the output matrix, can run it. The layers of the model are changed in place: ``lm.model`` stays its body. With ``bits`` the
layers below are held in 4 or 8 bits (QLoRA, arXiv:2305.14314); the adapter is the same kind of folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from scmulan.adapters_quantized import INSTALL, quantize
from scmulan.errors import EngineError, RecipeError, nearest

TRAINED = "default"
"""PEFT's name of the adapter that is being trained."""
OUTPUT = "lm_head"
"""The output matrix, by its name among the layers."""


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """How an adapter is made.

    Attributes
    ----------
    rank : width of its matrices
    alpha : what it adds is scaled by alpha / rank
    dropout : share of its inputs that is dropped in training
    targets : names of the linear layers it stands beside; all of the model's when not given
    bits : 4 or 8, in which the layers below are held while it is trained (QLoRA); as they are when not given
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: Sequence[str] | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RecipeError(f"adapter.rank is {self.rank}: needed at least 1")
        if self.alpha <= 0:
            raise RecipeError(f"adapter.alpha is {self.alpha:g}: needed more than 0")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"adapter.dropout {self.dropout:g}: needed a share from 0 to less than 1")
        if self.bits not in (None, 4, 8):
            raise RecipeError(f"adapter.bits {self.bits!r}: needed 4, 8 or nothing")
        is_list = isinstance(self.targets, list | tuple) and all(isinstance(name, str) for name in self.targets)
        if self.targets is not None and not (is_list and self.targets):
            raise RecipeError(f"adapter.targets is {self.targets!r}: needed a list of names, as [q_proj, v_proj], or nothing for all")


def linear_layers(lm: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """The linear layers of a model's body by their full names; the output matrix is none of them."""
    return {name: module for name, module in lm.named_modules() if isinstance(module, torch.nn.Linear) and name.startswith("model.")}


def target_names(lm: PreTrainedModel) -> list[str]:
    """Last names of all that an adapter may stand beside: the linear layers, and the output matrix."""
    return [*dict.fromkeys(name.rpartition(".")[2] for name in linear_layers(lm)), OUTPUT]


def targets_of(lm: PreTrainedModel, recipe: AdapterRecipe) -> list[str]:
    """Last names of the layers that a recipe means; RecipeError names those there are when one is not among them."""
    known = target_names(lm)
    for name in recipe.targets or ():
        if name not in known:
            raise RecipeError(f"adapter.targets: this model has no linear layer {name!r}{nearest(name, known)}; it has {', '.join(known)}")
    return list(recipe.targets or known)


def attach(lm: PreTrainedModel, recipe: AdapterRecipe) -> Any:
    """Put a new adapter on a model's layers, which alone is trained from then on; returns the ``PeftModel``.

    The adapter adds nothing before its first step. The model is left in training mode.

    Raises
    ------
    RecipeError
        For a target that the model does not have, or a layer whose width can't be held in 4 bits.
    """
    peft = import_peft()
    targets = targets_of(lm, recipe)
    if recipe.bits is not None:
        quantize(lm, recipe.bits, {name: layer for name, layer in linear_layers(lm).items() if name.rpartition(".")[2] in targets})
    config = peft.LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=targets, bias="none", task_type="CAUSAL_LM"
    )
    with without_tied_warning():
        return peft.get_peft_model(lm, config, adapter_name=TRAINED).train()


def output_matrix(lm: PreTrainedModel) -> torch.Tensor:
    """The output matrix as the adapters in use make it, (V, D); that of the model itself where none changes it."""
    head: Any = lm.get_output_embeddings()
    weight_VD: torch.Tensor = head.weight
    if getattr(head, "disable_adapters", True):
        return weight_VD
    with torch.autocast(weight_VD.device.type, enabled=False):
        for name in head.active_adapters:
            if name in head.lora_A:
                added_VD = head.lora_B[name].weight.float() @ head.lora_A[name].weight.float()
                weight_VD = weight_VD + (added_VD * head.scaling[name]).to(weight_VD.dtype)
    return weight_VD


def trainable_state(lm: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model that are trained, by their names in its ``state_dict``."""
    trained = {name for name, parameter in lm.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in lm.state_dict().items() if name in trained}


def key_of(name: str) -> str:
    """PEFT's name of a loaded adapter; its own must neither hold a dot nor look like one of its tensors."""
    return "of-" + name.replace("%", "%25").replace(".", "%2E")


def use_adapter(peft_model: Any, name: str | None) -> None:
    """Let one of the attached adapters work, or none; EngineError when there is none of that name."""
    if name is None:
        peft_model.base_model.disable_adapter_layers()
        return
    if key_of(name) not in peft_model.peft_config:
        raise EngineError(f"adapter {name!r}: not loaded; load it with scmulan.load(..., adapter=FOLDER)")
    peft_model.base_model.enable_adapter_layers()
    peft_model.set_adapter(key_of(name), inference_mode=True)


@contextmanager
def without_tied_warning() -> Iterator[None]:
    """PEFT warns of an adapter beside one of two tied matrices; ``adapters_folder.merge`` parts them first, so there is nothing to fear."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield


def import_peft() -> Any:
    """PEFT; EngineError with the install line where it is not there."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, and it tells of a kernel that is not needed
    try:
        import peft
    except ImportError:
        raise EngineError(f"adapters need PEFT, which is not installed; {INSTALL}") from None
    return peft
