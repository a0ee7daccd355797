import pytest

from paddler.agent.worker.chat_template import ChatTemplate
from paddler.agent.worker.history import HistoryForm
from paddler.agent.worker.markers import ModelFormat, probe
from paddler.agent.worker.sections import CHANNEL_HEADERS, RECIPIENT_HEADERS, Markers
from paddler.agent.worker.tool_calls.dialects import parse

# Small templates, each with the traits of a family of models.

CHATML = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{%- endif -%}
"""

XML = """
{%- for m in messages -%}
<turn>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] -%}
<tool_call><function={{ call.function.name }}>
{%- for key, value in call.function.arguments.items() %}
<parameter={{ key }}>
{{ value }}
</parameter>
{%- endfor %}
</function></tool_call>
{%- endfor -%}
</turn>
{%- endfor -%}
{%- if add_generation_prompt -%}<turn>assistant
<think>
{% endif -%}
{%- if '</think>' in messages[-1].content -%}{%- endif -%}
"""

# Thoughts are parts of the content, ids are checked, text of arguments goes in as it is.
BRACKETS = """
{{- bos_token -}}
{%- if tools is not none -%}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}[INST]{{ m.content }}[/INST]
{%- elif m.role == 'tool' -%}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]
{%- elif m.tool_calls -%}
  {%- for call in m.tool_calls -%}
  {%- if call.id | length != 9 -%}{{ raise_exception('bad id') }}{%- endif -%}
  [TOOL_CALLS]{{ call.function.name }}[ARGS]{{ '' + call.function.arguments }}
  {%- endfor -%}</s>
{%- elif m.content is string -%}{{ m.content }}</s>
{%- else -%}
  {%- for part in m.content -%}
  {%- if part.type == 'thinking' -%}[THINK]{{ part.thinking }}[/THINK]
  {%- else -%}{{ part.text }}{%- endif -%}
  {%- endfor -%}</s>
{%- endif -%}
{%- endfor -%}
"""

CHANNELS = """
{%- for m in messages -%}
{%- if m.tool_calls -%}
  {%- if m.thinking -%}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>
  {%- endif -%}
  <|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}<|channel|>commentary json
  {{- '<|message|>' }}{{ m.tool_calls[0].function.arguments | tojson }}<|call|>
{%- elif m.role == 'assistant' -%}
  <|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>
{%- else -%}
  <|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
"""

# Thoughts are shown beside calls only; an empty one stands for "do not think".
MIXED = """
{%- for m in messages -%}
<|turn>{{ m.role }}
{% if m.tool_calls -%}
{%- if m.reasoning %}<|channel>thought
{{ m.reasoning }}
<channel|>{% endif -%}
<|tool_call>call:{{ m.tool_calls[0].function.name }}{
{%- for key, value in m.tool_calls[0].function.arguments.items() -%}
{{ key }}:{% if value is string %}<|"|>{{ value }}<|"|>{% else %}{{ value }}{% endif %}
{%- if not loop.last %},{% endif -%}
{%- endfor -%}
}<tool_call|>
{%- else -%}{{ m.content }}{%- endif -%}<turn|>
{% endfor -%}
{%- if add_generation_prompt -%}<|turn>model
{% if not enable_thinking %}<|channel>thought
<channel|>{% endif %}{%- endif -%}
"""

BARE = """
{%- for m in messages -%}
<|start_header|>{{ m.role }}<|end_header|>

{% if m.tool_calls -%}
{"name": "{{ m.tool_calls[0].function.name }}", "parameters":
{{- ' ' }}{{ m.tool_calls[0].function.arguments | tojson }}}
{%- else -%}{{ m.content }}{%- endif -%}<|eot|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|start_header|>assistant<|end_header|>

{% endif -%}
{%- if builtin -%}<|python_tag|>{%- endif -%}
"""

RECIPIENTS = """
{%- for m in messages -%}
<|header|>{{ m.role }}

{% if m.tool_calls -%}
>>>{{ m.tool_calls[0].function.name }}
{{ m.tool_calls[0].function.arguments | tojson }}
{%- elif m.role == 'assistant' -%}
>>>all
{{ m.content }}
{%- else -%}{{ m.content }}{%- endif -%}<|eot|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|header|>assistant

>>>{% endif -%}
"""

WRAPPED = """
{%- for m in messages -%}
<|TURN|><|{{ m.role }}|>
{%- if m.tool_calls -%}<|START_ACTION|>[
  {"tool_call_id": "0", "tool_name": "{{ m.tool_calls[0].function.name }}", "parameters":
  {{- ' ' }}{{ m.tool_calls[0].function.arguments | tojson }}}
]<|END_ACTION|>
{%- elif m.role == 'assistant' -%}
{%- if m.reasoning -%}<|START_THINKING|>{{ m.reasoning }}<|END_THINKING|>{%- endif -%}
<|START_TEXT|>{{ m.content }}<|END_TEXT|>
{%- else -%}{{ m.content }}{%- endif -%}<|END_OF_TURN|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|TURN|><|assistant|>{%- endif -%}
"""

UNKNOWN_WRAPPER = CHATML.replace("tool_call>", "my_call>")

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content + '' }}\n{% endfor %}assistant:"
TOLD = "{{ tools | tojson }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
FAILING = "{{ raise_exception('no') }}"
HABIT = "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{% endfor %}"


def probed(source: str) -> ModelFormat:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", nl_token="\n")
    return probe(template, source)


@pytest.mark.parametrize(
    ("source", "markers", "dialect"),
    [
        (CHATML,
         Markers(reasoning=("<think>",), tool_calls=("<tool_call>",),
                 closings=("</think>", "</tool_call>"), turn_starts=("<|im_start|>assistant\n",)),
         "hermes"),
        (XML,
         Markers(reasoning=("<think>",), tool_calls=("<tool_call>",),
                 closings=("</think>", "</tool_call>"), turn_starts=("<turn>assistant\n",)),
         "qwen_xml"),
        (BRACKETS,
         Markers(reasoning=("[THINK]",), tool_calls=("[TOOL_CALLS]",),
                 closings=("[/THINK]",), turn_starts=("[/INST]", "[/TOOL_RESULTS]")),
         "mistral"),
        (CHANNELS,
         Markers(closings=("<|end|>",), headers=CHANNEL_HEADERS,
                 turn_starts=("<|start|>assistant",)),
         "gpt_oss"),
        (MIXED,
         Markers(reasoning=("<|channel>thought",), tool_calls=("<|tool_call>",),
                 closings=("<channel|>", "<tool_call|>"), turn_starts=("<|turn>model\n",)),
         "gemma"),
        (BARE,
         Markers(tool_calls=("<|python_tag|>",), has_bare_calls=True,
                 turn_starts=("<|start_header|>assistant<|end_header|>\n\n",)),
         "bare_json"),
        (RECIPIENTS,
         Markers(headers=RECIPIENT_HEADERS, turn_starts=("<|header|>assistant\n\n>>>",)),
         "functionary_v3.2"),
        (WRAPPED,
         Markers(reasoning=("<|START_THINKING|>",),
                 content=("<|START_TEXT|>", "<|TURN|><|assistant|>"),
                 tool_calls=("<|START_ACTION|>",),
                 closings=("<|END_THINKING|>", "<|END_ACTION|>", "<|END_TEXT|>"),
                 turn_starts=("<|TURN|><|assistant|>",)),
         "command_r"),
        (UNKNOWN_WRAPPER,
         Markers(reasoning=("<think>",), tool_calls=("<my_call>",),
                 closings=("</think>", "</my_call>"), turn_starts=("<|im_start|>assistant\n",)),
         "own"),
        (HABIT, Markers(reasoning=("<think>",), closings=("</think>",)), None),
        (TOLD,
         Markers(tool_calls=("<tool_call>", "<|tool_call_start|>", "[TOOL_CALLS]",
                             "<|tool_call|>", "<TOOLCALL>"),
                 closings=("</tool_call>", "<|tool_call_end|>", "<|/tool_call|>", "</TOOLCALL>")),
         None),
        (PLAIN, Markers(), None),
        (FAILING, Markers(), None),
    ],
)  # fmt: skip
def test_markers_and_dialect_are_found_by_rendering(
    source: str, markers: Markers, dialect: str | None
) -> None:
    found = probed(source)
    assert found.markers == markers
    assert (found.dialect.name if found.dialect else None) == dialect


def test_model_without_markers_is_told_apart() -> None:
    assert not probed(PLAIN).markers.is_known
    assert probed(BARE).markers.is_known


def test_dialect_of_an_unknown_wrapper_reads_it() -> None:
    text = '<my_call>\n{"name": "f", "arguments": {}}\n</my_call>'
    calls = parse(text, own=probed(UNKNOWN_WRAPPER).dialect)
    assert isinstance(calls, list)
    assert calls[0].name == "f"


@pytest.mark.parametrize(
    ("source", "calls", "shown"),
    [
        (CHATML, 2, "<tool_call>\n{"),
        (BRACKETS, 2, "[TOOL_CALLS]probe_function[ARGS]{"),
        (BARE, 1, '{"name": "probe_function", "parameters": {'),
        (UNKNOWN_WRAPPER, 2, "<my_call>\n{"),
    ],
)
def test_example_of_calls_is_what_the_template_writes(source: str, calls: int, shown: str) -> None:
    form = probed(source)
    assert form.example.startswith(shown)
    assert form.example.count("probe_function") == calls


def test_template_that_shows_no_calls_gives_no_example() -> None:
    assert probed(TOLD).example == ""


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (CHATML, HistoryForm()),
        (BRACKETS, HistoryForm(arguments_are_text=True, ids_are_short=True,
                               thoughts_are_parts=True)),
        (CHATML.replace("call.function.name", "call.id"), HistoryForm(ids_are_named=True)),
        (CHATML.replace("{{ m.content }}", "{{ m.content or 'None' }}"), HistoryForm()),
        (
            "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.name }}"
            "{% else %}{{ m.content }}{% endif %}{% endfor %}",
            HistoryForm(empty_content=None),
        ),
        (HABIT, HistoryForm(calls_as_text=("", ""))),
        (TOLD, HistoryForm(calls_as_text=("<tool_call>", "</tool_call>"))),
    ],
)  # fmt: skip
def test_form_of_calls_is_what_the_template_understands(source: str, form: HistoryForm) -> None:
    assert probed(source).history._replace(text_roles=frozenset()) == form
