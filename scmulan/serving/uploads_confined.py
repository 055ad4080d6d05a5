"""This process made small: limits on memory, time, files and their size, no new rights, no network. Linux, without a library.

To be called once, before anything is read and while there is one thread. A limit that can't be set is an error; where the kernel does not
let go of the network that is said, as inside most containers. Limit: files that the user may read stay readable.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from scmulan.serving.uploads_limits import UploadLimits

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
MOST_OPEN = 64
ROOM = 2**26  # bytes beside twice those received that a written file may take; gzip may have packed better than lzf does


def confine(limits: UploadLimits) -> str:
    """Give up what reading a file does not need; why the network could not be, or an empty string."""
    limit(limits)
    if sys.platform != "linux":
        return f"not on {sys.platform}"
    libc = ctypes.CDLL(None, use_errno=True)
    # A name space of users lets anybody give up the network; who is root may do it where those are switched off.
    is_open = libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) and libc.unshare(CLONE_NEWNET)
    why = os.strerror(ctypes.get_errno()) if is_open else ""
    # To be killed with the server comes after it, for a change of user takes that back.
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, int(signal.SIGKILL))):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")
    return why


def limit(limits: UploadLimits) -> None:
    """Set what the kernel holds this process to."""
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_FSIZE, 2 * limits.bytes + ROOM),
        (resource.RLIMIT_NOFILE, MOST_OPEN),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # Processor time: a second between the signal that says which limit it was and the one that can't be borne.
        resource.setrlimit(kind, (most, most + 1 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else most))
