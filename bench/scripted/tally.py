"""What scripted agents have done so far."""

import msgspec


class Tally(msgspec.Struct, kw_only=True):
    """Counts over all agents of a process.

    ``late_steps`` and ``peak_late_s`` tell how well this process kept its own pace: where it
    did not, latencies that were measured with it are its own.
    """

    agents_joined: int = 0
    links_lost: int = 0
    requests: int = 0
    finished: int = 0
    stopped: int = 0
    handed_back: int = 0
    tokens: int = 0
    packets: int = 0
    held_steps: int = 0
    late_steps: int = 0
    peak_late_s: float = 0.0
    faults: int = 0
    last_failure: str | None = None
    """Why an agent could not connect, the last time that one could not."""

    def line(self) -> str:
        """All of it, for people."""
        return (
            f"{self.requests} requests: {self.finished} answered, {self.stopped} stopped, "
            f"{self.handed_back} handed back; {self.tokens} tokens in {self.packets} packets; "
            f"{self.faults} faults, {self.links_lost} links lost; {self.late_steps} steps late, "
            f"at most by {self.peak_late_s * 1000:.1f} ms; {self.held_steps} held by a slow reader"
        )
