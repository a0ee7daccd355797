"""Values of flags that the benches have in common; a bad one is told in one line."""

import argparse
import math
from pathlib import Path
from typing import NoReturn

from paddler.cli import resolve_address
from paddler.config import Address
from paddler.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse whose every error is one line that says where help is; flags are not abbreviated."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"Error: {message}\nTry '{self.prog} --help'.\n")


def output(text: str) -> Path:
    """A file to write at the end, in a folder that is there at the beginning."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no such folder")
    return path


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return int(text)


def amount(text: str) -> float:
    """A finite number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 on")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = amount(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def chance(text: str) -> float:
    """A probability from 0 to 1."""
    value = amount(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a chance from 0 to 1")
    return value


def address(text: str) -> Address:
    """``host:port``, its name resolved."""
    try:
        return resolve_address("address", text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("address: ")) from None
