"""What a server starts ends with it, however the server ends."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

SLEEPS = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']); time.sleep(300)"
STARTS = (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-m', 'scmulan.serving.leash', sys.executable, '-c', {SLEEPS!r}], stdin=subprocess.PIPE, "
    "start_new_session=True)\n"
    "time.sleep(300)"
)


def ended(pid: int) -> bool:
    """Whether a process ends within seconds; the kernel may take a moment to end one that was killed, and nobody here reaps it."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_a_starter_that_is_killed_takes_all_that_it_started_along():
    starter = subprocess.Popen([sys.executable, "-c", STARTS])
    below: list[psutil.Process] = []
    while len(below) < 3:  # the leash, what it holds, and what that started
        time.sleep(0.05)
        below = psutil.Process(starter.pid).children(recursive=True)
    starter.kill()
    starter.wait()
    assert all(ended(process.pid) for process in below)


def test_what_a_command_started_ends_with_the_command():
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']).pid, flush=True)"
    leash = subprocess.Popen(
        [sys.executable, "-m", "scmulan.serving.leash", sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    pid = int(leash.stdout.readline())
    leash.wait(20)
    assert ended(pid)
