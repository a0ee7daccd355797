"""How each API tells tokens, errors and the end, as bytes to look for.

A token is found without decoding JSON: its marker cannot stand inside a JSON string, where
its quotes would be escaped.
"""

from typing import Any, Final

import msgspec

from bench.load.plan import Api

decode = msgspec.json.Decoder().decode


class AnswerFormat(msgspec.Struct, frozen=True, kw_only=True):
    """A streamed answer: events that ``separator`` ends, some of which are tokens.

    ``token`` opens a token's text, ``no_text`` is the same of an empty one. An answer
    without ``end`` in it was cut short.
    """

    separator: bytes
    token: bytes
    no_text: bytes
    error: bytes
    end: bytes


SSE_END: Final = b"data: [DONE]"
CHAT: Final = AnswerFormat(
    separator=b"\n\n",
    token=b'content":"',
    no_text=b'content":""',
    error=b'"error":',
    end=SSE_END,
)
COMPLETIONS: Final = AnswerFormat(
    separator=b"\n\n",
    token=b'"text":"',
    no_text=b'"text":""',
    error=b'"error":',
    end=SSE_END,
)
NATIVE: Final = AnswerFormat(
    separator=b"\n",
    token=b'Token":"',
    no_text=b'Token":""',
    error=b'{"Error":',
    end=b'{"Done":',
)
NATIVE_EMBEDDINGS: Final = AnswerFormat(
    separator=b"\n",
    token=b'"embedding":[',
    no_text=b'"embedding":[]',
    error=b'"Error":',
    end=b'"Done"',
)


def _spaced(form: AnswerFormat) -> AnswerFormat:
    """The same, of servers that write JSON with a blank after each colon."""
    return msgspec.structs.replace(
        form,
        token=form.token.replace(b'":', b'": '),
        no_text=form.no_text.replace(b'":', b'": '),
        error=form.error.replace(b'":', b'": '),
    )


def _with_crlf(form: AnswerFormat) -> AnswerFormat:
    """The same, of servers whose lines end with CRLF."""
    return msgspec.structs.replace(form, separator=form.separator.replace(b"\n", b"\r\n"))


_SPACED: Final = {form: _spaced(form) for form in (CHAT, COMPLETIONS)}
_CRLF: Final = {form: _with_crlf(form) for form in (*_SPACED, *_SPACED.values())}


def variant_of(form: AnswerFormat, sample: bytes) -> AnswerFormat:
    """How the server that sent ``sample`` writes what is ``form`` otherwise."""
    spaced = _SPACED.get(form)
    if spaced is not None and (spaced.token in sample or spaced.error in sample):
        form = spaced
    if b"\r\n\r\n" in sample:
        form = _CRLF.get(form, form)
    return form


def format_of(api: Api, *, is_streamed: bool) -> AnswerFormat | None:
    """How answers come; ``None``: as one document."""
    match api:
        case Api.NATIVE_CHAT | Api.NATIVE_PROMPT:
            return NATIVE
        case Api.NATIVE_EMBEDDINGS:
            return NATIVE_EMBEDDINGS
        case Api.EMBEDDINGS:
            return None
        case Api.CHAT:
            return CHAT if is_streamed else None
        case Api.COMPLETIONS:
            return COMPLETIONS if is_streamed else None


def error_kind(event: bytes) -> str:
    """A short name for the error that an event tells."""
    try:
        document = decode(event.removeprefix(b"data: ").removeprefix(b"data:"))
        error = document.get("error") or document["Error"]["error"]
        return f"in the stream: {error.get('code') or error.get('type') or 'error'}"
    except (msgspec.DecodeError, KeyError, AttributeError, TypeError):
        return "in the stream: not understood"


def text_of(body: bytes, api: Api) -> str:
    """All text of an answer that was kept, streamed or not."""
    parts: list[str] = []
    for line in body.splitlines():
        payload = line.removeprefix(b"data:").strip()
        if not payload.startswith(b"{"):
            continue
        document = decode(payload)
        if api is Api.NATIVE_CHAT:
            token = document.get("Response", {}).get("response", {}).get("GeneratedToken", {})
            if isinstance(token, dict):
                parts.append(token.get("ContentToken", ""))
            continue
        for choice in document.get("choices", ()):
            said: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
            parts.append(said.get("content") or "")
    return "".join(parts)


def usage_tokens(body: bytes) -> int:
    """Generated tokens by a whole answer's usage; 0 where it tells none."""
    try:
        usage = decode(body).get("usage") or {}
        tokens = usage.get("completion_tokens", 0)
    except (msgspec.DecodeError, AttributeError):
        return 0
    return tokens if isinstance(tokens, int) else 0
