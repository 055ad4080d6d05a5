"""The curve of a run: one JSON line a step, written as the run goes, cut back when it goes on from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def curve_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a curve file; a line that a kill cut short is left out, for its step is done again."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def cut_curve(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines up to a step; returns them."""
    kept = [line for line in curve_lines(path) if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return kept
