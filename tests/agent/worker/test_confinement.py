import platform
import subprocess
import sys
from pathlib import Path

import pytest

from paddler.agent.worker.confinement import confine
from tests.agent.worker.test_main import Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs seccomp")

CONFINED = """
import os, socket, subprocess, sys, threading
from paddler.agent.worker.confinement import confine
ready, done = threading.Event(), threading.Event()
found = []
def try_later():
    ready.set()
    done.wait()
    found.append(attempt())
def attempt():
    try:
        {attempt}
    except OSError as error:
        return type(error).__name__
    return "done"
earlier = threading.Thread(target=try_later)
earlier.start()
ready.wait()
assert confine()
done.set()
earlier.join()
print(attempt(), *found)
"""


def confined(attempt: str) -> str:
    """How an attempt ends in a confined process, and in a thread that it had before."""
    script = CONFINED.format(attempt=attempt)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
        "socket.create_connection(('127.0.0.1', 9), 1)",
    ],
)
def test_no_socket_reaches_the_network(attempt: str) -> None:
    assert confined(attempt) == "PermissionError PermissionError"


@pytest.mark.parametrize(
    "call", ["101, 16, os.getppid(), 0, 0", "425, 4, 0", "272, 0x10000000", "165, 0, 0, 0, 0, 0"]
)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_calls_that_reach_beyond_the_process_are_refused(call: str) -> None:
    attempt = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True); "
        f"assert libc.syscall({call}) == -1; raise OSError(ctypes.get_errno(), '')"
    )
    assert confined(attempt) == "PermissionError PermissionError"


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socketpair()",
        "subprocess.run([sys.executable, '-c', 'pass'], check=True)",
        "open(os.devnull, 'wb').write(b'x')",
    ],
)
def test_what_a_worker_needs_is_left(attempt: str) -> None:
    assert confined(attempt) == "done done"


def test_children_are_confined_too() -> None:
    child = "import socket; socket.socket(socket.AF_INET)"
    attempt = f"subprocess.run([sys.executable, '-c', {child!r}], check=True, stderr=-3)"
    script = CONFINED.format(attempt=attempt)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert "CalledProcessError" in done.stderr


def test_nothing_is_given_up_where_it_is_not_known_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    assert not confine()


def test_a_worker_is_confined_before_it_opens_a_model(tmp_path: Path) -> None:
    with Process(1) as process:
        process.load(tmp_path / "none.gguf", context_size=256)  # the refusal is heard, not ended
        lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
