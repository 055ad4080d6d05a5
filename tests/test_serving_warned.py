"""Warnings go to the work that they are of."""

from __future__ import annotations

import threading
import warnings

import pytest

from scmulan.errors import ScmulanWarning
from scmulan.serving.warned import heard, warned


def test_what_is_warned_of_in_another_thread_is_not_told_here():
    told: dict[str, list[str]] = {}
    begun, may_end = threading.Barrier(2, timeout=10), threading.Barrier(2, timeout=10)

    def works(name: str) -> None:
        with warned() as said:
            begun.wait()
            for _ in range(2):
                warnings.warn(f"of {name}", ScmulanWarning, stacklevel=1)
            may_end.wait()
        told[name] = said

    threads = [threading.Thread(target=works, args=(name,)) for name in ("one", "other")]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert told == {"one": ["of one"], "other": ["of other"]}


def test_what_is_warned_of_elsewhere_goes_where_it_went_before():
    def warns() -> None:
        warnings.warn("elsewhere", ScmulanWarning, stacklevel=1)

    def listens() -> list[str]:
        with warned() as said:
            thread = threading.Thread(target=warns)
            thread.start()
            thread.join(10)
        return said

    with pytest.warns(ScmulanWarning, match="elsewhere"):
        said = listens()
    assert said == []


def test_an_inner_listener_has_what_is_its_own_and_all_is_as_before_after_them():
    before = warnings.showwarning, list(warnings.filters)
    with heard() as outer:
        with heard() as inner:
            warnings.warn("inner", ScmulanWarning, stacklevel=1)
        warnings.warn("outer", UserWarning, stacklevel=1)
    assert [str(each.message) for each in inner] == ["inner"]
    assert [str(each.message) for each in outer] == ["outer"]
    assert (warnings.showwarning, list(warnings.filters)) == before
