"""``python -m scmulan.cli``."""

from scmulan.cli import main

main()
