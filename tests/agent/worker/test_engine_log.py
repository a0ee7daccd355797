import logging

import pytest

from paddler.agent.worker.engine_log import EngineLog

DEBUG, INFO, WARN, ERROR, CONT = 1, 2, 3, 4, 5


@pytest.fixture
def engine_lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="llama.cpp")
    return caplog


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (level, message) for name, level, message in caplog.record_tuples if name == "llama.cpp"
    ]


def test_engine_levels_are_mapped(engine_lines: pytest.LogCaptureFixture) -> None:
    log = EngineLog()
    for level in (DEBUG, INFO, WARN, ERROR):
        log.on_text(level, b"x\n")
    assert [level for level, _ in said(engine_lines)] == [10, 10, 30, 40]


def test_continued_lines_are_joined(engine_lines: pytest.LogCaptureFixture) -> None:
    log = EngineLog()
    log.on_text(WARN, b"one")
    log.on_text(CONT, b" two")
    log.on_text(CONT, b" three\nfour\n")
    assert said(engine_lines) == [(30, "one two three"), (30, "four")]


def test_unfinished_line_ends_where_another_begins(engine_lines: pytest.LogCaptureFixture) -> None:
    log = EngineLog()
    log.on_text(INFO, b".....")
    log.on_text(ERROR, b"broken\n")
    assert said(engine_lines) == [(10, "....."), (40, "broken")]


def test_first_error_is_the_reason_remembered() -> None:
    log = EngineLog()
    log.on_text(ERROR, b"first\n")
    log.on_text(ERROR, b"second\n")
    log.on_text(INFO, b"third\n")
    assert log.first_error == "first"


@pytest.mark.parametrize(
    "line",
    [
        b"decode: failed to find a memory slot for batch of size 9\n",
        b"failed to decode image\n",
        b"state_read_meta: failed to find 200 available cells in kv cache\n",
        b"state_seq_set_data: error loading state: failed to restore kv cache\n",
    ],
)
def test_full_kv_cache_is_no_warning(engine_lines: pytest.LogCaptureFixture, line: bytes) -> None:
    EngineLog().on_text(WARN, line)
    assert [level for level, _ in said(engine_lines)] == [10]
