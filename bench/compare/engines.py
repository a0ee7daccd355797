"""Starting servers of real models, ours and others, all with the same threads and context."""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.compare.processes import BenchFailed, Program, Stage, free_port, get, wait_until
from paddler.agent.cpu import engine_threads
from paddler.messages.state import DEFAULT_DESIRED_STATE

CONTEXT: Final = 8192
LOAD_TIMEOUT_S: Final = 120.0
# What the others have unless told otherwise.
PARAMETERS: Final = {"k_cache_dtype": "F16", "v_cache_dtype": "F16"}


class Served(msgspec.Struct, frozen=True):
    """A fleet of ours: the address of its OpenAI listener, and that of its management."""

    url: str
    management: str


def start_ours(
    on: Stage,
    model: Path,
    *,
    slots: int,
    agents: int = 1,
    context: int = CONTEXT,
    flags: Sequence[str] = (),
    agent_flags: Sequence[str] = (),
    penalty_repeat: float = DEFAULT_DESIRED_STATE.inference_parameters.penalty_repeat,
) -> Served:
    """A balancer, and agents that have loaded ``model``.

    ``penalty_repeat`` is the one value of sampling that a request cannot say for itself.
    """
    management, inference, openai = (free_port() for _ in range(3))
    balancer = on.python(
        "paddler",
        "balancer",
        *("--management-addr", f"127.0.0.1:{management}"),
        *("--inference-addr", f"127.0.0.1:{inference}"),
        *("--compat-openai-addr", f"127.0.0.1:{openai}"),
        *("--inference-item-timeout", "120s", "--buffered-request-timeout", "120s"),
        *("--max-buffered-requests", "1000"),
        *flags,
    )
    balancer.wait_listening(openai)
    served = Served(f"http://127.0.0.1:{openai}", f"http://127.0.0.1:{management}")
    state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
    state["model"] = {"LocalToAgent": str(model)}
    state["inference_parameters"] |= PARAMETERS | {
        "context_size": context,
        "penalty_repeat": penalty_repeat,
    }
    request = urllib.request.Request(
        f"{served.management}/api/v1/balancer_desired_state",
        json.dumps(state).encode(),
        {"content-type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=10).close()
    running = [
        on.python(
            "paddler",
            "agent",
            *("--management-addr", f"127.0.0.1:{management}"),
            *("--slots", str(slots), "--name", f"bench-{number}"),
            *agent_flags,
        )
        for number in range(agents)
    ]

    def is_ready() -> bool:
        for program in (balancer, *running):
            program.check()
        body = get(f"{served.management}/api/v1/agents")
        found: list[dict[str, Any]] = json.loads(body)["agents"] if body else []
        for agent in found:
            if agent["issues"]:  # here nothing mends itself
                raise BenchFailed(f"{agent['name']}: {json.dumps(agent['issues'][0])[:300]}")
        ready: int = sum(agent["slots_total"] for agent in found)
        return ready == slots * agents

    wait_until(is_ready, f"{agents} agents have loaded {model}", LOAD_TIMEOUT_S)
    return served


def cached_share(served: Served) -> float:
    """How much of all prompts was not computed again, from 0 to 1."""
    counts = {"prompt_tokens": 0.0, "cached_prompt_tokens": 0.0}
    for line in get(f"{served.management}/metrics").decode().splitlines():
        name, _, value = line.partition(" ")
        name = name.removeprefix("paddler_").removesuffix("_total")
        if name in counts:
            counts[name] = float(value)
    return counts["cached_prompt_tokens"] / max(1.0, counts["prompt_tokens"])


def start_llama_server(on: Stage, program: str, model: Path, slots: int) -> str:
    """llama.cpp's own server; its address. Each slot has its share of the context."""
    port = free_port()
    started = on.start(
        program,
        *("--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("--ctx-size", str(CONTEXT), "--parallel", str(slots)),
        *("--threads", str(engine_threads()), "--batch-size", "2048"),
    )
    started.wait_listening(port)

    def is_ready() -> bool:
        started.check()
        return b"ok" in get(f"http://127.0.0.1:{port}/health")

    wait_until(is_ready, f"{program} has loaded {model}", LOAD_TIMEOUT_S)
    return f"http://127.0.0.1:{port}"


def start_llama_cpp_python(on: Stage, python: str, model: Path) -> str:
    """The server of the bindings, which answers one request at a time; its address."""
    port = free_port()
    started = on.start(
        python,
        *("-m", "llama_cpp.server", "--model", str(model)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--n_ctx", str(CONTEXT), "--n_threads", str(engine_threads())),
        *("--n_batch", "2048", "--interrupt_requests", "false"),
    )
    wait_until(lambda: _answers(started, port), f"{python} has loaded {model}", LOAD_TIMEOUT_S)
    return f"http://127.0.0.1:{port}"


def _answers(program: Program, port: int) -> bool:
    program.check()
    return bool(get(f"http://127.0.0.1:{port}/v1/models"))
