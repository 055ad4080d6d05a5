"""Optimizers and learning rates of a recipe."""

from __future__ import annotations

import torch

from scmulan.training.recipe import Recipe


def make_optimizers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW for all."""
    settings = recipe.optimizer
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers." in name)]
    if settings.matrix_lr == 0:
        return [torch.optim.AdamW([*matrices, *others], lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay)]
    muon = torch.optim.Muon(matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay)]


def learning_rate_share(step: int, recipe: Recipe) -> float:
    """Share of the full learning rate at a step: linear rise, level, linear fall."""
    settings = recipe.optimizer
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    fall_from = settings.stable * recipe.steps
    fallen = max(0.0, step - fall_from) / max(recipe.steps - fall_from, 1)
    return rise * (1 - fallen * (1 - settings.last))
