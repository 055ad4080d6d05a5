"""Runs a command that is to end with whoever started it, and all it starts itself: ``python -m scmulan.serving.leash COMMAND``.

The starter holds the other end of standard input. When it ends, however it ends, the pipe closes, and the whole process group is killed;
processes of vLLM's would live on else. The starter gives a group of its own (``start_new_session``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> None:
    """Run a command in this group until it ends, or the starter does."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    threading.Thread(target=_wait_for_starter, daemon=True).start()
    process.wait()
    os.killpg(0, signal.SIGKILL)


def _wait_for_starter() -> None:
    while sys.stdin.buffer.raw.read(1):  # type: ignore[union-attr]
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
