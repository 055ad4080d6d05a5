"""The page that ships is what its sources give."""

from __future__ import annotations

import hashlib
from pathlib import Path

WEB = Path(__file__).parents[1] / "serving" / "web"
SOURCES = ("index.html", "package-lock.json", "package.json", "vite.config.ts")


def test_the_built_page_is_of_these_sources():
    names = sorted([*SOURCES, *(str(path.relative_to(WEB)) for path in (WEB / "src").rglob("*") if path.is_file())])
    found = hashlib.sha256(b"".join(name.encode() + (WEB / name).read_bytes() for name in names)).hexdigest()
    assert found == (WEB / "dist" / "sources.sha256").read_text().strip(), "the page was not built since its sources changed; run: make web"
