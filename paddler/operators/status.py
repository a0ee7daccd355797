"""``paddler status``: the fleet as a table, once or live, or as JSON."""

import json
import sys
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paddler.operators.client import Client
from paddler.operators.model_names import print_model

REFRESH_PER_S: Final = 4

# What operators can do about an issue; the variants are those of the management service.
ADVICE: Final = {
    "CacheCannotAcquireLock": "another process on this machine downloads the file: it waits",
    "CacheDirectoryIsNotWritable": "give the agent a writable PADDLER_CACHE_DIR",
    "CacheStorageIsFull": "free space on the agent's cache disk",
    "ChatTemplateDoesNotCompile": "correct the chat template, or stop overriding the model's",
    "DownloadInterrupted": "the download broke off: it goes on by itself",
    "DownloadServerDeniedAccess": "check the address and its access rights",
    "DownloadServerErrored": "the server failed: it is tried again",
    "DownloadServerIsUnreachable": "check the agent's network and proxies",
    "DownloadServerRejectedRequest": "check the address",
    "DownloadUrlIsMalformed": "correct the address",
    "HuggingFaceCannotAcquireLock": "another process on this machine downloads the file: it waits",
    "HuggingFaceModelDoesNotExist": "check repository, file and revision",
    "HuggingFacePermissions": "set HF_TOKEN on the agent to a token that may read it",
    "ModelCacheIsCorrupted": "the cached file was damaged: it is downloaded anew",
    "ModelCannotBeLoaded": "see the agent's log: the file may be damaged, or of an unknown kind",
    "ModelDoesNotExistAtUrl": "check the address",
    "ModelFileDoesNotExist": "put the file there on the agent's machine, or correct the path",
    "MultimodalProjectionCannotBeLoaded": "check that the projection fits the model",
    "SlotCannotStart": "fewer --slots, or a smaller context_size",
    "UnableToFindChatTemplate": "set a chat template override: the model has none",
}


def show_status(management: Client, *, as_json: bool, watch: bool) -> int:
    """Print the state of the fleet; the process's exit code."""
    if as_json:
        for document in _documents(management, watch=watch):
            print(json.dumps(document), flush=True)
        return 0
    console = Console(highlight=False)
    if not watch:
        console.print(render(fetch(management)))
        return 0
    with Live(
        console=console, refresh_per_second=REFRESH_PER_S, screen=sys.stdout.isatty()
    ) as live:
        for document in _documents(management, watch=True):
            live.update(render(document))
    return 0


def fetch(management: Client) -> dict[str, Any]:
    """All that the table shows."""
    return {
        **management.get("/api/v1/agents"),
        **management.get("/api/v1/buffered_requests"),
        "details": management.get("/api/v1/agent_details")["agents"],
        "model": management.get("/api/v1/balancer_desired_state")["model"],
    }


def _documents(management: Client, *, watch: bool) -> Any:
    """The state now and, if it is watched, again every second."""
    yield fetch(management)
    if watch:
        for _ in management.events("/api/v1/history/stream"):
            yield fetch(management)


def render(status: dict[str, Any]) -> RenderableType:
    """The table and what stands around it."""
    agents = status["agents"]
    details = {one["id"]: one for one in status["details"]}
    busy = sum(agent["slots_processing"] for agent in agents)
    total = sum(agent["slots_total"] for agent in agents)
    summary = Text.assemble(
        ("model ", "dim"),
        print_model(status["model"]),
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
        table.add_column(column, overflow="fold")
    issues: list[Text] = []
    for agent in agents:
        about = details.get(agent["id"], {})
        table.add_row(
            _name(agent),
            f"{agent['slots_processing']}/{agent['slots_total']}",
            _status(agent, about),
            (agent["model_path"] or "-").rpartition("/")[2],
            _activity(agent, about.get("details") or {}),
        )
        issues += [_issue(agent, issue) for issue in agent["issues"]]
    return Group(summary, Text(), table, *([Text(), *issues] if issues else []))


def _name(agent: dict[str, Any]) -> str:
    return str(agent["name"] or agent["id"])


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
    text = f"downloading {agent['download_filename']} {done}"
    if agent["download_total"]:
        share = agent["download_current"] / agent["download_total"]
        text += f" of {_megabytes(agent['download_total'])} ({share:.0%})"
    if (left_s := details.get("seconds_left")) is not None:
        text += f", {left_s:.0f} s left"
    return text


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _issue(agent: dict[str, Any], issue: dict[str, Any]) -> Text:
    ((variant, detail),) = issue.items()
    what = detail.get("error") or _path(detail)
    advice = ADVICE.get(variant)
    return Text.assemble(
        ("! ", "red"),
        f"{_name(agent)}: {variant}: {what}",
        (f"; {advice}" if advice else "", "dim"),
    )


def _path(detail: dict[str, Any]) -> str:
    path = detail.get("model_path")
    return _path(path) if isinstance(path, dict) else str(path)
