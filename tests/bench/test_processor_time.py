"""What is read of the machine's processors."""

import os
from pathlib import Path

import pytest

from bench.processor_time import stolen_s

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (f"cpu  1 2 3 4 5 6 7 {3 * TICKS} 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n", 3.0),
        ("cpu  1 2 3 4\n", 0.0),  # before Linux 2.6.11
        ("", 0.0),
    ],
    ids=["of all processors", "an old system", "empty"],
)
def test_what_the_hypervisor_gave_to_others(tmp_path: Path, text: str, seconds: float) -> None:
    stat = tmp_path / "stat"
    assert stolen_s(stat) == 0.0
    stat.write_text(text)
    assert stolen_s(stat) == seconds
