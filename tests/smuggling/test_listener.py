"""What our listener makes of ambiguous requests that come to it as they are."""

from tests.smuggling.ambiguous import CASES
from tests.smuggling.origin import Origin
from tests.smuggling.sending import ask_all


def test_ambiguous_requests_are_refused_and_nothing_behind_them_is_read(origin: Origin) -> None:
    before = len(origin.seen)
    answers = ask_all(origin.port, CASES, quiet_s=5.0)
    seen = origin.seen[before:]
    for number, (case, answer) in enumerate(zip(CASES, answers, strict=True)):
        expected = case.answered if case.is_refused else (*case.answered, "probe")
        paths = [one.path.split("/")[1] for one in answer.told]
        assert paths == list(expected), case.name
        refusals = answer.statuses[len(expected) :]
        assert answer.statuses[: len(expected)] == [200] * len(expected), case.name
        assert len(refusals) == case.is_refused, case.name
        assert all(400 <= status < 600 and status != 500 for status in refusals), case.name
        assert answer.is_http1, case.name
        assert answer.is_ended, case.name
        reached = [one for one in seen if f"/{number:04}" in one.path]
        assert reached == answer.told, case.name
