from pathlib import Path

import pytest

from paddler.agent import cpu


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("", None),
    ],
)
def test_the_control_groups_quota_is_read(tmp_path: Path, text: str, expected: int | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert cpu.quota_cpus(path) == expected


def test_no_control_group_is_no_limit(tmp_path: Path) -> None:
    assert cpu.quota_cpus(tmp_path / "missing") is None


def test_threads_never_exceed_what_the_process_may_use() -> None:
    assert 1 <= cpu.engine_threads() <= len(cpu.usable_cpus())


def test_every_core_counts_once() -> None:
    cores = cpu.usable_cores()
    assert set(cores) <= cpu.usable_cpus()
    assert len({cpu.siblings_of(core) for core in cores}) == len(cores) >= 1
