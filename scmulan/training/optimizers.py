"""Optimizers and learning rates of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from scmulan.errors import RecipeError
from scmulan.training.hardware import multiplies_bf16
from scmulan.training.recipe import Recipe


class MuonFloat32(torch.optim.Muon):
    """torch's Muon, with Nesterov's momentum and ``match_rms_adamw``, in float32.

    torch's own multiplies in bfloat16, on a processor that lacks it 25 to 40 times as slowly. The states are alike, so that a run goes on
    from a checkpoint of the other.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step over the gradients, whole matrices each."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter.grad))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = _turned(parameter.grad.lerp(buffer, group["momentum"]), group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))
        return loss


def _turned(matrix: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """The nearest matrix whose singular values are about 1, by Newton and Schulz's iteration; the settings are Muon's."""
    a, b, c = group["ns_coefficients"]
    is_tall = matrix.shape[0] > matrix.shape[1]
    turned = matrix.float().T if is_tall else matrix.float()
    turned = turned / turned.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = turned @ turned.T
        turned = torch.addmm(turned, torch.addmm(gram, gram, gram, beta=b, alpha=c), turned, beta=a)
    return turned.T if is_tall else turned


def make_optimizers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW for all."""
    settings = recipe.optimizer
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "layers." in name]
    others = [p for name, p in named if not (p.ndim == 2 and "layers." in name)]
    if settings.matrix_lr == 0:
        return [torch.optim.AdamW([*matrices, *others], lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay)]
    if not matrices:
        raise RecipeError("optimizer.matrix_lr: the model has no matrix that is trained in its layers; set it to 0 (AdamW for all)")
    kind = torch.optim.Muon if multiplies_bf16(matrices[0].device.type) else MuonFloat32
    muon = kind(matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay)]


def learning_rate_share(step: int, recipe: Recipe) -> float:
    """Share of the full learning rate at a step: a linear rise, then ``wsd`` (level, then a linear fall) or ``cosine``."""
    settings = recipe.optimizer
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    fall_from = settings.warmup if settings.schedule == "cosine" else settings.stable * recipe.steps
    fallen = max(0.0, step - fall_from) / max(recipe.steps - fall_from, 1)
    if settings.schedule == "cosine":
        fallen = 0.5 - 0.5 * math.cos(math.pi * min(fallen, 1.0))
    return rise * (1 - fallen * (1 - settings.last))
