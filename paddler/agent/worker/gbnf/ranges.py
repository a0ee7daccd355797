"""Numbers between two bounds, digit by digit."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from paddler.agent.worker.gbnf.writing import NotWritable, literal

# Digits of a whole number without a bound: all of them fit 64 bits and, exactly, a double.
MAX_DIGITS: Final = 15

ANY_INTEGER: Final = f'"-"? ("0" | [1-9] [0-9]{{0,{MAX_DIGITS - 1}}})'
_FRACTION: Final = f'"." [0-9]{{1,{MAX_DIGITS}}}'
ANY_NUMBER: Final = f"{ANY_INTEGER} ({_FRACTION})? ([Ee] [-+]? [0-9]{{1,2}})?"

# Digits behind the point where a bound lies between two whole numbers.
_BOUND_DIGITS: Final = 3


def integers_between(least: int | None, most: int | None) -> str:
    """An expression for the whole numbers from ``least`` to ``most``, both included.

    ``None``: as far as ``MAX_DIGITS`` digits go. Raises :class:`NotWritable` if there
    are none.
    """
    if least is None and most is None:
        return ANY_INTEGER
    end = 10**MAX_DIGITS - 1
    low = min(-end, 0 if most is None else most) if least is None else least
    high = max(end, 0 if least is None else least) if most is None else most
    if low > high:
        raise NotWritable(f"no whole number is at least {low} and at most {high}")
    parts = []
    if low < 0:
        parts += [f'"-" {part}' for part in _counting(max(1, -high), -low)]
    if low <= 0 <= high:
        parts.append('"0"')
    if high > 0:
        parts += _counting(max(1, low), high)
    return " | ".join(parts)


def numbers_between(
    least: float | None, most: float | None, is_least_excluded: bool, is_most_excluded: bool
) -> str:
    """An expression for decimal numbers from ``least`` to ``most``.

    Close to a bound that is not whole, some have more digits than are written here. Raises
    :class:`NotWritable` if there are none.
    """
    if least is None and most is None:
        return ANY_NUMBER
    end = Decimal(10**MAX_DIGITS - 1)
    low = -end if least is None else Decimal(repr(least))
    high = end if most is None else Decimal(repr(most))
    parts = []
    if low < 0 and low <= high:
        parts += [
            f'"-" {part}'
            for part in _decimals(
                max(Decimal(0), -high), -low, is_most_excluded and high <= 0, is_least_excluded
            )
        ]
    if high >= 0 and low <= high:
        parts += _decimals(
            max(Decimal(0), low), high, is_least_excluded and low >= 0, is_most_excluded
        )
    if not parts:
        raise NotWritable(f"no number is at least {low} and at most {high}")
    return " | ".join(parts)


def _decimals(
    low: Decimal, high: Decimal, is_low_excluded: bool, is_high_excluded: bool
) -> list[str]:
    """Alternatives for the numbers from ``low`` to ``high``, which are not negative."""
    first, last = _floor(low), _floor(high)
    parts = []
    if first == low and (low < high or (low == high and not is_high_excluded)):
        if not is_low_excluded:
            parts.append(literal(str(first)))
        if first < last:
            is_nothing = f'"." [0-9]{{0,{MAX_DIGITS - 1}}} [1-9]'
            parts.append(f"{literal(str(first))} {is_nothing if is_low_excluded else _FRACTION}")
    elif first < last:
        parts += _fractions(first, low - first, Decimal(1), is_low_excluded, True)
    if first + 1 < last:
        parts.append(f"({integers_between(first + 1, last - 1)}) ({_FRACTION})?")
    if first < last and not (last == high and is_high_excluded):
        parts.append(literal(str(last)))
    if last < high:
        from_low = first == last
        parts += _fractions(
            last,
            low - last if from_low else Decimal(0),
            high - last,
            from_low and is_low_excluded,
            is_high_excluded,
        )
    return parts


def _fractions(
    whole: int, low: Decimal, high: Decimal, is_low_excluded: bool, is_high_excluded: bool
) -> list[str]:
    """Alternatives for ``whole`` with a fraction between two that are less than 1."""
    parts = []
    for digits in range(1, _BOUND_DIGITS + 1):
        scale = 10**digits
        first = int((low * scale).to_integral_value(ROUND_CEILING))
        last = int((high * scale).to_integral_value(ROUND_FLOOR))
        first += is_low_excluded and first == low * scale
        last -= is_high_excluded and last == high * scale
        if first <= last:
            padded = _same_length(f"{first:0{digits}}", f"{last:0{digits}}")
            parts.append(f'{literal(str(whole))} "." {_group(padded)}')
    return parts


def _floor(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_FLOOR))


def _counting(low: int, high: int) -> list[str]:
    """Alternatives for the numbers from ``low`` to ``high``, which are positive."""
    parts = []
    while low <= high:
        digits = len(str(low))
        end = min(high, 10**digits - 1)
        if low == 10 ** (digits - 1) and end < high:
            # All numbers of these lengths at once.
            most_digits = len(str(high + 1)) - 1
            parts.append(f"[1-9] [0-9]{{{digits - 1},{most_digits - 1}}}")
            end = 10**most_digits - 1
        else:
            parts.append(_same_length(str(low), str(end)))
        low = end + 1
    return parts


def _same_length(low: str, high: str) -> str:
    """The numbers from ``low`` to ``high``, which have as many digits as each other."""
    if low == high:
        return literal(low)
    same = next(at for at in range(len(low)) if low[at] != high[at])
    prefix = f"{literal(low[:same])} " if same else ""
    low, high = low[same:], high[same:]
    rest = len(low) - 1
    if not rest:
        return f"{prefix}[{low}-{high}]"
    parts = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        parts.append(f"{literal(low[0])} {_group(_same_length(low[1:], '9' * rest))}")
        first += 1
    if high[1:] != "9" * rest:
        last -= 1
    if first <= last:
        digit = f"[{first}-{last}]" if first < last else literal(str(first))
        parts.append(f"{digit} [0-9]{{{rest}}}")
    if high[1:] != "9" * rest:
        parts.append(f"{literal(high[0])} {_group(_same_length('0' * rest, high[1:]))}")
    return f"{prefix}{_group(' | '.join(parts))}"


def _group(expression: str) -> str:
    return f"({expression})" if " " in expression else expression
