"""What a training run costs, by arithmetic alone: parameters, operations, memory, hours, disk, and the model that a corpus can feed.

Operations: Kaplan et al. 2020 (6 for each parameter of the layers and token) with the attention term of Chowdhery et al. 2022, appendix
B. Activations: counted tensor by tensor as Korthikanti et al. 2022 do, for the layer of a Qwen3 in eager mode; torch.compile keeps
fewer. Compute-optimal sizes: Hoffmann et al. 2022; repeated data: Muennighoff et al. 2023. Limit: no buffers of communication beside
DDP's buckets, and no fragmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from scmulan.adapters import AdapterRecipe, attach
from scmulan.csentence import Vocabulary
from scmulan.model import PRESETS, Preset, n_parameters, new_model

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, table 3, for text; of cells nobody has measured it."""
REPEATS_DECAY = 15.4
"""Muennighoff et al. 2023, equation 5: repeats lose their worth with this constant."""
FLOAT32, BFLOAT16 = 4, 2


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's parameters and dimensions.

    Attributes
    ----------
    total : all parameters, a tied matrix once
    embeddings : those of the input and output matrices
    matrices : those of the layers' matrices, which every token passes through
    adapter : those of an adapter beside them, which alone is trained; 0 where all are
    bits : of each of the layers' matrices while it is trained
    """

    total: int
    embeddings: int
    matrices: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    tied: bool
    adapter: int = 0
    bits: int = 32

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        return self.adapter or self.total


def size_of(model: PreTrainedModel) -> Size:
    """The size of a model, which may be on the meta device."""
    config, total = model.config, n_parameters(model)
    layers = [tensor for name, tensor in model.named_parameters() if "layers." in name]
    tables = {id(table.weight): table.weight.numel() for table in (model.get_input_embeddings(), model.get_output_embeddings())}
    return Size(
        total=total,
        embeddings=sum(tables.values()),
        matrices=sum(tensor.numel() for tensor in layers if tensor.ndim == 2),
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        tied=bool(config.tie_word_embeddings),
    )


def preset_size(preset: str | Preset, vocabulary: Vocabulary) -> Size:
    """The size of a preset, without its weights being made."""
    with torch.device("meta"):
        return size_of(new_model(preset, vocabulary, context=1024))


def config_size(config: Any, adapter: AdapterRecipe | None = None) -> Size:
    """The size of any Hugging Face causal LM by its config, without its weights being made; with an adapter where one is to be trained."""
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
        size = size_of(lm)
        if adapter is None:
            return size
        attach(lm, replace(adapter, bits=None))
        trained = sum(parameter.numel() for parameter in lm.parameters() if parameter.requires_grad)
    return replace(size, adapter=trained, bits=adapter.bits or 32)


def preset_sizes(vocabulary: Vocabulary) -> dict[str, Size]:
    """The size of every preset."""
    return {name: preset_size(name, vocabulary) for name in PRESETS}


# -- operations ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Floating-point operations that training needs for a token, forward and backward; a product and a sum are two.

    Attributes
    ----------
    matrices : 6 N, N the parameters of the layers' matrices; 4 N + 6 A below an adapter of A parameters, for they need no gradient
    attention : 12 L H Q K, K the mean number of ids that a token sees (whole causal attention over T would have K = T / 2)
    loss : 6 D C, C the mean number of rows of the output matrix that the legal next ids need
    whole_vocabulary : 6 D V, what a softmax over all ids would need instead of ``loss``
    recomputed : 2 N + 4 L H Q K, made again for the backward pass under activation checkpointing; no part of ``needed``
    """

    matrices: float
    attention: float
    loss: float
    whole_vocabulary: float
    recomputed: float

    @property
    def needed(self) -> float:
        """Of a token; the share of the peak that these reach is the model FLOPs utilisation (MFU)."""
        return self.matrices + self.attention + self.loss


def operations(size: Size, *, keys: float, columns: float, is_checkpointed: bool = False) -> Operations:
    """Operations of a token that attends to ``keys`` ids and needs ``columns`` rows of the output matrix."""
    matrices = 4.0 * size.matrices + 6.0 * size.adapter if size.adapter else 6.0 * size.matrices
    attention = 12.0 * size.layers * size.heads * size.head_dim * keys
    return Operations(
        matrices=matrices,
        attention=attention,
        loss=6.0 * size.hidden * columns,
        whole_vocabulary=6.0 * size.hidden * size.vocabulary,
        recomputed=(matrices + attention) / 3 if is_checkpointed else 0.0,
    )


def hours(needed: float, *, peak_tflops: float, mfu: float, devices: int = 1) -> float:
    """Hours that so many operations take on devices that reach a share of their peak."""
    return needed / (peak_tflops * 1e12 * mfu * devices) / 3600


# -- memory --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device at the height of a step.

    Attributes
    ----------
    weights : float32; gradients : float32, and DDP's buckets beside them
    optimizer : AdamW has two moments a parameter, Muon one momentum
    copies : the matrices in bfloat16; under FSDP the layers that are gathered at a time instead
    activations : kept for the backward pass, of one pack
    loss : its gradients (they are made in the forward pass) and its largest chunk of logits
    update : what the optimizers hold while they update, when activations are gone
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    loss: int
    update: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + max(self.copies + self.activations + self.loss, self.update)


def activation_bytes(size: Size, tokens: int, *, precision: str, is_checkpointed: bool = False, on_gpu: bool = False) -> int:
    """Bytes that the layers keep of a pack for the backward pass.

    A layer keeps, per token, with D the width, A = heads x head_dim, B = kv_heads x head_dim and I the inner width, in float32: 6 D (of
    each norm: what comes in, the normalised, what comes out), 7 A + 2 B (queries projected, normalised, rotated; keys the same, and
    keys and values repeated for all heads; attention's result twice), 4 I (gate, its SiLU, up, their product). Under bfloat16 the
    residual, the norms and (on a CPU) attention's inputs stay float32, and each product keeps its own bfloat16 input. Checkpointed, a
    layer keeps its input alone, and one layer at a time is made again.
    """
    d, a, b, i = size.hidden, size.heads * size.head_dim, size.kv_heads * size.head_dim, size.intermediate
    small = 4 * (2 + 2 * size.heads + size.kv_heads)
    attention = 10 * a + 10 * b if on_gpu else 24 * a + 6 * b
    whole = small + (4 * (6 * d + 7 * a + 2 * b + 4 * i) if precision == "no" else 26 * d + attention + 8 * i)
    ends = 8 * d + 8 * size.head_dim
    per_token = ends + (FLOAT32 * d * size.layers + whole if is_checkpointed else whole * size.layers)
    return per_token * tokens


def loss_bytes(size: Size, tokens: int, chunk: int, *, on_gpu: bool = False) -> int:
    """Gradients of the output matrix (twice, while the second is added up) and of the hidden states, and the largest chunk of logits.

    A logit costs 16 bytes with all that is made of it. On a GPU the matrix has a bfloat16 copy.
    """
    copy = BFLOAT16 * size.vocabulary * size.hidden if on_gpu else 0
    return FLOAT32 * 2 * size.hidden * (size.vocabulary + tokens) + copy + 16 * chunk


def optimizer_bytes(size: Size, *, has_muon: bool) -> int:
    """Two float32 moments a parameter; one for the layers' matrices where Muon has them."""
    return 2 * FLOAT32 * size.trained - (FLOAT32 * size.matrices if has_muon and not size.adapter else 0)


def memory(
    size: Size,
    tokens: int,
    *,
    chunk: int,
    precision: str,
    has_muon: bool,
    is_checkpointed: bool = False,
    on_gpu: bool = False,
    devices: int = 1,
    shards: bool = False,
    accumulates: bool = False,
) -> Memory:
    """Memory of one of ``devices``: each with the whole model (DDP), or with a share of it (``shards``: FSDP2).

    Parameters
    ----------
    tokens : of a pack, which is what a device has in hand at a time
    chunk : logits of the loss's largest chunk
    accumulates : a step is several packs a device: shares of gradients are made at its last, so FSDP2 holds them whole until then
    """
    share = devices if shards else 1
    is_shared = share > 1
    layer = (size.total - size.embeddings) // max(size.layers, 1)
    of_muon = size.matrices if has_muon and not size.adapter else 0  # Muon keeps less than is counted for an adapter
    whole_gradients = FLOAT32 * size.trained if (devices > 1 and not shards) or (is_shared and accumulates) else 0
    gathered = (BFLOAT16 if precision == "bf16" else FLOAT32) * 2 * (2 * layer + size.embeddings)  # weights and gradients
    # Muon turns whole matrices: under FSDP2 each device holds their momentum, and at the update their gradients
    momentum, turned = FLOAT32 * of_muon, FLOAT32 * of_muon if is_shared else 0
    return Memory(
        weights=(FLOAT32 * (size.total - size.matrices + size.adapter) + size.matrices * size.bits // 8) // share,
        gradients=FLOAT32 * size.trained // share + whole_gradients,
        optimizer=momentum + 2 * FLOAT32 * (size.trained - of_muon) // share,
        copies=gathered if is_shared else BFLOAT16 * size.matrices if precision == "bf16" else 0,
        activations=activation_bytes(size, tokens, precision=precision, is_checkpointed=is_checkpointed, on_gpu=on_gpu),
        loss=loss_bytes(size, tokens, chunk, on_gpu=on_gpu),
        update=FLOAT32 * (size.trained - of_muon) // share + turned,
    )


def checkpoint_bytes(size: Size, *, has_muon: bool, keep: int) -> int:
    """Disk of ``keep`` checkpoints and the one being written (float32: what is trained, optimizers), and of what is written in the end."""
    return (keep + 1) * (FLOAT32 * size.trained + optimizer_bytes(size, has_muon=has_muon)) + folder_bytes(size)


def folder_bytes(size: Size) -> int:
    """Disk of the model's weights (bfloat16), or of the adapter's (float32)."""
    return FLOAT32 * size.adapter if size.adapter else BFLOAT16 * size.total


# -- what a corpus can feed ------------------------------------------------------------------------------------------------------------


def effective_tokens(unique: float, epochs: float) -> float:
    """New tokens that so many epochs of ``unique`` tokens are worth: U (1 + R (1 - exp(-(epochs - 1) / R))), R = 15.4."""
    if epochs <= 1:
        return unique * epochs
    return unique * (1 + REPEATS_DECAY * -math.expm1(-(epochs - 1) / REPEATS_DECAY))


def optimal_parameters(tokens: float) -> float:
    """Parameters of the model that learns most from the compute that so many tokens cost."""
    return tokens / TOKENS_PER_PARAMETER


def nearest_preset(parameters: float, sizes: Mapping[str, Size]) -> str:
    """The preset nearest in size, by ratio."""
    return min(sizes, key=lambda name: abs(math.log(max(parameters, 1) / sizes[name].total)))
