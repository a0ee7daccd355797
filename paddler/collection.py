"""When Python looks for garbage that refers to itself.

Left alone it does so whenever the number of objects has grown by a quarter, and looks at all
of them: with thousands of streams that stops everything for tenths of a second, to find
nothing, as requests and streams leave no cycles behind.
"""

import gc
from typing import Final

THRESHOLDS: Final = (5_000, 5, 40)
"""Looks at the youngest objects after so many more of them; at the older ones every fifth of
these times; at all, every fortieth of those: a million objects later."""


def collect_later() -> None:
    """Not before :func:`collect_seldom`: a program that is read and set up leaves no garbage."""
    gc.set_threshold(0)


def collect_seldom() -> None:
    """From now on. What is there now is taken to stay, and not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
