"""Every target on what is kept for it, and a short run of each towards new code."""

import importlib
import importlib.util
import os
from pathlib import Path

import pytest

from tests.fuzz.__main__ import drive
from tests.fuzz.corpus import TARGETS, corpus_of

# Of all targets together, a minute. The same random numbers each time: a failure comes again.
SECONDS_EACH = 5
SEED = 1


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_are_kept_hold_the_invariants(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.targets.{name}")
    for data in (*target.SEEDS, *corpus_of(name), b""):
        target.check(data)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine"
)
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="two sanitizer runtimes in one process")
@pytest.mark.parametrize("name", TARGETS)
def test_inputs_made_for_new_code_hold_the_invariants(name: str, tmp_path: Path) -> None:
    tried, failure, found = drive(name, SECONDS_EACH, tmp_path, seed=SEED)
    assert failure is None, "\n".join([failure or "", "for the corpus:", *found])
    assert tried > len(importlib.import_module(f"tests.fuzz.targets.{name}").SEEDS)
