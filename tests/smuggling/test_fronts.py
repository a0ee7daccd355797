"""A proxy and our listener behind it read one byte stream alike.

The proxy writes a number of its own over the field that names a request's. So a request that the
proxy did not see has none, or another's.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.smuggling.ambiguous import CASES, Case
from tests.smuggling.fronts import PACKAGES, is_installed, running
from tests.smuggling.origin import FRONT_FIELD, Origin
from tests.smuggling.sending import Answers, ask_all

# Who waits this long for a proxy has sent it the beginning of something that it still waits for.
QUIET_S = 0.7
PATIENT_QUIET_S = 7.0

NUMBER = re.compile(r"/(\d{4})")

GOOD = [Case("good", b"GET /good/#### HTTP/1.1\r\nHost: a\r\n\r\n", ("good",), False)] * 60
FORGED = [
    Case(
        "forged",
        b"GET /good/#### HTTP/1.1\r\nHost: a\r\n%s: mine\r\n\r\n" % FRONT_FIELD.encode(),
        ("good",),
        False,
    )
]


@pytest.fixture(scope="module", params=PACKAGES)
def front(
    request: pytest.FixtureRequest, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a proxy."""
    name: str = request.param
    if not is_installed(name):
        pytest.skip(f"{name} is not installed (Debian: {PACKAGES[name]})")
    folder: Path = tmp_path_factory.mktemp(name)
    with running(name, origin.port, folder) as port:
        yield port


def test_proxy_and_listener_see_the_same_requests(front: int, origin: Origin) -> None:
    late = check_cases(front, origin, CASES, quiet_s=QUIET_S)
    if late:  # the machine was busy just then
        assert len(late) < len(CASES) / 10
        assert not check_cases(front, origin, late, quiet_s=PATIENT_QUIET_S)
    check_good(front)


def check_cases(front: int, origin: Origin, cases: Sequence[Case], *, quiet_s: float) -> list[Case]:
    """Send all cases and check them; those whose client left before it was told all come back."""
    late = []
    before = len(origin.seen)
    answers = ask_all(front, cases, quiet_s=quiet_s)
    seen = origin.seen[before:]
    assert len(seen) > len(cases) / 10  # what both refuse tells nothing
    assert all(len(one.fronts) == 1 for one in seen), "a request that the proxy did not see"
    numbers = [one.fronts[0] for one in seen]
    assert len(set(numbers)) == len(numbers), "two requests where the proxy saw one"
    for number, (case, answer) in enumerate(zip(cases, answers, strict=True)):
        check_case(case, answer, f"{number:04}")
        reached = [one for one in seen if f"/{number:04}" in one.path]
        if not answer.is_http1:
            continue
        assert all(one in seen for one in answer.told), case.name
        told = [one for one in answer.told if one in reached]
        if told != reached and not answer.is_ended and told == reached[: len(told)]:
            late.append(case)
        else:
            assert told == reached, case.name
    return late


def check_case(case: Case, answer: Answers, number: str) -> None:
    """Nobody is answered what another asked, nor more often than the origin saw it."""
    for told in answer.told:
        assert NUMBER.findall(told.path) in ([number], []), case.name
    paths = [told.path.split("/")[1] for told in answer.told]
    assert paths.count("probe") <= 1, case.name
    assert paths.count("case") <= 1, case.name
    if "hidden" in paths and case.answered.count("hidden") == 0:
        # The proxy took it for a request of its own, and made of it what the origin saw.
        assert case.is_refused, case.name


def check_good(front: int) -> None:
    """Answers are not shifted: connections to the origin are as good as before."""
    for answer in ask_all(front, [*GOOD, *FORGED], quiet_s=5.0):
        assert answer.statuses == [200, 200]
        assert [told.path.split("/")[1] for told in answer.told] == ["good", "probe"]
        assert all(told.fronts != ["mine"] for told in answer.told)
