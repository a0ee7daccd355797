"""Between the agent and a process that fetches one model for it: JSON lines over its stdin and
stdout. One job goes in; what happens comes out, :class:`Fetched` or :class:`FetchFailed` last."""

from collections.abc import Callable

import msgspec

from paddler.messages._base import Wire
from paddler.messages.agents import AgentIssue, Count

# --- agent to fetching process -----------------------------------------------------------------


class HubJob(Wire, frozen=True, kw_only=True, tag="hub"):
    """Fetch a file of a Hugging Face repository into the Hub's cache."""

    repo_id: str
    revision: str
    filename: str

    @property
    def name(self) -> str:
        """What issues and logs call it."""
        return f"{self.repo_id}/{self.revision}/{self.filename}"


class UrlJob(Wire, frozen=True, tag="url"):
    """Fetch what lies behind an address into Paddler's cache."""

    url: str

    @property
    def name(self) -> str:
        """What issues call it; it may hold a password, so logs do not."""
        return self.url


FetchJob = HubJob | UrlJob


# --- fetching process to agent -----------------------------------------------------------------


class Waiting(Wire, frozen=True, tag="waiting"):
    """Another process fetches the same file; sent at once, and with an issue if it takes long."""

    issue: AgentIssue | None = None


class Receiving(Wire, frozen=True, kw_only=True, tag="receiving"):
    """Bytes arrive: at the start, a few times a second, and at the end of each file.

    ``received`` counts what earlier tries left, too. ``total`` is ``None`` if nobody says.
    """

    filename: str
    received: Count
    total: Count | None


class Fetched(Wire, frozen=True, tag="fetched"):
    """The file is here; of a model in several files, the first one."""

    path: str


class FetchFailed(Wire, frozen=True, tag="failed"):
    """The file is not here; ``reason`` is for the log."""

    issue: AgentIssue
    reason: str


FetchEvent = Waiting | Receiving
FromFetch = FetchEvent | Fetched | FetchFailed

decode_job: Callable[[bytes], FetchJob] = msgspec.json.Decoder(FetchJob).decode
decode_from_fetch: Callable[[bytes], FromFetch] = msgspec.json.Decoder(FromFetch).decode
encode = msgspec.json.Encoder().encode
