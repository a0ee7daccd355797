"""Calls that are a name followed by its arguments as JSON: Mistral, DeepSeek, Kimi, gpt-oss …"""

import re
from typing import NamedTuple

from paddler.agent.worker.tool_calls.reading import (
    ArgumentsFragment,
    CallStarted,
    ParameterSchemas,
    Reader,
    Source,
    call_id,
    has_more,
    match_one,
    peek,
    read_arguments,
    read_until,
)


class NamedJson(NamedTuple):
    """What such a syntax looks like.

    ``head`` opens a call and has the groups ``name`` and perhaps ``id``. ``stop`` ends
    arguments that are no JSON. ``blank`` means nothing between calls; white space is blank.
    """

    head: re.Pattern[str]
    stop: re.Pattern[str]
    blank: re.Pattern[str]

    def read(self, source: Source, schemas: ParameterSchemas) -> Reader:
        """All calls of the text."""
        index = 0
        while (yield from has_more(source, self.blank)):
            which, found = yield from match_one(source, self.head, self.blank)
            if which == 0:
                groups = found.groupdict()
                yield CallStarted(index, call_id(index, groups.get("id")), groups["name"])
                yield from self._read_arguments(source, index)
                index += 1

    def _read_arguments(self, source: Source, index: int) -> Reader:
        if (yield from peek(source)) in ("{", "[", '"'):
            for piece in read_arguments(source):
                yield None if piece is None else ArgumentsFragment(index, piece)
        else:
            text = yield from read_until(source, self.stop, may_end_text=True)
            yield ArgumentsFragment(index, text.strip())


def named_json(*, head: str, stop: str, blank: str) -> NamedJson:
    """A syntax, by regular expressions. All must end in something definite."""
    return NamedJson(re.compile(head), re.compile(stop), re.compile(rf"\s+|{blank}"))
