import re
from pathlib import Path

from paddler import __version__

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def test_the_changelogs_top_version_is_this_one() -> None:
    top = re.search(r"^## \[(.+?)\]", CHANGELOG.read_text(), re.MULTILINE)
    assert top is not None
    assert top[1] == __version__
