"""What a model file says of itself, read by llama.cpp and by us.

Invariants: a file opens and tells its metadata, template and special tokens, or is refused with
``EngineError``; nothing of ours raises anything else over what it says, or hangs. llama.cpp itself
may end the process over a broken file: that is a worker's, and is started anew.
"""

import functools
import os
import signal
import tempfile
import traceback
import warnings
from pathlib import Path

import gguf
import msgspec

from paddler.agent.worker.engine_llama import Model, start_backend
from paddler.agent.worker.engine_log import EngineError
from paddler.messages.worker import Opened
from tests.tiny_gguf import write_tiny_gguf

TENSOR_BYTES = 300_000
SOUND, REFUSED, RAISED = 0, 1, 2


def head_of(path: Path) -> bytes:
    """A file up to its tensors."""
    data = path.read_bytes()
    return data[: gguf.GGUFReader(path).data_offset]


def _seeds() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.gguf")
        return (
            head_of(write_tiny_gguf(path, metadata={"general.é": "ü"})),
            head_of(write_tiny_gguf(path, chat_template=None, architecture="qwen2vl")),
        )


SEEDS = _seeds()
DICTIONARY = (
    b"GGUF",
    b"\x03\x00\x00\x00",
    b"general.architecture",
    b"tokenizer.ggml.tokens",
    b"\xff" * 8,
    b"tokenizer.chat_template",
    b"\x08\x00\x00\x00",
    b"\x09\x00\x00\x00",
    b"\xed\xa0\x80",
)


@functools.cache
def memory_file() -> int:
    """A file that is nowhere on a disk."""
    start_backend()
    return os.memfd_create("model")


def check(data: bytes) -> None:
    """The invariants for ``data`` as the beginning of a model file."""
    fd = memory_file()
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data) + TENSOR_BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child only opens the file
        child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 5.0)  # its signal ends the process
        os._exit(opened(f"/proc/self/fd/{fd}"))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) != signal.SIGALRM, "it hangs"
        return
    assert os.WEXITSTATUS(status) in (SOUND, REFUSED), "a bug: see stderr"


def opened(path: str) -> int:
    """How opening a file ended, in this process."""
    try:
        model = Model(path, n_gpu_layers=0, on_progress=lambda _: True)
    except EngineError:
        return REFUSED
    except BaseException:
        return complained()
    try:
        # As it travels to the agent: what cannot be encoded would end the worker.
        msgspec.json.encode(Opened(metadata=model.metadata(), special_tokens=model.special_tokens))
        msgspec.json.encode([model.chat_template, model.tools_template])
        model.tokenize("Hello", limit=10)
        model.close()
    except BaseException:
        return complained()
    return SOUND


def complained() -> int:
    """The exit code for a bug, which is told on stderr."""
    traceback.print_exc()
    return RAISED
