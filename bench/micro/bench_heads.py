"""HTTP heads: the compiled parser, its twin, and the best that plain Python does."""

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.fastpath_impls import IMPLS

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\n"
    b"Host: localhost:8070\r\n"
    b"Accept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n"
    b"Content-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 2.8.0\r\n"
    b"X-Stainless-Lang: python\r\n"
    b"X-Stainless-OS: Linux\r\n"
    b"Authorization: Bearer sk-0123456789abcdefghijklmnopqrstuv\r\n"
    b"Content-Length: 1234\r\n"
    b"\r\n"
)
FIELDS = HEAD[HEAD.index(b"\r\n") + 2 :]


@pytest.mark.benchmark(group=f"head_end, {len(HEAD)} B")
@pytest.mark.parametrize("impl", IMPLS)
def bench_head_end(benchmark: BenchmarkFixture, impl: ModuleType) -> None:
    assert benchmark(impl.head_end, HEAD) == len(HEAD)


@pytest.mark.benchmark(group=f"head_end, {len(HEAD)} B")
def bench_head_end_by_find_without_checks(benchmark: BenchmarkFixture) -> None:
    assert benchmark(HEAD.find, b"\r\n\r\n") + 4 == len(HEAD)


@pytest.mark.benchmark(group=f"parse_request_head, {len(HEAD)} B")
@pytest.mark.parametrize("impl", IMPLS)
def bench_parse_request_head(benchmark: BenchmarkFixture, impl: ModuleType) -> None:
    method, _, _, fields = benchmark(impl.parse_request_head, HEAD)
    assert (method, len(fields), fields[-1]) == ("POST", 10, ("content-length", "1234"))


@pytest.mark.benchmark(group=f"parse_fields, {len(FIELDS)} B")
@pytest.mark.parametrize("impl", IMPLS)
def bench_parse_fields(benchmark: BenchmarkFixture, impl: ModuleType) -> None:
    assert len(benchmark(impl.parse_fields, FIELDS)) == 10
