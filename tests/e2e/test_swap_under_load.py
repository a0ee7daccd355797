"""A model is swapped while clients go on asking: nobody sees a failure."""

import itertools
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.fleet import PATIENT, Answer, Fleet, raw_prompt, wait_until


class Client(threading.Thread):
    """Asks one question after the other until it is told to end."""

    def __init__(self, fleet: Fleet, is_over: threading.Event) -> None:
        super().__init__()
        self._fleet = fleet
        self._is_over = is_over
        self.arrived_at: list[float] = []
        self.failures: list[object] = []
        self.answers = 0

    def run(self) -> None:
        while not self._is_over.is_set():
            answer = Answer(self._fleet.inference, raw_prompt("Once upon a time", 8))
            last = answer.rest()[-1]
            self.arrived_at += answer.arrived_at
            self.answers += 1
            if "Done" not in last.get("Response", {}).get("response", {}).get("GeneratedToken", {}):
                self.failures.append(last)


@pytest.fixture
def busy_fleet(tmp_path: Path, smollm2_path: Path) -> Fleet:
    return Fleet(tmp_path, *PATIENT)


def test_a_swap_under_load_fails_no_request(busy_fleet: Fleet, smollm2_path: Path) -> None:
    with busy_fleet as fleet:
        for name in ("agent-1", "agent-2"):
            fleet.start_agent(name, 2)
        fleet.put_model(smollm2_path, context_size=1024)
        fleet.wait_slots(4)
        is_over = threading.Event()
        clients = [Client(fleet, is_over) for _ in range(6)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.answers for client in clients), "every client was served")
        swapped_at = time.monotonic()
        fleet.put_model(smollm2_path, context_size=2048)
        wait_until(lambda: fleet.slots_ready() == 0, "both agents swap")
        fleet.wait_slots(4)
        served = [client.answers for client in clients]
        wait_until(
            lambda: all(c.answers > n for c, n in zip(clients, served, strict=True)),
            "every client is served again",
        )
        is_over.set()
        for client in clients:
            client.join()
        assert [failure for client in clients for failure in client.failures] == []
        arrivals = sorted(at for client in clients for at in client.arrived_at)
        after = [at for at in arrivals if at > swapped_at]
        gap_s = max(b - a for a, b in itertools.pairwise(after))
        print(f"no token for {gap_s:.2f} s during the swap")
