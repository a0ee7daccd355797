"""Sections and tool calls end to end: templates that teach a dialect, answers forced into it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import OpenAI

from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.e2e.fleet import PATIENT, Fleet, ask, conversation, request, usage_of, wait_until
from tests.e2e.test_inference_socket import collect, open_socket, send

# How a template renders the call named ``name`` with the arguments ``arguments``.
DIALECTS = {
    "qwen": (
        '<tool_call>\n{"name": "{{ name }}", "arguments": {{ arguments | tojson }}}\n</tool_call>'
    ),
    "qwen_xml": (
        "<tool_call>\n<function={{ name }}>\n{% for key, value in arguments.items() %}"
        "<parameter={{ key }}>\n{{ value }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
    ),
    "mistral": "[TOOL_CALLS]{{ name }}[ARGS]{{ arguments | tojson }}",
    "gemma": (
        "<|tool_call>call:{{ name }}{{ '{' }}"
        "{% for key, value in arguments.items() %}{{ key }}:"
        '{% if value is string %}<|"|>{{ value }}<|"|>{% else %}{{ value }}{% endif %}'
        "{{ ',' if not loop.last }}{% endfor %}"
        "}<tool_call|>"
    ),
    "glm": (
        "<tool_call>{{ name }}\n{% for key, value in arguments.items() %}"
        "<arg_key>{{ key }}</arg_key>\n<arg_value>{{ value }}</arg_value>\n{% endfor %}</tool_call>"
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.{{ name }}:0"
        "<|tool_call_argument_begin|>{{ arguments | tojson }}<|tool_call_end|>"
        "<|tool_calls_section_end|>"
    ),
    "deepseek_v3.1": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{{ name }}<｜tool▁sep｜>"  # noqa: RUF001
        "{{ arguments | tojson }}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"  # noqa: RUF001
    ),
    "granite": '<|tool_call|>[{"name": "{{ name }}", "arguments": {{ arguments | tojson }}}]',
    "command_r": (
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "{{ name }}", '
        '"parameters": {{ arguments | tojson }}}]<|END_ACTION|>'
    ),
    "functionary": "<function={{ name }}>{{ arguments | tojson }}</function>",
}
TEMPLATE = """
{%%- for message in messages -%%}
<|im_start|>{{ message.role }}
{{ message.content }}
{%%- for call in message.tool_calls or [] -%%}
{%%- set name = call.function.name -%%}{%%- set arguments = call.function.arguments -%%}
%s
{%%- endfor -%%}
<|im_end|>
{%% endfor -%%}
{%%- if tools %%}{{ tools | tojson }}{%% endif -%%}
{%%- if add_generation_prompt -%%}<|im_start|>assistant
{%% endif -%%}
"""
THINKING = """
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif -%}{%- endif -%}
"""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string"}},
                "required": ["location"],
                "additionalProperties": False,
            },
        },
    }
]


CITY_NAMES = ["Paris", "Rome"]
CITIES: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "enum": CITY_NAMES}},
                "required": ["location"],
                "additionalProperties": False,
            },
        },
    }
]


@pytest.fixture(scope="module")
def tool_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("tools"), *PATIENT) as fleet:
        fleet.start_agent("agent-1", 2)
        wait_until(fleet.snapshot, "the agent joins")
        yield fleet


def put_template(fleet: Fleet, model: Path, template: str) -> None:
    state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
    state["inference_parameters"]["context_size"] = 2048
    state["model"] = {"LocalToAgent": str(model)}
    state["use_chat_template_override"] = True
    state["chat_template_override"] = {"content": template}
    fleet.put_state(state)
    wait_until(lambda: fleet.snapshot()[0]["slots_total"] == 0, "the swap begins")
    fleet.wait_slots(2)


def rendered(dialect: str, name: str, arguments: dict[str, Any]) -> str:
    """A call as the dialect has it."""
    import jinja2

    environment = jinja2.Environment()
    environment.filters["tojson"] = json.dumps
    text: str = environment.from_string(DIALECTS[dialect]).render(name=name, arguments=arguments)
    return text


def forced(text: str) -> dict[str, Any]:
    """A grammar that allows nothing but this text."""
    return {"type": "gbnf", "grammar": f"root ::= {json.dumps(text)}", "root": "root"}


def calling(text: str, **changes: Any) -> dict[str, Any]:
    body = conversation("What is the weather in Paris?", 200)
    return body | {"tools": TOOLS, "parse_tool_calls": True, "grammar": forced(text)} | changes


def results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message["Response"]["response"]["GeneratedToken"] for message in messages]


def joined(messages: list[dict[str, Any]], variant: str) -> str:
    return "".join(result[variant] for result in results(messages) if variant in result)


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_a_call_is_parsed_in_the_dialect_that_the_template_teaches(
    tool_fleet: Fleet, smollm2_path: Path, dialect: str
) -> None:
    put_template(tool_fleet, smollm2_path, TEMPLATE % DIALECTS[dialect])
    text = rendered(dialect, "get_weather", {"location": "Paris"})
    messages = ask(tool_fleet.inference, calling(text))
    *tokens, parsed, done = results(messages)
    assert {variant for token in tokens for variant in token} == {"ToolCallToken"}
    (call,) = parsed["ToolCallParsed"]
    assert call["name"] == "get_weather"
    assert call["arguments"] == {"ValidJson": {"location": "Paris"}}
    assert list(done) == ["Done"]
    usage = usage_of(messages)
    assert usage["tool_call_tokens"] > 0

    # What the model is made to write on the OpenAI service, in its own dialect.
    with OpenAI(
        base_url=f"http://127.0.0.1:{tool_fleet.openai}/v1", api_key="x", max_retries=0
    ) as openai:
        (choice,) = openai.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=CITIES,
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=300,
        ).choices
        assert choice.finish_reason == "tool_calls"
        (made,) = choice.message.tool_calls or []
        assert made.type == "function"
        assert made.function.name == "get_weather"
        assert json.loads(made.function.arguments) in [{"location": city} for city in CITY_NAMES]
        fragments = [
            call.function
            for chunk in openai.chat.completions.create(
                model="any",
                messages=[{"role": "user", "content": "What is the weather in Paris?"}],
                tools=CITIES,
                tool_choice={"type": "function", "function": {"name": "get_weather"}},
                parallel_tool_calls=False,
                max_tokens=300,
                stream=True,
            )
            for call in chunk.choices[0].delta.tool_calls or []
        ]
        assert fragments[0] is not None
        assert fragments[0].name == "get_weather"
        arguments = "".join(one.arguments or "" for one in fragments if one is not None)
        assert json.loads(arguments) in [{"location": city} for city in CITY_NAMES]

    # The same as at first, over the socket.
    with open_socket(tool_fleet) as client:
        send(client, "x", calling(text))
        over_socket = collect(client, "x")["x"]
    assert results(over_socket)[-2] == parsed


@pytest.fixture
def qwen_fleet(tool_fleet: Fleet, smollm2_path: Path) -> Fleet:
    state = json.loads(request(tool_fleet.management, "GET", "/api/v1/balancer_desired_state")[1])
    if (state["chat_template_override"] or {}).get("content") != TEMPLATE % DIALECTS["qwen"]:
        put_template(tool_fleet, smollm2_path, TEMPLATE % DIALECTS["qwen"])
    return tool_fleet


def test_without_the_flag_only_the_text_is_shown(qwen_fleet: Fleet) -> None:
    text = rendered("qwen", "get_weather", {"location": "Paris"})
    messages = ask(qwen_fleet.inference, calling(text, parse_tool_calls=False))
    assert {variant for result in results(messages) for variant in result} == {
        "ToolCallToken",
        "Done",
    }
    assert json.loads(joined(messages, "ToolCallToken"))["name"] == "get_weather"


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("get_weather", {"location": 7}, 'arguments for tool "get_weather" failed schema check: '),
        ("get_time", {}, 'unknown tool name "get_time"'),
    ],
)
def test_a_call_that_the_tools_do_not_allow_is_told(
    qwen_fleet: Fleet, name: str, arguments: dict[str, Any], expected: str
) -> None:
    messages = ask(qwen_fleet.inference, calling(rendered("qwen", name, arguments)))
    (failure,) = results(messages)[-2]["ToolCallValidationFailed"]
    assert failure.startswith(expected)
    assert "Done" in results(messages)[-1]


def test_text_in_no_known_syntax_is_told(qwen_fleet: Fleet) -> None:
    messages = ask(qwen_fleet.inference, calling("<tool_call>no call at all</tool_call>"))
    unrecognized = results(messages)[-2]["UnrecognizedToolCallFormat"]
    assert "no call at all" in unrecognized["text"]
    assert unrecognized["ffi_error_message"]


def test_another_dialect_is_understood_too(qwen_fleet: Fleet) -> None:
    text = rendered("qwen_xml", "get_weather", {"location": "Paris"})
    parsed = results(ask(qwen_fleet.inference, calling(text)))[-2]["ToolCallParsed"]
    assert parsed[0]["arguments"] == {"ValidJson": {"location": "Paris"}}


def test_a_schema_that_is_none_is_refused_before_any_token(qwen_fleet: Fleet) -> None:
    tool = json.loads(json.dumps(TOOLS[0]))
    tool["function"]["parameters"]["properties"] = {"location": {"type": 123}}
    (message,) = ask(qwen_fleet.inference, calling("x", tools=[tool]))
    text = message["Response"]["response"]["GeneratedToken"]["ToolSchemaInvalid"]
    assert text.startswith('tool "get_weather" parameters are not a valid JSON Schema: ')


def test_reasoning_and_content_are_told_apart(tool_fleet: Fleet, smollm2_path: Path) -> None:
    put_template(tool_fleet, smollm2_path, THINKING)
    grammar = forced("Paris.")
    plain = ask(tool_fleet.inference, conversation("Capital?", 50) | {"grammar": grammar})
    assert joined(plain, "ContentToken") == "Paris."
    assert usage_of(plain)["reasoning_tokens"] == 0
    assert usage_of(plain)["undeterminable_tokens"] == 0

    thinking = "<|im_start|>assistant\n"
    body = {
        "raw_prompt": thinking,
        "max_tokens": 50,
        "grammar": forced("<think>\nIt is a capital.\n</think>\n\nParis."),
    }
    messages = ask(tool_fleet.inference, body)
    assert joined(messages, "ReasoningToken").strip() == "It is a capital."
    assert joined(messages, "ContentToken").strip() == "Paris."
    usage = usage_of(messages)
    assert usage["reasoning_tokens"] > 0
    assert usage["content_tokens"] > 0


def test_a_template_that_loops_costs_one_request_an_error(
    tool_fleet: Fleet, smollm2_path: Path
) -> None:
    endless = (
        "{% if messages[-1].content == 'loop' %}{% for a in range(99999) %}"
        "{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
        "{% endif %}<|im_start|>user\n{{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n"
    )
    put_template(tool_fleet, smollm2_path, endless)
    (message,) = ask(tool_fleet.inference, conversation("loop", 3))
    error = message["Response"]["response"]["GeneratedToken"]["ChatTemplateError"]
    assert error.startswith('agent "agent-1": failed to render chat template: ')
    assert "Done" in results(ask(tool_fleet.inference, conversation("Hello", 3)))[-1]
