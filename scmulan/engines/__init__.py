"""Engines run the model: ids in, ids, log-probabilities or hidden states out. They know neither genes nor AnnData."""

from scmulan.engines.base import CellRequest, Engine

__all__ = ["CellRequest", "Engine"]
