"""A balancer that is killed at any moment leaves the old state or the new one, whole."""

import http.client
import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from paddler.balancer.desired_state import parse_state_file
from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.e2e.fleet import Fleet, request

# Each costs a start of the balancer. Set it higher for a longer look.
KILLS: Final = int(os.environ.get("PADDLER_TEST_KILLS", "15"))

STATE: Final = "/api/v1/balancer_desired_state"


def numbered(number: int) -> dict[str, Any]:
    """A state that is told apart by its number, of some size: more than one page."""
    state: dict[str, Any] = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
    content = f"{number}:" + "x" * 20_000
    return state | {"chat_template_override": {"content": content}}


def number_in(state: dict[str, Any]) -> int:
    override = state["chat_template_override"]
    return -1 if override is None else int(override["content"].partition(":")[0])


def put_until_killed(fleet: Fleet, first: int, acknowledged: list[int]) -> None:
    """Put one state after the other; notes the last that was acknowledged."""
    number = first
    while True:
        body = json.dumps(numbered(number)).encode()
        try:
            status, _ = request(fleet.management, "PUT", STATE, body, timeout_s=10)
        except (OSError, http.client.HTTPException):
            return
        assert status == 204
        acknowledged.append(number)
        number += 1


def test_a_killed_balancer_leaves_a_whole_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    choose = random.Random(1)
    acknowledged = [-1]
    with Fleet(tmp_path, "--state-database", f"file://{path}") as fleet:
        for _ in range(KILLS):
            first = acknowledged[-1] + 2
            putting = threading.Thread(target=put_until_killed, args=(fleet, first, acknowledged))
            putting.start()
            # Wait for some acknowledged states, a different number each time, then kill.
            goal = len(acknowledged) + choose.randint(0, 5)
            while len(acknowledged) < goal and putting.is_alive():
                putting.join(0.001)
            assert fleet.balancer is not None
            fleet.balancer.signal(signal.SIGKILL)
            fleet.balancer.wait()
            putting.join()
            written = msgspec.to_builtins(parse_state_file(path.read_bytes()))
            # The last acknowledged one, or one that was under way.
            assert number_in(written) in (acknowledged[-1], max(acknowledged[-1] + 1, first))
            assert written == numbered(number_in(written)) or number_in(written) == -1
            fleet.start_balancer()
            served = json.loads(request(fleet.management, "GET", STATE)[1])
            assert served == written
            acknowledged.append(number_in(written))
