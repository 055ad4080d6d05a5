"""Words that the page says of two figures."""

from __future__ import annotations


def beats(ours: float, theirs: float, *, is_lower_better: bool = False) -> str:
    """``better than``, ``no better than`` or ``worse than``, after rounding to the three digits that are shown."""
    gap = round(theirs - ours if is_lower_better else ours - theirs, 3)
    return "better than" if gap > 0 else "worse than" if gap < 0 else "no better than"


def beats_apart(ours: float, theirs: float) -> str:
    """`beats` of two areas under the curve by which cells are told from real ones; below 0.5 is as good as 0.5, whatever chance gave."""
    return beats(max(ours, 0.5), max(theirs, 0.5), is_lower_better=True)
