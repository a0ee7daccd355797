"""What answers keep to: their limits, their context, the parameters and templates in force."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import (
    PATIENT,
    Answer,
    Fleet,
    ask,
    ask_at_once,
    conversation,
    get,
    raw_prompt,
    request,
    tokens_of,
    usage_of,
    wait_until,
)
from tests.tiny_gguf import write_tiny_gguf

SAYS_YES = {"type": "gbnf", "grammar": 'root ::= "yes"', "root": "root"}
SHORT_CONTEXT = 256
LONG = 3000  # tokens, of the tiny model: about a second


def completion(usage: dict[str, int]) -> int:
    kinds = ("content", "reasoning", "tool_call", "undeterminable")
    return sum(usage[f"{kind}_tokens"] for kind in kinds)


def result_of(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last message of an answer."""
    result: dict[str, Any] = messages[-1]["Response"]["response"]["GeneratedToken"]
    return result


@pytest.fixture(scope="module")
def own_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One agent of 2 slots, for tests that change the state."""
    with Fleet(tmp_path_factory.mktemp("own"), *PATIENT) as fleet:
        fleet.start_agent("agent-1", 2)
        yield fleet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf", context_length=4096)


def desired_state(fleet: Fleet) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(get(fleet.management, "/api/v1/balancer_desired_state")[1])
    return state


def put_model(fleet: Fleet, path: Path, **parameters: Any) -> None:
    """Swap to a model with these parameters and wait until it serves."""
    (agent,) = fleet.agents
    old_worker, old_state = agent.children(), desired_state(fleet)
    fleet.put_model(path, **({"context_size": 4096} | parameters))
    if desired_state(fleet) != old_state:
        wait_until(lambda: agent.children() not in ([], old_worker), "a new worker")
    fleet.wait_slots(2)


# --- limits -------------------------------------------------------------------------------------


def test_usage_counts_the_tokens_that_were_streamed(fleet: Fleet) -> None:
    messages = ask(fleet.inference, raw_prompt("The sea", 20))
    assert len(tokens_of(messages)) == 20
    assert completion(usage_of(messages)) == 20


def test_conversation_keeps_to_its_limit(fleet: Fleet) -> None:
    messages = ask(fleet.inference, conversation("Tell me a long story of the sea.", 20))
    assert 0 < len(tokens_of(messages)) <= 20
    assert completion(usage_of(messages)) <= 20


def test_answer_that_has_come_to_its_end_stops_before_its_limit(fleet: Fleet) -> None:
    messages = ask(fleet.inference, raw_prompt("Is it so?", 50) | {"grammar": SAYS_YES})
    assert "".join(tokens_of(messages)) == "yes"
    assert completion(usage_of(messages)) < 50


def test_answers_at_once_are_their_own(fleet: Fleet) -> None:
    limits = (5, 17, 30)
    answers = ask_at_once(
        fleet.inference, [raw_prompt(f"Chapter {limit}.", limit) for limit in limits]
    )
    assert tuple(len(tokens_of(messages)) for messages in answers) == limits
    assert tuple(completion(usage_of(messages)) for messages in answers) == limits
    assert len({"".join(tokens_of(messages)) for messages in answers}) == len(limits)


# --- context and parameters ---------------------------------------------------------------------


def test_full_context_ends_the_longest_answer_and_no_other(
    own_fleet: Fleet, smollm2_path: Path
) -> None:
    put_model(own_fleet, smollm2_path, context_size=SHORT_CONTEXT)
    long, short = ask_at_once(
        own_fleet.inference, [raw_prompt("word " * 200, 2000), raw_prompt("Say hello.", 12)]
    )
    assert result_of(long) == {"SamplerError": "Request evicted due to KV cache pressure"}
    assert len(tokens_of(short)) == 12
    assert "Done" in result_of(short)
    assert len(tokens_of(ask(own_fleet.inference, raw_prompt("And then", 3)))) == 3
    # To OpenAI's clients a full context is a limit like any other.
    body = {
        "model": "any",
        "prompt": "word " * 200,
        "max_tokens": 2000,
        "logit_bias": {"38634": 100},
    }
    status, answer = request(own_fleet.openai, "POST", "/v1/completions", json.dumps(body).encode())
    (choice,) = json.loads(answer)["choices"]
    assert (status, choice["finish_reason"]) == (200, "length")
    assert choice["text"].startswith("Paris")


def test_an_agent_told_so_gives_each_slot_a_part_of_the_context(tmp_path: Path, tiny: Path) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        fleet.start_agent("divided", 2, "--no-kv-unified")
        fleet.put_model(tiny, context_size=2 * SHORT_CONTEXT)
        fleet.wait_slots(2)
        bos = 1
        refused = ask(fleet.inference, raw_prompt("x" * SHORT_CONTEXT, 3))
        assert result_of(refused) == {
            "SamplerError": "Request evicted due to KV cache pressure: the prompt has "
            f"{SHORT_CONTEXT + bos} tokens or more, the context of a slot {SHORT_CONTEXT}"
        }
        full = ask(fleet.inference, raw_prompt("x" * (SHORT_CONTEXT - bos), 1))
        assert "Done" in result_of(full)


@pytest.mark.parametrize(
    "parameters",
    [
        {"k_cache_dtype": "F16", "v_cache_dtype": "Q8_0"},
        {"k_cache_dtype": "Q4_0", "v_cache_dtype": "BF16", "n_gpu_layers": 10},
    ],
)
def test_parameters_of_the_engine_are_usable(
    own_fleet: Fleet, smollm2_path: Path, parameters: dict[str, Any]
) -> None:
    put_model(own_fleet, smollm2_path, **parameters)
    assert len(tokens_of(ask(own_fleet.inference, raw_prompt("Once", 4)))) == 4


# --- switches -----------------------------------------------------------------------------------


def chat_template(marker: str) -> str:
    return "{% for m in messages %}" + marker + "{{ m.content }}{% endfor %}"


def put_template(fleet: Fleet, template: str) -> None:
    override = {
        "chat_template_override": {"content": template},
        "use_chat_template_override": True,
    }
    fleet.put_state(desired_state(fleet) | override)


def wait_until_drains(fleet: Fleet) -> None:
    """The agent takes nothing new, and what runs goes on."""
    wait_until(lambda: fleet.slots_ready() == 0, "the swap begins")
    assert fleet.slots_busy() == 1


def prompt_tokens(fleet: Fleet) -> int:
    return usage_of(ask(fleet.inference, conversation("Hello", 1)))["prompt_tokens"]


def test_running_answer_completes_while_the_template_is_swapped_and_the_next_uses_it(
    own_fleet: Fleet, tiny: Path
) -> None:
    put_model(own_fleet, tiny)
    built_in = prompt_tokens(own_fleet)
    running = Answer(own_fleet.inference, raw_prompt("Once upon a time", LONG))
    running.first()
    put_template(own_fleet, chat_template("a b c "))
    wait_until_drains(own_fleet)
    # Asked in the midst of it: this one waits for the new template.
    late = prompt_tokens(own_fleet)
    messages = running.rest()
    assert len(tokens_of(messages)) == LONG - 1
    assert completion(usage_of(messages)) == LONG
    assert late < built_in

    put_template(own_fleet, chat_template("a b c d e f g h "))
    # Until the swap begins, requests are served as before.
    wait_until(lambda: own_fleet.slots_ready() == 0, "the next swap begins")
    assert prompt_tokens(own_fleet) > late


def test_running_answer_completes_while_the_model_is_switched(own_fleet: Fleet, tiny: Path) -> None:
    put_model(own_fleet, tiny)
    running = Answer(own_fleet.inference, raw_prompt("Once upon a time", LONG))
    running.first()
    own_fleet.put_model(tiny, context_size=1024)
    wait_until_drains(own_fleet)
    late = ask(own_fleet.inference, raw_prompt("And then", 3))
    messages = running.rest()
    assert len(tokens_of(messages)) == LONG - 1
    assert "Done" in result_of(messages)
    assert len(tokens_of(late)) == 3


def test_system_message_reaches_a_model_whose_template_refuses_it(
    own_fleet: Fleet, tiny: Path
) -> None:
    put_model(own_fleet, tiny)
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    put_template(own_fleet, refusing + chat_template(""))
    wait_until(lambda: own_fleet.slots_ready() == 0, "the swap begins")
    own_fleet.wait_slots(2)
    body = conversation("Hello", 1)
    plain = usage_of(ask(own_fleet.inference, body))["prompt_tokens"]
    body["conversation_history"].insert(0, {"role": "system", "content": "Be brief."})
    told = usage_of(ask(own_fleet.inference, body))["prompt_tokens"]
    assert told == plain + len("Be brief.\n\n".replace(" ", "   "))  # A space has three bytes.
