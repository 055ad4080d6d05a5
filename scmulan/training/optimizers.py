"""Optimizers and learning rates of a recipe."""

from __future__ import annotations

import math

import torch

from scmulan.errors import RecipeError
from scmulan.training.recipe import Recipe


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
    muon = torch.optim.Muon(matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
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
