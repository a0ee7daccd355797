"""Memory that other processes of the same user cannot reach.

Without that, whoever takes a worker over opens ``/proc/PID/mem`` of the agent, which has the
network and the balancer's token: a filter of system calls does not see what a path names.
"""

import ctypes
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def keep_own_memory() -> None:
    """Close this process's memory to debuggers, core dumps and the like, but for root's (Linux).

    Until it executes another program. Its children have to do it themselves.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
