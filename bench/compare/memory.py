"""Memory of connections and streams, and what is left of many that have come and gone."""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Final

from bench.compare.findings import OURS, Findings
from bench.compare.processes import Fleet, Origin, Program, Proxy, Stage, find_program, stage
from bench.descriptors import allow_many_sockets

OTHERS: Final = ("nginx", "haproxy")
SETTLE_S: Final = 1.0
BODY: Final = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"Hi"}]}'
REQUEST: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
KIB: Final = 1024


def measure_memory(findings: Findings, *, is_quick: bool) -> None:
    """KiB of each idle connection and each stream, ours and theirs; and ours after churn."""
    connections, streams = (1_000, 500) if is_quick else (4_000, 2_000)
    ramp_s = 1.5 if is_quick else 3.0
    allow_many_sockets(connections)
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            findings.skip(f"memory: {program} is not installed")
            continue
        with stage() as on:
            measured, url, port = _start(on, program, streams)
            before = _settled(measured)
            with _idle_connections(port, connections):
                idle_kib = (_settled(measured) - before) / connections / KIB
        findings.add("memory", "an idle connection", "KiB", program, idle_kib, budget=20.0)
        with stage() as on:
            measured, url, _ = _start(on, program, streams)
            before = _settled(measured)
            load = on.load(
                url,
                *("--streams", str(streams), "--max-tokens", "1000000", "--ramp", str(ramp_s)),
                *("--duration", str(ramp_s + 6.0), "--drain", "0"),
            )
            time.sleep(ramp_s + 3.5)
            stream_kib = (measured.memory_bytes() - before) / streams / KIB
            load.report()
        findings.add("memory", "a live stream", "KiB", program, stream_kib, budget=40.0)
    _measure_churn(findings, is_quick=is_quick)


def _start(on: Stage, program: str, streams: int) -> tuple[Program, str, int]:
    """The program that is measured, its address and its port."""
    if program == OURS:
        pace = ("--rate", "1", "--tokens", "1000000")
        fleet = Fleet(on, agents=streams // 8 + 1, slots=8, agent_words=pace)
        return fleet.balancer, fleet.url, fleet.openai
    proxy = Proxy(on, program, Origin(on, "--rate", "1"))
    return proxy.program, proxy.url, proxy.port


def _measure_churn(findings: Findings, *, is_quick: bool) -> None:
    """Growth from one round of streams that come and go to the next, the first left out."""
    seconds = "4" if is_quick else "12"
    with stage() as on:
        fleet = Fleet(on, agents=25, slots=8, agent_words=("--rate", "100", "--tokens", "20"))
        sizes = []
        streams = 0
        for _ in range(3):
            words = ("--streams", "200", "--max-tokens", "20", "--duration", seconds)
            streams = on.load(fleet.url, *words).report().finished
            sizes.append(_settled(fleet.balancer))
        grown_kib = (sizes[-1] - sizes[-2]) / KIB
    name = "growth by a round of streams that come and go"
    findings.add("memory", name, "KiB", OURS, grown_kib, budget=1024.0)
    findings.note(f"A round of churn was {streams:,} streams.")


def _settled(program: Program) -> int:
    time.sleep(SETTLE_S)
    return program.memory_bytes()


@contextlib.contextmanager
def _idle_connections(port: int, count: int) -> Iterator[None]:
    """Connections that have been answered once, and wait."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            sock.sendall(REQUEST)
            answer = b""
            while b"}}" not in answer.replace(b"} }", b"}}"):
                if not (part := sock.recv(65_536)):
                    break
                answer += part
        yield
