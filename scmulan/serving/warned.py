"""What scmulan warns of, to whoever did what was warned of: Python tells all threads' warnings to whom caught them last."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scmulan.errors import ScmulanWarning

_lock = threading.Lock()
_listening: dict[int, list[warnings.WarningMessage]] = {}
_before: list[Any] = []


@contextmanager
def heard() -> Iterator[list[warnings.WarningMessage]]:
    """All that is warned of meanwhile in this thread, ScmulanWarning every time; warnings of other threads go where they went before."""
    mine, found = threading.get_ident(), list[warnings.WarningMessage]()
    with _lock:
        if not _listening:
            _begin()
        outer, _listening[mine] = _listening.get(mine), found
    try:
        yield found
    finally:
        with _lock:
            if outer is None:
                del _listening[mine]
            else:
                _listening[mine] = outer
            if not _listening:
                _end()


@contextmanager
def warned() -> Iterator[list[str]]:
    """What scmulan warns of meanwhile in this thread, once each; filled at the end."""
    said: list[str] = []
    with heard() as found:
        yield said
    said += list(dict.fromkeys(str(each.message) for each in found if issubclass(each.category, ScmulanWarning)))


def _begin() -> None:
    caught = warnings.catch_warnings()
    caught.__enter__()
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        found = _listening.get(threading.get_ident())
        if found is None:
            shown(message, category, *where, **more)
        else:
            found.append(warnings.WarningMessage(message, category, *where, **more))

    warnings.showwarning = show
    warnings.simplefilter("always", ScmulanWarning)
    _before.append(caught)


def _end() -> None:
    _before.pop().__exit__(None, None, None)
