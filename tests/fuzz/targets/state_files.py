"""The balancer's state file.

Invariants: content is a state or one of the errors that ``FileDatabase.load`` turns into a
sentence; a state that was read is written and read again as the same one, keys that were missing
filled in.
"""

import msgspec

from paddler.balancer.desired_state import StateFile, parse_state_file
from paddler.messages.state import DEFAULT_DESIRED_STATE

SEEDS = (
    msgspec.json.encode(StateFile(DEFAULT_DESIRED_STATE)),
    b'{"balancer_desired_state": {}, "version": "1"}',
    b'{"balancer_desired_state": {"model": {"LocalToAgent": {"path": "/m.gguf"}},'
    b'"inference_parameters": {"temperature": 0.5, "n_batch": 64}}}',
    b'{"balancer_desired_state": {"model": {"HuggingFace": {"repo_id": "a/b", "filename": "c",'
    b'"revision": "main"}}}, "version": "2"}',
    b'{"balancer_desired_state": {"unknown": 1}}',
    b"[" * 2000,
)
DICTIONARY = (
    b'"inference_parameters"',
    b'"model"',
    b'"version"',
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b'"use_chat_template_override"',
    b'"multimodal_projection"',
    b"{}",
    b"[]",
    b"\\ud800",
    b'"chat_template_override"',
    b"NaN",
    b"18446744073709551616",
)


def check(data: bytes) -> None:
    """The invariants for ``data`` as the file's content."""
    try:
        state = parse_state_file(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    content = msgspec.json.format(msgspec.json.encode(StateFile(state)), indent=2)
    assert parse_state_file(content) == state
