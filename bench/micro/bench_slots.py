"""Claim and release of a slot. Budget: 1 µs at 1,000 rows, 3 µs at 10,000."""

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests import fastpath_twin
from tests.fastpath_impls import IMPLS

SLOTS = 8


@pytest.mark.parametrize("rows", [10, 1_000, 10_000])
@pytest.mark.parametrize("load", ["idle", "busy", "one slot left"])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.benchmark(group="claim and release")
def bench_claim_and_release(
    benchmark: BenchmarkFixture, impl: ModuleType, load: str, rows: int
) -> None:
    if impl is fastpath_twin and rows > 1_000 and load != "idle":
        pytest.skip("filling the twin takes minutes")
    table = impl.SlotTable()
    for _ in range(rows):
        table.add(SLOTS)
    # Idle rows end the search at once; otherwise it has to look at all of them.
    claims = {"idle": 0, "busy": rows * SLOTS // 2 + 1, "one slot left": rows * SLOTS - 1}[load]
    for _ in range(claims):
        table.claim()

    def claim_and_release() -> bool:
        released: bool = table.release(table.claim())
        return released

    assert benchmark(claim_and_release)
    assert table.busy_total == claims
