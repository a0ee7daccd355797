"""When a peer is due a ping, and when it is gone."""

from enum import Enum, auto


class Verdict(Enum):
    """What to do about a peer now."""

    WAIT = auto()
    """Nothing."""
    PING = auto()
    """Send a ping, and say so with ``on_pinged``."""
    DEAD = auto()
    """Give the connection up."""


class Heartbeat:
    """Tells when a peer is due a ping, and when its silence has lasted too long.

    Sans-IO: the clock comes in as ``now`` (``loop.time()``, seconds) and a verdict goes out;
    whoever owns the socket acts on it. Pings go out steadily, not only into silence: they
    are what the peer's own deadline listens for. The first is due at once.
    """

    __slots__ = ("_checked_at", "_dead_after_s", "_heard_at", "_ping_at", "_ping_every_s")

    def __init__(self, *, ping_every_s: float, dead_after_s: float, now: float) -> None:
        self._ping_every_s = ping_every_s
        self._dead_after_s = dead_after_s
        self._heard_at = self._checked_at = self._ping_at = now

    def on_heard(self, now: float) -> None:
        """The peer gave a sign of life; may be told late."""
        self._heard_at = max(self._heard_at, now)

    def on_pinged(self, now: float) -> None:
        """A ping was sent."""
        self._ping_at = now + self._ping_every_s

    def silence_s(self, now: float) -> float:
        """How long the peer has given no sign of life."""
        return now - self._heard_at

    def wait_s(self, now: float) -> float:
        """How long ``check`` has nothing new to say."""
        return max(0.0, min(self._ping_at, self._heard_at + self._dead_after_s) - now)

    def check(self, now: float) -> Verdict:
        """What to do now."""
        if now - self._checked_at >= self._dead_after_s:
            # A check this late says that this process stood still (a suspended machine, a
            # debugger), not that the peer did: its signs of life may wait in the socket.
            self._heard_at = now
        self._checked_at = now
        if self.silence_s(now) >= self._dead_after_s:
            return Verdict.DEAD
        return Verdict.PING if now >= self._ping_at else Verdict.WAIT
