"""``paddler model``: which model the fleet runs."""

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from paddler.errors import ConfigError, StartError
from paddler.operators.client import Client
from paddler.operators.issues import PASSING, describe_issue
from paddler.operators.model_names import print_model
from paddler.operators.status import fetch
from paddler.text import printable

STATE: Final = "/api/v1/balancer_desired_state"
LOOK_EVERY_S: Final = 0.5


def show_model(management: Client, *, as_json: bool) -> int:
    """Print the desired state, the model first; the process's exit code."""
    state = management.get(STATE)
    if as_json:
        print(json.dumps(state, indent=2))
        return 0
    print(f"model       {printable(print_model(state['model']))}")
    print(f"projection  {printable(print_model(state['multimodal_projection']))}")
    override = state["chat_template_override"] if state["use_chat_template_override"] else None
    print(f"template    {'of the model' if override is None else 'overridden'}")
    for name, value in state["inference_parameters"].items():
        print(f"{name:<22} {json.dumps(value)}")
    return 0


def set_model(
    management: Client,
    model: Any,
    *,
    projection: Any,
    parameters: Sequence[tuple[str, Any]],
    waits: bool,
) -> int:
    """Ask for a model, all else as it is; the process's exit code.

    ``projection``: ``None`` leaves it as it is.
    """
    state = management.get(STATE)
    state["model"] = model
    if projection is not None:
        state["multimodal_projection"] = projection
    for name, value in parameters:
        if name not in state["inference_parameters"]:
            known = ", ".join(state["inference_parameters"])
            raise ConfigError(f"--set: there is no parameter {name!r}; there are: {known}")
        state["inference_parameters"][name] = value
    management.put(STATE, state)
    print(f"The fleet is asked to run {printable(print_model(model))}.", flush=True)
    if not waits:
        print("See how far it is: paddler status --watch")
        return 0
    return wait_applied(management, model)


def parse_parameter(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, the value as JSON or else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"{text!r}: expected NAME=VALUE, for example context_size=4096")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def wait_applied(management: Client, model: Any) -> int:
    """Wait until every agent runs the desired state; :class:`StartError` once one cannot.

    ``model``: what was just put. Whoever puts another one meanwhile ends this.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"))
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = Bars(progress)
        status = fetch(management)
        goal = status["state"]
        if not status["agents"]:
            console.print("No agent is connected yet: waiting for one.")
        while True:
            if (status["model"], status["state"]) != (model, goal):
                raise StartError(
                    "somebody asked for another state meanwhile, with the model "
                    + printable(print_model(status["model"]))
                )
            told = {one["id"]: one["details"] or {} for one in status["details"]}
            for agent in status["agents"]:
                bars.show(agent)
                # Until it has heard of this state, its issues are those of another one.
                if told.get(agent["id"], {}).get("wanted_state") == goal:
                    _refuse_issues(agent)
            applied = [one.get("applied_state") == goal for one in told.values()]
            if applied and all(applied):
                break
            time.sleep(LOOK_EVERY_S)
            status = fetch(management)
    print(f"Applied on {len(applied)} {'agent' if len(applied) == 1 else 'agents'}.")
    return 0


class Bars:
    """A line of progress for each agent."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._by_agent: dict[str, TaskID] = {}

    def show(self, agent: dict[str, Any]) -> None:
        """Show how far this agent is."""
        bar = self._by_agent.get(agent["id"])
        if bar is None:
            name = printable(agent["name"] or agent["id"])
            bar = self._by_agent[agent["id"]] = self._progress.add_task(name, total=None, doing="")
        self._progress.update(
            bar,
            total=agent["download_total"] or None,
            completed=agent["download_current"],
            doing=printable(agent["download_filename"] or agent["state_application_status"]),
        )


def _refuse_issues(agent: dict[str, Any]) -> None:
    for issue in agent["issues"]:
        if PASSING.isdisjoint(issue):
            text, advice = describe_issue(issue)
            name = printable(agent["name"] or agent["id"])
            raise StartError(f"{name}: {text}" + (f"; {advice}" if advice else ""))
