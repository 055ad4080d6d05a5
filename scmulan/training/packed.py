"""A causal LM and the loss of a pack as one module, which is what DDP and FSDP2 wrap: the output matrix is then theirs to gather.

What a pack needs beside the model (positions, bounds, weights, the plan of its loss) is made ahead, off the device, in ``PackInputs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from scmulan.adapters import output_matrix
from scmulan.automaton import legal_targets
from scmulan.csentence import Ids, Vocabulary
from scmulan.training.loss import CPU_CHUNKS, GPU_CHUNKS, Chunk, legal_cross_entropy, plan_chunks

if TYPE_CHECKING:
    from scmulan.corpus.pack import Packs


@dataclass(frozen=True)
class PackInputs:
    """One pack, ready for the model.

    Attributes
    ----------
    ids, positions : (T,) int64, positions begin again at each sentence
    bounds : starts of the sentences and the end of the last, the padding being one more
    predicted : (T,) part code of the id that each position predicts, 0 where nothing is learnt
    weights : (T,) float32, weight of that id
    is_learnt : (T,) bool, of the ids themselves
    chunks : plan of the loss, empty where another loss is in use
    """

    ids: Ids
    positions: Ids
    bounds: list[int]
    predicted: Ids
    weights: npt.NDArray[np.float32]
    is_learnt: npt.NDArray[np.bool_]
    chunks: list[Chunk]

    @classmethod
    def of(
        cls, packs: Packs, place: int, weights: npt.NDArray[np.float32], vocabulary: Vocabulary, *, plan: bool = True, device: str = "cpu"
    ) -> PackInputs:
        """A pack's inputs; ``weights`` (parts,) are those of the parts of a sentence."""
        ids, parts, bounds = packs.ids[place].astype(np.int64), packs.parts[place], packs.bounds[place].tolist()
        if bounds[-1] < len(ids):
            bounds = [*bounds, len(ids)]
        positions = np.concatenate([np.arange(last - first) for first, last in pairwise(bounds)])
        predicted = np.append(parts[1:], 0).astype(np.int64)
        is_learnt = parts > 0
        size = CPU_CHUNKS if device == "cpu" else GPU_CHUNKS
        chunks = plan_chunks(legal_targets(ids, is_learnt, vocabulary), vocabulary, size) if plan else []
        return cls(ids, positions, bounds, predicted, weights[predicted], is_learnt, chunks)


Loss = Callable[[torch.Tensor, torch.Tensor, PackInputs, Vocabulary], tuple[torch.Tensor, torch.Tensor]]
"""Hidden states (T, D), output matrix (V, D), the pack and the vocabulary to the weighted sum of nats and the nats of the id that each
position predicts (T,)."""


def shipped_loss(
    hidden_TD: torch.Tensor, output_VD: torch.Tensor, inputs: PackInputs, vocabulary: Vocabulary
) -> tuple[torch.Tensor, torch.Tensor]:
    """``legal_cross_entropy`` of a pack's learnt ids; products in bf16 on a GPU under autocast, else in float32.

    On a processor a product in bf16 is planned anew for each shape, and a pack's chunks are of a hundred shapes: float32 is faster.
    """
    weights_T = torch.from_numpy(inputs.weights).to(hidden_TD.device)
    device = hidden_TD.device.type
    dtype = torch.bfloat16 if device == "cuda" and torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device, enabled=False):  # else it would make every product in bf16 all the same
        return legal_cross_entropy(hidden_TD, output_VD, weights_T, inputs.chunks, vocabulary, dtype)


class PackedLM(torch.nn.Module):
    """A causal LM that answers a pack with its loss.

    Parameters
    ----------
    lm : a stock causal LM whose attention is ``scmulan_packed``
    loss_of : another loss, for comparisons
    """

    def __init__(self, lm: PreTrainedModel, vocabulary: Vocabulary, loss_of: Loss = shipped_loss):
        super().__init__()
        self.lm, self.vocabulary, self.loss_of = lm, vocabulary, loss_of

    def prepare(self, packs: Packs, place: int, weights: npt.NDArray[np.float32], device: str = "cpu") -> PackInputs:
        """The inputs of one pack."""
        return PackInputs.of(packs, place, weights, self.vocabulary, plan=self.loss_of is shipped_loss, device=device)

    def forward(self, inputs: PackInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted sum of nats of a pack, and the nats of the id predicted at each position; (), (T,)."""
        output_VD = output_matrix(self.lm)
        device = output_VD.device
        hidden_TD = self.lm.model(
            input_ids=torch.from_numpy(inputs.ids)[None].to(device),
            position_ids=torch.from_numpy(inputs.positions)[None].to(device),
            bounds=torch.tensor(inputs.bounds, dtype=torch.int32, device=device),
            use_cache=False,
        ).last_hidden_state[0]
        return self.loss_of(hidden_TD.float(), output_VD, inputs, self.vocabulary)
