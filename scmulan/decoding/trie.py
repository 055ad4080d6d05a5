"""A trie over the answers that are allowed, so that a closed question is scored exactly and in one forward pass.

Answers that begin alike share their nodes. Each node is fed once after the prompt and sees the prompt and its own ancestors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scmulan.csentence import Ids
from scmulan.errors import PromptError


@dataclass(frozen=True)
class Trie:
    """Nodes in breadth-first order of first use.

    Attributes
    ----------
    token : (N,) id of each node
    depth : (N,) 0 for the first id of an answer
    parent : (N,) node, -1 for the prompt's end
    sees : (N, N) bool, whether a node sees another (its ancestors and itself)
    inner : (M,) nodes that others follow: only these are fed to the model
    slot : (N,) where each node's chance is read: 0 at the prompt's end, 1 + m at the m-th of ``inner``
    paths : for each answer, its nodes from first to last
    """

    token: Ids
    depth: Ids
    parent: Ids
    sees: np.ndarray
    inner: Ids
    slot: Ids
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, answers: Sequence[Ids]) -> Trie:
        """The trie of some answers; PromptError when there is none or two are the same."""
        if not len(answers):
            raise PromptError("no answer to choose from; give at least one label")
        child: dict[tuple[int, int], int] = {}
        token: list[int] = []
        depth: list[int] = []
        parent: list[int] = []
        paths: list[tuple[int, ...]] = []
        for answer in answers:
            node, path = -1, []
            for level, number in enumerate(int(number) for number in answer):
                key = (node, number)
                if key not in child:
                    child[key] = len(token)
                    token.append(number)
                    depth.append(level)
                    parent.append(node)
                node = child[key]
                path.append(node)
            paths.append(tuple(path))
        if len(set(paths)) != len(paths):
            raise PromptError("two of the labels are the same answer; give each label once")
        sees = np.eye(len(token), dtype=bool)
        for node, above in enumerate(parent):
            if above >= 0:
                sees[node] |= sees[above]
        inner = np.unique([above for above in parent if above >= 0]).astype(np.int64)
        slot = np.searchsorted(inner, parent) + (np.array(parent) >= 0)
        return cls(np.array(token), np.array(depth), np.array(parent), sees, inner, slot, tuple(paths))

    def log_probabilities(self, node_BN: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer from that of each node's token after its parent; (B, N) to (B, answers)."""
        return torch.stack([node_BN[:, list(path)].sum(1) for path in self.paths], dim=1)
