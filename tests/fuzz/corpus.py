"""Inputs that are kept: small ones that reach far, and all that ever broke something.

A file ``corpus/<target>.txt`` has a bytes literal a line; a line that begins with ``#`` says what
the inputs behind it had found.
"""

import ast
from pathlib import Path

_FOLDER = Path(__file__).parent
TARGETS = tuple(
    sorted(path.stem for path in _FOLDER.joinpath("targets").glob("*.py") if path.stem[0] != "_")
)


def corpus_file(target: str) -> Path:
    """Where a target's inputs are."""
    return _FOLDER / "corpus" / f"{target}.txt"


def corpus_of(target: str) -> list[bytes]:
    """A target's inputs, seeds not included."""
    path = corpus_file(target)
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]
