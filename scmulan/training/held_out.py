"""Nats of held-out sentences, by task and part, as the training loop measures them on its way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from scmulan.corpus.pack import Packs, training_tasks
from scmulan.prompts import SentenceWriter
from scmulan.training.loss import Loss, loss_of_pack, pack_loss


@dataclass
class HeldOut:
    """Nats on held-out cells, unthinned where they fit, one sentence each."""

    per_token: dict[str, float] = field(default_factory=dict)
    per_sentence: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        cell = self.per_sentence.get("generate/cell", float("nan"))
        labels = [
            f"{name.split('/')[1]} {value:.2f}"
            for name, value in self.per_sentence.items()
            if name.startswith("annotate/") and name.split("/")[1] != "cell"
        ]
        return f"held out: {cell:,.0f} nats a cell given its fields; annotate {', '.join(labels)} nats a label"


def evaluate(body: torch.nn.Module, output_VD: torch.Tensor, packs: Packs, writer: SentenceWriter, loss_of: Loss = loss_of_pack) -> HeldOut:
    """Nats per token and per sentence of every task and part."""
    names, tasks = writer.prompts.parts, training_tasks(writer)
    sums = np.zeros((len(tasks), len(names)))
    tokens, sentences = np.zeros_like(sums), np.zeros_like(sums)
    body.eval()
    with torch.no_grad():
        for place in range(len(packs)):
            _, nats_T, _ = pack_loss(body, output_VD, packs, place, writer, np.ones(len(names), np.float32), loss_of)
            nats, parts = nats_T.cpu().numpy(), np.append(packs.parts[place][1:], 0)
            bounds = packs.bounds[place]
            for task, first, last in zip(packs.tasks[place], bounds[:-1], bounds[1:], strict=True):
                inside = parts[first : last - 1]
                sums[task] += np.bincount(inside, nats[first : last - 1], len(names))
                count = np.bincount(inside, minlength=len(names))
                tokens[task] += count
                sentences[task] += count > 0
    body.train()
    held = HeldOut()
    for code, task in enumerate(tasks):
        for part, name in enumerate(names[1:], 1):
            if tokens[code, part]:
                held.per_token[f"{task.name}/{name}"] = float(sums[code, part] / tokens[code, part])
                held.per_sentence[f"{task.name}/{name}"] = float(sums[code, part] / sentences[code, part])
        whole = sums[code, 1:4].sum() / max(sentences[code, 1:4].max(), 1)
        if whole:
            held.per_sentence[f"{task.name}/cell"] = float(whole)
    return held
