"""Mixed load with faults at random: ``python -m tests.faults.soak --seconds 1800``.

Every request that is issued has to have an end that is one of ours: completed, left by its client
on purpose, refused, or failed with a named error; afterwards nothing is held. Loopback only; ends
by itself.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.fleet import Fleet, Process, get, raw_prompt, wait_until
from tests.e2e.proxy import Proxy
from tests.faults.stage import quietly
from tests.tiny_gguf import write_tiny_gguf

AGENTS: Final = 3
SLOTS: Final = 4
CLIENTS: Final = 8
FAULT_EVERY_S: Final = 2.0
SETTLE_S: Final = 60.0

# What a request may end as.
COMPLETED: Final = "completed"
LEFT: Final = "left by its client"  # on purpose
REFUSED: Final = "refused"
FAILED: Final = "failed with a named error"
LOST: Final = "lost"  # without an end: there must be none
ENDS: Final = (COMPLETED, LEFT, REFUSED, FAILED)

MIB: Final = 1024 * 1024
# How much a figure of the balancer may be above what it was before: allocators keep some memory,
# a connection that ends leaves within moments.
MAY_GROW: Final = {"memory": 16 * MIB, "descriptors": 4, "threads": 0, "connections": 4}


# What has to be given back to the last.
HELD: Final = ("slots_in_use", "requests_waiting")


class Figures(dict[str, int]):
    """What the balancer holds at rest."""

    def grown_since(self, before: "Figures") -> list[str]:
        """What is above what it may be, in words."""
        return [
            f"{name}: {before[name]} before, {self[name]} after"
            for name, room in MAY_GROW.items()
            if self[name] > before[name] + room
        ]


class Ended(Exception):
    """A request's end that has a reason."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(outcome, reason)
        self.outcome = outcome
        self.reason = reason


@dataclass
class Seat:
    """One agent's place, and the network that leads to it."""

    name: str
    proxy: Proxy
    agent: Process


class Soak:
    """A fleet under load. ``outcomes`` counts how requests ended, ``faults`` what was done."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # of those that failed or were lost
        self.faults: Counter[str] = Counter()
        self.issued = 0
        self._lock = threading.Lock()
        self._folder = folder
        self._models = [
            write_tiny_gguf(folder / f"{name}.gguf", context_length=4096) for name in ("a", "b")
        ]
        self._is_over = threading.Event()
        self.fleet = Fleet(folder, "--inference-item-timeout", "20s")
        self._seats: list[Seat] = []
        self._starts = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["Soak"]:
        with self.fleet, contextlib.ExitStack() as proxies:
            for index in range(AGENTS):
                proxy = proxies.enter_context(Proxy(self.fleet.management))
                name = f"agent-{index}"
                self._seats.append(Seat(name, proxy, self._start(name, proxy)))
            self.fleet.put_model(self._models[0], context_size=4096)
            self.fleet.wait_slots(AGENTS * SLOTS)
            yield self

    def play(self, seconds: float) -> None:
        """Load and faults for so long, then wait until all is at rest."""
        self._is_over.clear()
        clients = [
            threading.Thread(target=self._issue, args=(self.random.random(),))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            time.sleep(self.random.uniform(0.2, FAULT_EVERY_S))  # faults come at random times
            self._fault()
        self._is_over.set()
        for client in clients:
            client.join(120)
            assert not client.is_alive(), "a client waits for ever"
        wait_until(lambda: quietly(self._rests), "all is at rest", SETTLE_S)

    def figures(self) -> Figures:
        """What must not grow, taken at rest."""
        balancer = self.fleet.balancer
        assert balancer is not None
        # The scrape first: the balancer loads what answers it when it is asked.
        gauges = self._gauges()
        status = Path(f"/proc/{balancer.pid}/status").read_text()
        threads = next(line for line in status.splitlines() if line.startswith("Threads:"))
        return Figures(
            memory=balancer.memory_bytes(),
            descriptors=balancer.descriptors(),
            threads=int(threads.split()[1]),
            # Each request under way is a task of its connection.
            connections=gauges["paddler_connections"],
            slots_in_use=gauges["paddler_slots_processing"],
            requests_waiting=gauges["paddler_requests_buffered"],
        )

    def faulty(self, before: Figures, after: Figures) -> list[str]:
        """What went wrong, in words: nothing may have."""
        wrong = after.grown_since(before)
        if self.issued != sum(self.outcomes[end] for end in ENDS):
            wrong.append(f"{self.issued} requests issued, {dict(self.outcomes)} ended")
        wrong += [f"{name} is {after[name]}" for name in HELD if after[name]]
        if not self.outcomes[COMPLETED]:
            wrong.append("no request was completed")
        return wrong

    def report(self) -> str:
        """How it went, in lines."""
        balance = " + ".join(f"{self.outcomes[end]} {end}" for end in ENDS)
        reasons = ", ".join(f"{count} x {what}" for what, count in self.reasons.most_common())
        faults = ", ".join(f"{count} x {what}" for what, count in self.faults.most_common())
        return (
            f"{self.issued} issued = {balance}; {self.outcomes[LOST]} lost\n"
            f"errors: {reasons}\n{self.faults.total()} faults: {faults}"
        )

    def _gauges(self) -> Counter[str]:
        """The balancer's metrics; what has labels is summed."""
        gauges: Counter[str] = Counter()
        for line in get(self.fleet.management, "/metrics")[1].decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                gauges[name.partition("{")[0]] += int(float(value))
        return gauges

    # --- faults ------------------------------------------------------------------------------

    def _start(self, name: str, proxy: Proxy) -> Process:
        self._starts += 1
        flags = ("--drain-timeout", "1s")
        # Each start has a log of its own.
        label = f"{name}.{self._starts}"
        return self.fleet.start_agent(label, SLOTS, *flags, through=proxy.port)

    def _fault(self) -> None:
        seat = self.random.choice(self._seats)
        kinds = (
            self._kill_worker, self._kill_agent, self._stop_agent, self._cut,
            self._freeze_worker, self._swap, self._drain,
        )  # fmt: skip
        kind = self.random.choice(kinds)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            kind(seat)
        self.faults[kind.__name__.strip("_").replace("_", " ")] += 1

    def _kill_worker(self, seat: Seat) -> None:
        for pid in seat.agent.children():
            os.kill(pid, signal.SIGKILL)

    def _kill_agent(self, seat: Seat) -> None:
        seat.agent.signal(signal.SIGKILL)
        seat.agent.wait()
        seat.agent = self._start(seat.name, seat.proxy)

    def _stop_agent(self, seat: Seat) -> None:
        seat.agent.stop()
        seat.agent = self._start(seat.name, seat.proxy)

    def _cut(self, seat: Seat) -> None:
        seat.proxy.cut()

    def _freeze_worker(self, seat: Seat) -> None:
        children = seat.agent.children()
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.0)  # the fault itself
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _swap(self, seat: Seat) -> None:
        self.fleet.put_model(self.random.choice(self._models), context_size=4096)

    def _drain(self, seat: Seat) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.fleet.management, timeout=10)
        with contextlib.closing(connection):
            for agent in self.fleet.snapshot():
                for action in ("drain", "resume"):
                    connection.request("POST", f"/api/v1/agent/{agent['id']}/{action}")
                    connection.getresponse().read()

    def _rests(self) -> bool:
        return (
            self.fleet.slots_ready() == AGENTS * SLOTS
            and self.fleet.slots_busy() == 0
            and self.fleet.buffered() == 0
        )

    # --- load --------------------------------------------------------------------------------

    def _issue(self, seed: float) -> None:
        own = random.Random(seed)
        kinds = (self._native, self._openai, self._openai_stream, self._bad, self._leave)
        while not self._is_over.is_set():
            kind = own.choice(kinds)
            with self._lock:
                self.issued += 1
            try:
                outcome, reason = kind(own), ""
            except Ended as end:
                outcome, reason = end.outcome, end.reason
            except (OSError, http.client.HTTPException) as error:
                outcome, reason = LOST, f"{kind.__name__.strip('_')}: {error!r}"
            with self._lock:
                self.outcomes[outcome] += 1
                if reason:
                    self.reasons[reason] += 1

    def _native(self, own: random.Random) -> str:
        body = raw_prompt(f"word {own.random()}", own.choice((1, 20, 200)))
        status, lines = self._post(self.fleet.inference, "/api/v1/continue_from_raw_prompt", body)
        if status != 200 or not lines:
            raise Ended(LOST, f"native: status {status}, {len(lines)} lines")
        last = json.loads(lines[-1])
        if "Error" in last:
            raise Ended(FAILED, f"error {last['Error']['error']['code']}")
        result = last["Response"]["response"]["GeneratedToken"]
        if "Done" in result:
            return COMPLETED
        kind = next(iter(result))
        raise Ended(LOST if kind.endswith("Token") else FAILED, kind)

    def _openai(self, own: random.Random) -> str:
        body = {"model": "any", "prompt": f"word {own.random()}", "max_tokens": 30}
        status, lines = self._post(self.fleet.openai, "/v1/completions", body)
        if status != 200:
            raise self._openai_error(status, lines)
        if not json.loads(lines[-1])["choices"][0]["finish_reason"]:
            raise Ended(LOST, "OpenAI: an answer without finish_reason")
        return COMPLETED

    def _openai_stream(self, own: random.Random) -> str:
        body = {"model": "any", "prompt": f"word {own.random()}", "max_tokens": 60, "stream": True}
        status, lines = self._post(self.fleet.openai, "/v1/completions", body)
        if status != 200:
            raise self._openai_error(status, lines)
        said = [line for line in lines if line.startswith(b"data: ")]
        if not said or said[-1] != b"data: [DONE]":
            raise Ended(LOST, "OpenAI: a stream without [DONE]")
        for line in said[:-1]:
            if (error := json.loads(line.removeprefix(b"data: ")).get("error")) is not None:
                raise Ended(FAILED, f"error event {error['code'] or error['type']}")
        return COMPLETED

    def _openai_error(self, status: int, lines: list[bytes]) -> "Ended":
        error = json.loads(b"".join(lines))["error"]
        assert error["message"], lines
        return Ended(FAILED, f"status {status} {error['code'] or error['type']}")

    def _bad(self, own: random.Random) -> str:
        body = own.choice(({}, {"raw_prompt": 5}, {"model": "any", "max_tokens": -1}))
        port = own.choice((self.fleet.inference, self.fleet.openai))
        path = (
            "/v1/completions" if port == self.fleet.openai else "/api/v1/continue_from_raw_prompt"
        )
        status, _ = self._post(port, path, body)
        if status != 400:
            raise Ended(LOST, f"a bad request: status {status}")
        return REFUSED

    def _leave(self, own: random.Random) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.fleet.inference, timeout=60)
        with contextlib.closing(connection):
            body = raw_prompt(f"word {own.random()}", 300)
            self._send(connection, "/api/v1/continue_from_raw_prompt", body)
            with contextlib.closing(connection.getresponse()) as response:
                response.readline()
        return LEFT

    def _post(self, port: int, path: str, body: Any) -> tuple[int, list[bytes]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            self._send(connection, path, body)
            response = connection.getresponse()
            lines = [line.strip() for line in response.read().split(b"\n") if line.strip()]
            return response.status, lines

    def _send(self, connection: http.client.HTTPConnection, path: str, body: Any) -> None:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})


def main() -> int:
    """Soak, and print how it went; 0 if nothing was lost or leaked."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Soak(Path(name), arguments.seed).running() as soak:
        soak.play(20.0)  # warm
        before = soak.figures()
        soak.play(arguments.seconds)
        after = soak.figures()
    print(soak.report())
    print(f"before: {before}\nafter:  {after}")
    wrong = soak.faulty(before, after)
    print("\n".join(f"WRONG: {what}" for what in wrong) or "nothing lost, nothing held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
