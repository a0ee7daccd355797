# ruff: noqa: E501, RUF001 - Prompts are read best in one line; DeepSeek's have fullwidth bars.
"""Families of models: a template with the traits of each, and how its models write.

The templates are ours, written from the format that each family documents. ``prompt`` is
what ``CHAT`` looks like in that format, byte for byte.
"""

from typing import Any, NamedTuple

from paddler.agent.worker.history import HistoryForm
from paddler.messages.link import FrameKind

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]
ARGUMENTS = {"city": "Paris"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

C, R, T, U = (
    FrameKind.CONTENT,
    FrameKind.REASONING,
    FrameKind.TOOL_CALL,
    FrameKind.UNDETERMINABLE,
)


class Family(NamedTuple):
    """``call``: how a call of ``weather`` looks in history. ``answer``: one that calls it, too.

    ``said``: the sections of that answer. ``form``: what differs from the usual in history,
    but for ``text_roles``.
    """

    template: str
    prompt: str
    dialect: str | None
    call: str
    answer: str
    said: list[tuple[FrameKind, str]]
    form: HistoryForm = HistoryForm()
    bos: str = ""
    eos: str = ""


HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
HERMES_SAID = [(T, '\n{"name": "weather", "arguments": {"city": "Paris"}}\n')]
JSON_CALL = '{"name": "weather", "parameters": {"city": "Paris"}}'
JSON_CALLS = '[{"name": "weather", "arguments": {"city": "Paris"}}]'
AS_TEXT = '{"name":"weather","arguments":{"city":"Paris"}}'

FAMILIES = {
    # Without a system message, Qwen 2.5 writes one of its own.
    "qwen2.5": Family(
        template="""
{%- if messages[0].role != 'system' -%}<|im_start|>system
You are Qwen.<|im_end|>
{% endif -%}
{%- for tool in tools or [] %}{% if loop.first %}<tools>{% endif %}{{ tool | tojson }}{% endfor -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else -%}
<|im_start|>{{ m.role }}
{{ m.content + '' }}
{%- for call in m.tool_calls or [] -%}
{%- if m.content or not loop.first %}{{ '\n' }}{% endif -%}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
""",
        prompt="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        dialect="hermes",
        call=f"<|im_start|>assistant\n{HERMES_CALL}<|im_end|>",
        answer=f"Let me see.\n{HERMES_CALL}",
        said=[(U, "Let me see.\n"), *HERMES_SAID],
    ),
    # A thought is shown in the last turn only; an empty one stands for "do not think".
    "qwen3": Family(
        template="""
{%- set ns = namespace(last=-1) -%}
{%- for m in messages if m.role == 'user' %}{% set ns.last = messages.index(m) %}{% endfor -%}
{%- if tools -%}<tools>{{ tools | tojson }}</tools>{%- endif -%}
{%- for m in messages -%}
<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.reasoning_content and loop.index0 > ns.last %}<think>
{{ m.reasoning_content.strip('\n') }}
</think>

{% endif -%}
{%- if m.content is string -%}
{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content }}
{%- endif -%}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif -%}
""",
        prompt="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        dialect="hermes",
        call=f"<|im_start|>assistant\n{HERMES_CALL}<|im_end|>",
        answer=f"<think>\nhm\n</think>\n\nYes.\n{HERMES_CALL}",
        said=[(R, "\nhm\n"), (C, "\n\nYes.\n"), *HERMES_SAID],
    ),
    # A macro writes content; system messages come first or not at all.
    "qwen3.5": Family(
        template="""
{%- macro said(content) -%}
{%- if content is string %}{{ content }}{% else -%}
{%- for part in content %}{{ part.text }}{% endfor %}{% endif -%}
{%- endmacro -%}
{%- for m in messages -%}
{%- if m.role == 'system' and not loop.first %}{{ raise_exception('too late') }}{% endif -%}
<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.reasoning_content and m.role == 'assistant' %}<think>
{{ m.reasoning_content }}
</think>

{% endif -%}
{{ said(m.content) -}}
{%- for call in m.tool_calls or [] %}<tool_call>
<function={{ call.function.name }}>
{% for key, value in call.function.arguments.items() %}<parameter={{ key }}>
{{ value if value is string else value | tojson }}
</parameter>
{% endfor %}</function>
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{{ '' if enable_thinking else '\n</think>\n\n' }}{% endif -%}
""",
        prompt="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n",
        dialect="qwen_xml",
        call="<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n"
        "</function>\n</tool_call><|im_end|>",
        answer="hm\n</think>\n\n<tool_call>\n<function=weather>\n<parameter=city>\nParis\n"
        "</parameter>\n</function>\n</tool_call>",
        said=[(R, "hm\n"), (C, "\n\n"),
              (T, "\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n")],
    ),
    # Arguments are text that goes in as it is, in a fence of its own.
    "deepseek_r1": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' %}{{ m.content + '' }}
{%- elif m.role == 'user' %}<｜User｜>{{ m.content + '' }}
{%- elif m.role == 'tool' -%}
<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>{{ m.content -}}
<｜tool▁output▁end｜><｜tool▁outputs▁end｜>
{%- elif m.tool_calls -%}
<｜Assistant｜><｜tool▁calls▁begin｜>
{%- for call in m.tool_calls -%}
{{ '\n' if not loop.first }}<｜tool▁call▁begin｜>{{ call.type }}<｜tool▁sep｜>
{{- call.function.name }}
```json
{{ '' + call.function.arguments }}
```<｜tool▁call▁end｜>
{%- endfor %}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>
{%- else -%}
<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != 'tool' %}<｜Assistant｜><think>
{% endif -%}
""",
        prompt="<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜>"
        "<｜User｜>Bye<｜Assistant｜><think>\n",
        dialect="deepseek",
        call='<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city":'
        '"Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        # With a low line where the marker has a low block, as it often does.
        answer="hm\n</think>\n\n<｜tool_calls_begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
        '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        said=[(R, "hm\n"), (C, "\n\n"),
              (T, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
               '{"city": "Paris"}\n```<｜tool▁call▁end｜>')],
        form=HistoryForm(arguments_are_text=True),
        bos="<｜begin▁of▁sentence｜>",
    ),
    # Two modes in one model: the prompt closes the thought that is not wanted.
    "deepseek_v3.1": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' %}{{ m.content + '' }}
{%- elif m.role == 'user' %}<｜User｜>{{ m.content + '' }}
{%- elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>
{%- else -%}
<｜Assistant｜></think>{{ m.content + '' }}
{%- for call in m.tool_calls or [] -%}
{{ '<｜tool▁calls▁begin｜>' if loop.first }}<｜tool▁call▁begin｜>{{ call.function.name -}}
<｜tool▁sep｜>{{ call.function.arguments | tojson }}<｜tool▁call▁end｜>
{{- '<｜tool▁calls▁end｜>' if loop.last }}
{%- endfor %}<｜end▁of▁sentence｜>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role == 'user' -%}
<｜Assistant｜>{{ '<think>' if thinking else '</think>' }}{% endif -%}
""",
        prompt="<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello!"
        "<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜><think>",
        dialect="deepseek_v3.1",
        call='<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Paris"}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        answer='hm</think>Yes.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": '
        '"Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        said=[(R, "hm"), (C, "Yes."),
              (T, '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>')],
        bos="<｜begin▁of▁sentence｜>",
    ),
    "deepseek_v3.2": Family(
        template="""
{%- set dsml = '｜DSML｜' -%}
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' %}{{ m.content + '' }}
{%- elif m.role == 'user' %}<｜User｜>{{ m.content + '' }}
{%- elif m.role == 'tool' %}<function_results>{{ m.content }}</function_results>
{%- else -%}
<｜Assistant｜>
{%- if m.reasoning_content and m.tool_calls %}<think>{{ m.reasoning_content }}{% endif -%}
</think>{{ m.content -}}
{%- for call in m.tool_calls or [] -%}
{{ '\n\n<' + dsml + 'function_calls>\n' if loop.first }}<{{ dsml }}invoke name="
{{- call.function.name }}">
{% for key, value in call.function.arguments.items() -%}
<{{ dsml }}parameter name="{{ key }}" string="{{ 'true' if value is string else 'false' }}">
{{- value if value is string else value | tojson }}</{{ dsml }}parameter>
{% endfor %}</{{ dsml }}invoke>
{{ '</' + dsml + 'function_calls>' if loop.last }}
{%- endfor %}<｜end▁of▁sentence｜>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<｜Assistant｜>{{ '<think>' if thinking else '</think>' }}{% endif -%}
""",
        prompt="<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello!"
        "<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜><think>",
        dialect="invoke",
        call='<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" '
        'string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        answer='hm</think>\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n<｜DSML｜parameter '
        'name="city" string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        said=[(R, "hm"), (C, "\n\n"),
              (T, '\n<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" string="true">'
               "Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n")],
        bos="<｜begin▁of▁sentence｜>",
    ),
    # Refuses a system message: the user says it.
    "gemma2": Family(
        template="""
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif -%}
{%- for m in messages -%}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('user and assistant must take turns') }}
{%- endif -%}
<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ m['content'] | trim }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif -%}
""",
        prompt="<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!"
        "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        dialect=None,
        call=f"<start_of_turn>model\n{AS_TEXT}<end_of_turn>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(merged_roles=frozenset({"system", "tool"}), calls_as_text=("", "")),
        bos="<bos>",
    ),
    # Takes a system message, puts it before the first question, and takes parts.
    "gemma3": Family(
        template="""
{{- bos_token -}}
{%- set first = '' -%}
{%- if messages[0].role == 'system' -%}
{%- set first = messages[0].content if messages[0].content is string else
    messages[0].content[0].text -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{%- for m in messages -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('user and assistant must take turns') }}
{%- endif -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ first + '\n\n' if loop.first and first }}
{%- if m.content is string %}{{ m.content | trim }}{% else -%}
{%- for part in m.content %}{{ part.text | trim if part.type == 'text' }}{% endfor %}{% endif -%}
<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif -%}
""",
        prompt="<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!"
        "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        dialect=None,
        call=f"<start_of_turn>model\n{AS_TEXT}<end_of_turn>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(merged_roles=frozenset({"tool"}), calls_as_text=("", "")),
        bos="<bos>",
    ),
    # Strings have quotes of their own. An empty thought stands for "do not think".
    "gemma4": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}
<|tool_response>response:{{ m.name }}{value:<|"|>{{ m.content }}<|"|>}<tool_response|>
{%- else -%}
<|turn>{{ 'model' if m.role == 'assistant' else m.role }}
{% if m.reasoning and m.tool_calls %}<|channel>thought
{{ m.reasoning }}
<channel|>{% endif -%}
{%- for call in m.tool_calls or [] -%}
<|tool_call>call:{{ call.function.name }}{
{%- for key, value in call.function.arguments | dictsort -%}
{{ key }}:{% if value is string %}<|"|>{{ value }}<|"|>{% else %}{{ value }}{% endif %}
{{- ',' if not loop.last }}
{%- endfor -%}
}<tool_call|>
{%- endfor -%}
{%- if m.content is string %}{{ m.content | trim }}{% else -%}
{%- for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif -%}
{{ '<turn|>\n' if not m.tool_calls }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != 'tool' -%}
{{ '<|turn>model\n' if enable_thinking else '<|turn>model\n<|channel>thought\n<channel|>' }}
{%- endif -%}
""",
        prompt="<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHello!"
        "<turn|>\n<|turn>user\nBye<turn|>\n<|turn>model\n",
        dialect="gemma",
        call='<|tool_call>call:weather{city:<|"|>Paris<|"|>}<tool_call|>',
        answer='<|channel>thought\nhm<channel|>Yes.<|tool_call>call:weather{city:<|"|>Paris<|"|>}'
        "<tool_call|>",
        said=[(R, "\nhm"), (C, "Yes."), (T, 'call:weather{city:<|"|>Paris<|"|>}')],
        bos="<bos>",
    ),
    # Tells the date; a message makes one call at most.
    "llama3": Family(
        template="""
{{- bos_token -}}
{%- if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif -%}
{%- set first, messages = (messages[0].content | trim, messages[1:])
    if messages[0].role == 'system' else ('', messages) -%}
<|start_header_id|>system<|end_header_id|>

{{ 'Environment: ipython\n' if tools is not none -}}
Cutting Knowledge Date: December 2023
Today Date: {{ date_string }}

{{ first }}<|eot_id|>
{%- for m in messages -%}
{%- if m.tool_calls -%}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif -%}
{%- set call = m.tool_calls[0].function -%}
<|start_header_id|>assistant<|end_header_id|>

{% if builtin_tools is defined and call.name in builtin_tools -%}
<|python_tag|>{{ call.name }}.call(
{%- for key, value in call.arguments | items %}{{ key }}="{{ value }}"{% endfor -%}
)<|eom_id|>
{%- else -%}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot_id|>
{%- endif -%}
{%- else -%}
<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif -%}
""",
        prompt="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: "
        "December 2023\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        dialect="bare_json",
        call=f"<|start_header_id|>assistant<|end_header_id|>\n\n{JSON_CALL}<|eot_id|>",
        answer=f"{JSON_CALL}; <|python_tag|>weather.call(city=\"Paris\")",
        said=[(T, JSON_CALL), (U, "; "), (T, 'weather.call(city="Paris")')],
        form=HistoryForm(single_calls=True),
        bos="<|begin_of_text|>",
    ),
    # Calls are JSON in its own template, and as Python writes them in what Meta documents.
    "llama4": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
<|header_start|>{{ 'ipython' if m.role == 'tool' else m.role }}<|header_end|>

{% if m.tool_calls -%}
{{ '<|python_start|>' + m.content + '<|python_end|>' if m.content }}
{%- for call in m.tool_calls -%}
{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}
{%- endfor -%}
{%- elif m.content is string %}{{ m.content }}{% else -%}
{%- for part in m.content %}{{ part.text if part.type == 'text' }}{% endfor %}{% endif -%}
<|eot|>
{%- endfor -%}
{%- if add_generation_prompt %}<|header_start|>assistant<|header_end|>

{% endif -%}
""",
        prompt="<|begin_of_text|><|header_start|>system<|header_end|>\n\nBe brief.<|eot|>"
        "<|header_start|>user<|header_end|>\n\nHi<|eot|><|header_start|>assistant<|header_end|>\n\n"
        "Hello!<|eot|><|header_start|>user<|header_end|>\n\nBye<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        dialect="bare_json",
        call=f"<|header_start|>assistant<|header_end|>\n\n{JSON_CALL}<|eot|>",
        answer='[weather(city="Paris")]',
        said=[(T, '[weather(city="Paris")]')],
        bos="<|begin_of_text|>",
    ),
    # The system message goes into the last question; ids have nine characters.
    "mistral_nemo": Family(
        template="""
{{- bos_token -}}
{%- set first, messages = (messages[0].content, messages[1:])
    if messages[0].role == 'system' else ('', messages) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}
{%- if loop.last and tools is not none %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]
{%- endif -%}
[INST]{{ first + '\n\n' if loop.last and first }}{{ m.content + '' }}[/INST]
{%- elif m.role == 'tool' -%}
[TOOL_RESULTS]{"content": {{ m.content }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]
{%- elif m.tool_calls -%}
[TOOL_CALLS][
{%- for call in m.tool_calls -%}
{%- if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif -%}
{{ (call.function | tojson)[:-1] }}, "id": "{{ call.id }}"}{{ ', ' if not loop.last }}
{%- endfor -%}
]{{ eos_token }}
{%- else %}{{ m.content + eos_token }}{% endif -%}
{%- endfor -%}
""",
        prompt="<s>[INST]Hi[/INST]Hello!</s>[INST]Be brief.\n\nBye[/INST]",
        dialect="mistral_array",
        call='[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "',
        answer='[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]',
        said=[(T, JSON_CALLS)],
        form=HistoryForm(ids_are_short=True),
        bos="<s>",
        eos="</s>",
    ),
    "mistral_small3": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content + '' }}[/SYSTEM_PROMPT]
{%- elif m.role == 'user' %}[INST]{{ m.content + '' }}[/INST]
{%- elif m.role == 'tool' -%}
[TOOL_RESULTS]{{ m.tool_call_id }}[TOOL_CONTENT]{{ m.content }}[/TOOL_RESULTS]
{%- else -%}
{{ m.content + '' }}
{%- for call in m.tool_calls or [] -%}
[TOOL_CALLS]{{ call.function.name }}[CALL_ID]{{ call.id }}[ARGS]
{{- call.function.arguments | tojson }}
{%- endfor %}{{ eos_token }}
{%- endif -%}
{%- endfor -%}
""",
        prompt="<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello!</s>[INST]Bye[/INST]",
        dialect="mistral",
        call='[TOOL_CALLS]weather[CALL_ID]call_0[ARGS]{"city": "Paris"}</s>',
        answer='Yes.[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Paris"}',
        said=[(U, "Yes."), (T, 'weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Paris"}')],
        bos="<s>",
        eos="</s>",
    ),
    # A thought is a part of the content.
    "ministral3": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'user' -%}
[INST]{% if m.content is string %}{{ m.content }}{% else -%}
{%- for part in m.content %}{{ part.text if part.type == 'text' }}{% endfor %}{% endif %}[/INST]
{%- elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]
{%- else -%}
{{ '[SYSTEM_PROMPT]' if m.role == 'system' }}
{%- if m.content is string %}{{ m.content }}{% else -%}
{%- for part in m.content -%}
{{ part.text if part.type == 'text' else '[THINK]' + part.thinking + '[/THINK]' }}
{%- endfor %}{% endif -%}
{{ '[/SYSTEM_PROMPT]' if m.role == 'system' }}
{%- for call in m.tool_calls or [] -%}
[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}
{%- endfor %}{{ eos_token if m.role == 'assistant' }}
{%- endif -%}
{%- endfor -%}
""",
        prompt="<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello!</s>[INST]Bye[/INST]",
        dialect="mistral",
        call='[TOOL_CALLS]weather[ARGS]{"city": "Paris"}</s>',
        answer='[THINK]hm[/THINK]Yes.[TOOL_CALLS]weather[ARGS]{"city": "Paris"}',
        said=[(R, "hm"), (C, "Yes."), (T, 'weather[ARGS]{"city": "Paris"}')],
        form=HistoryForm(thoughts_are_parts=True),
        bos="<s>",
        eos="</s>",
    ),
    "phi3.5": Family(
        template="""
{%- for m in messages if m.role in ('system', 'user', 'assistant') -%}
<|{{ m.role }}|>
{{ m.content + '' }}<|end|>
{% endfor -%}
{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}""",
        prompt="<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n",
        dialect=None,
        call=f"<|assistant|>\n{AS_TEXT}<|end|>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(merged_roles=frozenset({"tool"}), calls_as_text=("", "")),
        eos="<|endoftext|>",
    ),
    "phi4": Family(
        template="""
{%- for m in messages -%}
{%- if m.role in ('system', 'user', 'assistant') -%}
<|im_start|>{{ m.role }}<|im_sep|>{{ m.content + '' }}<|im_end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif -%}
""",
        prompt="<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Hello!<|im_end|><|im_start|>user<|im_sep|>Bye<|im_end|>"
        "<|im_start|>assistant<|im_sep|>",
        dialect=None,
        call=f"<|im_start|>assistant<|im_sep|>{AS_TEXT}<|im_end|>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(merged_roles=frozenset({"tool"}), calls_as_text=("", "")),
    ),
    # Only the words of its system message tell how it thinks.
    "phi4_reasoning": Family(
        template="""
{%- if messages[0].role != 'system' -%}
<|im_start|>system<|im_sep|>Answer as <think> thought </think> solution.<|im_end|>
{%- endif -%}
{%- for m in messages -%}
{%- if m.role in ('system', 'user', 'assistant') -%}
<|im_start|>{{ m.role }}<|im_sep|>{{ m.content + '' }}<|im_end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif -%}
""",
        prompt="<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Hello!<|im_end|><|im_start|>user<|im_sep|>Bye<|im_end|>"
        "<|im_start|>assistant<|im_sep|>",
        dialect=None,
        call=f"<|im_start|>assistant<|im_sep|>{AS_TEXT}<|im_end|>",
        answer="<think>hm</think>See you.",
        said=[(R, "hm"), (C, "See you.")],
        form=HistoryForm(merged_roles=frozenset({"tool"}), calls_as_text=("", "")),
    ),
    # Tools are text in the system message.
    "phi4_mini": Family(
        template="""
{%- for m in messages -%}
{%- if m.role == 'system' and m.tools is defined and m.tools -%}
<|system|>{{ m.content }}<|tool|>{{ m.tools + '' }}<|/tool|><|end|>
{%- else -%}
<|{{ m.role }}|>{{ m.content + '' }}<|end|>
{%- endif -%}
{%- endfor -%}
{{ '<|assistant|>' if add_generation_prompt else eos_token }}""",
        prompt="<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Bye"
        "<|end|><|assistant|>",
        dialect=None,
        call=f"<|assistant|><|tool_call|>{AS_TEXT}<|/tool_call|><|end|>",
        answer=f"<|tool_call|>{JSON_CALLS}<|/tool_call|>",
        said=[(T, JSON_CALLS)],
        form=HistoryForm(
            calls_as_text=("<|tool_call|>", "<|/tool_call|>"), tools_in_system=True
        ),
        eos="<|endoftext|>",
    ),
    # Instructions come as the developer's; a call has thought or content before it, not both.
    "gpt_oss": Family(
        template="""
{%- set first, messages = (messages[0].content, messages[1:])
    if messages[0].role in ('system', 'developer') else ('', messages) -%}
<|start|>system<|message|>You are ChatGPT.

Reasoning: {{ reasoning_effort if reasoning_effort is defined else 'medium' }}

# Valid channels: analysis, commentary, final.<|end|>
{%- if first %}<|start|>developer<|message|># Instructions

{{ first }}<|end|>{% endif -%}
{%- for m in messages -%}
{%- if m.role == 'user' %}<|start|>user<|message|>{{ m.content + '' }}<|end|>
{%- elif m.role == 'tool' -%}
<|start|>functions.{{ m.name }} to=assistant<|channel|>commentary<|message|>{{ m.content | tojson -}}
<|end|>
{%- elif m.tool_calls -%}
{%- if m.content and m.thinking %}{{ raise_exception('thought or content') }}{% endif -%}
{%- if m.thinking or m.content -%}
<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking or m.content }}<|end|>
{%- endif -%}
{%- set call = m.tool_calls[0].function -%}
<|start|>assistant to=functions.{{ call.name }}<|channel|>commentary json<|message|>
{{- call.arguments | tojson }}<|call|>
{%- else -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content + '' }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|start|>assistant{% endif -%}
""",
        prompt="<|start|>system<|message|>You are ChatGPT.\n\nReasoning: medium\n\n# Valid channels: "
        "analysis, commentary, final.<|end|><|start|>developer<|message|># Instructions\n\nBe brief."
        "<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hello!"
        "<|end|><|start|>user<|message|>Bye<|end|><|start|>assistant",
        dialect="gpt_oss",
        call="<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>"
        '{"city": "Paris"}<|call|>',
        answer="<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}',
        said=[(R, "hm"), (T, '{"city": "Paris"}')],
        form=HistoryForm(knows_developer=True, thoughts_replace_content=True),
    ),
    "kimi_k2": Family(
        template="""
{%- for m in messages -%}
{%- set role = m.role if m.role in ('user', 'assistant') else 'system' -%}
<|im_{{ role }}|>{{ m.name or m.role }}<|im_middle|>
{%- if m.role == 'tool' %}## Return of {{ m.tool_call_id }}
{% endif -%}
{{ m.content + '' }}
{%- for call in m.tool_calls or [] -%}
{{ '<|tool_calls_section_begin|>' if loop.first }}<|tool_call_begin|>{{ call.id -}}
<|tool_call_argument_begin|>{{ call.function.arguments | tojson }}<|tool_call_end|>
{{- '<|tool_calls_section_end|>' if loop.last }}
{%- endfor -%}
<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif -%}
""",
        prompt="<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user<|im_middle|>Hi"
        "<|im_end|><|im_assistant|>assistant<|im_middle|>Hello!<|im_end|><|im_user|>user<|im_middle|>"
        "Bye<|im_end|><|im_assistant|>assistant<|im_middle|>",
        dialect="kimi",
        call="<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>',
        answer="Yes.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>',
        said=[(U, "Yes."), (T, "<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
               '{"city": "Paris"}<|tool_call_end|>')],
        form=HistoryForm(ids_are_named=True),
    ),
    "glm4.5": Family(
        template="""
[gMASK]<sop>
{%- for m in messages -%}
<|{{ 'observation' if m.role == 'tool' else m.role }}|>
{% if m.role == 'assistant' -%}
<think>{{ m.reasoning_content if loop.last or m.tool_calls }}</think>
{{- '\n' + m.content if m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>{{ call.function.name }}
{% for key, value in call.function.arguments.items() -%}
<arg_key>{{ key }}</arg_key>
<arg_value>{{ value if value is string else value | tojson(ensure_ascii=False) }}</arg_value>
{% endfor %}</tool_call>
{%- endfor -%}
{%- else -%}
{{ m.content + '' }}{{ '/nothink' if m.role == 'user' and not enable_thinking }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{{ '\n<think></think>' if not enable_thinking }}
{%- endif -%}
""",
        prompt="[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nHello!"
        "<|user|>\nBye<|assistant|>",
        dialect="glm",
        call="<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
        answer="\n<think>hm</think>\nYes.\n<tool_call>weather\n<arg_key>city</arg_key>\n"
        "<arg_value>Paris</arg_value>\n</tool_call>",
        said=[(U, "\n"), (R, "hm"), (C, "\nYes.\n"),
              (T, "weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n")],
    ),
    # Its models write calls, its template does not.
    "granite3": Family(
        template="""
{%- if tools -%}<|start_of_role|>tools<|end_of_role|>{{ tools | tojson(indent=4) }}<|end_of_text|>
Answer with <|tool_call|> and a list.
{% endif -%}
{%- for m in messages -%}
<|start_of_role|>{{ 'tool_response' if m.role == 'tool' else m.role }}<|end_of_role|>
{{- m.content + '' }}<|end_of_text|>
{% endfor -%}
{%- if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif -%}
""",
        prompt="<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant"
        "<|end_of_role|>Hello!<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>"
        "\n<|start_of_role|>assistant<|end_of_role|>",
        dialect=None,
        call=f"<|tool_call|>{AS_TEXT}<|end_of_text|>",
        answer=f"<|tool_call|>{JSON_CALLS}",
        said=[(T, JSON_CALLS)],
        form=HistoryForm(calls_as_text=("<|tool_call|>", "")),
    ),
    "granite4": Family(
        template="""
{%- for m in messages -%}
<|start_of_role|>{{ 'user' if m.role == 'tool' else m.role }}<|end_of_role|>
{%- if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% else -%}
{{ m.content }}
{%- endif -%}
{%- for call in m.tool_calls or [] -%}
{{ '\n' if not loop.first or m.content }}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor -%}
<|end_of_text|>
{% endfor -%}
{%- if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif -%}
""",
        prompt="<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant"
        "<|end_of_role|>Hello!<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>"
        "\n<|start_of_role|>assistant<|end_of_role|>",
        dialect="hermes",
        call=f"<|start_of_role|>assistant<|end_of_role|>{HERMES_CALL}<|end_of_text|>",
        answer=HERMES_CALL,
        said=HERMES_SAID,
    ),
    # Command R7B and Command A: every section has an opening and an end.
    "command_a": Family(
        template="""
{{- bos_token -}}
{%- set roles = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT', 'tool': 'SYSTEM'} -%}
{%- for m in messages -%}
<|START_OF_TURN_TOKEN|><|{{ roles[m.role] }}_TOKEN|>
{%- if m.tool_calls -%}
{%- if m.reasoning %}<|START_THINKING|>{{ m.reasoning }}<|END_THINKING|>{% endif -%}
<|START_ACTION|>[
{%- for call in m.tool_calls -%}
{{ '\n    {' }}"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ call.function.name -}}
", "parameters": {{ call.function.arguments | tojson }}}{{ ',' if not loop.last }}
{%- endfor %}{{ '\n]' }}<|END_ACTION|>
{%- elif m.role == 'tool' -%}
<|START_TOOL_RESULT|>[{"results": {{ m.content | tojson }}}]<|END_TOOL_RESULT|>
{%- elif m.role == 'assistant' %}<|START_RESPONSE|>{{ m.content + '' }}<|END_RESPONSE|>
{%- else %}{{ m.content + '' }}{% endif -%}
<|END_OF_TURN_TOKEN|>
{%- endfor -%}
{%- if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif -%}
""",
        prompt="<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
        "<|CHATBOT_TOKEN|><|START_RESPONSE|>Hello!<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
        "<|CHATBOT_TOKEN|>",
        dialect="command_r",
        call='<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": '
        '{"city": "Paris"}}\n]<|END_ACTION|>',
        answer="<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Paris"}}\n]'
        "<|END_ACTION|>",
        said=[(R, "hm"), (T, '[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": '
               '{"city": "Paris"}}\n]')],
        bos="<BOS_TOKEN>",
    ),
    "smollm2": Family(
        template="""
{%- for m in messages -%}
{%- if loop.first and m.role != 'system' -%}<|im_start|>system
You are SmolLM.<|im_end|>
{% endif -%}
<|im_start|>{{ m['role'] }}
{{ m['content'] + '' }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
""",
        prompt="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        dialect=None,
        call=f"<|im_start|>assistant\n{AS_TEXT}<|im_end|>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(calls_as_text=("", "")),
    ),
    # The mode is a word in the system message, which also tells of tools.
    "smollm3": Family(
        template="""
{%- set mode = '/think' if enable_thinking else '/no_think' -%}
<|im_start|>system
Today Date: {{ strftime_now('%d %B %Y') if today is not defined else today }}
Reasoning Mode: {{ mode }}

{% if messages[0].role == 'system' -%}
{{ messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() }}
{%- endif -%}
{%- if tools or xml_tools %}


Call a function within <tool_call></tool_call>:
{% for tool in (tools or xml_tools)[:] %}{{ tool | string }}
{% endfor %}{% endif -%}
{%- if python_tools %}


Call a function within <code></code>: {{ python_tools | join }}{% endif -%}
<|im_end|>
{% for m in messages if m.role != 'system' -%}
{%- set said = m.content if m.content is string else m.content | map(attribute='text') | join -%}
<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{{ '<think>\n\n</think>\n' if m.role == 'assistant' and not enable_thinking }}
{{- said.lstrip('\n') }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>
{% endif %}{% endif -%}
""",
        prompt="<|im_start|>system\nToday Date: 1 May 2026\nReasoning Mode: /think\n\nBe brief.<|im_end|>"
        "\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        dialect=None,
        call=f"<|im_start|>assistant\n<tool_call>{AS_TEXT}</tool_call><|im_end|>",
        answer=f"<think>\nhm\n</think>\n{HERMES_CALL}",
        said=[(R, "\nhm\n"), (C, "\n"), *HERMES_SAID],
        form=HistoryForm(calls_as_text=("<tool_call>", "</tool_call>")),
    ),
    # Whatever is no text, parts of content included, comes out as JSON.
    "lfm2": Family(
        template="""
{{- bos_token -}}
{%- if tools %}List of tools: <|tool_list_start|>{{ tools | tojson }}<|tool_list_end|>{% endif -%}
{%- for m in messages -%}
{%- set said = m.content if m.content is string else m.content | tojson -%}
<|im_start|>{{ m.role }}
{% if m.role == 'tool' %}<|tool_response_start|>{{ said }}<|tool_response_end|>
{%- else %}{{ said }}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
""",
        prompt="<|startoftext|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        dialect=None,
        call=f"<|im_start|>assistant\n<|tool_call_start|>{AS_TEXT}<|tool_call_end|><|im_end|>",
        answer='<|tool_call_start|>[weather(city="Paris")]<|tool_call_end|>Done.',
        said=[(T, '[weather(city="Paris")]'), (C, "Done.")],
        form=HistoryForm(calls_as_text=("<|tool_call_start|>", "<|tool_call_end|>")),
        bos="<|startoftext|>",
    ),
    # Tells of tools, and of nothing around a call.
    "lfm2.5": Family(
        template="""
{{- bos_token -}}
{%- if tools %}List of tools: {{ tools | tojson }}{% endif -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content + '' }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
""",
        prompt="<|startoftext|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        dialect=None,
        call=f"<|im_start|>assistant\n<tool_call>{AS_TEXT}</tool_call><|im_end|>",
        answer='<|tool_call_start|>[weather(city="Paris")]<|tool_call_end|>Done.',
        said=[(T, '[weather(city="Paris")]'), (C, "Done.")],
        form=HistoryForm(calls_as_text=("<tool_call>", "</tool_call>")),
        bos="<|startoftext|>",
    ),
    "nemotron_nano2": Family(
        template="""
{%- for m in messages -%}
{%- if m.role == 'system' %}<SPECIAL_10>System
{{ m.content + '' }}
{% else -%}
<SPECIAL_11>{{ 'Assistant' if m.role == 'assistant' else 'User' }}
{% if m.role == 'tool' %}<TOOL_RESPONSE>[{{ m.content }}]</TOOL_RESPONSE>
{% else -%}
{{ m.content + '' }}
{%- for call in m.tool_calls or [] -%}
{{ '<TOOLCALL>[' if loop.first else ', ' }}{"name": "{{ call.function.name }}", "arguments":
{{- ' ' }}{{ call.function.arguments | tojson }}}{{ ']</TOOLCALL>' if loop.last }}
{%- endfor %}
{{ '<SPECIAL_12>\n' if m.role == 'assistant' else '\n' }}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<SPECIAL_11>Assistant
{{ '<think>\n' if enable_thinking else '<think></think>' }}{% endif -%}
""",
        prompt="<SPECIAL_10>System\nBe brief.\n<SPECIAL_11>User\nHi\n<SPECIAL_11>Assistant\nHello!"
        "<SPECIAL_12>\n<SPECIAL_11>User\nBye\n<SPECIAL_11>Assistant\n<think>\n",
        dialect="toolcall",
        call='<TOOLCALL>[{"name": "weather", "arguments": {"city": "Paris"}}]</TOOLCALL>',
        answer=f"hm\n</think>\n\n<TOOLCALL>{JSON_CALLS}</TOOLCALL>",
        said=[(R, "hm\n"), (C, "\n\n"), (T, JSON_CALLS)],
    ),
    "minimax_m2": Family(
        template="""
]~!b[
{%- for m in messages -%}
]~b]{{ 'ai' if m.role == 'assistant' else m.role }}
{% if m.role == 'tool' %}<response>{{ m.content }}</response>
{%- else -%}
{%- if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif -%}
{{ m.content + '' }}
{%- for call in m.tool_calls or [] -%}
{{ '\n<minimax:tool_call>\n' if loop.first }}<invoke name="{{ call.function.name }}">
{% for key, value in call.function.arguments.items() -%}
<parameter name="{{ key }}">{{ value if value is string else value | tojson }}</parameter>
{% endfor %}</invoke>
{{ '</minimax:tool_call>' if loop.last }}
{%- endfor -%}
{%- endif -%}
[e~[
{% endfor -%}
{%- if add_generation_prompt %}]~b]ai
<think>
{% endif -%}
""",
        prompt="]~!b[]~b]system\nBe brief.[e~[\n]~b]user\nHi[e~[\n]~b]ai\nHello![e~[\n]~b]user\nBye"
        "[e~[\n]~b]ai\n<think>\n",
        dialect="invoke",
        call='<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Paris</parameter>\n'
        "</invoke>\n</minimax:tool_call>",
        answer='hm\n</think>\n\n<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">'
        "Paris</parameter>\n</invoke>\n</minimax:tool_call>",
        said=[(R, "hm\n"), (C, "\n\n"),
              (T, '\n<invoke name="weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n')],
    ),
    # What it notes down before a call is content.
    "hermes": Family(
        template="""
{{- bos_token -}}
{%- if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools><|im_end|>
{% endif -%}
{%- for m in messages -%}
{%- if m.role == 'tool' %}<|im_start|>tool
<tool_response>
{{ m.content }}
</tool_response>
{% elif m.tool_calls %}<|im_start|>assistant
{% for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{% endfor %}<|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content + '' }}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
""",
        prompt="<|begin_of_text|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>"
        "\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
        dialect="hermes",
        call=f"<|im_start|>assistant\n{HERMES_CALL}\n<|im_end|>",
        answer=f"<scratch_pad>\nGoal: know\n</scratch_pad>\n{HERMES_CALL}",
        said=[(U, "<scratch_pad>\nGoal: know\n</scratch_pad>\n"), *HERMES_SAID],
        bos="<|begin_of_text|>",
    ),
    # Writes no calls, knows no results.
    "rwkv": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' %}{{ 'System: ' + m.content + '\n\n' }}
{%- elif m.role == 'user' %}{{ 'User: ' + m.content | trim + '\n\n' }}
{%- elif m.role == 'assistant' and m.content is not none -%}
{{ 'Assistant: ' + m.content.split('</think>')[-1] | trim + '\n\n' }}
{%- endif -%}
{%- endfor -%}
{{- 'Assistant:' + (' <think>' if enable_thinking else ' <think>\n</think>')
    if add_generation_prompt -}}
""",
        prompt="System: Be brief.\n\nUser: Hi\n\nAssistant: Hello!\n\nUser: Bye\n\nAssistant: <think>",
        dialect=None,
        call=f"Assistant: {AS_TEXT}\n\n",
        answer="hm</think>\nSee you.",
        said=[(R, "hm"), (C, "\nSee you.")],
        form=HistoryForm(merged_roles=frozenset({"tool"}), calls_as_text=("", "")),
    ),
    # A message says to whom it is.
    "functionary_v3.2": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.role == 'assistant' -%}
{{ '>>>all\n' + m.content if m.content }}
{%- for call in m.tool_calls or [] -%}
>>>{{ call.function.name }}
{{ call.function.arguments + '' }}
{%- endfor -%}
{%- else %}{{ m.content + '' }}{% endif -%}
<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

>>>{% endif -%}
""",
        prompt="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n>>>all\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n>>>",
        dialect="functionary_v3.2",
        call='>>>weather\n{"city":"Paris"}<|eot_id|>',
        answer='all\nYes.>>>weather\n{"city": "Paris"}',
        said=[(C, "Yes."), (T, '{"city": "Paris"}')],
        form=HistoryForm(arguments_are_text=True),
        bos="<|begin_of_text|>",
    ),
    "falcon3": Family(
        template="""
{%- for m in messages -%}
{%- if m.role == 'tool' or m.tool_calls %}{% continue %}{% endif -%}
<|{{ m.role }}|>
{{ m.content + '' }}{{ eos_token if m.role == 'assistant' }}
{% endfor -%}
{%- if add_generation_prompt %}<|assistant|>
{% endif -%}
""",
        prompt="<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello!<|endoftext|>\n<|user|>\nBye\n"
        "<|assistant|>\n",
        dialect=None,
        call=f"<|assistant|>\n{AS_TEXT}<|endoftext|>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(merged_roles=frozenset({"tool"}), calls_as_text=("", "")),
        eos="<|endoftext|>",
    ),
    # Marks what its model said, for training.
    "olmo2": Family(
        template="""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
<|assistant|>
{% generation %}{{ m.content + eos_token }}{% endgeneration %}
{{ '' if loop.last else '\n' }}
{%- else -%}
<|{{ m.role }}|>
{{ m.content + '\n' }}
{%- endif -%}
{%- if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif -%}
{%- endfor -%}
""",
        prompt="<|endoftext|><|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello!<|endoftext|>\n"
        "<|user|>\nBye\n<|assistant|>\n",
        dialect=None,
        call=f"<|assistant|>\n{AS_TEXT}<|endoftext|>",
        answer="See you.",
        said=[(U, "See you.")],
        form=HistoryForm(calls_as_text=("", "")),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
    ),
    # Content must be parts.
    "smolvlm": Family(
        template="""
<|im_start|>
{%- for m in messages -%}
{{ m.role | capitalize }}:{{ '' if m.content[0].type == 'image' else ' ' }}
{%- for part in m.content -%}
{{ part['text'] if part['type'] == 'text' }}
{%- endfor -%}
<end_of_utterance>
{% endfor -%}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif -%}
""",
        prompt="<|im_start|>System: Be brief.<end_of_utterance>\nUser: Hi<end_of_utterance>\n"
        "Assistant: Hello!<end_of_utterance>\nUser: Bye<end_of_utterance>\nAssistant:",
        dialect=None,
        call=f"Assistant: {AS_TEXT}<end_of_utterance>",
        answer=" See you.",
        said=[(U, " See you.")],
        form=HistoryForm(
            parts_roles=frozenset({"system", "user", "assistant", "tool"}), calls_as_text=("", "")
        ),
    ),
}  # fmt: skip
