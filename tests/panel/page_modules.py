"""The panel's modules under Node, for what needs no page."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.panel.browser import give_up

STATIC: Final = Path(__file__).parents[2] / "paddler/static"
TESTS: Final = Path(__file__).parent / "modules"
TIMEOUT_S: Final = 90.0


def laid_out(folder: Path) -> Path:
    """Copy the modules into ``static/`` of a folder where Node takes them for what they are."""
    if shutil.which("node") is None:
        give_up("Node is not installed: the panel's modules are tried in it")
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copytree(STATIC, folder / "static")
    for test in TESTS.glob("*.mjs"):
        shutil.copy(test, folder)
    return folder


def run_node(folder: Path, *arguments: str) -> str:
    """What Node prints; an error with all of it unless it ends well."""
    done = subprocess.run(
        ["node", *arguments], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
