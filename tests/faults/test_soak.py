"""A minute of the soak; ``python -m tests.faults.soak`` goes on for longer."""

from pathlib import Path

import pytest

from tests.faults.soak import COMPLETED, LOST, Soak

WARM_S, SOAK_S = 10.0, 50.0
MIB = 1024 * 1024


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_request_has_an_end_and_nothing_is_held(tmp_path: Path) -> None:
    with Soak(tmp_path, seed=7).running() as soak:
        soak.play(WARM_S)
        before = soak.figures()
        soak.play(SOAK_S)
        after = soak.figures()
    print(soak.report())
    assert soak.issued == soak.outcomes.total()
    assert soak.outcomes[LOST] == 0, soak.report()
    assert soak.outcomes[COMPLETED] > 0
    assert after["descriptors"] <= before["descriptors"] + 4
    assert after["memory"] <= before["memory"] + 16 * MIB
