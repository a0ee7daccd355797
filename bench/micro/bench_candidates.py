"""Picking the likeliest tokens and penalizing seen ones. Budget: 100 µs for any vocabulary."""

import array
from types import ModuleType

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.fastpath_impls import IMPLS


@pytest.mark.parametrize("vocabulary", [49_152, 262_144])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.benchmark(group="the 80 likeliest")
def bench_likeliest(benchmark: BenchmarkFixture, impl: ModuleType, vocabulary: int) -> None:
    logits = array.array("f", np.random.default_rng(1).normal(0, 3, vocabulary).tolist())
    room = bytearray(12 * 80)
    assert benchmark(impl.likeliest, logits, 80, room) == 80


@pytest.mark.parametrize("distinct", [100, 4_000])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.benchmark(group="penalize and restore")
def bench_penalties(benchmark: BenchmarkFixture, impl: ModuleType, distinct: int) -> None:
    logits = array.array("f", [1.0]) * 49_152
    seen = impl.SeenTokens(49_152, 8192)
    for token in range(distinct):
        seen.accept(token)

    def penalize_and_restore() -> None:
        seen.penalize(logits, 1.1, 0.0, 0.8)
        seen.restore(logits)

    benchmark(penalize_and_restore)
    assert set(logits) == {1.0}
