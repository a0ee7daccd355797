"""``paddler model``: which model the fleet runs."""

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from paddler.errors import ConfigError, StartError
from paddler.operators.client import Client
from paddler.operators.model_names import print_model
from paddler.operators.status import ADVICE

STATE: Final = "/api/v1/balancer_desired_state"


def show_model(management: Client, *, as_json: bool) -> int:
    """Print the desired state, the model first; the process's exit code."""
    state = management.get(STATE)
    if as_json:
        print(json.dumps(state, indent=2))
        return 0
    print(f"model       {print_model(state['model'])}")
    print(f"projection  {print_model(state['multimodal_projection'])}")
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
    print(f"The fleet is asked to run {print_model(model)}.")
    if not waits:
        print("See how far it is: paddler status --watch")
        return 0
    return wait_serving(management, expects_slots=model != "None")


def parse_parameter(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, the value as JSON or else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"{text!r}: expected NAME=VALUE, for example context_size=4096")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def wait_serving(management: Client, *, expects_slots: bool) -> int:
    """Wait until every agent has applied the state; :class:`StartError` once one cannot."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"))
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        bars: dict[str, Any] = {}
        for snapshot in management.events("/api/v1/agents/stream"):
            agents = snapshot["agents"]
            for agent in agents:
                name = agent["name"] or agent["id"]
                if agent["id"] not in bars:
                    bars[agent["id"]] = progress.add_task(name, total=None, doing="")
                progress.update(
                    bars[agent["id"]],
                    total=agent["download_total"] or None,
                    completed=agent["download_current"],
                    doing=agent["download_filename"] or agent["state_application_status"],
                )
                _refuse_issues(name, agent)
            if agents and all(_is_applied(agent, expects_slots=expects_slots) for agent in agents):
                break
    print(f"Applied on {len(agents)} {'agent' if len(agents) == 1 else 'agents'}.")
    return 0


def _is_applied(agent: dict[str, Any], *, expects_slots: bool) -> bool:
    has_slots = agent["slots_total"] > 0
    return (
        agent["state_application_status"] == "Applied"
        and agent["download_filename"] is None
        and has_slots is expects_slots
    )


def _refuse_issues(name: str, agent: dict[str, Any]) -> None:
    for issue in agent["issues"]:
        ((variant, detail),) = issue.items()
        if "Lock" not in variant:  # it waits for another agent, which is no failure
            raise StartError(
                f"{name}: {variant}: {json.dumps(detail)}"
                + (f"; {ADVICE[variant]}" if variant in ADVICE else "")
            )
