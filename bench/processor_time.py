"""Processor time of a process of this machine, read from outside, and what the machine lacks."""

import contextlib
import os
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")


def processor_s(pid: int) -> float:
    """What all threads of a process have used, in seconds; ``OSError`` if there is none."""
    total_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # a thread may have ended
            text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
            total_ns += int(text.split()[0])
    return total_ns / 1e9


def stolen_s(stat: Path = STAT) -> float:
    """What the hypervisor gave to others while this machine had work, in processor seconds.

    Of all processors since the start of the machine; 0: none, or ``stat`` (proc_stat(5)) is none.
    """
    try:
        steal = stat.read_text().split("\n", 1)[0].split()[8]
    except (OSError, IndexError):
        return 0.0
    return int(steal) / os.sysconf("SC_CLK_TCK")
