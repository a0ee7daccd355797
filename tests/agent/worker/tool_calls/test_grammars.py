import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from jsonschema import Draft202012Validator

from paddler.agent.worker.batch import BatchSequence, plan_step
from paddler.agent.worker.engine import DecodeOutcome
from paddler.agent.worker.engine_llama import LlamaEngine, Model
from paddler.agent.worker.gbnf.writing import Gbnf, SchemaNotSupported
from paddler.agent.worker.grammar import gbnf_of
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.sections import (
    SectionSplitter,
)
from paddler.agent.worker.tool_calls.dialects import DIALECTS, Unrecognized, parse
from paddler.agent.worker.tool_calls.examples import (
    ARGUMENTS,
    EXAMPLES,
    FUNCTION,
    NUMBER_KEY,
    TEXT_KEY,
)
from paddler.agent.worker.tool_calls.grammars import (
    MAX_CALLS,
    behind_reasoning,
    calls_or_content,
    forced_calls,
    readable,
)
from paddler.agent.worker.tool_calls.schemas import failed_checks, parameter_schemas
from paddler.messages.chat import Function, Tool
from paddler.messages.inference import JsonSchemaGrammar
from paddler.messages.link import FrameKind, Sampling
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS
from paddler.messages.tools import ParsedToolCall
from tests.agent.worker import test_markers as templates
from tests.agent.worker.accepting import Acceptor
from tests.agent.worker.tool_calls import samples

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}


class AnyFunction(NamedTuple):
    """A function with any schema; the native API allows few keywords."""

    name: str
    parameters: Any


class AnyTool(NamedTuple):
    function: AnyFunction


def tool(name: str, *required: str, **properties: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(Function(name, "", parameters))


def any_tool(name: str, parameters: Any) -> AnyTool:
    return AnyTool(AnyFunction(name, parameters))


PROBE = tool(
    FUNCTION, TEXT_KEY, NUMBER_KEY,
    **{TEXT_KEY: {"type": "string"}, NUMBER_KEY: {"type": "integer"}},
)  # fmt: skip
SAMPLES = [
    tool("f", "text", "n", text={"type": "string"}, n={"type": "integer"}),
    tool("g"),
]
WEATHER = [
    tool(
        "weather", "city", "days",
        city={"enum": ["Oslo", "Rome"]}, days={"type": "integer", "minimum": 1, "maximum": 7},
        note={"type": "string", "maxLength": 6}, fast={"type": "boolean"},
    ),
    tool("weather_on_mars", "sol", sol={"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}),
]  # fmt: skip


def canonical(name: str) -> ModelFormat:
    """A model of which only the dialect is known."""
    return ModelFormat(dialect=BY_NAME[name])


def forced(form: ModelFormat, tools: Sequence[Any], **options: Any) -> Gbnf:
    return forced_calls(form, tools, **{"is_required": True, "may_repeat": True} | options)


def read(form: ModelFormat, text: str, tools: Sequence[Tool]) -> list[ParsedToolCall]:
    """The calls of an answer, which must all be right."""
    calls = parse(text, own=form.dialect, schemas=parameter_schemas(tools))
    assert not isinstance(calls, Unrecognized), text
    assert failed_checks(calls, tools) == [], text
    assert all(call.arguments.valid_json is not msgspec.UNSET for call in calls), text
    return calls


# --- each dialect -------------------------------------------------------------------------------


def test_every_dialect_has_an_example_that_it_reads() -> None:
    assert set(EXAMPLES) == set(BY_NAME)
    for name, example in EXAMPLES.items():
        calls = parse(example, own=BY_NAME[name])
        assert isinstance(calls, list)
        assert {call.name for call in calls} == {FUNCTION}
        assert all(call.arguments.valid_json == ARGUMENTS for call in calls)


@pytest.mark.parametrize("name", BY_NAME)
def test_calls_as_the_dialect_writes_them_are_allowed(
    smollm2_grammars: Acceptor, name: str
) -> None:
    form = canonical(name)
    assert smollm2_grammars.refused(forced(form, [PROBE]), EXAMPLES[name]) is None


# Where a sample is not as the example has it: ids of the model's own, a second call in
# another turn, blanks.
OTHER_SAMPLES = {"command_r", "function_call", "gpt_oss", "llama_python_start", "solar"}


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - OTHER_SAMPLES))
def test_calls_with_any_text_in_them_are_allowed(smollm2_grammars: Acceptor, name: str) -> None:
    grammar = forced(canonical(name), SAMPLES)
    assert smollm2_grammars.refused(grammar, samples.SAMPLES[name]) is None


WRONG = {
    "another name": (FUNCTION, "probe_functions"),
    "another key": (NUMBER_KEY, "probe_numbers"),
    "another type": ("70707", "none"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", BY_NAME)
def test_calls_that_the_tools_do_not_allow_are_refused(
    smollm2_grammars: Acceptor, name: str, wrong: str
) -> None:
    grammar = forced(canonical(name), [PROBE])
    assert not smollm2_grammars.accepts(grammar, EXAMPLES[name].replace(*WRONG[wrong]))


@pytest.mark.parametrize("name", BY_NAME)
def test_anything_before_or_behind_calls_is_refused(smollm2_grammars: Acceptor, name: str) -> None:
    grammar = forced(canonical(name), [PROBE])
    assert smollm2_grammars.refused(grammar, f"Sure. {EXAMPLES[name]}") == f"Sure. {EXAMPLES[name]}"
    assert smollm2_grammars.refused(grammar, f"{EXAMPLES[name]} Done.") == " Done."
    assert not smollm2_grammars.accepts(grammar, "")


@pytest.mark.parametrize("name", BY_NAME)
def test_one_call_only_is_allowed_unless_it_may_repeat(
    smollm2_grammars: Acceptor, name: str
) -> None:
    is_one = name in ("gpt_oss", "function_call")
    grammar = forced(canonical(name), [PROBE], may_repeat=False)
    assert smollm2_grammars.accepts(grammar, EXAMPLES[name]) == is_one


def test_calls_are_bounded(smollm2_grammars: Acceptor) -> None:
    grammar = forced(canonical("mistral"), SAMPLES)
    assert smollm2_grammars.accepts(grammar, "[TOOL_CALLS]g[ARGS]{}" * MAX_CALLS)
    assert not smollm2_grammars.accepts(grammar, "[TOOL_CALLS]g[ARGS]{}" * (MAX_CALLS + 1))


@pytest.mark.parametrize("name", BY_NAME)
def test_whatever_the_grammar_allows_is_read_back(byte_grammars: Acceptor, name: str) -> None:
    form = canonical(name)
    grammar = forced(form, WEATHER)
    names = set()
    for seed in range(20):
        text = byte_grammars.walk(grammar, seed, likely='"<|]})')
        if text is not None:
            names.update(call.name for call in read(form, text, WEATHER))
    assert names <= {"weather", "weather_on_mars"}
    assert names


# --- the real model -----------------------------------------------------------------------------

SHORT = [
    tool("go", "to", "n", to={"enum": ["Oslo", "Rome"]}, n={"type": "integer", "maximum": 9}),
    tool("stay", "sure", sure={"type": "boolean"}),
]
# One of each way of writing arguments, and two that are asked for most; the real model is slow.
SLOTS = [
    (name, seed)
    for name in ("hermes", "bare_json", "mistral", "qwen_xml", "gemma", "pythonic")
    for seed in (1, 2)
]


@pytest.fixture(scope="module")
def answers(smollm2: Model) -> dict[tuple[str, int], str]:
    """What the real model says under the grammars of some dialects, all in the same batches."""
    parameters = msgspec.structs.replace(
        DEFAULT_INFERENCE_PARAMETERS, context_size=256 * len(SLOTS), penalty_repeat=1.0
    )
    said = dict.fromkeys(SLOTS, b"")
    with LlamaEngine(smollm2, parameters=parameters, slots=len(SLOTS), threads=1) as engine:
        prompt = engine.tokenize("To Rome?\n", limit=100)
        running: dict[int, BatchSequence] = {}
        for slot, (name, seed) in enumerate(SLOTS):
            sampling = Sampling(temperature=1.2, seed=seed, presence_penalty=0.0)
            engine.open(slot, prompt, sampling, forced(canonical(name), SHORT, may_repeat=False))
            running[slot] = BatchSequence(slot, list(prompt))
        while running:
            chunks = plan_step(
                running.values(),
                n_batch=engine.n_batch,
                max_prefill_beside_decode=engine.n_batch,
                max_prefill_alone=engine.n_batch,
            )
            assert engine.decode(chunks) is DecodeOutcome.DECODED
            slots = [chunk.sequence.slot for chunk in chunks if chunk.is_last]
            for chunk in chunks:
                chunk.sequence.advance(chunk.tokens, 1)
            for slot, token in zip(slots, engine.sample(slots), strict=True):
                assert isinstance(token, int)
                if engine.is_end(token) or len(running[slot].tokens) > 250:
                    engine.release(slot)
                    engine.keep(slot, 0)
                    del running[slot]
                else:
                    said[SLOTS[slot]] += engine.piece(token)
                    running[slot].append(token)
    return {slot: text.decode() for slot, text in said.items()}


@pytest.mark.parametrize(("name", "seed"), SLOTS)
def test_real_model_calls_a_tool_as_its_schema_says(
    answers: dict[tuple[str, int], str], name: str, seed: int
) -> None:
    [call] = read(canonical(name), answers[name, seed], SHORT)
    assert call.name in ("go", "stay")


# --- what a template shows ----------------------------------------------------------------------

TEMPLATES = {
    name: getattr(templates, name)
    for name in ("CHATML", "XML", "BRACKETS", "CHANNELS", "MIXED", "BARE", "RECIPIENTS", "WRAPPED",
                 "UNKNOWN_WRAPPER", "TOLD", "PLAIN")
}  # fmt: skip

# One call as each of these templates has it, f with text "x" and number 7.
CALL = '{"text": "x", "n": 7}'
XML_CALL = (
    "<tool_call><function=f><parameter=text>\nx\n</parameter><parameter=n>\n7\n</parameter>"
    "</function></tool_call>"
)
SHOWN = {
    "CHATML": f'<tool_call>\n{{"name": "f", "arguments": {CALL}}}\n</tool_call>',
    "XML": XML_CALL,
    "BRACKETS": f"[TOOL_CALLS]f[ARGS]{CALL}",
    "CHANNELS": f" to=functions.f<|channel|>commentary json<|message|>{CALL}",
    "MIXED": '<|tool_call>call:f{text:<|"|>x<|"|>,n:7}<tool_call|>',
    "BARE": f'{{"name": "f", "parameters": {CALL}}}',
    "RECIPIENTS": f"f\n{CALL}",
    "WRAPPED": (
        f'<|START_ACTION|>[\n  {{"tool_call_id": "0", "tool_name": "f", "parameters": {CALL}}}\n]'
        "<|END_ACTION|>"
    ),
    "UNKNOWN_WRAPPER": f'<my_call>\n{{"name": "f", "arguments": {CALL}}}\n</my_call>',
    "TOLD": f'<tool_call>\n{{"name": "f", "arguments": {CALL}}}\n</tool_call>',
    "PLAIN": f'{{"name": "f", "arguments": {CALL}}}',
}


def probed(name: str) -> ModelFormat:
    return templates.probed(TEMPLATES[name])


@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_are_written_as_the_template_shows(smollm2_grammars: Acceptor, name: str) -> None:
    form = probed(name)
    for is_required in (True, False):
        grammar = forced(form, SAMPLES, is_required=is_required)
        assert smollm2_grammars.refused(grammar, SHOWN[name]) is None
    [call] = read(form, SHOWN[name], SAMPLES)
    assert call.name == "f"


@pytest.mark.parametrize("name", TEMPLATES)
def test_forced_calls_are_told_from_other_text(name: str) -> None:
    form = readable(probed(name))
    prompt = {"CHANNELS": "<|start|>assistant", "RECIPIENTS": ">>>"}.get(name, "")
    splitter = SectionSplitter(form.markers, prompt, expects_calls=True)
    for char in SHOWN[name]:
        splitter.feed(char)
    splitter.finish()
    assert splitter.counts[FrameKind.TOOL_CALL] == len(SHOWN[name])
    assert splitter.take_call_text() == SHOWN[name]


def test_second_call_is_joined_as_the_template_shows(smollm2_grammars: Acceptor) -> None:
    grammar = forced(probed("CHATML"), SAMPLES)
    second = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    assert smollm2_grammars.accepts(grammar, f"{SHOWN['CHATML']}{second}")
    assert not smollm2_grammars.accepts(grammar, f"{SHOWN['CHATML']}\n{second}")


def test_call_whose_closing_may_be_the_end_of_the_answer_needs_none(
    smollm2_grammars: Acceptor,
) -> None:
    without = SHOWN["CHATML"].removesuffix("\n</tool_call>")
    assert smollm2_grammars.accepts(forced(probed("CHATML"), SAMPLES), without)
    assert not smollm2_grammars.accepts(forced(probed("CHATML"), SAMPLES), without[:-1])
    assert not smollm2_grammars.accepts(
        forced(probed("XML"), SAMPLES), XML_CALL.removesuffix("</function></tool_call>")
    )


def test_keys_are_sorted_where_the_template_sorts_them(smollm2_grammars: Acceptor) -> None:
    source = templates.MIXED.replace("arguments.items()", "arguments | dictsort")
    form = templates.probed(source)
    call = '<|tool_call>call:f{n:7,text:<|"|>x<|"|>}<tool_call|>'
    assert smollm2_grammars.refused(forced(form, SAMPLES), call) is None
    assert not smollm2_grammars.accepts(forced(form, SAMPLES), SHOWN["MIXED"])


# --- reasoning before ---------------------------------------------------------------------------

THOUGHT = 'Hm. <b> {"name": 1} [f(\n\n'


@pytest.mark.parametrize(
    ("name", "opening", "closing"),
    [
        ("CHATML", "<think>", "</think>\n\n"),
        ("BRACKETS", "[THINK]", "[/THINK]"),
        ("MIXED", "<|channel>thought", "<channel|>"),
        ("WRAPPED", "<|START_THINKING|>", "<|END_THINKING|>"),
        ("CHANNELS", "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
    ],
)
def test_reasoning_is_free_and_then_there_must_be_a_call(
    smollm2_grammars: Acceptor, name: str, opening: str, closing: str
) -> None:
    form = probed(name)
    thought = f"{THOUGHT}{closing}{SHOWN[name]}"
    opened = forced(form, SAMPLES, starts_in_reasoning=True)
    assert smollm2_grammars.refused(opened, thought) is None
    assert smollm2_grammars.refused(opened, THOUGHT) == ""
    assert smollm2_grammars.refused(opened, f"{THOUGHT}{closing}Sure") == "Sure"
    may_think = forced(form, SAMPLES, thinks=True)
    assert smollm2_grammars.refused(may_think, f"{opening}{thought}") is None
    assert smollm2_grammars.refused(may_think, SHOWN[name]) is None
    assert smollm2_grammars.refused(may_think, opening) == ""
    assert not smollm2_grammars.accepts(may_think, "Sure.")
    if form.markers.headers is None:
        assert not smollm2_grammars.accepts(forced(form, SAMPLES), f"{opening}{thought}")


def test_call_may_break_into_a_thought(smollm2_grammars: Acceptor) -> None:
    grammar = forced(probed("CHATML"), SAMPLES, starts_in_reasoning=True)
    assert smollm2_grammars.accepts(grammar, f"Hm.\n{SHOWN['CHATML']}")
    assert not smollm2_grammars.accepts(grammar, "Hm.\n<tool_call>\nno")


def test_model_without_reasoning_calls_at_once(smollm2_grammars: Acceptor) -> None:
    grammar = forced(probed("BARE"), SAMPLES, thinks=True, starts_in_reasoning=True)
    assert smollm2_grammars.accepts(grammar, SHOWN["BARE"])
    assert not smollm2_grammars.accepts(grammar, f"Hm. {SHOWN['BARE']}")


# --- calls that need not be made ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "begun"),
    [
        ("CHATML", "Hi <tool> </tool_call> <tool_", "<tool_call>"),
        ("XML", "Hi {}", "<tool_call>"),
        ("BRACKETS", "Hi [TOOL_", "[TOOL_CALLS]"),
        ("MIXED", "Hi call:f{", "<|tool_call>"),
        ("BARE", 'Hi {"name": "f", "x": {"name": "f", "parameters":\n{"name": "Bo"}\n',
         '{"name": "f"'),
        ("PLAIN", 'Hi\n{"name": 7}\n', '{"name": "f"'),
        ("CHANNELS", "<|channel|>final<|message|>Hi to=functions.f",
         "<|end|><|start|>assistant to=functions."),
        ("CHANNELS", "<|channel|>analysis<|message|>Hi<|end|>",
         "<|start|>assistant<|channel|>commentary to=functions."),
        ("RECIPIENTS", "all\nHi\nf\n{", ">>>f\n"),
        ("WRAPPED", "<|START_TEXT|>Hi<|END_TEXT|>", "<|START_ACTION|>"),
    ],
)  # fmt: skip
def test_text_without_calls_is_free_until_one_begins(
    smollm2_grammars: Acceptor, name: str, text: str, begun: str
) -> None:
    form = probed(name)
    grammar = forced(form, SAMPLES, is_required=False)
    assert smollm2_grammars.refused(grammar, text) is None
    assert smollm2_grammars.accepts(grammar, "")
    assert smollm2_grammars.refused(grammar, f"{text}{begun}") == ""
    call = SHOWN[name].partition(begun.rpartition("assistant")[2].removeprefix(">>>"))
    if name != "CHANNELS" or "commentary" not in begun:
        assert smollm2_grammars.refused(grammar, f"{text}{begun}{call[2]}") is None
        assert not smollm2_grammars.accepts(grammar, f"{text}{begun}{call[2]}Done.")
        wrong = call[2].replace("7", '"x"')
        assert not smollm2_grammars.accepts(grammar, f"{text}{begun}{wrong}")


def test_usual_place_of_a_recipient_is_known_beside_that_of_the_template(
    smollm2_grammars: Acceptor,
) -> None:
    usual = f"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{CALL}"
    form = probed("CHANNELS")
    for is_required in (True, False):
        grammar = forced(form, SAMPLES, is_required=is_required)
        assert smollm2_grammars.refused(grammar, usual) is None
    read(form, usual, SAMPLES)


# --- tools --------------------------------------------------------------------------------------


def test_only_one_tool_may_be_called(smollm2_grammars: Acceptor) -> None:
    grammar = forced(canonical("mistral"), SAMPLES, only="g")
    assert smollm2_grammars.accepts(grammar, "[TOOL_CALLS]g[ARGS]{}")
    assert not smollm2_grammars.accepts(grammar, SHOWN["BRACKETS"])
    with pytest.raises(SchemaNotSupported, match='no tool "h"'):
        forced(canonical("mistral"), SAMPLES, only="h")
    with pytest.raises(SchemaNotSupported, match="no tools"):
        forced(canonical("mistral"), [])


@pytest.mark.parametrize("parameters", [None, msgspec.UNSET, {}, {"type": "object"}])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mistral", '{"a": 1, "b": [true, "x"], "c": {"d": null}}'),
        ("gemma", 'a:1,b:[true,<|"|>x<|"|>],c:{d:null}'),
        ("qwen_xml", "\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nany <b>\n</parameter>"),
        ("pythonic", ""),
    ],
)
def test_tool_that_declares_nothing_takes_some_object(
    smollm2_grammars: Acceptor, name: str, arguments: str, parameters: Any
) -> None:
    grammar = forced(canonical(name), [any_tool("h", parameters)], may_repeat=False)
    empty = {
        "mistral": "[TOOL_CALLS]h[ARGS]{}",
        "gemma": "<|tool_call>call:h{}<tool_call|>",
        "qwen_xml": "<tool_call>\n<function=h>\n</function>\n</tool_call>",
        "pythonic": "<|tool_call_start|>[h()]<|tool_call_end|>",
    }[name]
    assert smollm2_grammars.refused(grammar, empty) is None
    place = re.compile(r"\{\}|(?<=h>)|(?<=\()")
    full = place.sub(lambda found: _around(found.group(), arguments), empty, count=1)
    assert smollm2_grammars.refused(grammar, full) is None
    deep = '[TOOL_CALLS]h[ARGS]{"a": {"b": {"c": {}}}}'
    assert not smollm2_grammars.accepts(grammar, deep)


def _around(brackets: str, arguments: str) -> str:
    if arguments.startswith("{"):
        return arguments
    return f"{brackets[:1]}{arguments}{brackets[1:]}"


def test_loose_tool_takes_any_object(smollm2_grammars: Acceptor) -> None:
    odd = any_tool("f", {"type": "object", "properties": {"a": {"$ref": "https://example.org"}}})
    grammar = forced(canonical("mistral"), [odd], loose=["f"])
    assert smollm2_grammars.accepts(grammar, '[TOOL_CALLS]f[ARGS]{"b": 1}')


@pytest.mark.parametrize(
    ("dialect", "name", "parameters", "reason"),
    [
        ("hermes", "f", {"type": "object", "properties": {"a": {"$ref": "#/x"}}},
         'tool "f": property "a": it refers to \'#/x\''),
        ("hermes", "f", {"type": "string"}, 'tool "f": parameters are an object'),
        ("hermes", "f", [], 'tool "f": its parameters are no JSON schema'),
        ("hermes", "f", {"properties": {"a": {"enum": [[[[]]]]}}, "anyOf": [[]]},
         'tool "f": '),
        ("pythonic", "7up", None, 'tool "7up": its name cannot be written'),
        ("pythonic", "f", {"properties": {"class": True}, "required": ["class"]},
         'tool "f": property "class": the name \'class\' cannot'),
        ("gemma", "f", {"properties": {"a b": True}, "required": ["a b"]},
         'tool "f": property "a b": the name'),
        ("qwen_xml", "f", {"properties": {"a>": True}, "required": ["a>"]}, 'property "a>"'),
        ("qwen_xml", "f", {"properties": {"a": {"const": "</parameter>"}}, "required": ["a"]},
         "the text '</parameter>' cannot be written"),
        ("gemma", "f", {"properties": {"a": {"const": '<|"|>'}}, "required": ["a"]},
         "cannot be written"),
    ],
)  # fmt: skip
def test_tool_that_cannot_be_forced_is_named(
    dialect: str, name: str, parameters: Any, reason: str
) -> None:
    with pytest.raises(SchemaNotSupported, match=re.escape(reason)):
        forced(canonical(dialect), [any_tool("fine", None), any_tool(name, parameters)])


def test_names_of_rules_do_not_collide_between_tools(smollm2_grammars: Acceptor) -> None:
    def referring(kind: str) -> Any:
        defs = {"thing": {"type": kind}, "list": {"anyOf": [{"$ref": "#/$defs/thing"}, LINK]}}
        return {"$defs": defs, "type": "object", "properties": {"a": {"$ref": "#/$defs/list"}},
                "required": ["a"]}  # fmt: skip

    LINK = {"type": "array", "items": {"$ref": "#/$defs/list"}}  # noqa: N806
    tools = [any_tool("f", referring("integer")), any_tool("g", referring("boolean"))]
    grammar = forced(canonical("mistral"), tools)
    assert smollm2_grammars.accepts(grammar, '[TOOL_CALLS]f[ARGS]{"a": [1, [2]]}')
    assert smollm2_grammars.accepts(grammar, '[TOOL_CALLS]g[ARGS]{"a": [true, [false]]}')
    assert not smollm2_grammars.accepts(grammar, '[TOOL_CALLS]f[ARGS]{"a": [true]}')


# --- values without quotes ----------------------------------------------------------------------

KINDS: dict[str, Any] = {
    "text": {"type": "string"},
    "sized": {"type": "string", "minLength": 2, "maxLength": 4},
    "long": {"type": "string", "minLength": 3},
    "one": {"type": "string", "minLength": 1},
    "tiny": {"type": "string", "maxLength": 1},
    "code": {"type": "string", "pattern": "^[a-z]-\\d$"},
    "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "sized_or_null": {"type": ["string", "null"], "maxLength": 3},
    "number_or_text": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "color": {"$ref": "#/$defs/color"},
    "digits": {"enum": ["1", "2", "x"]},
    "mixed": {"enum": ["1", "x y", 1, None]},
    "any": {},
    "list": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    "flag": {"type": "boolean"},
    "padded": {"enum": [" a ", "b"]},
}
KINDS_SCHEMA = {
    "$defs": {"color": {"type": "string", "enum": ["red", "7"]}},
    "type": "object",
    "properties": KINDS,
}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "7", "7"), ("text", "two\n<b>words</b>", "two\n<b>words</b>"), ("text", "", ""),
        ("sized", "ab", "ab"), ("sized", "a b", "a b"), ("sized", "abcd", "abcd"),
        ("sized", "a", None), ("sized", "abcde", None), ("sized", "  ab", None),
        ("long", "abc", "abc"), ("long", "a c < d", "a c < d"), ("long", "ab", None),
        ("one", "a", "a"), ("one", "", None), ("tiny", "", ""), ("tiny", "a", "a"),
        ("tiny", "ab", None),
        ("code", "a-1", "a-1"), ("code", "a-", None),
        ("maybe", "null", msgspec.UNSET), ("maybe", "nul", "nul"), ("maybe", "7", "7"),
        ("sized_or_null", '"abc"', "abc"), ("sized_or_null", "null", msgspec.UNSET),
        ("sized_or_null", "abc", None),
        ("number_or_text", "7", 7), ("number_or_text", '"7"', "7"), ("number_or_text", "x", None),
        ("color", "red", "red"), ("color", "7", "7"), ("color", "blue", None),
        ("digits", "1", "1"), ("digits", "x", "x"), ("digits", "3", None),
        ("mixed", "x y", "x y"), ("mixed", '"1"', "1"), ("mixed", "1", 1),
        ("mixed", "null", msgspec.UNSET), ("mixed", "2", None),
        ("any", "{} or so", "{} or so"), ("any", "[1]", [1]),
        ("list", '["a", "b"]', ["a", "b"]), ("list", "a", None),
        ("flag", "true", True), ("flag", "yes", None),
        ("padded", "b", "b"), ("padded", '" a "', None), ("padded", " a ", None),
    ],
)  # fmt: skip
def test_tagged_values_are_read_as_what_they_are_written_for(
    smollm2_grammars: Acceptor, key: str, text: str, value: Any
) -> None:
    """``None``: it cannot be written; ``UNSET`` stands for null."""
    tools = [any_tool("f", KINDS_SCHEMA)]
    call = (
        f"<tool_call>\n<function=f>\n<parameter={key}>\n{text}\n</parameter>\n</function>\n"
        "</tool_call>"
    )
    grammar = forced(canonical("qwen_xml"), tools)
    assert smollm2_grammars.accepts(grammar, call) == (value is not None)
    if value is not None:
        [parsed] = parse(call, schemas=parameter_schemas(tools))
        expected = None if value is msgspec.UNSET else value
        assert parsed.arguments.valid_json == {key: expected}


@pytest.mark.parametrize("name", ["qwen_xml", "glm", "invoke", "minimax_m3", "kimi_k3"])
def test_whatever_tagged_values_are_written_the_schema_allows(
    byte_grammars: Acceptor, name: str
) -> None:
    read_schemas = parameter_schemas([any_tool("f", KINDS_SCHEMA)])
    checked = 0
    for key in KINDS:
        schema = KINDS_SCHEMA | {"properties": {key: KINDS[key]}, "required": [key]}
        grammar = forced(canonical(name), [any_tool("f", schema)], may_repeat=False)
        for seed in range(5):
            text = byte_grammars.walk(grammar, seed, likely="<]|")
            if text is not None:
                [call] = parse(text, own=BY_NAME[name], schemas=read_schemas)
                Draft202012Validator(schema).validate(call.arguments.valid_json)
                checked += 1
    assert checked > len(KINDS) / 2


def test_type_of_a_value_is_said_where_the_dialect_has_a_place_for_it(
    smollm2_grammars: Acceptor,
) -> None:
    grammar = forced(canonical("kimi_k3"), [any_tool("f", KINDS_SCHEMA)])

    def call(key: str, kind: str, text: str) -> str:
        return (
            '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument '
            f'key="{key}" type="{kind}"<|sep|>{text}<|close|>argument<|sep|><|close|>call<|sep|>'
            "<|close|>tools<|sep|>"
        )

    assert smollm2_grammars.accepts(grammar, call("flag", "boolean", "true"))
    assert smollm2_grammars.accepts(grammar, call("number_or_text", "string", "7"))
    assert smollm2_grammars.accepts(grammar, call("number_or_text", "number", "7"))
    assert smollm2_grammars.accepts(grammar, call("any", "array", "[]"))
    assert not smollm2_grammars.accepts(grammar, call("flag", "string", "true"))
    assert not smollm2_grammars.accepts(grammar, call("text", "number", "7"))


# --- other grammars behind reasoning ------------------------------------------------------------

YES = Gbnf('root ::= gap "yes"\ngap ::= "!"', "root")


@pytest.mark.parametrize(
    ("name", "options", "good", "bad"),
    [
        ("CHATML", {}, ["!yes"], ["<think>a</think>!yes", "yes", "\n!yes"]),
        ("CHATML", {"thinks": True}, ["!yes", "<think>a</think>\n!yes"], ["<think>a", "a!yes"]),
        ("CHATML", {"starts_in_reasoning": True}, ["a</think>!yes"], ["!yes", "a</think>!no"]),
        ("PLAIN", {"thinks": True}, ["!yes"], ["a!yes"]),
        ("WRAPPED", {"thinks": True},
         ["<|START_THINKING|>a<|END_THINKING|><|START_TEXT|>!yes", "!yes"], ["a"]),
        ("CHANNELS", {},
         ["<|channel|>final<|message|>!yes",
          "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>!yes"],
         ["!yes"]),
        ("RECIPIENTS", {}, ["all\n!yes"], ["!yes", "f\n!yes"]),
    ],
)  # fmt: skip
def test_content_is_ruled_behind_free_reasoning(
    smollm2_grammars: Acceptor, name: str, options: dict[str, bool], good: list[str],
    bad: list[str],
) -> None:  # fmt: skip
    options = {"starts_in_reasoning": False, "thinks": False} | options
    grammar = behind_reasoning(probed(name), YES, **options)
    assert [smollm2_grammars.refused(grammar, text) for text in good] == [None] * len(good)
    assert not any(smollm2_grammars.accepts(grammar, text) for text in bad)


# --- calls, or content that obeys a grammar -----------------------------------------------------

ANSWER = gbnf_of(
    JsonSchemaGrammar(
        '{"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}'
    )
)


def either(form: ModelFormat, **options: bool) -> Gbnf:
    options = {"starts_in_reasoning": False, "thinks": False, "may_repeat": True} | options
    return calls_or_content(form, [PROBE], ANSWER, **options)


@pytest.mark.parametrize("name", BY_NAME)
def test_an_answer_may_call_or_be_as_its_schema_says(smollm2_grammars: Acceptor, name: str) -> None:
    form = canonical(name)
    grammar = either(form)
    assert smollm2_grammars.refused(grammar, EXAMPLES[name]) is None
    answer = '{"answer": 4}'
    assert smollm2_grammars.refused(grammar, answer) is None
    for wrong in ("4", '{"answer": "four"}', answer + EXAMPLES[name], EXAMPLES[name] + answer):
        assert not smollm2_grammars.accepts(grammar, wrong), wrong


@pytest.mark.parametrize("name", BY_NAME)
def test_an_answer_that_is_as_its_schema_says_is_no_call(name: str) -> None:
    form = readable(canonical(name))
    splitter = SectionSplitter(form.markers, "", expects_calls=True)
    answer = '{"answer": 4}'
    pieces = [*splitter.feed(answer), *splitter.finish("")]
    told = "".join(piece.text for piece in pieces if piece.section is not FrameKind.TOOL_CALL)
    assert told == '{"answer": 4}'


def test_either_may_follow_a_thought(smollm2_grammars: Acceptor) -> None:
    grammar = either(probed("CHATML"), thinks=True)
    assert smollm2_grammars.accepts(grammar, '<think>a</think>\n{"answer": 4}')
    one_call = EXAMPLES["hermes"].partition("</tool_call>\n")[0] + "</tool_call>"
    assert smollm2_grammars.accepts(grammar, f"<think>a</think>\n{one_call}")
    assert not smollm2_grammars.accepts(grammar, "<think>a</think>\n4")
