"""How many threads the engine should use on this machine."""

import math
import os
from pathlib import Path
from typing import Final

CGROUP_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
TOPOLOGY: Final = "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"


def engine_threads() -> int:
    """Physical cores that this process may use, at least 1.

    Affinity and the control group's quota count. Two hyper-threads share the vector units
    that the engine keeps busy, so a second thread on one core only adds waiting.
    """
    cores = len(usable_cores())
    return max(1, min(cores, quota_cpus(CGROUP_QUOTA) or cores))


def usable_cores() -> tuple[int, ...]:
    """The physical cores that this process may use, each by the first of its processors."""
    first_of: dict[str, int] = {}
    for cpu in sorted(usable_cpus()):
        first_of.setdefault(siblings_of(cpu), cpu)
    return tuple(first_of.values())


def usable_cpus() -> set[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def siblings_of(cpu: int) -> str:
    """A text that is the same for all processors of one core; the number where nothing is known."""
    try:
        return Path(TOPOLOGY.format(cpu=cpu)).read_text().strip()
    except OSError:
        return str(cpu)


def quota_cpus(path: Path) -> int | None:
    """Whole processors that the control group may use at a time; ``None`` without a limit."""
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
