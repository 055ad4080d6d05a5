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
    paths : for each answer, its nodes from first to last
    """

    token: Ids
    depth: Ids
    parent: Ids
    sees: np.ndarray
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
        return cls(np.array(token), np.array(depth), np.array(parent), sees, tuple(paths))

    def log_probabilities(self, logits_BNV: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer among all of the model's next words, from logits at the prompt's end and at each node.

        Parameters
        ----------
        logits_BNV : (B, 1 + N, V) float32, illegal ids at minus infinity
            At the prompt's last id, then at each node.

        Returns
        -------
        (B, answers) float32
        """
        logs_BNV = torch.log_softmax(logits_BNV, dim=-1)
        token = torch.from_numpy(self.token).to(logits_BNV.device)
        above = torch.from_numpy(self.parent + 1).to(logits_BNV.device)
        node_BN = logs_BNV[:, above, token]
        return torch.stack([node_BN[:, list(path)].sum(1) for path in self.paths], dim=1)
