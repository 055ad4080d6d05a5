"""API keys, of which a server knows hashes alone."""

from __future__ import annotations

import hashlib


def hash_of_key(key: str) -> str:
    """sha256 of an API key, in hex, as the file of keys has it."""
    return hashlib.sha256(key.encode()).hexdigest()
