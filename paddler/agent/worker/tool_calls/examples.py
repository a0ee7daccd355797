"""Calls whose every word is known, as a chat template writes them.

They show how a model was taught to call tools: what stands around the words is the same for
any call. A template is asked for two calls, since what joins calls is part of it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

FUNCTION: Final = "probe_function"
TEXT_KEY: Final = "probe_text"
NUMBER_KEY: Final = "probe_number"
TEXT: Final = "probe-value"
NUMBER: Final = 70707
ARGUMENTS: Final[dict[str, Any]] = {TEXT_KEY: TEXT, NUMBER_KEY: NUMBER}

# Short enough for the templates that demand nine letters or digits.
CALL_IDS: Final = ("probe0000", "probe0001")

FindArguments = Callable[[str, int], tuple[int, int] | None]
"""Where the next arguments stand in a text, from a position on; ``None``: nowhere."""


class CallText(NamedTuple):
    """What stands around the arguments of calls. ``FUNCTION`` in it stands for any name."""

    before: str
    between: str | None
    """From the arguments of one call to those of the next; ``None``: there is one call only."""
    after: str
    arguments: str
    """Those of the example."""


def call_text(example: str, find_arguments: FindArguments) -> CallText | None:
    """What an example of one or two calls shows; ``None`` if none is found in it."""
    places = list(_places(example, find_arguments))
    if not places:
        return None
    first, last = places[0], places[-1]
    return CallText(
        before=example[: first[0]],
        between=example[first[1] : last[0]] if len(places) > 1 else None,
        after=example[last[1] :],
        arguments=example[first[0] : first[1]],
    )


def _places(example: str, find_arguments: FindArguments) -> Iterator[tuple[int, int]]:
    """Where the arguments of the calls stand, each behind the name of its call."""
    position = 0
    for _ in CALL_IDS:
        name = example.find(FUNCTION, position)
        place = None if name < 0 else find_arguments(example, name + len(FUNCTION))
        if place is None:
            return
        yield place
        position = place[1]
