"""Claim and release of a slot in a large fleet."""

import time
from typing import Final

from bench.compare.findings import OURS, Findings
from paddler._fastpath import SlotTable

SLOTS: Final = 8
BUDGETS_US: Final = {1_000: 1.0, 10_000: 3.0}
ROUNDS: Final = 5


def measure_slots(findings: Findings, *, is_quick: bool) -> None:
    """With every agent half busy and one slot more: the search has to look at all of them."""
    pairs = 2_000 if is_quick else 20_000
    for agents, budget_us in BUDGETS_US.items():
        table = SlotTable()
        for _ in range(agents):
            table.add(SLOTS)
        for _ in range(agents * SLOTS // 2 + 1):
            table.claim()
        best_s = min(_time(table, pairs) for _ in range(ROUNDS))
        findings.add(
            "slots",
            f"claim and release, {agents:,} agents",
            "µs",
            OURS,
            best_s / pairs * 1e6,
            budget=budget_us,
        )


def _time(table: SlotTable, pairs: int) -> float:
    began_s = time.process_time()
    for _ in range(pairs):
        table.release(table.claim())
    return time.process_time() - began_s
