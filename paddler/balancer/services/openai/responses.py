"""``POST /v1/responses``, whole and as events."""

import re
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from paddler._fastpath import FRAMING_RAW, Sink
from paddler.balancer.link import Agent, Completed
from paddler.balancer.relay import Dispatcher, Outcome
from paddler.balancer.services.openai.answers import logprob_of
from paddler.balancer.services.openai.errors import Places, Problem, problem_in, problem_of
from paddler.balancer.services.openai.gathering import (
    CONTENT_TAG,
    REASONING_TAG,
    TAGS,
    Calls,
    GatheredCall,
    GatheredChoice,
)
from paddler.balancer.services.openai.responses_request import agent_request, tool_choice_of
from paddler.balancer.services.openai.tool_choice import AllowedChoice, NamedChoice, ToolChoice
from paddler.balancer.services.outlet import StreamingOutlet
from paddler.ids import new_id
from paddler.messages.inference import TokenUsage
from paddler.messages.link import (
    Finished,
    FrameKind,
    TokenScore,
    decode_call_delta,
    decode_scored_text,
)
from paddler.messages.openai import responses as api
from paddler.net.connection import Exchange
from paddler.net.http import Response, json
from paddler.proto import sse

ROUTE: Final = "responses"
PLACES: Final = Places(input="input", format="text.format")

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(api.ResponsesRequest).decode


async def create_response(
    dispatcher: Dispatcher, exchange: Exchange, request: api.ResponsesRequest
) -> Response | None:
    """Serve one request."""
    asked = agent_request(request)
    snapshot = begun(request)
    if not request.stream:
        gathered = GatheredChoice()
        outcome = await dispatcher.run(
            asked.job, gathered, asked.sampling, asked.delivery, route=ROUTE
        )
        return whole_response(snapshot, gathered, outcome)
    with EventOutlet(exchange, snapshot) as outlet:
        return outlet.end(
            await dispatcher.run(asked.job, outlet, asked.sampling, asked.delivery, route=ROUTE)
        )


def begun(request: api.ResponsesRequest) -> api.Response:
    """The response before anything was generated."""
    return api.Response(
        id=f"resp_{new_id()}",
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions,
        model=request.model,
        tools=msgspec.Raw(encode(echoed_tools(request.tools or []))),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        metadata=request.metadata or {},
        tool_choice=echoed_choice(tool_choice_of(request.tool_choice)),
        temperature=1 if request.temperature is None else request.temperature,
        top_p=1 if request.top_p is None else request.top_p,
        text=msgspec.Raw(encode({"format": echoed_format(request.text)})),
    )


def echoed_tools(tools: Sequence[api.FunctionTool]) -> list[api.EchoedTool]:
    """``tools`` as a response repeats them."""
    return [
        api.EchoedTool(
            name=tool.name or "",
            description=tool.description,
            parameters=tool.parameters,
            strict=tool.strict,
        )
        for tool in tools
        if tool.type == "function"
    ]


def echoed_choice(choice: ToolChoice) -> str | dict[str, Any]:
    """``tool_choice`` as a response repeats it."""

    def function(name: str) -> dict[str, Any]:
        return {"type": "function", "name": name}

    match choice:
        case NamedChoice(name):
            return function(name)
        case AllowedChoice(names, must_call):
            mode = "required" if must_call else "auto"
            tools = [function(name) for name in names]
            return {"type": "allowed_tools", "mode": mode, "tools": tools}
        case _:
            return choice


def echoed_format(text: api.TextOptions | None) -> dict[str, Any]:
    """``text.format`` as a response repeats it: text, unless something else was understood."""
    wanted = text.format if text is not None else None
    if wanted is None or wanted.type not in ("json_object", "json_schema"):
        return {"type": "text"}
    if wanted.type == "json_object":
        return {"type": wanted.type}
    named = msgspec.structs.asdict(wanted) | {"name": wanted.name or "schema"}
    return {name: value for name, value in named.items() if value is not None}


def completed(
    snapshot: api.Response, output: list[api.OutputItem], finished: Finished
) -> api.Response:
    """The response at its end."""
    is_cut = finished.reason == "length"
    return msgspec.structs.replace(
        snapshot,
        status="incomplete" if is_cut else "completed",
        incomplete_details=api.IncompleteDetails() if is_cut else None,
        output=output,
        usage=usage_of(finished.usage),
    )


def usage_of(usage: TokenUsage) -> api.ResponseUsage:
    """OpenAI's token counts for ours."""
    return api.ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=api.InputTokensDetails(usage.cached_prompt_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=api.OutputTokensDetails(usage.reasoning_tokens),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


# --- items -------------------------------------------------------------------------------------


def reasoning_item(index: int, text: str) -> api.ReasoningOutput:
    """A thought, at its place in the output."""
    return api.ReasoningOutput(
        id=f"rs_{index}", content=(api.ReasoningText(text),), status="completed"
    )


def message_item(
    index: int, text: str, status: api.ItemStatus, scores: Sequence[TokenScore]
) -> api.MessageOutput:
    """What the model said, at its place in the output."""
    return api.MessageOutput(id=f"msg_{index}", status=status, content=(text_part(text, scores),))


def text_part(text: str, scores: Sequence[TokenScore]) -> api.OutputText:
    """Text within a message; ``scores`` are of its tokens, if they were asked for."""
    return api.OutputText(text=text, logprobs=tuple(logprob_of(score) for score in scores))


def event_logprobs(scores: Sequence[TokenScore]) -> list[api.EventLogprob]:
    """Log probabilities as the events of text tell them."""
    return [
        api.EventLogprob(
            score.token.text,
            score.token.logprob,
            [api.EventTopLogprob(one.text, one.logprob) for one in score.likeliest],
        )
        for score in scores
    ]


def call_item(index: int, call: GatheredCall, status: api.ItemStatus) -> api.FunctionCallOutput:
    """A call, at its place in the output."""
    return api.FunctionCallOutput(
        id=f"fc_{index}",
        call_id=call.id,
        name=call.name,
        arguments=call.arguments if status != "in_progress" else "",
        status=status,
    )


# --- whole -------------------------------------------------------------------------------------


def whole_response(snapshot: api.Response, gathered: GatheredChoice, outcome: Outcome) -> Response:
    """The response for how the request ended: a thought, a message, then the calls."""
    if not isinstance(outcome, Completed):
        return problem_of(outcome, PLACES).response()
    if gathered.problem is not None:
        return gathered.problem.response()
    status: api.ItemStatus = "incomplete" if outcome.finished.reason == "length" else "completed"
    output: list[api.OutputItem] = []
    if reasoning := gathered.reasoning:
        output.append(reasoning_item(len(output), reasoning))
    content = gathered.content
    if content.strip() or not gathered.calls:
        output.append(message_item(len(output), content, status, gathered.scores))
    for call in gathered.calls:
        output.append(call_item(len(output), call, status))
    return json(200, encode(completed(snapshot, output, outcome.finished)))


# --- events ------------------------------------------------------------------------------------


class OpenItem:
    """The output item that is being told: ``tag`` says what its text is."""

    __slots__ = ("call", "index", "item_id", "pieces", "scores", "tag")

    def __init__(self, index: int, tag: bytes, call: GatheredCall | None = None) -> None:
        self.index = index
        self.tag = tag
        self.call = call
        self.item_id = f"{_ID_PREFIXES[tag]}_{index}"
        self.pieces: list[bytes] = []  # JSON string contents
        self.scores: list[TokenScore] = []

    @property
    def text(self) -> str:
        """What was told of it."""
        return msgspec.json.decode(b'"%b"' % b"".join(self.pieces), type=str)


_CALL: Final = b"f"
_WHITE_SPACE: Final = re.compile(rb"(?: |\\[nrt])*")  # within a JSON string
_ID_PREFIXES: Final = {CONTENT_TAG: "msg", REASONING_TAG: "rs", _CALL: "fc"}


class EventOutlet(StreamingOutlet):
    """An answer as the gapless sequence of events that OpenAI's clients follow.

    A piece of text costs no JSON work: its event is put together around it. White space alone
    makes no message: it is held until it is known whether text or a call follows.
    """

    def __init__(self, exchange: Exchange, snapshot: api.Response) -> None:
        super().__init__(self._write_text, FRAMING_RAW, exchange.flow, exchange.abort)
        self._exchange = exchange
        self._snapshot = snapshot
        self._sequence = 0
        self._output: list[api.OutputItem] = []
        self._item: OpenItem | None = None
        self._held = b""
        self._held_scores: list[TokenScore] = []
        self._calls = Calls()
        self._problem: Problem | None = None

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Pieces of text with their tags."""
        self._start()
        return self._make_sink(stream_id, TAGS, b"", now)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Tell calls and scored text; remember the first failure that does not end the answer."""
        if kind is FrameKind.CALL:
            delta = decode_call_delta(payload)
            call = self._calls.take(delta)
            if delta.name is not None:
                self._held = b""
                self._close_item("completed")
                self._open_item(_CALL, call)
            if delta.arguments and self._item is not None:
                self._event(
                    "response.function_call_arguments.delta",
                    item_id=self._item.item_id,
                    output_index=self._item.index,
                    delta=delta.arguments,
                )
        elif kind is FrameKind.SCORED:
            scored = decode_scored_text(payload)
            text = encode(scored.text)[1:-1]
            self._write_text(CONTENT_TAG + text, scored.scores)
        elif kind is FrameKind.RESULT:
            self._problem = self._problem or problem_in(payload)

    def end(self, outcome: Outcome) -> Response | None:
        """Tell how it ended, by an error response if nothing was sent yet."""
        if not isinstance(outcome, Completed):
            problem = problem_of(outcome, PLACES)
            if not self._exchange.is_started:
                return problem.response()
            self._fail(problem)
        elif self._problem is not None:
            self._fail(self._problem)
        else:
            is_cut = outcome.finished.reason == "length"
            if self._held and not self._calls:
                self._write_piece(self._open_text(CONTENT_TAG), b"")
            self._close_item("incomplete" if is_cut else "completed")
            response = completed(self._snapshot, self._output, outcome.finished)
            self._event(f"response.{response.status}", more=True, response=response)
        self._exchange.finish()
        return None

    # --- text --------------------------------------------------------------------------------

    def _write_text(self, tagged: bytes, scores: Sequence[TokenScore] = ()) -> None:
        """Tell a piece of text, JSON string contents behind its tag. Called for every token."""
        tag, text = tagged[:1], tagged[1:]
        if tag not in _ID_PREFIXES:
            return  # the text of calls is told as calls
        item = self._item
        if item is None or item.tag != tag:
            if tag == CONTENT_TAG and _WHITE_SPACE.fullmatch(text):
                self._held += text
                self._held_scores += scores
                return
            item = self._open_text(tag)
        self._write_piece(item, text, scores)

    def _open_text(self, tag: bytes) -> OpenItem:
        self._close_item("completed")
        return self._open_item(tag)

    def _write_piece(self, item: OpenItem, text: bytes, scores: Sequence[TokenScore] = ()) -> None:
        is_content = item.tag == CONTENT_TAG
        if is_content and self._held:
            text, self._held = self._held + text, b""
            scores, self._held_scores = [*self._held_scores, *scores], []
        item.pieces.append(text)
        item.scores += scores
        logprobs = b',"logprobs":[]' if is_content else b""
        if scores:
            logprobs = b',"logprobs":%b' % encode(event_logprobs(scores))
        name = b"response.output_text.delta" if is_content else b"response.reasoning_text.delta"
        self._exchange.write(
            b'event: %b\ndata: {"type":"%b","sequence_number":%d,"item_id":"%b",'
            b'"output_index":%d,"content_index":0,"delta":"%b"%b}\n\n'
            % (
                name,
                name,
                self._next_number(),
                item.item_id.encode(),
                item.index,
                text,
                logprobs,
            )
        )

    # --- events ------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._exchange.is_started:
            return
        fields = (("cache-control", "no-cache"),)
        self._exchange.start(200, "text/event-stream", fields, more=True)
        self._event("response.created", more=True, response=self._snapshot)
        self._event("response.in_progress", response=self._snapshot)

    def _open_item(self, tag: bytes, call: GatheredCall | None = None) -> OpenItem:
        """Tell a new item. If it is text, a piece of it is to be written at once."""
        item = self._item = OpenItem(len(self._output), tag, call)
        place = {"output_index": item.index}
        if call is not None:
            added: Any = call_item(item.index, call, "in_progress")
        elif tag == REASONING_TAG:
            added = api.ReasoningOutput(id=item.item_id, status="in_progress")
        else:
            added = api.MessageOutput(id=item.item_id, status="in_progress", content=())
        self._event("response.output_item.added", more=call is None, **place, item=added)
        if tag == CONTENT_TAG:
            self._event(
                "response.content_part.added",
                more=True,
                item_id=item.item_id,
                **place,
                content_index=0,
                part=api.OutputText(text=""),
            )
        return item

    def _close_item(self, status: api.ItemStatus) -> None:
        """Tell the end of the open item, if there is one. Something is to be told at once then."""
        item, self._item = self._item, None
        if item is None:
            return
        place = {"item_id": item.item_id, "output_index": item.index}
        whole: api.OutputItem
        if item.call is not None:
            whole = call_item(item.index, item.call, status)
            self._event(
                "response.function_call_arguments.done",
                more=True,
                **place,
                name=item.call.name,
                arguments=item.call.arguments,
            )
        elif item.tag == REASONING_TAG:
            whole = reasoning_item(item.index, item.text)
            self._event(
                "response.reasoning_text.done",
                more=True,
                **place,
                content_index=0,
                text=item.text,
            )
        else:
            whole = message_item(item.index, item.text, status, item.scores)
            self._event(
                "response.output_text.done",
                more=True,
                **place,
                content_index=0,
                text=item.text,
                logprobs=event_logprobs(item.scores),
            )
            self._event(
                "response.content_part.done",
                more=True,
                **place,
                content_index=0,
                part=text_part(item.text, item.scores),
            )
        self._output.append(whole)
        self._event("response.output_item.done", more=True, output_index=item.index, item=whole)

    def _fail(self, problem: Problem) -> None:
        code: Any = "server_error" if problem.status >= 500 else "invalid_prompt"
        failed = msgspec.structs.replace(
            self._snapshot, status="failed", error=api.ResponseError(code, problem.message)
        )
        self._event("response.failed", more=True, response=failed)

    def _event(self, kind: str, /, *, more: bool = False, **fields: Any) -> None:
        data = {"type": kind, "sequence_number": self._next_number(), **fields}
        self._exchange.write(sse.encode_event(encode(data), event=kind), more=more)

    def _next_number(self) -> int:
        number = self._sequence
        self._sequence += 1
        return number
