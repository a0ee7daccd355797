"""Two minutes of the soak; ``python -m tests.faults.soak`` goes on for longer."""

from pathlib import Path

import pytest

from tests.faults.soak import Soak

WARM_S, SOAK_S = 10.0, 95.0


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_every_request_has_an_end_and_nothing_is_held(tmp_path: Path) -> None:
    with Soak(tmp_path, seed=7).running() as soak:
        soak.play(WARM_S)
        before = soak.figures()
        soak.play(SOAK_S)
        after = soak.figures()
    print(soak.report())
    assert not soak.faulty(before, after), soak.report()
