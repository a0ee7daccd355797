"""``paddler up``: a balancer and an agent in one process, for first contact.

Both are the real ones, on real sockets; only the process is shared, so that nothing is
left behind whatever happens to the terminal.
"""

import asyncio
import contextlib
import http.client
import json
import os
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.text import Text

from paddler import __version__
from paddler.agent.activity import Activity, Phase
from paddler.agent.app import Agent
from paddler.agent.own_memory import keep_own_memory
from paddler.balancer.app import Balancer
from paddler.config import Address, AgentConfig, BalancerConfig
from paddler.descriptors import raise_limit
from paddler.errors import StartError
from paddler.messages.agents import AgentIssue, AgentSnapshot
from paddler.messages.state import DEFAULT_DESIRED_STATE, ModelSource
from paddler.operators.model_names import print_model
from paddler.race import race
from paddler.signals import StopSignals

MAX_ANSWER_TOKENS: Final = 128
ANSWER_TIMEOUT_S: Final = 120

console = Console(highlight=False, soft_wrap=True)


def run(balancer: BalancerConfig, agent: AgentConfig, *, model: ModelSource, question: str) -> int:
    """Serve ``model`` until Ctrl-C; the process's exit code."""
    path = model.local_to_agent
    if isinstance(path, str) and not os.path.isfile(path):
        what = "is no file" if os.path.exists(path) else "does not exist"
        raise StartError(f"--model: {path} {what}")
    raise_limit()
    keep_own_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(balancer, agent, model, question))
    return 0


async def serve(
    balancer_config: BalancerConfig, agent_config: AgentConfig, model: ModelSource, question: str
) -> None:
    """Start both, load the model, ask, and serve until the process is told to stop."""
    async with (
        StopSignals() as signals,
        Balancer(balancer_config).running() as balancer,
        Agent(agent_config).running() as agent,
    ):
        greeting, _ = await race(
            greet(balancer, agent, balancer_config, model, question), signals.wait()
        )
        failure = None if greeting.cancelled() else greeting.exception()
        if failure is None:
            await signals.wait()
            console.print("\nStopping…")
            await signals.unless_again(agent.drain())
            await signals.unless_again(balancer.drain())
    # Raised out here: the task groups within would wrap it.
    if failure is not None:
        raise failure


async def greet(
    balancer: Balancer, agent: Agent, config: BalancerConfig, model: ModelSource, question: str
) -> None:
    """Load the model, ask the question, and say where everything is."""
    name = os.path.basename(print_model(msgspec.to_builtins(model)))
    started = time.monotonic()
    balancer.state.put(msgspec.structs.replace(DEFAULT_DESIRED_STATE, model=model))
    slots = await wait_ready(balancer, agent, name)
    console.print(
        f"[bold]Paddler {__version__}[/] serves [bold]{name}[/] on {slots} slots, "
        f"ready after {time.monotonic() - started:.1f} s\n"
    )
    await asyncio.to_thread(ask, config.inference, question)
    say_where(config)


async def wait_ready(balancer: Balancer, agent: Agent, name: str) -> int:
    """Slots of the agent once it serves; :class:`StartError` if it says that it cannot."""
    changed = asyncio.Event()
    balancer.pool.watch(changed.set)
    agent.activity.watch(changed.set)
    with console.status("Starting…") as status:
        while True:
            changed.clear()
            agents = balancer.pool.snapshot().agents
            if agents and any(not is_wait(issue) for issue in agents[0].issues):
                raise StartError(f"the agent cannot serve {name}: {describe_issues(agents[0])}")
            if agents and agents[0].slots_total > 0:
                return agents[0].slots_total
            status.update(describe_activity(agent.activity.now, name, agents))
            await changed.wait()


def is_wait(issue: AgentIssue) -> bool:
    """Whether an issue only says that another process downloads the same file."""
    return (
        issue.cache_cannot_acquire_lock is not msgspec.UNSET
        or issue.hugging_face_cannot_acquire_lock is not msgspec.UNSET
    )


def describe_activity(activity: Activity, name: str, agents: Sequence[AgentSnapshot] = ()) -> str:
    """What happens right now, in a few words."""
    match activity.phase:
        case Phase.DOWNLOADING if agents and agents[0].download_total:
            done, total = agents[0].download_current, agents[0].download_total
            left_s = activity.seconds_left
            left = "" if left_s is None else f", {left_s:.0f} s left"
            return f"Downloading {name}… {done / 1e6:.1f} of {total / 1e6:.1f} MB{left}"
        case Phase.DOWNLOADING:
            return f"Downloading {name}…"
        case Phase.WAITING_FOR_LOCK:
            return f"Waiting: another process downloads {name}…"
        case Phase.LOADING:
            return f"Loading {name}… {activity.load_fraction:.0%}"
        case Phase.WARMING:
            return f"Warming up {name}…"
        case _:
            return "Starting the agent and its worker…"


def describe_issues(agent: AgentSnapshot) -> str:
    """The agent's issues as short JSON."""
    return msgspec.json.encode(agent.issues).decode()


def ask(address: Address, question: str) -> None:
    """Ask over HTTP, as any client would, and print the answer as it comes."""
    console.print(Text(f"> {question}", style="bold"))
    started = time.monotonic()
    tokens = 0
    for line in stream_answer(address, question):
        ((_, message),) = line.items()
        if "error" in message:
            raise StartError(f"the first question failed: {message['error']['description']}")
        ((variant, value),) = message["response"]["GeneratedToken"].items()
        if variant in ("ContentToken", "UndeterminableToken"):
            tokens += 1
            console.out(value, end="", highlight=False)
        elif variant not in ("Done", "ReasoningToken", "ToolCallToken"):
            raise StartError(f"the first question failed: {variant}: {value}")
    elapsed_s = time.monotonic() - started
    console.print(f"\n[dim]{tokens} tokens in {elapsed_s:.1f} s[/]\n")


def stream_answer(address: Address, question: str) -> Iterator[dict[str, Any]]:
    """The lines of one answer."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=ANSWER_TIMEOUT_S)
    body = {
        "add_generation_prompt": True,
        "conversation_history": [{"role": "user", "content": question}],
        "enable_thinking": False,
        "max_tokens": MAX_ANSWER_TOKENS,
    }
    with contextlib.closing(connection):
        connection.request(
            "POST",
            "/api/v1/continue_from_conversation_history",
            json.dumps(body),
            {"content-type": "application/json"},
        )
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            reason = response.read().decode(errors="replace")
            raise StartError(f"the first question failed with status {response.status}: {reason}")
        for line in response:
            yield json.loads(line)


def say_where(config: BalancerConfig) -> None:
    """Print the addresses and a command to try."""
    assert config.openai is not None
    assert config.panel is not None
    places = (
        ("Inference", f"http://{config.inference.text}"),
        ("OpenAI API", f"http://{config.openai.text}/v1"),
        ("Web panel", f"http://{config.panel.text}"),
        ("Management", f"http://{config.management.text}"),
    )
    for label, url in places:
        console.print(f"  {label:<11} [cyan]{url}[/]")
    body = '{"model": "local", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'
    command = (
        f"curl -N http://{config.openai.text}/v1/chat/completions "
        f"-H 'content-type: application/json' -d '{body}'"
    )
    console.print("\nTry it:")
    console.out(f"  {command}", highlight=False)
    console.print("\nCtrl-C stops it.")
