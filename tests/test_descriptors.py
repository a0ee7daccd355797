"""How a process notices that its descriptors run out, with the limit of this one lowered."""

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from paddler.descriptors import (
    OVER_AFTER_S,
    TELL_EVERY_S,
    Descriptors,
    check_room,
    raise_limit,
)


@contextlib.contextmanager
def limited(spare: int) -> Iterator[int]:
    """No more than ``spare`` further descriptors within the block; gives the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(spare)]
    for descriptor in free:
        os.close(descriptor)
    limit = max(free) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def taken(limit: int) -> Iterator[None]:
    """All descriptors below ``limit`` are in use within the block."""
    with contextlib.ExitStack() as stack:
        while (descriptor := os.dup(0)) < limit - 1:
            stack.callback(os.close, descriptor)
        stack.callback(os.close, descriptor)
        yield


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_part_of_the_descriptors_is_kept_back() -> None:
    for spare in (60, 300, 1000):
        with limited(spare) as limit:
            descriptors = Descriptors()
            kept_back = min(max(16, limit // 8), 64)
            assert descriptors.has_room(limit - kept_back - 1)
            assert not descriptors.has_room(limit - kept_back)


def test_a_limit_that_is_changed_from_outside_counts_at_the_next_look() -> None:
    descriptors = Descriptors()
    with limited(100) as limit:
        assert descriptors.has_room(limit)
        descriptors.look()
        assert not descriptors.has_room(limit)


def test_a_shortage_is_told_once_a_minute_and_its_end_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    caplog.set_level("INFO", "paddler.descriptors")
    with limited(100) as limit:
        descriptors = Descriptors(clock)
        descriptors.look()
        assert caplog.messages == []
        with taken(limit):  # even the last one
            for clock.now in (1.0, 2.0, TELL_EVERY_S):
                descriptors.look()
                descriptors.on_refused()
            (message,) = caplog.messages
            assert f"of the {limit} that this process may have" in message
            assert "ulimit -n" in message
            assert "LimitNOFILE=" in message
            clock.now = TELL_EVERY_S + 1.0
            descriptors.look()
            assert caplog.messages[1:] == [message.replace(";", "; connections refused: 3;", 1)]
        descriptors.on_refused()
        for passed_s in (0.0, OVER_AFTER_S - 1, OVER_AFTER_S, OVER_AFTER_S + 1):
            clock.now = TELL_EVERY_S + 1.0 + passed_s
            descriptors.look()
        assert caplog.messages[2:] == ["there are file descriptors again; connections refused: 1"]


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    with limited(100):
        raise_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard


def test_what_would_stop_halfway_is_not_begun() -> None:
    with limited(10):
        check_room(10)
        with pytest.raises(OSError, match="Too many open files"):
            check_room(11)
        check_room(10)
