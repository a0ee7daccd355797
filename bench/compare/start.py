"""From the start of a balancer's process to its first accepted connection."""

import time
from typing import Final

from bench.compare.findings import OURS, Findings
from bench.compare.processes import free_port, is_listening, stage

TRIES: Final = 5
BUDGET_S: Final = 0.3


def measure_start(findings: Findings, *, is_quick: bool) -> None:
    """The least of a few: everything else is the machine's."""
    times = []
    for _ in range(2 if is_quick else TRIES):
        with stage() as on:
            management, inference = free_port(), free_port()
            began_at = time.monotonic()
            program = on.python(
                "paddler",
                "balancer",
                *("--management-addr", f"127.0.0.1:{management}"),
                *("--inference-addr", f"127.0.0.1:{inference}"),
            )
            while not is_listening(inference):
                program.check()
                time.sleep(0.002)
            times.append(time.monotonic() - began_at)
    findings.add("start", "balancer, until it listens", "s", OURS, min(times), budget=BUDGET_S)
