"""What others wrote, as it may be shown on a terminal."""


def printable(text: str) -> str:
    """``text`` with what could move the cursor, or break a line, spelt out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
