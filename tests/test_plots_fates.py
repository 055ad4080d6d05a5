"""The picture of fates by clone."""

from __future__ import annotations

import pytest

from scmulan.errors import CellDataError

pytest.importorskip("matplotlib")
from scmulan.plots_fates import fates_by_clone


def test_each_way_has_a_panel_and_large_shares_are_written_out():
    picture = fates_by_clone({"true": [[1, 0], [0, 1]], "scmulan": [[0.62, 0.38], [0.05, 0.95]]}, ["neutrophil", "monocyte"])
    assert [axes.get_title(loc="left") for axes in picture.axes] == ["true", "scmulan"]
    assert [text.get_text() for text in picture.axes[1].texts] == ["62", "38", "95"]


def test_ways_of_other_shapes_are_an_error():
    with pytest.raises(CellDataError, match="needed clones × 2 fates each"):
        fates_by_clone({"true": [[1, 0]], "scmulan": [[1, 0, 0]]}, ["neutrophil", "monocyte"])
