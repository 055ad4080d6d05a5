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


def test_a_starter_that_is_killed_takes_all_that_it_started_along():
    starter = subprocess.Popen([sys.executable, "-c", STARTS])
    below: list[psutil.Process] = []
    while len(below) < 3:  # the leash, what it holds, and what that started
        time.sleep(0.05)
        below = psutil.Process(starter.pid).children(recursive=True)
    starter.kill()
    starter.wait()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_what_a_command_started_ends_with_the_command():
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']).pid, flush=True)"
    leash = subprocess.Popen(
        [sys.executable, "-m", "scmulan.serving.leash", sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    pid = int(leash.stdout.readline())
    leash.wait(20)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
