"""``paddler up``, as somebody meets it first."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import free_ports, get, is_alive, wait_until


class Up:
    """A running ``paddler up`` and what it printed."""

    def __init__(self, folder: Path, model: Path, *flags: str) -> None:
        self.management, self.inference, self.openai, self.panel = free_ports(4)
        self.out_path = folder / "up.txt"
        self._out = self.out_path.open("wb")
        self.popen = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "paddler", "up", "--model", str(model)),
                *("--slots", "2", "--question", "Say hello."),
                *("--management-addr", f"127.0.0.1:{self.management}"),
                *("--inference-addr", f"127.0.0.1:{self.inference}"),
                *("--compat-openai-addr", f"127.0.0.1:{self.openai}"),
                *("--web-admin-panel-addr", f"127.0.0.1:{self.panel}"),
                *flags,
            ],
            stdout=self._out,
            stderr=self._out,
            stdin=subprocess.DEVNULL,
        )

    @property
    def out(self) -> str:
        return self.out_path.read_text(errors="replace")

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        code = self.popen.wait(15)
        self._out.close()
        return code


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        up.stop()


def test_it_answers_serves_and_leaves_nothing(
    tmp_path: Path, smollm2_path: Path, ups: list[Up]
) -> None:
    up = Up(tmp_path, smollm2_path)
    ups.append(up)
    wait_until(lambda: "Ctrl-C stops it." in up.out, "it serves")
    assert f"serves {smollm2_path.name} on 2 slots" in up.out
    assert "> Say hello." in up.out
    assert f"curl -N http://127.0.0.1:{up.openai}/v1/chat/completions" in up.out
    for port in (up.management, up.inference, up.openai):
        assert get(port, "/health") == (200, b"OK")
    assert b"paddler-dashboard" in get(up.panel, "/")[1]
    (worker,) = up.children()
    assert up.stop() == 0
    assert not is_alive(worker)
    assert "Traceback" not in up.out


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path, ups: list[Up]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    up = Up(tmp_path, broken)
    ups.append(up)
    assert up.popen.wait(60) == 1
    assert "Error: the agent cannot serve broken.gguf" in up.out
    assert "Traceback" not in up.out


@pytest.mark.parametrize(
    "flag",
    ["--management-addr", "--inference-addr", "--compat-openai-addr", "--web-admin-panel-addr"],
)
def test_a_taken_port_is_one_line_that_names_port_and_flag(
    tmp_path: Path, smollm2_path: Path, ups: list[Up], flag: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = Up(tmp_path, smollm2_path, flag, f"127.0.0.1:{port}")
        ups.append(up)
        assert up.popen.wait(30) == 1
    assert up.out == (
        f"Error: {flag}: port {port} on 127.0.0.1 is already in use; "
        f"choose another with {flag} HOST:PORT\n"
    )
