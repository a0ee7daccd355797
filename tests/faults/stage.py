"""A fleet in a phase of its life, a fault that hits it, and how it comes out."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.e2e.fleet import Answer, Fleet, Process, ask, get, raw_prompt, tokens_of, wait_until
from tests.e2e.proxy import Proxy
from tests.faults.reports import FaultReport
from tests.hub import FileServer, ServedFile

RECOVERY_LIMIT_S: Final = 60.0
# Longer than a link may be silent, which is 10 s.
FREEZE_S: Final = 12.0
WORKER_FREEZE_S: Final = 3.0
AGENT: Final = "agent-1"
SLOTS: Final = 2
LONG_PROMPT: Final = "Once upon a time there was a fleet. " * 60  # about 500 tokens


@dataclass
class Client:
    """A request that runs while the fault comes."""

    tokens: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    cut: str = ""
    answer: Answer | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self, port: int, body: dict[str, Any]) -> None:
        """Ask, and read on in a thread."""
        threading.Thread(target=self.run, args=(port, body), daemon=True).start()

    def run(self, port: int, body: dict[str, Any]) -> None:
        try:
            self.answer = answer = Answer(port, body)
            try:
                for message in answer:
                    self.messages.append(message)
                    self.tokens += tokens_of([message])
            finally:
                answer.cut()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.cut = type(error).__name__
        self.ended.set()

    def leave(self) -> None:
        """Lose interest."""
        assert self.answer is not None
        self.answer.leave()

    @property
    def outcome(self) -> str:
        """How it ended, for its user."""
        if self.messages and "Error" in self.messages[-1]:
            error = self.messages[-1]["Error"]["error"]
            return f"{error['code']} {error['description'].split(';')[0][:60]}"
        if self.messages:
            result = self.messages[-1]["Response"]["response"]["GeneratedToken"]
            if "Done" in result:
                return "completed"
            if "SamplerError" in result:
                return f"error: {result['SamplerError'][:60]}"
        return f"connection ended ({self.cut or 'no last line'})"


class Stage:
    """One balancer with a state file, and one agent that dials it through a proxy."""

    def __init__(self, folder: Path, model: Path, other: Path, files: FileServer) -> None:
        self.model, self.other, self.files = model, other, files
        self._state = f"file://{folder / 'state.json'}"
        flags = ("--state-database", self._state, "--buffered-request-timeout", "60s")
        self.fleet = Fleet(folder, *flags, "--inference-item-timeout", "90s")
        self.proxy: Proxy | None = None
        self.served: ServedFile | None = None  # the file that is being downloaded
        self.starts = 0
        self._cache = folder / "cache"

    @contextlib.contextmanager
    def running(self) -> Iterator["Stage"]:
        with self.fleet, Proxy(self.fleet.management) as proxy:
            self.proxy = proxy
            self.start_agent()
            self.put(self.model)
            self.fleet.wait_slots(SLOTS)
            yield self
            proxy.thaw()

    @property
    def agent(self) -> Process:
        return self.fleet.agents[-1]

    @property
    def network(self) -> Proxy:
        assert self.proxy is not None
        return self.proxy

    @property
    def balancer(self) -> Process:
        assert self.fleet.balancer is not None
        return self.fleet.balancer

    def start_agent(self) -> None:
        self.starts += 1
        flags = ("--drain-timeout", "30s")
        self.fleet.start_agent(
            f"{AGENT}-{self.starts}",
            SLOTS,
            *flags,
            env={"PADDLER_CACHE_DIR": str(self._cache)},
            through=self.network.port,
        )

    def put(self, model: Path | dict[str, Any]) -> None:
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
        state["inference_parameters"] |= {"context_size": 4096}
        state["model"] = model if isinstance(model, dict) else {"LocalToAgent": str(model)}
        self.fleet.put_state(state)

    def worker(self) -> int | None:
        """The process that holds the model, or is loading it."""
        for pid in self.agent.children():
            with contextlib.suppress(OSError):
                if b"paddler.agent.worker.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def ask(self, body: dict[str, Any]) -> Client:
        client = Client()
        client.start(self.fleet.inference, body)
        return client

    def is_applied(self) -> bool:
        """Whether the one agent runs the newest state."""
        told = json.loads(get(self.fleet.management, "/api/v1/agent_details")[1])
        (agent,) = told["agents"]
        details = agent["details"] or {}  # none yet, right after it joined
        return bool(details.get("applied_state") == told["desired_state"])

    def settle(self) -> None:
        """Everything at rest, with the first model."""
        if self.agent.popen.poll() is not None:
            self.start_agent()
        self.put(self.model)

        def rests() -> bool:
            agents = self.fleet.snapshot()
            return (
                len(agents) == 1
                and agents[0]["slots_total"] == SLOTS
                and agents[0]["slots_processing"] == 0
                and agents[0]["model_path"] == str(self.model)
                and agents[0]["state_application_status"] == "Applied"
                and self.fleet.buffered() == 0
            )

        wait_until(lambda: quietly(rests), "the fleet is at rest", RECOVERY_LIMIT_S)


def quietly(look: Callable[[], bool]) -> bool:
    """``False`` while nobody answers."""
    try:
        return look()
    except (OSError, ValueError, AssertionError):
        return False


# --- phases -------------------------------------------------------------------------------------


def idle(stage: Stage) -> Client | None:
    """Nothing runs."""
    return None


def downloading(stage: Stage) -> Client | None:
    """The agent fetches the next model, half of which has come; the old one serves."""
    content = stage.other.read_bytes()
    path = f"/m{time.monotonic_ns()}.gguf"
    stage.served = stage.files.add(path, content, holds_at=len(content) // 2)
    stage.put({"Url": {"url": stage.files.url(path)}})
    assert stage.served.is_held.wait(30)
    return None


def loading(stage: Stage) -> Client | None:
    """The worker of the next model has been started."""
    before = stage.worker()
    stage.put(stage.other)
    wait_until(lambda: stage.worker() not in (None, before), "the next worker is there")
    return None


def prefilling(stage: Stage) -> Client | None:
    """A long prompt is computed, and has no token yet."""
    client = stage.ask(raw_prompt(f"{time.monotonic_ns()} {LONG_PROMPT}", 20))
    wait_until(lambda: stage.fleet.slots_busy() == 1, "the request has its slot")
    return client


def streaming(stage: Stage) -> Client | None:
    """An answer has begun."""
    client = stage.ask(raw_prompt(f"{time.monotonic_ns()} and", 60))
    wait_until(lambda: len(client.tokens) >= 3, "three tokens have come")
    return client


def swapping(stage: Stage) -> Client | None:
    """An answer runs on, for whose end another model waits."""
    client = streaming(stage)
    stage.put(stage.other)
    wait_until(lambda: stage.fleet.slots_ready() == 0, "no slot is offered")
    return client


def draining(stage: Stage) -> Client | None:
    """The agent was told to stop, and finishes an answer."""
    client = streaming(stage)
    stage.agent.signal(signal.SIGTERM)
    wait_until(lambda: stage.fleet.slots_ready() == 0, "no slot is offered")
    return client


PHASES: Final[dict[str, Callable[[Stage], Client | None]]] = {
    phase.__name__: phase
    for phase in (idle, downloading, loading, prefilling, streaming, swapping, draining)
}


# --- faults -------------------------------------------------------------------------------------


def kill_worker(stage: Stage) -> None:
    """``kill -9`` of the process that holds the model."""
    if (pid := stage.worker()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_agent(stage: Stage) -> None:
    """``kill -9`` of the agent; a service manager starts another."""
    stage.agent.signal(signal.SIGKILL)
    stage.agent.wait()
    stage.start_agent()


def kill_balancer(stage: Stage) -> None:
    """``kill -9`` of the balancer; a service manager starts it again."""
    stage.balancer.signal(signal.SIGKILL)
    stage.balancer.wait()
    stage.fleet.start_balancer()


def cut_link(stage: Stage) -> None:
    """The connection between agent and balancer is reset."""
    stage.network.cut()


def freeze_worker(stage: Stage) -> None:
    """The worker is stopped for 3 s (SIGSTOP), then goes on."""
    if (pid := stage.worker()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(WORKER_FREEZE_S)  # the fault itself
            os.kill(pid, signal.SIGCONT)


def freeze_agent(stage: Stage) -> None:
    """The agent is stopped for 12 s, then goes on."""
    agent = stage.agent
    agent.signal(signal.SIGSTOP)
    time.sleep(FREEZE_S)
    agent.signal(signal.SIGCONT)


def freeze_balancer(stage: Stage) -> None:
    """The balancer is stopped for 12 s, then goes on."""
    stage.balancer.signal(signal.SIGSTOP)
    time.sleep(FREEZE_S)
    stage.balancer.signal(signal.SIGCONT)


def lose_packets(stage: Stage) -> None:
    """Nothing passes between agent and balancer for 12 s, and neither is told."""
    stage.network.freeze()
    time.sleep(FREEZE_S)
    stage.network.thaw()


FAULTS: Final[dict[str, Callable[[Stage], None]]] = {
    fault.__name__: fault
    for fault in (
        *(kill_worker, kill_agent, kill_balancer, cut_link),
        *(freeze_worker, freeze_agent, freeze_balancer, lose_packets),
    )
}


# --- a cell of the matrix -----------------------------------------------------------------------


def described(fault: str) -> str:
    """What a fault is, in words."""
    return (FAULTS[fault].__doc__ or "").strip().rstrip(".").replace("``", "`")


def play(stage: Stage, phase: str, fault: str) -> FaultReport:
    """Run one cell; ``AssertionError`` if anything is lost, leaked or stays broken."""
    report = FaultReport(described(fault), phase)
    stage.settle()
    client = PHASES[phase](stage)
    FAULTS[fault](stage)
    if stage.served is not None:
        stage.served.go.set()  # the rest of the download can be had now
        stage.served = None
    if phase == "draining":

        def has_stopped() -> bool:
            return stage.agent.popen.poll() is not None or fault == "kill_agent"

        wait_until(has_stopped, "the drained agent has stopped", RECOVERY_LIMIT_S)
        if fault != "kill_agent":
            stage.agent.wait()
            stage.start_agent()

    def serves() -> bool:
        messages = ask(stage.fleet.inference, raw_prompt("So", 3))
        return len(tokens_of(messages)) == 3

    with report.recovering():
        wait_until(lambda: quietly(serves), "a new request is answered", RECOVERY_LIMIT_S)
    if client is not None:
        assert client.ended.wait(RECOVERY_LIMIT_S), "the client is left without an end"
    wait_until(lambda: quietly(lambda: stage.fleet.slots_busy() == 0), "no slot is held")
    wait_until(lambda: quietly(lambda: stage.fleet.buffered() == 0), "nobody waits")
    wait_until(lambda: quietly(stage.is_applied), "the agent runs what is wanted", RECOVERY_LIMIT_S)
    assert len(stage.fleet.snapshot()) == 1
    assert get(stage.fleet.inference, "/ready")[0] == 200
    report.outcome = client.outcome if client is not None else "no request"
    return report
