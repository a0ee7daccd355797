"""Messages of the fetching process come back as sent."""

import pytest

from paddler.messages import fetch
from paddler.messages.agents import AgentIssue, ModelPath

ISSUE = AgentIssue(download_interrupted=ModelPath("http://h/m"))


@pytest.mark.parametrize(
    ("job", "name"),
    [
        (fetch.HubJob(repo_id="a/b", revision="main", filename="q/m.gguf"), "a/b/main/q/m.gguf"),
        (fetch.UrlJob("http://h/m?t=1"), "http://h/m?t=1"),
    ],
)
def test_a_job_comes_back_and_has_the_name_that_issues_use(job: fetch.FetchJob, name: str) -> None:
    assert fetch.decode_job(fetch.encode(job)) == job
    assert job.name == name


@pytest.mark.parametrize(
    "message",
    [
        fetch.Waiting(),
        fetch.Waiting(ISSUE),
        fetch.Receiving(filename="m", received=0, total=None),
        fetch.Fetched("/m"),
        fetch.FetchFailed(ISSUE, "cut"),
    ],
)
def test_what_is_told_comes_back(message: fetch.FromFetch) -> None:
    assert fetch.decode_from_fetch(fetch.encode(message)) == message
