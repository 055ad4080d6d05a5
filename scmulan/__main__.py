"""``python -m scmulan``: the same as the command ``scmulan``, for what starts modules, as ``accelerate launch -m scmulan`` does."""

from scmulan.cli import main

main()
