"""Scripts under Node, where the clients of ``tests/clients/node`` are installed once."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SCRIPTS: Final = Path(__file__).parent / "node"
FOLDER: Final = Path(__file__).parents[2] / ".cache" / "node-clients"
TIMEOUT_S: Final = 60.0


def require_node_clients() -> None:
    """Install what the lock file names, unless it is there; skip where there is no Node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        _give_up("Node or npm is not installed")
    lock = (SCRIPTS / "package-lock.json").read_bytes()
    installed = FOLDER / "installed.json"  # a copy of the lock file, made last
    if not installed.is_file() or installed.read_bytes() != lock:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SCRIPTS / name, FOLDER)
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=FOLDER,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            _give_up(f"npm cannot install the clients: {done.stderr[-2000:]}")
        installed.write_bytes(lock)
    for script in SCRIPTS.glob("*.mjs"):  # beside the modules: that is where Node looks
        shutil.copy(script, FOLDER)


def run_script(name: str, url: str, **environment: str) -> str:
    """What a script prints; an error with all that it said unless it ends well."""
    done = subprocess.run(
        ["node", name],
        cwd=FOLDER,
        env=os.environ | {"OPENAI_BASE_URL": url} | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _give_up(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
