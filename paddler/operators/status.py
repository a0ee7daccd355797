"""``paddler status``: the fleet as a table, once or live, or as JSON."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paddler.operators.client import BalancerGone, Client
from paddler.operators.issues import describe_issue
from paddler.operators.model_names import print_model
from paddler.text import printable

REFRESH_S: Final = 1.0
PIPED_WIDTH: Final = 1000
"""Whoever reads from a pipe wants an agent a line, however long."""


def show_status(management: Client, *, as_json: bool, watch: bool) -> int:
    """Print the state of the fleet; the process's exit code."""
    console = Output()
    # On a terminal that cannot move its cursor, one table after the other.
    if watch and console.is_terminal and not console.is_dumb_terminal and not as_json:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            for now in watch_fleet(management):
                shown = (
                    Text(str(now), style="red")
                    if isinstance(now, BalancerGone)
                    else render(now, issues_first=True)
                )
                live.update(shown, refresh=True)
    for now in watch_fleet(management) if watch else (fetch(management),):
        if isinstance(now, BalancerGone):
            print(now, file=sys.stderr)
        elif as_json:
            print(json.dumps(now), flush=True)
        else:
            console.print(render(now))
    return 0


def fetch(management: Client) -> dict[str, Any]:
    """All that the table shows."""
    details = management.get("/api/v1/agent_details")
    return {
        **management.get("/api/v1/agents"),
        **management.get("/api/v1/buffered_requests"),
        "details": details["agents"],
        "model": details["desired_model"],
        "state": details["desired_state"],
    }


def watch_fleet(management: Client) -> Iterator[dict[str, Any] | BalancerGone]:
    """The state now and every second, without an end; once it is gone, how the balancer is."""
    yield fetch(management)
    is_lost = False
    while True:
        time.sleep(REFRESH_S)
        try:
            yield fetch(management)
        except BalancerGone as error:
            if not is_lost:
                yield error
            is_lost = True
        else:
            is_lost = False


class Output(Console):
    """Standard output, whose reader may have had enough of it."""

    def __init__(self) -> None:
        super().__init__(highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = PIPED_WIDTH

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, as for every other command."""
        raise BrokenPipeError


def render(status: dict[str, Any], *, issues_first: bool = False) -> RenderableType:
    """The table and what stands around it.

    ``issues_first``: where only the beginning of it may be seen.
    """
    agents = status["agents"]
    details = {one["id"]: one for one in status["details"]}
    busy = sum(agent["slots_processing"] for agent in agents)
    total = sum(agent["slots_total"] for agent in agents)
    summary = Text.assemble(
        ("model ", "dim"),
        printable(print_model(status["model"])),
        ("   slots ", "dim"),
        f"{busy}/{total}",
        ("   waiting ", "dim"),
        str(status["buffered_requests_current"]),
        ("   agents ", "dim"),
        str(len(agents)),
    )
    if not agents:
        return Group(
            summary,
            Text("No agent is connected. On each host that shall run a model:", style="yellow"),
            Text("  paddler agent --management-addr HOST:PORT --slots 4"),
        )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("AGENT", "SLOTS", "STATUS", "MODEL", "DOING"):
        table.add_column(column, overflow="fold", no_wrap=column == "SLOTS")
    issues: list[Text] = []
    for agent in agents:
        about = details.get(agent["id"], {})
        table.add_row(
            _name(agent),
            f"{agent['slots_processing']}/{agent['slots_total']}",
            _status(agent, about),
            printable((agent["model_path"] or "-").rpartition("/")[2]),
            _activity(agent, about.get("details") or {}),
        )
        issues += _issues(agent)
    parts: list[RenderableType] = [table, Text(), *issues] if issues else [table]
    if issues_first and issues:
        parts = [*issues, Text(), table]
    return Group(summary, Text(), *parts)


def _name(agent: dict[str, Any]) -> str:
    return printable(agent["name"] or agent["id"])


def _status(agent: dict[str, Any], about: dict[str, Any]) -> Text:
    if about.get("is_drained"):
        return Text("drained", style="yellow")
    status = agent["state_application_status"]
    styles = {"Applied": "green", "Fresh": "cyan", "Stuck": "red"}
    return Text(status, style=styles.get(status, "yellow"))


def _activity(agent: dict[str, Any], details: dict[str, Any]) -> str:
    if agent["download_filename"] is not None:
        return _download(agent, details)
    phase = str(details.get("phase") or "-").replace("_", " ")
    fraction = details.get("load_fraction")
    return phase if fraction is None else f"{phase} {fraction:.0%}"


def _download(agent: dict[str, Any], details: dict[str, Any]) -> str:
    done = _megabytes(agent["download_current"])
    text = f"downloading {printable(agent['download_filename'])} {done}"
    if agent["download_total"]:
        share = agent["download_current"] / agent["download_total"]
        text += f" of {_megabytes(agent['download_total'])} ({share:.0%})"
    if (left_s := details.get("seconds_left")) is not None:
        text += f", {left_s:.0f} s left"
    return text


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _issues(agent: dict[str, Any]) -> list[Text]:
    """A line for each thing that is wrong; each slot may have the same, and there may be many."""
    counts = Counter(describe_issue(issue) for issue in agent["issues"])
    return [
        Text.assemble(
            ("! ", "red"),
            f"{_name(agent)}: {text}" + (f" ({count} times)" if count > 1 else ""),
            (f"; {advice}" if advice else "", "dim"),
        )
        for (text, advice), count in counts.items()
    ]
