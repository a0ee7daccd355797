"""What operators read names everything that there is."""

import re
from pathlib import Path
from typing import get_args

import pytest

from paddler.balancer.app import Balancer
from paddler.balancer.journal import EventKind
from paddler.balancer.records import RequestOutcome
from paddler.cli import build_parser
from paddler.messages.agents import AgentDetails, AgentIssue, AgentPhase
from paddler.messages.operations import AgentReport
from paddler.net.http import Handler, Router
from paddler.operators.issues import ADVICE
from tests.balancer.services.running import config_of

GUIDE = (Path(__file__).parent.parent / "docs" / "operate.md").read_text()


class Recorded(Router):
    """Notes the paths that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: set[str] = set()

    def add(
        self, method: str, pattern: str, handler: Handler, *, max_body_bytes: int | None = None
    ) -> None:
        self.paths.add(pattern)
        super().add(method, pattern, handler, max_body_bytes=max_body_bytes)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(AgentIssue.__struct_encode_fields__, id="issues"),
        pytest.param(get_args(EventKind), id="kinds of events"),
        pytest.param(get_args(AgentPhase), id="phases"),
        pytest.param([outcome.value for outcome in RequestOutcome], id="outcomes"),
    ],
)
def test_every_name_is_explained(names: list[str]) -> None:
    assert [name for name in names if f"`{name}`" not in GUIDE] == []


def test_every_field_of_an_agents_details_is_in_the_example() -> None:
    fields = AgentReport.__struct_encode_fields__ + AgentDetails.__struct_encode_fields__
    assert [name for name in fields if f'"{name}":' not in GUIDE] == []


def test_every_route_is_listed() -> None:
    router = Recorded()
    balancer = Balancer(config_of())
    balancer.add_management_routes(router)
    balancer.state.close()
    internal = {"/api/v1/agent_socket/{agent_id}"}
    ends = {
        path.replace("{agent_id}", "{id}").rpartition("/")[2] for path in router.paths - internal
    }
    assert {end for end in ends if not re.search(rf"[/`]{end}\b", GUIDE)} == set()


def test_every_issue_has_its_advice() -> None:
    assert set(ADVICE) == set(AgentIssue.__struct_encode_fields__)


def test_every_command_is_listed() -> None:
    (roles,) = [one for one in build_parser()._actions if one.dest == "role"]
    assert roles.choices is not None
    services = {"balancer", "agent", "up", "help"}
    commands = [name for name in roles.choices if name not in services]
    assert [name for name in commands if f"`paddler {name}" not in GUIDE] == []
