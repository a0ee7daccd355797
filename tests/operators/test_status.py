"""The table of ``paddler status``: what stands where, and what it costs to be narrow."""

import io
from typing import Any

import pytest
from rich.console import Console

from paddler.operators.status import render
from paddler.text import printable

ISSUE = {"ModelFileDoesNotExist": {"model_path": "/m"}}


def agent(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "desired_slots_total": 4,
        "download_current": 0,
        "download_filename": None,
        "download_indeterminate": True,
        "download_total": 0,
        "id": f"id-{number}",
        "issues": [],
        "model_path": "/models/a-model-with-quite-a-long-name-Q4_K_M.gguf",
        "name": f"gpu-{number}",
        "slots_processing": 1,
        "slots_total": 4,
        "state_application_status": "Applied",
        "uses_chat_template_override": False,
    } | changes


def shown(agents: list[dict[str, Any]], width: int = 120, **options: Any) -> list[str]:
    """The lines of a terminal of this width."""
    status = {
        "agents": agents,
        "buffered_requests_current": 3,
        "details": [],
        "model": {"LocalToAgent": "/models/a.gguf"},
    }
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(render(status, **options))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_two_hundred_agents_are_a_line_each() -> None:
    lines = shown([agent(number) for number in range(200)])
    assert lines[0] == "model /models/a.gguf   slots 200/800   waiting 3   agents 200"
    assert [line.split()[0] for line in lines[3:]] == [f"gpu-{number}" for number in range(200)]


@pytest.mark.parametrize("width", [40, 60, 79])
def test_a_narrow_terminal_folds_and_loses_nothing(width: int) -> None:
    lines = shown([agent(1)], width)
    assert all(len(line) <= width for line in lines)
    rows = lines[lines.index("") + 2 :]
    first, *rest = rows
    assert first.split()[:3] == ["gpu-1", "1/4", "Applied"]
    model = first.split()[3] + "".join(line.strip() for line in rest)
    assert model == "a-model-with-quite-a-long-name-Q4_K_M.gguf"


def test_issues_come_first_where_only_the_beginning_may_be_seen() -> None:
    agents = [agent(number) for number in range(3)] + [agent(3, issues=[ISSUE])]
    (issue,) = [line for line in shown(agents) if line.startswith("! ")]
    assert issue.startswith("! gpu-3: ModelFileDoesNotExist: /m; put the file there")
    assert shown(agents)[-1] == issue
    assert shown(agents, issues_first=True)[2] == issue


def test_what_each_slot_suffers_from_is_said_once() -> None:
    slots = [{"SlotCannotStart": {"error": "no room", "slot_index": n}} for n in range(257)]
    (issue,) = [line for line in shown([agent(1, issues=slots)]) if line.startswith("! ")]
    assert issue.startswith("! gpu-1: SlotCannotStart: no room (257 times); fewer --slots")


def test_what_agents_say_cannot_move_the_cursor() -> None:
    lines = shown([agent(1, name="a\n\x1b[2J", issues=[{"X": {"model_path": "/\x1b]0;x\x07"}}])])
    assert not any("\x1b" in line or "\x07" in line for line in lines)
    assert any(line.startswith("a\\n\\x1b[2J") for line in lines)


@pytest.mark.parametrize(
    ("text", "seen"),
    [("plain é🎉", "plain é🎉"), ("a\tb\n", "a\\tb\\n"), ("\x1b[31m", "\\x1b[31m"), ("", "")],
)
def test_control_characters_are_spelt_out(text: str, seen: str) -> None:
    assert printable(text) == seen
