import re

from paddler.ids import new_id


def test_ids_are_21_characters_that_are_safe_in_addresses() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{21}", new_id()) for _ in range(200))


def test_no_id_comes_twice() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
