"""Checks of a grammar before llama.cpp compiles it, and dies of it.

llama.cpp parses and follows grammars by native recursion, looks for left recursion only
where a rule is empty by itself, and enters every rule that may come next at once: a few
lines can overflow its stack or ask for all memory. What is checked here is what that
depends on. Errors of syntax that lead to none of this are left for llama.cpp to tell.
"""

import functools
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from paddler.agent.worker.gbnf.writing import MAX_GRAMMAR_CHARS, Gbnf

MAX_CHARS: Final = 2 * MAX_GRAMMAR_CHARS

# Brackets within brackets. llama.cpp takes 0.5 KiB of its stack for each.
MAX_DEPTH: Final = 256

# With those that repetitions and brackets are made into; 0.1 KiB each.
MAX_RULES: Final = 100_000

# Rules that begin with rules, and so on. llama.cpp's search for left recursion takes 0.1 KiB
# of its stack for each.
MAX_CHAIN: Final = 10_000

# Characters and references once repetitions are written out: 16 bytes each.
MAX_ELEMENTS: Final = 1_000_000

# Ways to go on from one place in the grammar, times the tokens that are tried on each of
# them: at 15 ns each, 1.5 s for one token of the answer.
MAX_TRIALS: Final = 100_000_000


class UnsafeGrammar(Exception):
    """The grammar cannot be used; the message says why."""


class _Item(NamedTuple):
    """A part of a sequence: a rule, or characters if ``rule`` is ``None``."""

    rule: str | None
    elements: int
    least: int = 1
    most: int | None = 1
    is_token: bool = False


_Alternatives = list[list[_Item]]

_SPACE: Final = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_RULE: Final = re.compile(r"(?P<name>[A-Za-z0-9-]+)(?:[ \t]|#[^\r\n]*)*::=")
_PART: Final = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<range>\[(?:[^\]\\]|\\.)*\])"
    r"|(?P<token>!?<[^>]*>)"
    r"|(?P<name>[A-Za-z0-9-]+)"
    r"|(?P<any>\.)"
    r"|(?P<times>[*+?]|\{\s*(?P<least>\d{1,9})\s*(?P<comma>,\s*(?P<most>\d{1,9})?\s*)?\})"
    r"|(?P<open>\()|(?P<close>\))|(?P<or>\|)",
    re.DOTALL,
)


# The same tools come again with every turn of a conversation.
@functools.lru_cache(maxsize=16)
def check_grammar(grammar: Gbnf, *, vocabulary_size: int) -> bool:
    """Raise :class:`UnsafeGrammar` if compiling or using the grammar could end the process.

    Returns whether it names tokens: then not only their texts count.
    """
    text = grammar.text
    if len(text) > MAX_CHARS:
        raise UnsafeGrammar(
            f"the grammar has {len(text)} characters; {MAX_CHARS} are the most that is allowed"
        )
    # A NUL would end the text early and compile as another grammar.
    if "\0" in text or "\0" in grammar.root:
        raise UnsafeGrammar("the grammar contains a NUL character")
    rules = _read(text)
    _check_size(rules)
    nullable = _nullable(rules)
    ways: dict[str, int] = {}
    most = MAX_TRIALS // max(1, vocabulary_size)
    for name in _leftmost_first(rules, nullable):
        ways[name] = _ways(rules[name], ways, nullable)
        if ways[name] > most:
            raise UnsafeGrammar(
                f'the grammar is too ambiguous: {ways[name]} ways lead on from the rule "{name}"; '
                f"{most} are the most"
            )
    items = (item for alternatives in rules.values() for part in alternatives for item in part)
    return any(item.is_token for item in items)


# --- reading -----------------------------------------------------------------------------------


def _read(text: str) -> dict[str, _Alternatives]:
    """The rules by name; what stands in brackets is a rule of its own."""
    rules: dict[str, _Alternatives] = {}
    position = _end(_SPACE_AND_LINES, text, 0)
    while position < len(text):
        head = _RULE.match(text, position)
        if head is None:
            raise UnsafeGrammar(f"the grammar has no rule at {text[position : position + 40]!r}")
        name = head["name"]
        rules[name], position = _read_rule(text, head.end(), name, rules)
        position = _end(_SPACE_AND_LINES, text, position)
    return rules


def _read_rule(
    text: str, position: int, name: str, rules: dict[str, _Alternatives]
) -> tuple[_Alternatives, int]:
    """What stands after ``::=``, up to the end of the line."""
    position = _end(_SPACE_AND_LINES, text, position)
    alternatives: _Alternatives = [[]]
    outer: list[_Alternatives] = []  # around the brackets that are open
    while position < len(text) and (found := _PART.match(text, position)):
        position = found.end()
        match found.lastgroup:
            case "open":
                outer.append(alternatives)
                if len(outer) > MAX_DEPTH:
                    raise UnsafeGrammar(
                        f"the grammar has brackets more than {MAX_DEPTH} levels deep"
                    )
                alternatives = [[]]
            case "close":
                if not outer:
                    raise UnsafeGrammar(f'the rule "{name}" of the grammar closes too much')
                group = f"{name}({len(rules)})"
                rules[group] = alternatives
                alternatives = outer.pop()
                alternatives[-1].append(_Item(group, 1))
            case "or":
                alternatives.append([])
            case "times":
                _repeat(alternatives[-1], found, name)
            case "name":
                alternatives[-1].append(_Item(found["name"], 1))
            case kind:
                size = _size(found.group(), kind)
                alternatives[-1].append(_Item(None, size, is_token=kind == "token"))
        has_lines = outer or found.lastgroup in ("open", "or")
        position = _end(_SPACE_AND_LINES if has_lines else _SPACE, text, position)
    if outer:
        raise UnsafeGrammar(f'the rule "{name}" of the grammar has a bracket that is not closed')
    if position < len(text) and text[position] not in "\r\n":
        raise UnsafeGrammar(f"the grammar cannot be read at {text[position : position + 40]!r}")
    return alternatives, position


def _size(text: str, kind: str | None) -> int:
    """Most elements that a part becomes; 0 only if it is empty, as ``""`` and ``[^]`` are."""
    if kind not in ("text", "range"):
        return 1
    return len(text[1:-1].removeprefix("^" if kind == "range" else ""))


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    assert found is not None  # They match the empty text.
    return found.end()


def _repeat(sequence: list[_Item], found: re.Match[str], name: str) -> None:
    if not sequence or not sequence[-1].elements:
        raise UnsafeGrammar(f'the rule "{name}" of the grammar repeats nothing')
    least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found["times"], (None, None))
    if least is None:
        least = int(found["least"])
        most = int(found["most"]) if found["most"] else None if found["comma"] else least
    item = sequence.pop()
    if (item.least, item.most) != (1, 1):
        # Repeated twice: the worst of both is close enough.
        least *= item.least
        most = None if most is None or item.most is None else most * item.most
    sequence.append(item._replace(least=least, most=most))


# --- size --------------------------------------------------------------------------------------


def _check_size(rules: dict[str, _Alternatives]) -> None:
    items = [item for alternatives in rules.values() for part in alternatives for item in part]
    # An optional repetition is a rule of its own.
    optional = [1 if item.most is None else max(0, item.most - item.least) for item in items]
    count = len(rules) + sum(optional)
    if count > MAX_RULES:
        raise UnsafeGrammar(
            f"the grammar is too large: it makes {count} rules; {MAX_RULES} are the most"
        )
    elements = sum(
        item.elements * item.least + times * (item.elements + 2)
        for item, times in zip(items, optional, strict=True)
    )
    if elements > MAX_ELEMENTS:
        raise UnsafeGrammar(
            f"the grammar is too large: it makes {elements} elements; {MAX_ELEMENTS} are the most"
        )


# --- what may come first -----------------------------------------------------------------------


def _nullable(rules: dict[str, _Alternatives]) -> set[str]:
    """The rules that the empty text fits."""
    missing: list[int] = []  # by sequence, how many of its items are not known to be empty
    owners: list[str] = []
    users: dict[str, list[int]] = {}
    todo: list[str] = []
    for name, alternatives in rules.items():
        for sequence in alternatives:
            needed = [item for item in sequence if item.least and (item.rule or item.elements)]
            if not needed:
                todo.append(name)
            if all(item.rule for item in needed):
                for item in needed:
                    assert item.rule is not None
                    users.setdefault(item.rule, []).append(len(missing))
            missing.append(len(needed))
            owners.append(name)
    nullable: set[str] = set()
    while todo:
        name = todo.pop()
        if name in nullable:
            continue
        nullable.add(name)
        for sequence_index in users.get(name, ()):
            missing[sequence_index] -= 1
            if not missing[sequence_index]:
                todo.append(owners[sequence_index])
    return nullable


def _is_nullable(item: _Item, nullable: set[str]) -> bool:
    return not item.least or (not item.elements if item.rule is None else item.rule in nullable)


def _first_items(alternatives: _Alternatives, nullable: set[str]) -> Iterator[_Item]:
    """What may begin a text of the rule."""
    for sequence in alternatives:
        for item in sequence:
            yield item
            if not _is_nullable(item, nullable):
                break


def _leftmost_first(rules: dict[str, _Alternatives], nullable: set[str]) -> Iterator[str]:
    """All rules, each after those that may begin it; none may begin itself."""

    def parts(name: str) -> Iterator[str]:
        for item in _first_items(rules[name], nullable):
            if item.rule in rules:
                is_long = item.most is None or item.most > MAX_DEPTH
                if is_long and item.rule in nullable:
                    raise UnsafeGrammar(
                        f'the rule "{name}" of the grammar repeats without end, or more than '
                        f"{MAX_DEPTH} times, what may be empty"
                    )
                yield item.rule

    done: set[str] = set()
    for start in rules:
        if start in done:
            continue
        path: dict[str, Iterator[str]] = {start: parts(start)}
        while path:
            name = next(reversed(path))
            part = next((part for part in path[name] if part not in done), None)
            if part is None:
                del path[name]
                done.add(name)
                yield name
            elif part in path:
                raise UnsafeGrammar(
                    f'the grammar has left recursion, which is not supported: the rule "{part}" '
                    "may begin with itself"
                )
            else:
                path[part] = parts(part)
                if len(path) > MAX_CHAIN:
                    raise UnsafeGrammar(
                        f"the grammar has more than {MAX_CHAIN} rules that begin with each other"
                    )


def _ways(alternatives: _Alternatives, ways: dict[str, int], nullable: set[str]) -> int:
    total = 0
    for item in _first_items(alternatives, nullable):
        ways_of_item = 1 if item.rule is None else ways.get(item.rule, 1)
        # What may be empty is passed over as often as it is repeated.
        can_be_passed = item.rule is not None and item.rule in nullable
        total += ways_of_item * ((item.most or 1) if can_be_passed else 1)
    return total
