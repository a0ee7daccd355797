"""``paddler agents`` and ``paddler events``: takes agents out and in, tells what happened."""

import json
import time
from typing import Any

from paddler.errors import ConfigError
from paddler.operators.client import Client
from paddler.text import printable


def control_agents(management: Client, action: str, name: str) -> int:
    """Drain, resume or disconnect every agent of this name, or the one with this id."""
    agents = management.get("/api/v1/agents")["agents"]
    ids = [agent["id"] for agent in agents if name in (agent["name"], agent["id"])]
    if not ids:
        known = ", ".join(agent["name"] or agent["id"] for agent in agents) or "none"
        raise ConfigError(f"no agent is named {name!r}; connected are: {printable(known)}")
    for agent_id in ids:
        management.post(f"/api/v1/agent/{agent_id}/{action}")
    done = {"drain": "drained", "resume": "resumed", "disconnect": "disconnected"}[action]
    print(f"{name}: {done}" + (f" ({len(ids)} agents)" if len(ids) > 1 else ""))
    return 0


def show_events(management: Client, *, follow: bool, as_json: bool) -> int:
    """Print the events that are kept and, if they are followed, each new one."""
    if follow:
        for event in management.follow("/api/v1/events/stream"):
            print(_line(event, as_json=as_json), flush=True)
        return 0
    for event in management.get("/api/v1/events")["events"]:
        print(_line(event, as_json=as_json))
    return 0


def _line(event: dict[str, Any], *, as_json: bool) -> str:
    if as_json:
        return json.dumps(event)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
    return f"{at}  {event['kind']:<18}  {printable(event['text'])}"
