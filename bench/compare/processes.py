"""The programs of a comparison as processes: started, measured from outside, stopped."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.load.report import Report

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0

decode_report = msgspec.json.Decoder(Report).decode


class BenchFailed(Exception):
    """A program did not do its part; the message says which and how."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Return once ``condition`` holds; :class:`BenchFailed` naming ``what`` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailed(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.02)


class Program:
    """One process. Its output is kept for the case that it fails."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.words = tuple(words)
        self._log_path = Path(tempfile.mkstemp(dir=folder, suffix=".log")[1])
        with self._log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def name(self) -> str:
        """What people call it: a program, or a module of Python's."""
        return self.words[2] if self.words[1:2] == ("-m",) else Path(self.words[0]).name

    @property
    def last_words(self) -> str:
        """The last line that it has said, in bounds."""
        return (self.log.strip().splitlines() or [""])[-1][:300]

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log_path.read_text(errors="replace")

    def memory_bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def check(self) -> None:
        """:class:`BenchFailed` if it has ended."""
        if self._popen.poll() is not None:
            raise BenchFailed(f"{self.name} ended with {self._popen.returncode}: {self.last_words}")

    def wait_log(self, text: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once it has said ``text``."""

        def is_said() -> bool:
            self.check()
            return text in self.log

        wait_until(is_said, f"{self.name} says {text!r}", timeout_s)

    def wait_listening(self, port: int) -> None:
        """Return once it accepts connections."""

        def accepts() -> bool:
            self.check()
            return is_listening(port)

        wait_until(accepts, f"{self.name} listens")

    def wait(self, timeout_s: float) -> str:
        """Its output, once it has ended by itself and well."""
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise BenchFailed(f"{self.name} did not end") from None
        if code != 0:
            raise BenchFailed(f"{self.name} ended with {code}: {self.last_words}")
        return self.log

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to who does not listen."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Stage:
    """Starts programs in a folder of their own; all of them end with the ``with`` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def start(self, *words: str) -> Program:
        """Start a program."""
        program = Program(words, self.folder)
        self._stack.callback(program.stop)
        return program

    def python(self, module: str, *words: str) -> Program:
        """Start a module of this interpreter's."""
        return self.start(sys.executable, "-m", module, *words)

    def load(self, url: str, *words: str, watched: Program | None = None) -> "Load":
        """Put load on ``url`` and go on. Processor time of ``watched`` is measured meanwhile."""
        path = Path(tempfile.mkstemp(dir=self.folder, suffix=".json")[1])
        if watched is not None:
            words = (*words, "--watch-pid", str(watched.pid))
        program = self.python("bench.load", url, *words, "--quiet", "--json", str(path))
        return Load(program, path)

    def close(self) -> None:
        """Stop everything, the last one first."""
        self._stack.close()


class Load:
    """A load generator under way."""

    def __init__(self, program: Program, path: Path) -> None:
        self.program = program
        self._path = path

    def report(self, timeout_s: float = 600.0, *, may_fail: bool = False) -> Report:
        """What it found, once it has ended; ``may_fail``: also if no request came out well."""
        try:
            self.program.wait(timeout_s)
        except BenchFailed:
            if not may_fail or not self._path.stat().st_size:
                raise
        return decode_report(self._path.read_bytes())


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as folder:
        made = Stage(Path(folder))
        try:
            yield made
        finally:
            made.close()


class Fleet:
    """A balancer with scripted agents."""

    def __init__(
        self, on: Stage, *, agents: int, slots: int, agent_words: Sequence[str] = ()
    ) -> None:
        self.management, self.inference, self.openai = (free_port() for _ in range(3))
        self.balancer = on.python(
            "paddler",
            "balancer",
            *("--management-addr", f"127.0.0.1:{self.management}"),
            *("--inference-addr", f"127.0.0.1:{self.inference}"),
            *("--compat-openai-addr", f"127.0.0.1:{self.openai}"),
            *("--max-buffered-requests", "20000"),
        )
        self.balancer.wait_listening(self.openai)
        self.agents = on.python(
            "bench.scripted_agent",
            *("--management-addr", f"127.0.0.1:{self.management}"),
            *("--agents", str(agents), "--slots", str(slots), "--json"),
            *agent_words,
        )
        self.agents.wait_log("agents joined", timeout_s=60.0)

    @property
    def url(self) -> str:
        """Of the OpenAI-compatible listener."""
        return f"http://127.0.0.1:{self.openai}"


class Origin:
    """A server that answers by itself, for other proxies to stand before."""

    def __init__(self, on: Stage, *words: str) -> None:
        self.port = free_port()
        self.program = on.python("bench.origin", "--addr", f"127.0.0.1:{self.port}", *words)
        self.program.wait_listening(self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


NGINX_CONF: Final = """\
daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/nginx.err; worker_rlimit_nofile 20000;
events {{ worker_connections 19000; use epoll; multi_accept on; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000;
  client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2; fastcgi_temp_path {folder}/n3;
  uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
  upstream origin {{
    server 127.0.0.1:{origin}; keepalive 10000; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://origin; proxy_buffering off; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_read_timeout 300s;
    }}
  }}
}}
"""

HAPROXY_CONF: Final = """\
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend front
  bind 127.0.0.1:{port} backlog 4096
  default_backend back
backend back
  http-reuse always
  server origin 127.0.0.1:{origin}
"""


class Proxy:
    """Another program before an origin, set up to pass every token on at once."""

    def __init__(self, on: Stage, name: str, origin: Origin) -> None:
        self.port = free_port()
        path = on.folder / f"{name}.conf"
        template = {"nginx": NGINX_CONF, "haproxy": HAPROXY_CONF}[name]
        path.write_text(template.format(folder=on.folder, port=self.port, origin=origin.port))
        words = {"nginx": ("-c", str(path)), "haproxy": ("-db", "-f", str(path))}[name]
        found = find_program(name)
        if found is None:
            raise BenchFailed(f"{name} is not installed")
        self.program = on.start(found, *words)
        self.program.wait_listening(self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def find_program(name: str) -> str | None:
    """Where a program is; servers are often outside of people's ``PATH``."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def get(url: str) -> bytes:
    """The body of a GET; empty while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            body: bytes = response.read()
            return body
    except (urllib.error.URLError, OSError):
        return b""
