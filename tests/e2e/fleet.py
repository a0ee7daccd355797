"""Real processes for end-to-end tests: a balancer, agents, and a client that speaks HTTP."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from paddler.messages.state import DEFAULT_DESIRED_STATE

START_TIMEOUT_S = 60.0
REPOSITORY = Path(__file__).parents[2]

# The machine may be busy with other things: slow is no failure here.
PATIENT = ("--buffered-request-timeout", "90s", "--inference-item-timeout", "90s")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = START_TIMEOUT_S) -> Any:
    """The first truthy result of ``condition``; an error naming ``what`` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.01)  # between two looks at the state of another process
    return result


class Process:
    """One process of ours; its log is kept for the failure report."""

    def __init__(
        self,
        arguments: list[str],
        log_path: Path,
        env: dict[str, str] | None = None,
        *,
        module: str = "paddler",
        max_descriptors: int | None = None,
    ) -> None:
        self.log_path = log_path
        self._log = log_path.open("ab")
        limit = (
            ()
            if max_descriptors is None
            else ("sh", "-c", f'ulimit -n {max_descriptors}; exec "$@"', "sh")
        )
        self.popen = subprocess.Popen(
            [*limit, sys.executable, "-P", "-m", module, *arguments],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env=os.environ | (env or {}),
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def children(self) -> list[int]:
        """Process ids of the direct children that are alive."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def descriptors(self) -> int:
        """How many are open; ``PermissionError`` for an agent's where we are not root."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout_s: float = 15.0) -> int:
        code = self.popen.wait(timeout_s)
        self._log.close()
        return code

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait()
            raise AssertionError(f"did not stop within 15 s:\n{self.log[-4000:]}") from None


class Fleet:
    """A balancer and its agents, on ports of their own."""

    def __init__(
        self,
        folder: Path,
        *balancer_flags: str,
        env: dict[str, str] | None = None,
        max_descriptors: int | None = None,
    ) -> None:
        """``env``: what the balancer's environment has beside this one's; ``max_descriptors``:
        that it may have, and no way to more."""
        self._folder = folder
        self._flags = balancer_flags
        self._env = env
        self._max_descriptors = max_descriptors
        self.management, self.inference, self.openai, self.panel = free_ports(4)
        self.agents: list[Process] = []
        self.balancer: Process | None = None

    def __enter__(self) -> Self:
        self.start_balancer()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process in [*self.agents, *([self.balancer] if self.balancer else [])]:
            if process.popen.poll() is None:
                process.stop()
        if kind is not None:
            for log_path in sorted(self._folder.glob("*.log")):
                print(f"--- {log_path.name}\n{log_path.read_text(errors='replace')[-6000:]}")

    def start_balancer(self) -> Process:
        self.balancer = Process(
            [
                "balancer",
                *("--management-addr", f"127.0.0.1:{self.management}"),
                *("--inference-addr", f"127.0.0.1:{self.inference}"),
                *("--compat-openai-addr", f"127.0.0.1:{self.openai}"),
                *("--web-admin-panel-addr", f"127.0.0.1:{self.panel}"),
                *self._flags,
            ],
            self._folder / "balancer.log",
            self._env,
            max_descriptors=self._max_descriptors,
        )
        wait_until(self.is_healthy, "the balancer answers")
        return self.balancer

    def start_agent(
        self,
        name: str,
        slots: int,
        *flags: str,
        env: dict[str, str] | None = None,
        through: int | None = None,
    ) -> Process:
        """``env``: what its environment has beside this one's; ``through``: a proxy's port."""
        agent = Process(
            [
                "agent",
                *("--management-addr", f"127.0.0.1:{through or self.management}"),
                *("--slots", str(slots), "--name", name),
                *flags,
            ],
            self._folder / f"{name}.log",
            env,
        )
        self.agents.append(agent)
        return agent

    def start_scripted(
        self, agents: int, slots: int, *flags: str, through: int | None = None
    ) -> Process:
        """Agents without a model, all in one process, which offer their slots at once."""
        process = Process(
            [
                *("--management-addr", f"127.0.0.1:{through or self.management}"),
                *("--agents", str(agents), "--slots", str(slots)),
                *flags,
            ],
            self._folder / f"scripted-{len(self.agents)}.log",
            {"PYTHONPATH": str(REPOSITORY)},  # where ``bench`` is
            module="bench.scripted_agent",
        )
        self.agents.append(process)
        return process

    def is_healthy(self) -> bool:
        assert self.balancer is not None
        assert self.balancer.popen.poll() is None, self.balancer.log
        try:
            return get(self.panel, "/health")[0] == 200
        except OSError:
            return False

    def put_model(
        self, path: Path | str | None, *, chat_template: str | None = None, **parameters: Any
    ) -> None:
        """Ask for a model with the default state's parameters, changed by ``parameters``.

        ``chat_template``: in place of the model's own.
        """
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
        state["inference_parameters"] |= parameters
        state["model"] = "None" if path is None else {"LocalToAgent": str(path)}
        if chat_template is not None:
            state["chat_template_override"] = {"content": chat_template}
            state["use_chat_template_override"] = True
        self.put_state(state)

    def put_state(self, state: dict[str, Any]) -> None:
        status, body = request(
            self.management, "PUT", "/api/v1/balancer_desired_state", json.dumps(state).encode()
        )
        assert status == 204, body

    def snapshot(self) -> list[dict[str, Any]]:
        status, body = get(self.management, "/api/v1/agents")
        assert status == 200
        agents: list[dict[str, Any]] = json.loads(body)["agents"]
        return agents

    def slots_ready(self) -> int:
        return sum(agent["slots_total"] for agent in self.snapshot())

    def slots_busy(self) -> int:
        return sum(agent["slots_processing"] for agent in self.snapshot())

    def buffered(self) -> int:
        count: int = json.loads(get(self.management, "/api/v1/buffered_requests")[1])[
            "buffered_requests_current"
        ]
        return count

    def wait_slots(self, count: int) -> None:
        wait_until(lambda: self.slots_ready() == count, f"{count} slots are ready")

    def wait_idle(self) -> None:
        wait_until(lambda: self.slots_busy() == 0, "no slot is busy")


def request(
    port: int, method: str, path: str, body: bytes = b"", timeout_s: float = 60.0
) -> tuple[int, bytes]:
    """Status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, body or None, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    return request(port, "GET", path)


def conversation(text: str, max_tokens: int) -> dict[str, Any]:
    """The smallest native conversation request."""
    return {
        "add_generation_prompt": True,
        "conversation_history": [{"role": "user", "content": text}],
        "enable_thinking": False,
        "max_tokens": max_tokens,
    }


# Printable text without an end: the model may not stop before the limit, and every token
# is whole characters, so that tokens can be counted.
ENDLESS = {"type": "gbnf", "grammar": r"root ::= [ -~\n] root", "root": "root"}


def raw_prompt(text: str, max_tokens: int) -> dict[str, Any]:
    """A native raw prompt request whose answer has exactly ``max_tokens`` tokens."""
    return {"raw_prompt": text, "max_tokens": max_tokens, "grammar": ENDLESS}


class Answer:
    """A streamed native answer, read line by line; ``cut`` leaves in the middle."""

    def __init__(self, port: int, body: dict[str, Any]) -> None:
        kind = "raw_prompt" if "raw_prompt" in body else "conversation_history"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._connection.request(
            "POST",
            f"/api/v1/continue_from_{kind}",
            json.dumps(body),
            {"content-type": "application/json"},
        )
        self.response = self._connection.getresponse()
        self.arrived_at: list[float] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self.response:
            self.arrived_at.append(time.monotonic())
            yield json.loads(line)

    def first(self) -> dict[str, Any]:
        """The next message."""
        return next(iter(self))

    def rest(self) -> list[dict[str, Any]]:
        """All messages until the end."""
        with contextlib.closing(self._connection):
            return list(self)

    def leave(self) -> None:
        """End the connection while another thread reads from it."""
        self._connection.sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Close the connection, as a client that loses interest."""
        self.response.close()
        self._connection.close()


def ask(port: int, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All messages of one native answer."""
    return Answer(port, body).rest()


def ask_at_once(port: int, bodies: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """All messages of several native answers that run at the same time."""
    answers: list[list[dict[str, Any]]] = [[] for _ in bodies]

    def run(index: int) -> None:
        answers[index] = ask(port, bodies[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def tokens_of(messages: list[dict[str, Any]]) -> list[str]:
    """The text pieces of an answer."""
    return [
        text
        for message in messages
        if "Response" in message
        for variant, text in message["Response"]["response"]["GeneratedToken"].items()
        if variant.endswith("Token")
    ]


def usage_of(messages: list[dict[str, Any]]) -> dict[str, int]:
    """The usage in an answer's last message, which must be ``Done``."""
    usage: dict[str, int] = messages[-1]["Response"]["response"]["GeneratedToken"]["Done"]["usage"]
    return usage


def error_of(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The error in an answer's last message, which must be one."""
    error: dict[str, Any] = messages[-1]["Error"]["error"]
    return error


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
