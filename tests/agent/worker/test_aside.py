import select
import threading

import pytest

from paddler.agent.worker.aside import Aside, run_at_once


def wait_for_result(aside: Aside) -> None:
    assert select.select([aside.wake_fd], [], [], 30)[0]


def test_work_is_done_in_another_thread_and_taken_in_this_one() -> None:
    threads: list[threading.Thread] = []
    with Aside() as aside:
        aside(lambda: threads.append(threading.current_thread()), lambda _: threads.append(here()))
        wait_for_result(aside)
        aside.collect()
    worker, taker = threads
    assert worker is not taker
    assert taker is threading.current_thread()


def here() -> threading.Thread:
    return threading.current_thread()


def test_results_come_in_the_order_of_asking() -> None:
    taken: list[int] = []
    with Aside() as aside:
        for number in range(100):
            aside(lambda number=number: number, taken.append)  # type: ignore[misc]
        while len(taken) < 100:
            wait_for_result(aside)
            aside.collect()
    assert taken == list(range(100))


def test_nothing_is_taken_before_it_is_done() -> None:
    taken: list[bool] = []
    go_on = threading.Event()
    with Aside() as aside:
        aside(lambda: go_on.wait(30), taken.append)
        aside.collect()
        assert taken == []
        go_on.set()
        wait_for_result(aside)
        aside.collect()
    assert taken == [True]


def test_what_work_raises_is_raised_where_it_is_collected() -> None:
    with Aside() as aside:
        aside(lambda: 1 // 0, lambda _: None)
        wait_for_result(aside)
        with pytest.raises(ZeroDivisionError):
            aside.collect()


def test_at_once_means_before_it_returns() -> None:
    taken: list[int] = []
    run_at_once(lambda: 7, taken.append)
    assert taken == [7]
