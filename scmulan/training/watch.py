"""Watching a run: losses that are no number or leap, held-out losses that no longer fall, and a request to end."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import numpy as np

REMEMBERED = 64
LEAST_REMEMBERED = 16
SPIKE = 8.0
"""A loss that is this many robust standard deviations of the upper half of the last steps above nearly all of them is a spike."""
NEARLY_ALL = 0.95


class LossWatch:
    """Says which steps are not to be taken: no number, or a leap of the loss.

    What is common among the last steps is no leap: packs of questions have a tenth of the loss of packs of cells.
    A function of the losses alone, so that a resumed run decides as the uninterrupted one.

    Parameters
    ----------
    losses : of the steps before, oldest first
    """

    def __init__(self, losses: Sequence[float] = ()):
        self.losses = deque((loss for loss in losses if math.isfinite(loss)), maxlen=REMEMBERED)

    def verdict(self, loss: float, norm: float) -> str | None:
        """Why a step is not to be taken (``not a number`` or ``spike``), or None when it is."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not a number"
        known = np.array(self.losses)
        self.losses.append(loss)
        if len(known) < LEAST_REMEMBERED:
            return None
        upper, top = known[known >= np.median(known)], float(np.quantile(known, NEARLY_ALL))
        spread = max(1.4826 * float(np.median(np.abs(upper - np.median(upper)))), 0.01 * abs(top))
        return "spike" if loss > top + SPIKE * spread else None


class EndRequest:
    """Whether SIGTERM asked for an end; schedulers send it some time before they kill."""

    def __init__(self) -> None:
        self.is_set = False

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, SIGTERM is noted instead of ending the process."""
        try:
            before = signal.signal(signal.SIGTERM, self._set)
        except ValueError:  # not in the main thread: then the caller is the one to be told
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
