"""How long prompts and answers are: one number, or drawn anew for each request."""

import argparse
import math
import random
from collections.abc import Callable

import msgspec

FORMS = "N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA"
MOST = 1_000_000


class Distribution(msgspec.Struct, frozen=True):
    """Whole numbers from 1 on. ``text`` is how it was asked for."""

    text: str
    draw: Callable[[random.Random], int]


def parse_distribution(text: str) -> Distribution:
    """The distribution that ``text`` names, in one of ``FORMS``."""
    kind, _, rest = text.partition(":")
    try:
        match kind, [float(word) for word in rest.split(":")] if rest else []:
            case "uniform", [low, high] if 1 <= low <= high <= MOST:
                return Distribution(text, lambda dice: dice.randint(int(low), int(high)))
            case "lognormal", [median, sigma] if 1 <= median <= MOST and 0 < sigma <= 5:
                mu = math.log(median)
                return Distribution(
                    text, lambda dice: max(1, min(MOST, round(dice.lognormvariate(mu, sigma))))
                )
            case number, [] if 1 <= int(number) <= MOST:
                fixed = int(number)
                return Distribution(text, lambda dice: fixed)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: expected {FORMS}, from 1 to {MOST}")
