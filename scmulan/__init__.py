"""scmulan: a generative language model system for single cells.

    import scmulan
    model = scmulan.load("demo")
    cells = model.generate(organ="blood", cell_type="B cell", n=50)
    model.annotate(adata)

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load": "scmulan.tasks",
    "Model": "scmulan.tasks",
    "check": "scmulan.cells",
    "compare": "scmulan.comparing",
    "read_cells": "scmulan.cells",
    "pretrain": "scmulan.training.loop",
    "ScmulanError": "scmulan.errors",
}
__all__ = ["Model", "ScmulanError", "check", "compare", "load", "pretrain", "read_cells"]

if TYPE_CHECKING:
    from scmulan.cells import check, read_cells
    from scmulan.comparing import compare
    from scmulan.errors import ScmulanError
    from scmulan.tasks import Model, load
    from scmulan.training.loop import pretrain


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scmulan' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
