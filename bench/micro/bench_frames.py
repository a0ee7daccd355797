"""WebSocket frames: the compiled codec, its twin, and the best that plain Python does."""

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from paddler import _fastpath
from tests.fastpath_impls import IMPLS

KEY = 0x9ABCDEF1
SIZES = [64, 1024, 65536]


def mask_by_big_integers(payload: bytes, key: int) -> bytes:
    """What a program without compiled code does at best."""
    size = len(payload)
    pattern = (key.to_bytes(4, "little") * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")
    return masked.to_bytes(size, "little")


@pytest.mark.benchmark(group="parse_frame_header, masked, 1 KiB")
@pytest.mark.parametrize("impl", IMPLS)
def bench_parse_frame_header(benchmark: BenchmarkFixture, impl: ModuleType) -> None:
    frame = _fastpath.encode_frame(2, bytes(1024), KEY)
    header = benchmark(
        impl.parse_frame_header, frame, 0, expect_masked=True, max_payload_bytes=1 << 20
    )
    assert header == (2, True, 8, 1024, KEY)


@pytest.mark.benchmark(group="unmask_messages, 4 of 256 B")
@pytest.mark.parametrize("impl", IMPLS)
def bench_unmask_messages(benchmark: BenchmarkFixture, impl: ModuleType) -> None:
    frames = bytearray(_fastpath.encode_frame(2, bytes(256), KEY) * 4)
    messages, after = benchmark(
        impl.unmask_messages, frames, expect_masked=True, max_payload_bytes=1 << 20
    )
    assert (len(messages), after) == (4, len(frames))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.benchmark(group="apply_mask")
def bench_apply_mask(benchmark: BenchmarkFixture, impl: ModuleType, size: int) -> None:
    data = bytearray(size)
    benchmark(impl.apply_mask, data, KEY)
    impl.apply_mask(data, KEY)
    assert data[:4] in (bytes(4), KEY.to_bytes(4, "little"))
    assert data == data[:4] * (size // 4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.benchmark(group="apply_mask")
def bench_mask_by_big_integers(benchmark: BenchmarkFixture, size: int) -> None:
    masked = benchmark(mask_by_big_integers, bytes(size), KEY)
    assert masked == KEY.to_bytes(4, "little") * (size // 4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask_key", [-1, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.benchmark(group="encode_frame")
def bench_encode_frame(
    benchmark: BenchmarkFixture, impl: ModuleType, mask_key: int, size: int
) -> None:
    payload = bytes(size)
    frame = benchmark(impl.encode_frame, 1, payload, mask_key)
    assert frame == _fastpath.encode_frame(1, payload, mask_key)
