"""One holds the lock, the others wait: in this process, and in one that dies."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

from paddler.agent.models.lock import held

HOLDER = """
import sys
from paddler.agent.models.lock import held
with held(sys.argv[1], print):
    print("held", flush=True)
    sys.stdin.read()
"""


class Waits:
    """What a waiting side was told."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.is_long = threading.Event()

    def __call__(self, is_long: bool) -> None:
        self.told.append(is_long)
        if is_long:
            self.is_long.set()


def start_holder(path: Path) -> "subprocess.Popen[bytes]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_a_free_lock_is_taken_without_a_wait_and_its_file_stays(tmp_path: Path) -> None:
    waits = Waits()
    for _ in range(2):
        with held(tmp_path / "lock", waits):
            pass
    assert waits.told == []
    assert (tmp_path / "lock").exists()


def test_a_short_wait_is_told_as_one(tmp_path: Path) -> None:
    waits = Waits()
    with start_holder(tmp_path / "lock") as holder:

        def on_wait(is_long: bool) -> None:
            waits(is_long)
            holder.stdin.close()  # type: ignore[union-attr]

        with held(tmp_path / "lock", on_wait, long_wait_s=60):
            pass
    assert waits.told == [False]


def test_who_waits_long_takes_over_from_a_holder_that_is_killed(tmp_path: Path) -> None:
    waits = Waits()
    with start_holder(tmp_path / "lock") as holder:

        def on_wait(is_long: bool) -> None:
            waits(is_long)
            if is_long:
                holder.send_signal(signal.SIGKILL)

        with held(tmp_path / "lock", on_wait, long_wait_s=0.01):
            pass
        holder.wait()
    assert waits.told == [False, True]
