"""Runs one target: bytes are changed towards code that no earlier ones reached.

    python -m tests.fuzz.drive TARGET --seconds 60 --grown FOLDER --found FOLDER

Ends with 0 if every input held the target's invariants;
otherwise the input that did not is in ``--found``, and the failure on stderr.
"""

import argparse
import importlib
import logging
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.corpus import TARGETS, corpus_of

# Seconds after which one input counts as one that hangs.
PATIENCE_S = 20
MAX_INPUT_BYTES = 4_096
FOLLOWED = ("paddler", "tests.fastpath_twin", "jinja2")


def main() -> None:
    """Fuzz until the time is up; does not return, as libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--grown", type=Path, required=True, help="inputs that reached new code")
    parser.add_argument("--found", type=Path, required=True, help="inputs that broke something")
    parser.add_argument("--seed", type=int, default=0, help="of random numbers; 0: from the clock")
    arguments = parser.parse_args()
    name = f"tests.fuzz.targets.{arguments.target}"
    # What is to tell which code ran must be imported for the first time here. The twin does so for
    # the compiled code.
    with atheris.instrument_imports(include=list(FOLLOWED)):
        target = importlib.import_module(name)
    logging.disable(logging.CRITICAL)
    arguments.grown.mkdir(parents=True, exist_ok=True)
    arguments.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        known, words = Path(folder, "known"), Path(folder, "words")
        known.mkdir()
        for number, data in enumerate([*target.SEEDS, *corpus_of(arguments.target)]):
            (known / f"{number:04}").write_bytes(data)
        words.write_text("".join(f'"{escaped(word)}"\n' for word in target.DICTIONARY))
        options = [
            sys.argv[0],
            f"-max_total_time={arguments.seconds}",
            f"-artifact_prefix={arguments.found}/",
            f"-dict={words}",
            f"-max_len={MAX_INPUT_BYTES if len(max(target.SEEDS, key=len)) < 3000 else 16_384}",
            f"-timeout={PATIENCE_S}",
            "-print_final_stats=1",
            "-verbosity=0",
            f"-seed={arguments.seed}",
            str(arguments.grown),
            str(known),
        ]
        atheris.Setup(options, target.check)
        atheris.Fuzz()


def escaped(word: bytes) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
