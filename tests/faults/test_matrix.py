"""Faults in every phase of a fleet's life; ``python -m tests.faults.matrix`` plays all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stage import FAULTS, PHASES, Stage, play
from tests.hub import FileServer
from tests.tiny_gguf import write_tiny_gguf

# Those that take seconds only; the others wait for a link's silence of 10 s.
QUICK = ("kill_worker", "kill_agent", "kill_balancer", "cut_link")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    other = write_tiny_gguf(folder / "tiny.gguf", context_length=4096)
    with FileServer() as files, Stage(folder, smollm2_path, other, files).running() as stage:
        yield stage


@pytest.mark.e2e
@pytest.mark.parametrize("fault", QUICK)
@pytest.mark.parametrize("phase", PHASES)
def test_a_fleet_comes_out_of_a_fault_by_itself(stage: Stage, phase: str, fault: str) -> None:
    play(stage, phase, fault)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in QUICK])
def test_a_fleet_comes_out_of_a_silence_by_itself(stage: Stage, fault: str) -> None:
    play(stage, "streaming", fault)
