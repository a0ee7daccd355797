"""One data message through the relay, by how many of its streams have a token in it.

Budget: well under 1 µs per token, the write itself apart.
"""

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from paddler.messages.link import FrameKind, encode_data_frame
from tests.fastpath_impls import IMPLS

OPEN_STREAMS = 1_000
PREFIXES = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",'
    b'"choices":[{"index":0,"delta":{"content":"',
)
SUFFIX = b'"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("tokens", [1, 8, 100])
@pytest.mark.parametrize("framing", ["FRAMING_RAW", "FRAMING_CHUNKED", "FRAMING_WEBSOCKET"])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.benchmark(group="relay")
def bench_feed(benchmark: BenchmarkFixture, impl: ModuleType, framing: str, tokens: int) -> None:
    relay = impl.Relay()
    last: list[bytes] = [b""]

    def write(body: bytes) -> None:
        last[0] = body

    for stream_id in range(OPEN_STREAMS):
        relay.open(
            impl.Sink(stream_id, write, getattr(impl, framing), PREFIXES, SUFFIX, 0.0, 1 << 20)
        )
    message = b"".join(
        encode_data_frame(index * 7 % OPEN_STREAMS, FrameKind.CONTENT, b" token")
        for index in range(tokens)
    )
    assert benchmark(relay.feed, message, 1.0) == []
    assert PREFIXES[0] + b" token" + SUFFIX in last[0]
